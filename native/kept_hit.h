/* A kept hit: a file in which the daemon on Windows writes what the launcher needs to answer one request
 * again, and the parser of such files. Pure, so that fuzz_kept_hit.c can feed it anything. The writer is
 * src/hpcc/cache/windows/hit_bytes.py; tests/fuzz/test_kept_hit_corpus.py holds the two together.
 *
 * Little-endian and without padding:
 *   u32 magic, u32 bytes (all of it), SHA-256 of all that follows,
 *   u64 number, u32 ANSI code page, u32 OEM code page, u32 language of the user,
 *   u32 request bytes, u32 checks, u32 path bytes, u32 depfile's path bytes, u32 object, depfile, stdout, stderr bytes,
 *   the request behind its build facts; the checks; path of the object and NUL; path of the depfile and NUL;
 *   object; depfile; stdout; stderr. Without a depfile its path has 0 bytes and no NUL, and it has 0 bytes.
 * Per check: u32 kind, u32 path bytes, path and NUL, then
 *   FILE: u64 size, SHA-256          STATE: u64 written, changed, size, volume, index
 *   KIND: u32 kind of entry          LISTING: SHA-256
 *   REAL: u32 bytes, the path without links and NUL
 *   LACKS: u32 names, u32 text bytes, the text: per name a byte of bits and a key and NUL, in the order of keys
 * Paths are UTF-8 and begin with a drive. */
#ifndef HPCC_KEPT_HIT_H
#define HPCC_KEPT_HIT_H

#include <stdbool.h>
#include <stdint.h>
#include <string.h>

#define HIT_MAGIC 0x32687768u /* "hwh2" */
#define HIT_HEAD_BYTES 40u
#define HIT_DIGEST_BYTES 32u
/* A result of up to 64 MiB, and the request. */
#define MAX_HIT_BYTES (80u << 20)
#define MAX_HIT_CHECKS (1u << 16)
#define MAX_HIT_PATH_BYTES (3u * 32767u)

enum hit_check_kind {
    HIT_FILE = 1,    /* the content has this size and digest */
    HIT_STATE = 2,   /* times in nanoseconds since 1970, size, volume and file number are these */
    HIT_KIND = 3,    /* nothing, a file or a directory is there */
    HIT_LISTING = 4, /* the directory has these entries in this order */
    HIT_LACKS = 5,   /* the directory exists, and none of its entries has one of these names */
    HIT_REAL = 6,    /* what is there has this path without links */
};
enum hit_entry_kind { HIT_NOTHING = 0, HIT_A_FILE = 1, HIT_A_DIRECTORY = 2 };
/* Of a name: what it must not be. */
#define HIT_NO_FILE 1u
#define HIT_NO_DIRECTORY 2u

struct hit_check {
    uint32_t kind, entry, names, text_bytes;
    const char *path;
    uint64_t values[5];
    const unsigned char *digest;
    const char *text;
};

struct hit_reader {
    const unsigned char *at, *end;
    bool is_bad;
};

struct kept_hit {
    uint64_t number;
    uint32_t code_page, console_page, language;
    uint32_t request_bytes, checks, object_bytes, depfile_bytes, out_bytes, err_bytes;
    const unsigned char *request, *object, *depfile, *out, *err;
    const char *path, *depfile_path; /* the latter is NULL without a depfile */
    struct hit_reader at_checks;
};

static inline const unsigned char *hit_take(struct hit_reader *r, uint64_t bytes) {
    if (r->is_bad || bytes > (uint64_t)(r->end - r->at)) {
        r->is_bad = true;
        return NULL;
    }
    const unsigned char *p = r->at;
    r->at += bytes;
    return p;
}

static inline uint64_t hit_number(struct hit_reader *r, unsigned bytes) {
    uint64_t value = 0;
    const unsigned char *p = hit_take(r, bytes);
    for (unsigned i = 0; p && i < bytes; i++) value |= (uint64_t)p[i] << (8 * i);
    return value;
}

static inline uint32_t hit_word(struct hit_reader *r) { return (uint32_t)hit_number(r, 4); }

/* A path of exactly this many bytes and a NUL that begins with a drive. */
static inline const char *hit_path(struct hit_reader *r, uint32_t bytes) {
    const unsigned char *p = bytes <= MAX_HIT_PATH_BYTES ? hit_take(r, (uint64_t)bytes + 1) : NULL;
    bool is_good = p && bytes >= 3 && !p[bytes] && !memchr(p, 0, bytes) && p[1] == ':' && (p[2] == '\\' || p[2] == '/') &&
                   (p[0] | 32) >= 'a' && (p[0] | 32) <= 'z';
    if (!is_good) r->is_bad = true;
    return is_good ? (const char *)p : NULL;
}

/* The names of a LACKS check: so many, each ends, and they are in order, so that they can be searched by halves. */
static inline bool hit_are_names(const char *text, uint32_t bytes, uint32_t names) {
    const char *end = text + bytes, *last = NULL;
    for (; names; names--) {
        if (end - text < 3 || !*text || (unsigned char)*text > (HIT_NO_FILE | HIT_NO_DIRECTORY)) return false;
        const char *key = text + 1, *stop = memchr(key, 0, (size_t)(end - key));
        if (!stop || stop == key || (last && strcmp(last, key) >= 0)) return false;
        for (const char *c = key; c < stop; c++)
            if ((unsigned char)*c > 0x7f || (*c >= 'A' && *c <= 'Z')) return false;
        last = key;
        text = stop + 1;
    }
    return text == end;
}

