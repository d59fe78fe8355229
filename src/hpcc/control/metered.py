"""Measures the calls to a control store."""

from __future__ import annotations

from collections.abc import AsyncGenerator, Callable, Generator, Mapping, Sequence
from contextlib import contextmanager

from hpcc.ports import (
    Anchor,
    Clock,
    ControlStore,
    ControlStoreError,
    Divide,
    Entry,
    LeasedShare,
    News,
    Reread,
    SessionAsk,
    SessionFloor,
    ShareKey,
    WorkerLease,
)

# Gets the operation, its seconds, and whether the store answered. A conflict is an answer.
type OnCall = Callable[[str, float, bool], None]


class MeteredControlStore:
    """`ControlStore` that tells `on_call` of each call. A watch has no end and does not count."""

    def __init__(self, inner: ControlStore, clock: Clock, on_call: OnCall) -> None:
        self._inner, self._clock, self._on_call = inner, clock, on_call

    @property
    def origin(self) -> str:
        return self._inner.origin

    async def entry_or_none(self, space: str, key: str) -> Entry | None:
        with self._measured("entry"):
            return await self._inner.entry_or_none(space, key)

    async def entries(self, space: str) -> tuple[Entry, ...]:
        with self._measured("entries"):
            return await self._inner.entries(space)

    async def put(self, space: str, key: str, value: bytes, *, expect: int | None = None) -> Entry:
        with self._measured("put"):
            return await self._inner.put(space, key, value, expect=expect)

    async def delete(self, space: str, key: str) -> bool:
        with self._measured("delete"):
            return await self._inner.delete(space, key)

    async def renew(self, leases: Sequence[WorkerLease]) -> frozenset[str]:
        with self._measured("renew"):
            return await self._inner.renew(leases)

    async def end_lease(self, worker_id: str, generation: int) -> None:
        with self._measured("end_lease"):
            await self._inner.end_lease(worker_id, generation)

    async def leases(self, known: Sequence[tuple[str, int, int]] = ()) -> tuple[WorkerLease, ...]:
        with self._measured("leases"):
            return await self._inner.leases(known)

    async def facts(self, worker_ids: Sequence[str]) -> Mapping[str, tuple[int, bytes]]:
        with self._measured("facts"):
            return await self._inner.facts(worker_ids)

    async def note_anchors(self, anchors: Sequence[Anchor]) -> frozenset[str]:
        with self._measured("note_anchors"):
            return await self._inner.note_anchors(anchors)

    async def anchor_or_none(self, worker_id: str) -> Anchor | None:
        with self._measured("anchor"):
            return await self._inner.anchor_or_none(worker_id)

    async def anchors(self) -> tuple[Anchor, ...]:
        with self._measured("anchors"):
            return await self._inner.anchors()

    async def open_session(self, ask: SessionAsk) -> tuple[int, tuple[SessionFloor, ...]]:
        with self._measured("open_session"):
            return await self._inner.open_session(ask)

    async def session_floors(self, now: float) -> tuple[SessionFloor, ...]:
        with self._measured("session_floors"):
            return await self._inner.session_floors(now)

    async def lease_shares(
        self, asks: Sequence[LeasedShare], seconds: float, divide: Divide
    ) -> Mapping[ShareKey, LeasedShare]:
        with self._measured("lease_shares"):
            return await self._inner.lease_shares(asks, seconds, divide)

    async def tell(self, topic: str, text: str) -> None:
        with self._measured("tell"):
            await self._inner.tell(topic, text)

    def watch(self) -> AsyncGenerator[News | Reread]:
        return self._inner.watch()

    @contextmanager
    def _measured(self, operation: str) -> Generator[None]:
        started, is_answered = self._clock.monotonic(), True
        try:
            yield
        except ControlStoreError:
            is_answered = False
            raise
        finally:
            self._on_call(operation, self._clock.monotonic() - started, is_answered)
