"""Results that came from build packs and were used, until a worker has their audit rows.

Problem: a hit has its row on disk before the worker releases it. An entry of a pack is here
already.

Rule: each first use is reported to a worker, which checks the result and writes a row. Reports wait
a moment for others, so that a build pays no round trip for each. Before the first use, an empty
report asks whether the worker takes them. If a report is refused, or too many wait, nothing more is
used from packs.

What must never happen: packs are used for long without rows. A dispatcher that is killed loses the
reports of its last quarter of a second.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable, Sequence
from contextlib import suppress
from typing import Final, Protocol

from hpcc.core import HpccError, SharingPolicy
from hpcc.ports import Clock
from hpcc.rpc.reapi.meeting import MAX_USES, Use

_log: Final = logging.getLogger(__name__)
_GATHER_SECONDS: Final = 0.25
_LAST_SECONDS: Final = 1.0
# More uses than that without a worker that takes the reports: nothing is used from packs meanwhile.
MAX_WAITING: Final = 512
# How long no pack is used after a refusal, or after a question that failed.
_PAUSE_SECONDS: Final = 60.0
_REFUSALS: Final = frozenset({"pack-result", "uses"})


class _Route(Protocol):
    @property
    def packs(self) -> bool: ...
    @property
    def worker_id(self) -> str: ...


class _Worker(Protocol):
    @property
    def route(self) -> _Route: ...


class PackUses[W: _Worker]:
    """Reports uses. One event loop uses it."""

    def __init__(
        self, clock: Clock, send: Callable[[W, SharingPolicy, Sequence[Use]], Awaitable[None]]
    ) -> None:
        """`send` reports to a worker; it raises an `HpccError` if the worker did not take it."""
        self._clock, self._send = clock, send
        self._lock = asyncio.Lock()
        self._is_asked, self._paused_until = False, float("-inf")
        self._waiting: list[Use] = []
        self._worker: W | None = None
        self._sharing = SharingPolicy()
        self._task: asyncio.Task[None] | None = None

    async def may_use(self, worker: W, sharing: SharingPolicy) -> bool:
        """Return whether results may be used from packs now; asks the worker once.

        `sharing` is what the caller accepts of colleagues' results.
        """
        if not worker.route.packs or sharing.is_private or len(self._waiting) >= MAX_WAITING:
            return False
        self._worker, self._sharing = worker, sharing
        self._begin()  # with what an earlier worker did not take
        async with self._lock:
            if not self._is_asked and not self._is_paused:
                self._is_asked = await self._sent([])
        return self._is_asked and not self._is_paused

    @property
    def _is_paused(self) -> bool:
        return self._clock.monotonic() < self._paused_until

    def note(self, use: Use) -> None:
        """Report a use, soon."""
        self._waiting.append(use)
        self._begin()

    def _begin(self) -> None:
        if self._waiting and (self._task is None or self._task.done()):
            self._task = asyncio.Task(self._send_later(), name="uses of packs")

    async def close(self) -> None:
        """Send what waits, within a second."""
        if self._task is not None:
            self._task.cancel()
            with suppress(asyncio.CancelledError):
                await self._task
        try:
            async with asyncio.timeout(_LAST_SECONDS):
                await self._send_all()
        except TimeoutError:
            _log.warning("%d uses of packs were not reported in time", len(self._waiting))

    async def _send_later(self) -> None:
        while self._waiting and not self._is_paused:
            await asyncio.sleep(_GATHER_SECONDS)
            await self._send_all()

    async def _send_all(self) -> None:
        while self._waiting:
            batch = self._waiting[:MAX_USES]
            if not await self._sent(batch):
                return
            del self._waiting[: len(batch)]

    async def _sent(self, batch: list[Use]) -> bool:
        """Send one report; False if it has to be sent again."""
        worker = self._worker
        assert worker is not None, "may_use was asked before"
        try:
            await self._send(worker, self._sharing, batch)
        except HpccError as error:
            _log.warning("worker %s takes no uses of packs: %s", worker.route.worker_id, error)
            self._paused_until = self._clock.monotonic() + _PAUSE_SECONDS
            # Sent again it would be refused again. The worker has recorded that it refused.
            return bool(batch) and error.reason in _REFUSALS
        return True
