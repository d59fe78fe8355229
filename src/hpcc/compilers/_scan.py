"""What no compiler lists: tokens in a source file that reach beyond it, and its include lines.

A superset is enough: a directive in a comment or an inactive branch only costs a check.
"""

from __future__ import annotations

import enum
import re
from dataclasses import dataclass
from typing import Final

# A file with more directives than this is not a source anybody wrote.
MAX_DIRECTIVES: Final = 20_000


class Hazard(enum.Flag):
    """What a file may do that a list of its headers does not show."""

    NONE = 0
    DATE_OR_TIME = enum.auto()  # __DATE__, __TIME__: fixed by SOURCE_DATE_EPOCH
    TIMESTAMP = enum.auto()  # __TIMESTAMP__
    ASSEMBLER_FILE = enum.auto()  # .incbin, .include
    EMBED = enum.auto()  # #embed, __has_embed
    OPAQUE_QUESTION = enum.auto()  # __has_include whose name a macro makes
    FILE_TIME = enum.auto()  # #pragma GCC dependency
    COMPUTED_INCLUDE = enum.auto()  # #include MACRO


HAZARD_REASONS: Final = {
    Hazard.TIMESTAMP: "timestamp",
    Hazard.ASSEMBLER_FILE: "incbin",
    Hazard.EMBED: "embed",
    Hazard.OPAQUE_QUESTION: "has-include",
    Hazard.FILE_TIME: "pragma-dependency",
    Hazard.DATE_OR_TIME: "date-time",
}
"""Why a file with that hazard makes a result uncacheable; COMPUTED_INCLUDE does not."""


@dataclass(frozen=True, slots=True)
class Scan:
    """The findings for one file's content.

    `quoted` and `angled` are names in include lines; `questions` are (is quoted, name) of
    `__has_include`, whose answer is an input although the file is never read.
    """

    hazards: Hazard = Hazard.NONE
    quoted: tuple[bytes, ...] = ()
    angled: tuple[bytes, ...] = ()
    questions: tuple[tuple[bool, bytes], ...] = ()


# A backslash (or its trigraph) before a line break joins lines, inside a token too; GCC and Clang
# take blanks between the two.
_SPLICE: Final = re.compile(rb"(?:\\|\?\?/)[ \t\f\v]*\r?\n")
_HASH: Final = rb"(?:\#|%:|\?\?=)"
_BLANKS: Final = rb"(?:[ \t\f\v]|/\*(?:[^*]|\*(?!/)){0,400}\*/)*"
_INCLUDE: Final = re.compile(
    rb"^[ \t]*"
    + _HASH
    + rb'[ \t]*(?:include|include_next|import)\b[ \t]*(?:"([^"\n]+)"|<([^>\n]+)>)?',
    re.MULTILINE,
)
_QUESTION: Final = re.compile(
    rb"__has_include(?:_next)?(?:__)?"
    + _BLANKS
    + rb"(\()?"
    + _BLANKS
    + rb'(?:"([^"\n]+)"|<([^>\n]+)>)?'
)
_DEFINE: Final = re.compile(_HASH + rb"[ \t]*define[ \t]+(\w+)")
_EMBED: Final = re.compile(_HASH + rb"[ \t]*embed\b")
_ASSEMBLER: Final = re.compile(rb"\.(?:incbin|include)\b", re.IGNORECASE)
_CUT: Final = rb"\.i(?:n(?:c(?:b(?:in?)?|l(?:ud?)?)?)?)?"
_CUT_BY_BACKSLASH: Final = re.compile(_CUT + rb"\\+[A-Za-z_@]", re.IGNORECASE)
_CUT_BY_QUOTE: Final = re.compile(_CUT + rb'"', re.IGNORECASE)
_FILE_TIME: Final = re.compile(_HASH + rb"[ \t]*pragma[ \t]+(?:GCC|clang)[ \t]+dependency\b")


def scan_source(data: bytes) -> Scan:
    """Look through one file of a closure; linear in its size."""
    if b"\n" in data and (b"\\" in data or b"??/" in data):
        data = _SPLICE.sub(b"", data)
    hazards = _hazards(data)
    quoted: dict[bytes, None] = {}
    angled: dict[bytes, None] = {}
    count = 0
    for match in _INCLUDE.finditer(data):
        count += 1
        if match[1]:
            quoted[match[1]] = None
        elif match[2]:
            angled[match[2]] = None
        else:
            hazards |= Hazard.COMPUTED_INCLUDE
    questions: dict[tuple[bool, bytes], None] = {}
    if b"__has_include" in data:
        for match in _QUESTION.finditer(data):
            count += 1
            name = match[2] or match[3]
            if match[1] and name:
                questions[bool(match[2]), name] = None
            elif _is_opaque(data, match):
                hazards |= Hazard.OPAQUE_QUESTION
    if count > MAX_DIRECTIVES or any(b"\0" in n for n in (*quoted, *angled)):
        hazards |= Hazard.OPAQUE_QUESTION
    return Scan(hazards, tuple(quoted), tuple(angled), tuple(questions))


def _hazards(data: bytes) -> Hazard:
    """Plain substring searches first: they run at memory speed, and most files have none."""
    hazards = Hazard.NONE
    if b"__DATE__" in data or b"__TIME__" in data:
        hazards |= Hazard.DATE_OR_TIME
    if b"__TIMESTAMP__" in data:
        hazards |= Hazard.TIMESTAMP
    # Assemblers do not mind the case of a directive.
    is_plain = b".inc" in data.lower() and _ASSEMBLER.search(data) is not None
    if is_plain or _is_pieced_together(data):
        hazards |= Hazard.ASSEMBLER_FILE
    if b"embed" in data and (b"__has_embed" in data or _EMBED.search(data)):
        hazards |= Hazard.EMBED
    if b"dependency" in data and _FILE_TIME.search(data):
        hazards |= Hazard.FILE_TIME
    return hazards


def _is_pieced_together(data: bytes) -> bool:
    """Tell whether `.incbin` may be made of two strings, or by a macro of the assembler."""
    if b".i" not in data:
        return False
    if _CUT_BY_BACKSLASH.search(data):
        return True
    return b"asm" in data and _CUT_BY_QUOTE.search(_INCLUDE.sub(b"", data)) is not None


def _is_opaque(data: bytes, match: re.Match[bytes]) -> bool:
    """Tell a question that cannot be read from a mere mention (`#ifdef`, `defined`, prose)."""
    line = data[data.rfind(b"\n", 0, match.start()) + 1 : match.start()]
    define = _DEFINE.search(line)
    if define is not None:
        return True  # an alias: its uses do not show
    if match[1] is None and data.startswith(b"/*", match.end()):
        return True  # a comment too long to look behind
    is_its_own_definition = line.rstrip().endswith(b"define")
    return match[1] is not None and not is_its_own_definition
