/* What the guest contract runs: argv[1] says what to do; every answer is one line on stdout. */
#define _GNU_SOURCE
#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <sched.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mount.h>
#include <sys/ptrace.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/xattr.h>
#include <time.h>
#include <unistd.h>
static int is(const char *a, const char *b) { return !strcmp(a, b); }
static int copy(const char *from, const char *to) {
    char b[65536]; ssize_t n; int i = open(from, O_RDONLY), o = open(to, O_WRONLY | O_CREAT | O_TRUNC, 0666);
    if (i < 0 || o < 0) { perror(from); return 1; }
    while ((n = read(i, b, sizeof b)) > 0) if (write(o, b, n) != n) return 1;
    return 0;
}
static void denied(const char *what, long r) { printf("%s=%d ", what, r < 0 ? errno : 0); }
int main(int argc, char **argv) {
    const char *c = argc > 1 ? argv[1] : "", *x = argc > 2 ? argv[2] : "", *y = argc > 3 ? argv[3] : "";
    if (is(c, "say")) { printf("%s\n", x); fprintf(stderr, "%s\n", y); return 0; }
    if (is(c, "exit")) return atoi(x);
    if (is(c, "raise")) { raise(atoi(x)); return 0; }
    if (is(c, "copy")) return copy(x, y);
    if (is(c, "head")) { /* its first bytes, in hexadecimal */
        int i = open(x, O_RDONLY); unsigned char b[64]; ssize_t n = read(i, b, atoi(y) < 64 ? atoi(y) : 64);
        for (ssize_t k = 0; k < n; k++) printf("%02x", b[k]);
        printf("\n"); return i < 0;
    }
    if (is(c, "link")) return symlink(x, y);
    if (is(c, "fifo")) return mkfifo(x, 0666);
    if (is(c, "sleep")) { printf("asleep\n"); fflush(stdout); sleep(atoi(x)); return 0; }
    if (is(c, "orphan")) { /* it holds memory in a new session, and outlives its starter */
        int p[2]; char b; if (pipe(p)) return 5;
        if (fork()) { close(p[1]); return read(p[0], &b, 1) != 1; }
        setsid();
        for (long n = atol(x) * 1048576; n > 0; n -= 1048576) { char *m = malloc(1048576); if (!m) return 4; memset(m, 1, 1048576); }
        if (write(p[1], "h", 1) != 1) return 5;
        sleep(600); return 0;
    }
    if (is(c, "spam")) { char b[4096]; memset(b, 'x', sizeof b); for (long n = atol(x); n > 0; n -= 4096) write(1, b, 4096); return 0; }
    if (is(c, "write")) {
        int o = open(x, O_WRONLY | O_CREAT | O_TRUNC, 0666); static char b[65536];
        for (long n = atol(y); n > 0; n -= sizeof b) if (write(o, b, sizeof b) < 0) { perror("write"); return 3; }
        return 0;
    }
    if (is(c, "eat")) {
        for (long n = atol(x) * 1048576; n > 0; n -= 1048576) { char *p = malloc(1048576); if (!p) return 4; memset(p, 1, 1048576); }
        return 0;
    }
    if (is(c, "hold")) { /* half of it in a child in another session */
        int p[2]; char b; if (pipe(p)) return 5;
        int child = !fork();
        if (child) setsid();
        else if (read(p[0], &b, 1) != 1) return 5;
        for (long n = atol(x) * 524288; n > 0; n -= 524288) { char *m = malloc(524288); if (!m) return 4; memset(m, 1, 524288); }
        if (child && write(p[1], "h", 1) != 1) return 5;
        if (!child) { printf("held\n"); fflush(stdout); }
        sleep(600); return 0;
    }
    if (is(c, "killall")) {
        int n = 0; kill(-1, SIGKILL); for (int i = 1; i < 1000; i++) if (i != getpid() && !kill(i, SIGKILL)) n++;
        printf("%d\n", n); return 0;
    }
    if (is(c, "env")) { for (char **e = environ; *e; e++) printf("%s\n", *e); return 0; }
    if (is(c, "pinned")) {
        char d[65] = ""; time_t t = 0; struct tm *l = localtime(&t); getdomainname(d, 64);
        printf("pid=%d ppid=%d domain=%s zone=%ld\n", getpid(), getppid(), d, l ? l->tm_gmtoff : -1); return 0;
    }
    if (is(c, "forks")) {
        int n = 0; for (int i = atoi(x); i > 0; i--) { pid_t p = fork(); if (!p) { sleep(600); _exit(0); } if (p > 0) n++; }
        printf("%d\n", n); return 0;
    }
    if (is(c, "who")) {
        char h[65] = "", d[4096] = ""; gethostname(h, 64); getcwd(d, sizeof d); mode_t m = umask(0);
        printf("host=%s uid=%d gid=%d cwd=%s umask=%03o sid=%d\n", h, getuid(), getgid(), d, m, getsid(0) == getpid()); return 0;
    }
    if (is(c, "time")) { printf("%ld\n", (long)time(0)); return 0; }
    if (is(c, "list")) {
        DIR *d = opendir(x); if (!d) { printf("errno=%d\n", errno); return 0; }
        for (struct dirent *e; (e = readdir(d));) if (e->d_name[0] != '.' || e->d_name[1] > '.') printf("%s ", e->d_name);
        printf("\n"); return 0;
    }
    if (is(c, "pids")) {
        DIR *d = opendir("/proc"); int n = 0;
        for (struct dirent *e; (e = readdir(d));) if (e->d_name[0] >= '1' && e->d_name[0] <= '9') n++;
        printf("%d\n", n); return 0;
    }
    if (is(c, "touch")) { int o = open(x, O_WRONLY | O_CREAT, 0666); printf("errno=%d\n", o < 0 ? errno : 0); return 0; }
    if (is(c, "attack")) { /* every way to change an input, each with what it answers */
        struct timespec now[2] = {{1, 0}, {1, 0}};
        denied("write", open(x, O_WRONLY)); denied("append", open(x, O_WRONLY | O_APPEND));
        denied("both", open(x, O_RDWR)); denied("cut", truncate(x, 0)); denied("chmod", chmod(x, 0666));
        denied("chown", chown(x, getuid(), getgid())); denied("time", utimensat(AT_FDCWD, x, now, 0));
        denied("touch", utimensat(AT_FDCWD, x, 0, 0)); denied("mark", setxattr(x, "user.seen", "1", 1, 0));
        printf("\n"); return 0;
    }
    if (is(c, "swap")) { /* puts a file of its own in an input's place */
        if (unlink(x)) { printf("errno=%d\n", errno); return 1; }
        int o = open(x, O_WRONLY | O_CREAT | O_EXCL, 0666); printf("errno=%d\n", o < 0 || write(o, "evil", 4) != 4 ? errno : 0); return 0;
    }
    if (is(c, "identity")) { /* of each path: mode, owner, time, and the number of the path with the same inode */
        struct stat s[8];
        for (int i = 2; i < argc && i < 10; i++) {
            int same = 2;
            if (stat(argv[i], &s[i - 2])) return 1;
            while (s[same - 2].st_ino != s[i - 2].st_ino) same++;
            printf("%o %d %ld %d\n", (unsigned)s[i - 2].st_mode & 07777, s[i - 2].st_uid == getuid(), (long)s[i - 2].st_mtime, same - 2);
        }
        return 0;
    }
    if (is(c, "unsettle")) { /* changes a directory of inputs in one way, and undoes it if it can */
        char in[99], out[99];
        struct timespec old[2] = {{1, 0}, {1, 0}};
        snprintf(in, sizeof in, "%s/a.h", x); snprintf(out, sizeof out, "%s/left", x);
        if (is(y, "read")) return close(open(in, O_RDONLY));
        if (is(y, "order")) return rename(in, out) || rename(out, in);
        if (is(y, "gone")) return mkdir(out, 0777) || rmdir(out);
        if (is(y, "name")) return close(open(out, O_WRONLY | O_CREAT, 0666));
        if (is(y, "mode")) return chmod(x, 0700);
        if (is(y, "time")) return utimensat(AT_FDCWD, x, old, 0);
        if (is(y, "mark")) return setxattr(x, "user.left", "1", 1, 0) && errno != EOPNOTSUPP;
        if (is(y, "moved")) return rename(x, "away") || mkdir(x, 0777) || rename("away/a.h", in);
        if (is(y, "link")) return rename(x, "away") || symlink("away", x);
    }
    if (is(c, "state")) { /* of a directory: mode, owner, marks, and its names in their order */
        struct stat s;
        if (stat(x, &s)) return 1;
        printf("%o %d %d ", (unsigned)s.st_mode & 07777, s.st_uid == getuid(), (int)getxattr(x, "user.left", 0, 0));
        DIR *d = opendir(x);
        for (struct dirent *e; (e = readdir(d));) if (e->d_name[0] != '.') printf("%s ", e->d_name);
        printf("\n"); return 0;
    }
    if (is(c, "forbidden")) {
        denied("vsock", socket(40, SOCK_STREAM, 0)); denied("netlink", socket(16, SOCK_RAW, 0));
        denied("packet", socket(17, SOCK_RAW, 0)); denied("mount", mount("t", "/tmp", "tmpfs", 0, 0));
        denied("ptrace", ptrace(PTRACE_TRACEME, 0, 0, 0)); denied("bpf", syscall(SYS_bpf, 0, 0, 0));
        denied("keyctl", syscall(SYS_keyctl, 0, 0, 0)); denied("unshare", unshare(CLONE_NEWUSER));
        denied("clone", syscall(SYS_clone, CLONE_NEWUSER | SIGCHLD, 0, 0, 0, 0));
        denied("clone3", syscall(435, 0, 0)); denied("uring", syscall(425, 1, 0));
        denied("chroot", chroot("/tmp")); denied("setuid", setuid(0));
        denied("unix", socket(AF_UNIX, SOCK_STREAM, 0)); printf("\n"); return 0;
    }
    return 64;
}
