/* PID 1 of the machine that the Firecracker tests run in where the host has no working KVM: loads the
 * modules of the initramfs, puts a writable layer over the host's root (virtiofs, read-only), runs the
 * script named by hpcc.run= with its output on the virtio port, and ends the machine.
 */
#define _GNU_SOURCE
#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <net/if.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/mount.h>
#include <sys/reboot.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

static void die(const char *what, const char *arg) {
    dprintf(2, "nested-init: %s %s: %s\n", what, arg, strerror(errno));
    reboot(RB_AUTOBOOT);
    for (;;) pause();
}
static void mnt(const char *src, const char *dst, const char *fs, unsigned long flags, const char *opt) {
    if (mkdir(dst, 0755) && errno != EEXIST) die("mkdir", dst);
    if (mount(src, dst, fs, flags, opt)) die("mount", dst);
}
static int by_name(const void *a, const void *b) { return strcmp(*(char *const *)a, *(char *const *)b); }
static void load_modules(void) {
    char *mods[64];
    int n = 0;
    DIR *d = opendir("/m");
    for (struct dirent *e; d && (e = readdir(d)) && n < 64;)
        if (e->d_name[0] != '.') mods[n++] = strdup(e->d_name);
    qsort(mods, (size_t)n, sizeof *mods, by_name);
    for (int i = 0; i < n; i++) {
        char path[300];
        snprintf(path, sizeof path, "/m/%s", mods[i]);
        int f = open(path, O_RDONLY | O_CLOEXEC);
        if (syscall(SYS_finit_module, f, "", 0) && errno != EEXIST) die("insmod", path);
        close(f);
    }
}
static void build_root(void) {
    mnt("host", "/ro", "virtiofs", MS_RDONLY, 0);
    mnt("rw", "/rw", "tmpfs", 0, "size=80%");
    if (mkdir("/rw/up", 0755) || mkdir("/rw/wk", 0755)) die("mkdir", "/rw");
    mnt("overlay", "/new", "overlay", 0, "lowerdir=/ro,upperdir=/rw/up,workdir=/rw/wk,index=off,xino=off");
    mnt("proc", "/new/proc", "proc", 0, 0);
    mnt("sys", "/new/sys", "sysfs", 0, 0);
    mnt("cgroup", "/new/sys/fs/cgroup", "cgroup2", 0, 0);
    mnt("dev", "/new/dev", "devtmpfs", 0, 0);
    mnt("shm", "/new/dev/shm", "tmpfs", 0, "mode=1777");
    mnt("run", "/new/run", "tmpfs", 0, "mode=0755");
    /* Not nodev: the jailer makes device nodes below it. */
    mnt("scratch", "/new/scratch", "tmpfs", 0, "mode=1777,size=80%");
    if (chdir("/new") || mount(".", "/", 0, MS_MOVE, 0) || chroot(".") || chdir("/")) die("switch_root", "/new");
}
static void find_script(char *path, size_t size) {
    char line[4096] = "";
    int f = open("/proc/cmdline", O_RDONLY);
    if (f < 0 || read(f, line, sizeof line - 1) < 0) die("read", "/proc/cmdline");
    close(f);
    for (char *word = strtok(line, " \n"); word; word = strtok(0, " \n"))
        if (!strncmp(word, "hpcc.run=", 9)) { snprintf(path, size, "%s", word + 9); return; }
    errno = ENOENT;
    die("no", "hpcc.run=");
}
static void raise_loopback(void) {
    struct ifreq lo = {.ifr_name = "lo", .ifr_flags = IFF_UP | IFF_RUNNING};
    int s = socket(AF_INET, SOCK_DGRAM, 0);
    if (s < 0 || ioctl(s, SIOCSIFFLAGS, &lo)) die("raise", "lo");
    close(s);
}
static int open_port(void) {
    DIR *d = opendir("/sys/class/virtio-ports");
    for (struct dirent *e; d && (e = readdir(d));) {
        char path[300];
        if (e->d_name[0] == '.') continue;
        snprintf(path, sizeof path, "/dev/%s", e->d_name);
        return open(path, O_WRONLY);
    }
    return -1;
}

int main(void) {
    char script[2048];
    if (getpid() != 1) return 64;
    mnt("dev", "/dev", "devtmpfs", 0, 0);
    int c = open("/dev/console", O_RDWR);
    for (int i = 0; i < 3 && c >= 0; i++) dup2(c, i);
    load_modules();
    build_root();
    raise_loopback();
    find_script(script, sizeof script);
    int port = open_port();
    if (port < 0) die("no", "virtio port");
    pid_t child = fork();
    if (!child) {
        setsid();
        int null = open("/dev/null", O_RDONLY);
        dup2(null, 0);
        dup2(port, 1);
        dup2(port, 2);
        execl("/bin/sh", "sh", script, (char *)0);
        _exit(127);
    }
    int status = 0;
    for (pid_t done; (done = wait(&status)) != child;)
        if (done < 0 && errno != EINTR) die("wait", script);
    dprintf(port, "\n@end %d\n", WIFEXITED(status) ? WEXITSTATUS(status) : 128 + WTERMSIG(status));
    nanosleep(&(struct timespec){0, 200000000}, 0); /* the port's last bytes */
    reboot(RB_AUTOBOOT);
    for (;;) pause();
}
