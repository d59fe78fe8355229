"""Packs on this machine: chunks by digest, and for each checkout the indexes that it pulled.

Problem: a pull may be killed at any point, a daemon and a command may work at the same time, and
packs share the disk with results that cost compile time.

Rule: a file is whole or absent. A chunk is unpacked, compared and written aside before it gets its
name, and an index is written after its chunks. What a killed pull leaves is used by the next one.
One pull at a time holds the lock. All packs use at most a quarter of the cache's size. The oldest
goes first, before any result does, unless a build has used it in the last minutes.

What must never happen: a checkout finds a record of a pack that was pulled for another checkout.
The keys that count there may be others.
"""

from __future__ import annotations

import hashlib
import os
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Final, NamedTuple

from hpcc.cache.base.fields import encode_fields
from hpcc.cache.packs.index import (
    MAX_INDEX_OBJECT_BYTES,
    Chunk,
    PackError,
    PackIndex,
    stored_index,
)
from hpcc.core import InfrastructureError
from hpcc.files.tried_lock import tried_lock
from hpcc.files.whole import Sync, whole_file

_CHUNKS: Final = "chunks"
_ROOTS: Final = "roots"
_SUFFIX: Final = ".pack"
_ASKED: Final = "asked"
_LOCK: Final = "lock"
# A fourth part of the cache's size.
_SHARE: Final = 4
# A branch, the one before it, and the main branch.
_PACKS_OF_A_ROOT: Final = 3
_MAX_ROOTS: Final = 1024
_MAX_ASKED: Final = 256
# A build that uses a pack makes results all the time, which must not evict what it reads next.
_IN_USE_SECONDS: Final = 600.0
_TOUCH_SECONDS: Final = 60.0


class RecordPlace(NamedTuple):
    """Where a record is: the chunk's name, and offset and size in bytes."""

    chunk: str
    offset: int
    size: int


@dataclass(frozen=True, slots=True)
class StoredPack:
    """A pack that a checkout pulled."""

    path: Path
    index: PackIndex
    used_at: float


@dataclass(frozen=True, slots=True)
class _Root:
    """What is in memory for one checkout, and the state of its directory when it was read."""

    signature: tuple[int, int]
    packs: tuple[tuple[Path, dict[bytes, RecordPlace]], ...]


def root_id(root: bytes, place: str) -> str:
    """Return the name of a checkout's directory; another place has other packs."""
    return hashlib.sha256(encode_fields([root, place.encode()])).hexdigest()[:32]


