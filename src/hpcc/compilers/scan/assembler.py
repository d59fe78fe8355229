"""What an assembler reads besides its source: `.incbin` and `.include`, also within `asm`.

Nothing here expands macros. For text before expansion the only question is whether all of it can be
read literally. If not, it is opaque, and the caller examines the preprocessor's output.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import Final, NamedTuple

from hpcc.compilers.scan.text import joined, without_comments, without_prose


class Directives(NamedTuple):
    """The files that directives name. `is_opaque`: macros may build a directive or a name.

    `included` are the files of `.include`, which may contain further directives.
    """

    names: tuple[bytes, ...] = ()
    included: tuple[bytes, ...] = ()
    is_opaque: bool = False


OPAQUE: Final = Directives(is_opaque=True)

# Assemblers ignore the case of a directive (GNU as, read.c; LLVM, AsmParser.cpp).
_DIRECTIVE: Final = re.compile(
    rb'\.(inc(?:bin|lude))(?![\w.$])[ \t]*(?:"([^"\\\n]+)")?', re.IGNORECASE
)
_START: Final = rb"\.i(?:n(?:c(?:bi?|l(?:ud?)?)?)?)?"
# What may continue a directive: a macro parameter, an operand, an alternative of a dialect.
_CUT: Final = re.compile(_START + rb"[\\%{|}&]", re.IGNORECASE)
# What stands before `.i` where C selects a member: a name or a closing bracket. In a template a
# name may be the letter of an escape, an operand, or an argument that is empty; `\\()` separates.
_MEMBER: Final = re.compile(
    rb".*(?:[\s(,;=<>+*|^~!?:{\[.-][A-Za-z_$][\w$]*|\]|(?<!\\\()\))", re.DOTALL
)
_MACHINERY: Final = re.compile(rb"\.(?:macro|irpc?|altmacro)(?![\w.$])", re.IGNORECASE)
_MADE_BY_MACRO: Final = re.compile(
    _START + rb"(?![\w.$])"  # `m .inc, bin`
    rb"|(?<![\w.$])inc(?:bin|lude)(?![\w.$])"  # `m incbin`
    rb"|\.\\"  # `.\x`
    rb"|(?:^|[\n;:]|\*/)[ \t]*\\[\w@]+(?:\\\(\))?[\w.]*\\"  # `\x\y` at the start of a statement
    rb"|[;\n][ \t]*\.?\"|:[ \t]*\.\"",  # `m "; ", ...`: it ends where a statement begins
    re.IGNORECASE,
)
# With it a parameter is replaced without a backslash, in strings too, and `x&y` is one word.
_ALTERNATE: Final = re.compile(rb"\.altmacro(?![\w.$])", re.IGNORECASE)
_MADE_BY_ALTERNATE: Final = re.compile(rb"\.inc(?:bin|lude)(?![\w.$])|[\w.]&[\w.]", re.IGNORECASE)
# An operand or a dialect's alternative in the name of a statement's instruction. An operand counts
# if a quote follows in the statement.
_MADE_BY_OPERAND: Final = re.compile(
    rb"(?:^|[\n;:])(?=[ \t]*(?:\.(?!L)[\w.$]*[%{|}]|[\w.$]*%[^%\s;\"](?P<operand>)))"
)
_QUOTE_OR_END: Final = re.compile(rb'[\n;"]')

# GNU as lists the name in `.file "a.c"` and does not open it.
_ORIGIN: Final = re.compile(rb'\.file(?![\w.$])[ \t]*"([^"\\\n]+)"', re.IGNORECASE)
# All of which a directive that opens a file can be made, before the preprocessor or after it.
_MAY_OPEN: Final = re.compile(
    rb"incbin|\.[ \t]*inc|##|%:%:|\?\?[=/]|\.(?:macro|irpc?|altmacro)(?![\w.$])"
    rb"|(?<!#)(?<!#[ \t])(?<!#[ \t][ \t])include",
    re.IGNORECASE,
)

# A literal first, which is found at memory speed. What precedes it is checked afterwards.
_KEYWORD: Final = re.compile(rb"asm(?:__)?(?![\w$])")
_BEFORE_KEYWORD: Final = re.compile(rb"(?:.*[^\w$])?_{0,2}", re.DOTALL)
_PASTE: Final = tuple(
    re.compile(operator + rb"\s*s?m(?:__)?(?![\w$])")
    for operator in (rb"##", rb"%:%:", rb"\?\?=\?\?=")
)
# Most of the keyword as a macro's argument: `PASTE(as, m)`.
_PIECE: Final = re.compile(rb"as\s*[,)]")
_BEFORE_PIECE: Final = re.compile(rb".*[(,]\s*_{0,2}", re.DOTALL)
_BEFORE_PASTE: Final = re.compile(rb"(?:.*[^\w$])?_{0,2}as?\s*", re.DOTALL)
# Longer than the longest keyword, and than any realistic run of blanks before `##`.
_LOOK_BEHIND: Final = 64
# On the line of a keyword; more is not searched.
_MAX_BEFORE: Final = 4096
_BLANKS: Final = rb"(?:\s|/\*(?:[^*]|\*(?!/)){0,400}\*/)*"
_QUALIFIERS: Final = re.compile(
    rb"(?:" + _BLANKS + rb"(?:(?:__)?(?:volatile|inline|const)(?:__)?|goto)(?![\w$]))*" + _BLANKS
)
_SPACE: Final = re.compile(_BLANKS)
_STRING: Final = re.compile(
    rb'(?:u8|[LuU])?(?:R"(?P<mark>[^ ()\\\s]{0,16})\((?P<raw>.{0,65536}?)\)(?P=mark)"'
    rb'|"(?P<text>(?:[^"\\\n]|\\.)*)")',
    re.DOTALL,
)
# glibc's sys/cdefs.h: a function's assembler name, built from a macro's argument.
_RENAME: Final = re.compile(rb"__ASMNAME\s*\(")
_DEFINE: Final = re.compile(rb"[ \t]*(?:\#|%:|\?\?=)[ \t]*define\b")
# Nothing more, or a qualifier of any name. A lone `__asm` would be another dialect's.
_END_OF_NAME: Final = re.compile(
    rb"(?:[ \t]+(?:(?:__)?(?:volatile|inline|const)(?:__)?|goto))*(?:[ \t]+\w+)?[ \t]*(?:\n|\Z)"
)
_WORD: Final = re.compile(rb"\w+" + _BLANKS)
_ESCAPE: Final = re.compile(rb"\\(?:([0-7]{1,3})|x([0-9A-Fa-f]+)|(.))", re.DOTALL)
_SIMPLE: Final = {
    b"n": b"\n", b"t": b"\t", b'"': b'"', b"\\": b"\\", b"'": b"'", b"?": b"?",
    b"a": b"\a", b"b": b"\b", b"f": b"\f", b"r": b"\r", b"v": b"\v", b"e": b"\x1b", b"E": b"\x1b",
}  # fmt: skip
# In preprocessed text strings are skipped, because they may mention asm.
_TOKEN: Final = re.compile(
    rb'(?:u8|[LuU])?R"(?P<mark>[^ ()\\\s]{0,16})\(.*?\)(?P=mark)"'
    rb'|"(?:[^"\\\n]|\\.)*+"'
    rb"|(?<![\w$.])\d[\w.]*+(?:'[\w.]++)++"  # quotes in 1'000 begin nothing
    rb"|'(?:[^'\\\n]|\\.)++'"
    rb"|(?<![\w$])(?P<asm>__asm__|__asm|_asm|asm)(?![\w$])"
    rb'|R(?="[^ ()\\\s]{0,16}\((?P<raw>))'
    rb'|"(?=(?:[^"\\\n]|\\.)*+(?P<open>))'
    rb"|'(?=(?:[^'\\\n]|\\.)*+(?P<single>))",
    re.DOTALL,
)
# Where C has no raw strings, its preprocessor leaves what looks like one only in pragmas.
RAW_IN_PRAGMA: Final = re.compile(rb'#[ \t]*pragma\b[^\n]*R"')
# Literals without an end are read on behind their begin. They are few in text that compiles.
_MAX_OPEN_TIMES: Final = 8
_MAX_OPEN_BYTES: Final = 1 << 20


def mentions_directive(data: bytes) -> bool:
    """Return whether a text may hold a directive, whole or cut in two; a fast superset."""
    lowered = data.lower() if b".i" in data or b".I" in data else b""
    return (b".inc" in lowered and _DIRECTIVE.search(data) is not None) or (
        b".i" in lowered and _is_cut(data)
    )


def _is_cut(data: bytes) -> bool:
    matches = list(_CUT.finditer(data))
    if not matches or _MACHINERY.search(data):
        return bool(matches)  # an argument of a macro may be empty
    return not all(_is_member(data, match.start()) for match in matches)


def _is_member(data: bytes, dot: int) -> bool:
    before = data[dot - _LOOK_BEHIND : dot] if dot > _LOOK_BEHIND else b"\n" + data[:dot]
    return _MEMBER.fullmatch(before) is not None


def mentions_machinery(text: bytes) -> bool:
    """Return whether assembler text defines macros, of which other text may make directives."""
    return _MACHINERY.search(text) is not None


def read_assembler(text: bytes) -> Directives:
    """Return the directives of preprocessed assembler source."""
    if _MACHINERY.search(text) and (
        _MADE_BY_MACRO.search(text) or (_ALTERNATE.search(text) and _MADE_BY_ALTERNATE.search(text))
    ):
        return OPAQUE
    return _literal(text)


def read_origins(text: bytes) -> frozenset[bytes]:
    """Return the names of `.file` in a text of the assembler; it may be unpreprocessed."""
    return frozenset(_ORIGIN.findall(text))


def may_open_files(text: bytes) -> bool:
    """Return whether a text may hold a part of `.incbin` or `.include`; a wide superset."""
    return _MAY_OPEN.search(without_comments(joined(text))) is not None


def _literal(text: bytes) -> Directives:
    if _CUT.search(text):
        return OPAQUE
    names: dict[bytes, None] = {}
    included: dict[bytes, None] = {}
    for match in _DIRECTIVE.finditer(text):
        if match[2] is None:
            return OPAQUE
        names[match[2]] = None
        if match[1].lower() == b"include":
            included[match[2]] = None
    return Directives(tuple(names), tuple(included))


def has_opaque_asm(data: bytes) -> bool:
    """Return whether an unpreprocessed source has an `asm` whose text cannot be read from it."""
    if not _seems_opaque(data):
        return False
    return _seems_opaque(without_comments(data), outside=without_prose(data))


def _seems_opaque(data: bytes, outside: bytes | None = None) -> bool:
    """Check a source; a keyword that is missing in `outside` occurs only in strings."""
    outside = data if outside is None else outside
    if b"asm" in outside and any(_is_opaque_in_source(data, m) for m in _keywords(data)):
        return True
    return any(_follows(outside, m, _BEFORE_PIECE) for m in _PIECE.finditer(outside)) or any(
        _follows(outside, match, _BEFORE_PASTE)
        for pattern in _PASTE
        for match in pattern.finditer(outside)
    )


def has_asm_word(data: bytes) -> bool:
    """Return whether the keyword occurs in a text of macro definitions."""
    return any(True for _ in _keywords(data))


def _keywords(data: bytes) -> Iterator[re.Match[bytes]]:
    return (m for m in _KEYWORD.finditer(data) if _follows(data, m, _BEFORE_KEYWORD))


def _follows(data: bytes, match: re.Match[bytes], before: re.Pattern[bytes]) -> bool:
    start = match.start()
    return before.fullmatch(data[max(0, start - _LOOK_BEHIND) : start]) is not None


def _is_opaque_in_source(data: bytes, match: re.Match[bytes]) -> bool:
    start = _after_qualifiers(data, match.end())
    if data.startswith(b"(", start):
        inside = _skip(data, start + 1)
        if _RENAME.match(data, inside):
            return False
        text = _template(data, inside)
        found = OPAQUE if text is None else read_template(text)
        # Literal, but in pieces, which `mentions_directive` would not find.
        return found.is_opaque or (bool(found.names) and not mentions_directive(data))
    before = match.start()
    line_start = data.rfind(b"\n", max(0, before - _MAX_BEFORE), before) + 1
    if not line_start and before > _MAX_BEFORE:
        return True
    line = data[line_start:before]
    if _DEFINE.match(line) and _END_OF_NAME.match(data, match.end()):
        return True  # a name for the keyword, whose uses cannot be seen
    if data.startswith((b"/*", b"//", b",", b")"), start):
        return not line.endswith(b"defined(")  # follows a comment, or is a macro's argument
    word = _WORD.match(data, start)
    return word is not None and data.startswith(b"(", word.end())


def read_statements(text: bytes) -> Directives:
    """Return the directives in every `asm` of preprocessed C or C++."""
    if b"pragma" in text and RAW_IN_PRAGMA.search(text):
        return OPAQUE
    names: dict[bytes, None] = {}
    included: dict[bytes, None] = {}
    left = _MAX_OPEN_BYTES + _MAX_OPEN_TIMES * len(text)
    for match in _TOKEN.finditer(text):
        if match["asm"] is None:
            if kind := match.lastgroup:
                left -= (len(text) if kind == "raw" else match.end(kind)) - match.start()
            if left < 0:
                return OPAQUE
            continue
        start = _after_qualifiers(text, match.end())
        template = _template(text, _skip(text, start + 1)) if text.startswith(b"(", start) else None
        found = OPAQUE if template is None else read_template(template)
        if found.is_opaque:
            return OPAQUE
        names.update(dict.fromkeys(found.names))
        included.update(dict.fromkeys(found.included))
    return Directives(tuple(names), tuple(included))


def read_template(text: bytes) -> Directives:
    """Return the directives in the text of one `asm`, with escapes resolved."""
    return OPAQUE if _is_made_by_operand(text) else read_assembler(text)


def _is_made_by_operand(text: bytes) -> bool:
    end = -1
    for match in _MADE_BY_OPERAND.finditer(text):
        start = match.end("operand")
        if start < 0:
            return True
        if start > end:
            found = _QUOTE_OR_END.search(text, start)
            end = found.start() if found else len(text)
        if text.startswith(b'"', end):
            return True
    return False


def _template(text: bytes, start: int) -> bytes | None:
    """Return the joined strings at `start`; None if anything else contributes to the text."""
    pieces: list[bytes] = []
    while (match := _STRING.match(text, start)) is not None:
        raw, plain = match["raw"], match["text"]
        piece = raw if raw is not None else unescape(plain)
        if piece is None:
            return None
        pieces.append(piece)
        start = _skip(text, match.end())
    return b"".join(pieces) if pieces and text.startswith((b":", b")"), start) else None


def unescape(text: bytes) -> bytes | None:
    """Return a string's bytes with escapes resolved; None for one that is not known."""
    if b"\\" not in text:
        return text
    is_known = True

    def resolve(match: re.Match[bytes]) -> bytes:
        nonlocal is_known
        if match[1] is not None:
            return bytes([int(match[1], 8) & 0xFF])
        if match[2] is not None:
            return bytes([int(match[2], 16) & 0xFF])
        if match[3] not in _SIMPLE:
            is_known = False  # \u0069, \x{69}, \N{...}
        return _SIMPLE.get(match[3], b"")

    resolved = _ESCAPE.sub(resolve, text)
    return resolved if is_known else None


def _after_qualifiers(text: bytes, start: int) -> int:
    match = _QUALIFIERS.match(text, start)
    return start if match is None else match.end()


def _skip(text: bytes, start: int) -> int:
    match = _SPACE.match(text, start)
    return start if match is None else match.end()
