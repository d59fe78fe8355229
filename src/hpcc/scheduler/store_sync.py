"""Exchanges one scheduler's memory with the other schedulers of its farm, over the control store.

No route waits for this. Ended routes are broadcast at once. Everything else travels in one exchange
a second, which reads all that the others know: what was lost with a connection is repaired by the
next exchange.
"""

from __future__ import annotations

import asyncio
import itertools
import logging
import re
from collections.abc import Callable, Sequence
from contextlib import aclosing, suppress
from typing import Final

from hpcc.core import CallerError
from hpcc.ports import Clock, ControlStore, ControlStoreError, News, SessionFloor
from hpcc.rpc.scheduler.api import RouteChange
from hpcc.scheduler.audit.anchors import Anchors
from hpcc.scheduler.registry import HOLD_SECONDS, WorkerRegistry
from hpcc.scheduler.tenants.sessions import Sessions, floor_text, parse_floor
from hpcc.scheduler.watchers import Watchers

_log: Final = logging.getLogger(__name__)
ROUTE_ENDED: Final = "route-ended"
WORKER_JOINED: Final = "worker-joined"
SESSION_ENDED: Final = "session-ended"
_ENDED: Final = re.compile(r"([a-z0-9][a-z0-9.-]{0,127}) ([0-9]{1,19}) ([0-9]{1,19})")
_EXCHANGE_SECONDS: Final = 1.0
# How long the report of an end waits for its broadcast; the next exchange carries it too.
_TELL_SECONDS: Final = 1.0
# Ended sessions are broadcast; this repairs a broadcast that was lost without an error.
_FLOORS_EVERY: Final = 30
_FACTS_AT_ONCE: Final = 32
# Leases read or written without a pause; routes wait meanwhile.
_LEASES_AT_ONCE: Final = 100
# The pause between two exchanges: many workers that join at the same moment each ask for one.
_BREATH_SECONDS: Final = 0.1


