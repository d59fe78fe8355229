/* hpcc-cli.exe of the archive for Windows: runs `python.exe -I -m hpcc.cli WORDS...` with the Python beside it.
 * In an environment of pip its place has the program that pip makes. Not yet run on Windows. */
#include <stdbool.h>
#include <stdio.h>
#include <wchar.h>
#include <windows.h>

#define LENGTH(array) (sizeof(array) / sizeof *(array))
#define FAILED_TO_START 127

static wchar_t self[32768], line[32768];

/* Ctrl-C is for Python, which has the same console; this program waits for its end. */
static BOOL WINAPI ignore(DWORD event) { return event == CTRL_C_EVENT || event == CTRL_BREAK_EVENT; }

/* The words behind the program's name, as the caller quoted them. In the name only quotes count ("Parsing C
 * Command-Line Arguments" in Microsoft's documents). */
static const wchar_t *words(const wchar_t *at) {
    bool is_quoted = false;
    for (; *at && (is_quoted || (*at != L' ' && *at != L'\t')); at++)
        if (*at == L'"') is_quoted = !is_quoted;
    return at;
}

static int fail(const char *what) {
    fprintf(stderr, "hpcc: %s (error %lu): install hpcc again\n", what, GetLastError());
    return FAILED_TO_START;
}

int wmain(void) {
    STARTUPINFOW start = {.cb = sizeof start};
    PROCESS_INFORMATION process;
    DWORD code = FAILED_TO_START, units = GetModuleFileNameW(NULL, self, LENGTH(self));
    wchar_t *name = units && units < LENGTH(self) ? wcsrchr(self, L'\\') : NULL;
    if (!name || (size_t)(name - self) + sizeof "\\python.exe" > LENGTH(self)) return fail("its own place is not known");
    wcscpy(name, L"\\python.exe");
    if (swprintf(line, LENGTH(line), L"\"%ls\" -I -m hpcc.cli%ls", self, words(GetCommandLineW())) < 0) return fail("the command line is too long");
    SetConsoleCtrlHandler(ignore, TRUE);
    if (!CreateProcessW(self, line, NULL, NULL, TRUE, 0, NULL, NULL, &start, &process)) return fail("python.exe is not beside hpcc-cli.exe");
    CloseHandle(process.hThread);
    WaitForSingleObject(process.hProcess, INFINITE);
    if (!GetExitCodeProcess(process.hProcess, &code)) return fail("python.exe ended in an unknown way");
    return (int)code;
}
