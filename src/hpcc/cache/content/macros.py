"""Tells whether two compiles that differ in `-D` and `-U` get the same text from the preprocessor.

Problem: a build system gives each target its macros. CMake defines `NAME_EXPORTS` for each shared
library, and the same source goes into a static one without it. Mostly no file reads that macro.

Rule: a macro that no file reads changes no token. A file reads it if its name stands there as a
word, or if `##` or a string of `_Pragma` could put the name together. So the name must not be a row
of words of the inputs and of the command line. Digits count as words, because `__LINE__` and its
like give any number, and so do the words of macros that compilers define themselves. In C++ the
words of the library's headers give most names. GCC then tells which macros it uses (`-dU`), and
Clang does not.

Otherwise a definition shows in messages (a redefinition, a hint with a similar name), in macro
debug information, and by mistakes in its value. So a result with messages does not count
(`results.contents`), nor do `-g3`, names that a compiler could know, and values of more than plain
words.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from functools import partial
from types import MappingProxyType
from typing import Final, NamedTuple

from hpcc.cache.base.files import FileMemo
from hpcc.cache.base.manifest import InputSet
from hpcc.cache.base.uncacheable import UncacheableError
from hpcc.cache.content.entries import ContentEntry
from hpcc.cache.content.values import without_definitions
from hpcc.cache.inputs.discovery import answer_about
from hpcc.cache.inputs.pragmas import is_preprocessor_blind
from hpcc.cache.key.prepare import Prepared
from hpcc.compilers.invocation.comment_flags import reading_mode
from hpcc.compilers.invocation.content import ContentForm
from hpcc.compilers.scan.comments import LexMode, comment_free
from hpcc.compilers.scan.text import joined
from hpcc.core.reasons.uncacheable import UncacheableReason

# No compiler for Linux defines such a name, and no warning is about it.
_NAME: Final = re.compile(
    rb"(?=[A-Za-z0-9_]*[A-Z])(?!LANGUAGE_|SYSTYPE_)[A-Za-z](?:_?[A-Za-z0-9])+"
)
_PREDEFINED: Final = re.compile(rb"[A-Z]{1,3}|MIPSE[BL]|[A-Z]{1,2}[0-9]+[A-Z]?")
_DEFINED: Final = re.compile(
    rb'D[A-Za-z0-9_]+(?:=(?:(?![A-Za-z0-9_.+-]*__)[A-Za-z0-9_.+-]*|"[A-Za-z0-9_./:@ +-]*"))?'
)
_UNDEFINED: Final = re.compile(rb"U[A-Za-z0-9_]+")
# What macros of the compilers expand to, besides numbers: types, prefixes and suffixes of names.
_KNOWN_WORDS: Final = (
    b"long unsigned signed int char short float double const inline extension attribute"
    b" L UL ULL LL U F C Q W f l u _ __attribute__ __extension__ __inline __const"
)
_USE: Final = re.compile(rb"^#(?:define|undef) ([A-Za-z0-9_]+)", re.MULTILINE)
# -Wp,-DNAME
_WRAPPED: Final = re.compile(rb",-[DU]")
_MAX_NAME_BYTES: Final = 128
_MAX_NAMES: Final = 16
# In a name, at which words may meet. Each costs a search in all texts that was not made before.
_MAX_PLACES: Final = 24
# `$` is a letter of names in C, but not in assembler sources (`movl $SIZE, %eax`), nor with
# -fno-dollars-in-identifiers. No name that is looked for holds one, so it may always end a word.
_WORD: Final = rb"A-Za-z0-9_"


def has_same_text(
    memo: FileMemo, prepared: Prepared, form: ContentForm, inputs: InputSet, entry: ContentEntry
) -> bool:
    """Tell whether a compile gets the text of an entry's compile from the preprocessor.

    `form` is the asking compile's, and `inputs` are the entry's with its paths; they hold.
    Messages may differ.
    """
    one, other = form.macros, entry.macros
    if one == other:
        return True
    names = _differing(one, other)
    if names is None:
        return False
    # A definition that both have is text. The others are not, unless a file reads their names.
    said = said_by(form, (d for d in one if d in other))
    if MacroTexts(memo, inputs.files, said).are_read(prepared, frozenset(names)):
        return False
    return inputs.holds(memo)  # it took time


class MacroTexts(NamedTuple):
    """The texts of a compile: its files with their plain digests, and what its command line says.

    In the files `edited` plain definitions of these macros do not count (`content.values`).
    `mode` says how the compiler reads comments; with None they count as text.
    """

    memo: FileMemo
    files: tuple[tuple[bytes, bytes], ...]
    said: bytes
    edited: Mapping[bytes, frozenset[bytes]] = MappingProxyType({})
    mode: LexMode | None = None

    def are_read(self, prepared: Prepared, names: frozenset[bytes]) -> bool:
        """Tell whether the compile may read one of these macros. May run the preprocessor."""
        texts = self._replace(mode=reading_mode(prepared.invocation))
        if any(map(texts.have_word, names)):
            return True
        doubtful = frozenset(name for name in names if texts.may_read(name))
        return bool(doubtful) and _uses(self.memo, prepared, self.files, doubtful)

    def have_word(self, word: bytes) -> bool:
        """Tell whether a word stands in one of the texts."""
        return len(word) in self._lengths(word)

    def may_read(self, name: bytes) -> bool:
        """Tell whether words of the texts, put together, can give the name."""
        seen, left = {0}, [0]
        while left:
            rest = name[left.pop() :]
            for length in self._lengths(rest):
                end = len(name) - len(rest) + length
                if end == len(name):
                    return True
                if end not in seen:
                    if len(seen) >= _MAX_PLACES:
                        return True
                    seen.add(end)
                    left.append(end)
        return False

    def _lengths(self, rest: bytes) -> frozenset[int]:
        """Return how long words of the texts are with which `rest` begins."""
        found = words_at_start(_KNOWN_WORDS + b" " + self.said, rest)
        for path, digest in self.files:
            without = self.edited.get(path, frozenset())
            more = self.memo.derived(
                path, digest, ("words-at-start", rest, without, self.mode),
                partial(_words_without, names=without, rest=rest, mode=self.mode),
            )  # fmt: skip
            found |= _every(rest) if more is None else more
        return found


def said_by(form: ContentForm, macros: Iterable[bytes]) -> bytes:
    """Return the words of a command line, with these of its `-D` and `-U`."""
    plain = b" ".join(piece for piece in form.pieces if isinstance(piece, bytes))
    return b" ".join((_WRAPPED.sub(b", ", plain), *(macro[1:] for macro in macros)))


def _uses(
    memo: FileMemo,
    prepared: Prepared,
    files: tuple[tuple[bytes, bytes], ...],
    names: frozenset[bytes],
) -> bool:
    """Tell whether the preprocessor expands or tests one of the macros, or cannot tell."""
    family = prepared.family
    argv = family.macro_use_command(prepared.request.compiler, prepared.invocation)
    if argv is None or is_preprocessor_blind(memo, prepared, (path for path, _ in files)):
        return True
    try:
        text = answer_about(prepared, argv, lambda: False, UncacheableReason.EXPANSION_FAILED)
    except UncacheableError:
        return True
    return any(match[1] in names for match in _USE.finditer(text))


def _differing(one: tuple[bytes, ...], other: tuple[bytes, ...]) -> tuple[bytes, ...] | None:
    """Return the names that are not defined alike; None if a definition could show by itself."""
    first, second = _by_name(one), _by_name(other)
    names = tuple(n for n in {**first, **second} if first.get(n) != second.get(n))
    if len(names) > _MAX_NAMES:
        return None
    for name in names:
        sides = (first.get(name, ()), second.get(name, ()))
        if max(map(len, sides)) > 1 or not is_plain_name(name):
            return None
        for definition in (*sides[0], *sides[1]):
            if not (_DEFINED.fullmatch(definition) or _UNDEFINED.fullmatch(definition)):
                return None
    return names


def is_plain_name(name: bytes) -> bool:
    """Tell whether no compiler knows such a name, and no warning is about it."""
    is_known = _PREDEFINED.fullmatch(name) is not None
    return len(name) <= _MAX_NAME_BYTES and _NAME.fullmatch(name) is not None and not is_known


def _by_name(definitions: tuple[bytes, ...]) -> dict[bytes, tuple[bytes, ...]]:
    found: dict[bytes, tuple[bytes, ...]] = {}
    for definition in definitions:
        name = re.split(rb"[=(]", definition[1:], maxsplit=1)[0]
        found[name] = (*found.get(name, ()), definition)
    return found


def _words_without(
    text: bytes, names: frozenset[bytes], rest: bytes, mode: LexMode | None
) -> frozenset[int]:
    text = without_definitions(text, names) if names else text
    return words_at_start(text, rest, mode)


def words_at_start(text: bytes, rest: bytes, mode: LexMode | None = None) -> frozenset[int]:
    """Return the lengths of the words in `text` with which `rest` begins.

    All lengths if a trigraph may join lines, or if `rest` begins with a digit. Comments count as
    text unless each compiler finds them in this mode where `comment_free` does: a quote in a
    skipped block, a separator of digits, or slashes in C90 and in a header's name could hide code.
    """
    if rest[:1].isdigit() or b"??/" in text:
        return _every(rest)
    if rest[:1] not in text:
        return frozenset()
    found = _starts(text, rest)
    if found and mode is not None and (form := comment_free(text, mode)) is not None:
        return _starts(form.text, rest)
    return found


def _starts(text: bytes, rest: bytes) -> frozenset[int]:
    # Lines that a backslash splits are not joined in a raw string.
    pieces = {text, joined(text)}
    pattern = re.compile(rb"(?<![%b])%b[%b]*" % (_WORD, re.escape(rest[:1]), _WORD))
    found = {word for piece in pieces for word in pattern.findall(piece)}
    return frozenset(len(word) for word in found if rest.startswith(word))


def _every(rest: bytes) -> frozenset[int]:
    return frozenset(range(1, len(rest) + 1))
