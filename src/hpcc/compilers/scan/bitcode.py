"""What LLVM bitcode names: the modules of an index of ThinLTO, and files for the assembler.

Problem: a back end of ThinLTO (`clang -x ir A.o -fthinlto-index=A.o.thinlto.bc`) writes no depfile.
It reads parts of other modules, and Clang's assembler reads what `.incbin` in one of them names.

Rule: LLVM opens other modules only by the paths in the index (`MODULE_STRTAB_BLOCK`), so all of
these are inputs. LLVM stores text for the assembler character by character, each as two chunks of
six bits (VBR6), at any bit. So a directive is a fixed pattern of bits, which is searched for.

What must never happen: an index is read in part, or another form of bitcode (text, a wrapper, an
archive) passes for one without directives. Whatever is not read as a whole is None or True.

Sources: LLVM Bitcode File Format; LLVM 19, BitcodeWriter.cpp (`writeModStrings`,
`writeStringRecord`, `writeConstants`) and AsmParser.cpp. `tests/integration/cache/test_thinlto.py`
asks Clang 14, 17 and 19.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator
from functools import cache
from typing import Final, NamedTuple

MAGIC: Final = b"BC\xc0\xde"

_MODULE_BLOCK: Final = 8
_BLOCK_INFO: Final = 0
_NAMES_BLOCK: Final = 19  # MODULE_STRTAB_BLOCK_ID
_NAME, _HASH = 1, 2
_MAX_NAME: Final = 4096
_MAX_NAMES: Final = 50_000
_MAX_FIELDS: Final = 5_000_000
_CHAR6: Final = b"abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789._"
_END, _SUBBLOCK, _DEFINE, _UNABBREVIATED = 0, 1, 2, 3
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
        while bits.at < bits.end:
            if bits.fixed(2) != _SUBBLOCK:
                return None
            has_table |= _block(bits, (), names)
    except _OddError:
        return None
    return tuple(names) if has_table else None


def _block(bits: _Bits, way: tuple[int, ...], names: dict[bytes, None]) -> bool:
    """Read a block behind its abbreviation id; return whether it is or has the table of names.

    What does not lead there is skipped.
    """
    block, inner = bits.vbr(8), bits.vbr(4)
    bits.align()
    end = bits.at + _WORD_BITS + _WORD_BITS * bits.fixed(_WORD_BITS)
    if end > bits.end or block == _BLOCK_INFO:  # that could change the form of names
        raise _OddError
    way = (*way, block)
    if way not in {(_MODULE_BLOCK,), (_MODULE_BLOCK, _NAMES_BLOCK)}:
        bits.at = end
        return False
    has_table = block == _NAMES_BLOCK
    abbreviations: list[list[_Operand]] = []
    while True:
        kind = bits.fixed(inner)
        if kind == _END:
            bits.align()
            if bits.at != end:
                raise _OddError
            return has_table
        if kind == _SUBBLOCK:
            has_table |= _block(bits, way, names)
        elif kind == _DEFINE:
            abbreviations.append(_definition(bits))
        else:
            record = _record(bits, kind, abbreviations)
            if block == _NAMES_BLOCK:
                _note(record, names)
        if bits.at > end:
            raise _OddError


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


def _record(bits: _Bits, kind: int, abbreviations: list[list[_Operand]]) -> list[int]:
    """Return code and values of a record."""
    if kind == _UNABBREVIATED:
        return [bits.vbr(6), *(bits.vbr(6) for _ in range(_count(bits)))]
    if kind - 4 >= len(abbreviations):
        raise _OddError
    operands = abbreviations[kind - 4]
    values: list[int] = []
    for number, operand in enumerate(operands):
        if operand.kind == _ARRAY:
            if number != len(operands) - 2:
                raise _OddError
            values += [_value(bits, operands[-1]) for _ in range(_count(bits))]
            return values
        values.append(_value(bits, operand))
    return values


def _count(bits: _Bits) -> int:
    """Return how many values follow. A literal takes no bits, so their number needs a limit."""
    count = bits.vbr(6)
    if count > _MAX_NAME:
        raise _OddError
    return count


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
        case _:  # LLVM has no blob here, and no array in an array
            raise _OddError


def _note(record: list[int], names: dict[bytes, None]) -> None:
    code, *values = record or [0]
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
# A symbol may have such a name, and be an operand. Names are bytes.
_SYMBOL: Final = re.compile(rb"\.inc(?:bin|lude)", re.IGNORECASE)
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
    if not data.startswith(MAGIC) or _SYMBOL.search(data):
        return True
    return any(pattern.is_in(data) for pattern in _patterns())
