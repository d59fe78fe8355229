"""Packed segments: a sealed segment as blocks, read as if it had its frames.

A packed segment keeps the name of the segment that it replaces. It begins with eight bytes that an
earlier version refuses as the impossible length of a frame. Blocks follow, each behind a header
with its sizes, so that a reader finds the block of a record without unpacking another one.

All offsets are those in the frames: seals, indexes and readers do not change. What a block gives
proves nothing. Its chain leads to the sealed head, or its hash is that of the index.
"""

from __future__ import annotations

import io
import os
from bisect import bisect_right
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, BinaryIO, Final

from hpcc.audit.base.canonical import AuditDamagedError, Record
from hpcc.audit.base.columns import (
    HEADER,
    MAX_ROWS,
    BlockHeader,
    PackedBlock,
    fits,
    pack_block,
    read_header,
)
from hpcc.audit.base.frames import SegmentFrame, frame_bytes, read_frames
from hpcc.audit.base.segments import open_trail_file

if TYPE_CHECKING:
    from _typeshed import WriteableBuffer

MAGIC: Final = b"hpccseg3"
# Of a segment of 64 MiB there are some 30. Each takes some hundred bytes of a reader's memory.
_MAX_BLOCKS: Final = 1 << 18
_BUFFER_BYTES: Final = 1 << 16


class PackedSegment(io.RawIOBase):
    """The frames of a packed segment, as a file. Not thread-safe."""

    def __init__(self, file: BinaryIO) -> None:
        """Read the headers of all blocks behind the first eight bytes; close `file` with this.

        Raises:
            AuditDamagedError: a block has another form, or is incomplete.
        """
        self._file, self.name = file, file.name
        self._headers: list[BlockHeader] = []
        # Of each block: where it begins in the frames, its first record, where its body begins.
        self._begins: list[int] = []
        self._firsts: list[int] = []
        self._bodies: list[int] = []
        self.size_bytes = self._position = 0
        # The block that was read last: its number, and its frames once they were needed.
        self._number, self._frames = -1, b""
        self._block: PackedBlock | None = None
        end = file.seek(0, os.SEEK_END)
        at = len(MAGIC)
        while at < end:
            at = self._add(at, end)

    def _add(self, at: int, end: int) -> int:
        self._file.seek(at)
        header = read_header(self._file.read(HEADER.size))
        body = at + HEADER.size
        if len(self._headers) >= _MAX_BLOCKS or body + header.body_bytes > end:
            raise AuditDamagedError(f"an incomplete block at byte {at}")
        if self._headers and header.first != self._headers[-1].first + self._headers[-1].rows:
            raise AuditDamagedError(f"a block of other records at byte {at}")
        self._headers.append(header)
        self._begins.append(self.size_bytes)
        self._firsts.append(header.first)
        self._bodies.append(body)
        self.size_bytes += header.frames_bytes
        return body + header.body_bytes

    def frame(self, sequence: int) -> SegmentFrame | None:
        """Return the frame of record `sequence`, None if there is none; the offset is not set.

        Raises:
            AuditDamagedError: its block has another form.
        """
        number = bisect_right(self._firsts, sequence) - 1
        if number < 0 or sequence >= self._firsts[number] + self._headers[number].rows:
            return None
        index, block = sequence - self._firsts[number], self._load(number)
        if block.has_columns:
            data, signature = next(block.records(index, index + 1))
            return SegmentFrame(0, data, signature)
        for at, frame in enumerate(read_frames(io.BytesIO(block.frames()))):
            if at == index:
                return frame
        return None

    def signed_bytes(self) -> Iterator[tuple[bytes, bytes]]:
        """Yield bytes and signature of each record.

        Raises:
            AuditDamagedError: a block has another form.
        """
        for number in range(len(self._headers)):
            block = self._load(number)
            if block.has_columns:
                yield from block.records()
                continue
            for frame in read_frames(io.BytesIO(block.frames())):
                yield frame.data, frame.signature

    def _load(self, number: int) -> PackedBlock:
        if self._block is None or self._number != number:
            header = self._headers[number]
            self._file.seek(self._bodies[number])
            self._block = PackedBlock(header, self._file.read(header.body_bytes))
            self._number, self._frames = number, b""
        return self._block

    def readinto(self, buffer: WriteableBuffer, /) -> int:
        """Read frames from the position; at most those of one block."""
        view = memoryview(buffer).cast("B")
        number = bisect_right(self._begins, self._position) - 1
        if not view or number < 0 or self._position >= self.size_bytes:
            return 0
        block = self._load(number)
        self._frames = self._frames or block.frames()
        begin = self._position - self._begins[number]
        part = self._frames[begin : begin + len(view)]
        view[: len(part)] = part
        self._position += len(part)
        return len(part)

    def seek(self, offset: int, whence: int = os.SEEK_SET, /) -> int:
        """Move the position, counted in the frames."""
        base = {os.SEEK_SET: 0, os.SEEK_CUR: self._position, os.SEEK_END: self.size_bytes}[whence]
        self._position = max(base + offset, 0)
        return self._position

    def tell(self) -> int:
        return self._position

    def readable(self) -> bool:
        return True

    def seekable(self) -> bool:
        return True

    def fileno(self) -> int:
        return self._file.fileno()

    def close(self) -> None:
        self._file.close()
        super().close()


