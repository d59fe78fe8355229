"""What no compiler lists: tokens of a source that refer to other files, and its include lines.

A superset is enough: a directive in a comment or an inactive branch costs only a check.
"""

from __future__ import annotations

import enum
import re
from dataclasses import dataclass
from typing import Final

from hpcc.compilers.scan.assembler import has_asm_word, has_opaque_asm, mentions_directive
from hpcc.compilers.scan.preambles import PreambleCache
from hpcc.compilers.scan.questions import (
    NOTHING_ASKED,
    Questions,
    definition_lines,
    read_questions,
)
from hpcc.compilers.scan.text import joined, without_comments, without_prose
from hpcc.core.reasons.uncacheable import UncacheableReason

# No handwritten source has more directives than this.
MAX_DIRECTIVES: Final = 20_000


class Hazard(enum.Flag):
    """What a file may do that a list of its headers does not show."""

    NONE = 0
    DATE_OR_TIME = enum.auto()  # __DATE__, __TIME__: fixed by SOURCE_DATE_EPOCH
    TIMESTAMP = enum.auto()  # __TIMESTAMP__
    ASSEMBLER_FILE = enum.auto()  # .incbin, .include
    OPAQUE_ASSEMBLY = enum.auto()  # an asm whose text comes from macros
    PASTED_CLOCK = enum.auto()  # a piece of __DATE__ and its like, for ## to complete
    EMBED = enum.auto()  # #embed, __has_embed, with a readable name
    OPAQUE_EMBED = enum.auto()  # the same, with a name from a macro
    OPAQUE_QUESTION = enum.auto()  # __has_include with a name from a macro
    FILE_TIME = enum.auto()  # #pragma GCC dependency
    COMPUTED_INCLUDE = enum.auto()  # #include MACRO
    ASSEMBLER_STRINGS = enum.auto()  # strings that GCC copies; no scan finds it
    READ_ONCE = enum.auto()  # #import, or a macro whose text holds `once`: for any other file


HAZARD_REASONS: Final = {
    Hazard.TIMESTAMP: UncacheableReason.TIMESTAMP,
    Hazard.ASSEMBLER_FILE: UncacheableReason.INCBIN,
    Hazard.EMBED: UncacheableReason.EMBED,
    Hazard.OPAQUE_EMBED: UncacheableReason.EMBED,
    Hazard.OPAQUE_QUESTION: UncacheableReason.HAS_INCLUDE,
    Hazard.FILE_TIME: UncacheableReason.PRAGMA_DEPENDENCY,
    Hazard.DATE_OR_TIME: UncacheableReason.DATE_TIME,
    Hazard.PASTED_CLOCK: UncacheableReason.DATE_TIME,
    Hazard.OPAQUE_ASSEMBLY: UncacheableReason.INCBIN,
}
"""Why a file with that hazard makes a result uncacheable; the others do not."""


RESOLVABLE: Final = (
    Hazard.ASSEMBLER_FILE
    | Hazard.OPAQUE_ASSEMBLY
    | Hazard.DATE_OR_TIME
    | Hazard.TIMESTAMP
    | Hazard.PASTED_CLOCK
    | Hazard.EMBED
    | Hazard.ASSEMBLER_STRINGS
)
"""Hazards that a closer look may dispel: which files are read, or that no clock is."""


@dataclass(frozen=True, slots=True)
class Scan:
    """The findings for one file's content.

    `quoted` and `angled` are names in include lines. `asked` are the questions of `__has_include`,
    whose answer is an input although the file is never read. `embeds` are (is quoted, name) pairs
    of `#embed` and `__has_embed`, whose answer depends on content: an empty file changes it.
    `has_absolute`: an include line or a question names an absolute path.
    """

    hazards: Hazard = Hazard.NONE
    quoted: tuple[bytes, ...] = ()
    angled: tuple[bytes, ...] = ()
    asked: Questions = NOTHING_ASKED
    embeds: tuple[tuple[bool, bytes], ...] = ()
    has_absolute: bool = False


