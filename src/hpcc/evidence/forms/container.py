"""The zip file that holds evidence: one form, so that each byte outside of the contents is checked.

Zip files have many places for bytes that no reader shows: comments, extra fields, gaps, files that
are listed twice. Here names are sorted, times and attributes are fixed, and nothing else exists:
a reader writes all headers again and compares. Only the compressed bytes may differ between
versions of zlib, and what they hold is checked. Any unzip reads the files.
"""

from __future__ import annotations

import re
import struct
import zlib
from collections.abc import Mapping
from typing import Final, NamedTuple

from hpcc.evidence.forms.errors import EvidenceDamagedError

MAX_FILE_BYTES: Final = 64 << 20
MAX_TOTAL_BYTES: Final = 256 << 20
MAX_FILES: Final = 256
_NAME: Final = re.compile(r"[A-Za-z0-9][A-Za-z0-9._%~-]{0,199}")
_LOCAL: Final = struct.Struct("<IHHHHHIIIHH")
_CENTRAL: Final = struct.Struct("<IHHHHHHIIIHHHHHII")
_END: Final = struct.Struct("<IHHHHIIH")
_LOCAL_MARK, _CENTRAL_MARK, _END_MARK = 0x04034B50, 0x02014B50, 0x06054B50
_NEEDS: Final = 20
_MADE_BY: Final = 0x0314  # version 2.0 on Unix
_DEFLATED: Final = 8
_DATE: Final = (1 << 5) | 1  # 1980-01-01, the first that a zip file can have
_MODE: Final = 0o100644 << 16


class _Entry(NamedTuple):
    name: bytes
    crc: int
    packed: int
    size: int
    offset: int

    def local(self) -> bytes:
        return _LOCAL.pack(
            _LOCAL_MARK, _NEEDS, 0, _DEFLATED, 0, _DATE, self.crc, self.packed, self.size,
            len(self.name), 0,
        ) + self.name  # fmt: skip

    def central(self) -> bytes:
        return _CENTRAL.pack(
            _CENTRAL_MARK, _MADE_BY, _NEEDS, 0, _DEFLATED, 0, _DATE, self.crc, self.packed,
            self.size, len(self.name), 0, 0, 0, 0, _MODE, self.offset,
        ) + self.name  # fmt: skip


def pack_files(files: Mapping[str, bytes]) -> bytes:
    """Return a zip file of these files.

    Raises:
        ValueError: a name is impossible, or they are too many or too large.
    """
    if not 0 < len(files) <= MAX_FILES or sum(map(len, files.values())) > MAX_TOTAL_BYTES:
        raise ValueError("the evidence is too large for one file")
    parts, directory, offset = [], [], 0
    for name, data in sorted(files.items()):
        if not _NAME.fullmatch(name):
            raise ValueError("a file of the evidence has an impossible name")
        packer = zlib.compressobj(9, zlib.DEFLATED, -zlib.MAX_WBITS)
        packed = packer.compress(data) + packer.flush()
        entry = _Entry(name.encode(), zlib.crc32(data), len(packed), len(data), offset)
        parts += [entry.local(), packed]
        directory.append(entry.central())
        offset += len(parts[-1]) + len(parts[-2])
    central = b"".join(directory)
    end = _end(len(directory), len(central), offset)
    whole = b"".join((*parts, central, end))
    if len(whole) > MAX_FILE_BYTES:
        raise ValueError("the evidence is too large for one file")
    return whole


def unpack_files(data: bytes) -> dict[str, bytes]:
    """Return the files of a zip file that `pack_files` made.

    At most `MAX_TOTAL_BYTES` are made of it, and no more than the headers announce.

    Raises:
        EvidenceDamagedError: it has another form, or is too large.
    """
    entries, start = _directory(data)
    if sum(entry.size for entry in entries) > MAX_TOTAL_BYTES:
        raise EvidenceDamagedError("the evidence announces more than is read of any")
    files: dict[str, bytes] = {}
    offset = 0
    for entry in entries:
        head = entry.local()
        body = offset + len(head)
        if entry.offset != offset or data[offset:body] != head or body + entry.packed > start:
            raise _other()
        name = entry.name.decode("ascii", "replace")
        if not _NAME.fullmatch(name) or (files and name <= next(reversed(files))):
            raise EvidenceDamagedError("the evidence has files with impossible or unsorted names")
        files[name] = _unpacked(data[body : body + entry.packed], entry)
        offset = body + entry.packed
    if offset != start:
        raise _other()
    return files


def _end(count: int, size: int, offset: int) -> bytes:
    return _END.pack(_END_MARK, 0, 0, count, count, size, offset, 0)


def _directory(data: bytes) -> tuple[list[_Entry], int]:
    """Return the entries of the directory, and where it begins."""
    if len(data) > MAX_FILE_BYTES:
        raise EvidenceDamagedError("the evidence is larger than any that hpcc writes")
    if len(data) < _END.size:
        raise _other()
    _, _, _, count, _, size, start, _ = _END.unpack(data[-_END.size :])
    if not 0 < count <= MAX_FILES or start + size + _END.size != len(data):
        raise _other()
    if data[-_END.size :] != _end(count, size, start):
        raise _other()
    entries, at = [], start
    for _ in range(count):
        if at + _CENTRAL.size > len(data):
            raise _other()
        fields = _CENTRAL.unpack_from(data, at)
        crc, packed, full, name_bytes, offset = (fields[i] for i in (7, 8, 9, 10, 16))
        name = data[at + _CENTRAL.size : at + _CENTRAL.size + name_bytes]
        entry = _Entry(name, crc, packed, full, offset)
        central = entry.central()
        if data[at : at + len(central)] != central:
            raise _other()
        entries.append(entry)
        at += len(central)
    if at != start + size:
        raise _other()
    return entries, start


def _unpacked(packed: bytes, entry: _Entry) -> bytes:
    unpacker = zlib.decompressobj(-zlib.MAX_WBITS)
    try:
        found = unpacker.decompress(packed, entry.size + 1)
    except zlib.error as error:
        raise EvidenceDamagedError("a file of the evidence is not compressed data") from error
    # With an exact limit zlib may not have seen the end of the stream yet.
    if len(found) != entry.size or not unpacker.eof or unpacker.unused_data:
        raise _other()
    if zlib.crc32(found) != entry.crc:
        raise EvidenceDamagedError("a file of the evidence has another checksum")
    return found


def _other() -> EvidenceDamagedError:
    return EvidenceDamagedError("the file is not an evidence file as hpcc writes it")
