"""The bytes of a part: one file with compiles of one build, written by one daemon.

A part is a sequence of frames. A frame is magic (4 bytes), the length of its JSON, the length of
its hits, a CRC-32 (three u32), the JSON, the hits. The checksum covers both lengths and all that
follows. JSON and hits hold what the daemon noted between two writes:

    {"format": 1, "build": TEXT, "units": [ROW, …], "compiles": [ROW, …]}

`format` and `build` are in the first frame only. Links have separate files, whose frames also
have `"links": [ROW, …]`. A unit is a hit that can occur many times, as a row of `compiles` (its
times are 0). A hit is the number of its unit in this part (u32), when it began (u64) and how long
it took (u32), in microseconds: 16 bytes, since most compiles are hits.

A reader stops at the first frame that is not complete and right. Its writer either died there, or
removes what it could not write completely.
"""

from __future__ import annotations

import json
import struct
import zlib
from collections.abc import Iterator, Sequence
from typing import Final

from hpcc.cache.recorder.compiles import MAX_AT_US, Compile, compile_of
from hpcc.cache.recorder.link_record import LinkRecord, link_of
from hpcc.cache.root.build_identity import MAX_IDENTITY_CHARS
from hpcc.core import IntegrityError

FORMAT: Final = 1
MAGIC: Final = b"hpB\x01"
# A writer ends a frame at half of this: one row more always fits.
MAX_FRAME_BYTES: Final = 1 << 20
_HEAD: Final = struct.Struct("<4sIII")
_LENGTHS: Final = struct.Struct("<II")
HIT: Final = struct.Struct("<IQI")
MAX_HIT_US: Final = (1 << 32) - 1


def encode_frame(
    units: list[str],
    compiles: list[str],
    hits: bytes | bytearray,
    build: str | None = None,
    links: Sequence[str] = (),
) -> bytes:
    """Return one frame; rows are JSON texts. `build` is for the first frame of a part."""
    head = "" if build is None else f'"format":{FORMAT},"build":{json.dumps(build)},'
    head += f'"links":[{",".join(links)}],' if links else ""
    text = f'{{{head}"units":[{",".join(units)}],"compiles":[{",".join(compiles)}]}}'.encode(
        "ascii"
    )
    lengths = _LENGTHS.pack(len(text), len(hits))
    check = zlib.crc32(hits, zlib.crc32(text, zlib.crc32(lengths)))
    return _HEAD.pack(MAGIC, len(text), len(hits), check) + text + hits


class BuildPart:
    """Reads one part: `build` is its build, `compiles` yields what it holds.

    Raises:
        IntegrityError: its first frame is not one of this format (reason `bad-record`).
    """

    def __init__(self, data: bytes) -> None:
        self._data, self._offset = data, 0
        self._units: list[Compile] = []
        # Those of the frames that were read: all of them once `compiles` has ended.
        self.links: list[LinkRecord] = []
        # True once `compiles` met bytes that are not a frame.
        self.is_damaged = False
        try:
            table, hits = self._frame()
            self.build = _build_of(table)
            self._first = self._decoded(table, hits)
        except (ValueError, RecursionError) as error:
            raise IntegrityError(
                f"the record of a build cannot be read: {error}", reason="bad-record"
            ) from error

    def compiles(self) -> Iterator[Compile]:
        """Yield the compiles, frame by frame, up to the first damaged frame. Call it once."""
        yield from self._first
        while self._offset < len(self._data):
            try:
                found = self._decoded(*self._frame())
            except (ValueError, RecursionError):
                self.is_damaged = True
                return
            yield from found

    def _frame(self) -> tuple[dict[str, object], bytes]:
        data, start = self._data, self._offset
        if len(data) - start < _HEAD.size:
            raise ValueError("a torn frame")
        magic, text_length, hits_length, check = _HEAD.unpack_from(data, start)
        if magic != MAGIC or text_length + hits_length > MAX_FRAME_BYTES:
            raise ValueError("not a frame")
        middle = start + _HEAD.size + text_length
        end = middle + hits_length
        if end > len(data):
            raise ValueError("a torn frame")
        text, hits = data[start + _HEAD.size : middle], data[middle:end]
        lengths = _LENGTHS.pack(text_length, hits_length)
        if zlib.crc32(hits, zlib.crc32(text, zlib.crc32(lengths))) != check:
            raise ValueError("a wrong checksum")
        table = json.loads(text)
        if not isinstance(table, dict):
            raise ValueError("not a table")  # noqa: TRY004 - as for every other wrong content
        self._offset = end
        return table, hits

    def _decoded(self, table: dict[str, object], hits: bytes) -> list[Compile]:
        """Return the compiles of a frame; all of it is checked before the first is given out."""
        units, rows = table.get("units"), table.get("compiles")
        if not isinstance(units, list) or not isinstance(rows, list) or len(hits) % HIT.size:
            raise ValueError("not the content of a frame")
        links = table.get("links", [])
        if not isinstance(links, list):
            raise ValueError("not a list of links")  # noqa: TRY004 - as for every other wrong content
        self._units += map(compile_of, units)
        found, found_links = list(map(compile_of, rows)), list(map(link_of, links))
        for number, began_us, took_us in HIT.iter_unpack(hits):
            if number >= len(self._units) or began_us > MAX_AT_US:
                raise ValueError("a hit of an unknown unit, or at no time")
            found.append(Compile(began_us, took_us, *self._units[number][2:]))
        self.links += found_links
        return found


def _build_of(table: dict[str, object]) -> str:
    build = table.get("build")
    if table.get("format") != FORMAT:
        raise ValueError("another format")
    if not isinstance(build, str) or not 0 < len(build) <= MAX_IDENTITY_CHARS:
        raise ValueError("no build")
    return build
