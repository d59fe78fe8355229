/* hpcc.exe, the launcher on Windows: one process per compile, as hpcc.c is elsewhere.
 *
 * A request whose hit the daemon has kept is answered by this program alone (win_hit.h). Any other is
 * sent to the user's daemon as one frame over a named pipe. Then this prints what the daemon has made
 * (DONE), runs the compiler and reports (RUN), or runs the compiler without a report (EXEC). If
 * anything goes wrong before DONE (no daemon, another user's, silence, a malformed answer), the
 * compiler runs as if hpcc were not there. Every other command is passed to hpcc-cli.exe beside this
 * file.
 *
 * In this program text is UTF-16 as Windows passes it; on the pipe it is UTF-8. Text that is not valid
 * UTF-16 (half of a pair) is never sent: the compiler gets it unchanged.
 *
 * Sources: Win32 documentation of named pipes, impersonation levels, CreateProcess, job objects and
 * SetConsoleCtrlHandler. Cross-built with mingw-w64 and run under Wine; not yet run on Windows. */
#define WIN32_LEAN_AND_MEAN
#define _WIN32_WINNT 0x0A00
#include <windows.h>

#include <sddl.h>
#include <shellapi.h>
#include <stdbool.h>
#include <stdlib.h>
#include <wchar.h>

#include "win_line.h"
#include "commands.h"
#include "wire.h"

#if !defined(HPCC_BUILD_ID) || !defined(HPCC_PROTOCOL)
#error "build with tools/hatch_build.py, which says which daemon this belongs to"
#endif

/* Deadlines in milliseconds, as in hpcc.c; a test builds with shorter ones. */
#ifndef FIRST_FRAME_MS
#define FIRST_FRAME_MS 2000
#endif
#ifndef NEXT_FRAME_MS
#define NEXT_FRAME_MS 10000
#endif
#ifndef START_MS
#define START_MS 10000 /* for a daemon that is being started */
#endif
#define START_FAILED_MS 30000 /* do not try a daemon that cannot start for this long */
#define HUNG_MS 10000         /* nor one that hangs for this long */
#define MAX_DEPTH 8
#define HOLD_BYTES (64u << 20)
#define MAX_LONG_PATH 32768
#define MAX_SID_BYTES 256
#define EXIT_CANNOT_RUN 127
#define EXIT_USAGE 2

/* Variables that change what a compiler does, and ours, in the spelling that the daemon expects: on
 * Windows their case does not count. A name that ends in "_" is a prefix, except _CL_. Sources:
 * Microsoft's documentation of cl, LLVM's MSVCPaths.cpp, the clang driver. */
static const wchar_t *const ENV_NAMES[] = {
    L"CL", L"_CL_", L"INCLUDE", L"EXTERNAL_INCLUDE", L"LIB", L"LIBPATH", L"VSLANG",
    L"VCToolsInstallDir", L"VCToolsVersion", L"VCINSTALLDIR", L"WindowsSdkDir", L"WindowsSDKVersion",
    L"UniversalCRTSdkDir", L"UCRTVersion", L"PATH", L"PATHEXT", L"TMP", L"TEMP", L"CPATH",
    L"C_INCLUDE_PATH", L"CPLUS_INCLUDE_PATH", L"SOURCE_DATE_EPOCH", L"NO_COLOR",
    L"CCC_", L"CLANG_", L"HPCC_",
};
#define DEPTH_VARIABLE L"HPCC_DEPTH"

static const wchar_t *const COMPILERS[] = {L"cl", L"clang-cl", L"icx-cl", L"clang", L"clang++", L"gcc", L"g++", L"cc", L"c++"};

#define LENGTH(array) (sizeof(array) / sizeof *(array))

static wchar_t found[MAX_LONG_PATH], self[MAX_LONG_PATH];
static wchar_t run_directory[MAX_LONG_PATH], in_run[MAX_LONG_PATH];

/* ---- helpers ---- */

static bool write_all(HANDLE to, const void *data, size_t bytes) {
    const char *p = data;
    while (bytes) {
        DWORD written = 0, chunk = bytes < 1u << 20 ? (DWORD)bytes : 1u << 20;
        if (!WriteFile(to, p, chunk, &written, NULL)) return false;
        p += written;
        bytes -= written;
    }
    return true;
}

static void complain(const wchar_t *what, const char *why) {
    HANDLE err = GetStdHandle(STD_ERROR_HANDLE);
    char text[4 * MAX_PATH];
    int n = WideCharToMultiByte(CP_UTF8, 0, what, -1, text, sizeof text, NULL, NULL);
    write_all(err, "hpcc: ", 6);
    if (n > 1) write_all(err, text, (size_t)n - 1);
    write_all(err, why, strlen(why));
    write_all(err, "\r\n", 2);
}

static bool is_same_text(const wchar_t *a, const wchar_t *b) {
    return CompareStringOrdinal(a, -1, b, -1, TRUE) == CSTR_EQUAL;
}

/* True if `text` begins with `prefix`, ignoring case. */
static bool begins_with(const wchar_t *text, const wchar_t *prefix) {
    int n = (int)wcslen(prefix);
    return (int)wcslen(text) >= n && CompareStringOrdinal(text, n, prefix, n, TRUE) == CSTR_EQUAL;
}

static const wchar_t *base_name(const wchar_t *path) {
    const wchar_t *name = path;
    for (; *path; path++)
        if (*path == L'\\' || *path == L'/' || *path == L':') name = path + 1;
    return name;
}

static bool has_directory(const wchar_t *path) { return base_name(path) != path; }

static bool is_compiler_name(const wchar_t *name) {
    wchar_t stem[32];
    size_t length = wcslen(name);
    if (length > 4 && is_same_text(name + length - 4, L".exe")) length -= 4;
    if (length >= LENGTH(stem)) return false;
    wmemcpy(stem, name, length);
    stem[length] = L'\0';
    for (size_t i = 0; i < LENGTH(COMPILERS); i++)
        if (is_same_text(stem, COMPILERS[i])) return true;
    return false;
}

/* A command of hpcc wins over a program of the same name. */
static bool is_command(const wchar_t *word) {
#define IS_WORD(name) !wcscmp(word, L##name) ||
    return EACH_COMMAND(IS_WORD) false;
#undef IS_WORD
}

/* ---- finding the compiler ---- */

