/* clang-cl.exe of the tests in another directory: starts the compiler that TARGET names, or the
 * text clang-cl.shim beside it, as the programs of package managers do. */
#define WIN32_LEAN_AND_MEAN
#include <windows.h>

#include <stdio.h>
#include <wchar.h>

static wchar_t self[4096], target[4096], line[32768];

static int read_target(void) {
    char text[4096] = "", *from, *to;
    DWORD n = GetModuleFileNameW(NULL, self, 4000);
    if (!n || n >= 4000) return 0;
    wcscpy(wcsrchr(self, L'.'), L".shim");
    FILE *file = _wfopen(self, L"rb");
    if (!file) return 0;
    fread(text, 1, sizeof text - 1, file);
    fclose(file);
    if (!(from = strchr(text, '"')) || !(to = strchr(from + 1, '"'))) return 0;
    *to = '\0';
    return MultiByteToWideChar(CP_UTF8, 0, from + 1, -1, target, 4096) > 0;
}

int main(void) {
    const wchar_t *rest = GetCommandLineW();
    DWORD code = 127;
    wcscpy(target, TARGET);
    if (!*target && !read_target()) return 127;
    if (*rest == L'"') {
        rest = wcschr(rest + 1, L'"');
        if (!rest++) return 127;
    } else while (*rest && *rest != L' ') rest++;
    if (_snwprintf(line, 32767, L"\"%ls\" %ls", target, rest) < 0) return 127;
    STARTUPINFOW startup = {.cb = sizeof startup};
    PROCESS_INFORMATION started;
    if (!CreateProcessW(target, line, NULL, NULL, TRUE, 0, NULL, NULL, &startup, &started)) return 127;
    WaitForSingleObject(started.hProcess, INFINITE);
    GetExitCodeProcess(started.hProcess, &code);
    return (int)code;
}
