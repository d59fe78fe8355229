/* hpcc-agent.exe: the part of the Windows agent that cannot be written in Python.
 *
 *   serve ARGS…       starts python\python.exe app.pyz ARGS… beside this file; ends with its exit code
 *   pause             is the init process of a container: waits for CTRL_SHUTDOWN, then ends
 *   run OPTIONS -- PROGRAM ARGS…
 *                     one compile in its own job object: every process that it starts ends with it
 *     --memory BYTES  for all its processes together     --processes N   at the same time
 *     --timeout-ms N  ends the job after this time       --report FILE   one line on how it ended
 *     --restricted medium|low  with a token without administrator rights, at that integrity
 *
 * The report is one of `done EXIT USER_100NS KERNEL_100NS PEAK_BYTES`, `deadline` and `memory` with the same
 * figures, and `spawn ERROR`. `memory` means that the job failed after it had asked for more memory than its
 * limit. The exit code of a job that was ended says nothing: KILL_ON_JOB_CLOSE leaves 0 (seen under Wine). Only
 * the report's first word counts, and a missing report is a failure.
 *
 * Sources: Win32 documentation of job objects, CreateProcess, CreateRestrictedToken, mandatory integrity
 * control, PROC_THREAD_ATTRIBUTE_HANDLE_LIST, PROC_THREAD_ATTRIBUTE_JOB_LIST and SetConsoleCtrlHandler. Cross-built with mingw-w64 and run under Wine; not yet run on Windows.
 */
#define WIN32_LEAN_AND_MEAN
#define _WIN32_WINNT 0x0A00
#include <windows.h>

#include <shellapi.h>
#include <stdbool.h>
#include <stdint.h>
#include <wchar.h>

#define MAX_LINE 32768 /* CreateProcess's limit in UTF-16 units, with the final zero */
#define MAX_LONG_PATH 32768
#define EXIT_USAGE 2
#define EXIT_CANNOT_RUN 127
#define EXIT_DEADLINE 124

static wchar_t line[MAX_LINE], path[MAX_LONG_PATH];
static HANDLE shutdown_event;

static void say(const char *text) {
    DWORD written;
    WriteFile(GetStdHandle(STD_ERROR_HANDLE), text, (DWORD)lstrlenA(text), &written, NULL);
}

/* ---- command lines, quoted so that CommandLineToArgvW returns the same arguments ---- */

static bool put(wchar_t c, size_t *at) {
    if (*at + 1 >= MAX_LINE) return false;
    line[(*at)++] = c;
    line[*at] = L'\0';
    return true;
}

static bool put_quoted(const wchar_t *argument, size_t *at) {
    if (*at && !put(L' ', at)) return false;
    bool is_plain = *argument && !wcspbrk(argument, L" \t\n\v\"");
    if (!is_plain && !put(L'"', at)) return false;
    for (const wchar_t *c = argument;; c++) {
        size_t slashes = 0;
        while (*c == L'\\') c++, slashes++;
        size_t count = slashes;
        if (!is_plain && (*c == L'"' || !*c)) count = slashes * 2 + (*c == L'"');
        while (count--)
            if (!put(L'\\', at)) return false;
        if (!*c) break;
        if (!put(*c, at)) return false;
    }
    return is_plain || put(L'"', at);
}

/* ---- processes ---- */

/* Objects that the program creates are open to its user, because it may not use what only administrators may. */
static bool open_to_user(HANDLE token) {
    static _Alignas(8) BYTE user_room[sizeof(TOKEN_USER) + SECURITY_MAX_SID_SIZE], acl_room[256];
    BYTE system[SECURITY_MAX_SID_SIZE];
    DWORD size = sizeof system;
    PSID user = NULL;
    ACL *acl = (ACL *)acl_room;
    if (!CreateWellKnownSid(WinLocalSystemSid, NULL, system, &size)) return false;
    if (!GetTokenInformation(token, TokenUser, user_room, sizeof user_room, &size)) return false;
    user = ((TOKEN_USER *)user_room)->User.Sid;
    TOKEN_DEFAULT_DACL dacl = {acl};
    return InitializeAcl(acl, sizeof acl_room, ACL_REVISION) &&
           AddAccessAllowedAce(acl, ACL_REVISION, GENERIC_ALL, user) && AddAccessAllowedAce(acl, ACL_REVISION, GENERIC_ALL, system) &&
           SetTokenInformation(token, TokenDefaultDacl, &dacl, sizeof dacl);
}