static bool file_id(const wchar_t *path, DWORD flags, uint64_t id[2]) {
    BY_HANDLE_FILE_INFORMATION info;
    HANDLE file = CreateFileW(path, 0, FILE_SHARE_READ | FILE_SHARE_WRITE | FILE_SHARE_DELETE, NULL, OPEN_EXISTING, flags, NULL);
    if (file == INVALID_HANDLE_VALUE) return false;
    bool is_known = GetFileInformationByHandle(file, &info);
    CloseHandle(file);
    if (!is_known) return false;
    id[0] = info.dwVolumeSerialNumber;
    id[1] = (uint64_t)info.nFileIndexHigh << 32 | info.nFileIndexLow;
    return true;
}

static bool is_file(const wchar_t *path) {
    DWORD attributes = GetFileAttributesW(path);
    return attributes != INVALID_FILE_ATTRIBUTES && !(attributes & FILE_ATTRIBUTE_DIRECTORY);
}

/* By name or by file identity. The depth limit catches a copy under a compiler's name. */
static bool is_self(const wchar_t *path) {
    uint64_t ours[2], other[2];
    if (is_same_text(base_name(path), L"hpcc.exe")) return true;
    return file_id(self, 0, ours) && file_id(path, 0, other) && ours[0] == other[0] && ours[1] == other[1];
}

/* Only programs: a batch file needs cmd.exe, and no quoting passes all arguments through it unchanged. */
static bool is_program(const wchar_t *extension, size_t length) {
    return length == 4 && (CompareStringOrdinal(extension, 4, L".exe", 4, TRUE) == CSTR_EQUAL ||
                           CompareStringOrdinal(extension, 4, L".com", 4, TRUE) == CSTR_EQUAL);
}

/* Complete the path of this length in `found`, in the order of PATHEXT. */
static bool complete(size_t length) {
    wchar_t extensions[1024];
    DWORD n = GetEnvironmentVariableW(L"PATHEXT", extensions, LENGTH(extensions));
    if (!n || n >= LENGTH(extensions)) wcscpy(extensions, L".COM;.EXE");
    if (length >= 4 && is_program(found + length - 4, 4) && is_file(found)) return true;
    if (length + 5 > LENGTH(found)) return false;
    for (const wchar_t *e = extensions; *e;) {
        size_t more = wcscspn(e, L";");
        if (is_program(e, more)) {
            wmemcpy(found + length, e, more);
            found[length + more] = L'\0';
            if (is_file(found)) return true;
        }
        e += more + (e[more] == L';');
    }
    return false;
}

/* True for a path that begins with a drive or server: the current directory is never searched. */
static bool is_rooted(const wchar_t *part, size_t length) {
    bool is_drive = length >= 3 && part[1] == L':' && (part[2] == L'\\' || part[2] == L'/');
    return is_drive || (length >= 2 && part[0] == L'\\' && part[1] == L'\\');
}

/* Puts the first compiler on PATH that is not hpcc into `found`. */
static bool search_compiler(const wchar_t *name, bool *is_shadowed) {
    DWORD size = GetEnvironmentVariableW(L"PATH", NULL, 0);
    wchar_t *path = size ? malloc(size * sizeof *path) : NULL;
    if (!path || GetEnvironmentVariableW(L"PATH", path, size) >= size) return free(path), false;
    bool is_found = false;
    for (const wchar_t *part = path; *part && !is_found;) {
        size_t length = wcscspn(part, L";"), end = length;
        const wchar_t *from = part;
        if (end >= 2 && from[0] == L'"' && from[end - 1] == L'"') from++, end -= 2;
        if (is_rooted(from, end) && end + 1 + wcslen(name) < LENGTH(found)) {
            wmemcpy(found, from, end);
            if (found[end - 1] != L'\\' && found[end - 1] != L'/') found[end++] = L'\\';
            wcscpy(found + end, name);
            if (complete(wcslen(found))) {
                if (is_self(found)) *is_shadowed = true;
                else is_found = true;
            }
        }
        part += length + (part[length] == L';');
    }
    free(path);
    return is_found;
}

/* Puts the absolute path of the file that `name` means into `found`. Prints the reason if there is none. */
static bool find_compiler(const wchar_t *name) {
    bool is_shadowed = false;
    if (!has_directory(name)) {
        if (search_compiler(name, &is_shadowed)) return true;
        complain(name, is_shadowed ? " on PATH is hpcc itself alone; add the directory of the compiler" : ": no such compiler on PATH");
        return false;
    }
    DWORD n = GetFullPathNameW(name, LENGTH(found), found, NULL);
    if (!n || n >= LENGTH(found)) return complain(name, ": the path is too long"), false;
    if (!complete(n)) return complain(name, ": no such program"), false;
    if (is_self(found)) return complain(name, " is hpcc itself, not a compiler"), false;
    return true;
}

/* ---- running a program ---- */

/* The console sends Ctrl-C and Ctrl-Break to the program too, because it is in our group: we stay until
 * it has ended. At the end of a session we end, and the job ends the program. */
static BOOL WINAPI on_control(DWORD kind) { return kind == CTRL_C_EVENT || kind == CTRL_BREAK_EVENT; }

/* A job that ends the program with us, and only the program: mspdbsrv.exe serves other compiles too. */
static HANDLE make_job(void) {
    HANDLE job = CreateJobObjectW(NULL, NULL);
    JOBOBJECT_EXTENDED_LIMIT_INFORMATION limits = {0};
    limits.BasicLimitInformation.LimitFlags = JOB_OBJECT_LIMIT_KILL_ON_JOB_CLOSE | JOB_OBJECT_LIMIT_SILENT_BREAKAWAY_OK;
    if (job) SetInformationJobObject(job, JobObjectExtendedLimitInformation, &limits, sizeof limits);
    return job;
}

