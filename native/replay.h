/* The daemon's hit path in two calls: accept a request; check files and put outputs in place.
 *
 * No state, no allocation, no thread: every function works only on its arguments and leaves nothing
 * open except what it returns. Called through ctypes, so without Python's lock. The Python version is
 * src/hpcc/cache/replay/python_engine.py; tests/contract/test_replay_contract.py holds both to the same answers. */
#ifndef HPCC_REPLAY_H
#define HPCC_REPLAY_H

#include <stdint.h>

/* Add one with any change to a plan's bytes or to a signature below; native.py refuses other versions. */
#define HPCC_NATIVE_VERSION 2

#define PLAN_MAGIC 0x32727068u /* "hpr2" */

/* What hpcc_replay did. */
enum {
    REPLAY_DONE = 0,      /* the outputs are in place and the answer is sent */
    REPLAY_CHANGED = 1,   /* a check failed; no output was touched */
    REPLAY_NOT_OURS = 2,  /* an output cannot be written; those already written were removed */
    REPLAY_MALFORMED = 3, /* the plan is malformed; no file was looked at */
    REPLAY_UNSENT = 4,    /* the outputs are in place, but the launcher did not take the answer */
};

/* The condition that a check sets on a name. */
enum {
    CHECK_STATE = 1,   /* stat gives this device, inode, size, mtime and ctime */
    CHECK_ABSENT = 2,  /* lstat gives ENOENT or ENOTDIR */
    CHECK_PRESENT = 3, /* stat finds something other than a directory */
    CHECK_PLACE = 4,   /* stat gives this device, inode, mode and owner: for a directory whose content may change */
    CHECK_LACKS = 5,   /* the directory is in this state, or lstat gives ENOENT or ENOTDIR for each of these names */
};

uint32_t hpcc_native_version(void);

/* Carries out a plan in order: all checks, all outputs, the answer to `connection` (none if -1).
 *
 * A plan is little-endian and without padding:
 *   u32 magic, u32 bytes (all of it), u32 groups, u32 outputs, u32 mode of new files, u32 answer bytes,
 *   u64 device and u64 inode of the source, which must not be an output;
 *   per group:  u32 directory bytes, u32 checks, directory and NUL ("" means: names are absolute);
 *     per check: u32 kind, u32 name bytes, then 5 u64 for STATE, 4 for PLACE, 5 for LACKS and names, then name
 *                and NUL ("" means: the directory itself);
 *       names:   u32 flags (1: the state counts), u32 names, u32 slots, u32 text bytes; per slot u32:
 *                0, or the offset of a name in the text plus one; text: each name and NUL. A name has ASCII
 *                characters only, and is in the first free slot at or after its hash's slot (see names.h);
 *   per output: u32 flags (1: keeps the mode it has), u32 path bytes, u64 data bytes, path and NUL, data;
 *   the answer. */
int hpcc_replay(const unsigned char *plan, uint64_t bytes, int connection);

/* Waits for a connection, and briefly for its request. Returns the connection, or -errno of accept;
 * -EPERM for a peer of another user (closed). `*got` says how many bytes of the request are in `buffer`
 * so far, 0 when none came yet or the peer is gone. */
int hpcc_accept(int listener, uint32_t uid, unsigned char *buffer, uint32_t size, uint32_t *got);

#endif
