"""The interface between the socket front and the cache: a compile handler with replays."""

from __future__ import annotations

from typing import Protocol

from hpcc.cache.base.api import CompileHandler
from hpcc.cache.replay.replay import Replays


class CacheHandler(CompileHandler, Protocol):
    """A compile handler whose remembered hits the front may use."""

    @property
    def replays(self) -> Replays:
        """The hits that the front may answer without a call of `begin`."""
        ...