/* Start `program` with the command line in `line`; it inherits all inheritable handles, as from a shell. */
static DWORD start(const wchar_t *program, HANDLE out, HANDLE err, HANDLE *process) {
    STARTUPINFOW startup = {.cb = sizeof startup, .dwFlags = STARTF_USESTDHANDLES};
    PROCESS_INFORMATION started;
    startup.hStdInput = GetStdHandle(STD_INPUT_HANDLE);
    startup.hStdOutput = out;
    startup.hStdError = err;
    HANDLE handles[] = {startup.hStdInput, out, err};
    for (size_t i = 0; i < LENGTH(handles); i++)
        if (handles[i] && handles[i] != INVALID_HANDLE_VALUE) SetHandleInformation(handles[i], HANDLE_FLAG_INHERIT, HANDLE_FLAG_INHERIT);
    SetConsoleCtrlHandler(on_control, TRUE);
    if (!CreateProcessW(program, line, NULL, NULL, TRUE, CREATE_SUSPENDED, NULL, NULL, &startup, &started)) {
        DWORD error = GetLastError();
        SetConsoleCtrlHandler(on_control, FALSE);
        return error;
    }
    HANDLE job = make_job(); /* held until we end */
    if (job) AssignProcessToJobObject(job, started.hProcess);
    ResumeThread(started.hThread);
    CloseHandle(started.hThread);
    *process = started.hProcess;
    return 0;
}

static DWORD wait_for_end(HANDLE process) {
    DWORD code = EXIT_CANNOT_RUN;
    WaitForSingleObject(process, INFINITE);
    GetExitCodeProcess(process, &code);
    CloseHandle(process);
    return code;
}

/* Replaces exec: the program uses our streams, and its exit code becomes ours. */
static _Noreturn void become(const wchar_t *program, wchar_t **argv) {
    HANDLE process;
    if (!put_line(argv)) {
        complain(program, ": the command line is longer than Windows allows");
        ExitProcess(EXIT_CANNOT_RUN);
    }
    if (start(program, GetStdHandle(STD_OUTPUT_HANDLE), GetStdHandle(STD_ERROR_HANDLE), &process)) {
        complain(program, ": cannot be run");
        ExitProcess(EXIT_CANNOT_RUN);
    }
    ExitProcess(wait_for_end(process));
}

/* Put the path of hpcc-cli.exe, which is beside this program, at `to`. */
static bool find_cli(wchar_t *to) {
    size_t at = (size_t)(base_name(self) - self);
    if (at + 13 > MAX_LONG_PATH) return false;
    wmemcpy(to, self, at);
    wcscpy(to + at, L"hpcc-cli.exe");
    return is_file(to);
}

static int run_cli(wchar_t **argv) {
    static wchar_t cli[MAX_LONG_PATH];
    if (find_cli(cli)) become(cli, argv);
    complain(L"hpcc-cli.exe", " is not beside hpcc.exe; install the hpcc package again");
    return EXIT_CANNOT_RUN;
}

/* ---- users ---- */

/* The user of a token, as TOKEN_USER followed by its SID. */
static bool user_of(HANDLE process, void *user, DWORD size) {
    HANDLE token;
    if (!OpenProcessToken(process, TOKEN_QUERY, &token)) return false;
    bool is_known = GetTokenInformation(token, TokenUser, user, size, &size);
    CloseHandle(token);
    return is_known;
}

#define SID_OF(user) (((TOKEN_USER *)(user))->User.Sid)
static _Alignas(16) char own_user[MAX_SID_BYTES];

/* True if this user made the pipe: the owner in its descriptor is the maker, and no other user can set
 * ours. The number of the server's process proves nothing, because numbers are reused. */
static bool is_own_object(HANDLE pipe) {
    _Alignas(16) char descriptor[1024];
    DWORD size = sizeof descriptor;
    PSID owner = NULL;
    BOOL is_default;
    if (!GetKernelObjectSecurity(pipe, OWNER_SECURITY_INFORMATION, descriptor, size, &size)) return false;
    return GetSecurityDescriptorOwner(descriptor, &owner, &is_default) && owner && EqualSid(owner, SID_OF(own_user));
}

static bool is_own_server(HANDLE pipe) {
    _Alignas(16) char user[MAX_SID_BYTES];
    ULONG id = 0;
    if (!GetNamedPipeServerProcessId(pipe, &id)) return false;
    HANDLE process = OpenProcess(PROCESS_QUERY_LIMITED_INFORMATION, FALSE, id);
    if (!process) return false;
    bool is_ours = user_of(process, user, sizeof user) && EqualSid(SID_OF(user), SID_OF(own_user));
    CloseHandle(process);
    return is_ours;
}

/* \\.\pipe\hpcc- and a hash of the user's SID, and of HPCC_DIR if set: must agree with daemon_pipe in
 * wire/pipe.py. Anyone can guess and take this name: hence the checks above. */
static bool find_pipe(wchar_t *name) {
    char text[4096], hex[24];
    wchar_t wide[1024], *sid;
    if (!user_of(GetCurrentProcess(), own_user, sizeof own_user) || !ConvertSidToStringSidW(SID_OF(own_user), &sid)) return false;
    int n = WideCharToMultiByte(CP_UTF8, WC_ERR_INVALID_CHARS, sid, -1, text, sizeof text, NULL, NULL);
    LocalFree(sid);
    if (!n) return false;
    uint64_t hash = fnv1a(FNV_START, text);
    DWORD length = GetEnvironmentVariableW(L"HPCC_DIR", wide, LENGTH(wide));
    if (length >= LENGTH(wide)) return false;
    if (length) {
        if (!WideCharToMultiByte(CP_UTF8, WC_ERR_INVALID_CHARS, wide, -1, text, sizeof text, NULL, NULL)) return false;
        hash = fnv1a(fnv1a(hash, "\n"), text);
    }
    put_number(hex, hash, 16, 16);
    wcscpy(name, L"\\\\.\\pipe\\hpcc-");
    size_t at = wcslen(name);
    for (size_t i = 0; i <= 16; i++) name[at + i] = (wchar_t)hex[i];
    return true;
}

/* ---- the pipe, with deadlines ---- */

struct pipe {
    HANDLE handle, event;
    bool is_silent; /* the last read or write ended by its deadline */
};

static int64_t now_ms(void) { return (int64_t)GetTickCount64(); }

