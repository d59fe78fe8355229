"""Names in an index of ThinLTO and text for the assembler, from bits as LLVM writes them."""

from __future__ import annotations

import random
from collections.abc import Iterable

import pytest
from hypothesis import given
from hypothesis import strategies as st

from hpcc.compilers.scan.bitcode import MAGIC, may_direct_assembler, modules_of_index


class _Writer:
    """Writes a bit stream; `words` are the values of its bits, the lowest first."""

    def __init__(self) -> None:
        self.bits: list[int] = []

    def fixed(self, value: int, width: int) -> None:
        self.bits += [value >> n & 1 for n in range(width)]

    def vbr(self, value: int, width: int) -> None:
        while value >= 1 << width - 1:
            self.fixed(value & (1 << width - 1) - 1 | 1 << width - 1, width)
            value >>= width - 1
        self.fixed(value, width)

    def align(self) -> None:
        self.bits += [0] * (-len(self.bits) % 32)

    def block(self, number: int, inside: _Writer, width: int) -> None:
        """Write a block whose abbreviation ids have four bits, in one where they have `width`."""
        self.fixed(1, width)
        self.vbr(number, 8)
        self.vbr(4, 4)
        self.align()
        inside.fixed(0, 4)
        inside.align()
        self.fixed(len(inside.bits) // 32, 32)
        self.bits += inside.bits

    def record(self, *values: int) -> None:
        self.fixed(3, 4)
        self.vbr(values[0], 6)
        self.vbr(len(values) - 1, 6)
        for value in values[1:]:
            self.vbr(value, 6)

    def data(self) -> bytes:
        self.align()
        return bytes(
            sum(bit << n for n, bit in enumerate(self.bits[start : start + 8]))
            for start in range(0, len(self.bits), 8)
        )


def _index(names: Iterable[bytes], *, extra: Iterable[tuple[int, ...]] = ()) -> bytes:
    inside, module, whole = _Writer(), _Writer(), _Writer()
    # DEFINE_ABBREV: a literal 1, VBR 8, an array of eight bits.
    inside.fixed(2, 4)
    inside.vbr(4, 5)
    inside.fixed(1, 1)
    inside.vbr(1, 8)
    for kind, width in ((2, 8), (3, 0), (1, 8)):
        inside.fixed(0, 1)
        inside.fixed(kind, 3)
        if width:
            inside.vbr(width, 5)
    for number, name in enumerate(names):
        if number % 2:
            inside.record(1, number, *name)
        else:
            inside.fixed(4, 4)
            inside.vbr(number, 8)
            inside.vbr(len(name), 6)
            for char in name:
                inside.fixed(char, 8)
        inside.record(2, 1, 2, 3, 4, 5)  # its hash
    for record in extra:
        inside.record(*record)
    module.record(1, 2)  # a version
    skipped = _Writer()
    skipped.record(1, 7)
    module.block(20, skipped, 4)
    module.block(19, inside, 4)
    whole.block(13, _Writer(), 2)
    whole.block(8, module, 2)
    return MAGIC + whole.data()


_NAMES = st.lists(
    st.binary(min_size=1, max_size=40).filter(lambda n: 0 not in n), max_size=6, unique=True
)


@given(_NAMES)
def test_every_name_is_found(names: list[bytes]) -> None:
    assert modules_of_index(_index(names)) == tuple(names)


def test_an_index_that_is_cut_off_is_none() -> None:
    whole = _index([b"lib/a.o", b"lib/b.o"])
    for length in range(1, len(whole)):
        assert modules_of_index(whole[:length]) is None, length


@pytest.mark.parametrize(
    "data",
    [
        b"\xde\xc0\x17\x0b" + bytes(16) + _index([b"a.o"]),  # a wrapper
        b"; ModuleID\n",
        _index([b"a\0.o"]),
        _index([], extra=[(3, 1)]),
        _index([b"a" * 4097]),
        MAGIC + b"\xff" * 64,
    ],
)
def test_an_odd_index_is_none(data: bytes) -> None:
    assert modules_of_index(data) is None


def test_an_array_of_literals_takes_no_memory() -> None:
    """A literal has no bits, so nothing bounds how many there are, and LLVM writes none."""
    inside, module, whole = _Writer(), _Writer(), _Writer()
    inside.fixed(2, 4)
    inside.vbr(3, 5)
    for kind in (None, 3, None):
        inside.fixed(kind is None, 1)
        if kind is None:
            inside.vbr(1, 8)
        else:
            inside.fixed(kind, 3)
    inside.fixed(4, 4)
    inside.vbr(40, 6)
    module.block(19, inside, 4)
    whole.block(8, module, 2)
    assert modules_of_index(MAGIC + whole.data()) is None


def test_an_empty_index_names_none() -> None:
    assert modules_of_index(b"") == ()


@given(st.binary(max_size=300))
def test_any_bytes_are_an_answer(data: bytes) -> None:
    for text in (data, MAGIC + data):
        found = modules_of_index(text)
        assert found is None or all(0 < len(name) <= 4096 for name in found)


def _module(
    *symbols: bytes, text: bytes = b"", shift: int = 0, version: int = 2, set_block: int = 17
) -> bytes:
    """Return a module as LLVM writes it: `text` is its assembler text, `shift` bits further."""
    form, module, skipped, whole = (_Writer() for _ in range(4))
    form.record(1, set_block)
    form.fixed(2, 4)
    form.vbr(1, 5)
    form.fixed(0, 1)
    form.fixed(3, 3)
    module.record(1, version)
    module.block(0, form, 4)
    skipped.fixed(random.Random(1).getrandbits(32), shift)
    for char in text:
        skipped.vbr(char, 6)
    module.block(20, skipped, 4)
    start = 0
    for number, symbol in enumerate(symbols):
        module.record((7, 8, 14, 15)[number % 4], start, len(symbol), 1, 2)
        start += len(symbol)
    whole.block(13, _Writer(), 2)
    whole.block(8, module, 2)
    whole.block(23, _strings(b"".join(symbols)), 2)
    return MAGIC + whole.data()


def _strings(table: bytes) -> _Writer:
    inside = _Writer()
    inside.fixed(2, 4)
    inside.vbr(2, 5)
    inside.fixed(1, 1)
    inside.vbr(1, 8)
    inside.fixed(0, 1)
    inside.fixed(5, 3)
    inside.fixed(4, 4)
    inside.vbr(len(table), 6)
    # The block begins at a word, so its words are those of the file.
    inside.align()
    for char in table:
        inside.fixed(char, 8)
    inside.align()
    return inside


_WORDS = (b".incbin", b".INCLUDE", b".InC", b".macro", b".irpc", b".$0", b".$9", b".${0:c}")


@pytest.mark.parametrize("word", _WORDS, ids=repr)
def test_a_directive_is_found_at_every_bit(word: bytes) -> None:
    for shift in range(32):
        assert may_direct_assembler(_module(text=b"nop;" + word + b" x", shift=shift)), shift


@pytest.mark.parametrize("text", [b"nop; lock; addl $5, %eax", b".section x", b".p2align 4, 0x90"])
def test_other_text_for_the_assembler_is_none(text: bytes) -> None:
    for shift in range(8):
        assert not may_direct_assembler(_module(text=text, shift=shift))


@pytest.mark.parametrize(
    "name", [b".", b".i", b".IN", b".incbin", b".include.x", b"\x01.in", b".macr", b".irpc"]
)
def test_the_name_of_a_symbol_may_begin_a_directive(name: bytes) -> None:
    for before in range(4):
        assert may_direct_assembler(_module(*[b"f"] * before, name)), before


def test_other_names_of_symbols_begin_none() -> None:
    assert not may_direct_assembler(_module(b"", b".str", b"incbin", b"x.i", b".L.i", b".rodata"))


def test_a_module_whose_names_are_elsewhere_may_direct_the_assembler() -> None:
    whole = _module(b"main")
    assert not may_direct_assembler(whole)
    assert may_direct_assembler(_module(b"main", version=1))
    # A form of records that would hide them.
    assert may_direct_assembler(_module(b"main", set_block=8))
    for length in range(len(whole)):
        assert may_direct_assembler(whole[:length]), length
    # Two tables of names; none; no module.
    tables = _Writer()
    tables.block(23, _strings(b"main"), 2)
    assert may_direct_assembler(whole + tables.data())
    only = _Writer()
    only.block(13, _Writer(), 2)
    assert may_direct_assembler(MAGIC + only.data())
    assert may_direct_assembler(MAGIC + only.data() + tables.data())


@given(st.binary(max_size=300))
def test_any_bytes_have_an_answer(data: bytes) -> None:
    assert may_direct_assembler(MAGIC + data) in {True, False}


@pytest.mark.parametrize("data", [b"", b"; ModuleID", b"\x7fELF", b"!<arch>\n"])
def test_what_is_no_bitcode_may_direct_it(data: bytes) -> None:
    assert may_direct_assembler(data)
