#include "replay.h"
#include "names.h"

#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <poll.h>
#include <stdbool.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/types.h>
#include <sys/xattr.h>
#include <unistd.h>

#define EXPORT __attribute__((visibility("default")))

/* A request follows its connection at once. A slower peer is served without this library. */
#define FIRST_BYTES_MS 50
/* More than a compile has. The list of written outputs must need no allocation. */
#define MAX_OUTPUTS 64
#define MAX_GROUPS (1u << 20)
/* The kernel takes this much as one piece, so that no other thread's message can fall into it. */
#define MAX_ANSWER_BYTES 4096u
#define KEEPS_MODE 1u
#define NEW_FILE_MODE 0600 /* until all its bytes are written */
#define COMPILERS_MODE 0666 /* what compilers ask for; the kernel takes away what a default ACL does not give */
#define STATE_COUNTS 1u
#define MAX_SLOTS (1u << 20)

/* ---- reading a plan: each read is checked against the plan's end ---- */

struct reader {
    const unsigned char *at, *end;
    bool is_bad;
};

static const unsigned char *take(struct reader *r, uint64_t bytes) {
    if (r->is_bad || bytes > (uint64_t)(r->end - r->at)) {
        r->is_bad = true;
        return NULL;
    }
    const unsigned char *p = r->at;
    r->at += bytes;
    return p;
}

static uint32_t take32(struct reader *r) {
    uint32_t value = 0;
    const unsigned char *p = take(r, sizeof value);
    if (p) memcpy(&value, p, sizeof value);
    return value;
}

static uint64_t take64(struct reader *r) {
    uint64_t value = 0;
    const unsigned char *p = take(r, sizeof value);
    if (p) memcpy(&value, p, sizeof value);
    return value;
}

/* Returns a string of exactly this many bytes and a NUL; NULL if it is anything else. */
static const char *take_string(struct reader *r, uint32_t bytes) {
    const unsigned char *p = take(r, (uint64_t)bytes + 1);
    if (p && (p[bytes] || memchr(p, 0, bytes))) r->is_bad = true;
    return r->is_bad ? NULL : (const char *)p;
}

struct check {
    uint32_t kind;
    const char *name;
    uint64_t values[5];
    struct names names;
};

static void take_names(struct reader *r, struct names *names) {
    uint32_t flags = take32(r);
    names->is_state_known = flags & STATE_COUNTS;
    names->count = take32(r);
    names->slots = take32(r);
    names->text_bytes = take32(r);
    if (flags & ~STATE_COUNTS || names->slots > MAX_SLOTS || names->count > names->text_bytes / 2) r->is_bad = true;
    names->table = take(r, (uint64_t)names->slots * sizeof(uint32_t));
    names->text = (const char *)take(r, names->text_bytes);
    if (names->text && names->text_bytes && names->text[names->text_bytes - 1]) r->is_bad = true;
}

static bool take_check(struct reader *r, struct check *check) {
    check->kind = take32(r);
    uint32_t name_bytes = take32(r);
    bool has_state = check->kind == CHECK_STATE || check->kind == CHECK_LACKS;
    unsigned count = has_state ? 5 : check->kind == CHECK_PLACE ? 4 : 0;
    if (check->kind < CHECK_STATE || check->kind > CHECK_LACKS) r->is_bad = true;
    for (unsigned i = 0; i < count; i++) check->values[i] = take64(r);
    if (check->kind == CHECK_LACKS) take_names(r, &check->names);
    check->name = take_string(r, name_bytes);
    return !r->is_bad;
}

/* ---- checks ---- */

static uint64_t nanoseconds(struct timespec t) { return (uint64_t)t.tv_sec * 1000000000u + (uint64_t)t.tv_nsec; }

static bool is_same(const struct check *check, const struct stat *st) {
    const uint64_t *v = check->values;
    if (v[0] != st->st_dev || v[1] != st->st_ino) return false;
    if (check->kind == CHECK_PLACE) return v[2] == st->st_mode && v[3] == st->st_uid;
    return v[2] == (uint64_t)st->st_size && v[3] == nanoseconds(st->st_mtim) && v[4] == nanoseconds(st->st_ctim);
}

