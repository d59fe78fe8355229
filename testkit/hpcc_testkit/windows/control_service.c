/* The smallest service: it makes the file of its first argument, runs, and stops on request.
 *
 * Where Wine's service manager cannot start this, it can start no service, and a test of hpcc proves nothing. */
#include <stdio.h>
#include <windows.h>

static const char *mark;
static SERVICE_STATUS_HANDLE status_handle;
static HANDLE stopped;

static void report(DWORD state) {
    SERVICE_STATUS status = {.dwServiceType = SERVICE_WIN32_OWN_PROCESS, .dwCurrentState = state};
    if (state == SERVICE_RUNNING) status.dwControlsAccepted = SERVICE_ACCEPT_STOP;
    SetServiceStatus(status_handle, &status);
}

static DWORD WINAPI on_control(DWORD control, DWORD type, void *data, void *context) {
    (void)type, (void)data, (void)context;
    if (control == SERVICE_CONTROL_STOP) SetEvent(stopped);
    return NO_ERROR;
}

static void WINAPI service_main(DWORD argc, char **argv) {
    (void)argc, (void)argv;
    status_handle = RegisterServiceCtrlHandlerExA("", on_control, NULL);
    report(SERVICE_RUNNING);
    FILE *file = fopen(mark, "w");
    if (file) fclose(file);
    WaitForSingleObject(stopped, INFINITE);
    report(SERVICE_STOPPED);
}

int main(int argc, char **argv) {
    if (argc != 2) return 2;
    mark = argv[1];
    stopped = CreateEventA(NULL, TRUE, FALSE, NULL);
    SERVICE_TABLE_ENTRYA table[] = {{(char[]){""}, service_main}, {NULL, NULL}};
    return StartServiceCtrlDispatcherA(table) ? 0 : 3;
}
