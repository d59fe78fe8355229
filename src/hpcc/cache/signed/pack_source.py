"""What the remote cache asks before the service: packs that were pulled."""

from __future__ import annotations

from typing import Protocol

from hpcc.cache.key.share import Share
from hpcc.cache.signed.entry import Content, EntryName, Judge
from hpcc.core.reasons.remote_cache import RefusedEntry
from hpcc.identity.cache_keys import CacheKey


class PackSource(Protocol):
    """Results of a whole build that were fetched at once: `hpcc.cache.packs.packs`."""

    def find(
        self, share: Share, name: EntryName, judge: Judge
    ) -> tuple[CacheKey, Content] | RefusedEntry | None:
        """Return what a pack of this checkout has for a compile; None if nothing."""
        ...

    def compiled(self, share: Share, name: EntryName, content: Content) -> None:
        """Note a result that was compiled just now."""
        ...

    def saw(self, share: Share) -> None:
        """Note that a compile of this checkout missed."""
        ...