static bool lacks(int directory, const struct check *check) {
    const struct names *names = &check->names;
    struct stat st;
    /* A state belongs to a directory. If a file has replaced it, the check fails in every grouping. */
    if (names->is_state_known && !fstatat(directory, check->name, &st, *check->name ? 0 : AT_EMPTY_PATH) &&
        S_ISDIR(st.st_mode) && is_same(check, &st))
        return true;
    const char *path = *check->name ? check->name : ".";
    int fd = openat(directory, path, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    /* A directory that we may not read can still be searched for names. */
    if (fd < 0) fd = openat(directory, path, O_PATH | O_DIRECTORY | O_CLOEXEC);
    if (fd < 0) return false;
    bool is_lacking = has_none(fd, names);
    close(fd);
    return is_lacking;
}

/* `directory` is AT_FDCWD when names are absolute. */
static bool holds(int directory, const struct check *check) {
    struct stat st;
    if (check->kind == CHECK_LACKS) return lacks(directory, check);
    if (check->kind == CHECK_ABSENT) return is_absent(directory, check->name);
    if (fstatat(directory, check->name, &st, *check->name ? 0 : AT_EMPTY_PATH)) return false;
    return check->kind == CHECK_PRESENT ? !S_ISDIR(st.st_mode) : is_same(check, &st);
}

static int check_group(struct reader *r) {
    uint32_t directory_bytes = take32(r), checks = take32(r);
    const char *path = take_string(r, directory_bytes);
    if (!path || (*path && *path != '/')) return REPLAY_MALFORMED;
    int directory = *path ? open(path, O_PATH | O_DIRECTORY | O_CLOEXEC) : AT_FDCWD;
    bool is_gone = *path && directory < 0;
    /* In a missing directory every name is absent. */
    int result = is_gone && !is_missing(errno) ? REPLAY_CHANGED : REPLAY_DONE;
    for (uint32_t i = 0; i < checks && result == REPLAY_DONE; i++) {
        struct check check;
        if (!take_check(r, &check) || (!*path && *check.name != '/')) result = REPLAY_MALFORMED;
        else if (is_gone ? check.kind != CHECK_ABSENT : !holds(directory, &check)) result = REPLAY_CHANGED;
    }
    if (*path && !is_gone) close(directory);
    return result;
}

/* ---- outputs ---- */

struct placing {
    mode_t mode;
    uid_t uid;
    gid_t gid;
    uint64_t source_device, source_inode;
    const char *touched[MAX_OUTPUTS];
    unsigned count;
};

static bool write_all(int fd, const unsigned char *data, uint64_t bytes) {
    while (bytes) {
        ssize_t n = write(fd, data, bytes);
        if (n < 0 && errno == EINTR) continue;
        if (n <= 0) return false;
        data += n;
        bytes -= (uint64_t)n;
    }
    return true;
}

/* Only our own regular file without a second name, and not the source, may be overwritten. */
static bool is_ours(const struct stat *st, const struct placing *placing) {
    return S_ISREG(st->st_mode) && st->st_nlink == 1 && st->st_uid == placing->uid &&
           !(st->st_dev == placing->source_device && st->st_ino == placing->source_inode);
}

static enum answer has_list(const char *path, const char *name) {
    if (getxattr(path, name, NULL, 0) >= 0) return YES;
    return errno == ENODATA || errno == EOPNOTSUPP || errno == ENOSYS ? NO : CANNOT_TELL;
}

/* Whether new files beside `path` get their permissions from a default ACL of the directory, whatever the umask is. */
static enum answer has_default_acl(const char *path) {
    char directory[PATH_MAX];
    size_t length = (size_t)(strrchr(path, '/') - path);
    if (length >= sizeof directory) return CANNOT_TELL;
    memcpy(directory, path, length);
    if (!length) directory[length++] = '/';
    directory[length] = '\0';
    return has_list(directory, "system.posix_acl_default");
}

/* Over the old bytes and cut afterwards: ext4 writes a file out at once that was cut to nothing
 * first (auto_da_alloc), which costs more than everything else here. */
static bool fill(int fd, const struct stat *old, const unsigned char *data, uint64_t bytes) {
    if (!write_all(fd, data, bytes)) return false;
    if (old && (uint64_t)old->st_size > bytes) return !ftruncate(fd, (off_t)bytes);
    /* Nothing was written, but the file must look new. */
    return bytes || !old || !futimens(fd, (const struct timespec[2]){{0, UTIME_NOW}, {0, UTIME_NOW}});
}

static bool put(struct placing *placing, const char *path, const unsigned char *data, uint64_t bytes, bool keeps_mode) {
    struct stat st;
    /* Checked before it is opened: open() wakes a process that waits at a FIFO, and rewinds a tape. */
    bool is_new = lstat(path, &st);
    if (is_new ? errno != ENOENT : !is_ours(&st, placing)) return false;
    enum answer is_listed = keeps_mode && !is_new ? NO : has_default_acl(path);
    enum answer has_own = keeps_mode || is_new ? NO : has_list(path, "system.posix_acl_access");
    if (is_listed == CANNOT_TELL || has_own == CANNOT_TELL) return false;
    /* Assemblers make a new file, too. The old one may be for people for whom a new one is not. */
    if (!is_new && !keeps_mode && (is_listed == YES || has_own == YES || st.st_gid != placing->gid)) {
        if (unlink(path)) return false;
        is_new = true;
    }
    int fd = open(path, O_WRONLY | O_NOFOLLOW | O_CLOEXEC | (is_new ? O_CREAT | O_EXCL : O_NONBLOCK),
                  is_listed == YES ? COMPILERS_MODE : NEW_FILE_MODE);
    if (fd < 0) return false;
    if (!is_new && (fstat(fd, &st) || !is_ours(&st, placing))) {
        close(fd);
        return false;
    }
    placing->touched[placing->count++] = path;
    bool is_done = fill(fd, is_new ? NULL : &st, data, bytes);
    if (is_done && is_listed == NO && (is_new || (!keeps_mode && (st.st_mode & 07777) != placing->mode)))
        is_done = !fchmod(fd, placing->mode);
    /* NFS reports a full disk only here. */
    return close(fd) == 0 && is_done;
}

static int put_all(struct reader *r, uint32_t outputs, struct placing *placing) {
    int result = REPLAY_DONE;
    for (uint32_t i = 0; i < outputs && result == REPLAY_DONE; i++) {
        uint32_t flags = take32(r), path_bytes = take32(r);
        uint64_t data_bytes = take64(r);
        const char *path = take_string(r, path_bytes);
        const unsigned char *data = take(r, data_bytes);
        if (!path || !data || *path != '/' || flags & ~KEEPS_MODE) result = REPLAY_MALFORMED;
        else if (!put(placing, path, data, data_bytes, flags & KEEPS_MODE)) result = REPLAY_NOT_OURS;
    }
    return result;
}

static int put_or_remove(struct reader *r, uint32_t outputs, uint32_t answer_bytes, struct placing *placing) {
    int result = put_all(r, outputs, placing);
    if (result == REPLAY_DONE && (uint64_t)(r->end - r->at) != answer_bytes) result = REPLAY_MALFORMED;
    if (result != REPLAY_DONE)
        for (unsigned i = 0; i < placing->count; i++) unlink(placing->touched[i]);
    return result;
}

/* ---- the two calls ---- */

EXPORT uint32_t hpcc_native_version(void) { return HPCC_NATIVE_VERSION; }

EXPORT int hpcc_replay(const unsigned char *plan, uint64_t bytes, int connection) {
    struct reader r = {.at = plan, .end = plan + bytes};
    struct placing placing;
    if (take32(&r) != PLAN_MAGIC || take32(&r) != bytes) return REPLAY_MALFORMED;
    uint32_t groups = take32(&r), outputs = take32(&r), mode = take32(&r), answer_bytes = take32(&r);
    placing.count = 0;
    placing.mode = mode;
    placing.uid = geteuid();
    placing.gid = getegid();
    placing.source_device = take64(&r);
    placing.source_inode = take64(&r);
    if (r.is_bad || groups > MAX_GROUPS || outputs > MAX_OUTPUTS || mode & ~0777u || answer_bytes > MAX_ANSWER_BYTES)
        return REPLAY_MALFORMED;
    for (uint32_t i = 0; i < groups; i++) {
        int result = check_group(&r);
        if (result != REPLAY_DONE) return result;
    }
    int result = put_or_remove(&r, outputs, answer_bytes, &placing);
    if (result != REPLAY_DONE || connection < 0) return result;
    /* In one message. The launcher ignores a part of one and then compiles by itself. */
    ssize_t sent = send(connection, r.at, answer_bytes, MSG_DONTWAIT | MSG_NOSIGNAL);
    return sent == (ssize_t)answer_bytes ? REPLAY_DONE : REPLAY_UNSENT;
}

EXPORT int hpcc_accept(int listener, uint32_t uid, unsigned char *buffer, uint32_t size, uint32_t *got) {
    struct ucred peer;
    socklen_t peer_bytes = sizeof peer;
    *got = 0;
    int fd;
    do fd = accept4(listener, NULL, NULL, SOCK_CLOEXEC);
    while (fd < 0 && errno == EINTR);
    if (fd < 0) return -errno;
    if (getsockopt(fd, SOL_SOCKET, SO_PEERCRED, &peer, &peer_bytes) || peer.uid != uid) {
        close(fd);
        return -EPERM;
    }
    ssize_t n = recv(fd, buffer, size, MSG_DONTWAIT);
    if (n < 0 && errno == EAGAIN) {
        struct pollfd pfd = {.fd = fd, .events = POLLIN};
        if (poll(&pfd, 1, FIRST_BYTES_MS) == 1) n = recv(fd, buffer, size, MSG_DONTWAIT);
    }
    if (n > 0) *got = (uint32_t)n;
    return fd;
}