/* Connects; returns 0 or the error: see is_nobody_there. The server can identify us but not act as us. */
static DWORD dial(const wchar_t *name, struct pipe *pipe, int patience_ms) {
    int64_t deadline = now_ms() + patience_ms;
    for (;;) {
        pipe->handle = CreateFileW(name, GENERIC_READ | GENERIC_WRITE, 0, NULL, OPEN_EXISTING,
                                   FILE_FLAG_OVERLAPPED | SECURITY_SQOS_PRESENT | SECURITY_IDENTIFICATION, NULL);
        if (pipe->handle != INVALID_HANDLE_VALUE) break;
        DWORD error = GetLastError();
        int64_t left = deadline - now_ms();
        if (error != ERROR_PIPE_BUSY || left <= 0) return error ? error : ERROR_ACCESS_DENIED;
        WaitNamedPipeW(name, (DWORD)left); /* 0 would mean the server's default; the loop asks again */
    }
    pipe->event = CreateEventW(NULL, TRUE, FALSE, NULL);
    if (pipe->event && is_own_object(pipe->handle) && is_own_server(pipe->handle)) return 0;
    if (pipe->event) CloseHandle(pipe->event);
    CloseHandle(pipe->handle);
    return ERROR_ACCESS_DENIED;
}

/* After any other error the daemon must not be used or started. Busy for this long means that it drains
 * or has too much to do; `hpcc-cli start` finds out which. */
static bool is_nobody_there(DWORD error) { return error == ERROR_FILE_NOT_FOUND || error == ERROR_PIPE_BUSY; }

static void hang_up(struct pipe *pipe) {
    CloseHandle(pipe->handle);
    CloseHandle(pipe->event);
}

/* One read or write; returns the bytes moved, or 0 at the end, on an error or after the deadline. */
static DWORD move_some(struct pipe *pipe, bool is_read, void *data, DWORD bytes, int64_t left) {
    OVERLAPPED call = {.hEvent = pipe->event};
    DWORD moved = 0;
    pipe->is_silent = false;
    ResetEvent(pipe->event);
    BOOL is_done = is_read ? ReadFile(pipe->handle, data, bytes, NULL, &call) : WriteFile(pipe->handle, data, bytes, NULL, &call);
    if (!is_done && GetLastError() != ERROR_IO_PENDING) return 0;
    if (!is_done && WaitForSingleObject(pipe->event, left > 0 ? (DWORD)left : 0) != WAIT_OBJECT_0) CancelIoEx(pipe->handle, &call);
    /* Also waits until a cancel is complete: before that the system may write to `data`. */
    if (GetOverlappedResult(pipe->handle, &call, &moved, TRUE)) return moved;
    pipe->is_silent = GetLastError() == ERROR_OPERATION_ABORTED;
    return 0;
}

static bool send_all(struct pipe *pipe, const void *data, size_t bytes) {
    int64_t deadline = now_ms() + FIRST_FRAME_MS;
    for (const char *p = data; bytes;) {
        DWORD chunk = bytes < 1u << 16 ? (DWORD)bytes : 1u << 16;
        DWORD moved = move_some(pipe, false, (void *)p, chunk, deadline - now_ms());
        if (!moved) return false;
        p += moved;
        bytes -= moved;
        deadline = now_ms() + FIRST_FRAME_MS; /* the daemon reads */
    }
    return true;
}

/* Reads the next frame that is not WAIT; false on silence, at the end or on a malformed frame. `reply`
 * points into memory that is never freed. */
static bool read_reply(struct pipe *pipe, struct reply *reply) {
    size_t room = 1u << 16, have = 0, start_at = 0;
    unsigned char *data = malloc(room);
    uint32_t type, bytes;
    int64_t deadline = now_ms() + FIRST_FRAME_MS;
    while (data) {
        DWORD n = move_some(pipe, true, data + have, (DWORD)(room - have), deadline - now_ms());
        if (!n) return false;
        bool is_first = !have;
        have += n;
        switch (split_frames(data, have, &start_at, &type, &bytes)) {
        case SPLIT_BAD: return false;
        case SPLIT_WHOLE: return !parse_reply(type, data + start_at + HEADER_BYTES, bytes, reply);
        case SPLIT_PARTIAL: break;
        }
        if (start_at || is_first) deadline = now_ms() + NEXT_FRAME_MS; /* a WAIT came, or a frame began */
        memmove(data, data + start_at, have -= start_at);
        start_at = 0;
        if (HEADER_BYTES + bytes > room) /* at most MAX_REPLY_BYTES: the header was checked */
            data = realloc(data, room = HEADER_BYTES + bytes);
    }
    return false;
}

/* ---- the daemon: starting it, and backing off ---- */

static bool is_drive_path(const wchar_t *path) {
    return ((*path | 32) >= L'a' && (*path | 32) <= L'z') && path[1] == L':' && (path[2] == L'\\' || path[2] == L'/');
}

/* Put the value of a variable, followed by `tail`, at `to` if it is a path on a drive. */
static bool take_directory(wchar_t *to, const wchar_t *variable, const wchar_t *tail) {
    static wchar_t value[MAX_LONG_PATH];
    DWORD n = GetEnvironmentVariableW(variable, value, LENGTH(value));
    if (!n || n >= LENGTH(value) || !is_drive_path(value)) return false;
    n = GetFullPathNameW(value, MAX_LONG_PATH, to, NULL);
    if (!n || n + wcslen(tail) + 2 > MAX_LONG_PATH) return false;
    if (to[n - 1] == L'\\') n--; /* a drive's root ends in a backslash */
    wcscpy(to + n, tail);
    return true;
}

/* Must agree with `_of_profile` in config/paths.py. False when hpcc has no place for this user. */
static bool find_run_directory(void) {
    if (GetEnvironmentVariableW(L"HPCC_DIR", NULL, 0) > 1) return take_directory(run_directory, L"HPCC_DIR", L"\\run");
    return take_directory(run_directory, L"LOCALAPPDATA", L"\\hpcc\\run") ||
           take_directory(run_directory, L"USERPROFILE", L"\\AppData\\Local\\hpcc\\run");
}

/* Open a file of the run directory; does not follow links. */
static HANDLE open_in_run(const wchar_t *name, DWORD access, DWORD share, DWORD how) {
    BY_HANDLE_FILE_INFORMATION info;
    if (wcslen(run_directory) + wcslen(name) + 2 > LENGTH(in_run)) return INVALID_HANDLE_VALUE;
    wcscpy(in_run, run_directory);
    wcscat(in_run, L"\\");
    wcscat(in_run, name);
    HANDLE file = CreateFileW(in_run, access, share, NULL, how, FILE_ATTRIBUTE_NORMAL | FILE_FLAG_OPEN_REPARSE_POINT, NULL);
    if (file == INVALID_HANDLE_VALUE) return file;
    DWORD odd = FILE_ATTRIBUTE_REPARSE_POINT | FILE_ATTRIBUTE_DIRECTORY | FILE_ATTRIBUTE_DEVICE;
    if (GetFileType(file) == FILE_TYPE_DISK && GetFileInformationByHandle(file, &info) && !(info.dwFileAttributes & odd)) return file;
    CloseHandle(file);
    SetLastError(ERROR_ACCESS_DENIED);
    return INVALID_HANDLE_VALUE;
}

