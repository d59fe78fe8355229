"""Strings that GCC copies into its assembler output as they are: names of sections and the like.

Such a string may hold a line break and a directive like `.incbin`, and may be put together from
pieces. Before expansion the only question is whether a text has the words with
which that is possible. After it all strings are there, and each is read as the assembler reads it.

Facts, from experiments with GCC 12 and 14: the strings of `section`, `weakref`, `symver` and
`#ident` are copied. Those of `alias`, `ifunc`, `target`, `visibility` and `tls_model` are checked
first. Clang quotes such names.
"""

from __future__ import annotations

import re
from typing import Final, NamedTuple

from hpcc.compilers.scan.assembler import (
    RAW_IN_PRAGMA,
    mentions_machinery,
    read_assembler,
    unescape,
)
from hpcc.compilers.scan.text import joined, may_hold_comments, without_comments

# Each pattern begins with a literal, which is found at memory speed. What precedes it is checked
# afterwards. `fentry_name` and `fentry_section` are attributes for x86.
_PASTE: Final = rb"(?:##|%:%:|\?\?=\?\?=)"
_WORD: Final = rb"(?:.*[^\w$])?_{0,2}"
_GAP: Final = rb"(?:\s|/\*(?:[^*]|\*(?!/)){0,60}+\*/|//[^\n]{0,60}+\n)*"
_HASH: Final = rb".*(?:\#|%:|\?\?=)" + _GAP
_PIECE: Final = rb".*(?:[(,]|" + _PASTE + rb")" + _GAP + rb"_{0,2}"
_TOKEN_END: Final = rb"(?![\w$])"
_END: Final = rb"_{0,2}" + _TOKEN_END


class _Rule(NamedTuple):
    """`token` finds all that `pattern` does, and also where comments stand between tokens."""

    literal: bytes
    token: re.Pattern[bytes]
    pattern: re.Pattern[bytes]
    before: re.Pattern[bytes]


def _rule(literal: bytes, behind: bytes, before: bytes, *starts: bytes, rest: bytes = b"") -> _Rule:
    """Return a literal, patterns that begin with it, and one for what precedes it.

    The token is the literal, or one of `starts` and the literal, with `rest` behind it. Python
    searches a pattern fast if it begins with a literal, so that the token's begin is checked
    behind it.
    """
    begins = [rb"(?<![\w$]%s)" % literal, *(rb"(?<=%s%s)" % (s, literal) for s in starts)]
    token = literal + rb"(?:" + b"|".join(begins) + rb")" + rest
    ends, pattern = re.compile(token + _END), re.compile(token + behind)
    return _Rule(literal, ends, pattern, re.compile(before, re.DOTALL))


# A macro, a directive or another file may have the bracket, too.
_ELSEWHERE: Final = rb"/[*/]|[A-Za-z_$\\\x80-\xff]|\#|%:|\?\?=|\Z"
_CALL: Final = _END + rb"\s*+(?:\(|" + _ELSEWHERE + rb")"
# Such a name is an operand and begins no statement. It is the whole argument: with another string
# beside it, or a macro, it would not end here.
_PLAIN_NAME: Final = rb'\s*+"[\w.,]{0,200}+"\s*+\)'
_CALL_WITH_MORE: Final = _END + rb"\s*+(?:\((?!" + _PLAIN_NAME + rb")|" + _ELSEWHERE + rb")"
_ARGUMENT: Final = rb"_{0,2}" + _GAP + rb"[,)]"
_RULES: Final = (
    # With an argument. A comment may stand between. libstdc++ makes the string of a weak name from
    # a macro's argument, for each thread function.
    _rule(b"section", _CALL_WITH_MORE, _WORD + rb"(?:fentry_)?", b"__", b"fentry_"),
    _rule(b"weakref", _END + rb"\s*+(?:\((?!#name2\))|" + _ELSEWHERE + rb")", _WORD, b"__"),
    _rule(b"symver", _CALL, _WORD, b"__"),
    _rule(b"fentry_name", _CALL, _WORD, b"__"),
    # As the argument of a macro.
    _rule(b"section", _ARGUMENT, _PIECE + rb"(?:fentry_)?", b"__", b"fentry_"),
    _rule(b"weakref", _ARGUMENT, _PIECE, b"__"),
    _rule(b"symver", _ARGUMENT, _PIECE, b"__"),
    _rule(b"fentry_name", _ARGUMENT, _PIECE, b"__"),
    # Most of a word: macros may hold it and `##`.
    _rule(b"tion", _END, _WORD + rb"(?:e?c)?", rb"[^\w$]c", rb"[^\w$]ec", rb"_c", rb"_ec"),
    _rule(b"kref", _END, _WORD + rb"(?:e?a)?", rb"[^\w$]a", rb"[^\w$]ea"),
    _rule(b"ref", _END, rb".*(?:weak\s*,|" + _PASTE + rb")" + _GAP + rb"_{0,2}"),
    _rule(b"mver", _END, _WORD + rb"y?", rb"[^\w$]y"),
    _rule(b"ver", _END, rb".*(?:sym\s*,|" + _PASTE + rb")" + _GAP + rb"_{0,2}"),
    _rule(b"sect", _TOKEN_END, _WORD, b"__", rest=rb"(?:io?)?"),
    _rule(b"weakr", _TOKEN_END, _WORD, b"__", rest=rb"e?"),
    _rule(b"weak", _GAP + _PASTE, _WORD, b"__"),
    _rule(b"symv", _TOKEN_END, _WORD, b"__", rest=rb"e?"),
    _rule(b"sym", _GAP + _PASTE, _WORD, b"__"),
    _rule(b"ident", rb"\b", _HASH),
    _rule(b"sccs", rb"\b", _HASH),
)
_OTHERS: Final = (b"ver", b"ident", b"sccs")  # a macro of a command line has no directive
_LITERALS: Final = tuple(r.literal for r in _RULES if r.literal not in _OTHERS)
_IN_DEFINITION: Final = tuple(
    (word, re.compile(word + _END + rb"(?![ \t]*\()"))
    for word in (b"section", b"weakref", b"symver", b"fentry_name")
)
_DEFINE: Final = re.compile(rb"[ \t\f\v\r]*(?:\#|%:|\?\?=)[ \t\f\v]*define\b")
_LOOK_BEHIND: Final = 64
_MAX_BEFORE: Final = 4096  # on the line of a word; more is not searched

