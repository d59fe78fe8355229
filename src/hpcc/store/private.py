"""The private store of one user on disk: keyed entries, bounded in size, checked when read.

Problem: daemons and commands of one user share the directory, each may be killed during a write,
and the machine may lose power. No reader may ever get bytes that nobody stored under its key.

Rule: an entry is whole or absent.

- `put` writes a temporary file beside the entries (`.tmp-PID-N`, created with `O_EXCL`) and
  renames it to the entry's name. A rename is atomic, so no reader sees a part of an entry.
- There is no fsync: it would slow down every miss. After a power cut an entry may be empty or
  torn. Its header holds the SHA-256 of key and payload. `get` checks it, deletes an entry that
  does not match, counts `store.corrupt` and returns None. The key is in the hash, so a whole file
  under another entry's name also counts as damaged.
- `put` deletes an older entry before the rename. A reader in between sees a miss.
- `put_all` writes small entries to one file, which gets a name for each. Making a file costs ext4
  0.15 to 0.6 ms of CPU, a second name 0.02 ms. The file's bytes count until its last name goes.

Example: process 4711 is killed halfway through a write. `.tmp-4711-3` stays behind, the entry's
name does not exist, and the next lookup is a miss. The next scan deletes the file, because no
process 4711 exists. It leaves the temporary file of a live process alone, which may still be
renamed.

Size is bounded by evicting the least recently used entries. A process that cleans the store
changes `epoch`; a running daemon compares it and calls `rescan`.

What must never happen: `get` returns bytes whose hash it did not check, or a fault of the disk
raises into a compile. A fault is counted and becomes a miss, or an entry that was not stored.
"""

from __future__ import annotations

import itertools
import os
from collections.abc import Callable, Sequence
from typing import Final

from hpcc.store.file_ops import FileOps, system_file_ops
from hpcc.store.private_index import Beside, EntryIndex, StoredFile
from hpcc.store.private_records import HEADER_BYTES, MAX_RECORDS, payload_in, record_of

# A reader of one entry reads all that share its file.
_MAX_TOGETHER_BYTES: Final = 256 << 10
_TEMPORARY: Final = ".tmp-"
EPOCH_NAME: Final = "epoch"
# Of its directory in the cache.
STORE_NAME: Final = "private"
# A full store is trimmed to this share of its limit, so that not every put deletes.
_TRIM_TO: Final = 0.9