#define SHARE_ALL (FILE_SHARE_READ | FILE_SHARE_WRITE | FILE_SHARE_DELETE)
#define TICKS_PER_MS 10000u /* a FILETIME counts 100 ns */

static uint64_t ticks(FILETIME time) { return (uint64_t)time.dwHighDateTime << 32 | time.dwLowDateTime; }

/* The marker's write time is the time until which the daemon is not tried. */
static bool is_backing_off(void) {
    FILETIME now, until;
    HANDLE file = open_in_run(L"backoff", FILE_READ_ATTRIBUTES, SHARE_ALL, OPEN_EXISTING);
    if (file == INVALID_HANDLE_VALUE) return false;
    bool is_known = GetFileTime(file, NULL, NULL, &until);
    CloseHandle(file);
    GetSystemTimeAsFileTime(&now);
    /* A time far in the future means that the clock was set back. */
    return is_known && ticks(until) > ticks(now) && ticks(until) < ticks(now) + 2ull * START_FAILED_MS * TICKS_PER_MS;
}

static void back_off(unsigned ms) {
    FILETIME until;
    HANDLE file = open_in_run(L"backoff", FILE_WRITE_ATTRIBUTES, SHARE_ALL, OPEN_ALWAYS);
    if (file == INVALID_HANDLE_VALUE) return;
    GetSystemTimeAsFileTime(&until);
    uint64_t end = ticks(until) + (uint64_t)ms * TICKS_PER_MS;
    until = (FILETIME){.dwLowDateTime = (DWORD)end, .dwHighDateTime = (DWORD)(end >> 32)};
    SetFileTime(file, NULL, NULL, &until);
    CloseHandle(file);
}

/* Leaves a mark that the daemon counts later. If this fails, the compile continues. */
static void mark_fallback(enum fallback reason) {
    char mark = (char)reason;
    LARGE_INTEGER size;
    DWORD written;
    HANDLE file = open_in_run(L"" FALLBACKS_NAME, FILE_APPEND_DATA | FILE_READ_ATTRIBUTES, SHARE_ALL, OPEN_ALWAYS);
    if (file == INVALID_HANDLE_VALUE) return;
    if (GetFileSizeEx(file, &size) && size.QuadPart < MAX_FALLBACKS_BYTES) WriteFile(file, &mark, 1, &written, NULL);
    CloseHandle(file);
}

/* They inherit the access rights of the profile. */
static void make_directories(void) {
    wcscpy(in_run, run_directory);
    for (wchar_t *c = in_run + 3;; c++) {
        if (*c && *c != L'\\' && *c != L'/') continue;
        wchar_t end = *c;
        *c = L'\0';
        CreateDirectoryW(in_run, NULL);
        if (!end) return;
        *c = end;
    }
}

/* Our environment without Python's variables: a build's PYTHONHOME is not meant for us. NULL if out of memory. */
static wchar_t *make_environment(void) {
    wchar_t *all = GetEnvironmentStringsW(), *kept = NULL;
    if (!all) return NULL;
    size_t length = 0, at = 0;
    while (all[length]) length += wcslen(all + length) + 1;
    if ((kept = malloc((length + 2) * sizeof *kept))) {
        for (const wchar_t *e = all; *e; e += wcslen(e) + 1) {
            if (begins_with(e, L"PYTHON")) continue;
            wcscpy(kept + at, e);
            at += wcslen(e) + 1;
        }
        kept[at] = kept[at + 1] = L'\0';
    }
    FreeEnvironmentStringsW(all);
    return kept;
}

/* Runs `hpcc-cli start`, which returns once the daemon listens. It inherits no handle, so that no process
 * waits for our streams, and it runs outside the build's job if the job allows that. */
static bool run_start(int64_t deadline) {
    static wchar_t cli[MAX_LONG_PATH];
    wchar_t words[] = L"hpcc-cli start --quiet";
    STARTUPINFOW startup = {.cb = sizeof startup};
    PROCESS_INFORMATION started;
    DWORD flags = CREATE_NO_WINDOW | CREATE_NEW_PROCESS_GROUP | CREATE_UNICODE_ENVIRONMENT, code = 1;
    if (!find_cli(cli)) return false;
    wchar_t *environment = make_environment();
    if (!environment) return false;
    bool is_started = CreateProcessW(cli, words, NULL, NULL, FALSE, flags | CREATE_BREAKAWAY_FROM_JOB, environment, run_directory, &startup, &started);
    if (!is_started && GetLastError() == ERROR_ACCESS_DENIED)
        is_started = CreateProcessW(cli, words, NULL, NULL, FALSE, flags, environment, run_directory, &startup, &started);
    free(environment);
    if (!is_started) return false;
    int64_t left = deadline - now_ms();
    if (WaitForSingleObject(started.hProcess, left > 0 ? (DWORD)left : 0) == WAIT_OBJECT_0) GetExitCodeProcess(started.hProcess, &code);
    else TerminateProcess(started.hProcess, 1);
    CloseHandle(started.hThread);
    CloseHandle(started.hProcess);
    return code == 0;
}

/* Starts the daemon, or waits for the launcher that is starting it: of many parallel compiles one does,
 * while it has a file open that no other can open. True when connected. */
static bool start_daemon(const wchar_t *name, struct pipe *pipe) {
    int64_t deadline = now_ms() + START_MS;
    make_directories();
    for (;;) {
        HANDLE lock = open_in_run(L"start.lock", GENERIC_WRITE, 0, OPEN_ALWAYS);
        DWORD error = GetLastError(), gone;
        if (lock != INVALID_HANDLE_VALUE) {
            gone = dial(name, pipe, 0); /* another launcher may have started it meanwhile */
            if (is_nobody_there(gone) && !is_backing_off()) {
                bool has_started = run_start(deadline);
                gone = dial(name, pipe, has_started ? FIRST_FRAME_MS : 0);
                if (gone) back_off(START_FAILED_MS);
            }
            CloseHandle(lock);
            return !gone;
        }
        if (error != ERROR_SHARING_VIOLATION) return false;
        if (!dial(name, pipe, 0)) return true;
        if (now_ms() >= deadline) return false;
        Sleep(10);
    }
}

