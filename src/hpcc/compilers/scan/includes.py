"""What a file's text asks the preprocessor for, in any spelling. Nothing is evaluated.

The result is a superset on purpose: both branches of each `#if`, and directives in comments,
strings and raw strings. Directives without a readable name are reported separately.

Sources: C23 5.2.1.1 (phases 1 to 4), GCC's libcpp (directives.cc, charset.cc: the byte order mark,
blanks before a line break), Clang's Lexer and PPDirectives.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Final

from hpcc.compilers.scan.preambles import PreambleCache
from hpcc.compilers.scan.questions import NOTHING_ASKED, Definitions, Questions
from hpcc.compilers.scan.scan import MAX_DIRECTIVES, Hazard, scan_source
from hpcc.compilers.scan.text import joined, may_hold_comments, without_comments

_BOM: Final = b"\xef\xbb\xbf"
_BLANK: Final = rb"[ \t\f\v\0\r]*"
_HASH: Final = rb"(?:\#|%:|\?\?=)"
_WORD: Final = rb"(?:include_next|include|import)"
# Begins with a line break: a single byte to search for, and no work per word in prose.
_DIRECTIVE: Final = re.compile(
    rb"\n"
    + _BLANK
    + _HASH
    + _BLANK
    + _WORD
    + rb"(?![\w$'])"
    + _BLANK
    + rb'(?:"([^"\n]*)"|<([^>\n]*)>|(\w+)'
    + _BLANK
    + rb"(?=\n|/|\Z)|(/\*))?"
)
# A comment among the words of a directive, or one that ends on its line. Separate patterns, so that
# each begins with bytes to search for.
_COMMENTED: Final = tuple(
    re.compile(pattern)
    for pattern in (
        rb"\*/" + _BLANK + _HASH,
        rb"\#" + _BLANK + rb"/\*",
        rb"%:" + _BLANK + rb"/\*",
        rb"\?\?=" + _BLANK + rb"/\*",
        rb"include(?:_next)?" + _BLANK + rb"/\*",
        rb"import" + _BLANK + rb"/\*",
    )
)
_NESTING: Final = re.compile(
    rb"\n"
    + _BLANK
    + _HASH
    + _BLANK
    + rb"(if(?:n?def)?|endif|"
    + _WORD
    + rb")(?![\w$'])"
    + _BLANK
    + rb"([\"<])?"
)
_SELF: Final = b"__FILE__"


@dataclass(frozen=True, slots=True)
class Includes:
    """Names that a file may look up. `quoted` names are also looked for beside the file.

    `computed` are macros in place of a name. `is_opaque`: some directive is neither a name nor one
    macro. `asked` are the questions of `__has_include`.
    """

    quoted: frozenset[bytes] = frozenset()
    angled: frozenset[bytes] = frozenset()
    asked: Questions = NOTHING_ASKED
    computed: frozenset[bytes] = frozenset()
    is_opaque: bool = False


def scan_includes(data: bytes, preambles: PreambleCache | None = None) -> Includes:
    """Return one file's include lines. Linear in its size. `preambles` is a cache."""
    text = joined(data.removeprefix(_BOM))
    if b"__has_" in text or _is_commented(text):
        return _read(data, text)
    return (preambles or PreambleCache()).of("includes", text, _read_plain)


def _is_commented(text: bytes) -> bool:
    if b"/*" not in text and b"*/" not in text:
        return False
    return any(pattern.search(text) for pattern in _COMMENTED)


def _read_plain(text: bytes) -> Includes:
    """Read a head that has no questions, and no comments among its directives."""
    quoted: set[bytes] = set()
    angled: set[bytes] = set()
    computed: set[bytes] = set()
    is_opaque = _collect(text, quoted, angled, computed)
    is_opaque |= len(quoted) + len(angled) + len(computed) > MAX_DIRECTIVES
    return Includes(
        frozenset(quoted), frozenset(angled), computed=frozenset(computed), is_opaque=is_opaque
    )


