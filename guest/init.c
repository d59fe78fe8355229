/* hpcc guest init: the only native program of a guest, static, without the image's libc.
 *
 *   /init                       PID 1: loads modules, mounts the image and the agent drive, starts the
 *                               agent and reaps. When the agent ends, so does the machine.
 *   /.hpcc/bin/hpcc-init exec   makes a sandbox and runs one program in it, for the agent (see sandbox()).
 *   /.hpcc/bin/hpcc-init pause  PID 1 of a container: reaps until a signal ends it.
 *
 * Every failure of PID 1 prints one line on the console and reboots. That ends the VMM process, so
 * the host sees the end of the stream at once.
 */
#define _GNU_SOURCE
#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <grp.h>
#include <limits.h>
#include <sched.h>
#include <signal.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/mount.h>
#include <sys/prctl.h>
#include <sys/reboot.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/sysmacros.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

/* ------------------------------------------------------------------------------ seccomp ABI */
/* Written out, so that musl-gcc can build this without the kernel's headers. Source: linux/seccomp.h,
 * linux/filter.h, linux/audit.h. */
struct bpf_insn { uint16_t code; uint8_t jt, jf; uint32_t k; };
struct bpf_prog { uint16_t len; struct bpf_insn *insns; };
struct seccomp_args { int32_t nr; uint32_t arch; uint64_t ip, args[6]; };
#define LD_ABS 0x20
#define JMP_EQ 0x15
#define JMP_GE 0x35
#define JMP_SET 0x45
#define RET 0x06
#define RET_ALLOW 0x7fff0000u
#define RET_ERRNO 0x00050000u
#define RET_KILL 0x80000000u
#if defined(__x86_64__)
#define ARCH 0xc000003eu
#elif defined(__aarch64__)
#define ARCH 0xc00000b7u
#else
#error "no seccomp table for this architecture"
#endif
#define NR_CLONE3 435 /* the same numbers everywhere; older headers lack them */
#define NR_CLOSE_RANGE 436

/* Refused with EPERM whatever the arguments. Numbers of 424 and above are the same everywhere. */
static const int denied[] = {
    SYS_mount, SYS_umount2, SYS_pivot_root, SYS_chroot, SYS_unshare, SYS_setns, SYS_bpf, SYS_ptrace,
    SYS_process_vm_readv, SYS_process_vm_writev, SYS_keyctl, SYS_add_key, SYS_request_key,
    SYS_perf_event_open, SYS_userfaultfd, SYS_kexec_load, SYS_init_module, SYS_finit_module,
    SYS_delete_module, SYS_reboot, SYS_swapon, SYS_swapoff, SYS_open_by_handle_at, SYS_quotactl, SYS_acct,
    SYS_settimeofday, SYS_clock_settime, SYS_adjtimex, SYS_clock_adjtime, SYS_sethostname,
    SYS_setdomainname, SYS_syslog, SYS_fanotify_init, SYS_vhangup,
#ifdef SYS_kexec_file_load
    SYS_kexec_file_load,
#endif
#ifdef SYS_iopl
    SYS_iopl, SYS_ioperm, SYS_modify_ldt,
#endif
    425, 426, 427,                    /* io_uring_setup, _enter, _register */
    428, 429, 430, 431, 432, 433, 442, /* open_tree move_mount fsopen fsconfig fsmount fspick mount_setattr */
    438,                              /* pidfd_getfd */
    443,                              /* quotactl_fd */
};
#define N_DENIED (sizeof denied / sizeof *denied)
#define NAMESPACES (CLONE_NEWNS | CLONE_NEWUSER | CLONE_NEWPID | CLONE_NEWNET | CLONE_NEWIPC | CLONE_NEWUTS | CLONE_NEWCGROUP)

