"""What LLVM bitcode names: the modules of an index of ThinLTO, and files for the assembler.

Problem: a back end of ThinLTO (`clang -x ir A.o -fthinlto-index=A.o.thinlto.bc`) writes no depfile.
It reads parts of other modules, and Clang's assembler reads what `.incbin` in one of them names.

Rule: LLVM opens other modules only by the paths in the index (`MODULE_STRTAB_BLOCK`), so all of
these are inputs. LLVM stores text for the assembler character by character, each as two chunks of
six bits (VBR6), at any bit. So a directive is a fixed pattern of bits, which is searched for.
A symbol may be an operand of that text, so its name may begin a directive: names are read too.

What must never happen: an index is read in part, or another form of bitcode (text, a wrapper, an
archive) passes for one without directives. Whatever is not read as a whole is None or True.

Sources: LLVM Bitcode File Format; LLVM 19, BitcodeWriter.cpp (`writeModStrings`,
`writeStringRecord`, `writeConstants`) and AsmParser.cpp. `tests/integration/cache/test_thinlto.py`
asks Clang 14, 17 and 19.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Set
from functools import cache
from typing import Final, NamedTuple

MAGIC: Final = b"BC\xc0\xde"

_MODULE_BLOCK: Final = 8
_BLOCK_INFO: Final = 0
_STRING_BLOCK: Final = 23  # STRTAB_BLOCK_ID
_NAMES_BLOCK: Final = 19  # MODULE_STRTAB_BLOCK_ID
_NAME, _HASH = 1, 2
_VERSION: Final = 1
_NAMES_IN_STRINGS: Final = 2
# MODULE_CODE_GLOBALVAR, FUNCTION, ALIAS and IFUNC; the old alias (9) has its name elsewhere.
_HAVE_NAMES: Final = frozenset((7, 8, 14, 15))
_MAX_NAME: Final = 4096
_MAX_NAMES: Final = 50_000
_MAX_FIELDS: Final = 5_000_000
_CHAR6: Final = b"abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789._"
_END, _SUBBLOCK, _DEFINE, _UNABBREVIATED = 0, 1, 2, 3
_SET_BLOCK: Final = 1  # BLOCKINFO_CODE_SETBID
_FIXED, _VBR, _ARRAY, _CHAR, _BLOB = 1, 2, 3, 4, 5
_MAX_WIDTH: Final = 64
_WORD_BITS: Final = 32
_BYTE: Final = 255


class _OddError(Exception):
    """The bytes are not bitcode of the form that LLVM writes."""


class _Operand(NamedTuple):
    """One operand of an abbreviation; `kind` 0 is a literal with `value`."""

    kind: int
    value: int


class _Bits:
    """Reads fields of a bit stream. `fields` bounds the work."""

    def __init__(self, data: bytes) -> None:
        self.data, self.at, self.end = data, 0, 8 * len(data)
        self.fields = 0

    def fixed(self, width: int) -> int:
        """Return the next `width` bits."""
        self.fields += 1
        if width > _MAX_WIDTH or self.at + width > self.end or self.fields > _MAX_FIELDS:
            raise _OddError
        start, shift = divmod(self.at, 8)
        self.at += width
        piece = int.from_bytes(self.data[start : start + 9], "little")
        return piece >> shift & (1 << width) - 1

    def vbr(self, width: int) -> int:
        """Return a number in chunks of `width` bits, the last without its highest bit."""
        if width <= 1:
            raise _OddError
        value = shift = 0
        more = 1 << width - 1
        while True:
            piece = self.fixed(width)
            value |= (piece & more - 1) << shift
            if not piece & more:
                return value
            shift += width - 1
            if shift > _MAX_WIDTH:
                raise _OddError

    def align(self) -> None:
        """Skip to the next word."""
        self.at = -(-self.at // _WORD_BITS) * _WORD_BITS

    def blob(self) -> bytes:
        """Return bytes behind their number, between words."""
        length = self.vbr(6)
        self.align()
        start = self.at // 8
        self.at += 8 * length
        self.align()
        if self.at > self.end:
            raise _OddError
        return self.data[start : start + length]


def modules_of_index(data: bytes) -> tuple[bytes, ...] | None:
    """Return the paths of modules in an index of ThinLTO, each once; None if it cannot be read.

    An empty index is legal, and names none.
    """
    if not data:
        return ()
    if not data.startswith(MAGIC):
        return None
    bits = _Bits(data)
    bits.at = 8 * len(MAGIC)
    names: dict[bytes, None] = {}
    has_table = False
    try:
        for way, record in _records(bits, {(_MODULE_BLOCK,), _TABLE}):
            has_table |= way == _TABLE
            if way == _TABLE and record is not None:
                _note(record.values, names)
    except _OddError:
        return None
    return tuple(names) if has_table else None


_Way = tuple[int, ...]
_TABLE: Final = (_MODULE_BLOCK, _NAMES_BLOCK)


class _Record(NamedTuple):
    """The code and the values of a record; `blob` is empty for most."""

    values: list[int]
    blob: bytes = b""


def _records(bits: _Bits, wanted: Set[_Way]) -> Iterator[tuple[_Way, _Record | None]]:
    """Yield the beginning (None) and the records of each block in `wanted`; skip the others."""
    while bits.at < bits.end:
        if bits.fixed(2) != _SUBBLOCK:
            raise _OddError
        yield from _block(bits, (), wanted)


def _block(bits: _Bits, way: _Way, wanted: Set[_Way]) -> Iterator[tuple[_Way, _Record | None]]:
    """Read a block behind its abbreviation id."""
    block, inner = bits.vbr(8), bits.vbr(4)
    bits.align()
    end = bits.at + _WORD_BITS + _WORD_BITS * bits.fixed(_WORD_BITS)
    if end > bits.end:
        raise _OddError
    way = (*way, block)
    if block == _BLOCK_INFO:
        _check_other_blocks(bits, inner, end, wanted)
        return
    if way not in wanted:
        bits.at = end
        return
    yield way, None
    abbreviations: list[list[_Operand]] = []
    while (kind := bits.fixed(inner)) != _END:
        if kind == _SUBBLOCK:
            yield from _block(bits, way, wanted)
        elif kind == _DEFINE:
            abbreviations.append(_definition(bits))
        else:
            yield way, _record(bits, kind, abbreviations)
        if bits.at > end:
            raise _OddError
    bits.align()
    if bits.at != end:
        raise _OddError


def _check_other_blocks(bits: _Bits, inner: int, end: int, wanted: Set[_Way]) -> None:
    """Read forms (`BLOCKINFO`) of blocks that are skipped; those of others are odd."""
    blocks = {way[-1] for way in wanted}
    while (kind := bits.fixed(inner)) != _END:
        if kind == _DEFINE:
            _definition(bits)
        elif kind != _UNABBREVIATED or _is_form_of(_record(bits, kind, []).values, blocks):
            raise _OddError
    bits.align()
    if bits.at != end:
        raise _OddError


def _is_form_of(record: list[int], blocks: Set[int]) -> bool:
    """Return whether abbreviations behind the record may be of one of the blocks."""
    return record[0] != _SET_BLOCK or len(record) != len((_SET_BLOCK, 0)) or record[1] in blocks


def _definition(bits: _Bits) -> list[_Operand]:
    found = []
    for _ in range(bits.vbr(5)):
        if bits.fixed(1):
            found.append(_Operand(0, bits.vbr(8)))
            continue
        kind = bits.fixed(3)
        if not _FIXED <= kind <= _BLOB:
            raise _OddError
        found.append(_Operand(kind, bits.vbr(5) if kind in {_FIXED, _VBR} else 0))
    return found


def _record(bits: _Bits, kind: int, abbreviations: list[list[_Operand]]) -> _Record:
    if kind == _UNABBREVIATED:
        return _Record([bits.vbr(6), *(bits.vbr(6) for _ in range(bits.vbr(6)))])
    if kind - 4 >= len(abbreviations):
        raise _OddError
    operands = abbreviations[kind - 4]
    values: list[int] = []
    for number, operand in enumerate(operands):
        left = len(operands) - number
        if operand.kind == _ARRAY:
            # A literal takes no bits, so their number has no limit.
            if left != 2 or not operands[-1].kind:  # noqa: PLR2004 - the array and its elements
                raise _OddError
            values += [_value(bits, operands[-1]) for _ in range(bits.vbr(6))]
            break
        if operand.kind == _BLOB:
            if left != 1:
                raise _OddError
            return _Record(values, bits.blob())
        values.append(_value(bits, operand))
    if not values:
        raise _OddError
    return _Record(values)


def _value(bits: _Bits, operand: _Operand) -> int:
    match operand.kind:
        case 0:
            return operand.value
        case 1:
            return bits.fixed(operand.value)
        case 2:
            return bits.vbr(operand.value)
        case 4:
            return _CHAR6[bits.fixed(6)]
        case _:  # an array or a blob in an array
            raise _OddError


def _note(record: list[int], names: dict[bytes, None]) -> None:
    code, *values = record
    if code == _HASH:
        return
    text = values[1:]
    is_name = code == _NAME and 0 < len(text) <= _MAX_NAME and all(0 < c <= _BYTE for c in text)
    if not is_name or len(names) >= _MAX_NAMES:
        raise _OddError
    names[bytes(text)] = None


# ---- text for the assembler ----

# `.include` and `.incbin`, and what may make one of its arguments: macros, and operands of `asm`
# (`.$0`, `.${0:c}`) or alternatives (`.$(i$|j$)`) behind its beginning. Clang's assembler does not
# care about case. "?" is any digit.
_WORDS: Final = (
    *(b".inc", b".mac", b".irp"),
    *(b".$?", b".${", b".$(", b".$|", b".$)"),
    *(b".i$", b".in$", b".ir$", b".m$", b".ma$"),
)
# What begins the name of a symbol; the text may add the rest of a directive.
_DIRECTIVES: Final = (b".incbin", b".include", b".macro", b".irp")
_DIGIT: Final = ord("?")
_ANY: Final = 2  # a bit that may be either


def _chunks(word: bytes) -> list[int]:
    """Return the bits of a word in VBR6, the lowest of each chunk first."""
    found: list[int] = []
    for char in word:
        is_letter, is_digit = bytes([char]).isalpha(), char == _DIGIT
        low = [char >> n & 1 for n in range(5)]
        high = [char >> 5 & 1, char >> 6 & 1, 0, 0, 0, 0]
        if is_digit:
            low, high = [_ANY, _ANY, _ANY, _ANY, 1], [1, 0, 0, 0, 0, 0]
        elif is_letter:
            high[0] = _ANY  # 0x40 or 0x60
        found += [*low, 1, *high]
    return found


def _classes(bits: Iterable[int]) -> Iterator[bytes]:
    """Yield the values that each byte may have; a byte begins with the lowest of eight bits."""
    row = list(bits)
    row += [_ANY] * (-len(row) % 8)
    for start in range(0, len(row), 8):
        byte = row[start : start + 8]
        yield bytes(
            n for n in range(256) if all(b in {_ANY, n >> i & 1} for i, b in enumerate(byte))
        )


class _Pattern(NamedTuple):
    """A word at one shift. `before` are the values of the byte before the match; b"": any.

    The expression begins with a byte that has one value, which makes the search ten times as fast.
    """

    expression: re.Pattern[bytes]
    before: bytes

    def is_in(self, data: bytes) -> bool:
        """Return whether the word is there."""
        found = self.expression.search(data)
        while found is not None:
            start = found.start()
            if not self.before or (start and data[start - 1] in self.before):
                return True
            found = self.expression.search(data, start + 1)
        return False


def _pattern(word: bytes, shift: int) -> _Pattern:
    classes = list(_classes([*([_ANY] * shift), *_chunks(word)]))
    before = classes.pop(0) if shift else b""
    text = b"".join(b"[" + b"".join(b"\\x%02x" % n for n in c) + b"]" for c in classes)
    assert len(classes[0]) == 1
    return _Pattern(re.compile(re.escape(classes[0]) + text[len(b"[\\xff]") :], re.DOTALL), before)


@cache
def _patterns() -> tuple[_Pattern, ...]:
    """Return the patterns, which take 40 ms to make: few people have bitcode."""
    return tuple(_pattern(word, shift) for word in _WORDS for shift in range(8))


def may_direct_assembler(data: bytes) -> bool:
    """Return whether text in a module may make the assembler read a file, or it is not bitcode."""
    if not data.startswith(MAGIC):
        return True
    symbols = _symbols(data)
    if symbols is None or any(_may_begin_directive(name) for name in symbols):
        return True
    return any(pattern.is_in(data) for pattern in _patterns())


def _may_begin_directive(symbol: bytes) -> bool:
    # `\1` says that the rest is the name for the assembler.
    name = symbol.removeprefix(b"\x01").lower()
    return bool(name) and any(w.startswith(name) or name.startswith(w) for w in _DIRECTIVES)


def _symbols(data: bytes) -> set[bytes] | None:
    """Return the names of symbols in bitcode; None if it has no module, or they cannot be read."""
    bits = _Bits(data)
    bits.at = 8 * len(MAGIC)
    places: list[tuple[int, int]] = []
    tables: list[bytes] = []
    modules = versions = 0
    try:
        for (block, *_), record in _records(bits, {(_MODULE_BLOCK,), (_STRING_BLOCK,)}):
            if record is None:
                modules += block == _MODULE_BLOCK
            elif block == _STRING_BLOCK:
                tables.append(record.blob)
            elif record.values[0] == _VERSION:
                versions += record.values[1:] == [_NAMES_IN_STRINGS]
            elif record.values[0] in _HAVE_NAMES:
                _code, start, length, *_others = record.values
                places.append((start, start + length))
    except (_OddError, ValueError):
        return None
    if not modules or versions != modules or len(tables) != 1:
        return None
    (table,) = tables
    if any(end > len(table) for _start, end in places):
        return None
    return {table[start:end] for start, end in places}
