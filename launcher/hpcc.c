/* hpcc, the launcher: one process per compile.
 *
 * It sends the user's daemon one framed request. Then it prints what the daemon has made (DONE), runs
 * the compiler and reports (RUN), or becomes the compiler (EXEC). If anything goes wrong before DONE
 * (no daemon, silence, a malformed answer), the compiler runs as if hpcc were not there. Any program may
 * stand in the compiler's place. The commands of hpcc, and words that PATH has no program for, are passed
 * to hpcc-cli, a Python program beside this one.
 *
 * Single-threaded, no state outside this process, no allocation that a peer can size freely.
 *
 * A hit is a few dozen system calls in a process that lives for a fraction of a millisecond. Apart
 * from its start, the cost is each page that is touched for the first time and each read of /proc,
 * which the kernel builds for every process: hence no printf, no allocator, no clock, one buffer for
 * everything, and one statx instead of /proc/self/ns/mnt. */
#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <signal.h>
#include <stdbool.h>
#include <stdlib.h>
#include <sys/auxv.h>
#include <sys/file.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/sysmacros.h>
#include <sys/un.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#include "commands.h"
#include "wire.h"

#if !defined(HPCC_BUILD_ID) || !defined(HPCC_PROTOCOL)
#error "build with pip or tools/hatch_build.py, which say which daemon this belongs to"
#endif

extern char **environ;

/* Deadlines in milliseconds. The daemon sends WAIT after half a second, then twice a second. A test
 * builds with shorter ones. */
#ifndef NEXT_FRAME_MS
#define NEXT_FRAME_MS 10000 /* the daemon was alive and fell silent */
#endif
#ifndef START_MS
#define START_MS 10000 /* for a daemon that is being started */
#endif
#ifndef FIRST_FRAME_MS
#define FIRST_FRAME_MS 2000   /* no first frame: the daemon hangs */
#endif
#define START_FAILED_MS 30000 /* do not try a daemon that cannot start for this long */
#define HUNG_MS 10000         /* nor one that hangs for this long */
#define MAX_DEPTH 8           /* hpcc under hpcc under …: a wrapper script may add one or two */
#define HOLD_BYTES (64u << 20) /* stderr held back for filtering; more is passed on unfiltered */

#define EXIT_CANNOT_RUN 127 /* as in the shell */
#define EXIT_NOT_EXECUTABLE 126

/* Variables that change what a compiler does or prints, and ours. A name that ends in "_" is a prefix.
 * Sources: GCC manual, "Environment Variables" and "Diagnostic Message Formatting Options"; clang
 * driver and LLVM Process.inc; ld.so(8). MAKEFLAGS stays here: no compiler result depends on it. */
static const char *const ENV_NAMES[] = {
    "CPATH", "C_INCLUDE_PATH", "CPLUS_INCLUDE_PATH", "OBJC_INCLUDE_PATH", "OBJCPLUS_INCLUDE_PATH",
    "COMPILER_PATH", "LIBRARY_PATH", "DEPENDENCIES_OUTPUT", "SUNPRO_DEPENDENCIES",
    "SOURCE_DATE_EPOCH", "LANG", "LANGUAGE", "PATH", "PWD", "TMPDIR", "TERM", "NO_COLOR", "COLUMNS",
    "CLICOLOR_FORCE", /* cppcheck */
    "COLORTERM", "TERM_URLS", "LOCPATH", "SDKROOT", "OUTPUT_CHARSET", "CXX_MODULE_MAPPER",
    /* The dynamic loader (glibc, elf/rtld.c) and iconv. No prefix "LD_": LD_RUN_PATH is the linker's. */
    "LD_PRELOAD", "LD_AUDIT", "LD_LIBRARY_PATH", "LD_DEBUG", "LD_DEBUG_OUTPUT", "LD_PROFILE",
    "LD_PROFILE_OUTPUT", "LD_SHOW_AUXV", "LD_TRACE_LOADED_OBJECTS", "LD_TRACE_PRELINKING",
    "LD_HWCAP_MASK", "LD_DYNAMIC_WEAK", "LD_LIBRARY_VERSION", "GLIBC_TUNABLES", "GCONV_PATH",
    /* Allocators, in libc, linked in or preloaded: settings, and what makes them write. */
    "MALLOC_", "MALLOCSTATS", "MIMALLOC_", "TCMALLOC_", "HEAPPROFILE", "HEAPCHECK", "CPUPROFILE",
    "PERFTOOLS_VERBOSE", "NSS_WRAPPER_DEBUGLEVEL", "UID_WRAPPER_DEBUGLEVEL",
    /* libc: order of options; where locales are, also in the libcs of Nix and Guix. */
    "POSIXLY_CORRECT", "LOCALE_ARCHIVE", "LOCALE_ARCHIVE_2_27", "GUIX_LOCPATH",
    "GCC_", "CCC_", "CLANG_", "LC_", "HPCC_",
    /* No prefix "CC_": Linux' Kbuild exports CC_FLAGS_FPU and others, which no compiler reads. */
    "CC_PRINT_", "CC_LOG_", "LLVM_OVERRIDE_PRODUCER", "RC_DEBUG_", "AS_SECURE_LOG_FILE",
    "FORCE_CLANG_DIAGNOSTICS_CRASH", "LIBCLANG_DISABLE_PCH_VALIDATION", "ROCM_PATH", "HIP_",
    "MACOSX_DEPLOYMENT_TARGET", "IPHONEOS_DEPLOYMENT_TARGET", "TVOS_DEPLOYMENT_TARGET",
    "WATCHOS_DEPLOYMENT_TARGET", "DRIVERKIT_DEPLOYMENT_TARGET", "XROS_DEPLOYMENT_TARGET",
    "XCC_", "NCC_", "COLLECT_AS_OPTIONS", "OFFLOAD_TARGET_", "CXX_MODULE_MAPPER", "GNUTARGET",
    "G++_ROOT", "BINUTILS_ROOT", "LPATH",
    "REALGCC", /* musl's musl-gcc, a script */
    /* nvcc, its profile, and cicc, cudafe++ and ptxas */
    "NVCC_", "NVVM_", "EDG_", "INCLUDES", "SYSTEM_INCLUDES", "CICC_PATH", "CUDAFE_FLAGS",
    "PTXAS_FLAGS", "OCG_FLAGS", "LLVMC_FLAGS", "LLVMDIS_FLAGS", "NVASM_FLAGS", "NVDISASM_FLAGS",
    "NVLINK_FLAGS", "NVVMIR_LIBRARY_DIR", "NVVMCCWIZ", "_HERE_", "_THERE_", "_SPACE_",
    "_TARGET_DIR_", "_TARGET_SIZE_", "_CUDART_", "_NVVM_BRANCH_", "compiler-bindir", "NOCOLOR",
    "USR_INCLUDE", "NV_NVVM_VERSION", "LIBNVVM_DISABLE_CONCURRENT_API", "CAN_FINALIZE_DEBUG",
    "DUMP_KNOBS_TO_FILE", "BASH_FUNC_gcc%%", "BASH_FUNC_g++%%", "BASH_FUNC_cudafe++%%",
    "BASH_FUNC_ptxas%%", "BASH_FUNC_fatbinary%%",
    /* clang-cl; Microsoft's documentation of cl, LLVM's MSVCPaths.cpp */
    "CL", "_CL_", "INCLUDE", "EXTERNAL_INCLUDE", "LIB", "LIBPATH", "VSLANG", "VS_UNICODE_OUTPUT",
    "VCToolsInstallDir", "VCToolsVersion", "VCINSTALLDIR", "WindowsSdkDir", "WindowsSDKVersion",
    "UniversalCRTSdkDir", "UCRTVersion",
};
#define DEPTH_VARIABLE "HPCC_DEPTH"

