"""One stream of broadcasts to many watchers. A slow watcher cannot delay others or fill memory."""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import AsyncGenerator
from typing import Final

from hpcc.ports import REREAD, News, Reread

# Unread news of one watcher. Beyond this, its queue is replaced by `REREAD`.
_BACKLOG: Final = 4096


class _Watcher:
    def __init__(self) -> None:
        self.news: deque[News | Reread] = deque([REREAD])
        self.wake = asyncio.Event()
        self.wake.set()


class Fanout:
    """Delivers news to every open `watch`."""

    def __init__(self, backlog: int = _BACKLOG) -> None:
        self._backlog = backlog
        self._watchers: dict[_Watcher, None] = {}

    def send(self, item: News | Reread) -> None:
        for watcher in self._watchers:
            if isinstance(item, Reread) or len(watcher.news) >= self._backlog:
                watcher.news.clear()
                watcher.news.append(REREAD)
            else:
                watcher.news.append(item)
            watcher.wake.set()

    async def watch(self) -> AsyncGenerator[News | Reread]:
        watcher = _Watcher()
        self._watchers[watcher] = None
        try:
            while True:
                await watcher.wake.wait()
                while watcher.news:
                    yield watcher.news.popleft()
                watcher.wake.clear()
        finally:
            del self._watchers[watcher]
