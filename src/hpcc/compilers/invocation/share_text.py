"""Depfiles and messages: replaces the project's root by a mark, and the mark by a clone's root.

Each compiler breaks a depfile's lines by its own rule, from the lengths of the names. So a depfile
is split into its names as they are written, and laid out again.
Sources: GCC libcpp/mkdeps.cc (make_write_name), Clang DependencyFile.cpp (outputDependencyFile).
"""

from __future__ import annotations

import itertools
import posixpath
import re
from collections.abc import Callable, Mapping
from typing import Final

from hpcc.compilers.invocation.depfile import MAX_DEPFILE_BYTES, escape_name, unescape_name
from hpcc.compilers.invocation.share import ROOT_MARK

_GCC_COLUMNS: Final = 72
_CLANG_COLUMNS: Final = 75
_NAME: Final = re.compile(rb"(?:[^ \\]|\\.)+")
_PLAIN_NAME: Final = re.compile(rb"[^\s$#\\:]+")
# What may precede a path in a message: quotes (also UTF-8), brackets, the end of a colour sequence.
_BEFORE: Final = re.compile(rb"(?:\A|[ \t\n'\"`(<:]|\xe2\x80[\x98\x9c]|\x1b\[[0-9;]*[mK])\Z")
_AFTER: Final = re.compile(rb"/|\Z|[ \t\n'\"):,>]|\xe2\x80[\x99\x9d]")
_BEFORE_BYTES: Final = 16
# Compilers accept any white space behind the backslash of a line that goes on.
_JOINS_LINES: Final = re.compile(rb'R"|\\[ \t\r\f\v]*\n|\?\?[/=]')
# A line directive: messages then name another file than the one whose lines they show.
_RENAMES: Final = re.compile(
    rb"(?:#|%:)(?:[ \t\r\f\v]|/\*(?:[^*]|\*(?!/))*\*/)*(?:line\b|[0-9])",
)


def mark_includes(text: bytes, root: bytes) -> tuple[bytes, frozenset[bytes]] | None:
    """Return a source with a mark for the root, and the names of headers that had it.

    None if the root is anywhere but in whole `#include` lines, or if such a line may belong to
    another text: to a raw string, or to a line that goes on. Nor may
    a directive give the source another name in messages.
    """
    if ROOT_MARK in text or _JOINS_LINES.search(text):
        return None
    if _RENAMES.search(text):
        return None
    lines = re.compile(
        rb'^([ \t]*#[ \t]*include[ \t]*")' + re.escape(root) + rb'(/[^"\n]+)("[ \t\r]*)$', re.M
    )
    names = frozenset(root + found[2] for found in lines.finditer(text))
    marked = lines.sub(rb"\1" + ROOT_MARK + rb"\2\3", text)
    is_whole = root not in marked and all(posixpath.normpath(name) == name for name in names)
    return (marked, names) if is_whole else None


def mark_text(text: bytes, root: bytes) -> bytes | None:
    """Return messages with a mark for the root; None if the root is not at the start of a path."""
    if ROOT_MARK in text:
        return None
    pieces = text.split(root)
    for index, (before, after) in enumerate(itertools.pairwise(pieces)):
        # An empty piece within the text means two adjacent roots.
        is_apart = not index or before != b""
        if not (is_apart and _BEFORE.search(before[-_BEFORE_BYTES:]) and _AFTER.match(after)):
            return None
    return ROOT_MARK.join(pieces)


def render_text(text: bytes, root: bytes) -> bytes:
    """Return messages with a clone's root in place of the mark of `mark_text`."""
    return text.replace(ROOT_MARK, root)


def moved_text(text: bytes, moves: Mapping[bytes, bytes]) -> bytes | None:
    """Return messages in which directories have other names: `moves` leads from old to new ones.

    None if an old name stands where it may be anything but the start of a path.
    """
    ordered = sorted(moves, key=len, reverse=True)
    pieces: list[bytes] = []
    done = 0
    for match in re.finditer(b"|".join(map(re.escape, ordered)), text):
        start, end = match.span()
        before = text[max(0, start - _BEFORE_BYTES) : start]
        if not (_BEFORE.search(before) and _AFTER.match(text, end)):
            return None
        pieces += (text[done:start], moves[match[0]])
        done = end
    return b"".join([*pieces, text[done:]])


def mark_depfile(data: bytes, root: bytes, *, is_clang: bool) -> bytes | None:
    """Return a depfile with a mark for the root.

    None if the root is not at the start of a name, or the layout cannot be reproduced.
    """
    if ROOT_MARK in data:
        return None  # it must not look like a marked file
    escaped = escape_name(root)
    if escaped not in data and root not in data:
        return data  # the same in every clone
    rules = taken_apart(data)
    if rules is None or laid_out(rules, is_clang=is_clang) != data:
        return None
    marked = []
    for names in rules:
        new = [_mark_name(name, escaped) for name in names]
        if any(root in name or escaped in name for name in new):
            return None
        marked.append(new)
    return laid_out(marked, is_clang=is_clang)


