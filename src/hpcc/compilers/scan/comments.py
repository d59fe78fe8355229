"""C and C++ files without the text of comments that no compiler can see.

The result is again a source file: the same tokens at the same lines and columns. A comment stays
where it is and keeps its kind, because GCC warns about a `//` in C90 and takes any comment as a
fall-through mark at one level. It loses its text if nothing follows on its line. Inside a long
comment each line keeps its blanks and whether text follows them: GCC compares the indentation of
lines for -Wmisleading-indentation.

A file gets no such form (None) where the extent of a comment could depend on anything but the
file's text and the mode. Known cases are a splice or trigraph inside a token, raw strings with
quotes, names of headers with slashes, and prose in a skipped block. Whether a command may use the
form at all is decided by `hpcc.compilers.invocation.comment_flags`.

Sources: C23 5.2.1.1 and 6.4; GCC libcpp/lex.cc (_cpp_lex_direct, fallthrough_comment_p, lex_string,
lex_raw_string), libcpp/line-map.cc, gcc/c-family/c-indentation.cc; Clang Lexer.cpp and
RawCommentList.cpp.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Final


@dataclass(frozen=True, slots=True)
class LexMode:
    """What a command's language standard and compiler make of a file's bytes.

    False is always the careful value of the first two: such text then gives no form.
    `has_doc_comments`: the compiler can warn about comments that look like documentation.
    """

    has_line_comments: bool
    has_digit_separators: bool
    has_doc_comments: bool


MAX_BYTES: Final = 16 << 20
# GCC gives up columns beyond 4096, also those of the tokens before a comment.
MAX_LINE_BYTES: Final = 1000
MAX_GCC_LOCATIONS: Final = 0x0F000000
"""The sum of `gcc_locations` up to which GCC before version 15 keeps all columns of a compile."""

_TEXT: Final = bytes(range(0x20, 0x7F)) + b"\t\n\f\v"
_TRIGRAPH: Final = re.compile(rb"\?\?[=/'()!<>-]")
_WORD: Final = rb"[0-9A-Za-z_]"
_NOT_WORD: Final = rb"[^0-9A-Za-z_]"
# A number goes on behind these: "1.'x" and "1e+'x" are numbers with a digit separator.
_NOT_IN_NUMBER: Final = rb"[^0-9A-Za-z_.$'+-]"
_STRING: Final = rb'[^"\\\n]*(?:\\[^\n][^"\\\n]*)*"'
_ESCAPE: Final = rb"\\(?:[abefnrtv'\"?\\]|[0-7]{1,3}|[xuU][0-9A-Fa-f]{1,8})"
_CHARACTER: Final = rb"(?:[^'\\\n]|" + _ESCAPE + rb"|[0-9A-Za-z_]{2,8})'"
# Begins with a set of four bytes to search for. What none of the parts accepts is `bad`.
_TOKEN: Final = re.compile(
    rb"[/\"'\\](?:(?<=/)(?P<comment>[/*])"
    # Strings. A raw string must be one that reads the same as a plain string.
    rb'|(?<=")(?<!R")' + _STRING + rb'|(?<=R")(?P<mark>[^ ()\\\t\v\f\n"]{0,16})'
    rb'\([^"\\\n]*\)(?P=mark)"(?P<raw>)'
    rb"|(?<=" + _WORD + rb'R")' + _STRING + rb"(?P<maybe_raw>)"
    # Characters, with or without a prefix: one, or several that cannot be prose.
    rb"|(?<=')(?:(?<![0-9A-Za-z_.$+-]')|(?<=" + _NOT_IN_NUMBER + rb"[uUL]')"
    rb"|(?<="
    + _NOT_IN_NUMBER
    + rb"u8'))"
    + _CHARACTER
    + rb"|(?<=[+-]')"
    + _CHARACTER
    + rb"(?P<signed>)"
    rb"|(?<=[0-9A-Za-z]')(?=[0-9A-Za-z])(?P<separator>)"
    # A splice that joins no two tokens.
    rb"|(?:(?<=[ \t;{}(),]\\)\n|(?<=\\)\n(?=[ \t\n]))"
    rb"|(?<!/)(?P<bad>))"
)
_RAW_PREFIX: Final = re.compile(_NOT_WORD + rb"(?:u8|[uUL])R\Z")
_NUMBER: Final = re.compile(rb"[^0-9A-Za-z_.$']\.?[0-9][0-9A-Za-z_.]*(?:'[0-9A-Za-z_.]+)*\Z")
_EXPONENT: Final = re.compile(rb"(?:[^0-9A-Za-z_.$']\.?[0-9]|\A)[0-9A-Za-z_.'+-]*[eEpP][+-]\Z")
_MAX_NUMBER: Final = 80

# Directives whose text may be read as a header's name, in which quotes and slashes mean less. A
# splice before "#" leaves it first on its line; other spliced lines belong to the line before.
_SPACE: Final = rb"(?:[ \t\f\v]|\\\n)*+"
_DIRECTIVE: Final = (
    rb"\n(?<!\\\n)"
    + _SPACE
    + rb"(?:\#|%:)"
    + _SPACE
    + rb"(?!(?:define|undef|error|warning|line|ident)\b)"
)
_REST: Final = rb"(?:[^\n\\]|\\\n)*+"
_ANGLED: Final = re.compile(_DIRECTIVE + rb"(?:[^\n\\<]|\\\n)*+<(" + _REST + rb")")
_ODD_IN_NAME: Final = re.compile(rb"//|/\*|[\"']")
_HEADER_NAMES: Final = tuple(
    (word, re.compile(pattern))
    for word, pattern in (
        (b"\\", _DIRECTIVE + _REST + rb"\\"),
        (b"*/", rb"\*/" + _SPACE + rb"(?:\#|%:)"),
        (b"import", rb"\n[ \t\f\v]*(?:export[ \t\f\v]+)?import\b[^;\n]*[<\"]"),
    )
)
# Comments with a meaning to a compiler, or to a warning: they keep their text.
_KEPT: Final = (b"@", b"fall", b"lint", b"else", b"break", b"/*", b"\f", b"\v")
_DOC_MARKS: Final = b"/*!<"
# A line that begins like a directive keeps its text.
_TEXT_OF_LINE: Final = re.compile(rb"(\n[ \t]*)[^ \t\n#%][^\n]*")
# The last line of a file keeps its comment: its length is the place of the file's end.
_NOTHING_MORE: Final = re.compile(rb"[ \t]*\n[\s\S]")


def comment_free(data: bytes, mode: LexMode) -> bytes | None:
    """Return the file with the text of invisible comments left out. Linear in its size.

    None: the file's own bytes must be used. Equal results of two files in one mode: both give the
    same object, if one of them compiles without a message and the command's flags allow it.
    """
    if len(data) > MAX_BYTES or data.translate(None, _TEXT):
        return None
    if b"/" not in data:
        return data
    if (b"??" in data and _TRIGRAPH.search(data)) or _widest(data) > MAX_LINE_BYTES:
        return None
    text = b"\n" + data
    if _has_odd_header_name(text):
        return None
    pieces = _pieces(text, mode)
    return None if pieces is None else b"".join(pieces)[1:]


def gcc_locations(data: bytes) -> int:
    """Return an upper bound of the locations that GCC uses for one inclusion of the file.

    GCC numbers columns up to location 0x60000000. From 0x50000000 it spends this many on a file.
    Above `MAX_GCC_LOCATIONS` for all inclusions of a compile, the length of a comment could decide
    which lines still have columns in the debug information.
    """
    bits = max(7, (_widest(data) + 50).bit_length())
    return (data.count(b"\n") + 1) << bits


def _widest(data: bytes) -> int:
    return max(map(len, data.split(b"\n")))


def _has_odd_header_name(text: bytes) -> bool:
    """Return whether a comment or a quote may begin inside a header's name."""
    if any(word in text and pattern.search(text) for word, pattern in _HEADER_NAMES):
        return True
    for match in _ANGLED.finditer(text):
        names = (b"<" + match[1]).split(b">")[:-1]
        for name in names:
            start = name.find(b"<")
            if start >= 0 and _ODD_IN_NAME.search(name, start):
                return True
    return False


