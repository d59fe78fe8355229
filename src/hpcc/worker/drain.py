"""Takes this worker out of work without cutting a compile, and shows how far that is.

Three can want it: the process ends (`STOP`), somebody on this machine (`HERE`: `hpcc worker
drain`), or an operator at the schedulers (`FARM`). While one of them does, the worker

- takes no compile: what asks or waits for a guest is refused with the reason `draining`, on which
  a client tries another worker;
- says so in its registration, so that no scheduler routes to it, and daemons drop their routes;
- lets what runs finish until the deadline, then ends the guests;
- publishes what it owes to colleagues, and answers what callers ask about results.

When nothing is left it is drained. It takes compiles again when nobody wants the drain any more.

Sessions and connections do not count: a client that holds one open without a compile delays
nothing.
"""

from __future__ import annotations

import asyncio
import enum
import logging
from collections.abc import Awaitable, Callable, Sized
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Final, Protocol

from hpcc.core import HpccError
from hpcc.ports import AuditLog, Clock, SecurityEvent
from hpcc.rpc.scheduler.api import (
    MAX_BY_CHARS,
    MAX_WHY_CHARS,
    DrainOrder,
    DrainState,
)
from hpcc.rpc.scheduler.drain_messages import label, seconds_of
from hpcc.worker.base.drain_file import DrainFiles, DrainReport

_log: Final = logging.getLogger(__name__)
# How often the command's file is looked at, and the report is written.
_LOOK_SECONDS: Final = 0.5
# How often a process that ends looks whether it may.
_STEP_SECONDS: Final = 0.05
# At the deadline guests end. An execution then still writes its row, for at most so long.
_LATE_SECONDS: Final = 10.0
# A shared store that is slow does not hold up a stop for longer.
_PUBLISH_SECONDS: Final = 10.0
_FETCH_SECONDS: Final = 1.0
_CLOCK_SECONDS: Final = 2.0
# A disk that hangs does not hold up a stop for longer.
_WRITE_SECONDS: Final = 5.0


class WorkPlaces(Protocol):
    """What runs, and room for more."""

    @property
    def running(self) -> int:
        """How many compiles run."""
        ...

    @property
    def queued(self) -> int:
        """How many wait."""
        ...

    def close(self, seconds: float) -> None:
        """Take nothing new; what runs may take so long. A later call may change the time."""
        ...

    def reopen(self) -> None:
        """Take compiles again."""
        ...


class Entrance(Protocol):
    """Where compiles come in."""

    def close(self) -> None:
        """Refuse them."""
        ...

    def reopen(self) -> None:
        """Take them again."""
        ...


class Publishing(Protocol):
    """What is owed to colleagues: `pending` results."""

    pending: int


class Source(enum.Enum):
    """Who wants a drain."""

    STOP = "stop"
    HERE = "here"
    FARM = "farm"


@dataclass(frozen=True, slots=True, kw_only=True)
class _Wish:
    """What one of them wants; what runs may go on until `until` (monotonic)."""

    until: float
    by: str = ""
    reason: str = ""


