/* The launcher's half of the protocol between launcher and daemon, and the rules for finding the
 * daemon's socket. The other half is src/hpcc/wire/launcher.py; tests hold the two together.
 * Pure: no I/O, no allocation, so that fuzz_reply.c can feed it anything.
 *
 * A frame is magic, type and body length (three little-endian 32-bit words), then the body. A request's
 * body begins with the protocol's version and the length of the build facts (two words), then the facts. */
#ifndef HPCC_WIRE_H
#define HPCC_WIRE_H

#include <limits.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>

#define FRAME_MAGIC 0x31637068u /* "hpc1" */
#define HEADER_BYTES 12u
#define REQUEST_FIXED_BYTES 68u

/* The daemon refuses more; the launcher then compiles by itself. A test builds with less, because
 * Linux itself does not start a process with more than 6 MiB of arguments. */
#ifndef MAX_REQUEST_BYTES
#define MAX_REQUEST_BYTES (8u << 20)
#endif
/* Two streams of at most 4 MiB from a farm, and as much again for paths spelled longer here. */
#define MAX_REPLY_BYTES (16u << 20)
#define MAX_REASON_BYTES 256u
#define MAX_ARGC (1u << 18)
/* At most this much of each stream is kept and reported. */
#define MAX_CAPTURE_BYTES (1u << 20)

/* What the environment says about the build (src/hpcc/wire/build_facts.py has the same list and limits).
 * The facts stand before the request's key, so that the next build finds this one's replays. The daemon
 * decides what they mean. A value is cut at one byte more than the daemon accepts, so that it shows. */
#define MAX_FACT_BYTES 192u
#define MAX_FACTS_BYTES 4096u
#define EACH_FACT(F) \
    F("TRACEPARENT") F("HPCC_BUILD") F("GITHUB_REPOSITORY") F("GITHUB_RUN_ID") F("GITHUB_RUN_ATTEMPT") \
    F("CI_SERVER_HOST") F("CI_PIPELINE_ID") F("BUILDKITE_BUILD_ID") F("SYSTEM_COLLECTIONID") F("BUILD_BUILDID") \
    F("CIRCLE_WORKFLOW_ID") F("TEAMCITY_PROJECT_NAME") F("TEAMCITY_BUILDCONF_NAME") F("BUILD_NUMBER") F("BUILD_TAG")
#define BUILD_VARIABLE "HPCC_BUILD"

enum frame_type {
    FRAME_REQUEST = 1,
    FRAME_REPORT = 2,
    FRAME_WAIT = 16,
    FRAME_DONE = 17,
    FRAME_RUN = 18,
    FRAME_EXEC = 19,
    FRAME_FINISH = 20,
    FRAME_VERSION = 21,
};

#define RUN_FILTER_HEADERS 1u
#define RUN_TENTATIVE 2u
#define VERSION_IS_DRAINING 1u
#define REQUEST_STDERR_IS_TTY 1u
#define MOUNT_IS_ID UINT64_MAX /* a device number that no device has: the id of the mount at / follows */
#define REPORT_IS_TRUNCATED 1u

/* A compile that did not reach the daemon leaves one byte in this file of the run directory. The
 * daemon counts the bytes and removes the file: cache/fallbacks.py. */
#define FALLBACKS_NAME "fallbacks"
#define MAX_FALLBACKS_BYTES (1 << 16)

enum fallback {
    FALLBACK_NO_DAEMON = 'n',     /* no daemon listens, and starting one failed */
    FALLBACK_LEFT_ALONE = 'b',    /* the daemon hung or failed to start a short while ago */
    FALLBACK_SILENT = 's',        /* connected, but no answer came in time */
    FALLBACK_LOST = 'l',          /* the connection ended, or the answer was malformed */
    FALLBACK_OTHER_VERSION = 'v', /* a daemon of another build that does not end */
    FALLBACK_LONG_REQUEST = 'r',  /* the request is larger than the daemon accepts */
};

struct reply {
    uint32_t type;
    uint32_t exit_code;
    uint32_t flags;
    uint32_t argc;
    char *argv; /* argc strings, each ending in NUL, one after the other */
    const unsigned char *out, *err;
    uint32_t out_bytes, err_bytes;
};

static inline uint32_t get32(const unsigned char *p) {
    return (uint32_t)p[0] | (uint32_t)p[1] << 8 | (uint32_t)p[2] << 16 | (uint32_t)p[3] << 24;
}

static inline unsigned char *put32(unsigned char *p, uint32_t value) {
    for (int i = 0; i < 4; i++) *p++ = (unsigned char)(value >> (8 * i));
    return p;
}

static inline unsigned char *put64(unsigned char *p, uint64_t value) {
    return put32(put32(p, (uint32_t)value), (uint32_t)(value >> 32));
}

static inline unsigned char *put_header(unsigned char *p, uint32_t type, uint32_t bytes) {
    return put32(put32(put32(p, FRAME_MAGIC), type), bytes);
}

