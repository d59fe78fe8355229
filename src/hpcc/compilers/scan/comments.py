"""C and C++ files without the text of comments that no compiler can see.

The result is again a source file: the same tokens at the same lines and columns. A comment at the
end of a line of code disappears. One that stands alone on its lines disappears if it is indented at
least like the code that follows, else only its text does: GCC compares the indentation of lines for
-Wmisleading-indentation. A comment with code behind it on its line stays as it is.

Without `keeps_lines` the empty lines that are left disappear, too. Then the result has the same
tokens in the same columns, but not in the same lines.

A file gets no such form (None) where the extent of a comment could depend on anything but the
file's text and the mode. Known cases are a splice or trigraph inside a token but a string, raw
strings of several lines, names of headers with slashes, and prose in a skipped block. Whether a
command may use the form at all is decided by `hpcc.compilers.invocation.comment_flags`.

Sources: C23 5.2.1.1 and 6.4; GCC libcpp/lex.cc (_cpp_lex_direct, fallthrough_comment_p, lex_string,
lex_raw_string), libcpp/line-map.cc, gcc/c-family/c-indentation.cc; Clang Lexer.cpp and
RawCommentList.cpp.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Final, NamedTuple

from hpcc.compilers.scan.header_names import has_odd_header_name


@dataclass(frozen=True, slots=True)
class LexMode:
    """What a command's language standard and compiler make of a file's bytes.

    False is always the careful value of the first three: such text then gives no form.
    `has_doc_comments`: the compiler can warn about comments that look like documentation.
    `shows_line_comments`: it can warn about the first comment in a file that begins with slashes.
    `reads_fall_through`: a comment can say that a case falls through. `is_clang`: the compiler is
    Clang, which a text can tell to warn about documentation, and never about a case.
    `keeps_end`: the object may hold the place of the file's end. `keeps_lines`: the object may hold
    the numbers of lines.
    """

    has_line_comments: bool
    has_digit_separators: bool
    has_raw_strings: bool = False
    has_doc_comments: bool = False
    shows_line_comments: bool = True
    reads_fall_through: bool = True
    is_clang: bool = True
    keeps_end: bool = True
    keeps_lines: bool = True


class Form(NamedTuple):
    """A file without comments. `has_line_comments`: one of them began with two slashes.

    GCC warns in C90 of the first such comment in a file.
    """

    text: bytes
    has_line_comments: bool


MAX_BYTES: Final = 16 << 20
# GCC gives up columns beyond 4096, also those of the tokens before a comment.
MAX_LINE_BYTES: Final = 1000
_MAX_COLUMNS: Final = 4096
MAX_GCC_LOCATIONS: Final = 0x0F000000
"""The sum of `gcc_locations` up to which GCC before version 15 keeps all columns of a compile."""

_ASCII: Final = bytes(range(0x20, 0x7F)) + b"\t\n\f\v"
_MORE: Final = bytes(range(0x80, 0x100)) + b"\r"
_TRIGRAPH: Final = re.compile(rb"\?\?[=/'()!<>-]")
# Bytes of a name in any encoding count as letters, where that is the careful answer.
_WORD: Final = rb"[0-9A-Za-z_]"
_NOT_WORD: Final = rb"[^0-9A-Za-z_]"
# A number goes on behind these: "1.'x" and "1e+'x" are numbers with a digit separator.
_IN_NUMBER: Final = rb"0-9A-Za-z_.$+\x80-\xff-"
_NOT_IN_NUMBER: Final = rb"[^'" + _IN_NUMBER + rb"]"
# Lines that a backslash joins are one string everywhere; compilers warn of a blank behind it.
_STRING: Final = rb'[^"\\\n]*(?:\\[\s\S][^"\\\n]*)*"'
_ESCAPE: Final = rb"\\(?:[abefnrtv'\"?\\]|[0-7]{1,3}|[xuU][0-9A-Fa-f]{1,8})"
# One of several characters has none that could begin a comment or a string, were it prose.
_CHARACTER: Final = rb"(?:[^'\\\n]|" + _ESCAPE + rb"|(?:[^'\"\\/\n]|/(?![/*]))+)'"
# Begins with a set of four bytes to search for. What none of the parts accepts is `bad`.
_TOKEN: Final = re.compile(
    rb"[/\"'\\](?:(?<=/)(?P<comment>[/*])"
    # Strings. A raw string must be one that reads the same as a plain string.
    rb'|(?<=")(?<!R")' + _STRING + rb'|(?<=R")(?P<mark>[^ ()\\\t\v\f\n"]{0,16})'
    rb'\((?:[^"\\\n]*\)(?P=mark)"(?P<raw>)|[^\n]*?\)(?P=mark)"(?P<surely_raw>))'
    rb"|(?<=" + _WORD + rb'R")' + _STRING + rb"(?P<maybe_raw>)"
    # Characters, with or without a prefix: one, or several that cannot be prose.
    rb"|(?<=')(?:(?<![" + _IN_NUMBER + rb"]')|(?<=" + _NOT_IN_NUMBER + rb"[uUL]')"
    rb"|(?<="
    + _NOT_IN_NUMBER
    + rb"u8'))"
    + _CHARACTER
    + rb"|(?:(?<=[+-]')|(?<=[+-][uUL]')|(?<=[+-]u8'))"
    + _CHARACTER
    + rb"(?P<signed>)"
    rb"|(?<="
    + _NOT_IN_NUMBER
    + rb"case')"
    + _CHARACTER
    + rb"|(?<=[0-9A-Za-z]')(?=[0-9A-Za-z])(?P<separator>)"
    # A splice that joins no two tokens.
    rb"|(?:(?<=[ \t\n;{}(),]\\)\n|(?<=\\)\n(?=[ \t\n;{}(),]))"
    rb"|(?<!/)(?P<bad>))"
)
_RAW_PREFIX: Final = re.compile(_NOT_WORD + rb"(?:u8|[uUL])R\Z")
_SURE_PREFIX: Final = re.compile(_NOT_IN_NUMBER + rb"(?:u8|[uUL])?R\Z")
_NUMBER: Final = re.compile(
    rb"[^0-9A-Za-z_.$'\x80-\xff]\.?[0-9][0-9A-Za-z_.]*(?:'[0-9A-Za-z_.]+)*\Z"
)
_EXPONENT: Final = re.compile(
    rb"(?:[^0-9A-Za-z_.$'\x80-\xff]\.?[0-9]|\A)[0-9A-Za-z_.'+\x80-\xff-]*[eEpP][+-]"
    rb"(?:u8|[uUL])?\Z"
)
_MAX_NUMBER: Final = 80

# Backslashes (or their trigraphs) that join lines, also within the end of a comment.
_SPLICE: Final = re.compile(rb"(?:\\|\?\?/)[ \t\f\v]*\n")
_SPLICED_END: Final = re.compile(rb"\*(?:(?:\\|\?\?/)[ \t\f\v]*\n)+/")
# Comments that a warning reads: for another comment inside, for a direction of text that is not
# closed (LRM, RLM, U+202A to U+202E, U+2066 to U+2069).
_KEPT: Final = re.compile(rb"/\*|[\f\v]|\xe2(?:\x80[\x8e\x8f\xaa-\xae]|\x81[\xa6-\xa9])")
# Each comment that GCC takes for a mark of a case that falls through holds this.
_FALLS: Final = re.compile(rb"falls?[ \t-]*+thr", re.IGNORECASE)
_DOC_MARKS: Final = b"/*!<"
# A line that begins like a directive counts as one for -Wmisleading-indentation.
_LIKE_DIRECTIVE: Final = re.compile(rb"\n[ \t]*[#%]")
_TEXT_OF_LINE: Final = re.compile(rb"(\n[ \t]*)[^ \t\n][^\n]*")
# What may stand on a line without a token.
_NO_TOKEN: Final = re.compile(rb"(?:[ \t]*+/\*(?:[^*\n]|\*(?!/))*+\*/)*+[ \t]*+(?://[^\n]*+)?+")
_LAST_LINE: Final = re.compile(rb"[ \t]*\n?\Z")
# Bytes that no accepted file holds: a comment that is left out, a line break in one that is kept.
_GONE: Final = b"\1"
_BREAK: Final = b"\2"
_BLANK: Final = (b" ", b"\t", _GONE)
_ODD_SPACE: Final = (b"\f", b"\v")
_ALONE: Final = re.compile(rb"([ \t]*)\x01[ \t\x01]*")


def comment_free(data: bytes, mode: LexMode) -> Form | None:
    """Return the file with invisible comments left out. Linear in its size.

    None: the file's own bytes must be used. Equal results of two files in one mode: both give the
    same object, if one of them compiles and the command's flags allow it, and the same messages but
    for lines that these quote.
    """
    rest = data.translate(None, _ASCII)
    if len(data) > MAX_BYTES or rest.translate(None, _MORE):
        return None
    breaks = b"\n"
    if b"\r" in rest:
        breaks = b"\r\n"
        if not data.count(b"\r") == data.count(breaks) == data.count(b"\n"):
            return None  # compilers differ in where a line ends
        data = data.replace(breaks, b"\n")
    if _widest(data) > MAX_LINE_BYTES:
        return None
    text = b"\n" + data
    if has_odd_header_name(text):
        return None
    walk = _Walk(text, mode, is_odd=bool(rest) or (b"??" in data and bool(_TRIGRAPH.search(data))))
    if not walk.has_form():
        return None
    keeps_lines = mode.keeps_lines or walk.has_doc_comments
    found = _without_lines(b"".join(walk.pieces), mode, keeps_lines=keeps_lines)
    return Form(found[1:].replace(b"\n", breaks), walk.has_line_comments)


def gcc_locations(data: bytes) -> int:
    """Return an upper bound of the locations that GCC uses for one inclusion of the file.

    GCC numbers columns up to location 0x60000000. From 0x50000000 it spends this many on a file.
    Above `MAX_GCC_LOCATIONS` for all inclusions of a compile, the length of a comment could decide
    which lines still have columns in the debug information. A line that is wider than
    `_MAX_COLUMNS` gets no columns and one location (line-map.cc).
    """
    bits = max(7, (min(_widest(data), _MAX_COLUMNS) + 50).bit_length())
    return (data.count(b"\n") + 1) << bits


def _widest(data: bytes) -> int:
    return max(map(len, data.split(b"\n")))


class _Walk:
    """One walk through a file's tokens. `data` begins with a line break.

    `is_odd`: the file holds trigraphs, or bytes outside of ASCII. Only comments, strings and
    characters may have them.
    """

    def __init__(self, data: bytes, mode: LexMode, *, is_odd: bool) -> None:
        self._data, self._mode, self._is_odd = data, mode, is_odd
        self.pieces: list[bytes] = []
        self.has_line_comments = self.has_doc_comments = False
        self._code_at = 0

    def has_form(self) -> bool:
        """Fill `pieces` with the parts of the new text, with marks; False if there is none."""
        data, done, position, is_odd = self._data, 0, 0, self._is_odd
        search = _TOKEN.search
        while match := search(data, position):
            kind = match.lastgroup
            if kind is None and not is_odd:  # most are plain strings
                position = match.end()
                continue
            start = match.start()
            if is_odd and _is_unclear(data[position:start]):
                return False
            position = match.end()
            if kind == "comment":
                position = self._end(position)
                new = self._blanked(start, position) if position >= 0 else None
                if new is None:
                    return False
                self.pieces += (data[done:start], new)
                done = position
            elif not self._is_harmless(match):
                return False
        self.pieces.append(data[done:])
        return not (is_odd and _is_unclear(data[position:]))

    def _is_harmless(self, match: re.Match[bytes]) -> bool:
        kind = match.lastgroup
        if self._is_odd and _TRIGRAPH.search(match[0]):
            return False
        return kind is None or _is_harmless(kind, self._data, match.start(), self._mode)

    def _end(self, position: int) -> int:
        """Return where the comment ends whose first two bytes end at `position`; -1 if unknown."""
        data = self._data
        if data.startswith(b"/", position - 1):
            if not self._mode.has_line_comments:
                return -1
            self.has_line_comments = True
            end = data.find(b"\n", position)
            return end if end >= 0 else len(data)
        end = data.find(b"*/", position)
        return end + 2 if end >= 0 else -1

    def _blanked(self, start: int, end: int) -> bytes | None:
        """Return what stands for a comment; None if its end is unclear."""
        data, mode = self._data, self._mode
        comment = data[start:end]
        is_line = comment.startswith(b"//")
        kept = comment.replace(b"\n", _BREAK)
        may_splice = b"\\" in comment or b"??/" in comment
        if may_splice and _SPLICE.search(comment + b"\n" if is_line else comment):
            return None if is_line or _SPLICED_END.search(comment) else kept
        is_doc = mode.has_doc_comments and comment[2:3] in _DOC_MARKS
        self.has_doc_comments |= is_doc
        if self._is_before_code(end):
            has_lines = b"\n" in comment
            return None if has_lines and _is_in_directive(data, start) else kept
        if is_doc or _KEPT.search(comment, 2) or _LIKE_DIRECTIVE.search(comment):
            return kept
        if mode.reads_fall_through and _FALLS.search(comment):
            return kept
        if (mode.keeps_end and _LAST_LINE.match(data, end)) or not _is_text(comment):
            return kept
        first_break = comment.find(b"\n")
        if first_break < 0:
            return _GONE
        return _GONE + _TEXT_OF_LINE.sub(rb"\1" + _GONE, comment[first_break:])

    def _is_before_code(self, end: int) -> bool:
        """Return whether a token follows the comment that ends here, on its line."""
        if end > self._code_at:  # else an earlier comment of the line found that code
            match = _NO_TOKEN.match(self._data, end)
            place = match.end() if match else end
            if self._data.startswith(b"\n", place):
                return False
            self._code_at = place
        return True


def _is_text(comment: bytes) -> bool:
    """Return whether a comment is text in UTF-8: compilers can warn of other bytes."""
    try:
        comment.decode()
    except UnicodeDecodeError:
        return False
    return True


def _is_unclear(code: bytes) -> bool:
    """Return whether code holds a trigraph or its begin, or bytes that not all take for letters."""
    return not code.isascii() or code.endswith(b"??") or _TRIGRAPH.search(code) is not None


def _without_lines(text: bytes, mode: LexMode, *, keeps_lines: bool) -> bytes:
    """Return a text with marks without the comments that are gone, and perhaps their lines."""
    last = text.rfind(b"\n", 0, -1) + 1 if mode.keeps_end else len(text)
    if not mode.keeps_end and text.endswith(b"\n"):
        bare = text.rstrip(b" \t\n\1")
        text = bare + b"\n" if not bare.endswith(b"\\") else text
        last = len(text)
    lines = text.split(b"\n")
    for number in range(text.count(b"\n", 0, last)):
        if lines[number].endswith(_BLANK):
            lines[number] = _without_blanks(lines[number])
    if _GONE in text:
        _leave_out_comment_lines(lines)
    if not keeps_lines:
        lines = _without_empty_lines(lines)
    return b"\n".join(lines).replace(_GONE, b"/**/").replace(_BREAK, b"\n")


def _without_blanks(line: bytes) -> bytes:
    """Return a line without the blanks and comments at its end, if code is before them.

    A line of nothing but blanks becomes empty.
    """
    code = line.rstrip(b" \t\1")
    if not code:
        return line if _GONE in line else b""
    return line if code.endswith(_ODD_SPACE) else code


def _leave_out_comment_lines(lines: list[bytes]) -> None:
    """Make those lines empty that hold a comment and are indented like the next code."""
    # The indentation of the first line with code from number `known` on; each is looked at once.
    below, known = b"", len(lines)
    for number in [n for n, line in enumerate(lines) if _GONE in line][::-1]:
        alone = _ALONE.fullmatch(lines[number])
        if alone is None:
            continue
        for line in lines[number + 1 : known]:
            if line.strip(b" \t"):
                below = line[: len(line) - len(line.lstrip(b" \t"))]
                break
        known = number + 1
        lines[number] = b"" if alone[1].startswith(below) else alone[1] + _GONE


def _without_empty_lines(lines: list[bytes]) -> list[bytes]:
    """Return the lines without empty ones, which may only end a line with a backslash."""
    left = lines[:1]
    for line in lines[1:-1]:
        if line.strip(b" \t") or left[-1].endswith(b"\\"):
            left.append(line)
    return [*left, *lines[1:][-1:]]


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
    if kind == "surely_raw":
        return mode.has_raw_strings and _SURE_PREFIX.search(before) is not None
    if kind == "signed":
        return _EXPONENT.search(before) is None
    if kind == "separator":
        return mode.has_digit_separators and _NUMBER.search(before) is not None
    return kind == "raw"
