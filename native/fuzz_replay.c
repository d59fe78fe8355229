/* Feeds hpcc_replay with any bytes, without a real file system: every call that would reach the file
 * system or a socket is a fake below, and the first letter of a name decides what it leads to.
 * libFuzzer calls it (-fsanitize=fuzzer,address); with -DCORPUS_MAIN it runs the files named on its
 * command line: each unchanged, cut at each byte, and with each integer replaced. It prints the result
 * of each unchanged one. The tests do that. An input is a plan, in a copy of exactly its size. */
#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/types.h>
#include <sys/vfs.h>
#include <sys/xattr.h>
#include <unistd.h>

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

#define EXPECT(condition) \
    do { \
        if (!(condition)) { \
            fprintf(stderr, "%s:%d: not so: %s\n", __FILE__, __LINE__, #condition); \
            abort(); \
        } \
    } while (0)

/* ---- the world ---- */

enum {
    ABSENT = 'a',     /* ENOENT */
    BELOW = 'b',      /* ENOTDIR */
    CLOSED = 'c',     /* EACCES */
    DIRECTORY = 'd',
    ELSEWHERE = 'e',  /* a file of another user */
    FULL = 'g',       /* our file; writing it fails before the end */
    HARD_LINK = 'h',
    STUBBORN = 'i',   /* our file; its mode cannot be changed */
    OWN_LIST = 'l',   /* our file; it has an ACL */
    PIPE = 'p',
    SOURCE = 's',
};

/* What is unusual about a directory, by the second letter of its name. */
enum {
    OTHER_FILE_SYSTEM = 'f',
    UNREADABLE = 'p',  /* it can only be searched */
    FAILING = 'e',
    ENDLESS = 'm',     /* almost */
    NOT_ASCII = 'n',
    SHORT_RECORD = 'r',
    LONG_RECORD = 'l',
    NO_NUL = 'u',
    LISTED = 'x',      /* it has a default ACL */
    DOUBTFUL = 'y',    /* whether it has one cannot be told */
};

#define MOST_READS 100
#define TMPFS 0x01021994
#define FUSE 0x65735546
#define FIRST_FD 100
#define CONNECTION 7
#define MOST_FILES 64

struct file {
    const char *path;
    bool is_directory, is_open, is_removed;
    unsigned writes, reads;
};

/* Every file that was opened in one run, and the answer. */
static struct file files[2 * MOST_FILES];
static unsigned file_count, open_count, sent_count;
static uint64_t sent_bytes, source[2];
static volatile unsigned char sink;

/* Reads all bytes, so that the sanitizer reports a read past the end. */
static void touch(const void *data, size_t bytes) {
    for (size_t i = 0; i < bytes; i++) sink ^= ((const unsigned char *)data)[i];
}

static int fail(int error) {
    errno = error;
    return -1;
}

static char kind_of(const char *path) {
    touch(path, strlen(path) + 1);
    const char *slash = strrchr(path, '/');
    char first = slash ? slash[1] : path[0];
    return first && first != '.' ? first : DIRECTORY;
}

static int describe(char kind, struct stat *st) {
    if (kind == ABSENT) return fail(ENOENT);
    if (kind == BELOW) return fail(ENOTDIR);
    if (kind == CLOSED) return fail(EACCES);
    memset(st, 0, sizeof *st);
    st->st_dev = 1;
    st->st_ino = kind == SOURCE ? 2 : 3;
    st->st_size = 4;
    st->st_mtim.tv_nsec = 5;
    st->st_ctim.tv_nsec = 6;
    st->st_nlink = kind == HARD_LINK ? 2 : 1;
    st->st_uid = geteuid() + (kind == ELSEWHERE);
    st->st_gid = getegid();
    st->st_mode = (mode_t)(kind == PIPE ? S_IFIFO : kind == DIRECTORY ? S_IFDIR : S_IFREG) | 0600;
    return 0;
}

/* Any other letter is one more file of the fuzzer; the plan names the source. */
static bool is_writable(char kind) {
    struct stat st;
    return !strchr("bcdehp", kind) && !describe(kind, &st) && (st.st_dev != source[0] || st.st_ino != source[1]);
}

static struct file *file_of(int fd) {
    EXPECT(fd >= FIRST_FD && fd < FIRST_FD + (int)file_count && files[fd - FIRST_FD].is_open);
    return &files[fd - FIRST_FD];
}

static int add_file(const char *path, bool is_directory) {
    EXPECT(file_count < sizeof files / sizeof *files);
    files[file_count] = (struct file){.path = path, .is_directory = is_directory, .is_open = true};
    open_count++;
    return FIRST_FD + (int)file_count++;
}

static char oddity_of(const char *path) {
    const char *slash = strrchr(path, '/'), *base = slash ? slash + 1 : path;
    return *base ? base[1] : 0;
}

static int open_directory(const char *path, int flags) {
    struct stat st;
    EXPECT(flags & O_CLOEXEC && flags & O_DIRECTORY);
    if (oddity_of(path) == UNREADABLE && !(flags & O_PATH)) return fail(EACCES);
    if (describe(kind_of(path), &st)) return -1;
    /* At most two directories are open at a time, so the table is for the outputs. */
    while (file_count && files[file_count - 1].is_directory && !files[file_count - 1].is_open) file_count--;
    return add_file(path, true);
}

static int fake_open(const char *path, int flags, ...) {
    EXPECT(*path == '/' && flags & O_CLOEXEC);
    if (flags & O_DIRECTORY) return open_directory(path, flags);
    char kind = kind_of(path);
    /* Other kinds of files must never be opened: others can notice an open. */
    EXPECT(is_writable(kind) || kind == ABSENT);
    EXPECT(flags & O_NOFOLLOW && !(flags & O_TRUNC));
    if (kind == ABSENT && !(flags & O_CREAT)) return fail(ENOENT);
    EXPECT(!(flags & O_CREAT) || flags & O_EXCL);
    return add_file(path, false);
}

static int fake_openat(int directory, const char *path, int flags) {
    EXPECT(directory == AT_FDCWD ? *path == '/' : file_of(directory)->is_directory);
    return open_directory(strcmp(path, ".") ? path : file_of(directory)->path, flags);
}

static int fake_fstatfs(int fd, struct statfs *fs) {
    memset(fs, 0, sizeof *fs);
    fs->f_type = oddity_of(file_of(fd)->path) == OTHER_FILE_SYSTEM ? FUSE : TMPFS;
    return 0;
}

static size_t put_entry(unsigned char *at, const char *name, uint16_t length) {
    size_t bytes = (19 + strlen(name) + 8) & ~7u;
    uint16_t said = length ? length : (uint16_t)bytes;
    memset(at, 0xff, bytes);
    memcpy(at + 16, &said, sizeof said);
    memcpy(at + 19, name, strlen(name) + 1);
    return bytes;
}

/* The same for every directory, then what is unusual about it. A lookup does not find entries with an `a`. */
static long fake_syscall(long number, int fd, void *buffer, size_t size) {
    struct file *file = file_of(fd);
    unsigned char *at = buffer;
    char odd = oddity_of(file->path);
    EXPECT(number == SYS_getdents64 && file->is_directory && size >= 4096);
    if (odd == UNREADABLE) return fail(EBADF);
    if (odd == FAILING && file->reads) return fail(EIO);
    if (file->reads++ > (odd == ENDLESS ? MOST_READS : 0)) return 0;
    const char *names[] = {".", "..", "file.h", "A1.H", "f-of-more-than-one-word.h"};
    for (unsigned i = 0; i < sizeof names / sizeof *names; i++) at += put_entry(at, names[i], 0);
    if (odd == NOT_ASCII) at += put_entry(at, "f\xc3\xbc.h", 0);
    if (odd == SHORT_RECORD) at += put_entry(at, "x", 19);
    if (odd == LONG_RECORD) at += put_entry(at, "x", 0xffff);
    if (odd == NO_NUL) memset(at - 8, 'x', 8);
    return at - (unsigned char *)buffer;
}

static int fake_close(int fd) {
    file_of(fd)->is_open = false;
    open_count--;
    return 0;
}

static int fake_fstat(int fd, struct stat *st) { return describe(kind_of(file_of(fd)->path), st); }

static int fake_lstat(const char *path, struct stat *st) { return describe(kind_of(path), st); }

static int fake_fstatat(int directory, const char *name, struct stat *st, int flags) {
    EXPECT(directory == AT_FDCWD ? *name == '/' : file_of(directory)->is_directory);
    EXPECT(*name || flags & AT_EMPTY_PATH);
    return describe(*name ? kind_of(name) : DIRECTORY, st);
}

static struct file *output_of(int fd) {
    struct file *file = file_of(fd);
    EXPECT(!file->is_directory);
    return file;
}

static ssize_t fake_write(int fd, const void *data, size_t bytes) {
    struct file *file = output_of(fd);
    touch(data, bytes);
    if (file->writes++ == 0) return fail(EINTR);
    if (file->writes > 2 && kind_of(file->path) == FULL) return fail(ENOSPC);
    /* In pieces, as a disk may write. */
    return (ssize_t)(bytes > 1 ? bytes / 2 : bytes);
}

static int fake_ftruncate(int fd, off_t size) {
    output_of(fd);
    EXPECT(size >= 0);
    return 0;
}

static int fake_futimens(int fd, const struct timespec times[2]) {
    output_of(fd);
    EXPECT(times[0].tv_nsec == UTIME_NOW && times[1].tv_nsec == UTIME_NOW);
    return 0;
}

/* The second letter of the directory's name: of "/x/a" that is none, of "/dx/a" it is x. */
static char oddity_of_parent(const char *path) {
    const char *slash = strrchr(path, '/'), *before = slash;
    while (before > path && before[-1] != '/') before--;
    return slash - before > 1 ? before[1] : 0;
}

static ssize_t fake_getxattr(const char *path, const char *name, void *value, size_t size) {
    EXPECT(*path == '/' && !value && !size);
    if (!strcmp(name, "system.posix_acl_access")) return kind_of(path) == OWN_LIST ? 28 : fail(ENODATA);
    EXPECT(!strcmp(name, "system.posix_acl_default"));
    touch(path, strlen(path) + 1);
    char odd = oddity_of(path);
    return odd == LISTED ? 28 : fail(odd == DOUBTFUL ? EACCES : path[1] ? ENODATA : EOPNOTSUPP);
}

static int fake_fchmod(int fd, mode_t mode) {
    EXPECT(!(mode & ~0777u) && oddity_of_parent(output_of(fd)->path) != LISTED);
    return kind_of(output_of(fd)->path) == STUBBORN ? fail(EPERM) : 0;
}

/* Only files that this run wrote to may be removed, or is about to write to anew. */
static int fake_unlink(const char *path) {
    kind_of(path);
    for (unsigned i = 0; i < file_count; i++)
        if (!files[i].is_directory && files[i].path == path) {
            files[i].is_removed = true;
            return 0;
        }
    EXPECT((oddity_of_parent(path) == LISTED || kind_of(path) == OWN_LIST) && is_writable(kind_of(path)));
    return 0;
}

static ssize_t fake_send(int connection, const void *data, size_t bytes, int flags) {
    EXPECT(connection == CONNECTION && flags == (MSG_DONTWAIT | MSG_NOSIGNAL));
    touch(data, bytes);
    sent_count++;
    sent_bytes = bytes;
    /* As if the launcher does not read. */
    return bytes == 13 ? fail(EAGAIN) : (ssize_t)bytes;
}

#define open(...) fake_open(__VA_ARGS__)
#define openat(...) fake_openat(__VA_ARGS__)
#define fstatfs(...) fake_fstatfs(__VA_ARGS__)
#define syscall(...) fake_syscall(__VA_ARGS__)
#define close(...) fake_close(__VA_ARGS__)
#define fstat(...) fake_fstat(__VA_ARGS__)
#define lstat(...) fake_lstat(__VA_ARGS__)
#define fstatat(...) fake_fstatat(__VA_ARGS__)
#define write(...) fake_write(__VA_ARGS__)
#define ftruncate(...) fake_ftruncate(__VA_ARGS__)
#define futimens(...) fake_futimens(__VA_ARGS__)
#define fchmod(...) fake_fchmod(__VA_ARGS__)
#define unlink(...) fake_unlink(__VA_ARGS__)
#define getxattr(...) fake_getxattr(__VA_ARGS__)
#define send(...) fake_send(__VA_ARGS__)
#include "replay.c"

/* ---- one run, and the invariants after it ---- */

static int run(const unsigned char *plan, size_t size, int connection) {
    file_count = open_count = sent_count = 0;
    if (size >= 40) memcpy(source, plan + 24, sizeof source);
    int outcome = hpcc_replay(plan, size, connection);
    uint32_t outputs = 0;
    unsigned touched = 0, removed = 0;
    if (size >= 40) memcpy(&outputs, plan + 12, sizeof outputs);
    for (unsigned i = 0; i < file_count; i++) {
        touched += !files[i].is_directory;
        removed += files[i].is_removed;
    }
    EXPECT(outcome >= REPLAY_DONE && outcome <= REPLAY_UNSENT && open_count == 0);
    bool is_done = outcome == REPLAY_DONE || outcome == REPLAY_UNSENT;
    EXPECT(outcome != REPLAY_CHANGED || touched == 0);
    EXPECT(sent_count == (is_done && connection >= 0));
    EXPECT(outcome != REPLAY_UNSENT || sent_bytes == 13);
    /* All or nothing. */
    EXPECT(is_done ? touched == outputs && removed == 0 : removed == touched);
    return outcome;
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size) {
    unsigned char *plan = calloc(1, size ? size : 1);
    if (!plan) return 0;
    if (size) memcpy(plan, data, size);
    run(plan, size, CONNECTION);
    /* Again with a head that matches the length, so that the rest is read. */
    uint32_t head[2] = {PLAN_MAGIC, (uint32_t)size};
    if (size >= sizeof head) {
        memcpy(plan, head, sizeof head);
        run(plan, size, size % 2 ? CONNECTION : -1);
    }
    free(plan);
    return 0;
}

#ifdef CORPUS_MAIN
static const uint64_t ODD[] = {0, 1, 2, 64, 65, 4097, 0x7fffffff, 0x80000000, 0xfffffff7, 0xffffffff,
                               0x7fffffffffffffff, 0xfffffffffffffff8, 0xffffffffffffffff};

static void mutate(const uint8_t *data, size_t size) {
    /* A large plan is mostly data, and each run reads all of it. */
    size_t step = size / 1024 + 1;
    for (size_t cut = 0; cut < size; cut += step) LLVMFuzzerTestOneInput(data, cut);
    uint8_t *copy = malloc(size + 1);
    if (!copy) abort();
    for (size_t width = 4; width <= 8; width *= 2)
        for (size_t at = 0; at + width <= size; at += step)
            for (size_t i = 0; i < sizeof ODD / sizeof *ODD; i++) {
                memcpy(copy, data, size);
                memcpy(copy + at, &ODD[i], width);
                LLVMFuzzerTestOneInput(copy, size);
            }
    free(copy);
}

int main(int argc, char **argv) {
    static uint8_t data[1 << 16];
    for (int i = 1; i < argc; i++) {
        FILE *file = fopen(argv[i], "rb");
        if (!file) return 2;
        size_t size = fread(data, 1, sizeof data, file);
        fclose(file);
        uint8_t *copy = calloc(1, size ? size : 1);
        if (!copy) return 2;
        memcpy(copy, data, size);
        printf("%d %s\n", run(copy, size, CONNECTION), argv[i]);
        free(copy);
        mutate(data, size);
    }
    return 0;
}
#endif
