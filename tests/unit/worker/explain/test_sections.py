"""The sections in which two object files differ; the bytes are a guest's."""

from __future__ import annotations

import struct

import pytest
from hypothesis import given
from hypothesis import strategies as st

from hpcc.reapi.delta import common_prefix
from hpcc.worker.explain.sections import (
    differing_section,
    differing_sections,
)

Parts = tuple[tuple[str, bytes], ...]
PARTS: Parts = ((".text", b"code"), (".data", b"data"), (".text", b"more"), (".comment", b"gcc"))


def elf(parts: Parts = PARTS, *, bits: int = 64, order: str = "<") -> bytes:
    """Return an ELF file with these sections and the table of their names."""
    names = b"\0" + b"".join(f"{name}\0".encode() for name, _ in (*parts, (".shstrtab", b"")))
    is_wide = bits == 64
    head_bytes, form = (64, "IIQQQQ") if is_wide else (52, "IIIIII")
    size = 64 if is_wide else 40
    body, headers, at = b"", [bytes(size)], 1
    for name, content in (*parts, (".shstrtab", names)):
        place = head_bytes + len(body)
        headers.append(
            struct.pack(order + form, at, 1, 0, 0, place, len(content)).ljust(size, b"\0")
        )
        body, at = body + content, at + len(name) + 1
    head = bytearray(head_bytes)
    head[:6] = b"\x7fELF" + bytes([2 if is_wide else 1, 1 if order == "<" else 2])
    struct.pack_into(
        order + ("Q" if is_wide else "I"), head, 0x28 if is_wide else 0x20, head_bytes + len(body)
    )
    counts = (size, len(headers), len(headers) - 1)
    struct.pack_into(order + "HHH", head, 0x3A if is_wide else 0x2E, *counts)
    return bytes(head) + body + b"".join(headers)


@pytest.mark.parametrize("bits", [32, 64])
@pytest.mark.parametrize("order", ["<", ">"])
@pytest.mark.parametrize(
    ("changed", "expected"),
    [
        ((1, b"DATA"), ".data"),
        ((2, b"MORE and longer"), ".text"),
        ((3, b"g++"), ".comment"),
        ((0, b"code"), ""),
    ],
)
def test_the_first_section_that_differs_is_named(
    bits: int, order: str, changed: tuple[int, bytes], expected: str
) -> None:
    other = list(PARTS)
    other[changed[0]] = (other[changed[0]][0], changed[1])
    mine, there = (elf(tuple(p), bits=bits, order=order) for p in (PARTS, other))
    assert differing_section(mine, there) == expected


def test_a_section_that_only_one_file_has_is_not_named() -> None:
    other = ((".secret", b"x"), *PARTS)
    assert differing_section(elf(), elf(other)) == differing_section(elf(other), elf()) == ""


@pytest.mark.parametrize("data", [b"", b"\x7fELF", b"\x7fELF\x03\x01" + bytes(100), b"text"])
def test_what_is_no_object_has_no_sections(data: bytes) -> None:
    assert differing_section(elf(), data) == differing_section(data, elf()) == ""


def test_a_name_that_would_control_a_terminal_is_none() -> None:
    hostile = ((".\x1b[2J", b"a"), ("x" * 65, b"a"), (". x", b"a"))
    other = tuple((name, b"b") for name, _ in hostile)
    assert differing_section(elf(hostile), elf(other)) == ""
    assert differing_sections(elf((*hostile, *PARTS)), elf((*other, *PARTS))) == ((), ())


def test_all_sections_that_differ_are_named_once_and_those_of_one_object_apart() -> None:
    mine = ((".a", b"1"), (".text", b"x"), (".text", b"y"), (".b", b"2"), (".one", b"3"))
    other = ((".two", b"4"), (".b", b"3"), (".text", b"X"), (".text", b"Y"), (".a", b"1"))
    found = differing_sections(elf(mine), elf(other))
    assert found == ((".text", ".b"), (".one", ".two"))
    assert differing_sections(elf(), elf()) == ((), ())
    assert differing_sections(elf(), b"text") is differing_sections(b"", elf()) is None


@given(st.binary(max_size=40), st.binary(max_size=40), st.binary(max_size=40))
def test_the_first_byte_that_differs_is_found(start: bytes, mine: bytes, other: bytes) -> None:
    at = common_prefix(start + mine, start + other)
    expected = next(
        (n for n, (a, b) in enumerate(zip(mine, other, strict=False)) if a != b),
        min(len(mine), len(other)),
    )
    assert at == len(start) + expected


@given(st.data())
def test_a_damaged_object_is_read_to_an_end(data: st.DataObject) -> None:
    damaged = bytearray(elf(bits=data.draw(st.sampled_from([32, 64]))))
    for _ in range(data.draw(st.integers(1, 6))):
        at = data.draw(st.integers(0, len(damaged)))
        damaged[at : at + data.draw(st.integers(0, 8))] = data.draw(st.binary(max_size=8))
    name = differing_section(bytes(damaged), elf())
    assert name in {"", ".shstrtab", *(part for part, _ in PARTS)}