static const char *const COMPILERS[] = {"clang++", "clang-cl", "clang", "g++", "gcc", "c++", "cc"};

/* ---- helpers ---- */

/* Prints strings up to a NULL as one line on stderr, without control characters: a name is anybody's. */
static void complain_of(const char *const *parts) {
    char text[2 * PATH_MAX];
    size_t length = 0;
    for (; *parts; parts++) {
        size_t n = strlen(*parts), room = sizeof text - 1 - length;
        memcpy(text + length, *parts, n < room ? n : room);
        length += n < room ? n : room;
    }
    for (size_t i = 0; i < length; i++) {
        unsigned char c = (unsigned char)text[i], before = i ? (unsigned char)text[i - 1] : 0;
        bool is_wide = before == 0xC2 && c >= 0x80 && c < 0xA0; /* U+0080 to U+009F in UTF-8 */
        if (is_wide) text[i - 1] = '?';
        if (is_wide || c < 0x20 || c == 0x7F) text[i] = '?';
    }
    text[length++] = '\n';
    if (write(2, text, length) < 0) return;
}
#define complain(...) complain_of((const char *const[]){"hpcc: ", __VA_ARGS__, NULL})

/* Paths, the request and the reply follow each other here, so that few pages are touched. */
static _Alignas(16) char memory[1u << 17];
static char *spare = memory; /* free from here on; always has room for some more paths */
#define SPARE_BYTES ((size_t)(memory + sizeof memory - spare))

/* Keep the string that was built in spare memory. Only a handful are kept. */
static char *keep_string(void) {
    char *kept = spare;
    spare += strlen(kept) + 1;
    return kept;
}

static int64_t now_ms(void) {
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    return (int64_t)t.tv_sec * 1000 + t.tv_nsec / 1000000;
}

static void nap_ms(long ms) {
    struct timespec t = {.tv_sec = ms / 1000, .tv_nsec = ms % 1000 * 1000000};
    nanosleep(&t, NULL);
}

/* Returns 0, or the error after which a part is missing. */
static int write_all(int fd, const void *data, size_t bytes) {
    const char *p = data;
    while (bytes) {
        ssize_t n = write(fd, p, bytes);
        if (n >= 0) {
            p += n;
            bytes -= (size_t)n;
        } else if (errno == EAGAIN) {
            /* Another process made the terminal or pipe non-blocking. */
            struct pollfd pfd = {.fd = fd, .events = POLLOUT};
            poll(&pfd, 1, -1);
        } else if (errno != EINTR) {
            return errno;
        }
    }
    return 0;
}

/* The exit status of a command that ended with `status`; after `error` a part of its standard output is
 * missing. Preprocessed text is a product: make must not take a part of it for the whole. */
static int status_after(int error, int status) {
    if (!error || status) return status;
    if (error != EPIPE) complain("cannot write standard output: ", strerror(error));
    return EXIT_FAILURE;
}

static uid_t own_uid(void) {
    static uid_t uid;
    static bool is_known;
    if (!is_known) uid = getuid(), is_known = true;
    return uid;
}

static bool is_self(const struct stat *st) {
    static struct stat self;
    static int state; /* 0 not asked, 1 known, -1 unknown */
    if (!state) {
        /* The executed path as the kernel passes it; rarely it cannot be opened. */
        const char *path = (const char *)getauxval(AT_EXECFN);
        state = (path && !stat(path, &self)) || !stat("/proc/self/exe", &self) ? 1 : -1;
    }
    return state > 0 && st->st_dev == self.st_dev && st->st_ino == self.st_ino;
}

static const char *base_name(const char *path) {
    const char *slash = strrchr(path, '/');
    return slash ? slash + 1 : path;
}

/* gcc, x86_64-linux-gnu-g++-12, clang-19: with an optional triplet before and version after. */
static bool is_compiler_name(const char *name) {
    size_t length = strlen(name), end = length;
    while (end > 0 && ((name[end - 1] >= '0' && name[end - 1] <= '9') || name[end - 1] == '.')) end--;
    if (end < length && end > 0 && name[end - 1] == '-') length = end - 1;
    for (size_t i = 0; i < sizeof COMPILERS / sizeof *COMPILERS; i++) {
        size_t n = strlen(COMPILERS[i]);
        if (length < n || memcmp(name + length - n, COMPILERS[i], n)) continue;
        if (length == n || (name[length - n - 1] == '-' && name[0] != '-')) return true;
    }
    return false;
}

/* A command of hpcc wins over a program of the same name. */
static bool is_command(const char *word) {
#define IS_WORD(name) !strcmp(word, name) ||
    return EACH_COMMAND(IS_WORD) false;
#undef IS_WORD
}

/* ---- finding the compiler ---- */

/* Make the path in spare memory absolute and keep it; NULL when it is too long. */
static char *keep_absolute(void) {
    char *cwd = spare + strlen(spare) + 1;
    if (*spare == '/') return keep_string();
    if (!getcwd(cwd, PATH_MAX) || cwd[0] != '/' || join_path(cwd, PATH_MAX, cwd, spare)) return NULL;
    memmove(spare, cwd, strlen(cwd) + 1);
    return keep_string();
}

/* Caches that put links named like a compiler at the front of PATH. Behind hpcc they would cache the
 * same compiles again, and hpcc could not cache them. distcc and icecc stay: their users want
 * distributed compiles, and the daemon does not touch those. */
