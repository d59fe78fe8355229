"""Reads commits of a repository: loose ones, and those in packs of version 2, also as deltas.

An object's bytes are not compared with its name. A clone that lies about a commit's parents only
chooses which signed pack is asked for.
"""

from __future__ import annotations

import os
import struct
import zlib
from collections.abc import Iterator
from contextlib import ExitStack
from itertools import islice, pairwise
from typing import Final, NamedTuple

from hpcc.cache.git.delta import MAX_OBJECT_BYTES, apply_delta, size_at
from hpcc.cache.git.reading import OBJECT_ID, GitError, open_file, read_at, read_file
from hpcc.cache.git.refs import Repository

_MAX_LOOSE_BYTES: Final = 1 << 20
_MAX_PACKS: Final = 256
_MAX_NAMES: Final = 4096
_MAX_ALTERNATES: Final = 8
_MAX_ALTERNATES_BYTES: Final = 16 << 10
# As the default of `git repack --depth`.
_MAX_DEPTH: Final = 50
# All that is inflated to read one commit.
_MAX_INFLATED_BYTES: Final = 4 << 20
_MAX_PARENTS: Final = 64
_PIECE: Final = 16 << 10
_INDEX_HEAD: Final = b"\xfftOc\0\0\0\x02"
_FANOUT: Final = 256
_FAR: Final = 0x80000000
_COMMIT, _OFFSET_DELTA, _REFERENCE_DELTA = 1, 6, 7


class _Pack(NamedTuple):
    """An index and its pack, both open. `fanout` counts the names up to each first byte."""

    index_fd: int
    pack_fd: int
    fanout: tuple[int, ...]


class Commits:
    """The commits of one repository. Used as a context manager; reads files only."""

    def __init__(self, repository: Repository) -> None:
        self._stores = list(_stores(repository.common + b"/objects"))
        self._packs: list[_Pack] | None = None
        self._stack = ExitStack()
        self._budget = 0

    def __enter__(self) -> Commits:
        return self

    def __exit__(self, *_: object) -> None:
        self._stack.close()

    def parents(self, commit: bytes) -> tuple[bytes, ...]:
        """Return the parents of a commit, all in hexadecimal; () if the commit is not here.

        Raises:
            GitError: it is damaged, or no commit.
        """
        self._budget = _MAX_INFLATED_BYTES
        for store in self._stores:
            try:
                data = read_file(store + b"/%b/%b" % (commit[:2], commit[2:]), _MAX_LOOSE_BYTES)
            except FileNotFoundError:
                continue
            return _parents(self._loose(data))
        kind_and_data = self._packed(bytes.fromhex(commit.decode()), _MAX_DEPTH)
        if kind_and_data is None:
            return ()
        kind, data = kind_and_data
        if kind != _COMMIT:
            raise GitError("not a commit")
        return _parents(data)

    def _loose(self, data: bytes) -> bytes:
        try:
            text = zlib.decompressobj().decompress(data, MAX_OBJECT_BYTES)
        except zlib.error as error:
            raise GitError("a loose object is damaged") from error
        head, _, body = text.partition(b"\0")
        if not head.startswith(b"commit "):
            raise GitError("not a commit")
        return body

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
            found = self._packed(name, depth - 1)
        else:
            return kind, self._inflate(pack.pack_fd, offset + at, size)
        if found is None:
            raise GitError("a delta's base is not here")
        return found[0], apply_delta(found[1], self._inflate(pack.pack_fd, offset + at, size))

    def _inflate(self, fd: int, at: int, size: int) -> bytes:
        self._budget -= size
        if size > MAX_OBJECT_BYTES or self._budget < 0:
            raise GitError("an object is too large for a commit")
        reader, made = zlib.decompressobj(), b""
        try:
            while len(made) < size and not reader.eof:
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
        return made


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