_HASH: Final = rb"(?:\#|%:|\?\?=)"
_BLANKS: Final = rb"(?:[ \t\f\v]|/\*(?:[^*]|\*(?!/)){0,400}+\*/)*+"
# Begins with a line break: a single byte to search for, and no work per word of prose. With "'"
# behind the word it is prose: GCC's limits.h has a comment whose line begins with "#include's".
_INCLUDE: Final = re.compile(
    rb"\n[ \t]*"
    + _HASH
    + rb'[ \t]*(?:include(?:_next)?|import)\b(?!\')[ \t]*(?:"([^"\n]+)"|<([^>\n]+)>)?'
)


class _Directive:
    """A pattern behind the sign of a directive, for all its spellings.

    Nearly all texts have only `#`, which is searched for at memory speed.
    """

    def __init__(self, rest: bytes) -> None:
        self._any, self._plain = re.compile(_HASH + rest), re.compile(rb"\#" + rest)

    def of(self, data: bytes) -> re.Pattern[bytes]:
        """Return the pattern that finds in a text what the one for all spellings finds."""
        return self._any if b"%:" in data or b"??=" in data else self._plain


_IMPORT: Final = _Directive(_BLANKS + rb"import\b")
_ONCE: Final = re.compile(rb"\bonce\b")
# Of Microsoft's compiler; its `once` shows a warning once.
_PRAGMA_WARNING: Final = re.compile(rb"\n[ \t]*#[ \t]*pragma[ \t]+warning\b[^\n]*")
_PRAGMA_ONCE: Final = _Directive(rb"[ \t]*pragma[ \t]+once\b")
_DEFINED: Final = re.compile(_HASH + _BLANKS + rb"define\b[^\n]*+")
_MAYBE_DEFINED: Final = _Directive(rb"[ \t\f\v]*(?:/\*|define\b[^\n]*+)")
_DEFINE: Final = re.compile(_HASH + rb"[ \t]*define[ \t]+(\w+)")
_EMBED: Final = re.compile(
    rb"(?:(__has_embed)(?:__)?|"
    + _HASH
    + _BLANKS
    + rb"embed\b)"
    + _BLANKS
    + rb"(\()?"
    + _BLANKS
    + rb'(?:"([^"\n]{1,4096}+)"|<([^>\n]{1,4096}+)>)?'
)
_EMBED_WORD: Final = re.compile(rb"embed(?:__)?(?![\w$])")
_MAX_BEFORE: Final = 4096  # on the line of a question; more is not searched
_FILE_TIME: Final = re.compile(_HASH + rb"[ \t]*pragma[ \t]+(?:GCC|clang)[ \t]+dependency\b")

# When __DATE__, __TIME__ or __TIMESTAMP__ is cut in three, one piece has two neighbouring letters.
# A search that begins with the rarest pairs runs at memory speed.
_CLOCKS: Final = (b"__DATE__", b"__TIME__", b"__TIMESTAMP__")
_PIECES: Final = frozenset(
    name[start:end]
    for name in _CLOCKS
    for start in range(len(name))
    for end in range(start + 1, len(name) + 1)
    if len(name[start:end].strip(b"_")) > 1 and name[start:end] != name
)
_IN_PIECE: Final = rb"[A-Z_]{0,%d}+(?![\w$])" % max(map(len, _PIECES))
_PIECE_STARTS: Final = tuple(
    re.compile(start + _IN_PIECE)
    for start in (rb"T", rb"DA", rb"IM", rb"ME", rb"AM", rb"ES", rb"MP")
)
_PIECE_LETTERS: Final = b"ABCDEFGHIJKLMNOPQRSTUVWXYZ_"
_BEFORE_PIECE: Final = b" \t\r\n\v\f,(#%:?/=;"
_AFTER_PIECE: Final = b" \t\r\n\v\f,)#%?/"


