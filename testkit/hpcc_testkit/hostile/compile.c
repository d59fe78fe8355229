/* A hostile compile: leaves files in /src that are not outputs, or too many of them. It is sent as an input. */
#define _GNU_SOURCE
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/sysmacros.h>
#include <sys/un.h>
#include <unistd.h>

static int tell(int failed) { printf("errno=%d\n", failed ? errno : 0); return 0; }

static int sparse(const char *path, long long size) {
    int o = open(path, O_WRONLY | O_CREAT | O_TRUNC, 0666);
    return tell(o < 0 || ftruncate(o, size));
}

int main(int n, char **v) {
    const char *c = n > 1 ? v[1] : "", *x = n > 2 ? v[2] : "", *y = n > 3 ? v[3] : "";
    if (!strcmp(c, "directory")) return tell(mkdir(x, 0777));
    if (!strcmp(c, "symlink")) return tell(symlink(y, x));
    if (!strcmp(c, "parent")) return tell(rename(x, "aside") || symlink(y, x)); /* its directory is another */
    if (!strcmp(c, "hardlink")) return tell(link(y, x));
    if (!strcmp(c, "device")) return tell(mknod(x, S_IFCHR | 0666, makedev(1, 3)));
    if (!strcmp(c, "socket")) {
        struct sockaddr_un a = {.sun_family = AF_UNIX};
        strncpy(a.sun_path, x, sizeof a.sun_path - 1);
        return tell(bind(socket(AF_UNIX, SOCK_STREAM, 0), (struct sockaddr *)&a, sizeof a));
    }
    if (!strcmp(c, "abstract")) { /* a name in the network namespace, held by a child, and by this one for a while */
        struct sockaddr_un a = {.sun_family = AF_UNIX};
        char network[64] = "";
        strncpy(a.sun_path + 1, x, sizeof a.sun_path - 2);
        readlink("/proc/self/ns/net", network, sizeof network - 1);
        printf("%s ", network);
        int failed = bind(socket(AF_UNIX, SOCK_STREAM, 0), (struct sockaddr *)&a, sizeof a);
        tell(failed);
        fflush(stdout);
        if (!fork()) { setsid(); for (;;) pause(); }
        usleep(atoi(y) * 1000);
        return failed;
    }
    if (!strcmp(c, "sparse")) return sparse(x, atoll(y));
    if (!strcmp(c, "beyond")) { /* one byte, a tebibyte from the start */
        int o = open(x, O_WRONLY | O_CREAT, 0666);
        return tell(pwrite(o, "x", 1, 1LL << 40) != 1);
    }
    if (!strcmp(c, "many")) { /* files that nobody asked for */
        char name[64];
        for (long i = 0; i < atol(x); i++) {
            snprintf(name, sizeof name, "extra-%ld.o", i);
            close(open(name, O_WRONLY | O_CREAT, 0666));
        }
        return 0;
    }
    if (!strcmp(c, "deep")) { /* directories that no path names any more */
        for (long i = 0; i < atol(x); i++)
            if (mkdir("d", 0777) || chdir("d")) return tell(1);
        return tell(0);
    }
    if (!strcmp(c, "grow")) { /* a child that goes on writing when this one has ended */
        int o = open(x, O_WRONLY | O_CREAT | O_APPEND, 0666);
        write(o, "x", 1);
        if (!fork()) { setsid(); for (;;) write(o, "y", 1); }
        return 0;
    }
    return 99;
}
