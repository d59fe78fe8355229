"""Reads the list of inputs that a linker wrote.

GNU ld, gold and lld write a make rule with one name on each line, then rules without prerequisites.
lld indents by one space, the others by two. GNU ld and gold write names as they are; lld escapes
them as make does. So a name with a backslash or a dollar can mean two files, and the file system
decides. Pure.
"""

from __future__ import annotations

import re
from typing import Final

MAX_LIST_BYTES: Final = 8 << 20
MAX_LISTED: Final = 32_768
_BETWEEN: Final = b" \\\n "
_ESCAPED: Final = re.compile(rb"\\([ #\\])|\$(\$)")


def listed_names(text: bytes) -> tuple[bytes, ...] | None:
    """Return the names that the linker opened, each once; None if it is not such a list."""
    if len(text) > MAX_LIST_BYTES or b"\0" in text:
        return None
    first, *parts = text.split(_BETWEEN)
    if not first.endswith(b":") or not parts or len(parts) > 4 * MAX_LISTED:
        return None
    last, end, _ = parts[-1].partition(b"\n")
    if not end:  # torn: the last name may be cut off
        return None
    names = dict.fromkeys((*parts[:-1], last))
    if all(name.startswith(b" ") for name in names):  # the second space; lld escapes one of a name
        names = dict.fromkeys(name[1:] for name in names)
    return tuple(names) if all(names) and len(names) <= MAX_LISTED else None


def unescaped(name: bytes) -> bytes:
    """Return the name that lld escaped so."""
    return _ESCAPED.sub(lambda match: match[1] or match[2], name)