static const char *const OTHER_CACHES[] = {"ccache", "sccache", "buildcache"};

static bool is_cache_name(const char *name) {
    for (size_t i = 0; i < sizeof OTHER_CACHES / sizeof *OTHER_CACHES; i++)
        if (!strcmp(name, OTHER_CACHES[i])) return true;
    return false;
}

enum kind { COMPILER, OURSELVES, OTHER_CACHE };

/* What the path in spare memory leads to. A link to a second copy of hpcc counts as hpcc: the two
 * would call each other without end. Only the last name counts, so the directories on the way are
 * not resolved as realpath would do. */
static enum kind kind_of_file(const struct stat *st) {
    size_t length = strlen(spare) + 1;
    char *at = spare + length;
    if (is_self(st)) return OURSELVES;
    memcpy(at, spare, length);
    for (int hops = 0; hops < 16; hops++) {
        char *target = at + strlen(at) + 1;
        ssize_t n = readlink(at, target, PATH_MAX);
        if (n < 0) break; /* not a link: the end of the chain */
        char *name = target[0] == '/' ? at : strrchr(at, '/') + 1; /* there is a slash */
        if (n + (name - at) >= PATH_MAX) return COMPILER;
        target[n] = '\0';
        memmove(name, target, (size_t)n + 1);
    }
    const char *name = base_name(at);
    if (!strcmp(name, "hpcc")) return OURSELVES;
    return is_cache_name(name) ? OTHER_CACHE : COMPILER;
}

/* Put the path of `name` in one part of PATH into spare memory; an empty part is the working directory. */
static bool put_candidate(const char *part, size_t length, const char *name) {
    if (length >= PATH_MAX) return false;
    memcpy(spare, length ? part : ".", length ? length : 1);
    spare[length ? length : 1] = '\0';
    return !join_path(spare, PATH_MAX, spare, name);
}

/* The first program of this name on PATH that is not hpcc or a link to another cache; that link if there
 * is nothing else. A cache that is called by its name is what the user wants. */
static char *search_compiler(const char *name, bool *is_shadowed) {
    struct stat st;
    bool wants_cache = is_cache_name(name);
    char *cache = NULL;
    const char *path = getenv("PATH");
    if (!path) path = "/usr/local/bin:/usr/bin:/bin";
    for (;;) {
        size_t length = strcspn(path, ":");
        if (put_candidate(path, length, name) && !stat(spare, &st) && S_ISREG(st.st_mode) && !access(spare, X_OK)) {
            enum kind kind = kind_of_file(&st);
            if (kind == COMPILER || (kind == OTHER_CACHE && wants_cache)) return keep_absolute();
            *is_shadowed = true;
            if (kind == OTHER_CACHE && !cache) cache = keep_absolute();
        }
        if (!path[length]) return cache;
        path += length + 1;
    }
}

/* The file that `name` would mean without hpcc, as an absolute path. `*is_shadowed` is set if PATH
 * leads to hpcc or a cache first. Returns NULL and prints the reason if there is no compiler. */
static char *find_compiler(const char *name, bool *is_shadowed) {
    struct stat st;
    *is_shadowed = false;
    if (!strchr(name, '/')) {
        char *found = search_compiler(name, is_shadowed);
        if (found) return found;
        if (*is_shadowed) complain("every ", name, " on PATH is hpcc itself; add the directory of the compiler");
        else complain(name, ": no such compiler on PATH");
        return NULL;
    }
    if (strlen(name) >= PATH_MAX) return complain(name, ": the path is too long"), NULL;
    strcpy(spare, name);
    if (*name != '/') {
        char *path = keep_absolute();
        if (!path) return complain(name, ": the path is too long"), NULL;
        spare = path; /* checked below */
    }
    /* A cache named by its path is what the user wants. exec reports any other error. */
    if (stat(spare, &st) || kind_of_file(&st) != OURSELVES) return keep_string();
    complain(spare, " is hpcc itself, not a compiler");
    return NULL;
}

/* ---- becoming the compiler ---- */

static unsigned own_depth; /* nesting of hpcc in hpcc, as with scripts named gcc that call `hpcc gcc` */

static bool read_depth(void) {
    const char *text = getenv(DEPTH_VARIABLE);
    for (; text && *text >= '0' && *text <= '9' && own_depth < MAX_DEPTH; text++)
        own_depth = own_depth * 10 + (unsigned)(*text - '0');
    if (own_depth < MAX_DEPTH) return true;
    complain("the compiler on PATH runs hpcc again and again; put the real one first");
    return false;
}

/* A script without `#!`: shells, make and execvp pass it to /bin/sh. Returns if that is impossible. */
static void run_as_script(const char *script, char **argv) {
    size_t argc = 0;
    while (argv[argc]) argc++;
    char **words = malloc((argc + 2) * sizeof *words);
    if (!words) return;
    words[0] = (char *)"/bin/sh";
    words[1] = (char *)script;
    for (size_t i = 1; i <= argc; i++) words[i + 1] = argv[i];
    execve(words[0], words, environ);
}

static _Noreturn void exec_compiler(const char *compiler, char **argv) {
    char next[24];
    put_number(next, own_depth + 1, 10, 1);
    if (setenv(DEPTH_VARIABLE, next, 1)) complain("no memory");
    execve(compiler, argv, environ);
    int error = errno;
    if (error == ENOEXEC) run_as_script(compiler, argv);
    complain("cannot run ", compiler, ": ", strerror(error));
    _exit(error == ENOENT ? EXIT_CANNOT_RUN : EXIT_NOT_EXECUTABLE);
}

/* ---- hpcc-cli ---- */

static bool find_cli(char *to) {
    char self[PATH_MAX], *slash;
    ssize_t n = readlink("/proc/self/exe", self, sizeof self - 1);
    if (n > 0) {
        self[n] = '\0';
        slash = strrchr(self, '/');
        if (slash) {
            *slash = '\0';
            if (!join_path(to, PATH_MAX, self, "hpcc-cli") && !access(to, X_OK)) return true;
        }
    }
    for (const char *path = getenv("PATH"); path && *path;) {
        size_t length = strcspn(path, ":");
        if (length && length < sizeof self) {
            memcpy(self, path, length);
            self[length] = '\0';
            if (!join_path(to, PATH_MAX, self, "hpcc-cli") && !access(to, X_OK)) return true;
        }
        path += length + (path[length] == ':');
    }
    return false;
}

