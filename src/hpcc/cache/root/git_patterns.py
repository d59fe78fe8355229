"""Patterns of `.gitignore` files, as gitignore(5) defines them. Pure.

A pattern file may come with a clone, so a match must take linear time per name. A pattern such as
`*a*a*a*a*b` makes regular expressions slow, so there are none here.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

_ANY_DEPTH: Final = b"**"
_MAGIC: Final = frozenset(b"*?[\\")


@dataclass(frozen=True, slots=True)
class Pattern:
    """One line. `parts` are its components; a name alone matches at any depth: `**` in front."""

    parts: tuple[bytes, ...]
    is_negative: bool
    is_directory: bool

    def matches(self, path: tuple[bytes, ...], *, is_directory: bool) -> bool:
        """Tell whether it matches a path, given as components below the pattern's directory."""
        if self.is_directory and not is_directory:
            return False
        return _match_parts(self.parts, path)


def parse_patterns(data: bytes) -> tuple[Pattern, ...]:
    """Return the patterns of a file, in order."""
    lines = data.removeprefix(b"\xef\xbb\xbf").split(b"\n")
    found = (_parse(line.removesuffix(b"\r")) for line in lines)
    return tuple(pattern for pattern in found if pattern is not None)


def is_ignored(
    rules: tuple[tuple[int, tuple[Pattern, ...]], ...],
    path: tuple[bytes, ...],
    *,
    is_directory: bool,
) -> bool:
    """Tell what the last matching pattern decides.

    `rules` are (depth, patterns) of the pattern files that apply, the strongest last; `depth` is
    the number of components of `path` above the file's directory.
    """
    for depth, patterns in reversed(rules):
        below = path[depth:]
        for pattern in reversed(patterns):
            if pattern.matches(below, is_directory=is_directory):
                return not pattern.is_negative
    return False


def _parse(line: bytes) -> Pattern | None:
    text = _without_trailing_blanks(line)
    if not text or text.startswith(b"#"):
        return None
    is_negative = text.startswith(b"!")
    text = text.removeprefix(b"!") if is_negative else text
    is_directory = text.endswith(b"/")
    text = text.removesuffix(b"/")
    if not text:
        return None
    is_anchored = b"/" in text
    parts = tuple(text.removeprefix(b"/").split(b"/"))
    if b"" in parts:
        return None  # `a//b` matches nothing
    return Pattern(parts if is_anchored else (_ANY_DEPTH, *parts), is_negative, is_directory)


def _without_trailing_blanks(line: bytes) -> bytes:
    bare = line.rstrip(b" ")
    # One blank behind a backslash stays.
    return line[: len(bare) + 1] if bare.endswith(b"\\") else bare


def _match_parts(parts: tuple[bytes, ...], path: tuple[bytes, ...]) -> bool:
    """Match components; `**` stands for any number of them, at the end for at least one."""
    reached = {0}
    for at, part in enumerate(parts):
        if not reached:
            return False
        if part == _ANY_DEPTH:
            first = min(reached)
            is_last = at == len(parts) - 1
            reached = set(range(first + 1 if is_last else first, len(path) + 1))
        else:
            reached = {i + 1 for i in reached if i < len(path) and match_name(part, path[i])}
    return len(path) in reached


def match_name(glob: bytes, name: bytes) -> bool:
    """Match one component. After a mismatch only the last `*` takes one byte more."""
    if _MAGIC.isdisjoint(glob):
        return glob == name
    at = in_glob = 0
    star = resume = -1
    while at < len(name):
        width, fits = _one(glob, in_glob, name[at])
        if in_glob < len(glob) and glob[in_glob] == ord("*"):
            star, resume = in_glob, at
            in_glob += 1
        elif fits:
            at += 1
            in_glob += width
        elif star >= 0:
            resume += 1
            at, in_glob = resume, star + 1
        else:
            return False
    return not glob[in_glob:].strip(b"*")


def _one(glob: bytes, at: int, byte: int) -> tuple[int, bool]:
    """Return the width of the element at `at`, and whether it matches the byte."""
    if at >= len(glob):
        return 0, False
    match glob[at : at + 1]:
        case b"?":
            return 1, True
        case b"\\" if at + 1 < len(glob):
            return 2, glob[at + 1] == byte
        case b"[":
            return _class(glob, at, byte)
        case _:
            return 1, glob[at] == byte


def _class(glob: bytes, at: int, byte: int) -> tuple[int, bool]:
    """Match a bracket expression. One that does not end, or has a `[:class:]`, matches all."""
    start = at + 1
    is_inverse = glob[start : start + 1] in {b"!", b"^"}
    start += is_inverse
    end = glob.find(b"]", start + 1)
    if end < 0 or b"[:" in glob[start:end] or b"\\" in glob[start:end]:
        return (len(glob) if end < 0 else end + 1) - at, True
    fits = False
    place = start
    while place < end:
        if place + 2 < end and glob[place + 1] == ord("-"):
            fits |= glob[place] <= byte <= glob[place + 2]
            place += 3
        else:
            fits |= glob[place] == byte
            place += 1
    return end + 1 - at, fits is not is_inverse