/* A token of this user without privileges and administrator rights, at lower integrity. A program that has
 * it cannot open this process or the agent's, or write what only administrators may write. */
static HANDLE restricted_token(WELL_KNOWN_SID_TYPE integrity) {
    BYTE administrators[SECURITY_MAX_SID_SIZE], level[SECURITY_MAX_SID_SIZE];
    DWORD administrators_size = sizeof administrators, level_size = sizeof level;
    HANDLE own = NULL, token = NULL;
    if (!CreateWellKnownSid(WinBuiltinAdministratorsSid, NULL, administrators, &administrators_size)) return NULL;
    if (!CreateWellKnownSid(integrity, NULL, level, &level_size)) return NULL;
    DWORD rights = TOKEN_DUPLICATE | TOKEN_QUERY | TOKEN_ASSIGN_PRIMARY | TOKEN_ADJUST_DEFAULT;
    if (!OpenProcessToken(GetCurrentProcess(), rights, &own)) return NULL;
    SID_AND_ATTRIBUTES denied = {administrators, 0};
    TOKEN_MANDATORY_LABEL label = {{level, SE_GROUP_INTEGRITY}};
    if (!CreateRestrictedToken(own, DISABLE_MAX_PRIVILEGE, 1, &denied, 0, NULL, 0, NULL, &token)) return NULL;
    if (!open_to_user(token) || !SetTokenInformation(token, TokenIntegrityLevel, &label, sizeof label + level_size)) return NULL;
    return token; /* handles are closed when this process ends */
}

/* The program inherits only our three standard handles, whatever else is inheritable. It is in the job from its
 * first moment: this process may be ended at any time, and a program assigned later would be left outside. */
static DWORD start(const wchar_t *program, DWORD flags, HANDLE token, HANDLE job, PROCESS_INFORMATION *process) {
    HANDLE handles[3] = {GetStdHandle(STD_INPUT_HANDLE), GetStdHandle(STD_OUTPUT_HANDLE), GetStdHandle(STD_ERROR_HANDLE)};
    STARTUPINFOEXW startup = {0};
    startup.StartupInfo.cb = sizeof startup;
    startup.StartupInfo.dwFlags = STARTF_USESTDHANDLES;
    startup.StartupInfo.hStdInput = handles[0];
    startup.StartupInfo.hStdOutput = handles[1];
    startup.StartupInfo.hStdError = handles[2];
    HANDLE listed[3];
    DWORD count = 0;
    for (int i = 0; i < 3; i++) {
        bool is_new = handles[i] && handles[i] != INVALID_HANDLE_VALUE;
        for (DWORD k = 0; k < count; k++) is_new = is_new && listed[k] != handles[i];
        if (!is_new) continue;
        if (!SetHandleInformation(handles[i], HANDLE_FLAG_INHERIT, HANDLE_FLAG_INHERIT)) continue;
        listed[count++] = handles[i];
    }
    SIZE_T size = 0;
    InitializeProcThreadAttributeList(NULL, 2, 0, &size);
    startup.lpAttributeList = HeapAlloc(GetProcessHeap(), 0, size);
    if (!startup.lpAttributeList || !InitializeProcThreadAttributeList(startup.lpAttributeList, 2, 0, &size)) return GetLastError();
    if (count && !UpdateProcThreadAttribute(startup.lpAttributeList, 0, PROC_THREAD_ATTRIBUTE_HANDLE_LIST, listed, count * sizeof *listed, NULL, NULL))
        return GetLastError();
    if (!UpdateProcThreadAttribute(startup.lpAttributeList, 0, PROC_THREAD_ATTRIBUTE_JOB_LIST, &job, sizeof job, NULL, NULL))
        return GetLastError();
    flags |= EXTENDED_STARTUPINFO_PRESENT | CREATE_UNICODE_ENVIRONMENT;
    BOOL is_started = token ? CreateProcessAsUserW(token, program, line, NULL, NULL, count > 0, flags, NULL, NULL, &startup.StartupInfo, process)
                            : CreateProcessW(program, line, NULL, NULL, count > 0, flags, NULL, NULL, &startup.StartupInfo, process);
    DWORD error = is_started ? 0 : GetLastError();
    DeleteProcThreadAttributeList(startup.lpAttributeList);
    return error;
}