def _pieces(data: bytes, mode: LexMode) -> list[bytes] | None:
    """Return the parts of the new text. `data` begins with a line break."""
    pieces: list[bytes] = []
    done = position = 0
    search = _TOKEN.search
    while match := search(data, position):
        kind = match.lastgroup
        position = match.end()
        if kind == "comment":
            start = match.start()
            position = _end(data, position, mode)
            if position < 0:
                return None
            new = _blanked(data, start, position, mode)
            if new is None:
                return None
            if new:
                pieces += (_before(data[done:start]), new)
                done = position
        elif kind is not None and not _is_harmless(kind, data, match.start(), mode):
            return None
    pieces.append(data[done:])
    return pieces


def _end(data: bytes, position: int, mode: LexMode) -> int:
    """Return where the comment ends whose first two bytes end at `position`; -1 if unknown."""
    if data.startswith(b"/", position - 1):
        if not mode.has_line_comments:
            return -1
        end = data.find(b"\n", position)
        return end if end >= 0 else len(data)
    end = data.find(b"*/", position)
    return end + 2 if end >= 0 else -1


def _blanked(data: bytes, start: int, end: int, mode: LexMode) -> bytes | None:
    """Return a comment without its text; b"" if it must keep it, None if it is not understood."""
    comment = data[start:end]
    if b"\\" in comment:
        return None
    has_lines = b"\n" in comment
    if not _NOTHING_MORE.match(data, end):
        return None if has_lines and _is_in_directive(data, start) else b""
    if mode.has_doc_comments and comment[2:3] in _DOC_MARKS:
        return b""
    body = comment[2:].lower()
    if any(word in body for word in _KEPT):
        return b""
    if comment.startswith(b"//"):
        return b"//"
    if not has_lines:
        return b"/* */"
    return b"/* " + _TEXT_OF_LINE.sub(rb"\1.", comment[comment.index(b"\n") : -2]) + b"*/"


def _before(text: bytes) -> bytes:
    """Return the text before a comment with one blank for several, except at a line's start."""
    bare = text.rstrip(b" \t")
    return text if not bare or bare.endswith(b"\n") else bare + b" "


def _is_in_directive(data: bytes, at: int) -> bool:
    """Return whether the line, or lines that splices join, may have a directive before `at`."""
    start = data.rfind(b"\n", 0, at)
    while data[start - 1 : start] == b"\\":
        start = data.rfind(b"\n", 0, start)
    line = data[start:at]
    return b"#" in line or b"%:" in line


def _is_harmless(kind: str, data: bytes, at: int, mode: LexMode) -> bool:
    """Return whether a quote ends where it seems to, whichever way the compiler reads it."""
    before = data[max(0, at - _MAX_NUMBER) : at]
    if kind == "maybe_raw":
        return _RAW_PREFIX.search(before) is None
    if kind == "signed":
        return _EXPONENT.search(before) is None
    if kind == "separator":
        return mode.has_digit_separators and _NUMBER.search(before) is not None
    return kind == "raw"