static int run_cli(char **argv) {
    char cli[PATH_MAX];
    if (!find_cli(cli)) {
        complain("hpcc-cli is neither beside hpcc nor on PATH; install the hpcc package again");
        return EXIT_CANNOT_RUN;
    }
    execv(cli, argv);
    complain("cannot run ", cli, ": ", strerror(errno));
    return EXIT_CANNOT_RUN;
}

/* ---- the daemon: finding it and starting it ---- */

static bool is_our_directory(const char *path) {
    struct stat st;
    return !lstat(path, &st) && S_ISDIR(st.st_mode) && st.st_uid == own_uid() && !(st.st_mode & 022);
}

/* Opens closed standard streams, so that no socket or pipe of this program gets their number. exec closes them.
 * Standard output only for reading: what is written there stays an error. */
static bool has_standard_streams(void) {
    for (int fd = 0; fd < 3; fd++) {
        int mode = fd == 1 ? O_RDONLY : O_RDWR;
        if (fcntl(fd, F_GETFD) < 0 && open("/dev/null", mode | O_CLOEXEC) != fd) return false;
    }
    return true;
}

/* A non-blocking socket whose number is not a standard stream's. */
static int open_socket(void) {
    int fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
    if (fd < 0 || fd > 2) return fd; /* the lowest free number, so that 0 to 2 are open */
    close(fd);
    if (has_standard_streams()) return socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
    errno = EMFILE;
    return -1;
}

static bool is_trusted_peer(int fd) {
    struct ucred peer;
    socklen_t size = sizeof peer;
    return !getsockopt(fd, SOL_SOCKET, SO_PEERCRED, &peer, &size) && peer.uid == own_uid();
}

/* Connects. On failure errno is ENOENT or ECONNREFUSED if no daemon listens; after any other error the
 * daemon must not be used or started.
 *
 * Each check stops one attack. The directory: if others can write to it, the name could be a link to
 * some other service of this user. The socket: it must be a socket, and ours. The peer: the directory
 * may have been renamed between the checks and connect. */
static int dial(const struct place *place) {
    struct sockaddr_un address;
    struct stat st;
    if (lstat(place->socket, &st)) return -1;
    if (!S_ISSOCK(st.st_mode) || st.st_uid != own_uid() || !is_our_directory(place->socket_dir)) {
        errno = EPERM;
        return -1;
    }
    size_t length = strlen(place->socket) + 1;
    address.sun_family = AF_UNIX;
    memcpy(address.sun_path, place->socket, length);
    int fd = open_socket();
    if (fd < 0) return -1;
    int64_t deadline = 0;
    while (connect(fd, (struct sockaddr *)&address, (socklen_t)(offsetof(struct sockaddr_un, sun_path) + length))) {
        int error = errno;
        /* EAGAIN: its queue is full, as with hundreds of compiles at once. */
        if (error == EAGAIN || error == EINTR) {
            if (!deadline) deadline = now_ms() + FIRST_FRAME_MS;
            nap_ms(5);
            if (now_ms() < deadline) continue;
            error = ETIMEDOUT;
        }
        close(fd);
        errno = error;
        return -1;
    }
    if (is_trusted_peer(fd)) return fd;
    close(fd);
    errno = EPERM;
    return -1;
}

static bool is_nobody_there(int error) { return error == ENOENT || error == ECONNREFUSED; }

/* The mtime of the back-off marker is the time until which the daemon is not tried. */
static bool is_backing_off(const struct place *place) {
    struct stat st;
    struct timespec now;
    if (join_path(spare, PATH_MAX, place->run, "backoff") || lstat(spare, &st)) return false;
    clock_gettime(CLOCK_REALTIME, &now);
    /* A time far in the future means that the clock was set back. */
    return st.st_mtim.tv_sec > now.tv_sec && st.st_mtim.tv_sec < now.tv_sec + START_FAILED_MS / 500;
}

static void back_off(const struct place *place, int ms) {
    char path[PATH_MAX];
    struct timespec until[2];
    if (join_path(path, sizeof path, place->run, "backoff") || !is_our_directory(place->run)) return;
    int fd = open(path, O_WRONLY | O_CREAT | O_NOFOLLOW | O_CLOEXEC, 0600);
    if (fd < 0) return;
    clock_gettime(CLOCK_REALTIME, &until[1]);
    until[1].tv_sec += ms / 1000;
    until[0] = until[1];
    if (futimens(fd, until)) unlink(path);
    close(fd);
}

/* Leaves a mark that the daemon counts later. If this fails, the compile continues. */
static bool mark_fallback(const struct place *place, enum fallback reason) {
    char mark = (char)reason;
    struct stat st;
    if (!is_our_directory(place->run) || join_path(spare, PATH_MAX, place->run, FALLBACKS_NAME)) return false;
    int fd = open(spare, O_WRONLY | O_CREAT | O_APPEND | O_NOFOLLOW | O_NONBLOCK | O_CLOEXEC, 0600);
    if (fd < 0) return false;
    bool has_room = !fstat(fd, &st) && S_ISREG(st.st_mode) && st.st_size < MAX_FALLBACKS_BYTES;
    bool is_marked = has_room && write(fd, &mark, 1) == 1;
    close(fd);
    return is_marked;
}

static void make_directories(const char *path) {
    char part[PATH_MAX];
    size_t length = strlen(path);
    memcpy(part, path, length + 1);
    for (size_t i = 1; i <= length; i++)
        if (part[i] == '/' || part[i] == '\0') {
            part[i] = '\0';
            mkdir(part, 0700);
            part[i] = path[i];
        }
}

/* A build's PYTHONPATH or PYTHONHOME is not meant for us, nor is a library of LD_PRELOAD. With
 * LD_LIBRARY_PATH, Python itself may be found. */
static void drop_foreign_variables(void) {
    for (char **e = environ; *e;) {
        char name[256];
        size_t length = strcspn(*e, "=");
        bool is_loader = !strncmp(*e, "LD_", 3) && strncmp(*e, "LD_LIBRARY_PATH=", 16);
        /* An entry without "=" is no variable, and unsetenv would leave it for ever. */
        bool is_variable = (*e)[length] && length < sizeof name;
        if (!is_variable || (strncmp(*e, "PYTHON", 6) && !is_loader)) {
            e++;
            continue;
        }
        memcpy(name, *e, length);
        name[length] = '\0';
        if (unsetenv(name)) e++; /* else the later entries have moved up */
    }
}