def open_segment(path: Path) -> BinaryIO:
    """Open a segment for reading its frames, packed or not.

    Raises:
        FileNotFoundError: there is none.
        AuditDamagedError: it is not a regular file, or a block has another form.
    """
    file = open_trail_file(path)
    try:
        if file.read(len(MAGIC)) == MAGIC:
            return io.BufferedReader(PackedSegment(file), _BUFFER_BYTES)
        file.seek(0)
    except AuditDamagedError as error:
        file.close()
        raise AuditDamagedError(f"{path}: {error}") from error
    except BaseException:
        file.close()
        raise
    return file


def is_packed(path: Path) -> bool:
    """Return whether a segment is packed.

    Raises:
        FileNotFoundError: there is none.
        AuditDamagedError: it is not a regular file.
    """
    with open_trail_file(path) as file:
        return file.read(len(MAGIC)) == MAGIC


def frames_size(path: Path) -> int:
    """Return how many bytes the frames of a segment have.

    Raises:
        FileNotFoundError: there is none.
        AuditDamagedError: it is not a regular file, or a block has another form.
    """
    with open_segment(path) as file:
        return file.seek(0, os.SEEK_END)


def frame_at(file: BinaryIO, place: int, sequence: int) -> SegmentFrame:
    """Return the frame at an offset of an open segment, an empty one if there is none.

    Of a packed segment it is that of record `sequence`. The caller must compare its hash.

    Raises:
        AuditDamagedError: a frame or a block has another form.
    """
    nothing = SegmentFrame(0, b"", b"")
    raw = getattr(file, "raw", None)
    if isinstance(raw, PackedSegment):
        return raw.frame(sequence) or nothing
    file.seek(place)
    return next(read_frames(file), nothing)


def packed_bytes(records: Iterable[Record]) -> Iterator[bytes]:
    """Yield a packed segment of consecutive records, in parts."""
    yield MAGIC
    group: list[Record] = []
    size = 0
    for record in records:
        if group and not fits(len(group), size, record):
            yield pack_block(group)
            group, size = [], 0
        group.append(record)
        size += frame_bytes(record)
        if len(group) == MAX_ROWS:
            yield pack_block(group)
            group, size = [], 0
    if group:
        yield pack_block(group)


def signed_bytes_of(file: BinaryIO) -> Iterator[tuple[bytes, bytes]]:
    """Yield bytes and signature of each record of an open segment; nothing is parsed or proved.

    The iteration ends without an error at an incomplete last frame.

    Raises:
        AuditDamagedError: a frame or a block has another form.
    """
    raw = getattr(file, "raw", None)
    if isinstance(raw, PackedSegment):
        yield from raw.signed_bytes()
        return
    for frame in read_frames(file):
        yield frame.data, frame.signature
