"""Translates guests' dependency files to this machine's paths, and remembers the results.

Most edits do not change a unit's dependency file, so most are remembered.
"""

from __future__ import annotations

import os
from typing import Final

from hpcc.cache.base.uncacheable import absolute
from hpcc.compilers.invocation.guest import GuestMap, client_depfile
from hpcc.core.memo import BoundedMemo

_MAX_KNOWN: Final = 1_000
_MAX_ONE_BYTES: Final = 64 << 10

_Known = tuple[bytes, tuple[tuple[bytes, bool], ...]]


class Depfiles:
    """Translated files by their input. Thread-safe: a race only translates twice."""

    def __init__(self) -> None:
        self._known: BoundedMemo[tuple[bytes, ...], _Known] = BoundedMemo(_MAX_KNOWN)

    def of(self, data: bytes, guest: GuestMap) -> bytes:
        """Return a guest's dependency file as `client_depfile` translates it now.

        Raises:
            CallerError: the bytes are not a dependency file.
        """
        root, cwd = guest.root, guest.cwd
        key = (data, root, cwd, guest.base, guest.build)
        known = self._known.get(key)
        if known is not None and all(os.path.exists(p) is is_there for p, is_there in known[1]):
            return known[0]
        asked: dict[bytes, bool] = {}

        def exists(name: bytes) -> bool:
            path = absolute(cwd, name)
            asked[path] = os.path.exists(path)
            return asked[path]

        below = root + b"/"
        text = client_depfile(
            data,
            guest.text,
            exists,
            keeps=lambda n: not n.startswith(b"/") or n.startswith(below),
        )
        if len(data) <= _MAX_ONE_BYTES:
            self._known[key] = (text, tuple(asked.items()))
        return text