static HANDLE make_job(uint64_t memory, uint64_t processes) {
    HANDLE job = CreateJobObjectW(NULL, NULL);
    if (!job) return NULL;
    JOBOBJECT_EXTENDED_LIMIT_INFORMATION limits = {0};
    limits.BasicLimitInformation.LimitFlags = JOB_OBJECT_LIMIT_KILL_ON_JOB_CLOSE | JOB_OBJECT_LIMIT_DIE_ON_UNHANDLED_EXCEPTION;
    if (memory) {
        limits.BasicLimitInformation.LimitFlags |= JOB_OBJECT_LIMIT_JOB_MEMORY;
        limits.JobMemoryLimit = (SIZE_T)memory;
    }
    if (processes) {
        limits.BasicLimitInformation.LimitFlags |= JOB_OBJECT_LIMIT_ACTIVE_PROCESS;
        limits.BasicLimitInformation.ActiveProcessLimit = (DWORD)processes;
    }
    if (SetInformationJobObject(job, JobObjectExtendedLimitInformation, &limits, sizeof limits)) return job;
    CloseHandle(job);
    return NULL;
}

/* The port where the job reports that it asked for more memory than its limit. That alone does not end it. */
static HANDLE listen_to(HANDLE job) {
    JOBOBJECT_ASSOCIATE_COMPLETION_PORT port = {job, CreateIoCompletionPort(INVALID_HANDLE_VALUE, NULL, 0, 1)};
    if (!port.CompletionPort || !SetInformationJobObject(job, JobObjectAssociateCompletionPortInformation, &port, sizeof port)) return NULL;
    return port.CompletionPort;
}

static bool has_hit_memory(HANDLE port) {
    DWORD message;
    ULONG_PTR key;
    OVERLAPPED *process;
    while (port && GetQueuedCompletionStatus(port, &message, &key, &process, 0))
        if (message == JOB_OBJECT_MSG_JOB_MEMORY_LIMIT) return true;
    return false;
}

/* ---- the report ---- */

static void put_number(char **at, uint64_t value) {
    char digits[20];
    int count = 0;
    do digits[count++] = (char)('0' + value % 10);
    while (value /= 10);
    *(*at)++ = ' ';
    while (count) *(*at)++ = digits[--count];
}

static bool report(const wchar_t *file, const char *word, HANDLE job, DWORD code) {
    if (!file) return true;
    char text[160], *at = text;
    while (*word) *at++ = *word++;
    put_number(&at, code);
    if (job) {
        JOBOBJECT_BASIC_ACCOUNTING_INFORMATION times = {0};
        JOBOBJECT_EXTENDED_LIMIT_INFORMATION peak = {0};
        QueryInformationJobObject(job, JobObjectBasicAccountingInformation, &times, sizeof times, NULL);
        QueryInformationJobObject(job, JobObjectExtendedLimitInformation, &peak, sizeof peak, NULL);
        put_number(&at, (uint64_t)times.TotalUserTime.QuadPart);
        put_number(&at, (uint64_t)times.TotalKernelTime.QuadPart);
        put_number(&at, (uint64_t)peak.PeakJobMemoryUsed);
    }
    *at++ = '\n';
    /* Must be a new file: an existing one belongs to another process. */
    HANDLE out = CreateFileW(file, GENERIC_WRITE, 0, NULL, CREATE_NEW, FILE_ATTRIBUTE_NORMAL, NULL);
    if (out == INVALID_HANDLE_VALUE) return false;
    DWORD written = 0, length = (DWORD)(at - text);
    bool is_whole = WriteFile(out, text, length, &written, NULL) && written == length;
    CloseHandle(out);
    return is_whole;
}

