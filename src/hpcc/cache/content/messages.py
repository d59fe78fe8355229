"""A result's messages in another place: what names a directory of its maker gets the asker's name.

A compiler names files as its command line and the sources spell them, so a relative name is the
same everywhere. An absolute one begins with a place or is the same, too. A line of a source in a
message may hold a path as well; then the source names the place, and `Contents` ties the entry to
it.
"""

from __future__ import annotations

import re
from typing import Final

from hpcc.cache.content.places import Places
from hpcc.cache.key.prepare import Prepared
from hpcc.compilers.invocation.share_text import moved_text

# What no compiler writes in another way, such as with a backslash or as a part of a URI.
_PLAIN: Final = re.compile(rb"[0-9A-Za-z_./+-]*")
_WIDTH: Final = b"-fmessage-length="


def may_have_messages_elsewhere(place: bytes) -> bool:
    """Tell whether a compiler writes the name of a directory as it is."""
    return _PLAIN.fullmatch(place) is not None


def name_an_output(prepared: Prepared, messages: bytes) -> bool:
    """Tell whether messages may hold the name of an output, which a content key leaves out."""
    return any(path.rpartition(b"/")[2] in messages for path in prepared.outputs)


def moved_messages(
    messages: bytes, made_at: Places, places: Places, prepared: Prepared
) -> bytes | None:
    """Return a maker's messages as the compiler writes them at other places; None if unknown."""
    pairs = zip(made_at, places, strict=True)
    moves = {old: new for old, new in pairs if old and old != new and old in messages}
    if not moves:
        return messages
    if not all(map(may_have_messages_elsewhere, (*moves, *moves.values()))):
        return None
    if b"" in moves.values() or _is_broken(prepared):
        return None
    return moved_text(messages, moves)


def _is_broken(prepared: Prepared) -> bool:
    """Tell whether lines are broken at a width, so that the length of a name counts."""
    flags = (*prepared.invocation.arguments, *prepared.colour)
    return any(f.startswith(_WIDTH) and f != _WIDTH + b"0" for f in flags)
