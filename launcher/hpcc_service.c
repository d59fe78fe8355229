/* hpcc-service.exe: runs one of hpcc's services as a Windows service.
 *
 *   hpcc-service run [--log FILE] [--stop-seconds N] -- PROGRAM ARGS...     started by the service manager
 *   hpcc-service console [...] -- PROGRAM ARGS...                           the same in a console, until Ctrl-C
 *
 * A program that the service manager starts must answer within 30 seconds, and whenever it is asked to
 * stop. Python starts too slowly and is too busy for that. So this program answers and runs the real
 * service as a child: in a job, so that nothing of it outlives this process; with a pipe as standard input,
 * whose end asks it to stop in order (src/hpcc/rpc/base/process.py); with both output streams in a log of
 * bounded size. A child that ends is started again, with a longer pause each time, until it has ended too
 * often. Then the service stops with the child's status, and the manager takes its recovery actions.
 *
 * Sources: Win32 "Service Programs", SetServiceStatus, SERVICE_PRESHUTDOWN_INFO, "Job Objects",
 * UpdateProcThreadAttribute. Cross-built with mingw-w64 and run under Wine; not yet run on Windows. */
#define WIN32_LEAN_AND_MEAN
#define _WIN32_WINNT 0x0A00
#include <windows.h>

#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>

#include "win_line.h"

/* Deadlines in milliseconds; a test builds with shorter ones. */
#ifndef FIRST_PAUSE_MS
#define FIRST_PAUSE_MS 1000
#endif
#define LAST_PAUSE_MS 60000
#define WINDOW_MS 300000 /* a child that lived this long did not fail at its start */
#define MOST_DEATHS 5    /* after this many earlier deaths in a row the child is given up */
#define TICK_MS 1000
#define MOST_STOP_SECONDS 3600u
#ifndef MAX_LOG_BYTES
#define MAX_LOG_BYTES (8 << 20) /* then it is renamed and replaces the previous one */
#endif
#define MAX_LONG_PATH 32768
#define EXIT_CALLER 2 /* of hpcc's services: the configuration is wrong, so a restart would fail again */
#define EXIT_CANNOT_RUN 127

struct plan {
    const wchar_t *log;
    DWORD stop_ms;
    wchar_t **argv; /* ends in NULL */
};

static struct plan plan = {.stop_ms = 60000};
static HANDLE stop_event, log_file = INVALID_HANDLE_VALUE;
static SRWLOCK log_lock;
static SERVICE_STATUS_HANDLE manager; /* NULL in a console */
static SERVICE_STATUS status = {.dwServiceType = SERVICE_WIN32_OWN_PROCESS, .dwCurrentState = SERVICE_START_PENDING};

/* ---- the log ---- */

static HANDLE open_log(void) {
    return CreateFileW(plan.log, FILE_APPEND_DATA | FILE_READ_ATTRIBUTES, FILE_SHARE_READ | FILE_SHARE_DELETE, NULL, OPEN_ALWAYS,
                       FILE_ATTRIBUTE_NORMAL | FILE_FLAG_OPEN_REPARSE_POINT, NULL);
}

/* The log and the one it replaced; their total size is bounded. */
static void set_log_aside(void) {
    static wchar_t old[MAX_LONG_PATH];
    if (wcslen(plan.log) + 3 > MAX_LONG_PATH) return;
    wcscpy(old, plan.log);
    wcscat(old, L".1");
    CloseHandle(log_file);
    MoveFileExW(plan.log, old, MOVEFILE_REPLACE_EXISTING);
    log_file = open_log();
}