static inline bool hit_next_check(struct hit_reader *r, struct hit_check *check) {
    *check = (struct hit_check){.kind = hit_word(r)};
    check->path = hit_path(r, hit_word(r));
    switch (check->kind) {
    case HIT_FILE:
        check->values[0] = hit_number(r, 8);
        check->digest = hit_take(r, HIT_DIGEST_BYTES);
        break;
    case HIT_STATE:
        for (unsigned i = 0; i < 5; i++) check->values[i] = hit_number(r, 8);
        break;
    case HIT_KIND:
        check->entry = hit_word(r);
        if (check->entry > HIT_A_DIRECTORY) r->is_bad = true;
        break;
    case HIT_LISTING: check->digest = hit_take(r, HIT_DIGEST_BYTES); break;
    case HIT_REAL: check->text = hit_path(r, hit_word(r)); break;
    case HIT_LACKS:
        check->names = hit_word(r);
        check->text_bytes = hit_word(r);
        check->text = (const char *)hit_take(r, check->text_bytes);
        if (!check->text || !hit_are_names(check->text, check->text_bytes, check->names)) r->is_bad = true;
        break;
    default: r->is_bad = true;
    }
    return !r->is_bad;
}

/* Reads all but the file's own digest, which the launcher compares first: a crash of the system may leave
 * zeros in a file. False if anything in it is malformed; nothing was looked at then. */
static inline bool hit_parse(const unsigned char *data, uint64_t bytes, struct kept_hit *hit) {
    struct hit_reader r = {.at = data, .end = data + bytes};
    struct hit_check check;
    if (hit_word(&r) != HIT_MAGIC || hit_word(&r) != bytes || bytes > MAX_HIT_BYTES) return false;
    hit_take(&r, HIT_DIGEST_BYTES);
    hit->number = hit_number(&r, 8);
    hit->code_page = hit_word(&r);
    hit->console_page = hit_word(&r);
    hit->language = hit_word(&r);
    hit->request_bytes = hit_word(&r);
    hit->checks = hit_word(&r);
    uint32_t path_bytes = hit_word(&r), depfile_path_bytes = hit_word(&r);
    hit->object_bytes = hit_word(&r);
    hit->depfile_bytes = hit_word(&r);
    hit->out_bytes = hit_word(&r);
    hit->err_bytes = hit_word(&r);
    hit->request = hit_take(&r, hit->request_bytes);
    /* The first check is the source's: an object is not written over it. */
    if (r.is_bad || !hit->checks || hit->checks > MAX_HIT_CHECKS) return false;
    hit->at_checks = r;
    for (uint32_t i = 0; i < hit->checks; i++)
        if (!hit_next_check(&r, &check) || (!i && check.kind != HIT_FILE)) return false;
    hit->at_checks.end = r.at;
    hit->path = hit_path(&r, path_bytes);
    hit->depfile_path = depfile_path_bytes ? hit_path(&r, depfile_path_bytes) : NULL;
    if (!hit->depfile_path && hit->depfile_bytes) return false;
    hit->object = hit_take(&r, hit->object_bytes);
    hit->depfile = hit_take(&r, hit->depfile_bytes);
    hit->out = hit_take(&r, hit->out_bytes);
    hit->err = hit_take(&r, hit->err_bytes);
    return !r.is_bad && r.at == r.end;
}

/* The bits of the name with this key; 0 if it is not one of them. */
static inline unsigned hit_bits_of(const struct hit_check *check, const uint32_t *starts, const char *key) {
    uint32_t low = 0, high = check->names;
    while (low < high) {
        uint32_t middle = low + (high - low) / 2;
        int order = strcmp(check->text + starts[middle] + 1, key);
        if (!order) return (unsigned char)check->text[starts[middle]];
        if (order < 0) low = middle + 1;
        else high = middle;
    }
    return 0;
}

/* Write where each name starts; `starts` has room for all. */
static inline void hit_find_starts(const struct hit_check *check, uint32_t *starts) {
    const char *text = check->text;
    for (uint32_t i = 0; i < check->names; i++, text += strlen(text) + 1) starts[i] = (uint32_t)(text - check->text);
}

/* Write the wide key of a name of UTF-16 units and return true, or false if it does not fit: must agree with
 * `wide_key` in compilers/scan/windows_names.py. */
static inline bool hit_wide_key(const uint16_t *name, char *key, size_t room) {
    for (; *name; name++) {
        uint16_t c = *name;
        if (room < 2) return false;
        room--;
        if (c >= 'A' && c <= 'Z') c |= 0x20;
        else if (c == 0x131 || c == 0x130) c = 'i';
        else if (c == 0x17f) c = 's';
        else if (c == 0x212a) c = 'k';
        *key++ = c < 0x80 ? (char)c : '?';
    }
    *key = '\0';
    return true;
}

#endif
