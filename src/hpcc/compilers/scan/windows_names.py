"""Names in include lines on Windows: where they lead, and how they are compared.

NTFS compares names by a table of its volume, which maps one UTF-16 unit to one. A name that must be
absent is therefore compared wider than by any such table: ASCII capitals are folded, and every unit
outside of ASCII is taken for equal to every other. A name that differs only there costs a compile.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from functools import lru_cache
from typing import Final

from hpcc.core import WindowsPath, WindowsPathError, parse_windows_path, windows_key
from hpcc.core.windows_paths import is_short_name

# Units outside of ASCII that some tables map to an ASCII letter: dotless and dotted i, long s, the
# signs of Kelvin and Angstrom. The last is equal to a letter outside of ASCII.
_TO_ASCII: Final = str.maketrans({"\u0131": "i", "\u0130": "i", "\u017f": "s", "\u212a": "k"})
_MAX_REMEMBERED: Final = 20_000
_OTHER: Final = re.compile(r"[^\x00-\x7f]")
# These cannot be in a name, so no file has it. (clang-cl opens longer paths than cl does.)
_IMPOSSIBLE: Final = frozenset({"bad-character"})


class UnclearNameError(Exception):
    """A name of which it is not certain which file it means, such as a device or an 8.3 name."""


def wide_key(name: str) -> str:
    """Return a text that is equal for all names that NTFS may take for one."""
    folded = windows_key(name.translate(_TO_ASCII))
    if folded.isascii():
        return folded
    return _OTHER.sub(lambda match: "?" * (len(match[0].encode("utf-16-le")) // 2), folded)


def candidate(name: bytes, directory: WindowsPath) -> WindowsPath | None:
    """Return where a name of an include line leads from a directory; None if nothing can be there.

    Raises:
        UnclearNameError: the name is not Unicode, or Windows may take it for another.
    """
    text, parts = _plain_parts(name)
    if parts is not None:
        return WindowsPath(directory.drive, (*directory.components, *parts)) if parts else None
    if text[:1] in {"/", "\\"} and text[1:2] not in {"/", "\\"}:
        text = f"{directory.drive}:{text}"  # of the current drive
    try:
        return parse_windows_path(text, cwd=directory)
    except WindowsPathError as error:
        if error.reason in _IMPOSSIBLE:
            return None
        raise UnclearNameError from error


@lru_cache(maxsize=_MAX_REMEMBERED)
def _plain_parts(name: bytes) -> tuple[str, tuple[str, ...] | None]:
    """Return a name as text, and its parts if they only lead down; no parts: nothing is there."""
    try:
        text = name.decode()
    except UnicodeDecodeError as error:
        raise UnclearNameError from error
    words = re.split(r"[\\/]", text)
    if any(map(is_short_name, words)):
        raise UnclearNameError
    if not words[0] or ":" in text or ".." in words:
        return text, None
    try:
        return text, parse_windows_path(text, cwd=WindowsPath("C", ())).components
    except WindowsPathError as error:
        if error.reason in _IMPOSSIBLE:
            return text, ()
        raise UnclearNameError from error


def names_below(path: WindowsPath, directories: Iterable[WindowsPath]) -> set[bytes]:
    """Return each name by which a file is found from one of the directories."""
    found = set()
    for directory in directories:
        depth = len(directory.components)
        head = path.components[:depth]
        is_below = path.drive == directory.drive and len(path.components) > depth
        if is_below and [*map(windows_key, head)] == [*map(windows_key, directory.components)]:
            found.add("/".join(path.components[depth:]).encode())
    return found


def parent(path: WindowsPath) -> WindowsPath:
    """Return the directory of a path; a drive is its own."""
    return WindowsPath(path.drive, path.components[:-1])


def key_of(path: WindowsPath) -> str:
    """Return a text that is equal only for names of one file."""
    return windows_key(str(path))
