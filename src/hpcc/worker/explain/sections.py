"""Finds the sections in which two object files differ. Pure; the bytes are a guest's, so hostile.

An ELF file is read as little as possible: the table of sections and the table of their names. All
offsets and sizes are compared with the length of the file before they are used, and a slice of a
`memoryview` copies nothing. Whatever is malformed has no sections.
"""

from __future__ import annotations

import struct
from collections import Counter
from typing import Final, NamedTuple

_MAGIC: Final = b"\x7fELF"
# An object of C++ has some thousand, one for each inline function.
_MAX_SECTIONS: Final = 16_384
_MAX_NAME_BYTES: Final = 64
_NO_BITS: Final = 8
# By class: where e_shoff is and its form; where e_shentsize, e_shnum, e_shstrndx are; the form of a
# section header, from which name, type, offset and size are taken.
_FORMS: Final = {
    1: (0x20, "I", 0x2E, "IIIIII"),
    2: (0x28, "Q", 0x3A, "IIQQQQ"),
}
_ORDERS: Final = {1: "<", 2: ">"}


class SectionDifference(NamedTuple):
    """How the sections of two objects differ, by name, in their order in the objects.

    `changed` are in both with another content, `single` in one of them only. Both are empty if only
    headers, or what no section has, differ.
    """

    changed: tuple[str, ...]
    single: tuple[str, ...]


def differing_section(mine: bytes, other: bytes) -> str:
    """Return the first section of `mine` that `other` has too, with another content.

    Return "" if there is none, or if either is not an ELF file.
    """
    there = dict(_sections(other))
    for name, content in _sections(mine):
        if name in there and there[name] != content:
            return name[0]
    return ""


def differing_sections(mine: bytes, other: bytes) -> SectionDifference | None:
    """Return how the sections of two objects differ; None if either is not an ELF file.

    For people who may read both files: names are of either.
    """
    here, there = dict(_sections(mine)), dict(_sections(other))
    if not here or not there:
        return None
    changed = (key[0] for key, content in here.items() if key in there and there[key] != content)
    single = (key[0] for key in (*here, *there) if (key in here) != (key in there))
    # A name may be that of several sections.
    return SectionDifference(tuple(dict.fromkeys(changed)), tuple(dict.fromkeys(single)))


def _sections(data: bytes) -> list[tuple[tuple[str, int], memoryview]]:
    """Return the named sections in order. Those of one name are numbered."""
    try:
        return _parsed(data)
    except (struct.error, IndexError):
        return []


def _parsed(data: bytes) -> list[tuple[tuple[str, int], memoryview]]:
    if not data.startswith(_MAGIC) or data[4] not in _FORMS or data[5] not in _ORDERS:
        return []
    at, word, counts_at, form = _FORMS[data[4]]
    order = _ORDERS[data[5]]
    (start,) = struct.unpack_from(order + word, data, at)
    size, count, names_at = struct.unpack_from(order + "HHH", data, counts_at)
    header = struct.Struct(order + form)
    if size < header.size or count > _MAX_SECTIONS or start + size * count > len(data):
        return []
    headers = [header.unpack_from(data, start + size * n) for n in range(count)]
    view = memoryview(data)
    names = _content(view, headers[names_at])
    found, seen = [], Counter[str]()
    for number, entry in enumerate(headers):
        name = _name(names, entry[0])
        # The table of names differs with the sections, which says nothing.
        if name and entry[1] != _NO_BITS and number != names_at:
            found.append(((name, seen[name]), _content(view, entry)))
            seen[name] += 1
    return found


def _content(view: memoryview, header: tuple[int, ...]) -> memoryview:
    offset, size = header[4], header[5]
    return view[offset : offset + size] if offset + size <= len(view) else view[:0]


def _name(names: memoryview, at: int) -> str:
    raw = bytes(names[at : at + _MAX_NAME_BYTES + 1])
    name, end, _ = raw.partition(b"\0")
    text = name.decode("ascii", "replace")
    return text if end and text.isascii() and text.isprintable() and " " not in text else ""
