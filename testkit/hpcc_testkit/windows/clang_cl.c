/* clang-cl.exe of the tests: starts the zig.exe beside it as clang with the command line of cl.
 *
 * Each start adds one byte to clang-cl.runs beside it, so that a test can count them. */
#define WIN32_LEAN_AND_MEAN
#include <windows.h>

#include <wchar.h>

#ifndef MORE
#define MORE L""
#endif

static wchar_t self[4096], other[4096], line[32768];

static void beside(const wchar_t *name) {
    wcscpy(other, self);
    wcscat(other, name);
}

int main(void) {
    const wchar_t *rest = GetCommandLineW();
    DWORD n = GetModuleFileNameW(NULL, self, 4000), written, code = 127;
    if (!n || n >= 4000) return 127;
    *wcsrchr(self, L'\\') = L'\0';
    /* The first word is this program, quoted if it has a space. */
    if (*rest == L'"') {
        rest = wcschr(rest + 1, L'"');
        if (!rest++) return 127;
    } else while (*rest && *rest != L' ') rest++;
    beside(L"\\clang-cl.runs");
    HANDLE runs = CreateFileW(other, FILE_APPEND_DATA, FILE_SHARE_READ | FILE_SHARE_WRITE, NULL, OPEN_ALWAYS, 0, NULL);
    if (runs == INVALID_HANDLE_VALUE || !WriteFile(runs, "x", 1, &written, NULL)) return 127;
    CloseHandle(runs);
    beside(L"\\zig.exe");
    if (_snwprintf(line, 32767, L"\"%ls\" clang --driver-mode=cl --target=x86_64-pc-windows-msvc -resource-dir \"%ls\\lib\" " MORE L" %ls",
                   other, self, rest) < 0) return 127;
    STARTUPINFOW startup = {.cb = sizeof startup};
    PROCESS_INFORMATION started;
    if (!CreateProcessW(other, line, NULL, NULL, TRUE, 0, NULL, NULL, &startup, &started)) return 127;
    WaitForSingleObject(started.hProcess, INFINITE);
    GetExitCodeProcess(started.hProcess, &code);
    return (int)code;
}