static int install_filter(void) {
    struct bpf_insn p[N_DENIED * 2 + 32];
    unsigned n = 0;
#define OP(c, t, f, v) p[n++] = (struct bpf_insn){(c), (t), (f), (v)}
#define DENY(e) OP(RET, 0, 0, RET_ERRNO | (e))
    OP(LD_ABS, 0, 0, offsetof(struct seccomp_args, arch));
    OP(JMP_EQ, 1, 0, ARCH);
    OP(RET, 0, 0, RET_KILL);
    OP(LD_ABS, 0, 0, offsetof(struct seccomp_args, nr));
#if defined(__x86_64__)
    OP(JMP_GE, 0, 1, 0x40000000u); /* x32 calls would evade the numbers below */
    DENY(EPERM);
#endif
    for (unsigned i = 0; i < N_DENIED; i++) {
        OP(JMP_EQ, 0, 1, (uint32_t)denied[i]);
        DENY(EPERM);
    }
    OP(JMP_EQ, 0, 1, NR_CLONE3); /* a filter cannot read flags behind a pointer; libc falls back to clone */
    DENY(ENOSYS);
    OP(JMP_EQ, 0, 4, SYS_clone); /* low 32 bits of argument 0: flags (little endian) */
    OP(LD_ABS, 0, 0, offsetof(struct seccomp_args, args));
    OP(JMP_SET, 0, 1, (uint32_t)NAMESPACES);
    DENY(EPERM);
    OP(RET, 0, 0, RET_ALLOW);
    OP(JMP_EQ, 1, 0, SYS_socket);
    OP(JMP_EQ, 0, 4, SYS_socketpair);
    OP(LD_ABS, 0, 0, offsetof(struct seccomp_args, args)); /* family: never AF_VSOCK and the like */
    OP(JMP_EQ, 2, 0, AF_UNIX);
    OP(JMP_EQ, 1, 0, AF_INET);
    OP(JMP_EQ, 0, 1, AF_INET6);
    OP(RET, 0, 0, RET_ALLOW); /* every system call that is not listed also ends here */
    DENY(EPERM);
#undef OP
#undef DENY
    struct bpf_prog prog = {(uint16_t)n, p};
    return (int)syscall(SYS_seccomp, 1 /* SECCOMP_SET_MODE_FILTER */, 0, &prog);
}

/* ------------------------------------------------------------------------------- sandbox */
/* hpcc-init exec CGROUPS UID FSIZE NPROC TMPBYTES DIRECTORY WAITS     (as root)
 *
 * CGROUPS are cgroup.procs or tasks files, joined by ':': one, or one for each v1 controller.
 * Descriptor 3 is for the report, 4 is a network namespace, 5 says when to go, 6 is the job.
 * Makes pid, ipc, uts, mount and user namespaces with all that does not depend on the program, so that this can be
 * done before there is one. Then waits for a byte on 5; at its end there is no program. By then the job is complete:
 * SOURCE, the name of the source tree below DIRECTORY, CWD, the number of arguments, the arguments and the
 * environment, each ended by a zero byte. Runs the arguments as UID, after the clock's next tick unless WAITS is 0.
 * Reports in one line: "stage ERRNO WHAT" (nothing ran), "exec ERRNO" (no such program), or
 * "done STATUS UTIME_US STIME_US MAXRSS_KIB START_US" with STATUS as wait4 gives it. Killing this process kills everything in the sandbox. */
enum { REPORT_FD = 3, NETWORK_FD, GO_FD, JOB_FD, FREE_FD };
enum { INNER_ID = 1000 };

