"""Which entries the private store has, in the order of their use, and how much disk they take."""

from __future__ import annotations

import os
import stat
import threading
from collections import OrderedDict
from collections.abc import Iterable
from typing import Final, Protocol

KEY_BYTES: Final = 32


class StoredFile:
    """A file of the store: its size in bytes, and how many entries are still in it."""

    __slots__ = ("entries", "size")

    def __init__(self, size: int) -> None:
        self.size, self.entries = size, 0


class Beside(Protocol):
    """Other data that shares the store's limit, and goes before entries do."""

    @property
    def size_bytes(self) -> int: ...

    def give_way(self, size_bytes: int) -> None:
        """Free that many bytes if possible."""
        ...


class EntryIndex:
    """Entries by name (the key in hexadecimal), the least recently used first. Thread-safe.

    Several entries may be in one file, whose bytes count until its last entry goes.
    """

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._files: OrderedDict[str, StoredFile] = OrderedDict()
        self._touched: set[str] = set()
        self.size_bytes = 0

    def __len__(self) -> int:
        return len(self._files)

    def __contains__(self, name: str) -> bool:
        return name in self._files

    def names(self) -> list[str]:
        """Return all names, the least recently used first."""
        with self._lock:
            return list(self._files)

    def oldest(self) -> str | None:
        """Return the name that was not used for the longest time; None without an entry."""
        with self._lock:
            return next(iter(self._files), None)

    def add(self, name: str, file: StoredFile) -> None:
        """Note that an entry is in that file now, and used."""
        with self._lock:
            self._add(name, file)

    def remove(self, name: str) -> int:
        """Forget an entry, which may be absent; return how many bytes are free by that."""
        with self._lock:
            self._touched.discard(name)
            return self._drop(name)

    def read(self, name: str, size: int) -> None:
        """Note that an entry was read from a file of that size."""
        with self._lock:
            known = self._files.get(name)
            if known is None or known.size != size:
                self._add(name, StoredFile(size))  # another process of this user wrote it
            self._files.move_to_end(name)
            self._touched.add(name)

    def touch(self, name: str) -> None:
        """Note that an entry was used without a read."""
        with self._lock:
            if name in self._files:
                self._files.move_to_end(name)
                self._touched.add(name)

    def take_touched(self) -> set[str]:
        """Return the names that were used since the last call."""
        with self._lock:
            touched, self._touched = self._touched, set()
        return touched

    def replace(self, listings: Iterable[tuple[str, Iterable[os.DirEntry[str]]]]) -> None:
        """Take what the directories list instead; each comes with the start of its names."""
        found: list[tuple[int, str, StoredFile]] = []
        by_inode: dict[int, StoredFile] = {}
        for shard, listing in listings:
            found.extend(_entries(shard, listing, by_inode))
        with self._lock:
            self._files, self.size_bytes = OrderedDict(), 0
            for _, name, file in sorted(found, key=lambda entry: entry[:2]):
                self._add(name, file)

    def _add(self, name: str, file: StoredFile) -> None:
        self._drop(name)
        if not file.entries:
            self.size_bytes += file.size
        file.entries += 1
        self._files[name] = file

    def _drop(self, name: str) -> int:
        file = self._files.pop(name, None)
        if file is None:
            return 0
        file.entries -= 1
        if file.entries:
            return 0
        self.size_bytes -= file.size
        return file.size


def _entries(
    shard: str, listing: Iterable[os.DirEntry[str]], by_inode: dict[int, StoredFile]
) -> Iterable[tuple[int, str, StoredFile]]:
    for entry in listing:
        name = shard + entry.name
        try:
            status = entry.stat(follow_symlinks=False)
        except OSError:
            continue  # another process has deleted it
        if len(name) == 2 * KEY_BYTES and stat.S_ISREG(status.st_mode):
            file = StoredFile(status.st_size)
            if status.st_nlink > 1:
                file = by_inode.setdefault(status.st_ino, file)
            yield status.st_mtime_ns, name, file
