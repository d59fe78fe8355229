/* The other end of the launcher's pipe, for tests: takes one request and answers what a file says.
 *
 *   sid                                    print this user's SID
 *   PIPE SDDL REQUEST REPLY [REPORT FINISH]    one connection: the request goes to a file, the bytes of
 *                                          REPLY come back; "-" never answers. Then the same once more. */
#define WIN32_LEAN_AND_MEAN
#define _WIN32_WINNT 0x0A00
#include <windows.h>

#include <sddl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

static int fail(const char *what) {
    fprintf(stderr, "%s: %lu\n", what, GetLastError());
    return 1;
}

static int print_sid(void) {
    _Alignas(16) char user[256];
    HANDLE token;
    DWORD size;
    char *text;
    if (!OpenProcessToken(GetCurrentProcess(), TOKEN_QUERY, &token)) return fail("token");
    if (!GetTokenInformation(token, TokenUser, user, sizeof user, &size)) return fail("user");
    if (!ConvertSidToStringSidA(((TOKEN_USER *)user)->User.Sid, &text)) return fail("sid");
    puts(text);
    return 0;
}

static int read_whole(HANDLE pipe, char *to, DWORD bytes) {
    for (DWORD n; bytes; to += n, bytes -= n)
        if (!ReadFile(pipe, to, bytes, &n, NULL) || !n) return 0;
    return 1;
}

/* One frame to a file. */
static int save_frame(HANDLE pipe, const char *file) {
    char *data = malloc(16u << 20);
    DWORD bytes;
    if (!data || !read_whole(pipe, data, 12)) return fail("header");
    memcpy(&bytes, data + 8, 4);
    if (bytes > 15u << 20 || !read_whole(pipe, data + 12, bytes)) return fail("body");
    FILE *out = fopen(file, "wb");
    if (!out || fwrite(data, 1, bytes + 12, out) != bytes + 12 || fclose(out)) return fail(file);
    free(data);
    return 0;
}

static int send_file(HANDLE pipe, const char *file) {
    char data[1 << 16];
    DWORD n = 0, written;
    FILE *in = fopen(file, "rb");
    if (!in) return fail(file);
    while ((n = (DWORD)fread(data, 1, sizeof data, in)) > 0)
        if (!WriteFile(pipe, data, n, &written, NULL)) return fail("answer");
    fclose(in);
    return 0;
}

int main(int argc, char **argv) {
    if (argc == 2 && !strcmp(argv[1], "sid")) return print_sid();
    if (argc < 5) return 2;
    SECURITY_ATTRIBUTES access = {.nLength = sizeof access};
    if (!ConvertStringSecurityDescriptorToSecurityDescriptorA(argv[2], SDDL_REVISION_1, &access.lpSecurityDescriptor, NULL)) return fail("sddl");
    HANDLE pipe = CreateNamedPipeA(argv[1], PIPE_ACCESS_DUPLEX, PIPE_TYPE_BYTE | PIPE_REJECT_REMOTE_CLIENTS, 1, 4096, 4096, 0, &access);
    if (pipe == INVALID_HANDLE_VALUE) return fail("pipe");
    puts("ready");
    fflush(stdout);
    if (!ConnectNamedPipe(pipe, NULL) && GetLastError() != ERROR_PIPE_CONNECTED) return fail("connect");
    for (int i = 3; i + 1 < argc; i += 2) {
        if (save_frame(pipe, argv[i])) return 1;
        if (!strcmp(argv[i + 1], "-")) Sleep(INFINITE);
        if (send_file(pipe, argv[i + 1])) return 1;
    }
    FlushFileBuffers(pipe);
    return 0;
}