static _Noreturn void exec_start(const char *cli) {
    int null = open("/dev/null", O_RDWR | O_CLOEXEC);
    for (int fd = 0; fd < 3; fd++)
        if (null >= 0 && dup2(null, fd) < 0) _exit(EXIT_CANNOT_RUN);
    if (chdir("/")) _exit(EXIT_CANNOT_RUN);
    drop_foreign_variables();
    char *argv[] = {"hpcc-cli", "start", "--quiet", NULL};
    execv(cli, argv);
    _exit(EXIT_CANNOT_RUN);
}

/* Runs `hpcc-cli start`, which returns once the daemon listens, at most until `deadline`. */
static void run_start(int64_t deadline) {
    char cli[PATH_MAX];
    if (!find_cli(cli)) return;
    signal(SIGCHLD, SIG_DFL); /* an inherited "ignore" would leave nothing to wait for */
    pid_t pid = fork();
    if (pid < 0) return;
    if (!pid) exec_start(cli);
    for (;;) {
        pid_t done = waitpid(pid, NULL, WNOHANG);
        if (done == pid || (done < 0 && errno != EINTR)) return;
        if (now_ms() >= deadline) break;
        nap_ms(3);
    }
    kill(pid, SIGKILL);
    while (waitpid(pid, NULL, 0) < 0 && errno == EINTR) continue;
}

/* Starts the daemon, or waits for the launcher that is starting it: of many parallel compiles one
 * does, under a lock. Returns a connection, or -1. */
static int start_daemon(const struct place *place) {
    char path[PATH_MAX];
    int64_t deadline = now_ms() + START_MS;
    if (!has_standard_streams()) return -1;
    make_directories(place->run);
    if (!is_our_directory(place->run) || join_path(path, sizeof path, place->run, "start.lock")) return -1;
    int lock = open(path, O_RDWR | O_CREAT | O_NOFOLLOW | O_CLOEXEC, 0600);
    if (lock < 0) return -1;
    int fd = -1;
    bool is_ours = !flock(lock, LOCK_EX | LOCK_NB);
    while (!is_ours && now_ms() < deadline) {
        if ((fd = dial(place)) >= 0) break;
        nap_ms(10);
        is_ours = !flock(lock, LOCK_EX | LOCK_NB);
    }
    if (is_ours) {
        fd = dial(place); /* another launcher may have started it meanwhile */
        if (fd < 0 && is_nobody_there(errno) && !is_backing_off(place)) {
            run_start(deadline);
            fd = dial(place); /* also after a failure: it may be late, and be there */
            if (fd < 0) back_off(place, START_FAILED_MS);
        }
    }
    close(lock);
    return fd;
}

/* ---- the request ---- */

static bool is_sent(const char *variable) {
    size_t length = strcspn(variable, "=");
    if (!variable[length] || !strncmp(variable, DEPTH_VARIABLE "=", sizeof DEPTH_VARIABLE)) return false;
    if (!strncmp(variable, BUILD_VARIABLE "=", sizeof BUILD_VARIABLE)) return false; /* a build fact */
    for (size_t i = 0; i < sizeof ENV_NAMES / sizeof *ENV_NAMES; i++) {
        const char *name = ENV_NAMES[i];
        if (name[0] != variable[0]) continue; /* true for most names, and cheaper than a call */
        size_t n = strlen(name);
        bool is_prefix = name[n - 1] == '_';
        if (!strncmp(variable, name, n) && (is_prefix || length == n)) return true;
    }
    return false;
}

/* Appends bytes; `at` becomes NULL once there is no room. */
struct writer {
    unsigned char *at, *end;
};

static void put_string(struct writer *w, const char *text) {
    size_t bytes = strlen(text) + 1;
    if (!w->at || (size_t)(w->end - w->at) < bytes) {
        w->at = NULL;
        return;
    }
    memcpy(w->at, text, bytes);
    w->at += bytes;
}

static unsigned char *put_id(unsigned char *p, const char *path) {
    struct stat st = {0};
    if (stat(path, &st)) st = (struct stat){0};
    return put64(put64(p, st.st_dev), st.st_ino);
}

/* From linux/stat.h, which not every C library comes with. */
#define MASK_MOUNT 0x1000u  /* STATX_MNT_ID */
#define OFFSET_MOUNT 0x90   /* stx_mnt_id */

/* Device and inode of cwd, of / and of the mount namespace: if the daemon has equal numbers, a path
 * means the same file there. Zeroes when unknown; they match nothing.
 *
 * Where the kernel reports it (Linux 5.8), the mount at / replaces the namespace: MOUNT_IS_ID and a
 * number that no other mount in any namespace has while this mount exists. It exists as long as the
 * daemon, because it is the daemon's /. */
static unsigned char *put_places(unsigned char *p) {
    struct statx root;
    uint64_t mount;
    p = put_id(p, ".");
    if (statx(AT_FDCWD, "/", AT_NO_AUTOMOUNT, STATX_INO | MASK_MOUNT, &root) || !(root.stx_mask & MASK_MOUNT))
        return put_id(put_id(p, "/"), "/proc/self/ns/mnt");
    memcpy(&mount, (const char *)&root + OFFSET_MOUNT, sizeof mount);
    p = put64(put64(p, makedev(root.stx_dev_major, root.stx_dev_minor)), root.stx_ino);
    return put64(put64(p, MOUNT_IS_ID), mount);
}

/* Write the frame into `room` bytes; returns its length, or 0 if it does not fit or cwd is unknown. */
static size_t fill_request(unsigned char *frame, size_t room, const char *compiler, char **argv) {
    unsigned char *facts = frame + HEADER_BYTES + 8, *fixed = facts;
    uint32_t argc = 0, envc = 0;
    size_t most = room / 8 < MAX_FACTS_BYTES ? room / 8 : MAX_FACTS_BYTES; /* room / 8 only in a test's build */
    for (char **e = environ; *e; e++) fixed = put_fact(fixed, facts + most, *e);
    struct writer w = {fixed + REQUEST_FIXED_BYTES, frame + room};
    put_string(&w, HPCC_BUILD_ID);
    put_string(&w, compiler);
    if (!w.at || !getcwd((char *)w.at, (size_t)(w.end - w.at)) || *w.at != '/') return 0;
    w.at += strlen((char *)w.at) + 1;
    for (; argv[argc] && w.at; argc++) put_string(&w, argv[argc]);
    for (char **e = environ; *e && w.at; e++)
        if (is_sent(*e)) put_string(&w, *e), envc++;
    if (!w.at || argc > MAX_ARGC) return 0;
    mode_t mask = umask(0);
    umask(mask);
    unsigned char *p = put_header(frame, FRAME_REQUEST, (uint32_t)(w.at - frame - HEADER_BYTES));
    put32(put32(p, HPCC_PROTOCOL), (uint32_t)(fixed - facts));
    p = put32(put32(fixed, isatty(2) ? REQUEST_STDERR_IS_TTY : 0), mask);
    put_places(put32(put32(put32(p, argc), envc), (uint32_t)getauxval(AT_EGID)));
    return (size_t)(w.at - frame);
}