/* ---- the request ---- */

struct writer {
    unsigned char *at, *end; /* `at` is NULL once there is no room, or a text was not UTF-16 */
};

static void put_text(struct writer *w, const wchar_t *text) {
    if (!w->at) return;
    size_t room = (size_t)(w->end - w->at);
    int n = WideCharToMultiByte(CP_UTF8, WC_ERR_INVALID_CHARS, text, -1, (char *)w->at, room > 1 << 30 ? 1 << 30 : (int)room, NULL, NULL);
    w->at = n > 0 ? w->at + n : NULL;
}

/* Write `NAME=value` if it is in our list, with the name as spelled there. */
static bool put_variable(struct writer *w, const wchar_t *variable) {
    wchar_t name[64];
    size_t length = wcscspn(variable + (*variable == L'='), L"="); /* =C:=C:\dir are cmd's own */
    if (*variable == L'=' || length >= LENGTH(name)) return false;
    wmemcpy(name, variable, length);
    name[length] = L'\0';
    if (is_same_text(name, DEPTH_VARIABLE) || is_same_text(name, L"" BUILD_VARIABLE)) return false;
    for (size_t i = 0; i < LENGTH(ENV_NAMES); i++) {
        const wchar_t *wanted = ENV_NAMES[i];
        size_t n = wcslen(wanted);
        bool is_prefix = wanted[n - 1] == L'_' && wanted[0] != L'_';
        bool is_same = is_same_text(name, wanted);
        if (!is_same && !(is_prefix && begins_with(name, wanted))) continue;
        put_text(w, is_same ? wanted : name);
        if (w->at) w->at[-1] = '=';
        put_text(w, variable + length + 1);
        return true;
    }
    return false;
}

/* Append a variable if it is a build fact, with the name as spelled in our list; returns the end. */
static unsigned char *put_wide_fact(unsigned char *p, const unsigned char *end, const wchar_t *variable) {
#define AS_PAIR(name) {name, L"" name},
    static const struct {
        const char *name;
        const wchar_t *wide;
    } facts[] = {EACH_FACT(AS_PAIR)};
#undef AS_PAIR
    wchar_t name[64];
    char text[64 + 3 * (MAX_FACT_BYTES + 2) + 1];
    size_t length = wcscspn(variable, L"=");
    if (!length || !variable[length] || length >= LENGTH(name)) return p;
    wmemcpy(name, variable, length);
    name[length] = L'\0';
    for (size_t i = 0; i < LENGTH(facts); i++) {
        if (!is_same_text(name, facts[i].wide)) continue;
        const wchar_t *value = variable + length + 1;
        size_t kept = 0, n = strlen(facts[i].name);
        while (value[kept] && kept < MAX_FACT_BYTES + 2) kept++;
        if (value[kept] && value[kept - 1] >= 0xd800 && value[kept - 1] < 0xdc00) kept--; /* no half of a pair */
        memcpy(text, facts[i].name, n);
        text[n] = '=';
        int bytes = kept ? WideCharToMultiByte(CP_UTF8, WC_ERR_INVALID_CHARS, value, (int)kept, text + n + 1, 3 * (MAX_FACT_BYTES + 2), NULL, NULL) : 0;
        text[n + 1 + (size_t)(bytes > 0 ? bytes : 0)] = '\0';
        return put_fact(p, end, text);
    }
    return p;
}

static bool put_cwd(struct writer *w, uint64_t id[2]) {
    DWORD size = GetCurrentDirectoryW(0, NULL);
    wchar_t *cwd = size ? malloc(size * sizeof *cwd) : NULL;
    DWORD n = cwd ? GetCurrentDirectoryW(size, cwd) : 0;
    bool is_good = n && n < size && is_rooted(cwd, n);
    if (is_good) put_text(w, cwd);
    if (is_good && !file_id(cwd, FILE_FLAG_BACKUP_SEMANTICS, id)) id[0] = id[1] = 0;
    free(cwd);
    return is_good;
}

/* The whole frame; NULL if the daemon would not accept it. */
static unsigned char *make_request(wchar_t **argv, size_t *bytes) {
    size_t most = HEADER_BYTES + MAX_REQUEST_BYTES;
    unsigned char *frame = malloc(most), *p;
    uint32_t argc = 0, envc = 0;
    uint64_t cwd_id[2] = {0, 0};
    DWORD mode;
    if (!frame) return NULL;
    unsigned char *facts = frame + HEADER_BYTES + 8, *fixed = facts;
    wchar_t *environment = GetEnvironmentStringsW();
    for (wchar_t *e = environment; e && *e; e += wcslen(e) + 1) fixed = put_wide_fact(fixed, facts + MAX_FACTS_BYTES, e);
    struct writer w = {fixed + REQUEST_FIXED_BYTES, frame + most};
    memcpy(w.at, HPCC_BUILD_ID, sizeof HPCC_BUILD_ID);
    w.at += sizeof HPCC_BUILD_ID;
    put_text(&w, found);
    if (!put_cwd(&w, cwd_id)) return NULL;
    for (; argv[argc]; argc++) put_text(&w, argv[argc]);
    for (wchar_t *e = environment; e && *e; e += wcslen(e) + 1) envc += put_variable(&w, e);
    if (environment) FreeEnvironmentStringsW(environment);
    if (!w.at || argc > MAX_ARGC) return NULL;
    bool is_tty = GetConsoleMode(GetStdHandle(STD_ERROR_HANDLE), &mode);
    p = put_header(frame, FRAME_REQUEST, (uint32_t)(w.at - frame - HEADER_BYTES));
    put32(put32(p, HPCC_PROTOCOL), (uint32_t)(fixed - facts));
    p = put32(put32(fixed, is_tty ? REQUEST_STDERR_IS_TTY : 0), 0);
    p = put64(put64(put32(put32(put32(p, argc), envc), 0), cwd_id[0]), cwd_id[1]);
    put64(put64(put64(put64(p, 0), 0), 0), 0); /* no root and no namespaces here */
    *bytes = (size_t)(w.at - frame);
    return frame;
}

/* ---- running the compiler for the daemon ---- */