/* Append the variable `NAME=value` with a NUL if it is a build fact and there is room; returns the end. */
static inline unsigned char *put_fact(unsigned char *p, const unsigned char *end, const char *variable) {
#define AS_ITEM(name) name,
    static const char *const names[] = {EACH_FACT(AS_ITEM)};
#undef AS_ITEM
    for (size_t i = 0; i < sizeof names / sizeof *names; i++) {
        if (names[i][0] != variable[0]) continue; /* true for most names, and cheaper than a call */
        size_t n = strlen(names[i]), bytes;
        if (strncmp(variable, names[i], n) || variable[n] != '=' || !variable[n + 1]) continue;
        for (bytes = n + 1; variable[bytes] && bytes < n + 1 + MAX_FACT_BYTES + 1;) bytes++;
        if ((size_t)(end - p) <= bytes) return p;
        memcpy(p, variable, bytes);
        p[bytes] = '\0';
        return p + bytes + 1;
    }
    return p;
}

/* Read a reply's header. Returns 0, or -1 for anything the daemon never sends. */
static inline int parse_header(const unsigned char *head, uint32_t *type, uint32_t *bytes) {
    *type = get32(head + 4);
    *bytes = get32(head + 8);
    if (get32(head) != FRAME_MAGIC) return -1;
    switch (*type) {
    case FRAME_WAIT: return *bytes == 0 ? 0 : -1;
    case FRAME_EXEC:
    case FRAME_VERSION: return *bytes <= 4 + MAX_REASON_BYTES ? 0 : -1;
    case FRAME_DONE:
    case FRAME_RUN:
    case FRAME_FINISH: return *bytes <= MAX_REPLY_BYTES ? 0 : -1;
    default: return -1;
    }
}

enum split { SPLIT_BAD, SPLIT_PARTIAL, SPLIT_WHOLE };

/* Look for a reply in the bytes received so far: `data` from `*start` to `have`. WAIT frames before it
 * are skipped by moving `*start`. `*bytes` is the length of its body, 0 until that is known. */
static inline enum split split_frames(const unsigned char *data, size_t have, size_t *start, uint32_t *type,
                                      uint32_t *bytes) {
    *bytes = 0;
    while (have - *start >= HEADER_BYTES) {
        if (parse_header(data + *start, type, bytes)) return SPLIT_BAD;
        if (*type != FRAME_WAIT) {
            size_t body = have - *start - HEADER_BYTES;
            if (body == *bytes) return SPLIT_WHOLE;
            return body > *bytes ? SPLIT_BAD : SPLIT_PARTIAL; /* nothing follows an answer */
        }
        *start += HEADER_BYTES;
    }
    return SPLIT_PARTIAL;
}

/* Two streams: their lengths, then their bytes, then the end. */
static inline int parse_streams(const unsigned char *p, uint32_t bytes, struct reply *reply) {
    if (bytes < 8) return -1;
    reply->out_bytes = get32(p);
    reply->err_bytes = get32(p + 4);
    if ((uint64_t)reply->out_bytes + reply->err_bytes + 8 != bytes) return -1;
    reply->out = p + 8;
    reply->err = reply->out + reply->out_bytes;
    return 0;
}

/* Whether the string at `p` is an absolute path; on Windows it must begin with a drive. */
static inline int is_absolute_text(const unsigned char *p, uint32_t bytes) {
#ifdef _WIN32
    return bytes > 3 && ((p[0] | 32) >= 'a' && (p[0] | 32) <= 'z') && p[1] == ':' && (p[2] == '\\' || p[2] == '/');
#else
    return bytes > 1 && p[0] == '/';
#endif
}

/* Read a reply's body; `reply` then points into it. Returns 0, or -1 if it is malformed. */
static inline int parse_reply(uint32_t type, unsigned char *body, uint32_t bytes, struct reply *reply) {
    *reply = (struct reply){.type = type};
    switch (type) {
    case FRAME_WAIT:
    case FRAME_EXEC: return 0;
    case FRAME_VERSION:
        if (bytes < 4) return -1;
        reply->flags = get32(body);
        return 0;
    case FRAME_DONE:
        if (bytes < 4) return -1;
        reply->exit_code = get32(body);
        if (reply->exit_code > 255) return -1;
        return parse_streams(body + 4, bytes - 4, reply);
    case FRAME_FINISH: return parse_streams(body, bytes, reply);
    case FRAME_RUN: break;
    default: return -1;
    }
    if (bytes < 10 || body[bytes - 1] != '\0' || !is_absolute_text(body + 8, bytes - 8)) return -1;
    reply->flags = get32(body);
    reply->argc = get32(body + 4);
    reply->argv = (char *)body + 8;
    if (reply->argc == 0 || reply->argc > MAX_ARGC) return -1;
    uint32_t count = 0;
    for (uint32_t i = 8; i < bytes; i++) count += body[i] == '\0';
    return count == reply->argc ? 0 : -1;
}

/* Removes what gcc -H wrote into `text`: header lines ("... path") and the list of files that could
 * use include guards. Only for when the daemon cannot do it.
 * Works in place and returns the new length. */