def render_depfile_for(data: bytes, root: bytes, *, is_clang: bool) -> bytes:
    """Return a marked depfile in the form that the compile in the clone at `root` writes."""
    if ROOT_MARK not in data:
        return data
    rules = taken_apart(data)
    assert rules is not None  # because `mark_depfile` laid it out
    escaped = escape_name(root)
    named = [[name.replace(ROOT_MARK, escaped) for name in names] for names in rules]
    return laid_out(named, is_clang=is_clang)


def _mark_name(name: bytes, escaped: bytes) -> bytes:
    bare = name.removesuffix(b":")
    is_root = bare == escaped or name.startswith(escaped + b"/")
    return ROOT_MARK + name[len(escaped) :] if is_root else name


def taken_apart(data: bytes) -> list[list[bytes]] | None:
    """Return the names of each line as written, the last target with its colon."""
    if len(data) > MAX_DEPFILE_BYTES or not data.endswith(b"\n"):
        return None
    text = data.replace(b" \\\n", b"")
    return [_NAME.findall(line) for line in text[:-1].split(b"\n")]


def laid_out(rules: list[list[bytes]], *, is_clang: bool) -> bytes:
    """Return a depfile from the names of each line as written, broken as the compiler does."""
    lay_out = _clang_line if is_clang else _gcc_line
    return b"".join(lay_out(names) for names in rules)


def respelled_depfile(
    data: bytes,
    old_targets: tuple[bytes, ...],
    new_targets: tuple[bytes, ...],
    rename: Callable[[bytes], bytes],
    *,
    is_clang: bool,
) -> bytes | None:
    """Return a depfile with other targets and names, in the layout that the compiler would give it.

    `rename` maps an absolute file name. None if this code does not reproduce `data` byte for byte,
    or does not understand its targets.
    """
    rules = taken_apart(data)
    if rules is None or not rules or laid_out(rules, is_clang=is_clang) != data:
        return None
    first = rules[0]
    count = len(old_targets)
    written = [*old_targets[:-1], old_targets[-1] + b":"] if old_targets else []
    if not count or first[:count] != written:
        return None
    words = [first[count:]]
    for rule in rules[1:]:  # -MP: a rule without prerequisites for each header
        # Clang before version 15 writes an empty line before each.
        if rule and (len(rule) != 1 or not rule[0].endswith(b":")):
            return None
        words.append([name[:-1] for name in rule])
    renamed = [[_renamed(word, rename) for word in rule] for rule in words]
    if any(word is None for rule in renamed for word in rule):
        return None
    head, *headers = [[word or b"" for word in rule] for rule in renamed]
    new = [[*new_targets[:-1], new_targets[-1] + b":", *head]]
    rules = [*new, *([name + b":" for name in rule] for rule in headers)]
    return laid_out(rules, is_clang=is_clang)


def _renamed(word: bytes, rename: Callable[[bytes], bytes]) -> bytes | None:
    """Return the new name of a file; None if compilers differ in how they write one of the two."""
    if not word.startswith(b"/"):
        return word
    new = rename(word)
    return (
        new if new == word or (_PLAIN_NAME.fullmatch(word) and _PLAIN_NAME.fullmatch(new)) else None
    )


def _gcc_line(names: list[bytes]) -> bytes:
    """Lay out as GCC: break before a name that ends beyond the column, not counting the colon."""
    out = bytearray()
    column = 0
    is_target = True
    for name in names:
        ends_targets = is_target and name.endswith(b":")
        size = len(name) - ends_targets
        if column and column + size > _GCC_COLUMNS:
            out += b" \\\n"
            column = 0
        if out:
            out += b" "
            column += 1
        out += name
        column += len(name)
        is_target = is_target and not ends_targets
    return bytes(out) + b"\n"


def _clang_line(names: list[bytes]) -> bytes:
    """Lay out as Clang: it counts names unescaped, and leaves room for a backslash."""
    out = bytearray()
    column = 0
    is_target = True
    for name in names:
        ends_targets = is_target and name.endswith(b":")
        if is_target:
            size = len(name) - ends_targets
            if not out:
                column = size
            elif column + size + 2 > _CLANG_COLUMNS:
                out += b" \\\n  "
                column = size + 2
            else:
                out += b" "
                column += size + 1
            column += ends_targets
        else:
            size = len(unescape_name(name))
            if column + size + 3 > _CLANG_COLUMNS:
                out += b" \\\n "
                column = 2
            out += b" "
            column += size + 1
        out += name
        is_target = is_target and not ends_targets
    return bytes(out) + b"\n"
