"""Reads objects of a repository: loose ones, and those in packs of version 2, also as deltas.

An object's bytes are not compared with its name here. Of commits nobody does: a clone that lies
about a commit's parents only chooses which signed pack is asked for. `commit_files` does.
"""

from __future__ import annotations

import os
import struct
import zlib
from collections.abc import Iterator
from contextlib import ExitStack
from itertools import islice, pairwise
from typing import Final, NamedTuple, Self

from hpcc.cache.git.delta import MAX_OBJECT_BYTES, apply_delta, size_at
from hpcc.cache.git.reading import (
    OBJECT_ID,
    GitError,
    TooLargeError,
    open_file,
    read_at,
    read_file,
)
from hpcc.cache.git.refs import Repository

_MAX_PACKS: Final = 256
_MAX_NAMES: Final = 4096
_MAX_ALTERNATES: Final = 8
_MAX_ALTERNATES_BYTES: Final = 16 << 10
_MAX_PARENTS: Final = 64
_PIECE: Final = 16 << 10
_INDEX_HEAD: Final = b"\xfftOc\0\0\0\x02"
_FANOUT: Final = 256
_FAR: Final = 0x80000000
COMMIT, TREE, BLOB, TAG = 1, 2, 3, 4
_OFFSET_DELTA, _REFERENCE_DELTA = 6, 7
_KINDS: Final = {b"commit": COMMIT, b"tree": TREE, b"blob": BLOB, b"tag": TAG}


class ObjectLimits(NamedTuple):
    """Bounds of an object: its bytes, all that is inflated to read it, and its chain of deltas."""

    object_bytes: int = MAX_OBJECT_BYTES
    inflated_bytes: int = 4 << 20
    # As the default of `git repack --depth`.
    depth: int = 50


class _Pack(NamedTuple):
    """An index and its pack, both open. `fanout` counts the names up to each first byte."""

    index_fd: int
    pack_fd: int
    fanout: tuple[int, ...]


class GitObjects:
    """The objects of one repository. Used as a context manager; reads files only."""

    def __init__(self, repository: Repository, limits: ObjectLimits | None = None) -> None:
        self._stores = list(_stores(repository.common + b"/objects"))
        self._packs: list[_Pack] | None = None
        self._stack = ExitStack()
        self._limits = limits or ObjectLimits()
        self._budget = 0

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._stack.close()

    @property
    def inflated_bytes(self) -> int:
        """Return how much was inflated to read the last object, of a pack."""
        return self._limits.inflated_bytes - self._budget

    def read_or_none(self, name: bytes) -> tuple[int, bytes] | None:
        """Return kind and content of an object, named in hexadecimal; None if it is not here.

        Raises:
            GitError: it is damaged, or over a limit.
        """
        self._budget = self._limits.inflated_bytes
        for store in self._stores:
            path = store + b"/%b/%b" % (name[:2], name[2:])
            try:
                return self._loose(read_file(path, self._limits.object_bytes))
            except FileNotFoundError:
                continue
        return self._packed(bytes.fromhex(name.decode()), self._limits.depth)

    def _loose(self, data: bytes) -> tuple[int, bytes]:
        most = self._limits.object_bytes
        try:
            text = zlib.decompressobj().decompress(data, most)
        except zlib.error as error:
            raise GitError("a loose object is damaged") from error
        head, _, body = text.partition(b"\0")
        kind = _KINDS.get(head.partition(b" ")[0])
        if kind is None:
            raise GitError("a loose object is of no known kind")
        return kind, body

    def _packed(self, name: bytes, depth: int) -> tuple[int, bytes] | None:
        """Return kind and content of an object in a pack; None if no pack has it."""
        if self._packs is None:
            self._packs = [pack for store in self._stores for pack in self._open_packs(store)]
        for pack in self._packs:
            offset = _find(pack, name)
            if offset is not None:
                return self._object(pack, offset, len(name), depth)
        return None

    def _open_packs(self, store: bytes) -> Iterator[_Pack]:
        try:
            with os.scandir(store + b"/pack") as entries:
                names = [e.name for e in islice(entries, _MAX_NAMES) if e.name.endswith(b".idx")]
        except OSError:
            return
        for name in sorted(names)[:_MAX_PACKS]:
            base = store + b"/pack/" + name.removesuffix(b".idx")
            try:
                yield self._open_pack(base)
            except (FileNotFoundError, GitError):
                continue  # another one may have the commit

    def _open_pack(self, base: bytes) -> _Pack:
        fds = []
        for suffix in (b".idx", b".pack"):
            fds.append(open_file(base + suffix))
            self._stack.callback(os.close, fds[-1])
        head = read_at(fds[0], len(_INDEX_HEAD) + 4 * _FANOUT, 0)
        if len(head) != len(_INDEX_HEAD) + 4 * _FANOUT or not head.startswith(_INDEX_HEAD):
            raise GitError("an index of a pack is of another version")
        fanout = struct.unpack_from(f">{_FANOUT}I", head, len(_INDEX_HEAD))
        if any(a > b for a, b in pairwise(fanout)):
            raise GitError("an index of a pack is damaged")
        return _Pack(fds[0], fds[1], fanout)

    def _object(self, pack: _Pack, offset: int, name_bytes: int, depth: int) -> tuple[int, bytes]:
        if not depth:
            raise GitError("a chain of deltas is too long")
        head = read_at(pack.pack_fd, 64, offset)
        if not head:
            raise GitError("an object is beyond the end of its pack")
        kind, (size, at) = head[0] >> 4 & 7, (head[0] & 15, 1)
        if head[0] & 0x80:
            more, at = size_at(head, 1)
            size |= more << 4
        if kind == _OFFSET_DELTA:
            back, at = _distance(head, at)
            if not 0 < back < offset:
                raise GitError("a delta has its base elsewhere")
            found: tuple[int, bytes] | None = self._object(
                pack, offset - back, name_bytes, depth - 1
            )
        elif kind == _REFERENCE_DELTA:
            name, at = head[at : at + name_bytes], at + name_bytes
            if len(name) != name_bytes:
                raise GitError("an object is beyond the end of its pack")
            found = self._packed(name, depth - 1)
        else:
            return kind, self._inflate(pack.pack_fd, offset + at, size)
        if found is None:
            raise GitError("a delta's base is not here")
        delta = self._inflate(pack.pack_fd, offset + at, size)
        return found[0], apply_delta(found[1], delta, self._limits.object_bytes)

    def _inflate(self, fd: int, at: int, size: int) -> bytes:
        self._budget -= size
        if size > self._limits.object_bytes or self._budget < 0:
            raise TooLargeError("an object is too large")
        reader, made = zlib.decompressobj(), bytearray()
        # Empty blocks make nothing, so a pack could be read to its end for each object.
        last = at + size + size // 100 + 4 * _PIECE
        try:
            while len(made) < size and not reader.eof and at < last:
                piece = read_at(fd, _PIECE, at)
                if not piece:
                    break
                at += len(piece)
                # 0 would mean without a limit, and the loop asks for one byte at least.
                made += reader.decompress(piece, size - len(made))
        except zlib.error as error:
            raise GitError("an object in a pack is damaged") from error
        if len(made) != size:
            raise GitError("an object in a pack is damaged")
        return bytes(made)