def _read(data: bytes, text: bytes) -> Includes:
    quoted: set[bytes] = set()
    angled: set[bytes] = set()
    computed: set[bytes] = set()
    is_opaque = _collect(text, quoted, angled, computed)
    if _is_commented(text):
        code = without_comments(text)
        is_opaque = _collect(code, quoted, angled, computed) or may_hold_comments(code, text)
    asked = NOTHING_ASKED
    if b"__has_" in text:
        scan = scan_source(data)
        asked = scan.asked
        is_opaque |= Hazard.OPAQUE_QUESTION in scan.hazards
    total = len(quoted) + len(angled) + len(computed) + asked.count
    return Includes(
        frozenset(quoted),
        frozenset(angled),
        asked,
        frozenset(computed),
        is_opaque or total > MAX_DIRECTIVES,
    )


def _collect(text: bytes, quoted: set[bytes], angled: set[bytes], computed: set[bytes]) -> bool:
    """Add the names in a text's directives; return whether one cannot be read."""
    is_opaque = False
    for in_quotes, in_angles, macro, comment in _DIRECTIVE.findall(b"\n" + text):
        if in_quotes:
            quoted.add(in_quotes)
        elif in_angles:
            angled.add(in_angles)
        elif macro:
            computed.add(macro)
        elif not comment:  # a line with a comment is read again without it
            is_opaque = True
    computed.discard(_SELF)  # the file itself, which exists
    return is_opaque or b"\0" in b"".join((*quoted, *angled))


def may_begin_with_macro(data: bytes) -> bool:
    """Tell whether the first include line that a compiler obeys may have a macro for a name.

    False if a line with a name comes before all such lines and stands outside of every `#if`.
    """
    text = joined(data.removeprefix(_BOM))
    code = without_comments(text)
    if may_hold_comments(code, text):
        return True
    depth = 0
    for word, name in _NESTING.findall(b"\n" + code):
        if word.startswith(b"if"):
            depth += 1
        elif word == b"endif":
            depth -= 1
        elif not name:
            return True
        elif depth == 0:
            return False
    return False


def scan_definitions(data: bytes, names: frozenset[bytes]) -> Definitions:
    """Return what a file defines these macros as, in any branch."""
    if not any(name in data for name in names):
        return Definitions()
    words = b"|".join(sorted(map(re.escape, names)))
    text = joined(data)
    # Removing comments costs much more than this search, and short names are in every file.
    if not re.search(rb"define" + _BLANK + rb"(?:/\*|(?:" + words + rb")(?![\w$]))", text):
        return Definitions()
    text = text.removeprefix(_BOM)
    code = without_comments(text)
    if may_hold_comments(code, text):
        return Definitions(is_opaque=True)
    pattern = re.compile(
        _HASH
        + _BLANK
        + rb"define"
        + _BLANK
        + rb"("
        + words
        + rb")(?![\w$])(\(?)"
        + _BLANK
        + rb"([^\n]*)"
    )
    return _defined((m[1], None if m[2] else m[3]) for m in pattern.finditer(code))


def argument_definitions(macros: Iterable[bytes], names: frozenset[bytes]) -> Definitions:
    """Return what the values of `-D` arguments define these macros as."""
    found: list[tuple[bytes, bytes | None]] = []
    for macro in macros:
        name, equals, value = macro.partition(b"=")
        bare = name.partition(b"(")[0]
        if bare in names:
            found.append((bare, None if bare != name else value if equals else b"1"))
    return _defined(found)


def _defined(found: Iterable[tuple[bytes, bytes | None]]) -> Definitions:
    names: set[tuple[bool, bytes]] = set()
    macros: set[bytes] = set()
    defined: set[bytes] = set()
    texts: set[tuple[bytes, bytes]] = set()
    is_opaque = False
    for name, value in found:
        defined.add(name)
        value = None if value is None else value.strip(b" \t\f\v\r\0")  # noqa: PLW2901 - without its blanks
        if value is not None:
            texts.add((name, value))
        if value is None:
            is_opaque = True
        elif match := _VALUE.fullmatch(value):
            if match[3]:
                macros.add(match[3])
            else:
                names.add((match[1] is not None, match[1] or match[2]))
        elif value and not value.isdigit():  # else an error in place of a name
            is_opaque = True
    return Definitions(
        frozenset(names), frozenset(macros), frozenset(defined), is_opaque, frozenset(texts)
    )


_VALUE: Final = re.compile(rb'"([^"\0\\]+)"|<([^>\0]+)>|([A-Za-z_]\w*)')