def scan_source(data: bytes, preambles: PreambleCache | None = None) -> Scan:
    """Return the findings for one file of a closure. Linear in its size. `preambles` is a cache."""
    data = joined(data)
    hazards = _hazards(data)
    lines = (preambles or PreambleCache()).of("source", data, _include_lines)
    if lines.is_computed:
        hazards |= Hazard.COMPUTED_INCLUDE
    asked = NOTHING_ASKED
    if b"__has_" in data:
        asked = read_questions(data)
        if asked.is_opaque:
            hazards |= Hazard.OPAQUE_QUESTION
    embeds: dict[tuple[bool, bytes], None] = {}
    if _EMBED_WORD.search(data):
        embeds, more = _embeds(data)
        hazards |= more
    has_nul = lines.has_nul or any(b"\0" in name for _, name in asked.names)
    if lines.count + asked.count > MAX_DIRECTIVES or has_nul:
        hazards |= Hazard.OPAQUE_QUESTION
    has_absolute = lines.has_absolute or any(
        name.startswith(b"/") for _, name in (*asked.names, *asked.loose, *embeds)
    )
    return Scan(hazards, lines.quoted, lines.angled, asked, tuple(embeds), has_absolute)


@dataclass(frozen=True, slots=True)
class _IncludeLines:
    quoted: tuple[bytes, ...]
    angled: tuple[bytes, ...]
    count: int
    is_computed: bool
    has_nul: bool
    has_absolute: bool


def _include_lines(data: bytes) -> _IncludeLines:
    quoted: dict[bytes, None] = {}
    angled: dict[bytes, None] = {}
    is_computed = False
    found = _INCLUDE.findall(b"\n" + data)
    for in_quotes, in_angles in found:
        if in_quotes:
            quoted[in_quotes] = None
        elif in_angles:
            angled[in_angles] = None
        else:
            is_computed = True
    has_nul = b"\0" in b"".join((*quoted, *angled))
    has_absolute = any(name.startswith(b"/") for name in (*quoted, *angled))
    return _IncludeLines(
        tuple(quoted), tuple(angled), len(found), is_computed, has_nul, has_absolute
    )


def may_be_read_once(data: bytes) -> bool:
    """Return whether a file's text may ask to be read once; a superset.

    `#pragma once`, `_Pragma("once")` and a macro that makes the latter of its argument all need the
    word. `Hazard.READ_ONCE` in any file of a compile says that others may be read once as well.
    """
    data = joined(data)
    if b"once" not in data:
        return False
    text = b"\n" + without_comments(data)
    return _ONCE.search(_PRAGMA_WARNING.sub(b"", text)) is not None


def _makes_others_once(data: bytes) -> bool:
    """Return whether a file imports others, or defines a macro that may stand for the pragma."""
    if b"import" in data and _IMPORT.of(data).search(data):
        return True
    if b"once" not in data or data.count(b"once") == len(_PRAGMA_ONCE.of(data).findall(data)):
        return False
    # "once" is a frequent word of comments, and to leave these out takes long.
    if not any(_may_be_once(match[0]) for match in _MAYBE_DEFINED.of(data).finditer(data)):
        return False
    return any(_ONCE.search(match[0]) for match in _DEFINED.finditer(without_comments(data)))


def _may_be_once(definition: bytes) -> bool:
    """Tell whether the line of a definition holds the word, or goes on behind a comment."""
    if b"once" in definition and _ONCE.search(definition):
        return True
    opened = definition.rfind(b"/*")
    return opened >= 0 and definition.rfind(b"*/") <= opened + 1