class Commits(GitObjects):
    """The commits of one repository. Used as a context manager; reads files only."""

    def parents(self, commit: bytes) -> tuple[bytes, ...]:
        """Return the parents of a commit, all in hexadecimal; () if the commit is not here.

        Raises:
            GitError: it is damaged, or no commit.
        """
        found = self.read_or_none(commit)
        if found is None:
            return ()
        if found[0] != COMMIT:
            raise GitError("not a commit")
        return _parents(found[1])


def _stores(objects: bytes) -> Iterator[bytes]:
    """Yield the directories of objects: the repository's, then those of its alternates."""
    yield objects
    try:
        text = read_file(objects + b"/info/alternates", _MAX_ALTERNATES_BYTES)
    except (FileNotFoundError, GitError):
        return
    lines = [line for line in text.split(b"\n") if line and not line.startswith(b"#")]
    for line in lines[:_MAX_ALTERNATES]:
        if b"\0" not in line:
            yield os.path.normpath(os.path.join(objects, line))


def _find(pack: _Pack, name: bytes) -> int | None:
    """Return where an object begins in its pack; None if the pack does not have it."""
    first, size, start = name[0], len(name), len(_INDEX_HEAD) + 4 * _FANOUT
    low, high = pack.fanout[first - 1] if first else 0, pack.fanout[first]
    count = pack.fanout[-1]
    while low < high:
        middle = (low + high) // 2
        there = read_at(pack.index_fd, size, start + middle * size)
        if there == name:
            offsets = start + count * (size + 4)
            return _offset(pack.index_fd, offsets, middle, count)
        if there < name:
            low = middle + 1
        else:
            high = middle
    return None


def _offset(index: int, offsets: int, number: int, count: int) -> int:
    data = read_at(index, 4, offsets + 4 * number)
    offset = int.from_bytes(data)
    if offset & _FAR:
        data = read_at(index, 8, offsets + 4 * count + 8 * (offset & ~_FAR))
        offset = int.from_bytes(data)
    if len(data) not in {4, 8} or offset >> 62:
        raise GitError("an index of a pack is damaged")
    return offset


def _distance(head: bytes, at: int) -> tuple[int, int]:
    """Return how far back a base is: seven bits a byte, the highest first, plus one for each."""
    value = -1
    for number, byte in enumerate(head[at : at + 9], at + 1):
        value = value + 1 << 7 | byte & 0x7F
        if not byte & 0x80:
            return value, number
    raise GitError("a delta's base is too far away")


def _parents(commit: bytes) -> tuple[bytes, ...]:
    lines = commit[: 128 * (_MAX_PARENTS + 1)].split(b"\n")
    if not lines[0].startswith(b"tree "):
        raise GitError("not a commit")
    found = []
    for line in lines[1 : _MAX_PARENTS + 1]:
        name = line.removeprefix(b"parent ")
        if name == line or not OBJECT_ID.fullmatch(name):
            break
        found.append(name)
    return tuple(found)