class ControlStoreSync:
    """Connects one scheduler's memory to the control store."""

    def __init__(
        self,
        store: ControlStore,
        clock: Clock,
        *,
        registry: WorkerRegistry,
        watchers: Watchers,
        sessions: Sessions,
        lease_seconds: float,
        anchors: Anchors,
        is_alone: bool = False,
    ) -> None:
        """`is_alone`: no other scheduler uses this store, so no leases are exchanged."""
        # Why the store did not answer the last exchange; "" if it did.
        self.trouble = ""
        # Gets the seconds of each exchange that ended well.
        self.on_exchange: Callable[[float], None] = lambda _: None
        self.anchors, self._is_alone = anchors, is_alone
        self._store, self._clock = store, clock
        self._registry, self._watchers, self._sessions = registry, watchers, sessions
        # Often enough that no lease ends between two exchanges.
        self._pause = min(_EXCHANGE_SECONDS, lease_seconds / 8)
        self._joined: set[str] = set()
        self._wake = asyncio.Event()
        self._rounds, self._must_read_floors = 0, True
        self._is_away = False
        self._met_at = clock.monotonic()
        self._settled_at = float("-inf")

    @property
    def is_up(self) -> bool:
        """Whether the store answered the last exchange."""
        return not self._is_away

    async def ended(self, change: RouteChange, successor: int) -> None:
        """Broadcast that a generation ended; returns within a second, even if that failed."""
        self._wake.set()
        await self._tell(ROUTE_ENDED, f"{change.worker_id} {change.generation} {successor}")

    async def sessions_ended(self, floors: Sequence[SessionFloor]) -> None:
        """Broadcast ended sessions."""
        for floor in floors:
            await self._tell(SESSION_ENDED, floor_text(floor))

    def joined(self, worker_id: str) -> None:
        """Tell other schedulers soon that a worker speaks to this one now."""
        self._joined.add(worker_id)
        self._wake.set()

    async def run(self) -> None:
        """Exchange and listen until cancelled."""
        async with asyncio.TaskGroup() as group:
            group.create_task(self._exchange_for_ever(), name="control exchange")
            group.create_task(self._listen(), name="control news")

    async def _exchange_for_ever(self) -> None:
        while True:
            self._wake.clear()
            try:
                await self.exchange()
            except ControlStoreError as error:
                self._away(error)
            await asyncio.sleep(_BREATH_SECONDS)
            with suppress(TimeoutError):
                async with asyncio.timeout(self._pause - _BREATH_SECONDS):
                    await self._wake.wait()

    async def exchange(self) -> None:
        """Write what is new here, read what is new elsewhere.

        Raises:
            ControlStoreError: the store does not answer; unwritten changes follow next time.
        """
        began = self._clock.monotonic()
        await self._give()
        if not self._is_alone:
            for worker_id, generation in self._registry.ended():
                await self._store.end_lease(worker_id, generation)
            await self._take()
        if self._must_read_floors or self._rounds % _FLOORS_EVERY == 0:
            self._must_read_floors = False
            for floor in await self._store.session_floors(self._clock.now()):
                self._sessions.end(floor)
        self._rounds += 1
        self._met()
        self.on_exchange(self._clock.monotonic() - began)

    async def _take(self) -> None:
        """Read the others' leases; of this scheduler's own workers only what is newer."""
        own = self._registry.own()
        leases = await self._store.leases(own)
        for part in itertools.batched(leases, _LEASES_AT_ONCE):
            unknown = self._registry.unknown(part)
            facts: dict[str, tuple[int, bytes]] = {}
            for few in itertools.batched(unknown, _FACTS_AT_ONCE):
                facts.update(await self._store.facts(few))
            self._watchers.tell(self._registry.absorb(part, facts, is_settled=False))
            await asyncio.sleep(0)
        if not self._is_away and self._clock.monotonic() >= self._settled_at:
            listed = {x.worker_id for x in leases}.union(worker_id for worker_id, _, _ in own)
            self._watchers.tell(self._registry.keep_only(listed))

    async def _give_leases(self) -> None:
        left = self._registry.outbox_size
        while left > 0 and (leases := self._registry.outbox(min(left, _LEASES_AT_ONCE))):
            left -= len(leases)
            try:
                wanted = await self._store.renew(leases)
            except BaseException:
                self._registry.shared(leases, frozenset(), done=False)
                raise
            self._registry.shared(leases, wanted, done=True)

    async def _give(self) -> None:
        # Leases first: a worker is announced only after its lease is in the store.
        joined = tuple(self._joined)
        if not self._is_alone:
            await self._give_leases()
        for worker_id in joined:
            await self._store.tell(WORKER_JOINED, worker_id)
            self._joined.discard(worker_id)
        if anchors := await self.anchors.take_due():
            try:
                cut = await self._store.note_anchors(anchors)
            except BaseException:
                self.anchors.give_back(anchors)
                raise
            for worker_id in cut:
                self.anchors.on_cut(worker_id)

    async def _listen(self) -> None:
        async with aclosing(self._store.watch()) as watch:
            async for item in watch:
                if not isinstance(item, News):
                    self._must_read_floors = True
                    self._wake.set()
                elif item.origin != self._store.origin:
                    self._hear(item)

    def _hear(self, news: News) -> None:
        if news.topic == WORKER_JOINED:
            self._registry.moved(news.text)
            self._wake.set()
        elif news.topic == SESSION_ENDED:
            with suppress(CallerError):
                self._sessions.end(parse_floor(news.text))
                self._watchers.sweep()
        elif news.topic == ROUTE_ENDED and (found := _ENDED.fullmatch(news.text)):
            worker_id, dead, successor = found.groups()
            changes = self._registry.heard_end(worker_id, int(dead), int(successor))
            self._watchers.tell(changes)

    async def _tell(self, topic: str, text: str) -> None:
        try:
            async with asyncio.timeout(_TELL_SECONDS):
                await self._store.tell(topic, text)
        except (ControlStoreError, TimeoutError) as error:
            _log.warning("other schedulers learn of an end later: %s", error)

    def _away(self, error: ControlStoreError) -> None:
        if not self._is_away:
            _log.error("the control store is unreachable, routes are served from memory: %s", error)
        self._is_away = self._must_read_floors = True
        self.trouble = str(error)
        if self._clock.monotonic() - self._met_at < HOLD_SECONDS:
            self._registry.hold()

    def _met(self) -> None:
        if self._is_away:
            _log.warning("the control store is reachable again")
            self._settled_at = self._clock.monotonic() + self._registry.lease_seconds
        self._is_away, self._met_at, self.trouble = False, self._clock.monotonic(), ""
