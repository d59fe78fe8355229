"""Remembers what other directories have, so that the reason of a miss can name them.

A first build in a second clone or build directory misses although the first one has every result,
where objects hold a directory. "This command had no result yet" would not tell that a `.hpcc`
helps. What is remembered here is for that sentence only: it never leads to a result. It is gone
with the daemon.
"""

from __future__ import annotations

from collections import deque
from typing import Final

from hpcc.cache.base.files import FileMemo
from hpcc.cache.content.key import ContentKey
from hpcc.cache.key.prepare import Prepared
from hpcc.core.memo import LruMemo

# A compile asks why it missed just after it looked.
_CONCURRENT: Final = 256
# About 200 bytes each.
_MAX_MADE: Final = 16_384


class Elsewhere:
    """What was made in other places. Thread-safe."""

    def __init__(self, memo: FileMemo) -> None:
        self._memo = memo
        self._named: deque[bytes] = deque(maxlen=_CONCURRENT)
        self._made: LruMemo[bytes, int] = LruMemo(_MAX_MADE)

    def note_name(self, key: ContentKey) -> None:
        """Note that another place has a result for these texts, and that it shows a name."""
        self._named.append(key.key)

    def note_made(self, prepared: Prepared, key: ContentKey) -> None:
        """Note that this directory has a result now, if it holds its name."""
        found = self._unit(prepared, key)
        if found:
            self._made[found] = hash(prepared.cwd)

    def why_missed(self, prepared: Prepared, key: ContentKey) -> str:
        """Return "names-elsewhere", "directory-elsewhere", or "" if no other place is known."""
        if key.key in self._named:
            return "names-elsewhere"
        found = self._unit(prepared, key)
        made_in = self._made.use(found) if found else None
        is_other = made_in is not None and made_in != hash(prepared.cwd)
        return "directory-elsewhere" if is_other else ""

    def _unit(self, prepared: Prepared, key: ContentKey) -> bytes:
        digest = self._memo.digest(prepared.source) if key.anywhere else None
        return key.anywhere + digest if digest else b""