_TOKEN: Final = re.compile(
    rb"(?<![\w$.])\d[\w.]*+(?:'[\w.]++)++"  # quotes in 1'000 begin nothing
    rb"|'(?:[^'\\\n]|\\.)++'"
    # The template of an `asm` is read as such.
    rb"|(?<![\w$])(?:__asm__|__asm|_asm|asm)(?![\w$])[\s\w]*\(\s*+(?P<template>(?:"
    rb'(?:u8|[LuU])?"(?:[^"\\\n]|\\.)*+"\s*+)*+)'
    rb'|(?P<strings>(?:(?:u8|[LuU])?(?:R"(?P<mark>[^ ()\\\s]{0,16})\(.{0,65536}?\)(?P=mark)"'
    rb'|"(?:[^"\\\n]|\\.)*+")\s*+)++)'
    rb'|(?P<open>(?<![\w$])(?:u8|[LuU])?R"[^ ()\\\s]{0,16}\(|")',
    re.DOTALL,
)
_STRING: Final = re.compile(
    rb'R"(?P<mark>[^ ()\\\s]{0,16})\((?P<raw>.{0,65536}?)\)(?P=mark)"'
    rb'|"(?P<text>(?:[^"\\\n]|\\.)*+)"',
    re.DOTALL,
)
_RAW: Final = re.compile(rb'(?<![0-9A-Za-z_])(?:u8|[LuU])?R"')
_RAW_START: Final = re.compile(rb'R"[^ ()\\\s]{0,16}\(')
_MAX_RAW_STRINGS: Final = 5_000
_SPLICE: Final = b"\\\n"


def may_name_for_assembler(data: bytes) -> bool:
    """Return whether a source may give GCC a string to copy; a superset."""
    if b"??/" in data:
        return True  # GCC joins lines there in some modes
    data = joined(data.replace(b"\0", b" "))  # a blank to GCC
    if not any(rule.literal in data and rule.token.search(data) for rule in _RULES):
        return False
    code = without_comments(data)
    return may_hold_comments(code, data) or _seems_to_name(code)


def may_name_in_arguments(text: bytes) -> bool:
    """Return whether the macros of a command line may hold one of the words."""
    return any(literal in text for literal in _LITERALS)


def _seems_to_name(data: bytes) -> bool:
    for literal, _, pattern, before in _RULES:
        if literal in data and any(
            before.fullmatch(near := data[max(0, match.start() - _LOOK_BEHIND) : match.start()])
            or near.isspace()
            for match in pattern.finditer(data)
        ):
            return True
    return any(
        _is_in_definition(data, match.start())
        for word, pattern in _IN_DEFINITION
        if word in data
        for match in pattern.finditer(data)
    )


def _is_in_definition(data: bytes, at: int) -> bool:
    start = data.rfind(b"\n", max(0, at - _MAX_BEFORE), at) + 1
    if not start and at > _MAX_BEFORE:
        return True
    return _DEFINE.match(data, start, at) is not None


def strings_may_direct(text: bytes) -> bool:
    """Return whether a string in preprocessed C or C++ may hold directives that name files.

    Adjacent strings are one. Strings of `asm` do not count: see `assembler.read_statements`.
    """
    # Headers expand to a megabyte with few quotes. To look for tokens at each byte takes 0.15 s.
    lines = _lines_with_quotes(text)
    if len(_RAW.findall(lines)) > _MAX_RAW_STRINGS or RAW_IN_PRAGMA.search(lines):
        return True
    has_more = _SPLICE in text or _RAW_START.search(lines) is not None
    return (has_more or _strings_direct(lines)) and _strings_direct(text)


def _lines_with_quotes(text: bytes) -> bytes:
    """Return a text with `;` for each run of lines that hold neither a quote nor an apostrophe.

    Without splices and raw strings, its strings and their neighbours are those of the text. It may
    lack the keyword of an `asm`, so that the template counts as a string.
    """
    kept: list[bytes] = []
    quotes, end = text.replace(b"'", b'"'), 0
    while (at := quotes.find(b'"', end)) >= 0:
        start = text.rfind(b"\n", end, at) + 1 or end
        if start > end and not text[end:start].isspace():
            kept.append(b";\n")
        stop = text.find(b"\n", at) + 1 or len(text)
        kept.append(text[start:stop])
        end = stop
    return b"".join(kept)


def _strings_direct(text: bytes) -> bool:
    for match in _TOKEN.finditer(text):
        if match["open"] is not None:
            return True  # without an end, or a raw string that is too long
        if match["strings"] is None:
            continue
        joined: list[bytes] = []
        for piece in _STRING.finditer(match["strings"]):
            raw, plain = piece["raw"], piece["text"]
            found = raw if raw is not None else unescape(plain)
            if found is None:
                return True
            joined.append(found)
        if _may_direct(b"".join(joined)):
            return True
    return False


def _may_direct(text: bytes) -> bool:
    if b"." not in text:
        return False
    found = read_assembler(text)
    return found.is_opaque or bool(found.names) or mentions_machinery(text)