static void write_log(const char *data, DWORD bytes) {
    LARGE_INTEGER size;
    DWORD written;
    AcquireSRWLockExclusive(&log_lock);
    HANDLE to = plan.log ? log_file : GetStdHandle(STD_ERROR_HANDLE);
    bool is_full = plan.log && GetFileSizeEx(to, &size) && size.QuadPart + bytes > MAX_LOG_BYTES;
    if (is_full) {
        set_log_aside();
        to = log_file;
        is_full = GetFileSizeEx(to, &size) && size.QuadPart + bytes > MAX_LOG_BYTES; /* if a reader holds the file, this output is lost */
    }
    if (to != INVALID_HANDLE_VALUE && !is_full) WriteFile(to, data, bytes, &written, NULL); /* a full disk does not stop the service */
    ReleaseSRWLockExclusive(&log_lock);
}

/* Writes one line of this program, with the time (UTC). */
static void say(const char *what, DWORD number) {
    char text[200];
    SYSTEMTIME t;
    GetSystemTime(&t);
    int n = snprintf(text, sizeof text, "%04u-%02u-%02u %02u:%02u:%02u hpcc-service: %s %lu\r\n", t.wYear, t.wMonth, t.wDay, t.wHour,
                     t.wMinute, t.wSecond, what, number);
    if (n > 0) write_log(text, (DWORD)n);
}

static DWORD WINAPI pump(void *from) {
    char data[1 << 14];
    DWORD n;
    while (ReadFile(from, data, sizeof data, &n, NULL) && n) write_log(data, n);
    CloseHandle(from);
    return 0;
}

/* ---- the service manager ---- */

static void report(DWORD state, DWORD code, DWORD hint_ms) {
    status.dwCurrentState = state;
    status.dwControlsAccepted = state == SERVICE_RUNNING ? SERVICE_ACCEPT_STOP | SERVICE_ACCEPT_SHUTDOWN | SERVICE_ACCEPT_PRESHUTDOWN : 0;
    status.dwWin32ExitCode = code ? ERROR_SERVICE_SPECIFIC_ERROR : 0;
    status.dwServiceSpecificExitCode = code;
    status.dwWaitHint = hint_ms;
    status.dwCheckPoint = hint_ms ? status.dwCheckPoint + 1 : 0;
    if (manager) SetServiceStatus(manager, &status);
}

static DWORD WINAPI on_control(DWORD control, DWORD type, void *data, void *context) {
    (void)type, (void)data, (void)context;
    switch (control) {
    case SERVICE_CONTROL_STOP:
    case SERVICE_CONTROL_SHUTDOWN:
    case SERVICE_CONTROL_PRESHUTDOWN: SetEvent(stop_event); return NO_ERROR; /* the other thread reports */
    case SERVICE_CONTROL_INTERROGATE: return NO_ERROR;
    default: return ERROR_CALL_NOT_IMPLEMENTED;
    }
}

static BOOL WINAPI on_console(DWORD kind) {
    (void)kind;
    SetEvent(stop_event);
    return TRUE;
}

/* ---- the child ---- */

struct child {
    HANDLE process, job, input, pump;
};

static HANDLE make_job(void) {
    HANDLE job = CreateJobObjectW(NULL, NULL);
    JOBOBJECT_EXTENDED_LIMIT_INFORMATION limits = {0};
    limits.BasicLimitInformation.LimitFlags = JOB_OBJECT_LIMIT_KILL_ON_JOB_CLOSE | JOB_OBJECT_LIMIT_DIE_ON_UNHANDLED_EXCEPTION;
    if (job && SetInformationJobObject(job, JobObjectExtendedLimitInformation, &limits, sizeof limits)) return job;
    if (job) CloseHandle(job);
    return NULL;
}