class PrivateStore:
    """Entries by 32-byte key. Thread-safe. No call raises for a fault of the disk.

    `count` gets the stable name of each fault and eviction: `store.corrupt`, `store.read-error`,
    `store.write-error`, `store.disk-full`, `store.too-large`, `store.evicted`.
    """

    def __init__(
        self,
        directory: str,
        *,
        max_size_bytes: int,
        max_entry_bytes: int,
        now: Callable[[], float],
        count: Callable[[str], None] = lambda _name: None,
        ops: FileOps | None = None,
    ) -> None:
        self._directory = directory
        self._max_size_bytes = max_size_bytes
        self._max_entry_bytes = max_entry_bytes
        self._now = now
        self._count = count
        self._ops: FileOps = ops or system_file_ops()
        self._index = EntryIndex()
        self._names = itertools.count()
        self._beside: Beside | None = None
        self._scan()

    def share_limit_with(self, beside: Beside) -> None:
        """Count other data against the limit too; to make room, it goes first."""
        self._beside = beside

    @property
    def size_bytes(self) -> int:
        return self._index.size_bytes

    @property
    def entries(self) -> int:
        return len(self._index)

    def get(self, key: bytes) -> bytes | None:
        """Return the payload with its hash checked; None if absent, damaged or unreadable."""
        name = key.hex()
        path = self._path(name)
        try:
            data = self._read(path)
        except FileNotFoundError:
            self._index.remove(name)
            return None
        except OSError:
            self._count("store.read-error")
            return None
        payload = payload_in(key, data)
        if payload is None:
            self._count("store.corrupt")
            self.remove(key)
            return None
        self._index.read(name, len(data))
        return payload

    def put(self, key: bytes, payload: bytes) -> bool:
        """Store the entry, replacing an older one; return False if it could not be stored."""
        return self.put_all(((key, payload),)) == 1

    def put_all(self, entries: Sequence[tuple[bytes, bytes]]) -> int:
        """Store entries in their order, replacing older ones, until one could not be stored.

        Returns how many were stored.
        """
        records = [(key.hex(), record_of(key, payload)) for key, payload in entries]
        most = min(self._max_entry_bytes, self._max_size_bytes)
        size = sum(len(record) for _, record in records)
        if len(records) <= MAX_RECORDS and size <= min(most, _MAX_TOGETHER_BYTES):
            return self._put_together(records)
        for number, record in enumerate(records):
            if len(record[1]) > most:
                self._count("store.too-large")
                return number
            if not self._put_together([record]):
                return number
        return len(records)

    def _put_together(self, records: Sequence[tuple[str, bytes]]) -> int:
        """Store entries in one file where the file system has second names; see `put_all`."""
        name = records[0][0]
        file = self._write_entry(name, b"".join([record for _, record in records]))
        if file is None:
            return 0
        for number, (other, record) in enumerate(records[1:], 1):
            self._remove_older(other)
            try:
                self._link(self._path(name), self._path(other))
            except OSError:
                # No second names here, or the file was evicted meanwhile.
                if self._write_entry(other, record) is None:
                    return number
            else:
                self._index.add(other, file)
        return len(records)

    def _write_entry(self, name: str, data: bytes) -> StoredFile | None:
        """Write a file under one name; None if that failed, which is counted."""
        self._make_room(len(data))
        self._remove_older(name)
        try:
            self._write(self._path(name), data)
        except OSError as error:
            self._count("store.disk-full" if _is_full(error) else "store.write-error")
            return None
        file = StoredFile(len(data))
        self._index.add(name, file)
        return file

    def _remove_older(self, name: str) -> None:
        if name in self._index:
            # A rename over an existing file makes ext4 write the new data at once, which costs more
            # than the rest of a put. A reader in between gets a miss.
            self._delete(name)

    def touch(self, key: bytes) -> None:
        """Record a use that did not read the file."""
        self._index.touch(key.hex())

    def has(self, key: bytes) -> bool:
        """Return whether the index has the entry; reads no file."""
        return key.hex() in self._index

    def remove(self, key: bytes) -> None:
        """Delete an entry, which may be absent."""
        self._delete(key.hex())

    def trim(self, max_size_bytes: int) -> int:
        """Delete least recently used entries down to `max_size_bytes`; return the bytes freed."""
        freed = 0
        while self._index.size_bytes > max_size_bytes:
            name = self._index.oldest()
            if name is None:
                break
            freed += self._delete(name)
            self._count("store.evicted")
        return freed

    def trim_unused(self, since: float) -> int:
        """Delete entries last used before `since` (seconds since 1970); return the bytes freed."""
        freed = 0
        for name in self._index.names():
            try:
                used_at = os.stat(self._path(name)).st_mtime  # noqa: PTH116 - the hit path works on plain strings
            except OSError:
                continue
            if used_at < since:
                freed += self._delete(name)
                self._count("store.evicted")
        return freed

    def flush(self) -> None:
        """Write the order of use to disk (as file times), for the next start."""
        at = self._now()
        for name in self._index.take_touched():
            try:
                self._ops.utime(self._path(name), at)
            except OSError:
                continue

    def bump_epoch(self) -> None:
        """Change `epoch`, so that a running daemon notices that entries were deleted."""
        try:
            self._write(os.path.join(self._directory, EPOCH_NAME), str(self._now()).encode())  # noqa: PTH118 - as above
        except OSError:
            self._count("store.write-error")

    def epoch(self) -> tuple[int, int]:
        """Return a value that changes when another process cleans the store."""
        try:
            status = os.stat(f"{self._directory}/{EPOCH_NAME}")  # noqa: PTH116 - as above
        except OSError:
            return (0, 0)
        return (status.st_ino, status.st_mtime_ns)

    def epoch_state(self) -> tuple[bytes, tuple[int, int, int, int, int] | None]:
        """Return the path of the epoch file, and its device, inode, size, mtime and ctime.

        Times are in nanoseconds. The stat is None if the file is absent.
        """
        path = os.fsencode(f"{self._directory}/{EPOCH_NAME}")
        try:
            status = os.stat(path)  # noqa: PTH116 - as above
        except OSError:
            return path, None
        return path, (
            status.st_dev,
            status.st_ino,
            status.st_size,
            status.st_mtime_ns,
            status.st_ctime_ns,
        )

    def rescan(self) -> None:
        """Read the directory again, after another process cleaned it."""
        self._scan()

    def _path(self, name: str) -> str:
        return f"{self._directory}/{name[:2]}/{name[2:]}"

    def _read(self, path: str) -> bytes:
        fd = self._ops.open(path, os.O_RDONLY)
        try:
            size = os.fstat(fd).st_size
            limit = self._max_entry_bytes + HEADER_BYTES
            if size > limit:
                return b""
            data = self._ops.read(fd, size + 1)
            while 0 < len(data) <= size:
                more = self._ops.read(fd, size + 1 - len(data))
                if not more:
                    break
                data += more
            return data
        finally:
            os.close(fd)

    def _write(self, path: str, data: bytes) -> None:
        aside = f"{self._directory}/{_TEMPORARY}{os.getpid()}-{next(self._names)}"
        flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL
        try:
            fd = self._ops.open(aside, flags)
        except FileNotFoundError:
            self._ops.mkdir(self._directory)
            fd = self._ops.open(aside, flags)
        try:
            try:
                view = memoryview(data)
                while view:
                    view = view[self._ops.write(fd, view) :]
            finally:
                os.close(fd)
            try:
                self._ops.rename(aside, path)
            except FileNotFoundError:
                self._ops.mkdir(path.rpartition("/")[0])
                self._ops.rename(aside, path)
        except OSError:
            self._unlink_quietly(aside)
            raise

    def _link(self, path: str, name: str) -> None:
        """Give a file a second name, which another process may have given to another file."""
        try:
            self._ops.link(path, name)
        except FileNotFoundError:
            self._ops.mkdir(name.rpartition("/")[0])
            self._ops.link(path, name)
        except FileExistsError:
            self._ops.unlink(name)
            self._ops.link(path, name)

    def _unlink_quietly(self, path: str) -> None:
        try:
            self._ops.unlink(path)
        except OSError:
            return

    def _delete(self, name: str) -> int:
        self._unlink_quietly(self._path(name))
        return self._index.remove(name)

    def _make_room(self, size: int) -> None:
        limit, beside = self._max_size_bytes, self._beside
        if beside is not None and (other := beside.size_bytes):
            over = self._index.size_bytes + size + other - limit
            if over > 0:
                beside.give_way(over)
            limit -= beside.size_bytes
        if self._index.size_bytes + size > limit:
            self.trim(max(0, int(limit * _TRIM_TO) - size))

    def _scan(self) -> None:
        """Rebuild the index, oldest use first; delete temporary files of dead processes."""
        shards = []
        for shard in self._list(self._directory):
            if len(shard.name) == 2 and shard.is_dir(follow_symlinks=False):  # noqa: PLR2004 - two hex digits
                shards.append(shard)
            elif shard.name.startswith(_TEMPORARY):
                self._remove_if_left_over(shard)
        self._index.replace((shard.name, self._list(shard.path)) for shard in shards)

    def _list(self, directory: str) -> list[os.DirEntry[str]]:
        try:
            with os.scandir(directory) as entries:
                return list(entries)
        except FileNotFoundError:
            return []
        except OSError:
            self._count("store.read-error")
            return []

    def _remove_if_left_over(self, entry: os.DirEntry[str]) -> None:
        """Delete a dead process's temporary file; a live process may still rename its own."""
        pid = entry.name.removeprefix(_TEMPORARY).partition("-")[0]
        if not pid.isdecimal() or not os.path.exists(f"/proc/{pid}"):  # noqa: PTH110 - as above
            self._unlink_quietly(entry.path)


def _is_full(error: OSError) -> bool:
    import errno

    return error.errno in {errno.ENOSPC, errno.EDQUOT}