static void fail(const char *what) {
    dprintf(REPORT_FD, "stage %d %s\n", errno, what);
    _exit(125);
}
static void tmpfs_on(const char *path, const char *options, unsigned long flags) {
    if (mount("tmpfs", path, "tmpfs", MS_NOSUID | flags, options)) fail(path);
}
static void device(const char *name) {
    char from[64], to[64];
    snprintf(from, sizeof from, "/run/.hpcc-dev/%s", name);
    snprintf(to, sizeof to, "/dev/%s", name);
    int fd = open(to, O_CREAT | O_WRONLY | O_CLOEXEC, 0666);
    if (fd < 0 || close(fd) || mount(from, to, 0, MS_BIND, 0)) fail(to);
}
static void build_dev(void) {
    static const char *names[] = {"null", "zero", "full", "random", "urandom"};
    /* /run becomes private first, because the real /dev is reachable there for a moment. */
    tmpfs_on("/run", "mode=0755,size=1m", MS_NODEV | MS_NOEXEC);
    if (mkdir("/run/.hpcc-dev", 0700) || mount("/dev", "/run/.hpcc-dev", 0, MS_BIND, 0)) fail("bind /dev");
    tmpfs_on("/dev", "mode=0755,size=64k", MS_NOEXEC);
    for (unsigned i = 0; i < sizeof names / sizeof *names; i++) device(names[i]);
    if (umount2("/run/.hpcc-dev", MNT_DETACH) || rmdir("/run/.hpcc-dev")) fail("hide /dev");
    if (symlink("/proc/self/fd", "/dev/fd") || symlink("/proc/self/fd/0", "/dev/stdin") ||
        symlink("/proc/self/fd/1", "/dev/stdout") || symlink("/proc/self/fd/2", "/dev/stderr"))
        fail("links in /dev");
    if (mkdir("/dev/shm", 01777)) fail("/dev/shm");
}
/* In a container /proc shows the host's kernel. Hide what container runtimes hide. */
static void mask_proc(void) {
    static const char *masked[] = {"/proc/acpi", "/proc/asound", "/proc/interrupts", "/proc/kcore", "/proc/keys",
        "/proc/latency_stats", "/proc/sched_debug", "/proc/scsi", "/proc/timer_list", "/proc/timer_stats"};
    struct stat st;
    for (unsigned i = 0; i < sizeof masked / sizeof *masked; i++) {
        if (stat(masked[i], &st)) continue;
        if (S_ISDIR(st.st_mode)) tmpfs_on(masked[i], "mode=0555,size=4k", MS_NODEV | MS_NOEXEC | MS_RDONLY);
        else if (mount("/dev/null", masked[i], 0, MS_BIND, 0)) fail(masked[i]);
    }
}
static void hide_agent(void) {
    if (!umount2("/.hpcc", MNT_DETACH)) return;
    /* A container's user namespace may not unmount what its starter mounted, so cover it. */
    if (errno != EINVAL) fail("hide the agent drive");
    tmpfs_on("/.hpcc", "mode=0555,size=4k", MS_NODEV | MS_NOEXEC | MS_RDONLY);
    mask_proc();
}
/* All but the source tree. Returns the directory that will hold it, which nothing can name any more. */
static int build_tree(const char *directory, const char *tmp_bytes) {
    char scratch[64];
    snprintf(scratch, sizeof scratch, "mode=1777,size=%s", tmp_bytes);
    if (mount(0, "/", 0, MS_REC | MS_PRIVATE, 0)) fail("private mounts");
    int sources = open(directory, O_PATH | O_DIRECTORY | O_CLOEXEC);
    if (sources < 0) fail(directory);
    build_dev();
    tmpfs_on("/dev/shm", scratch, MS_NODEV);
    tmpfs_on("/tmp", scratch, MS_NODEV);
    tmpfs_on("/var/tmp", scratch, MS_NODEV);
    tmpfs_on("/out", scratch, MS_NODEV);
    tmpfs_on("/sys", "mode=0555,size=4k", MS_NODEV | MS_NOEXEC | MS_RDONLY);
    if (mount("proc", "/proc", "proc", MS_NOSUID | MS_NODEV | MS_NOEXEC, 0)) fail("/proc");
    hide_agent();
    if (mount(0, "/", 0, MS_BIND | MS_REMOUNT | MS_RDONLY | MS_NOSUID | MS_NODEV, 0)) fail("remount /");
    if (mount(0, "/dev", 0, MS_BIND | MS_REMOUNT | MS_RDONLY | MS_NOSUID | MS_NOEXEC, 0)) fail("remount /dev");
    return sources;
}
static void bind_source(int sources, const char *name) {
    char from[PATH_MAX];
    if (snprintf(from, sizeof from, "/proc/self/fd/%d/%s", sources, name) >= (int)sizeof from) {
        errno = ENAMETOOLONG;
        fail("source");
    }
    if (mount(from, "/src", 0, MS_BIND, 0)) fail("/src");
    if (mount(0, "/src", 0, MS_BIND | MS_REMOUNT | MS_NOSUID | MS_NODEV, 0)) fail("remount /src");
    close(sources);
}
static void limit(int what, rlim_t value) {
    if (setrlimit(what, &(struct rlimit){value, value})) fail("setrlimit");
}
static void write_file(const char *path, const char *text) {
    int fd = open(path, O_WRONLY | O_CLOEXEC);
    ssize_t n = (ssize_t)strlen(text);
    if (fd < 0 || write(fd, text, (size_t)n) != n || close(fd)) fail(path);
}
static void map_ids(pid_t child, const char *uid) {
    char path[64], line[64];
    snprintf(line, sizeof line, "%d %s 1\n", INNER_ID, uid);
    snprintf(path, sizeof path, "/proc/%d/uid_map", (int)child);
    write_file(path, line);
    snprintf(path, sizeof path, "/proc/%d/gid_map", (int)child);
    write_file(path, line);
}
static char *lookup(const char *name) {
    static char full[PATH_MAX];
    if (strchr(name, '/')) return (char *)name;
    const char *path = getenv("PATH");
    for (path = path ? path : ""; *path;) {
        size_t len = strcspn(path, ":");
        if (len && snprintf(full, sizeof full, "%.*s/%s", (int)len, path, name) < (int)sizeof full &&
            !access(full, X_OK)) return full;
        path += len + (path[len] == ':');
    }
    return 0;
}