class LocalPacks:
    """The packs below one directory. Thread-safe; several processes may use it."""

    def __init__(self, directory: Path, *, max_cache_bytes: int, now: Callable[[], float]) -> None:
        self._directory, self._now = directory, now
        self._chunks, self._roots = directory / _CHUNKS, directory / _ROOTS
        self.max_bytes: Final = max_cache_bytes // _SHARE
        self._lock = threading.Lock()
        self._known: dict[str, _Root] = {}
        self._touched: dict[Path, float] = {}
        self.size_bytes: int = self._measured()

    def find(self, root: str, row_name: bytes) -> bytes | None:
        """Return a record's bytes from the packs of one checkout, unchecked; None if absent."""
        for path, rows in self._loaded(root).packs:
            place = rows.get(row_name)
            data = None if place is None else self._read(place)
            if data is not None:
                self._touch(path)
                return data
        return None

    def _read(self, place: RecordPlace) -> bytes | None:
        try:
            fd = os.open(self._chunks / place.chunk, os.O_RDONLY | os.O_CLOEXEC | os.O_NOFOLLOW)
        except OSError:
            return None
        try:
            data = os.pread(fd, place.size, place.offset)
        except OSError:
            return None
        finally:
            os.close(fd)
        return data if len(data) == place.size else None

    def _touch(self, path: Path) -> None:
        now = self._now()
        if now - self._touched.get(path, 0.0) < _TOUCH_SECONDS:
            return
        self._touched[path] = now
        with suppress(OSError):
            os.utime(path, (now, now))

    def _loaded(self, root: str) -> _Root:
        signature = self._signature(root)
        known = self._known.get(root)
        if known is not None and known.signature == signature:
            return known
        with self._lock:
            packs = tuple((p.path, _places(p.index)) for p in self.packs(root))
            if len(self._known) >= _MAX_ROOTS:
                self._known.clear()
            self._known[root] = _Root(signature, packs)
            self.size_bytes = self._measured()
            return self._known[root]

    def _signature(self, root: str) -> tuple[int, int]:
        try:
            status = (self._roots / root).stat()
        except OSError:
            return 0, 0
        return status.st_ino, status.st_mtime_ns

    def packs(self, root: str) -> list[StoredPack]:
        """Return the packs of a checkout, the one that was used last first."""
        found = []
        for path in _files(self._roots / root):
            if path.suffix != _SUFFIX:
                continue
            try:
                with path.open("rb") as file:
                    data = file.read(MAX_INDEX_OBJECT_BYTES + 1)
                found.append(StoredPack(path, stored_index(data), path.stat().st_mtime))
            except (OSError, PackError):
                continue
        return sorted(found, key=lambda pack: pack.used_at, reverse=True)

    def has_chunk(self, chunk: Chunk) -> bool:
        """Tell whether a chunk is here whole."""
        try:
            return (self._chunks / chunk.digest.hex()).stat().st_size == chunk.raw_bytes
        except OSError:
            return False

    @contextmanager
    def pulling(self) -> Iterator[None]:
        """Hold the right to add packs.

        Raises:
            InfrastructureError: another process holds it (`pack-busy`), or the disk fails.
        """
        self._directory.mkdir(mode=0o700, parents=True, exist_ok=True)
        with tried_lock(self._directory / _LOCK) as is_held:
            if not is_held:
                raise InfrastructureError("another pull is running", reason="pack-busy")
            yield

    def put_chunk(self, chunk: Chunk, raw: bytes) -> None:
        """Store the records of a chunk, which were compared with it.

        Raises:
            OSError: the disk fails; nothing is stored.
        """
        path = self._chunks / chunk.digest.hex()
        # A file of the right size counts as whole, also after a power failure.
        with whole_file(path, sync=Sync.CONTENT, makes_parent=True) as file:
            file.write(raw)
        self.size_bytes += len(raw)

    def put_pack(self, root: str, index: PackIndex, data: bytes) -> None:
        """Make a pack usable by a checkout: its object, after its chunks were stored.

        Raises:
            OSError: the disk fails; the pack is not usable.
        """
        directory = self._roots / root
        directory.mkdir(mode=0o700, parents=True, exist_ok=True)
        path = directory / f"{index.commit}{_SUFFIX}"
        with whole_file(path, sync=Sync.NONE) as file:
            file.write(data)
        for old in self.packs(root)[_PACKS_OF_A_ROOT:]:
            old.path.unlink(missing_ok=True)
        self._sweep(frozenset())

    def make_room(self, index: PackIndex) -> int:
        """Delete older packs until this one fits; return the bytes that it still needs."""
        keep = frozenset(chunk.digest.hex() for chunk in index.chunks)
        need = sum(c.raw_bytes for c in index.chunks if not self.has_chunk(c))
        self._sweep(keep)
        for pack in reversed(self._all()):
            if self.size_bytes + need <= self.max_bytes:
                break
            pack.path.unlink(missing_ok=True)
            self._sweep(keep)
        return need

    def give_way(self, size_bytes: int) -> None:
        """Free that many bytes by deleting packs, the oldest first, except those in use.

        Does nothing while a pull runs.
        """
        goal = max(0, self._measured() - size_bytes)
        with suppress(InfrastructureError, OSError), self.pulling():
            self._sweep(frozenset())
            for pack in reversed(self._all()):
                is_used = self._now() - pack.used_at < _IN_USE_SECONDS
                if self.size_bytes <= goal or is_used:
                    break
                pack.path.unlink(missing_ok=True)
                self._sweep(frozenset())

    def clear(self) -> int:
        """Delete all packs; return the bytes that this freed."""
        freed = self._measured()
        for root in _files(self._roots):
            for path in _files(root):
                path.unlink(missing_ok=True)
        self._sweep(frozenset())
        return freed - self.size_bytes

    def was_asked(self, root: str, commit: str) -> bool:
        """Note that a pack is asked for without a command; return whether that was so before."""
        path = self._roots / root / _ASKED
        try:
            lines = path.read_text("ascii").split()[-_MAX_ASKED:]
        except (OSError, ValueError):
            lines = []
        if commit in lines:
            return True
        with suppress(OSError):
            path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
            with whole_file(path, sync=Sync.NONE) as file:
                file.write("\n".join([*lines, commit]).encode())
        return False

    def _all(self) -> list[StoredPack]:
        """Return the packs of all checkouts, the one that was used last first."""
        try:
            roots = [entry.name for entry in os.scandir(self._roots)]
        except OSError:
            return []
        found = [pack for root in roots[:_MAX_ROOTS] for pack in self.packs(root)]
        return sorted(found, key=lambda pack: pack.used_at, reverse=True)

    def _sweep(self, keep: frozenset[str]) -> None:
        """Delete chunks that no pack names, and what killed processes left. Needs the lock."""
        named = {c.digest.hex() for pack in self._all() for c in pack.index.chunks} | keep
        for path in _files(self._chunks):
            if path.name not in named:
                path.unlink(missing_ok=True)
        self.size_bytes = self._measured()

    def _measured(self) -> int:
        total = 0
        for path in _files(self._chunks):
            with suppress(OSError):
                total += path.stat().st_size
        return total


def _places(index: PackIndex) -> dict[bytes, RecordPlace]:
    found: dict[bytes, RecordPlace] = {}
    for chunk in index.chunks:
        offset, name = 0, chunk.digest.hex()
        for row in chunk.rows:
            # The first one of a name, as the writer lists its own results first.
            found.setdefault(row.name, RecordPlace(name, offset, row.size))
            offset += row.size
    return found


def _files(directory: Path) -> list[Path]:
    try:
        with os.scandir(directory) as entries:
            return [Path(entry.path) for entry in entries]
    except OSError:
        return []