/* One stream of the compiler: passed on as it comes or held back, and kept; each has its own thread. */
struct stream {
    HANDLE from, to, thread;
    char *kept;
    size_t bytes, capacity;
    SRWLOCK writing;       /* held while the thread writes */
    volatile LONG is_over; /* the compiler has ended: only output already written is read */
    bool is_held, is_filtered, is_truncated;
};

static bool keep(struct stream *s, const char *data, size_t bytes) {
    size_t limit = s->is_held ? HOLD_BYTES : MAX_CAPTURE_BYTES, room = s->bytes < limit ? limit - s->bytes : 0;
    if (bytes > room || s->is_truncated) return false;
    if (s->bytes + bytes > s->capacity) {
        size_t capacity = s->capacity ? s->capacity * 2 : 1u << 17;
        char *larger = realloc(s->kept, capacity);
        if (!larger) return false;
        s->kept = larger;
        s->capacity = capacity;
    }
    memcpy(s->kept + s->bytes, data, bytes);
    s->bytes += bytes;
    return true;
}

static void let_go(struct stream *s) {
    if (s->is_held && s->bytes) write_all(s->to, s->kept, s->is_filtered ? strip_headers(s->kept, s->bytes) : s->bytes);
    s->is_held = false;
}

static bool pass_on(struct stream *s, const char *data, size_t bytes) {
    if (!keep(s, data, bytes)) {
        s->is_truncated = true;
        let_go(s); /* nobody reads more than this: show the rest as it comes */
    }
    return s->is_held || write_all(s->to, data, bytes);
}

static DWORD WINAPI pump(void *argument) {
    struct stream *s = argument;
    char data[1 << 16];
    for (;;) {
        DWORD there = 1, n = 0;
        bool is_over = s->is_over; /* read before the pipe is checked */
        if (is_over && (!PeekNamedPipe(s->from, NULL, 0, NULL, &there, NULL) || !there)) return 0;
        if (!ReadFile(s->from, data, sizeof data, &n, NULL)) {
            if (GetLastError() == ERROR_OPERATION_ABORTED) continue;
            return 0;
        }
        AcquireSRWLockExclusive(&s->writing);
        bool is_good = pass_on(s, data, n);
        ReleaseSRWLockExclusive(&s->writing);
        if (!is_good) return 0;
    }
}

/* A process that the compiler started (mspdbsrv.exe) may hold the pipe for hours, so the read is
 * cancelled. A write is never cancelled, because part of it may have been taken. */
static void end_pump(struct stream *s) {
    InterlockedExchange(&s->is_over, 1);
    while (WaitForSingleObject(s->thread, 5) == WAIT_TIMEOUT) {
        if (!TryAcquireSRWLockExclusive(&s->writing)) continue;
        CancelSynchronousIo(s->thread);
        ReleaseSRWLockExclusive(&s->writing);
    }
    CloseHandle(s->thread);
    CloseHandle(s->from);
}

/* Returns false if it could not be started; nothing ran then.
 * Visual Studio passes cl a handle in VS_UNICODE_OUTPUT, and cl then writes there and not to our pipes. */
static bool run_child(wchar_t **argv, struct stream streams[2], DWORD *code) {
    HANDLE writers[2], process;
    SetEnvironmentVariableW(L"VS_UNICODE_OUTPUT", NULL);
    for (int i = 0; i < 2; i++)
        if (!CreatePipe(&streams[i].from, &writers[i], NULL, 1 << 16)) return false;
    if (!put_line(argv) || start(argv[0], writers[0], writers[1], &process)) return false;
    for (int i = 0; i < 2; i++) {
        CloseHandle(writers[i]);
        streams[i].thread = CreateThread(NULL, 0, pump, &streams[i], 0, NULL);
        if (!streams[i].thread) ExitProcess(EXIT_CANNOT_RUN); /* the job ends the compiler with us */
    }
    *code = wait_for_end(process);
    for (int i = 0; i < 2; i++) end_pump(&streams[i]);
    return true;
}

/* A status over 255 (of an exception) is reported as 255: the daemon stores no failed compile. */
static bool send_report(struct pipe *pipe, const struct stream *streams, DWORD code) {
    unsigned char frame[HEADER_BYTES + 20], *p;
    uint32_t bytes[2], flags = 0;
    for (int i = 0; i < 2; i++) {
        bool is_long = streams[i].bytes > MAX_CAPTURE_BYTES;
        if (is_long || streams[i].is_truncated) flags |= REPORT_IS_TRUNCATED;
        bytes[i] = is_long ? MAX_CAPTURE_BYTES : (uint32_t)streams[i].bytes;
    }
    p = put_header(frame, FRAME_REPORT, 20 + bytes[0] + bytes[1]);
    p = put32(put32(p, code > 255 ? 255 : code), 0);
    put32(put32(put32(p, flags), bytes[0]), bytes[1]);
    return send_all(pipe, frame, sizeof frame) && send_all(pipe, streams[0].kept, bytes[0]) && send_all(pipe, streams[1].kept, bytes[1]);
}

/* The arguments of RUN as UTF-16; NULL if they are not UTF-8. */
static wchar_t **decode_argv(const struct reply *run) {
    wchar_t **argv = malloc((run->argc + 1u) * sizeof *argv);
    const char *text = run->argv;
    for (uint32_t i = 0; argv && i < run->argc; i++, text += strlen(text) + 1) {
        int n = MultiByteToWideChar(CP_UTF8, MB_ERR_INVALID_CHARS, text, -1, NULL, 0);
        argv[i] = n > 0 ? malloc((size_t)n * sizeof **argv) : NULL;
        if (!argv[i] || MultiByteToWideChar(CP_UTF8, MB_ERR_INVALID_CHARS, text, -1, argv[i], n) != n) return NULL;
    }
    if (argv) argv[run->argc] = NULL;
    return argv;
}

/* Show what the daemon makes of a stream that it got whole; else what the compiler wrote. cl lists headers
 * on its standard output, gcc on the other: on Windows a filtered run holds both back. */
static void finish_stream(struct stream *s, bool is_told, bool is_filtered, const unsigned char *text, size_t bytes) {
    if (is_told && (!is_filtered || (s->is_held && s->bytes <= MAX_CAPTURE_BYTES))) {
        if (bytes) write_all(s->to, text, bytes);
    } else let_go(s);
}

