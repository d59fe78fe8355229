"""Finds and marks the root of a checkout in texts, objects and command lines.

Commands spell a root with either slash, and both spellings have a mark. Any other one, such as
other capitals or UTF-16, is only found: what has it cannot be another checkout's.
"""

from __future__ import annotations

import re
from typing import Final

from hpcc.compilers.invocation.share import ROOT_MARK
from hpcc.core import WindowsPath, windows_key

MARKS: Final = (ROOT_MARK + b"b", ROOT_MARK + b"f")
"""In the order of `spellings`."""
_BEGINNING_NAMES: Final = 2
_ANY: Final = re.compile(rb"[\x80-\xff]+")


def spellings(root: WindowsPath) -> tuple[bytes, bytes]:
    """Return a root with backslashes and with slashes."""
    text = str(root)
    return text.encode(), text.replace("\\", "/").encode()


def names(data: bytes, root: WindowsPath) -> bool:
    """Tell whether a text or an object names a directory, in any spelling.

    Text of UTF-16 is searched, too. Letters outside of ASCII count as equal.
    """
    return _search(data, f"{root.drive}:/" + "/".join(root.components))


def names_beginning(data: bytes, root: WindowsPath) -> bool:
    """Tell whether a source names a directory above the root, as a part for a macro."""
    parts = root.components[:_BEGINNING_NAMES]
    return _search(data, f"{root.drive}:/" + "/".join(parts))


def _search(data: bytes, text: str) -> bool:
    low, text = data.lower(), windows_key(text)
    wanted = text.rpartition("/")[2].encode()
    ascii_part = max(_ANY.split(wanted), key=len)
    if ascii_part in low or not ascii_part:
        plain = low.replace(b"\\\\", b"/").replace(b"\\", b"/")
        pattern = _ANY.sub(rb"[\\x80-\\xff]+", re.escape(text.encode()))
        if re.search(pattern, plain):
            return True
    pattern = b"".join(map(_wide_pattern, text))
    first = f"{text[0]}:".encode("utf-16-le")
    return first in low and re.search(pattern, low, re.DOTALL) is not None


def _wide_pattern(char: str) -> bytes:
    """Return what matches one character of a path in UTF-16; `/` stands for every separator."""
    if char == "/":
        return rb"(?:(?:\\\0){1,2}|/\0)"
    return re.escape(char.encode()) + rb"\0" if char.isascii() else rb"[\0-\xff]{2}"
