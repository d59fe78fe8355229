#!/usr/bin/env python3
"""Takes the pictures of docs/web.md: each page of `hpcc web` with invented data, in Chromium.

usage: web_pictures.py [DIRECTORY] [PAGE ...]

It needs `tools/bootstrap.sh browser`. DIRECTORY defaults to docs/images. A picture is of a
whole page: wide (1440) and narrow (430), light and dark.
"""

from __future__ import annotations

import os
import struct
import sys
import tempfile
import time
import zlib
from collections import Counter
from pathlib import Path

os.environ["TZ"] = "UTC"
time.tzset()

from hpcc.cache.recorder.places import hash_of  # noqa: E402 - likewise
from hpcc.cli.web.pages import id_of  # noqa: E402 - likewise
from hpcc_testkit.cache.recorded import small_build  # noqa: E402 - likewise
from hpcc_testkit.services.browser import browser, missing_or_none  # noqa: E402 - the zone first
from hpcc_testkit.suite.demo_farm import (  # noqa: E402 - likewise
    EARLIER_BUILD,
    MACHINE_BUILD,
    OBJECT,
    DemoFarm,
    demo_pages,
)

WIDTHS = {"wide": 1440, "narrow": 430}
MAX_BYTES = 7 << 19
COLOURS = 96
LEAST_DISTANCE = 60
Colour = tuple[int, ...]


def addresses() -> dict[str, str]:
    """Return the pages: what a picture is called, and where the page is."""
    before, build = (DemoFarm()._builds[n].build_id for n in (19, 13))  # noqa: SLF001 - any two
    machine = f"build/{hash_of(MACHINE_BUILD)}"
    compile_id = id_of(small_build().compiles[1])
    return {
        "farm": "", "builds": "farm-builds", "build": f"farm-build/{build}",
        "compare": f"farm-build/{build}/compare/{before}", "workers": "workers",
        "worker": "worker/w5", "tenants": "tenants", "tenant": "tenant/acme", "cache": "cache",
        "evidence": "objects", "object": OBJECT, "alerts": "alerts", "search": "search?q=w3",
        "machine-compare": f"{machine}/compare/{hash_of(EARLIER_BUILD)}",
        "machine": "builds", "machine-build": machine, "machine-compile": f"{machine}/{compile_id}",
    }  # fmt: skip


def smaller(png: bytes) -> bytes:
    """Return a picture with a palette; other colours become the nearest one of it."""
    width, height = struct.unpack_from(">II", png, 16)
    if png[24:29] != b"\x08\x02\0\0\0":  # eight bits of RGB, as Chromium writes them
        return png
    rows, at = [], 8
    data = b""
    while at < len(png):
        size, kind = struct.unpack_from(">I4s", png, at)
        data += png[at + 8 : at + 8 + size] if kind == b"IDAT" else b""
        at += size + 12
    raw, before = zlib.decompress(data), bytes(3 * width)
    for number in range(height):
        start = number * (3 * width + 1)
        before = _unfiltered(raw[start], raw[start + 1 : start + 1 + 3 * width], before)
        rows.append(before)
    pixels = [list(zip(row[::3], row[1::3], row[2::3], strict=True)) for row in rows]
    counts = Counter(p for row in pixels for p in row)
    palette = _palette(counts)
    index = {colour: _nearest(palette, colour) for colour in counts}
    packed = zlib.compress(b"".join(b"\0" + bytes(map(index.__getitem__, r)) for r in pixels), 9)
    colours = b"".join(map(bytes, palette))
    head = struct.pack(">IIBBBBB", width, height, 8, 3, 0, 0, 0)
    parts = ((b"IHDR", head), (b"PLTE", colours), (b"IDAT", packed), (b"IEND", b""))
    return png[:8] + b"".join(_chunk(kind, body) for kind, body in parts)


def _palette(counts: Counter[Colour]) -> list[Colour]:
    """Return the most common colours that differ: a rare one that is like no other has a place."""
    found: list[Colour] = []
    for colour, _ in counts.most_common():
        if len(found) < COLOURS and all(_distance(colour, one) > LEAST_DISTANCE for one in found):
            found.append(colour)
    return found


def _nearest(palette: list[Colour], colour: Colour) -> int:
    return min(range(len(palette)), key=lambda number: _distance(palette[number], colour))


def _distance(one: Colour, other: Colour) -> int:
    return sum((a - b) ** 2 for a, b in zip(one, other, strict=True))


def _chunk(kind: bytes, body: bytes) -> bytes:
    return struct.pack(">I", len(body)) + kind + body + struct.pack(">I", zlib.crc32(kind + body))


def _unfiltered(kind: int, row: bytes, before: bytes) -> bytes:
    """Undo the filter of a row, as section 9 of the PNG specification has it."""
    if kind == 0:
        return row
    if kind == 2:
        return bytes((a + b) & 255 for a, b in zip(row, before, strict=True))
    found = bytearray(row)
    for n, value in enumerate(row):
        left, up = (found[n - 3] if n > 2 else 0), before[n]
        if kind == 1:
            guess = left
        elif kind == 3:
            guess = (left + up) // 2
        else:
            corner = before[n - 3] if n > 2 else 0
            straight = left + up - corner
            guess = min((left, up, corner), key=lambda p: abs(straight - p))
        found[n] = (value + guess) & 255
    return bytes(found)


def main() -> int:
    """Take the pictures."""
    if why := missing_or_none():
        print(why, file=sys.stderr)
        return 1
    words = sys.argv[1:]
    to = Path(words[0] if words else "docs/images")
    chosen = {n: a for n, a in addresses().items() if not words[1:] or n in words[1:]}
    with tempfile.TemporaryDirectory() as scratch, demo_pages(Path(scratch)) as link:
        root = link.partition("open?")[0]
        with browser() as chromium:
            chromium.do("open", url=link)
            chromium.do("wait", text="workers take compiles")
            for name, address in chosen.items():
                chromium.do("open", url=f"{root}{address}")
                for size, width in WIDTHS.items():
                    for dark in (False, True):
                        png = to / f"web-{name}-{size}-{'dark' if dark else 'light'}.png"
                        beyond = chromium.do("picture", width=width, dark=dark, png=str(png))
                        png.write_bytes(smaller(png.read_bytes()))
                        print(f"{png.name}: {png.stat().st_size:,} bytes, {beyond} too wide")
    whole = sum(png.stat().st_size for png in to.glob("web-*.png"))
    print(f"{whole:,} bytes in all")
    return 0 if whole < MAX_BYTES else 1


if __name__ == "__main__":
    sys.exit(main())
