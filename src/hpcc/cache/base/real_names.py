"""Real names of many paths at about one moment, with one look at each directory on the way.

`os.path.realpath` looks at every directory on the way of every path. Most inputs of a compile are
in a few directories with the same parents.
"""

from __future__ import annotations

import os
from typing import Final

_MAX_LEVELS: Final = 100  # a deeper path costs a look at each of its directories
_MAX_LINKS: Final = 20  # links behind links; the rest is left to `os.path.realpath`


class _TooManyLinksError(Exception):
    """Links lead in a circle, or nearly."""


class RealNames:
    """What `os.path.realpath` returns for absolute paths. For one look, not to be kept."""

    __slots__ = ("_known", "_links")

    def __init__(self) -> None:
        self._links = 0
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
        return self._behind(real, full) if is_link else full

    def _behind(self, home: bytes, link: bytes) -> bytes:
        """Return the real name of what a link leads to; `home` is its directory's real name."""
        if self._links >= _MAX_LINKS:
            raise _TooManyLinksError
        self._links += 1
        try:
            target = os.readlink(link)  # noqa: PTH115 - paths are bytes
            return self.of(target if target.startswith(b"/") else home + b"/" + target)
        except (OSError, _TooManyLinksError):
            if self._links > 1:
                raise
            return os.path.realpath(link)
        finally:
            self._links -= 1

    def of_existing(self, path: bytes) -> bytes:
        """Return what `of` does for a path that must lead to something.

        Raises:
            OSError: it leads nowhere.
        """
        os.stat(path)  # noqa: PTH116 - paths are bytes
        return self.of(path)