struct sandbox { const char *uid, *fsize, *nproc, *tmp_bytes, *directory; int waits; };
struct job { const char *source, *cwd; char **argv, **env; };

/* The next of the job's texts. The agent wrote them; this only makes sure that an error there is seen. */
static char *next_text(char **at, char *end) {
    char *text = *at, *zero = text < end ? memchr(text, 0, (size_t)(end - text)) : 0;
    if (!zero) { errno = EBADMSG; fail("job"); }
    *at = zero + 1;
    return text;
}
static struct job read_job(void) {
    struct stat st;
    struct job job;
    if (fstat(JOB_FD, &st)) fail("job");
    char *at = mmap(0, (size_t)st.st_size, PROT_READ | PROT_WRITE, MAP_PRIVATE, JOB_FD, 0), *end = at + st.st_size;
    if (at == MAP_FAILED) fail("job");
    job.source = next_text(&at, end);
    job.cwd = next_text(&at, end);
    size_t arguments = strtoul(next_text(&at, end), 0, 10), texts = 0;
    for (char *c = at; c < end; c++) texts += !*c;
    if (!arguments || arguments > texts) { errno = EBADMSG; fail("job"); }
    char **words = calloc(texts + 2, sizeof *words); /* two lists, each with a null at its end */
    if (!words) fail("job");
    job.argv = words;
    job.env = words + arguments + 1;
    for (size_t i = 0; i < texts; i++) words[i + (i >= arguments)] = next_text(&at, end);
    return job;
}

/* The program's own process: waits for its id map and the job, drops all rights, runs the program. */
static void become(const struct sandbox *box, int go, int error_fd) {
    char byte;
    if (setgroups(0, 0)) fail("setgroups");
    if (unshare(CLONE_NEWUSER)) fail("user namespace");
    if (write(error_fd, "u", 1) != 1 || read(go, &byte, 1) != 1) _exit(125);
    struct job job = read_job();
    if (setresgid(INNER_ID, INNER_ID, INNER_ID) || setresuid(INNER_ID, INNER_ID, INNER_ID)) fail("setuid");
    if (chdir(job.cwd)) fail("chdir");
    setsid();
    umask(022);
    limit(RLIMIT_CORE, 1); /* not 0: if the host's core_pattern is a pipe, only 1 prevents a dump */
    limit(RLIMIT_NOFILE, 4096);
    limit(RLIMIT_MEMLOCK, 64 << 10);
    limit(RLIMIT_FSIZE, strtoull(box->fsize, 0, 10));
    limit(RLIMIT_NPROC, strtoull(box->nproc, 0, 10));
    if (prctl(PR_SET_DUMPABLE, 1) || prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0)) fail("prctl");
    for (int s = 1; s < 65; s++) signal(s, SIG_DFL);
    sigset_t none;
    sigemptyset(&none);
    sigprocmask(SIG_SETMASK, &none, 0);
    environ = job.env;
    char *program = lookup(job.argv[0]);
    if (install_filter()) fail("seccomp");
    if (program) execv(program, job.argv);
    else errno = ENOENT;
    dprintf(error_fd, "%d", errno);
    _exit(127);
}
/* Of the clock that stamps changes of files. */
static struct timespec tick_of_start;
static struct timespec tick(void) {
    struct timespec t;
    clock_gettime(CLOCK_REALTIME_COARSE, &t);
    return t;
}
/* The agent knows by ctime what a program changed, so no change may have the time of the agent's own.
 * The agent's last change came before it said "go". Newer kernels tell changes in one tick apart. */