/* The child inherits only these handles. */
static bool create(HANDLE input, HANDLE output, PROCESS_INFORMATION *process) {
    HANDLE handles[] = {input, output};
    STARTUPINFOEXW startup = {.StartupInfo = {.cb = sizeof startup, .dwFlags = STARTF_USESTDHANDLES}};
    if (!put_line(plan.argv)) return SetLastError(ERROR_FILENAME_EXCED_RANGE), false;
    startup.StartupInfo.hStdInput = input;
    startup.StartupInfo.hStdOutput = startup.StartupInfo.hStdError = output;
    SIZE_T size = 0;
    InitializeProcThreadAttributeList(NULL, 1, 0, &size);
    startup.lpAttributeList = malloc(size);
    if (!startup.lpAttributeList || !InitializeProcThreadAttributeList(startup.lpAttributeList, 1, 0, &size)) return false;
    bool is_started = UpdateProcThreadAttribute(startup.lpAttributeList, 0, PROC_THREAD_ATTRIBUTE_HANDLE_LIST, handles, sizeof handles, NULL, NULL) &&
                      /* The program by its path, so that no directory is searched for it. */
                      CreateProcessW(plan.argv[0], line, NULL, NULL, TRUE, EXTENDED_STARTUPINFO_PRESENT | CREATE_SUSPENDED | CREATE_NO_WINDOW,
                                     NULL, NULL, &startup.StartupInfo, process);
    DWORD error = GetLastError();
    DeleteProcThreadAttributeList(startup.lpAttributeList);
    free(startup.lpAttributeList);
    SetLastError(error);
    return is_started;
}

/* Suspended until it is in the job, so that it cannot start anything outside. */
static bool start_child(struct child *child) {
    SECURITY_ATTRIBUTES inherited = {.nLength = sizeof inherited, .bInheritHandle = TRUE};
    HANDLE input, output, from;
    PROCESS_INFORMATION process;
    *child = (struct child){.job = make_job()};
    if (!child->job || !CreatePipe(&input, &child->input, &inherited, 0)) return false;
    if (!CreatePipe(&from, &output, &inherited, 1 << 16)) return false;
    SetHandleInformation(child->input, HANDLE_FLAG_INHERIT, 0);
    SetHandleInformation(from, HANDLE_FLAG_INHERIT, 0);
    bool is_started = create(input, output, &process) && AssignProcessToJobObject(child->job, process.hProcess);
    DWORD error = GetLastError();
    CloseHandle(input);
    CloseHandle(output);
    if (!is_started) {
        CloseHandle(child->input);
        CloseHandle(child->job); /* ends what is still in it */
        CloseHandle(from);
        return SetLastError(error), false;
    }
    child->process = process.hProcess;
    child->pump = CreateThread(NULL, 0, pump, from, 0, NULL);
    ResumeThread(process.hThread);
    CloseHandle(process.hThread);
    return true;
}

/* Ends what is left of the child, and waits for its last output. */
static DWORD bury(struct child *child) {
    DWORD code = EXIT_CANNOT_RUN;
    GetExitCodeProcess(child->process, &code);
    TerminateJobObject(child->job, EXIT_CANNOT_RUN);
    if (child->input) CloseHandle(child->input);
    if (child->pump) {
        WaitForSingleObject(child->pump, 5 * TICK_MS);
        CloseHandle(child->pump);
    }
    CloseHandle(child->process);
    CloseHandle(child->job);
    return code;
}

/* Ask the child to stop, wait for the set time, then end it and all that it started. */
static void stop_child(struct child *child) {
    DWORD waited = 0;
    say("stopping; seconds at most", plan.stop_ms / 1000);
    CloseHandle(child->input);
    child->input = NULL;
    do report(SERVICE_STOP_PENDING, 0, 3 * TICK_MS);
    while (WaitForSingleObject(child->process, TICK_MS) == WAIT_TIMEOUT && (waited += TICK_MS) < plan.stop_ms);
    if (WaitForSingleObject(child->process, 0) == WAIT_TIMEOUT) {
        say("it did not leave in time and is ended; seconds", plan.stop_ms / 1000);
        TerminateJobObject(child->job, EXIT_CANNOT_RUN);
    }
    say("stopped with status", bury(child));
}

