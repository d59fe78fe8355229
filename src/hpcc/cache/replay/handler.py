"""The cache as the front on a socket sees it: a compile handler that remembers hits."""

from __future__ import annotations

from typing import Protocol

from hpcc.cache.base.api import CompileHandler
from hpcc.cache.replay.replay import Replays


class CacheHandler(CompileHandler, Protocol):
    """One with a memory of hits that a front on a socket may use."""

    @property
    def replays(self) -> Replays:
        """Return what the front may answer without asking `begin`."""
        ...
