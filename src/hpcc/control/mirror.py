"""A copy of one space of the control store in memory, so that readers never wait for the store."""

from __future__ import annotations

import logging
from collections.abc import Callable, Mapping
from contextlib import aclosing
from typing import Final

from hpcc.ports import ENTRY_TOPIC, Clock, ControlStore, ControlStoreError, Entry, News

_log: Final = logging.getLogger(__name__)
_RETRY_SECONDS: Final = 0.5


class Mirror:
    """`entries` by key, as last read. They stay unchanged while the store is unreachable."""

    def __init__(
        self,
        store: ControlStore,
        space: str,
        clock: Clock,
        on_change: Callable[[], None] = lambda: None,
    ) -> None:
        """Call `on_change` after each read that found a difference."""
        self._store, self._space, self._clock = store, space, clock
        self._on_change = on_change
        self.entries: Mapping[str, Entry] = {}
        # A store that caches its entries returns the same object while nothing changed.
        self._rows: tuple[Entry, ...] = ()

    async def read(self) -> None:
        """Read the space now.

        Raises:
            ControlStoreError: the store does not answer; `entries` stay unchanged.
        """
        rows = await self._store.entries(self._space)
        if rows is self._rows:
            return
        self._rows, found = rows, {e.key: e for e in rows}
        if found != self.entries:
            self.entries = found
            self._on_change()

    async def run(self) -> None:
        """Keep `entries` up to date until cancelled."""
        async with aclosing(self._store.watch()) as watch:
            async for item in watch:
                if isinstance(item, News) and (item.topic, item.text) != (ENTRY_TOPIC, self._space):
                    continue
                await self._read_at_last()

    async def _read_at_last(self) -> None:
        while True:
            try:
                await self.read()
            except ControlStoreError as error:
                _log.warning("cannot read %s of the control store: %s", self._space, error)
                await self._clock.sleep(_RETRY_SECONDS)
            else:
                return
