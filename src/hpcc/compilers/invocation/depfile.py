"""Dependency files: the subset of make's syntax that compilers write.

Sources: GCC libcpp/mkdeps.cc (munge), Clang DependencyFile.cpp (PrintFilename).
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Final

from hpcc.core import CallerError

MAX_DEPFILE_BYTES: Final = 8 << 20
MAX_DEPENDENCIES: Final = 100_000
_WRAP_COLUMNS: Final = 72
_SLASHES: Final = re.compile(rb"\\+")


@dataclass(frozen=True, slots=True)
class DepRule:
    """One rule: `targets: prerequisites`, names unescaped."""

    targets: tuple[bytes, ...]
    prerequisites: tuple[bytes, ...]


def parse_depfile(data: bytes) -> tuple[DepRule, ...]:
    """Return the rules of a depfile that a compiler wrote for `-MD`.

    Raises:
        CallerError: it is too large, or not a list of rules.
    """
    if len(data) > MAX_DEPFILE_BYTES or b"\0" in data:
        raise CallerError("dependency file is too large or holds NUL", reason="depfile")
    text = data.replace(b"\r\n", b"\n").replace(b"\\\n", b" ")
    rules = [_rule(line) for line in text.split(b"\n") if line.strip()]
    if sum(len(r.prerequisites) for r in rules) > MAX_DEPENDENCIES:
        raise CallerError("dependency file names too many files", reason="depfile")
    return tuple(rules)


def _rule(line: bytes) -> DepRule:
    words = _words(line)
    for index, word in enumerate(words):
        # Targets end at an unescaped colon at the end of a word, so `C:\x` and `a:b` are names.
        if word.endswith(b":"):
            names = [*words[:index], word[:-1]] if word != b":" else words[:index]
            if b"\\" not in line and b"$" not in line:
                return DepRule(tuple(names), tuple(words[index + 1 :]))
            return DepRule(
                tuple(map(unescape_name, names)), tuple(map(unescape_name, words[index + 1 :]))
            )
    raise CallerError("dependency file has a line without a target", reason="depfile")


def _words(line: bytes) -> list[bytes]:
    """Split at white space that is not escaped by an odd number of backslashes."""
    if b"\\" not in line:
        return line.split()
    words: list[bytes] = []
    pieces: list[bytes] = []  # of one word, joined once: a hostile line is one word of blanks
    for piece in line.replace(b"\t", b" ").split(b" "):
        pieces.append(piece)
        slashes = len(piece) - len(piece.rstrip(b"\\"))
        if slashes % 2:
            continue
        if word := b" ".join(pieces):
            words.append(word)
        pieces = []
    if pieces:
        words.append(b" ".join([*pieces, b""]))
    return words


def unescape_name(word: bytes) -> bytes:
    """Return a file name as make reads it; the reverse of `escape_name`."""
    if b"\\" not in word and b"$" not in word:
        return word
    result = bytearray()
    index = 0
    while index < len(word):
        char = word[index : index + 1]
        if char == b"$" and word[index + 1 : index + 2] == b"$":
            index += 1
        elif char == b"\\":
            run = _slashes_from(word, index)
            after = word[index + run : index + run + 1]
            if after == b" ":  # before a blank, backslashes are doubled
                result += b"\\" * (run // 2) + b" "
                index += run + 1
                continue
            if after == b"#":
                result += b"\\" * (run - 1) + b"#"
                index += run + 1
                continue
            result += b"\\" * run
            index += run
            continue
        result += char
        index += 1
    return bytes(result)


def _slashes_from(word: bytes, index: int) -> int:
    found = _SLASHES.match(word, index)
    return 0 if found is None else found.end() - index


def escape_name(name: bytes) -> bytes:
    """Return a file name escaped for make, as GCC's munge does."""
    if not any(c in name for c in (b" ", b"\t", b"$", b"#")):
        return name
    result = bytearray()
    slashes = 0  # directly before
    for char in name:
        if char in b" \t":
            result += b"\\" * slashes + b"\\"
        elif char == ord("$"):
            result += b"$"
        elif char == ord("#"):
            result += b"\\"
        slashes = slashes + 1 if char == ord("\\") else 0
        result.append(char)
    return bytes(result)


def render_depfile(rules: Sequence[DepRule]) -> bytes:
    """Return the text of rules, wrapped as GCC wraps it."""
    return b"".join(_render_rule(rule) for rule in rules)


def _render_rule(rule: DepRule) -> bytes:
    out = bytearray(b" ".join(map(escape_name, rule.targets)) + b":")
    column = len(out)
    for name in map(escape_name, rule.prerequisites):
        if column + 1 + len(name) > _WRAP_COLUMNS:
            out += b" \\\n"
            column = 0
        out += b" " + name
        column += 1 + len(name)
    return bytes(out) + b"\n"


def prerequisites(rules: Iterable[DepRule]) -> tuple[bytes, ...]:
    """Return all files that some rule depends on, each once, in order."""
    return tuple(dict.fromkeys(p for rule in rules for p in rule.prerequisites))
