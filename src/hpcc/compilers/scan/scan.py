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
from hpcc.compilers.scan.text import joined, without_prose
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
"""Why a file with that hazard makes a result uncacheable; COMPUTED_INCLUDE does not."""


RESOLVABLE: Final = (
    Hazard.ASSEMBLER_FILE | Hazard.OPAQUE_ASSEMBLY | Hazard.PASTED_CLOCK | Hazard.EMBED
)
"""Hazards that a closer look may dispel: which files are read, or that no clock is."""


@dataclass(frozen=True, slots=True)
class Scan:
    """The findings for one file's content.

    `quoted` and `angled` are names in include lines. `questions` are (is quoted, name) pairs of
    `__has_include`, whose answer is an input although the file is never read. `embeds` are those of
    `#embed` and `__has_embed`, whose answer depends on content: an empty file changes the answer.
    `has_absolute`: an include line or a question names an absolute path.
    `aliases` are macros that pass their argument to `__has_include`; see `scan_alias_uses`.
    """

    hazards: Hazard = Hazard.NONE
    quoted: tuple[bytes, ...] = ()
    angled: tuple[bytes, ...] = ()
    questions: tuple[tuple[bool, bytes], ...] = ()
    embeds: tuple[tuple[bool, bytes], ...] = ()
    aliases: tuple[bytes, ...] = ()
    has_absolute: bool = False


_HASH: Final = rb"(?:\#|%:|\?\?=)"
_BLANKS: Final = rb"(?:[ \t\f\v]|/\*(?:[^*]|\*(?!/)){0,400}\*/)*"
# Begins with a line break: a single byte to search for, and no work per word of prose. With "'"
# behind the word it is prose: GCC's limits.h has a comment whose line begins with "#include's".
_INCLUDE: Final = re.compile(
    rb"\n[ \t]*"
    + _HASH
    + rb'[ \t]*(?:include(?:_next)?|import)\b(?!\')[ \t]*(?:"([^"\n]+)"|<([^>\n]+)>)?'
)
_NAME_IN_QUOTES: Final = rb'(?:"([^"\n]+)"|<([^>\n]+)>)?'
_QUESTION: Final = re.compile(
    rb"__has_include(?:_next)?(?:__)?" + _BLANKS + rb"(\()?" + _BLANKS + _NAME_IN_QUOTES
)
# A comment may stand between any two of these words.
_ONCE: Final = re.compile(
    rb"pragma[\s\S]{0,400}?\bonce\b|_Pragma|" + _HASH + _BLANKS + rb"import\b"
)
# The complete line of a definition such as `#define HAS(x) __has_include(x)`.
_ALIAS: Final = re.compile(
    rb"[ \t]*"
    + _HASH
    + rb"[ \t]*define[ \t]+(\w+)\([ \t]*(\w+)[ \t]*\)[ \t]+"
    + rb"__has_include(?:_next)?(?:__)?[ \t]*\([ \t]*(\w+)[ \t]*\)[ \t]*\r?"
)
_MENTION: Final = re.compile(
    rb".*(?:" + _HASH + rb"[ \t]*(?:define|undef|ifn?def)[ \t]+|\bdefined[ \t]*\(?[ \t]*)"
)
_DEFINE: Final = re.compile(_HASH + rb"[ \t]*define[ \t]+(\w+)")
_EMBED: Final = re.compile(
    rb"(?:(__has_embed)(?:__)?|"
    + _HASH
    + _BLANKS
    + rb"embed\b)"
    + _BLANKS
    + rb"(\()?"
    + _BLANKS
    + rb'(?:"([^"\n]+)"|<([^>\n]+)>)?'
)
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
_IN_PIECE: Final = rb"[A-Z_]*(?![\w$])"
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
    questions: dict[tuple[bool, bytes], None] = {}
    aliases: dict[bytes, None] = {}
    if b"__has_include" in data:
        questions, aliases, more = _questions(data)
        hazards |= more
    embeds: dict[tuple[bool, bytes], None] = {}
    if b"embed" in data:
        embeds, more = _embeds(data)
        hazards |= more
    if lines.count + len(questions) > MAX_DIRECTIVES or lines.has_nul:
        hazards |= Hazard.OPAQUE_QUESTION
    return Scan(
        hazards,
        lines.quoted,
        lines.angled,
        tuple(questions),
        tuple(embeds),
        tuple(aliases),
        lines.has_absolute or any(name.startswith(b"/") for _, name in (*questions, *embeds)),
    )


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