/* Returns if the compiler could not be started, or failed with flags that are not the user's. Then
 * nothing was shown, and the user's own command decides. */
static void run_and_report(struct pipe *pipe, const struct reply *run) {
    bool is_filtered = run->flags & RUN_FILTER_HEADERS, is_tentative = run->flags & RUN_TENTATIVE;
    struct stream streams[2] = {
        {.to = GetStdHandle(STD_OUTPUT_HANDLE), .is_held = is_tentative || is_filtered},
        {.to = GetStdHandle(STD_ERROR_HANDLE), .is_held = is_tentative || is_filtered, .is_filtered = is_filtered},
    };
    struct reply finish = {0};
    DWORD code;
    wchar_t **argv = decode_argv(run);
    if (!argv || !run_child(argv, streams, &code)) return;
    if (is_tentative && code) {
        send_report(pipe, streams, code);
        return;
    }
    for (int i = 0; i < 2 && !is_filtered; i++) let_go(&streams[i]);
    bool is_told = send_report(pipe, streams, code) && read_reply(pipe, &finish) && finish.type == FRAME_FINISH;
    finish_stream(&streams[0], is_told, is_filtered, finish.out, finish.out_bytes);
    finish_stream(&streams[1], is_told, is_filtered, finish.err, finish.err_bytes);
    ExitProcess(code);
}

#include "win_hit.h"

/* ---- a compile ---- */

static bool count_depth(void) {
    wchar_t text[8];
    unsigned depth = 0;
    DWORD n = GetEnvironmentVariableW(DEPTH_VARIABLE, text, LENGTH(text));
    if (n >= LENGTH(text)) depth = MAX_DEPTH;
    for (DWORD i = 0; i < n && n < LENGTH(text) && text[i] >= L'0' && text[i] <= L'9' && depth < MAX_DEPTH; i++)
        depth = depth * 10 + (unsigned)(text[i] - L'0');
    if (depth >= MAX_DEPTH) return complain(L"the compiler on PATH", " runs hpcc again and again; put the real one first"), false;
    text[0] = (wchar_t)(L'0' + depth + 1);
    text[1] = L'\0';
    return SetEnvironmentVariableW(DEPTH_VARIABLE, text);
}

static bool is_disabled(void) {
    wchar_t text[4];
    DWORD n = GetEnvironmentVariableW(L"HPCC_DISABLE", text, LENGTH(text));
    return n >= LENGTH(text) || (n && wcscmp(text, L"0"));
}

/* Sends the request and reads `reply`. False on failure, with the reason in `why`. */
static bool ask(const wchar_t *name, const unsigned char *frame, size_t bytes, struct pipe *pipe, struct reply *reply, enum fallback *why) {
    DWORD error = dial(name, pipe, FIRST_FRAME_MS);
    bool is_there = !error || (is_nobody_there(error) && start_daemon(name, pipe));
    *why = FALLBACK_NO_DAEMON;
    for (int attempt = 0; is_there; attempt++) {
        bool is_answered = send_all(pipe, frame, bytes) && read_reply(pipe, reply);
        bool is_other = is_answered && reply->type == FRAME_VERSION, is_silent = !is_answered && pipe->is_silent;
        if (is_answered && !is_other && reply->type != FRAME_FINISH) return true;
        hang_up(pipe);
        *why = is_other ? FALLBACK_OTHER_VERSION : is_silent ? FALLBACK_SILENT : FALLBACK_LOST;
        if (is_silent) back_off(HUNG_MS);
        /* A daemon of another version ends, and has stopped listening by now. */
        if (!is_other || !(reply->flags & VERSION_IS_DRAINING) || attempt) return false;
        is_there = start_daemon(name, pipe);
    }
    return false;
}

static int compile(wchar_t **argv) {
    wchar_t name[64];
    struct pipe pipe;
    struct reply reply;
    size_t bytes = 0;
    if (!find_compiler(argv[0]) || !count_depth()) return EXIT_CANNOT_RUN;
    if (is_disabled() || !find_run_directory() || !find_pipe(name)) become(found, argv);
    unsigned char *frame = make_request(argv, &bytes);
    if (frame) answer_from_kept_hit(frame, bytes);
    enum fallback why = frame ? FALLBACK_LEFT_ALONE : FALLBACK_LONG_REQUEST;
    if (!frame || is_backing_off() || !ask(name, frame, bytes, &pipe, &reply, &why)) {
        mark_fallback(why);
        become(found, argv);
    }
    if (reply.type == FRAME_DONE) {
        write_all(GetStdHandle(STD_OUTPUT_HANDLE), reply.out, reply.out_bytes);
        write_all(GetStdHandle(STD_ERROR_HANDLE), reply.err, reply.err_bytes);
        ExitProcess(reply.exit_code);
    }
    if (reply.type == FRAME_RUN) run_and_report(&pipe, &reply);
    hang_up(&pipe);
    become(found, argv);
}

/* True for a bare word for which the user means a program: hpcc has no such command, and PATH has one. */
static bool is_program_word(const wchar_t *word) {
    bool is_shadowed = false;
    return *word && *word != L'-' && !has_directory(word) && !is_command(word) && search_compiler(word, &is_shadowed);
}

int main(void) {
    int argc = 0;
    wchar_t **argv = CommandLineToArgvW(GetCommandLineW(), &argc); /* ends in NULL */
    DWORD n = GetModuleFileNameW(NULL, self, LENGTH(self));
    int code = EXIT_CANNOT_RUN;
    if (!argv || argc < 1 || !n || n >= LENGTH(self)) ExitProcess(EXIT_CANNOT_RUN);
    bool is_wrap = argc > 1 && !wcscmp(argv[1], L"wrap");
    if (is_compiler_name(base_name(self))) {
        argv[0] = (wchar_t *)base_name(self);
        code = compile(argv);
    } else if (is_wrap && argc > 2 && argv[2][0] != L'-') {
        code = compile(argv + 2);
    } else if (is_wrap && argc == 2) {
        complain(L"usage: ", "hpcc wrap CC args...");
        code = EXIT_USAGE;
    } else if (argc > 1 && argv[1][0] != L'-' && (has_directory(argv[1]) || is_compiler_name(argv[1]) || is_program_word(argv[1]))) {
        code = compile(argv + 1);
    } else {
        code = run_cli(argv);
    }
    ExitProcess((UINT)code);
}