/* ---- run ---- */

static bool number(const wchar_t *text, uint64_t *value) {
    *value = 0;
    if (!text || !*text) return false;
    for (; *text; text++) {
        if (*text < L'0' || *text > L'9' || *value > (UINT64_MAX - 9) / 10) return false;
        *value = *value * 10 + (uint64_t)(*text - L'0');
    }
    return true;
}

struct plan {
    uint64_t memory, processes, timeout_ms;
    const wchar_t *report;
    bool is_restricted;
    WELL_KNOWN_SID_TYPE integrity;
    int program; /* its index in argv */
};

static bool read_plan(int argc, wchar_t **argv, struct plan *plan) {
    for (int i = 2; i < argc; i += 2) {
        if (!wcscmp(argv[i], L"--")) {
            plan->program = i + 1;
            return i + 1 < argc;
        }
        if (i + 1 >= argc) return false;
        uint64_t *wanted = !wcscmp(argv[i], L"--memory")       ? &plan->memory
                           : !wcscmp(argv[i], L"--processes")  ? &plan->processes
                           : !wcscmp(argv[i], L"--timeout-ms") ? &plan->timeout_ms
                                                               : NULL;
        if (wanted) {
            if (!number(argv[i + 1], wanted)) return false;
        } else if (!wcscmp(argv[i], L"--report")) {
            plan->report = argv[i + 1];
        } else if (!wcscmp(argv[i], L"--restricted")) {
            plan->is_restricted = true;
            plan->integrity = wcscmp(argv[i + 1], L"low") ? WinMediumLabelSid : WinLowLabelSid;
            if (plan->integrity == WinMediumLabelSid && wcscmp(argv[i + 1], L"medium")) return false;
        } else {
            return false;
        }
    }
    return false;
}

static int cannot_run(const struct plan *plan, DWORD error) {
    report(plan->report, "spawn", NULL, error);
    return EXIT_CANNOT_RUN;
}

static int run_in_job(const struct plan *plan, HANDLE job) {
    HANDLE port = listen_to(job), token = NULL;
    if (plan->is_restricted && !(token = restricted_token(plan->integrity))) return cannot_run(plan, GetLastError());
    PROCESS_INFORMATION process = {0};
    DWORD error = start(NULL, CREATE_NO_WINDOW, token, job, &process);
    if (error) return cannot_run(plan, error);
    DWORD limit = plan->timeout_ms && plan->timeout_ms < INFINITE ? (DWORD)plan->timeout_ms : INFINITE;
    bool is_late = WaitForSingleObject(process.hProcess, limit) == WAIT_TIMEOUT;
    DWORD code = EXIT_DEADLINE;
    if (!is_late) GetExitCodeProcess(process.hProcess, &code);
    /* The job is over when the program and every process that it left running have ended. */
    TerminateJobObject(job, EXIT_DEADLINE);
    WaitForSingleObject(process.hProcess, INFINITE);
    const char *word = is_late ? "deadline" : code && has_hit_memory(port) ? "memory" : "done";
    if (!report(plan->report, word, job, code)) return EXIT_CANNOT_RUN;
    return (int)code;
}

static int run(int argc, wchar_t **argv) {
    struct plan plan = {0};
    if (!read_plan(argc, argv, &plan)) {
        say("hpcc-agent: run [--memory BYTES] [--processes N] [--timeout-ms N] [--restricted medium|low] [--report FILE] -- PROGRAM ARGS...\r\n");
        return EXIT_USAGE;
    }
    size_t at = 0;
    for (int i = plan.program; i < argc; i++)
        if (!put_quoted(argv[i], &at)) return cannot_run(&plan, ERROR_FILENAME_EXCED_RANGE);
    HANDLE job = make_job(plan.memory, plan.processes);
    return job ? run_in_job(&plan, job) : cannot_run(&plan, GetLastError());
}