/* The whole frame; NULL if the daemon would not accept it. */
static unsigned char *make_request(const char *compiler, char **argv, size_t *bytes) {
    unsigned char *frame = (unsigned char *)spare;
    size_t most = HEADER_BYTES + MAX_REQUEST_BYTES, room = SPARE_BYTES / 2 < most ? SPARE_BYTES / 2 : most;
    if ((*bytes = fill_request(frame, room, compiler, argv))) {
        spare += *bytes;
        return frame;
    }
    if (!(frame = malloc(most)) || !(*bytes = fill_request(frame, most, compiler, argv))) return NULL;
    return frame;
}

/* ---- frames, with deadlines ---- */

/* Returns more than 0 when ready, 0 after the deadline. */
static int wait_for(int fd, short events, int64_t ms) {
    for (;;) {
        struct pollfd pfd = {.fd = fd, .events = events};
        int n = ms <= 0 ? 0 : poll(&pfd, 1, (int)ms);
        if (n >= 0 || errno != EINTR) return n;
    }
}

static bool send_all(int fd, const unsigned char *data, size_t bytes) {
    int64_t deadline = 0;
    while (bytes) {
        ssize_t n = send(fd, data, bytes, MSG_NOSIGNAL);
        if (n >= 0) {
            data += n;
            bytes -= (size_t)n;
        } else if (errno == EAGAIN) {
            if (!deadline) deadline = now_ms() + FIRST_FRAME_MS;
            if (wait_for(fd, POLLOUT, deadline - now_ms()) <= 0) return false;
        } else if (errno != EINTR) {
            return false;
        }
    }
    return true;
}

/* Reads the next frame that is not WAIT. Returns false on silence (then `*is_silent` is set), at the
 * end, or on a malformed frame. The reply points into memory that is valid until the next call.
 *
 * One poll and one recv if the answer comes whole, and the clock is not read. */
static bool read_reply(int fd, struct reply *reply, bool *is_silent) {
    unsigned char *data = (unsigned char *)spare;
    size_t room = SPARE_BYTES, have = 0, start = 0;
    uint32_t type, bytes;
    int64_t deadline = 0, left = FIRST_FRAME_MS;
    for (;;) {
        int ready = wait_for(fd, POLLIN, left);
        if (ready <= 0) return *is_silent = !ready, false;
        ssize_t n = recv(fd, data + have, room - have, 0);
        if (n < 0 && (errno == EAGAIN || errno == EINTR)) continue;
        if (n <= 0) return false;
        have += (size_t)n;
        switch (split_frames(data, have, &start, &type, &bytes)) {
        case SPLIT_BAD: return false;
        case SPLIT_WHOLE: return !parse_reply(type, data + start + HEADER_BYTES, bytes, reply);
        case SPLIT_PARTIAL: break;
        }
        if (start || !deadline) deadline = now_ms() + NEXT_FRAME_MS; /* a WAIT came, or a frame began */
        memmove(data, data + start, have -= start);
        start = 0;
        if (HEADER_BYTES + bytes > room) { /* at most MAX_REPLY_BYTES: the header was checked */
            unsigned char *larger = malloc(room = HEADER_BYTES + bytes);
            if (!larger) return false;
            data = memcpy(larger, data, have);
        }
        left = deadline - now_ms();
    }
}

/* ---- running the compiler ---- */

#define FEW_ARGS 256 /* up to here no allocator is needed; its first page costs four system calls */

static volatile sig_atomic_t child;

static void forward(int number) {
    int saved = errno;
    if (child > 0) {
        kill((pid_t)child, number);
    } else { /* the compiler has ended, so the signal ends us when this handler returns */
        signal(number, SIG_DFL);
        raise(number);
    }
    errno = saved;
}

static void note(int number) { (void)number; } /* wakes ppoll */

/* The signals that a wait lets through, SIGCHLD among them. */
static sigset_t open_mask;

static bool is_killed(void) {
    siginfo_t end = {0};
    if (waitid(P_PID, (id_t)child, &end, WEXITED | WNOHANG | WNOWAIT)) return false;
    return end.si_pid && end.si_code != CLD_EXITED;
}

/* As write_all, while the compiler runs: a signal that ends it ends the wait for a reader, too. Returns
 * EINTR then. */
static int write_beside(int fd, const char *p, size_t bytes) {
    while (bytes) {
        struct pollfd pfd = {.fd = fd, .events = POLLOUT};
        /* SIGCHLD comes only inside ppoll, so no end is missed between the question and the wait. */
        if (poll(&pfd, 1, 0) <= 0) {
            if (is_killed()) return EINTR;
            if (ppoll(&pfd, 1, NULL, &open_mask) <= 0) continue;
        }
        /* A pipe that is ready takes this much without a wait. */
        size_t piece = bytes < PIPE_BUF ? bytes : PIPE_BUF;
        int error = write_all(fd, p, piece);
        if (error) return error;
        p += piece;
        bytes -= piece;
    }
    return 0;
}

static const int FORWARDED[] = {SIGINT, SIGTERM, SIGHUP, SIGQUIT, SIGUSR1, SIGUSR2, SIGALRM};

/* One stream of the compiler: passed on to `to` as it comes or held back, and kept for the report.
 * A filtered one contains lines that the user must not see. */
struct stream {
    int from, to;
    int error; /* of the first write that failed */
    char *kept;
    size_t bytes, capacity;
    bool is_held, is_filtered, is_truncated;
};

/* Returns false if not all bytes could be kept. */
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

/* Writes to the user, but nothing behind a part that is missing. */
static void show(struct stream *s, const void *data, size_t bytes) {
    if (!s->error) s->error = child > 0 ? write_beside(s->to, data, bytes) : write_all(s->to, data, bytes);
}

/* Shows what was held back. */
static void let_go(struct stream *s) {
    if (s->is_held && s->bytes) show(s, s->kept, s->is_filtered ? strip_headers(s->kept, s->bytes) : s->bytes);
    s->is_held = false;
}

static void close_stream(struct stream *s) {
    close(s->from);
    s->from = -1;
}