def scan_arguments(arguments: tuple[bytes, ...], macros: tuple[bytes, ...] = ()) -> Scan:
    """Return the findings for a command line, where `-D` may hold anything that a file could.

    `macros` are the definitions among the arguments, NAME or NAME=TEXT. Only these may ask with
    `__has_include`.
    """
    text = b"\n".join(arguments)
    found = scan_source(text)
    hazards = found.hazards & ~Hazard.OPAQUE_QUESTION
    asked = NOTHING_ASKED
    if b"__has_" in text:
        defined = definition_lines(macros)
        asked = read_questions(defined)
        operator = b"__has_include"
        if asked.is_opaque or text.count(operator) > defined.count(operator):
            hazards |= Hazard.OPAQUE_QUESTION
    if b"__has_embed" in text:
        hazards |= Hazard.OPAQUE_EMBED
    if has_asm_word(text):
        hazards |= Hazard.OPAQUE_ASSEMBLY
    if _ONCE.search(text):
        hazards |= Hazard.READ_ONCE
    return Scan(hazards, asked=asked)


def _hazards(data: bytes) -> Hazard:
    """Return hazards. Substring searches first: they run at memory speed, and most find nothing."""
    hazards = Hazard.NONE
    if b"__DATE__" in data or b"__TIME__" in data:
        hazards |= Hazard.DATE_OR_TIME
    if b"__TIMESTAMP__" in data:
        hazards |= Hazard.TIMESTAMP
    if mentions_directive(data):
        hazards |= Hazard.ASSEMBLER_FILE
    if has_opaque_asm(data):
        hazards |= Hazard.OPAQUE_ASSEMBLY
    if _has_clock_piece(data) and _has_clock_piece(without_prose(data)):
        hazards |= Hazard.PASTED_CLOCK
    if b"dependency" in data and _FILE_TIME.search(data):
        hazards |= Hazard.FILE_TIME
    if _makes_others_once(data):
        hazards |= Hazard.READ_ONCE
    return hazards


def _embeds(data: bytes) -> tuple[dict[tuple[bool, bytes], None], Hazard]:
    """Return the names of embedded files, and the hazards of unreadable ones."""
    found: dict[tuple[bool, bytes], None] = {}
    hazards = Hazard.NONE
    for match in _EMBED.finditer(data):
        is_question, is_call, name = match[1], match[2] is not None, match[3] or match[4]
        if name and (is_call or not is_question):
            found[bool(match[3]), name] = None
            hazards |= Hazard.EMBED
        elif not is_question:
            # The compiler lists embedded files, as it lists the files of `#include MACRO`.
            hazards |= Hazard.EMBED | Hazard.COMPUTED_INCLUDE
        elif _is_opaque(data, match.start(), match.end(), is_call=is_call):
            hazards |= Hazard.OPAQUE_EMBED
    if len(found) > MAX_DIRECTIVES or any(b"\0" in name for _, name in found):
        hazards |= Hazard.OPAQUE_EMBED
    return found, hazards


def _has_clock_piece(data: bytes) -> bool:
    for pattern in _PIECE_STARTS:
        for match in pattern.finditer(data):
            start, end = match.span()
            while start and data[start - 1] in _PIECE_LETTERS:
                start -= 1
            if (
                data[start:end] in _PIECES
                and (not start or data[start - 1] in _BEFORE_PIECE)
                and (end == len(data) or data[end] in _AFTER_PIECE)
            ):
                return True
    return False


def _is_opaque(data: bytes, start: int, end: int, *, is_call: bool) -> bool:
    """Return True for an unreadable question, False for a mention (`#ifdef`, `defined`, prose)."""
    line_start = data.rfind(b"\n", max(0, start - _MAX_BEFORE), start) + 1
    if not line_start and start > _MAX_BEFORE:
        return True
    line = data[line_start:start]
    if _DEFINE.search(line) is not None:
        return True  # more than an alias, so its uses cannot be seen
    if not is_call and data.startswith(b"/*", end):
        return True  # a comment that is too long to skip backwards
    is_its_own_definition = line.rstrip().endswith(b"define")
    return is_call and not is_its_own_definition
