"""Real names of many paths at about one moment, with one look at each directory on the way.

`os.path.realpath` looks at every directory on the way of every path. Most inputs of a compile are
in a few directories with the same parents.
"""

from __future__ import annotations

import os
from typing import Final

_MAX_LEVELS: Final = 100  # a deeper path costs a look at each of its directories


class RealNames:
    """What `os.path.realpath` returns for absolute paths. For one look, not to be kept."""

    __slots__ = ("_known",)

    def __init__(self) -> None:
        self._known: dict[bytes, bytes] = {b"": b"/", b"/": b"/"}

    def of_directory(self, path: bytes) -> bytes:
        """Return the real name of an absolute path, which other paths may begin with."""
        known = self._known.get(path)
        if known is None:
            known = self._known[path] = self.of(path)
        return known

    def of(self, path: bytes) -> bytes:
        """Return the real name of an absolute path; the directories before it are remembered."""
        if path.count(b"/") > _MAX_LEVELS:
            return os.path.realpath(path)
        home, _, base = path.rpartition(b"/")
        real = self.of_directory(home)
        # These do not name an entry of the directory before them.
        if base in {b"", b"."}:
            return real
        if base == b"..":
            return real.rpartition(b"/")[0] or b"/"
        full = real.rstrip(b"/") + b"/" + base
        is_link = os.path.islink(full)  # noqa: PTH114 - paths are bytes
        return os.path.realpath(full) if is_link else full

    def of_existing(self, path: bytes) -> bytes:
        """Return what `of` does for a path that must lead to something.

        Raises:
            OSError: it leads nowhere.
        """
        os.stat(path)  # noqa: PTH116 - paths are bytes
        return self.of(path)