static void wait_for_next_tick(void) {
    for (int i = 0; i < 1000; i++) {
        struct timespec now = tick();
        if (now.tv_sec != tick_of_start.tv_sec || now.tv_nsec != tick_of_start.tv_nsec) return;
        nanosleep(&(struct timespec){0, 1000000}, 0);
    }
    errno = ETIME;
    fail("clock");
}
static long now_us(void) {
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    return t.tv_sec * 1000000L + t.tv_nsec / 1000;
}

/* PID 1 of the namespace: starts the program, reaps and reports. Its end kills all processes in it. */
static void inner(const struct sandbox *box) {
    int go[2], errors[2], sources = build_tree(box->directory, box->tmp_bytes);
    char byte, code[16] = "";
    if (pipe2(go, O_CLOEXEC) || pipe2(errors, O_CLOEXEC)) fail("pipe");
    pid_t child = fork();
    if (child < 0) fail("fork");
    if (!child) {
        close(go[1]);
        close(errors[0]);
        become(box, go[0], errors[1]);
    }
    close(go[0]);
    close(errors[1]);
    if (read(errors[0], &byte, 1) != 1) _exit(125); /* the child has reported why */
    map_ids(child, box->uid);
    ssize_t said;
    while ((said = read(GO_FD, &byte, 1)) < 0) if (errno != EINTR) fail("go");
    if (!said) _exit(0); /* there is no program */
    tick_of_start = tick();
    bind_source(sources, read_job().source);
    if (box->waits) wait_for_next_tick();
    if (write(go[1], "g", 1) != 1) fail("start");
    ssize_t n = read(errors[0], code, sizeof code - 1); /* 0: the exec succeeded and closed the pipe */
    long started = now_us();
    if (n > 0) {
        dprintf(REPORT_FD, "exec %s\n", code);
        _exit(0);
    }
    int status = 0;
    struct rusage used;
    for (pid_t done; (done = wait4(-1, &status, 0, &used)) != child;)
        if (done < 0 && errno != EINTR) fail("wait");
    /* fail() in the child also closes the pipe. Then the child's line is the report, and this one is ignored. */
    dprintf(REPORT_FD, "done %d %ld %ld %ld %ld\n", status,
            used.ru_utime.tv_sec * 1000000L + used.ru_utime.tv_usec,
            used.ru_stime.tv_sec * 1000000L + used.ru_stime.tv_usec, used.ru_maxrss, started);
    _exit(0);
}

/* linux/sched.h, clone_args of version 2: the call that starts a process in a cgroup of version 2. */
struct clone3_args {
    uint64_t flags, pidfd, child_tid, parent_tid, exit_signal, stack, stack_size, tls, set_tid, set_tid_size, cgroup;
};
#define INTO_CGROUP 0x200000000ull

/* Forks the first process of a new PID namespace in the group: as fork(), or -1 if that is not possible.
 * A write to cgroup.procs waits for all processors, which takes 8 to 14 ms. */