def scan_alias_uses(data: bytes, aliases: tuple[bytes, ...]) -> Scan:
    """Find what a file asks `__has_include` through macros that other files may define.

    The result has only `questions` and the hazard of an unreadable one.
    """
    data = joined(data)
    words = b"|".join(map(re.escape, aliases))
    use = re.compile(rb"\b(?:" + words + rb")\b" + _BLANKS + rb"(\()?" + _BLANKS + _NAME_IN_QUOTES)
    found: dict[tuple[bool, bytes], None] = {}
    hazards = Hazard.NONE
    for match in use.finditer(data):
        name = match[2] or match[3]
        line = data[data.rfind(b"\n", 0, match.start()) + 1 : match.start()]
        if match[1] and name:
            found[bool(match[2]), name] = None
        elif not _MENTION.fullmatch(line):
            hazards |= Hazard.OPAQUE_QUESTION
    if len(found) > MAX_DIRECTIVES or any(b"\0" in name for _, name in found):
        hazards |= Hazard.OPAQUE_QUESTION
    return Scan(hazards, questions=tuple(found))


def may_be_read_once(data: bytes) -> bool:
    """Return whether a file may have `#pragma once` or be for `#import`; a superset."""
    return _ONCE.search(joined(data)) is not None


def scan_arguments(arguments: tuple[bytes, ...]) -> Scan:
    """Return the findings for a command line, where `-D` may hold anything that a file could."""
    text = b"\n".join(arguments)
    found = scan_source(text)
    hazards = found.hazards
    if b"__has_include" in text:
        hazards |= Hazard.OPAQUE_QUESTION
    if b"__has_embed" in text:
        hazards |= Hazard.OPAQUE_EMBED
    if has_asm_word(text):
        hazards |= Hazard.OPAQUE_ASSEMBLY
    return Scan(hazards)


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
    return hazards


def _questions(
    data: bytes,
) -> tuple[dict[tuple[bool, bytes], None], dict[bytes, None], Hazard]:
    """Return the names asked for, aliases, and the hazards of unreadable questions."""
    found: dict[tuple[bool, bytes], None] = {}
    aliases: dict[bytes, None] = {}
    hazards = Hazard.NONE
    for match in _QUESTION.finditer(data):
        name = match[2] or match[3]
        if match[1] and name:
            found[bool(match[2]), name] = None
        elif alias := _alias(data, match.start()):
            aliases[alias] = None
        elif _is_opaque(data, match.start(), match.end(), is_call=match[1] is not None):
            hazards |= Hazard.OPAQUE_QUESTION
    return found, aliases, hazards


def _alias(data: bytes, at: int) -> bytes | None:
    """Return the macro that the line around `at` defines, if it only asks."""
    end = data.find(b"\n", at)
    line = data[data.rfind(b"\n", 0, at) + 1 : end if end >= 0 else len(data)]
    match = _ALIAS.fullmatch(line)
    return match[1] if match is not None and match[2] == match[3] else None


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
    line = data[data.rfind(b"\n", 0, start) + 1 : start]
    if _DEFINE.search(line) is not None:
        return True  # more than an alias, so its uses cannot be seen
    if not is_call and data.startswith(b"/*", end):
        return True  # a comment that is too long to skip backwards
    is_its_own_definition = line.rstrip().endswith(b"define")
    return is_call and not is_its_own_definition
