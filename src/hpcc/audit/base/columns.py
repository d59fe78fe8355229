"""Packs consecutive records of a segment into a block, and reads them back byte for byte.

Problem: rows of one build are nearly equal, but each has some 180 bytes that no method compresses:
a signature, a row id and three digests. What else a row costs is the aim of this format.

Rule: what follows from other bytes is left out, what is equal in all rows is stored once, and what
differs is stored by columns. The texts are compressed with zstd, digests and signatures are stored
as they are. `docs/spec/audit.md` (Packed segments) has the format.

- A record is cut at its commas. Records with the same number of pieces are a class. A class has one
  template; the pieces that differ, without their common beginning, are its columns.
- `previous` and `sequence` follow from the record before: the hash before each 32nd record is
  stored, so that a record is read without those of the whole block.
- `argv_digest` follows from `argv`, unless the row has not the whole command.
- 64 or 32 hexadecimal digits that occur once in a block are stored as 32 or 16 bytes.

Example: of 512 rows of one build, `image_digest` is stored once, `started_at` as a column of
numbers, and `argv` as one column for each argument that differs.

What must never happen: a block that gives other bytes than it was made of. So `pack_block` reads
each block again, and stores the frames themselves, compressed, where a byte differs. A block proves
nothing: readers check chain, seals and signatures of what it gives.
"""

from __future__ import annotations

import hashlib
import re
import struct
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import repeat
from typing import Final, NamedTuple

import zstandard

from hpcc.audit.base.canonical import MAX_RECORD_BYTES, AuditDamagedError, Record, record_hash
from hpcc.audit.base.frames import SIGNATURE_BYTES, frame_bytes, frame_of, framed

# Kind; records; number of the first; bytes of its frames, of the text, of the packed text, of hex.
HEADER: Final = struct.Struct(">BHQIIII")
MAX_ROWS: Final = 1024
# Of the frames of a block of columns. A larger record is in a separate block.
MAX_COLUMNS_BYTES: Final = 4 << 20
MAX_FRAMES_BYTES: Final = MAX_RECORD_BYTES + 256
_FRAMES, _UNSIGNED, _SIGNED = 1, 2, 3
# Each takes a reader some microseconds, however short it is.
_MAX_COLUMNS: Final = 8192
_LEVEL: Final = 15
# A block's text fits, so that honest frames never ask for more.
_MAX_WINDOW_BYTES: Final = 32 << 20
_HASH_BYTES: Final = 32
_ID_BYTES: Final = 16
_HEAD_EVERY: Final = 32
_CONTROLS: Final = bytes(range(32))
_PART, _HASH, _ID, _CHAIN, _ARGV, _GAP = b"\0", b"\1", b"\2", b"\3", b"\4", b"\6"
_HEX_DIGITS: Final = b"0123456789abcdef"
_HEX: Final = re.compile(rb"(?<![0-9a-f])(?:[0-9a-f]{64}|[0-9a-f]{32})(?![0-9a-f])")
_CLASSES: Final = bytes(range(ord("0"), ord("z") + 1))
_ARGV_KEY: Final = b'"argv":'
_ARGV_DIGEST: Final = b',"argv_digest":"sha256:'
_HEX_HASH: Final = 2 * _HASH_BYTES