/* Reads what is available. Returns false if there is nothing more for now. */
static bool pump(struct stream *s) {
    char data[1 << 16];
    if (s->from < 0) return false;
    ssize_t n = read(s->from, data, sizeof data);
    if (n < 0) return errno == EINTR;
    if (n == 0) return close_stream(s), false;
    if (!keep(s, data, (size_t)n)) {
        s->is_truncated = true;
        /* Nobody reads more than this: show the rest as it comes. */
        let_go(s);
    }
    if (s->is_held) return true;
    show(s, data, (size_t)n);
    /* The reader has gone: close the pipe, so that the compiler gets SIGPIPE as it would without us. What
     * it still holds is not reported. */
    if (s->error == EPIPE) s->is_truncated = true, close_stream(s);
    return true;
}

/* Signal settings before the compiler was started. */
struct signals {
    sigset_t mask;
    bool has_pipe_default;
};

/* For a program that replaces us: exec resets handlers, and signals that were ignored before us stay
 * ignored. */
static void restore_signals(const struct signals *before) {
    if (before->has_pipe_default) signal(SIGPIPE, SIG_DFL);
    sigprocmask(SIG_SETMASK, &before->mask, NULL);
}

static _Noreturn void exec_child(char **argv, int out, int err, const struct signals *before) {
    restore_signals(before);
    if (dup2(out, 1) < 0 || dup2(err, 2) < 0) _exit(EXIT_NOT_EXECUTABLE);
    exec_compiler(argv[0], argv);
}

static void catch_signals(struct signals *before) {
    struct sigaction old, action = {.sa_handler = forward, .sa_flags = SA_RESTART};
    sigset_t blocked;
    sigemptyset(&blocked);
    sigaddset(&blocked, SIGCHLD);
    for (size_t i = 0; i < sizeof FORWARDED / sizeof *FORWARDED; i++) sigaddset(&blocked, FORWARDED[i]);
    sigprocmask(SIG_BLOCK, &blocked, &before->mask);
    for (size_t i = 0; i < sizeof FORWARDED / sizeof *FORWARDED; i++)
        if (!sigaction(FORWARDED[i], NULL, &old) && old.sa_handler != SIG_IGN)
            sigaction(FORWARDED[i], &action, NULL);
    action.sa_handler = note;
    sigaction(SIGCHLD, &action, NULL);
    before->has_pipe_default = signal(SIGPIPE, SIG_IGN) != SIG_IGN;
}

/* Pumps both streams until the child has ended and its output was read. It does not wait for a
 * grandchild that keeps a pipe open. SIGCHLD arrives only inside ppoll, so that each is noticed. */
static int attend(struct stream *streams, const sigset_t *mask) {
    int status = 0;
    sigset_t closed_mask = *mask;
    open_mask = *mask;
    sigaddset(&closed_mask, SIGCHLD);
    sigdelset(&open_mask, SIGCHLD);
    sigprocmask(SIG_SETMASK, &closed_mask, NULL);
    for (;;) {
        /* Once both streams have ended, only the child's end is left to wait for. */
        bool is_quiet = streams[0].from < 0 && streams[1].from < 0;
        pid_t done = waitpid((pid_t)child, &status, is_quiet ? 0 : WNOHANG);
        if (done == (pid_t)child) break;
        if (done < 0 && errno != EINTR) { /* cannot happen, and must not look like success */
            status = EXIT_CANNOT_RUN << 8;
            break;
        }
        struct pollfd pfds[2];
        for (int i = 0; i < 2; i++) pfds[i] = (struct pollfd){.fd = streams[i].from, .events = POLLIN};
        if (ppoll(pfds, 2, NULL, &open_mask) <= 0) continue;
        for (int i = 0; i < 2; i++)
            if (pfds[i].revents) pump(&streams[i]);
    }
    child = 0;
    for (int i = 0; i < 2; i++)
        while (pump(&streams[i])) continue;
    return status;
}

static bool open_pipe(int ends[2]) {
    /* Only our end is non-blocking; the compiler gets an ordinary pipe. */
    return !pipe2(ends, O_CLOEXEC) && !fcntl(ends[0], F_SETFL, O_NONBLOCK);
}

static bool run_child(char **argv, struct stream *streams, struct signals *before, int *status) {
    int out[2], err[2];
    if (!open_pipe(out)) return false;
    if (!open_pipe(err)) return close(out[0]), close(out[1]), false;
    catch_signals(before);
    /* vfork copies no page tables. The child sets only signals and descriptors, which belong to it, and
     * variables that get the same value here. */
    pid_t pid = vfork();
    if (!pid) exec_child(argv, out[1], err[1], before);
    close(out[1]);
    close(err[1]);
    if (pid < 0) {
        close(out[0]);
        close(err[0]);
        restore_signals(before);
        return false;
    }
    child = pid;
    streams[0].from = out[0];
    streams[1].from = err[0];
    *status = attend(streams, &before->mask);
    return true;
}

static bool send_report(int fd, const struct stream *streams, int status) {
    unsigned char frame[HEADER_BYTES + 20], *p;
    uint32_t bytes[2], flags = 0;
    for (int i = 0; i < 2; i++) {
        bool is_long = streams[i].bytes > MAX_CAPTURE_BYTES;
        if (is_long || streams[i].is_truncated) flags |= REPORT_IS_TRUNCATED;
        bytes[i] = is_long ? MAX_CAPTURE_BYTES : (uint32_t)streams[i].bytes;
    }
    p = put_header(frame, FRAME_REPORT, 20 + bytes[0] + bytes[1]);
    p = put32(p, WIFEXITED(status) ? (uint32_t)WEXITSTATUS(status) : 0);
    p = put32(p, WIFSIGNALED(status) ? (uint32_t)WTERMSIG(status) : 0);
    put32(put32(put32(p, flags), bytes[0]), bytes[1]);
    return send_all(fd, frame, sizeof frame) && send_all(fd, (unsigned char *)streams[0].kept, bytes[0]) &&
           send_all(fd, (unsigned char *)streams[1].kept, bytes[1]);
}

static _Noreturn void end_like(int status) {
    if (WIFSIGNALED(status)) {
        sigset_t one;
        /* The compiler has already dumped core if it should. */
        setrlimit(RLIMIT_CORE, &(struct rlimit){0, 0});
        signal(WTERMSIG(status), SIG_DFL);
        sigemptyset(&one);
        sigaddset(&one, WTERMSIG(status));
        raise(WTERMSIG(status));
        sigprocmask(SIG_UNBLOCK, &one, NULL);
        _exit(128 + WTERMSIG(status));
    }
    _exit(WIFEXITED(status) ? WEXITSTATUS(status) : EXIT_CANNOT_RUN);
}

