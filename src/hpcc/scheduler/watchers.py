"""Who is told of routes that come and go. In memory, bounded, and nobody's flood is another's."""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import Callable, Iterable
from typing import Final

from hpcc.core import PolicyError, TenantId
from hpcc.rpc.scheduler.api import RouteChange

MAX_WATCHERS: Final = 1000
# News that one has not taken yet.
BACKLOG: Final = 256


class Watcher:
    """One stream of news; it ends when the daemon is too slow, or somebody else needs the place."""

    def __init__(self, tenant: TenantId, principal: str, is_over: Callable[[], bool]) -> None:
        """`is_over` says whether the session it was opened with has ended."""
        self.tenant, self.principal, self.is_over = tenant, principal, is_over
        self._news: asyncio.Queue[RouteChange | None] = asyncio.Queue(BACKLOG)

    async def next_or_none(self) -> RouteChange | None:
        """Wait for news; None when there will be none any more."""
        news = await self._news.get()
        return None if self.is_over() else news

    def tell(self, change: RouteChange) -> bool:
        """Say whether there is room for it."""
        try:
            self._news.put_nowait(change)
        except asyncio.QueueFull:
            return False
        return True

    def end(self) -> None:
        while not self._news.empty():
            self._news.get_nowait()
        self._news.put_nowait(None)


class Watchers:
    """All watchers, oldest first."""

    def __init__(self, most: int = MAX_WATCHERS) -> None:
        self._most = most
        self._all: dict[Watcher, None] = {}

    def add(self, watcher: Watcher) -> None:
        """Take one in; in a full house it takes the place of whoever holds much more than it does.

        Raises:
            PolicyError: nobody does.
        """
        self.sweep()
        if len(self._all) >= self._most:
            victim = self._victim(watcher)
            if victim is None:
                raise PolicyError("too many watchers", reason="too-many-watchers")
            self._end(victim)
        self._all[watcher] = None

    def discard(self, watcher: Watcher) -> None:
        self._all.pop(watcher, None)

    def tell(self, changes: Iterable[RouteChange]) -> None:
        for change in changes:
            for watcher in list(self._all):
                if not watcher.tell(change):
                    # Ending the stream makes a slow watcher start over; losing news would not.
                    self._end(watcher)

    def sweep(self) -> None:
        """End the streams of sessions that have ended."""
        for watcher in [w for w in self._all if w.is_over()]:
            self._end(watcher)

    def _end(self, watcher: Watcher) -> None:
        self.discard(watcher)
        watcher.end()

    def _victim(self, newcomer: Watcher) -> Watcher | None:
        """Return the oldest watcher of the greediest; as in the pool, "much" is two or more."""
        tenants = Counter(w.tenant for w in self._all)
        greediest = max(tenants, key=lambda t: tenants[t])
        principals = Counter(w.principal for w in self._all if w.tenant == greediest)
        most = max(principals, key=lambda p: principals[p])
        if greediest == newcomer.tenant:
            is_much = principals[most] > principals[newcomer.principal] + 1
        else:
            is_much = tenants[greediest] > tenants[newcomer.tenant] + 1
        if not is_much:
            return None
        return next(w for w in self._all if (w.tenant, w.principal) == (greediest, most))
