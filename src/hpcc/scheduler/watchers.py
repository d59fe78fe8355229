"""Delivers route changes to watching daemons. In memory and bounded, with fair shares of places."""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import Callable, Iterable
from typing import Final

from hpcc.core import PolicyError, TenantId
from hpcc.rpc.scheduler.api import ASK_AGAIN, RouteChange

MAX_WATCHERS: Final = 1000
# Changes that a watcher has not read yet.
BACKLOG: Final = 256


class Watcher:
    """One stream of route changes. It ends if the daemon is too slow, or if its place is needed."""

    def __init__(
        self,
        tenant: TenantId,
        principal: str,
        is_over: Callable[[], bool],
        *,
        takes_several: bool = False,
    ) -> None:
        """`is_over` returns whether the session that opened the stream has ended.

        `takes_several`: the daemon uses several routes, and understands `ASK_AGAIN`.
        """
        self.tenant, self.principal, self.is_over = tenant, principal, is_over
        self.takes_several = takes_several
        self._news: asyncio.Queue[RouteChange | None] = asyncio.Queue(BACKLOG)

    async def next_or_none(self) -> RouteChange | None:
        """Wait for a change; None when the stream has ended."""
        news = await self._news.get()
        return None if self.is_over() else news

    def tell(self, change: RouteChange) -> bool:
        """Queue a change; return False if there is no room."""
        try:
            self._news.put_nowait(change)
        except asyncio.QueueFull:
            return False
        return True

    def end(self) -> None:
        """Drop queued changes and end the stream."""
        while not self._news.empty():
            self._news.get_nowait()
        self._news.put_nowait(None)


class Watchers:
    """All watchers, the oldest first."""

    def __init__(self, most: int = MAX_WATCHERS) -> None:
        self._most = most
        self._all: dict[Watcher, None] = {}

    def add(self, watcher: Watcher) -> None:
        """Add a watcher; if there is no place, the largest share loses its oldest watcher.

        Raises:
            PolicyError: no share is larger than the newcomer's by two or more.
        """
        if len(self._all) >= self._most:
            # Only here: a look at all of them for each one that comes back is too much when all
            # come back at once.
            self.sweep()
        if len(self._all) >= self._most:
            victim = self._victim(watcher)
            if victim is None:
                raise PolicyError("too many watchers", reason="too-many-watchers")
            self._end(victim)
        self._all[watcher] = None

    def by_tenant(self) -> Counter[str]:
        """Return how many watch, by tenant."""
        return Counter(w.tenant.value for w in self._all)

    def discard(self, watcher: Watcher) -> None:
        self._all.pop(watcher, None)

    def tell(self, changes: Iterable[RouteChange]) -> None:
        """Deliver changes to all watchers."""
        for change in changes:
            for watcher in list(self._all):
                if not watcher.tell(change):
                    # A slow watcher starts over when its stream ends, but misses a lost change.
                    self._end(watcher)

    def ask_again(self) -> None:
        """Tell daemons with several routes that there may be more. A full queue drops this."""
        for watcher in self._all:
            if watcher.takes_several:
                watcher.tell(ASK_AGAIN)

    def sweep(self) -> None:
        """End the streams of sessions that have ended."""
        for watcher in [w for w in self._all if w.is_over()]:
            self._end(watcher)

    def _end(self, watcher: Watcher) -> None:
        self.discard(watcher)
        watcher.end()

    def _victim(self, newcomer: Watcher) -> Watcher | None:
        """Return the oldest watcher of the largest share, if that is larger by two or more."""
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
