/* Makes calls of Windows' libraries for a test on Linux: hpcc_testkit.windows.bridge is the other end.
 *
 *   bridge.exe PORT     connects to that port of loopback; each byte on the first connection asks for one
 *                       more, which a separate thread serves, so that what a call leaves in its thread
 *                       (an impersonation, the last error) is there for the next.
 *
 * On a connection: one byte says what is wanted. All numbers are little-endian.
 *   C  length of a name (1), name, count (1), arguments (8 each)   ->  value (8), last error (4)
 *   A  size (4), bytes                                             ->  address (8)
 *   L  address (8), size (4)                                       ->  bytes
 *   F  address (8)                                                 ->  one byte */
#define WIN32_LEAN_AND_MEAN
#define _WIN32_WINNT 0x0A00
#include <winsock2.h>
#include <windows.h>

#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define MOST_ARGUMENTS 14

typedef uint64_t (*function)(uint64_t, uint64_t, uint64_t, uint64_t, uint64_t, uint64_t, uint64_t, uint64_t,
                             uint64_t, uint64_t, uint64_t, uint64_t, uint64_t, uint64_t);

static u_short port;

static int take(SOCKET from, void *to, size_t bytes) {
    char *at = to;
    while (bytes) {
        int n = recv(from, at, (int)bytes, 0);
        if (n <= 0) return 0;
        at += n;
        bytes -= (size_t)n;
    }
    return 1;
}

static int give(SOCKET to, const void *data, size_t bytes) {
    const char *at = data;
    while (bytes) {
        int n = send(to, at, (int)bytes, 0);
        if (n <= 0) return 0;
        at += n;
        bytes -= (size_t)n;
    }
    return 1;
}

static FARPROC find(const char *name) {
    static const char *const libraries[] = {"kernel32.dll", "advapi32.dll"};
    for (int i = 0; i < 2; i++) {
        FARPROC found = GetProcAddress(LoadLibraryA(libraries[i]), name);
        if (found) return found;
    }
    fprintf(stderr, "no %s\n", name);
    return NULL;
}

static int do_call(SOCKET s) {
    unsigned char length, count;
    char name[256] = {0};
    uint64_t a[MOST_ARGUMENTS] = {0}, value;
    if (!take(s, &length, 1) || !take(s, name, length) || !take(s, &count, 1)) return 0;
    if (count > MOST_ARGUMENTS || !take(s, a, count * sizeof *a)) return 0;
    FARPROC found = find(name);
    function called;
    if (!found) return 0;
    memcpy(&called, &found, sizeof called);
    SetLastError(0);
    value = called(a[0], a[1], a[2], a[3], a[4], a[5], a[6], a[7], a[8], a[9], a[10], a[11], a[12], a[13]);
    uint32_t error = GetLastError();
    return give(s, &value, 8) && give(s, &error, 4);
}

static int do_allocate(SOCKET s) {
    uint32_t size;
    if (!take(s, &size, 4)) return 0;
    char *memory = malloc(size ? size : 1);
    uint64_t address = (uint64_t)(uintptr_t)memory;
    return memory && take(s, memory, size) && give(s, &address, 8);
}

static int do_load(SOCKET s) {
    uint64_t address;
    uint32_t size;
    return take(s, &address, 8) && take(s, &size, 4) && give(s, (const void *)(uintptr_t)address, size);
}

static int do_free(SOCKET s) {
    uint64_t address;
    if (!take(s, &address, 8)) return 0;
    free((void *)(uintptr_t)address);
    return give(s, "", 1);
}

static SOCKET dial(void) {
    struct sockaddr_in address = {.sin_family = AF_INET, .sin_port = htons(port)};
    SOCKET s = socket(AF_INET, SOCK_STREAM, 0);
    BOOL yes = TRUE;
    address.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
    if (connect(s, (struct sockaddr *)&address, sizeof address)) exit(3);
    setsockopt(s, IPPROTO_TCP, TCP_NODELAY, (const char *)&yes, sizeof yes);
    return s;
}

static DWORD WINAPI serve(void *unused) {
    (void)unused;
    SOCKET s = dial();
    char what;
    int is_good = 1;
    while (is_good && take(s, &what, 1))
        switch (what) {
        case 'C': is_good = do_call(s); break;
        case 'A': is_good = do_allocate(s); break;
        case 'L': is_good = do_load(s); break;
        case 'F': is_good = do_free(s); break;
        default: is_good = 0;
        }
    closesocket(s);
    return 0;
}

int main(int argc, char **argv) {
    WSADATA data;
    char byte;
    if (argc != 2 || WSAStartup(MAKEWORD(2, 2), &data)) return 2;
    port = (u_short)atoi(argv[1]);
    SOCKET first = dial();
    while (take(first, &byte, 1)) CloseHandle(CreateThread(NULL, 0, serve, NULL, 0, NULL));
    return 0; /* its handles go with it: pipes, locks */
}