class Drain:
    """The state of one worker's drain. Belongs to one event loop."""

    def __init__(
        self,
        pool: WorkPlaces,
        quotas: Entrance,
        deduper: Sized,
        sharing: Publishing,
        state: Path,
        audit: AuditLog,
        clock: Clock,
        *,
        has_callers: bool = True,
    ) -> None:
        """`state` is the directory of the files of `hpcc worker drain`.

        `has_callers`: whether those who wait for results fetch outputs here.
        """
        self._has_callers = has_callers
        self._pool, self._quotas = pool, quotas
        self._deduper, self._sharing = deduper, sharing
        self._files, self._audit, self._clock = DrainFiles(state), audit, clock
        self._wishes: dict[Source, _Wish] = {}
        self._obeyed, self._is_hurried = "", False
        # Whether something ran when the process was to end.
        self._was_busy = False
        # Whether `finish` has ended: what still runs then is ended with the process.
        self._is_over = False
        # The last error that was logged.
        self._trouble = ""
        self._written: DrainReport | None = None
        self._number = 0
        # Changes without an event yet.
        self._news: list[tuple[Source, _Wish | None]] = []
        # Called when the worker begins or ends to take compiles, and when it is drained.
        self.changed: Callable[[], None] = lambda: None

    @property
    def is_busy(self) -> bool:
        """Whether a compile runs, or makes its result."""
        return bool(self._pool.running or len(self._deduper))

    @property
    def has_last_callers(self) -> bool:
        """Whether a process that ends has time for callers who fetch what was made last."""
        return self._has_callers and self._was_busy and not self._is_hurried

    @property
    def state(self) -> DrainState:
        """What the schedulers and the report show."""
        if not self._wishes:
            return DrainState.NONE
        is_left = not self._is_over and (self.is_busy or self._sharing.pending)
        return DrainState.DRAINING if is_left else DrainState.DRAINED

    @property
    def seconds_left(self) -> float:
        """How long what runs may still take; 0 without a drain."""
        until = min((w.until for w in self._wishes.values()), default=0.0)
        return max(until - self._clock.monotonic(), 0.0)

    def heard(self, order: DrainOrder | None) -> None:
        """Obey the schedulers: `order` is what they want now, with the time that is left."""
        if order is None:
            self.withdraw(Source.FARM)
        else:
            self.order(Source.FARM, order.seconds, by=order.by, reason=order.reason)

    def order(self, source: Source, seconds: float, *, by: str = "", reason: str = "") -> None:
        """Take no compiles; what runs may take so long. A later order sets another time.

        If several want it, the earliest deadline counts.
        """
        known = self._wishes.get(source)
        wish = _Wish(until=self._clock.monotonic() + seconds, by=by, reason=reason)
        self._wishes[source] = wish
        if known is None or (known.by, known.reason) != (by, reason):
            self._news.append((source, wish))
        self._apply(was_wanted=known is not None or len(self._wishes) > 1)

    def withdraw(self, source: Source) -> None:
        """Take compiles again, unless somebody else wants none taken."""
        if self._wishes.pop(source, None) is not None:
            self._news.append((source, None))
            self._apply(was_wanted=True)

    def _apply(self, *, was_wanted: bool) -> None:
        if self._wishes:
            self._quotas.close()
            self._pool.close(self.seconds_left)
        else:
            self._quotas.reopen()
            self._pool.reopen()
        if was_wanted != bool(self._wishes):
            self.changed()

    def hurry(self) -> None:
        """End what runs, if the process ends."""
        self._is_hurried = True
        if Source.STOP in self._wishes:
            self.order(Source.STOP, 0.0)

    async def finish(self, seconds: float) -> None:
        """Drain because the process ends: return when all is over, at once if nothing runs."""
        self.order(Source.STOP, 0.0 if self._is_hurried else seconds)
        self._was_busy = self.is_busy
        late_at: float | None = None
        while self.is_busy:
            now = self._clock.monotonic()
            if self.seconds_left:
                late_at = None
            elif late_at is None:
                # From now, not from the deadline: a process that was stopped notices it late.
                late_at = now + _LATE_SECONDS
            elif now >= late_at:
                break
            await self._clock.sleep(_STEP_SECONDS)
        publish_until = self._clock.monotonic() + _PUBLISH_SECONDS
        while self._sharing.pending and not self._is_hurried:
            if self._clock.monotonic() >= publish_until:
                break
            await self._clock.sleep(_STEP_SECONDS)
        if self._sharing.pending:
            _log.warning("%d results are not shared: it took too long", self._sharing.pending)
        if self.has_last_callers:
            # The callers of the last compiles begin to fetch large outputs now.
            await self._clock.sleep(_FETCH_SECONDS)
        self._is_over = True

    async def run(self) -> None:
        """Obey `hpcc worker drain` and report, until cancelled. No file can end the worker."""
        try:
            await self._try(self._clear)
            while True:
                for step in (self._look, self._record, self._report):
                    await self._try(step)
                await self._clock.sleep(_LOOK_SECONDS)
        finally:
            # Without it a command that waits could not tell a stop from a crash. After a fault the
            # report stays as it is: what ran was cut.
            if self._obeyed and self._is_over:
                await self._try(self._last_report)

    async def _try(self, step: Callable[[], Awaitable[None]]) -> None:
        """Take a step; log why it failed, but not the same twice a second."""
        try:
            await step()
        except (HpccError, OSError) as error:
            text = str(error) or "the disk is too slow"
            if text != self._trouble:
                _log.warning("drain: %s", text)
            self._trouble = text

    async def _clear(self) -> None:
        await asyncio.to_thread(self._files.clear)

    async def _last_report(self) -> None:
        async with asyncio.timeout(_WRITE_SECONDS):
            await self._report()

    async def _look(self) -> None:
        """Obey a new request of the command."""
        request = await asyncio.to_thread(self._files.request_or_none)
        if request is None:
            return
        self._obeyed = request.request[:MAX_BY_CHARS]
        if not request.is_wanted:
            self.withdraw(Source.HERE)
            return
        by, reason = label(request.by, MAX_BY_CHARS), label(request.reason, MAX_WHY_CHARS)
        self.order(Source.HERE, seconds_of(request.seconds), by=by, reason=reason)

    async def _record(self) -> None:
        """Record who took this worker out of work, and who put it back."""
        while self._news:
            source, wish = self._news.pop(0)
            if source is Source.STOP:
                continue
            said = (("by", wish.by), ("reason", wish.reason)) if wish is not None else ()
            event = SecurityEvent(
                name="worker-drain" if wish is not None else "worker-drain-ended",
                at=self._clock.now(),
                fields=(("source", source.value), *said),
            )
            await self._audit.event(event)

    async def _report(self) -> None:
        """Write how far the worker is, if that has changed, once somebody has asked."""
        report = self._shown()
        if self._wishes and (self._written is None or self._written.state != report.state):
            self.changed()
        if self._written is None and not self._wishes and not self._obeyed:
            return
        if self._written is not None and not _is_other(self._written, report):
            return
        self._number += 1
        await asyncio.to_thread(self._files.write, report, self._number)
        self._written, self._trouble = report, ""

    def _shown(self) -> DrainReport:
        wish = next(iter(self._wishes.values()), None)
        return DrainReport(
            obeyed=self._obeyed,
            state=self.state.value,
            running=max(self._pool.running, len(self._deduper) - self._pool.queued),
            queued=self._pool.queued,
            ends_at=self._clock.now() + self.seconds_left if wish is not None else 0.0,
            by=wish.by if wish is not None else "",
            reason=wish.reason if wish is not None else "",
        )


def _is_other(one: DrainReport, other: DrainReport) -> bool:
    """Return whether reports differ; the clocks differ by moments each time."""
    if abs(one.ends_at - other.ends_at) > _CLOCK_SECONDS:
        return True
    return replace(one, ends_at=0.0) != replace(other, ends_at=0.0)