/* Runs the daemon's command, reports, and ends as the compiler did. Returns if the compiler could not
 * be started, or failed with flags that are not the user's. Then nothing was shown, and the user's own
 * command decides. */
static void run_and_report(int fd, const struct reply *run) {
    bool is_filtered = run->flags & RUN_FILTER_HEADERS, is_tentative = run->flags & RUN_TENTATIVE;
    struct stream streams[2] = {
        {.from = -1, .to = 1, .is_held = is_tentative},
        {.from = -1, .to = 2, .is_held = is_tentative || is_filtered, .is_filtered = is_filtered},
    };
    struct signals before;
    struct reply finish;
    int status;
    bool is_silent = false;
    char *few[FEW_ARGS], **argv = few, *text = run->argv;
    if (run->argc >= FEW_ARGS && !(argv = malloc((run->argc + 1u) * sizeof *argv))) return;
    for (uint32_t i = 0; i < run->argc; i++, text += strlen(text) + 1) argv[i] = text;
    argv[run->argc] = NULL;
    if (!run_child(argv, streams, &before, &status)) return;
    if (is_tentative && WIFEXITED(status) && WEXITSTATUS(status)) {
        send_report(fd, streams, status);
        restore_signals(&before);
        return;
    }
    struct stream *out = &streams[0], *err = &streams[1];
    let_go(out);
    if (!is_filtered) let_go(err);
    bool is_asked = send_report(fd, streams, status);
    /* Killed by a signal: end at once; the daemon stores no such result. */
    if (WIFSIGNALED(status) && !err->is_held) is_asked = false;
    bool is_told = is_asked && read_reply(fd, &finish, &is_silent) && finish.type == FRAME_FINISH;
    if (is_told && finish.out_bytes) show(out, finish.out, finish.out_bytes);
    /* The daemon filtered what it received; if stderr was longer, that is only its start. */
    if (is_told && (!is_filtered || (err->is_held && err->bytes <= MAX_CAPTURE_BYTES)))
        write_all(2, finish.err, finish.err_bytes);
    else
        let_go(err);
    if (WIFEXITED(status)) status = status_after(out->error, WEXITSTATUS(status)) << 8;
    end_like(status);
}

/* ---- a compile ---- */

/* Sends the request and reads `reply`. Returns the connection, or -1 and the reason in `why`. */
static int ask(const struct place *place, const unsigned char *frame, size_t bytes, struct reply *reply,
               enum fallback *why) {
    int fd = dial(place);
    if (fd < 0 && is_nobody_there(errno)) fd = start_daemon(place);
    *why = FALLBACK_NO_DAEMON;
    for (int attempt = 0; fd >= 0; attempt++) {
        bool is_silent = false;
        bool is_answered = send_all(fd, frame, bytes) && read_reply(fd, reply, &is_silent);
        bool is_other = is_answered && reply->type == FRAME_VERSION;
        if (is_answered && !is_other && reply->type != FRAME_FINISH) return fd;
        close(fd);
        *why = is_other ? FALLBACK_OTHER_VERSION : is_silent ? FALLBACK_SILENT : FALLBACK_LOST;
        if (is_silent) back_off(place, HUNG_MS);
        /* A daemon of another version ends, and has removed its socket by now. */
        if (!is_other || !(reply->flags & VERSION_IS_DRAINING) || attempt) return -1;
        fd = start_daemon(place);
    }
    return -1;
}

static bool is_disabled(void) {
    const char *text = getenv("HPCC_DISABLE");
    return text && *text && strcmp(text, "0");
}

/* argv[0] is the compiler as the user spelled it. */
static int compile(char **argv) {
    static struct place place;
    struct reply reply;
    size_t bytes = 0;
    bool is_shadowed;
    char *compiler = find_compiler(argv[0], &is_shadowed);
    if (!compiler || !read_depth()) return EXIT_CANNOT_RUN;
    bool has_place = !is_disabled() && !find_place(&place, spare, getenv("HPCC_DIR"), getenv("HOME"),
                                                   getenv("XDG_RUNTIME_DIR"), own_uid());
    if (has_place) keep_string(); /* place.run */
    unsigned char *frame = has_place ? make_request(compiler, argv, &bytes) : NULL;
    /* A driver searches PATH for itself to find its cc1, and must not find hpcc. */
    if (is_shadowed) argv[0] = compiler;
    if (!has_place) exec_compiler(compiler, argv);
    enum fallback why = frame ? FALLBACK_LEFT_ALONE : FALLBACK_LONG_REQUEST;
    int fd = frame && !is_backing_off(&place) ? ask(&place, frame, bytes, &reply, &why) : -1;
    if (fd < 0) {
        mark_fallback(&place, why);
        exec_compiler(compiler, argv);
    }
    if (reply.type == FRAME_DONE) {
        int error = write_all(1, reply.out, reply.out_bytes);
        write_all(2, reply.err, reply.err_bytes);
        _exit(status_after(error, (int)reply.exit_code));
    }
    if (reply.type == FRAME_RUN) run_and_report(fd, &reply);
    exec_compiler(compiler, argv);
}

/* True for a bare word for which the user means a program: hpcc has no such command, and PATH has one. */
static bool is_program(const char *word) {
    bool is_shadowed = false;
    char *free_from = spare;
    if (!*word || *word == '-' || strchr(word, '/') || strlen(word) >= PATH_MAX || is_command(word)) return false;
    bool is_found = search_compiler(word, &is_shadowed) != NULL;
    spare = free_from;
    return is_found;
}

/* True if we were called by a link with a program's name. hpcc itself may have any name that begins so. */
static bool is_masked(const char *name) {
    return is_compiler_name(name) || (strncmp(name, "hpcc", 4) && is_program(name));
}

int main(int argc, char **argv) {
    if (argc < 1) return EXIT_CANNOT_RUN;
    if (is_masked(base_name(argv[0]))) {
        argv[0] = (char *)base_name(argv[0]);
        return compile(argv);
    }
    if (argc > 1 && !strcmp(argv[1], "wrap")) {
        if (argc > 2 && argv[2][0] != '-') return compile(argv + 2);
        if (argc == 2) {
            complain("usage: hpcc wrap CC args…");
            return 2;
        }
    }
    if (argc > 1 && argv[1][0] != '-' && (strchr(argv[1], '/') || is_compiler_name(argv[1]) || is_program(argv[1])))
        return compile(argv + 1);
    return run_cli(argv);
}