static pid_t fork_into(const char *groups) {
    static const char procs[] = "/cgroup.procs";
    char group[PATH_MAX];
    size_t len = strlen(groups), end = sizeof procs - 1;
    if (strchr(groups, ':') || len <= end || len >= sizeof group || strcmp(groups + len - end, procs)) return -1;
    memcpy(group, groups, len - end);
    group[len - end] = 0;
    int fd = open(group, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    if (fd < 0) return -1;
    struct clone3_args args = {.flags = CLONE_NEWPID | INTO_CGROUP, .exit_signal = SIGCHLD, .cgroup = (uint64_t)fd};
    pid_t child = (pid_t)syscall(NR_CLONE3, &args, sizeof args);
    close(fd);
    return child;
}
static void join(char *groups) {
    for (char *path = strtok(groups, ":"); path; path = strtok(0, ":")) write_file(path, "0");
}
static int sandbox(int argc, char **argv) {
    if (argc != 8) return 64;
    struct sandbox box = {.uid = argv[2], .fsize = argv[3], .nproc = argv[4], .tmp_bytes = argv[5],
        .directory = argv[6], .waits = strcmp(argv[7], "0")};
    for (int fd = REPORT_FD; fd < FREE_FD; fd++) if (fcntl(fd, F_SETFD, FD_CLOEXEC)) return 64;
    if (setns(NETWORK_FD, CLONE_NEWNET) || close(NETWORK_FD)) fail("network namespace");
    /* Kernels before 5.9 lack the call. */
    if (syscall(NR_CLOSE_RANGE, FREE_FD, ~0u, 0)) for (int fd = FREE_FD; fd < 256; fd++) close(fd);
    if (chdir("/")) fail("/");
    prctl(PR_SET_PDEATHSIG, SIGKILL);
    write_file("/proc/self/oom_score_adj", "500"); /* the agent's is -1000 */
    pid_t child = fork_into(argv[1]);
    if (child < 0) {
        join(argv[1]);
        if (unshare(CLONE_NEWPID)) fail("pid namespace");
        child = fork();
    }
    if (child < 0) fail("fork");
    if (!child) {
        prctl(PR_SET_PDEATHSIG, SIGKILL);
        if (unshare(CLONE_NEWNS | CLONE_NEWIPC | CLONE_NEWUTS)) fail("namespaces");
        if (sethostname("hpcc", 4) || setdomainname("(none)", 6)) fail("hostname");
        inner(&box);
    }
    int status;
    while (waitpid(child, &status, 0) < 0) if (errno != EINTR) fail("wait");
    return WIFEXITED(status) ? WEXITSTATUS(status) : 126;
}

/* -------------------------------------------------------------------------------- PID 1 */
static void die(const char *what, const char *arg) {
    dprintf(2, "hpcc-init: %s %s: %s\n", what, arg, strerror(errno));
    reboot(RB_AUTOBOOT);
    for (;;) pause();
}
static void dir(const char *path) {
    struct stat st;
    if (mkdir(path, 0755) && errno != EEXIST) die("mkdir", path);
    /* lstat: an image may contain a symlink to elsewhere in place of a mount point. */
    if (lstat(path, &st) || !S_ISDIR(st.st_mode)) { errno = ENOTDIR; die("mount point", path); }
}
static void mnt(const char *src, const char *dst, const char *fs, unsigned long flags, const char *opt) {
    dir(dst);
    if (mount(src, dst, fs, flags, opt)) die("mount", dst);
}
static void mnt_ro(const char *dev, const char *dst) {
    static const char *fs[] = {"erofs", "squashfs", "ext4"};
    dir(dst);
    for (int t = 0; t < 5000 && access(dev, F_OK); t++) /* the block device may appear late */
        nanosleep(&(struct timespec){0, 1000000}, 0);
    for (int i = 0; i < 3; i++)
        if (!mount(dev, dst, fs[i], MS_RDONLY | MS_NODEV | MS_NOSUID, 0)) return;
    die("mount", dev);
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
        char p[300];
        snprintf(p, sizeof p, "/m/%s", mods[i]);
        int f = open(p, O_RDONLY | O_CLOEXEC);
        if (syscall(SYS_finit_module, f, "", 0) && errno != EEXIST && errno != ENODEV) die("insmod", p);
        close(f);
    }
}
static void build_root(void) {
    static const char *under[] = {"/new/src", "/new/out", "/new/tmp", "/new/var", "/new/var/tmp", "/new/run"};
    mnt("t", "/rw", "tmpfs", 0, "mode=0755,size=16m"); /* it only ever holds mount points */
    mnt_ro("/dev/vda", "/ro");
    dir("/rw/up");
    dir("/rw/wk");
    mnt("overlay", "/new", "overlay", MS_NODEV | MS_NOSUID,
        "lowerdir=/ro,upperdir=/rw/up,workdir=/rw/wk,index=off,xino=off");
    for (unsigned i = 0; i < sizeof under / sizeof *under; i++) dir(under[i]);
    dir("/new/.hpcc");
    mnt_ro("/dev/vdb", "/new/.hpcc");
    mnt("proc", "/new/proc", "proc", MS_NOSUID | MS_NODEV | MS_NOEXEC, 0);
    mnt("sys", "/new/sys", "sysfs", MS_NOSUID | MS_NODEV | MS_NOEXEC | MS_RDONLY, 0);
    mnt("cgroup", "/new/sys/fs/cgroup", "cgroup2", MS_NOSUID | MS_NODEV | MS_NOEXEC, 0);
    mnt("dev", "/new/dev", "devtmpfs", MS_NOSUID, 0);
    /* Blob cache and staged trees: root only, bounded by the agent, never seen by a compile. */
    mnt("run", "/new/run", "tmpfs", MS_NOSUID | MS_NODEV, "mode=0711,size=70%");
    if (chdir("/new") || mount(".", "/", 0, MS_MOVE, 0) || chroot(".") || chdir("/")) die("switch_root", "/new");
}
static void run_agent(void) {
    char *argv[] = {"/.hpcc/lib/hpcc-ld.so", "--inhibit-cache", "--library-path", "/.hpcc/lib",
        "--argv0", "/.hpcc/bin/python3", "/.hpcc/bin/python3", "-I", "-S", "-B", "-u", "-X", "utf8", "-c",
        "import sys;sys.path.append('/.hpcc/site');from hpcc.agent.linux.main import main;main()", 0};
    char *envp[] = {"PATH=/usr/bin:/bin", "HOME=/", "LANG=C.UTF-8", 0};
    pid_t agent = fork();
    if (agent < 0) die("fork", "agent");
    if (!agent) {
        setsid();
        execve(argv[0], argv, envp);
        dprintf(2, "hpcc-init: exec %s: %s\n", argv[0], strerror(errno));
        _exit(127);
    }
    int status;
    for (pid_t done; (done = wait(&status)) != agent;)
        if (done < 0 && errno != EINTR) die("wait", "agent");
    dprintf(2, "hpcc-init: agent ended with status %#x\n", (unsigned)status);
    errno = 0;
    die("end of", "agent");
}

/* --------------------------------------------------------------------- PID 1 of a container */
static void on_signal(int s) {
    if (s != SIGCHLD) _exit(0);
}
static _Noreturn void hold(void) {
    struct sigaction act = {.sa_handler = on_signal};
    sigaction(SIGTERM, &act, 0);
    sigaction(SIGINT, &act, 0);
    sigaction(SIGCHLD, &act, 0);
    for (;;)
        if (waitpid(-1, 0, 0) < 0 && errno == ECHILD) pause();
}

int main(int argc, char **argv) {
    if (argc > 1 && !strcmp(argv[1], "exec")) return sandbox(argc - 1, argv + 1);
    if (argc > 1 && !strcmp(argv[1], "pause")) hold();
    if (getpid() != 1) return 64;
    mnt("dev", "/dev", "devtmpfs", MS_NOSUID, 0);
    int c = open("/dev/console", O_RDWR);
    if (c < 0) c = open("/dev/null", O_RDWR); /* without a console: keep descriptors 0 to 2 from being used for files */
    if (c >= 0) {
        dup2(c, 0);
        dup2(c, 1);
        dup2(c, 2);
        if (c > 2) close(c);
    }
    load_modules();
    build_root();
    run_agent();
}