/* Keep the child running until we must stop: returns 0, or the child's status if it was given up. */
static DWORD supervise(void) {
    DWORD pause = FIRST_PAUSE_MS, deaths = 0, code;
    for (;;) {
        struct child child;
        uint64_t began = GetTickCount64();
        if (!start_child(&child)) {
            code = GetLastError();
            say("cannot start the program; Windows error", code);
            return code ? code : EXIT_CANNOT_RUN;
        }
        report(SERVICE_RUNNING, 0, 0);
        say("started process", GetProcessId(child.process));
        HANDLE ends[2] = {stop_event, child.process};
        if (WaitForMultipleObjects(2, ends, FALSE, INFINITE) == WAIT_OBJECT_0) return stop_child(&child), 0;
        code = bury(&child);
        say("it ended with status", code);
        bool is_old = GetTickCount64() - began >= WINDOW_MS;
        if (is_old) deaths = 0, pause = FIRST_PAUSE_MS;
        if (code == EXIT_CALLER || ++deaths > MOST_DEATHS) {
            say("given up with status", code);
            return code ? code : EXIT_CANNOT_RUN;
        }
        if (WaitForSingleObject(stop_event, pause) == WAIT_OBJECT_0) return 0;
        pause = pause * 2 < LAST_PAUSE_MS ? pause * 2 : LAST_PAUSE_MS;
    }
}

static void WINAPI service_main(DWORD argc, wchar_t **argv) {
    (void)argc, (void)argv; /* arguments of `sc start` are not those of the installation */
    manager = RegisterServiceCtrlHandlerExW(L"", on_control, NULL);
    report(SERVICE_START_PENDING, 0, 10 * TICK_MS);
    report(SERVICE_STOPPED, supervise(), 0);
}

/* ---- the command line ---- */

static bool read_number(const wchar_t *text, DWORD most, DWORD *value) {
    *value = 0;
    for (; *text >= L'0' && *text <= L'9' && *value <= most; text++) *value = *value * 10 + (DWORD)(*text - L'0');
    return !*text && *value && *value <= most;
}

static bool read_plan(wchar_t **argv) {
    DWORD seconds;
    for (; argv[0] && argv[1]; argv += 2) {
        if (!wcscmp(argv[0], L"--")) return plan.argv = argv + 1, true;
        if (!wcscmp(argv[0], L"--log")) plan.log = argv[1];
        else if (!wcscmp(argv[0], L"--stop-seconds") && read_number(argv[1], MOST_STOP_SECONDS, &seconds)) plan.stop_ms = seconds * 1000;
        else return false;
    }
    return false;
}

static int usage(void) {
    static const char text[] = "hpcc-service: run|console [--log FILE] [--stop-seconds N] -- PROGRAM ARGS...\r\n"
                               "`hpcc worker install-service` makes a service of it; see docs/windows.md\r\n";
    DWORD written;
    WriteFile(GetStdHandle(STD_ERROR_HANDLE), text, sizeof text - 1, &written, NULL);
    return EXIT_CALLER;
}

int _CRT_glob = 0; /* `*` is an ordinary argument */

/* The C runtime parses arguments as CommandLineToArgvW does. That function is in shell32, which would load
 * desktop libraries while the service manager waits. */
int wmain(int argc, wchar_t **argv) {
    bool is_run = argc > 1 && !wcscmp(argv[1], L"run"), is_console = argc > 1 && !wcscmp(argv[1], L"console");
    if (!(is_run || is_console) || !read_plan(argv + 2)) return usage();
    stop_event = CreateEventW(NULL, TRUE, FALSE, NULL);
    if (plan.log) log_file = open_log();
    if (!stop_event || (plan.log && log_file == INVALID_HANDLE_VALUE)) return EXIT_CANNOT_RUN;
    if (is_console) {
        SetConsoleCtrlHandler(on_console, TRUE);
        return (int)supervise();
    }
    SERVICE_TABLE_ENTRYW table[] = {{(wchar_t[]){L""}, service_main}, {NULL, NULL}};
    /* Returns when the service has stopped; at once if a person and not the manager started it. */
    return StartServiceCtrlDispatcherW(table) ? 0 : usage();
}