@dataclass(frozen=True, slots=True)
class BlockHeader:
    """What a block announces: `rows` records from number `first` on, and the sizes of its parts."""

    kind: int
    rows: int
    first: int
    frames_bytes: int
    text_bytes: int
    packed_bytes: int
    hex_bytes: int

    @property
    def heads_bytes(self) -> int:
        """Return the size of the hashes before each 32nd record."""
        return 0 if self.kind == _FRAMES else -(-self.rows // _HEAD_EVERY) * _HASH_BYTES

    @property
    def body_bytes(self) -> int:
        """Return how many bytes follow the header."""
        signatures = self.rows * SIGNATURE_BYTES if self.kind == _SIGNED else 0
        return self.packed_bytes + self.heads_bytes + self.hex_bytes + signatures


def read_header(data: bytes) -> BlockHeader:
    """Parse the header of a block.

    Raises:
        AuditDamagedError: it is incomplete, or announces more than a block may have.
    """
    if len(data) != HEADER.size:
        raise AuditDamagedError("a block without its header")
    header = BlockHeader(*HEADER.unpack(data))
    is_frames = header.kind == _FRAMES
    most = MAX_FRAMES_BYTES if is_frames else MAX_COLUMNS_BYTES
    if (
        header.kind not in {_FRAMES, _UNSIGNED, _SIGNED}
        or not 0 < header.rows <= MAX_ROWS
        or header.first >= 1 << 63
        or not 0 < header.frames_bytes <= most
        or not 0 < header.text_bytes <= most
        or (is_frames and header.text_bytes != header.frames_bytes)
        or not 0 < header.packed_bytes <= most + 1024
        or header.hex_bytes > (0 if is_frames else most // 2)
    ):
        raise AuditDamagedError("a block announces impossible sizes")
    return header


def pack_block(records: Sequence[Record]) -> bytes:
    """Return the block of consecutive records: at most `MAX_ROWS`."""
    frames = b"".join(map(frame_of, records))
    block = _columns_or_none(records, len(frames))
    if block is not None:
        try:
            again = PackedBlock(read_header(block[: HEADER.size]), block[HEADER.size :])
            if again.frames() == frames:
                return block
        except AuditDamagedError:
            pass
    packed = zstandard.ZstdCompressor(level=_LEVEL).compress(frames)
    sizes = (len(frames), len(frames), len(packed), 0)
    return HEADER.pack(_FRAMES, len(records), records[0].sequence, *sizes) + packed


def _columns_or_none(records: Sequence[Record], frames_bytes: int) -> bytes | None:
    """Return a block of columns; None if the records are not of the form that it needs."""
    if frames_bytes > MAX_COLUMNS_BYTES or len({bool(r.signature) for r in records}) > 1:
        return None
    classes: dict[int, list[list[bytes]]] = {}
    numbers: list[int] = []
    for record in records:
        data = record.data
        if len(data.translate(None, _CONTROLS)) != len(data):
            return None
        chain = b'%b","sequence":%d' % (record.previous.encode(), record.sequence)
        pieces = _without_argv_digest(data.replace(chain, _CHAIN, 1)).split(b",")
        classes.setdefault(len(pieces), []).append(pieces)
        numbers.append(len(pieces))
    if len(classes) > len(_CLASSES):
        return None
    names = {number: _CLASSES[at] for at, number in enumerate(classes)}
    templates, columns = [], []
    for rows in classes.values():
        template, varying = _template(rows)
        templates.append(template)
        columns += varying
        if len(columns) > _MAX_COLUMNS:
            return None
    text, hexes = _without_hex(_PART.join(columns))
    text = _PART.join([bytes(map(names.__getitem__, numbers)), *templates, text])
    packed = zstandard.ZstdCompressor(level=_LEVEL).compress(text)
    heads = b"".join(bytes.fromhex(r.previous) for r in records[::_HEAD_EVERY])
    signatures = b"".join(r.signature for r in records)
    kind = _SIGNED if signatures else _UNSIGNED
    sizes = (frames_bytes, len(text), len(packed), len(hexes))
    header = HEADER.pack(kind, len(records), records[0].sequence, *sizes)
    return b"".join((header, packed, heads, hexes, signatures))


def _without_argv_digest(data: bytes) -> bytes:
    end = data.find(_ARGV_DIGEST)
    begin, digest = data.find(_ARGV_KEY) + len(_ARGV_KEY), end + len(_ARGV_DIGEST)
    if end < begin:
        return data
    if hashlib.sha256(data[begin:end]).hexdigest().encode() != data[digest : digest + _HEX_HASH]:
        return data
    return data[:digest] + _ARGV + data[digest + _HEX_HASH :]


def _template(rows: list[list[bytes]]) -> tuple[bytes, list[bytes]]:
    """Return what all rows have, with a gap for each piece that differs, and the columns."""
    template, columns = [], []
    for column in zip(*rows, strict=True):
        least, most = min(column), max(column)
        if least == most:
            template.append(least)
            continue
        # Digits of a digest stay together.
        start = _beginning(least, most).rstrip(_HEX_DIGITS)
        rest = [piece[len(start) :] for piece in column]
        # The names of an object and its source then give two equal columns.
        turned = [piece[::-1] for piece in rest]
        end = _beginning(min(turned), max(turned))[::-1].lstrip(_HEX_DIGITS)
        template.append(start + _GAP + end)
        columns.append(b"\n".join(piece[: len(piece) - len(end)] for piece in rest))
    return b",".join(template), columns


def _beginning(least: bytes, most: bytes) -> bytes:
    """Return what both begin with, and so all that sort between them."""
    for at, (one, other) in enumerate(zip(least, most, strict=False)):
        if one != other:
            return least[:at]
    return least


def _without_hex(text: bytes) -> tuple[bytes, bytes]:
    """Return a text without the digests and ids that occur once, and these as bytes."""
    times = Counter(_HEX.findall(text))
    hashes: list[bytes] = []
    ids: list[bytes] = []

    def mark(found: re.Match[bytes]) -> bytes:
        digits = found[0]
        if times[digits] > 1:
            return digits  # zstd finds it again
        is_hash = len(digits) == _HEX_HASH
        (hashes if is_hash else ids).append(digits)
        return _HASH if is_hash else _ID

    return _HEX.sub(mark, text), bytes.fromhex(b"".join(hashes + ids).decode())


class _Column(NamedTuple):
    """A column with marks, and how many hashes and ids lie before its own in the block."""

    text: bytes
    hashes: int
    ids: int


class PackedBlock:
    """A block whose texts are unpacked. Nothing that it gives is proved."""

    def __init__(self, header: BlockHeader, body: bytes) -> None:
        """Unpack the texts of a block.

        Raises:
            AuditDamagedError: its parts have other sizes than it announces, or another form.
        """
        self.header = header
        if len(body) != header.body_bytes:
            raise AuditDamagedError("a block is incomplete")
        text = _unpacked(header, body[: header.packed_bytes])
        if header.kind == _FRAMES:
            self._frames = text
            return
        self._frames = b""
        heads = header.packed_bytes
        hexes = heads + header.heads_bytes
        signatures = hexes + header.hex_bytes
        self._heads, self._signatures = body[heads:hexes], body[signatures:]
        self._read_columns(text, body[hexes:signatures])

    def _read_columns(self, text: bytes, hexes: bytes) -> None:
        rows = self.header.rows
        self._classes, _, rest = text.partition(_PART)
        classes = bytes(sorted(set(self._classes)))
        if len(self._classes) != rows or not _CLASSES.startswith(classes):
            raise AuditDamagedError("a block has other classes than records")
        *templates, rest = rest.split(_PART, len(classes))
        if len(templates) != len(classes):
            raise AuditDamagedError("a block lacks a template")
        columns = iter(rest.split(_PART, _MAX_COLUMNS))
        self._hexes, hashes, ids, total = hexes, 0, 0, 0
        # By class: the pieces with gaps between them, and a column for each gap.
        self._parts: dict[int, tuple[list[bytes], list[_Column]]] = {}
        for name, template in zip(classes, templates, strict=True):
            pieces, found = template.split(_GAP, _MAX_COLUMNS + 1), []
            for _ in pieces[1:]:
                text = next(columns, b"")
                found.append(_Column(text, hashes, ids))
                hashes, ids = hashes + text.count(_HASH), ids + text.count(_ID)
            parts = [b""] * (2 * len(pieces) - 1)
            parts[::2] = pieces
            total += len(found)
            if total > _MAX_COLUMNS:
                raise AuditDamagedError("a block has too many columns")
            self._parts[name] = parts, found
        if next(columns, b"") != b"":
            raise AuditDamagedError("a block has more columns than its templates")
        if len(hexes) != hashes * _HASH_BYTES + ids * _ID_BYTES:
            raise AuditDamagedError("a block has other digests than its text")
        # The ids lie behind all hashes.
        self._ids_begin = hashes * _HASH_BYTES

    def frames(self) -> bytes:
        """Return the frames of all records.

        Raises:
            AuditDamagedError: they are not of the announced size.
        """
        if self.header.kind != _FRAMES:
            found = b"".join(framed(*item) for item in self.records())
            if len(found) != self.header.frames_bytes:
                raise AuditDamagedError("a block has other frames than it announces")
            return found
        return self._frames

    def records(self, begin: int = 0, end: int | None = None) -> Iterator[tuple[bytes, bytes]]:
        """Yield bytes and signature of the records `begin` to `end`, counted in a block of columns.

        Raises:
            AuditDamagedError: they are larger than announced.
        """
        if self.header.kind == _FRAMES:
            raise AuditDamagedError("a block has frames and no columns")
        last = self.header.rows if end is None else end
        at = begin - begin % _HEAD_EVERY
        before, wanted = self._classes[:at], self._classes[at:last]
        values = {
            name: self._values(name, before.count(name), wanted.count(name)) for name in set(wanted)
        }
        room, head = self.header.frames_bytes, b""
        for number in range(at, last):
            if number % _HEAD_EVERY == 0:
                place = number // _HEAD_EVERY * _HASH_BYTES
                head = self._heads[place : place + _HASH_BYTES].hex().encode()
            name = self._classes[number]
            parts = self._parts[name][0]
            parts[1::2] = next(values[name])
            data = self._completed(b"".join(parts), head, self.header.first + number)
            room -= len(data)
            if room < 0:
                raise AuditDamagedError("a block has more bytes than it announces")
            head = record_hash(data).encode()
            if number >= begin:
                sign = number * SIGNATURE_BYTES
                yield data, self._signatures[sign : sign + SIGNATURE_BYTES]

    def _values(self, name: int, begin: int, count: int) -> Iterator[tuple[bytes, ...]]:
        """Return the values of `count` records of a class from number `begin` on."""
        columns, rows = self._parts[name][1], self._classes.count(name)
        if not columns:
            return repeat((), count)
        texts = (self._with_hex(column, begin, begin + count, rows) for column in columns)
        return zip(*(text.split(b"\n") for text in texts), strict=True)

    def _with_hex(self, column: _Column, begin: int, end: int, rows: int) -> bytes:
        """Return these lines of a column, with the digests in place of their marks."""
        lines = column.text.split(b"\n", end)
        is_last = end == rows
        if len(lines) < end or (is_last and len(lines) > end):
            raise AuditDamagedError("a column of a block has another length than its class")
        text, before = b"\n".join(lines[begin:end]), b"\n".join(lines[:begin])
        for mark, first, size in (
            (_HASH, column.hashes * _HASH_BYTES, _HASH_BYTES),
            (_ID, self._ids_begin + column.ids * _ID_BYTES, _ID_BYTES),
        ):
            if mark in text:
                at = first + before.count(mark) * size
                pieces = text.split(mark)
                count, width = len(pieces) - 1, 2 * size
                digits = self._hexes[at : at + count * size].hex().encode()
                filled = [b""] * (2 * count + 1)
                filled[::2] = pieces
                filled[1::2] = [digits[n : n + width] for n in range(0, count * width, width)]
                text = b"".join(filled)
        return text

    @staticmethod
    def _completed(data: bytes, head: bytes, sequence: int) -> bytes:
        data = data.replace(_CHAIN, b'%b","sequence":%d' % (head, sequence), 1)
        at = data.find(_ARGV)
        if at < 0:
            return data
        begin = data.find(_ARGV_KEY) + len(_ARGV_KEY)
        digest = hashlib.sha256(data[begin : at - len(_ARGV_DIGEST)]).hexdigest().encode()
        return data[:at] + digest + data[at + 1 :]

    @property
    def has_columns(self) -> bool:
        """Return whether single records can be read."""
        return self.header.kind != _FRAMES


def _unpacked(header: BlockHeader, packed: bytes) -> bytes:
    try:
        if zstandard.get_frame_parameters(packed).content_size != header.text_bytes:
            raise AuditDamagedError("a block announces another size than its text has")
        reader = zstandard.ZstdDecompressor(max_window_size=_MAX_WINDOW_BYTES)
        text = reader.decompress(packed, max_output_size=header.text_bytes, allow_extra_data=False)
    except zstandard.ZstdError as error:
        raise AuditDamagedError(f"a block cannot be unpacked: {error}") from error
    if len(text) != header.text_bytes:
        raise AuditDamagedError("a block has another size than it announces")
    return text


def fits(rows: int, frames_bytes: int, record: Record) -> bool:
    """Return whether a block of so many records has room for another one."""
    return rows < MAX_ROWS and frames_bytes + frame_bytes(record) <= MAX_COLUMNS_BYTES