/* ---- serve and pause ---- */

static BOOL WINAPI on_control(DWORD kind) {
    if (kind != CTRL_SHUTDOWN_EVENT && kind != CTRL_CLOSE_EVENT && kind != CTRL_C_EVENT && kind != CTRL_BREAK_EVENT) return FALSE;
    SetEvent(shutdown_event);
    /* For some of these events the system ends the process when this returns, so main ends it first. */
    if (kind == CTRL_SHUTDOWN_EVENT || kind == CTRL_CLOSE_EVENT) Sleep(INFINITE);
    return TRUE;
}

static bool listen_for_shutdown(void) {
    shutdown_event = CreateEventW(NULL, TRUE, FALSE, NULL);
    return shutdown_event && SetConsoleCtrlHandler(on_control, TRUE);
}

/* Also waits for the end of standard input, if a test provides one. */
static DWORD WINAPI watch_input(void *unused) {
    (void)unused;
    char byte;
    DWORD got;
    while (ReadFile(GetStdHandle(STD_INPUT_HANDLE), &byte, 1, &got, NULL) && got) continue;
    SetEvent(shutdown_event);
    return 0;
}

static int pause_until_shutdown(void) {
    if (!listen_for_shutdown()) return EXIT_CANNOT_RUN;
    if (GetFileType(GetStdHandle(STD_INPUT_HANDLE)) == FILE_TYPE_PIPE) CloseHandle(CreateThread(NULL, 0, watch_input, NULL, 0, NULL));
    WaitForSingleObject(shutdown_event, INFINITE);
    return 0;
}

/* Write the name of a file beside this program to `path`. */
static bool beside(const wchar_t *name) {
    DWORD length = GetModuleFileNameW(NULL, path, MAX_LONG_PATH);
    if (!length || length >= MAX_LONG_PATH) return false;
    wchar_t *slash = wcsrchr(path, L'\\');
    if (!slash || (size_t)(slash - path) + 2 + wcslen(name) > MAX_LONG_PATH) return false;
    wcscpy(slash + 1, name);
    return true;
}

static int serve(int argc, wchar_t **argv) {
    size_t at = 0;
    bool is_good = beside(L"python\\python.exe") && put_quoted(path, &at);
    /* Isolated: no variable and no directory of the image decides what is imported. */
    is_good = is_good && put_quoted(L"-I", &at) && put_quoted(L"-B", &at) && put_quoted(L"-u", &at);
    is_good = is_good && beside(L"app.pyz") && put_quoted(path, &at);
    for (int i = 2; is_good && i < argc; i++) is_good = put_quoted(argv[i], &at);
    HANDLE job = is_good && listen_for_shutdown() && beside(L"python\\python.exe") ? make_job(0, 0) : NULL;
    if (!job) {
        say("hpcc-agent: cannot start the agent\r\n");
        return EXIT_CANNOT_RUN;
    }
    PROCESS_INFORMATION process = {0};
    if (start(path, 0, NULL, job, &process)) {
        say("hpcc-agent: python\\python.exe cannot be started\r\n");
        return EXIT_CANNOT_RUN;
    }
    HANDLE ends[2] = {process.hProcess, shutdown_event};
    DWORD code = 0;
    if (WaitForMultipleObjects(2, ends, FALSE, INFINITE) == WAIT_OBJECT_0) GetExitCodeProcess(process.hProcess, &code);
    return (int)code; /* processes that it left end with the job */
}

int main(void) {
    int argc = 0;
    wchar_t **argv = CommandLineToArgvW(GetCommandLineW(), &argc);
    int code = EXIT_USAGE;
    if (argv && argc > 1 && !wcscmp(argv[1], L"serve")) code = serve(argc, argv);
    else if (argv && argc > 1 && !wcscmp(argv[1], L"pause")) code = pause_until_shutdown();
    else if (argv && argc > 1 && !wcscmp(argv[1], L"run")) code = run(argc, argv);
    else say("hpcc-agent: serve | pause | run; see docs/windows.md\r\n");
    ExitProcess((UINT)code);
}