static inline size_t strip_headers(char *text, size_t bytes) {
    static const char guards[] = "Multiple include guards may be useful for:\n";
    size_t kept = 0, at = 0;
    while (at < bytes) {
        const char *line = text + at, *newline = memchr(line, '\n', bytes - at);
        size_t length = newline ? (size_t)(newline - line) + 1 : bytes - at, dots = 0;
        if (length == sizeof guards - 1 && !memcmp(line, guards, length)) break;
        while (dots < length && line[dots] == '.') dots++;
        if (!(dots > 0 && dots < length && line[dots] == ' ')) {
            memmove(text + kept, line, length);
            kept += length;
        }
        at += length;
    }
    return kept;
}

/* ---- where the daemon is: must agree with config/paths.py and wire/address.py ---- */

#define SOCKET_MAX 107u /* sun_path without its NUL */
#define OWN_MAX 32u     /* "/tmp/hpcc-" and a uid */

struct place {
    char socket[SOCKET_MAX + 1];
    char own[OWN_MAX];
    const char *run;        /* locks, the back-off marker and the marks of fallbacks */
    const char *socket_dir; /* equal to run, unless the socket's name had to be hashed */
};

/* Copy `from` as pathlib spells it: no empty or "." parts, no "/" at the end; exactly two slashes
 * at the front stay two (POSIX leaves their meaning open). Returns -1 when it does not fit. */
static inline int normal_path(char *to, size_t size, const char *from) {
    size_t n = 0, slashes = strspn(from, "/");
    if (size < 3) return -1;
    to[n++] = '/';
    if (slashes == 2) to[n++] = '/';
    size_t root = n;
    for (const char *part = from + slashes; *part;) {
        size_t length = strcspn(part, "/");
        if (!(length == 1 && part[0] == '.')) {
            if (n + 1 + length + 1 > size) return -1;
            if (n > root) to[n++] = '/';
            memcpy(to + n, part, length);
            n += length;
        }
        part += length;
        part += strspn(part, "/");
    }
    to[n] = '\0';
    return 0;
}

/* FNV-1a, 64 bits. It names a socket in a directory that only the user can write to, so collisions
 * are not an attack. */
#define FNV_START 0xcbf29ce484222325u
static inline uint64_t fnv1a(uint64_t hash, const char *text) {
    for (; *text; text++) hash = (hash ^ (unsigned char)*text) * 0x100000001b3u;
    return hash;
}

/* Write `value` to the base of at most 16, at least `digits` long; returns the end, a NUL. No
 * printf: it would be half of the program that the kernel maps for each compile. */
static inline char *put_number(char *to, uint64_t value, unsigned base, unsigned digits) {
    char reversed[24];
    unsigned n = 0;
    for (; value || n < digits; value /= base) reversed[n++] = "0123456789abcdef"[value % base];
    while (n) *to++ = reversed[--n];
    *to = '\0';
    return to;
}

/* `to` may be `dir`. */
static inline int join_path(char *to, size_t size, const char *dir, const char *name) {
    size_t length = strlen(dir), more = strlen(name);
    size_t slash = !(length && dir[length - 1] == '/');
    if (length + slash + more + 1 > size) return -1;
    memmove(to, dir, length);
    if (slash) to[length] = '/';
    memcpy(to + length + slash, name, more + 1);
    return 0;
}

/* Fill in `place`; `run` has PATH_MAX bytes for its longest part. The next arguments are the
 * variables of that name, or NULL. Returns -1 when hpcc has no place for this user, in which case
 * the daemon would not start either. */
static inline int find_place(struct place *place, char *run, const char *hpcc_dir, const char *home,
                             const char *xdg_runtime_dir, unsigned uid) {
    memcpy(place->own, "/tmp/hpcc-", sizeof "/tmp/hpcc-");
    put_number(place->own + strlen(place->own), uid, 10, 1);
    if (hpcc_dir && *hpcc_dir) {
        if (*hpcc_dir != '/' || normal_path(run, PATH_MAX, hpcc_dir)) return -1;
        if (join_path(run, PATH_MAX, run, "run")) return -1;
    } else {
        if (!home || *home != '/') return -1;
        if (xdg_runtime_dir && *xdg_runtime_dir == '/') {
            if (normal_path(run, PATH_MAX, xdg_runtime_dir)) return -1;
            if (join_path(run, PATH_MAX, run, "hpcc")) return -1;
        } else {
            memcpy(run, place->own, OWN_MAX);
        }
    }
    place->run = place->socket_dir = run;
    if (!join_path(place->socket, sizeof place->socket, run, "daemon.sock")) return 0;
    /* Too long for a socket: use a hash of the whole path, in a directory with a short name. */
    uint64_t hash = fnv1a(fnv1a(FNV_START, run), run[strlen(run) - 1] == '/' ? "daemon.sock" : "/daemon.sock");
    place->socket_dir = place->own;
    memcpy(place->socket, place->own, OWN_MAX);
    char *end = place->socket + strlen(place->socket);
    *end++ = '/';
    memcpy(put_number(end, hash, 16, 16), ".sock", sizeof ".sock");
    return 0;
}

#endif
