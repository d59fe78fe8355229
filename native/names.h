/* Checks that a directory has none of many names: reads it once instead of one lstat per name.
 *
 * Reading can only prove that a name is absent. If an entry may be one of the names, that name is
 * checked with lstat; if reading proves nothing, all names are. Included only by replay.c. */
#ifndef HPCC_NAMES_H
#define HPCC_NAMES_H

#include <errno.h>
#include <fcntl.h>
#include <stdbool.h>
#include <stdint.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/vfs.h>
#include <unistd.h>

/* A name is hashed as little-endian numbers, with this bit set in each byte so that case does not count. */
#define SMALL_BITS 0x20202020u
#define HIGH_BITS 0x80808080u
#define HASH_PRIME 0xfffffffbu
#define HASH_SPREAD 0x9e3779b1u
/* For this few names, reading the directory costs more than one lstat per name. */
#define FEW_NAMES 8u
/* Reading an entry costs a third of an lstat (ext4), or a tenth (tmpfs). */
#define ENTRIES_PER_NAME 3u
#define MORE_ENTRIES 256u
#define ENTRIES_BYTES (32u << 10)
/* getdents64(2): inode and offset, the record's length, a type, the name. */
#define RECORD_LENGTH_AT 16u
#define RECORD_NAME_AT 19u

/* The names of a LACKS check: a hash table of offsets in a text. */
struct names {
    bool is_state_known;
    uint32_t count, slots, text_bytes;
    const unsigned char *table;
    const char *text;
};

static bool is_missing(int error) { return error == ENOENT || error == ENOTDIR; }

static bool is_absent(int directory, const char *name) {
    struct stat st;
    return *name && fstatat(directory, name, &st, AT_SYMLINK_NOFOLLOW) && is_missing(errno);
}

static bool are_absent(int directory, const struct names *names) {
    const char *end = names->text + names->text_bytes;
    for (const char *name = names->text; name < end; name += strlen(name) + 1)
        if (!is_absent(directory, name)) return false;
    return true;
}

/* True on file systems that list every name that lookup finds, except for case and Unicode equivalence. */
static bool can_be_read(int directory) {
    struct statfs fs;
    if (fstatfs(directory, &fs)) return false;
    switch ((uint32_t)fs.f_type) {
    case 0xef53:     /* ext2, ext3, ext4 */
    case 0x58465342: /* xfs */
    case 0x9123683e: /* btrfs */
    case 0xf2f52010: /* f2fs */
    case 0x01021994: /* tmpfs */
    case 0x794c7630: /* overlayfs */
        return true;
    default: /* a network or FUSE file system may find names that it does not list */
        return false;
    }
}

enum answer { NO, YES, CANNOT_TELL };

static unsigned char small(char c) { return (unsigned char)(c >= 'A' && c <= 'Z' ? c | 0x20 : c); }

static bool is_alike(const char *a, const char *b) {
    while (*a && small(*a) == small(*b)) a++, b++;
    return !*a && !*b;
}

/* Returns up to four bytes as a number; missing bytes count as small bits. */
static uint32_t word_of(const char *bytes, size_t count) {
    uint32_t word = 0;
    memcpy(&word, bytes, count);
    return word | SMALL_BITS;
}

/* Whether this entry may be one of the names; a similar name is then checked with lstat. */
static enum answer is_hit(int directory, const struct names *names, const char *entry) {
    size_t length = strlen(entry), rest = length % sizeof(uint32_t);
    uint32_t word = word_of(entry + length - rest, rest), high = word;
    uint64_t hash = word % HASH_PRIME;
    for (size_t at = length - rest; at; at -= sizeof word) {
        word = word_of(entry + at - sizeof word, sizeof word);
        high |= word;
        hash = (hash << 32 | word) % HASH_PRIME;
    }
    if (high & HIGH_BITS) return CANNOT_TELL;
    uint32_t slot = (uint32_t)((uint64_t)((uint32_t)hash * HASH_SPREAD) * names->slots >> 32);
    for (uint32_t i = 0; i < names->slots; i++, slot = slot + 1 < names->slots ? slot + 1 : 0) {
        uint32_t at;
        memcpy(&at, names->table + (size_t)slot * sizeof at, sizeof at);
        if (!at) return NO;
        if (at > names->text_bytes) return CANNOT_TELL;
        const char *name = names->text + at - 1;
        if (is_alike(name, entry) && !is_absent(directory, name)) return YES;
    }
    return NO;
}

/* Reads a directory. An entry that exists the whole time is read, even if others come and go meanwhile. */
static enum answer has_one(int directory, const struct names *names) {
    _Alignas(8) char entries[ENTRIES_BYTES];
    uint64_t left = (uint64_t)names->count * ENTRIES_PER_NAME + MORE_ENTRIES;
    for (;;) {
        long n = syscall(SYS_getdents64, directory, entries, sizeof entries);
        if (n <= 0) return n ? CANNOT_TELL : NO;
        uint16_t length;
        for (long at = 0; at < n; at += length) {
            if (n - at <= (long)RECORD_NAME_AT || !left--) return CANNOT_TELL;
            memcpy(&length, entries + at + RECORD_LENGTH_AT, sizeof length);
            if (length <= RECORD_NAME_AT || length > n - at) return CANNOT_TELL;
            const char *entry = entries + at + RECORD_NAME_AT;
            if (!memchr(entry, 0, length - RECORD_NAME_AT)) return CANNOT_TELL;
            enum answer answer = is_hit(directory, names, entry);
            if (answer != NO) return answer;
        }
    }
}

/* `directory` may be searchable but not readable. */
static bool has_none(int directory, const struct names *names) {
    enum answer answer = CANNOT_TELL;
    if (names->count > FEW_NAMES && can_be_read(directory)) answer = has_one(directory, names);
    return answer == CANNOT_TELL ? are_absent(directory, names) : answer == NO;
}

#endif
