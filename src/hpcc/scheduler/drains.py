"""Which workers an operator drains, and how far they are.

An operator's mark is an entry of the control store, so it holds whichever scheduler the worker
speaks to, and over restarts of both. Each scheduler reads the marks once a second, and does two
things with one: it routes nothing to the worker, and it gives the worker the order with the answer
to each heartbeat. The worker then says in its registration that it takes no compiles, which ends
the routes that daemons hold.

The scheduler that hears the worker writes beside the mark how far the worker is, for the command
that gave the order. That command has the store, and no login.

A mark is not sealed as keys are: a party that can write to the store can also end all leases.
"""

from __future__ import annotations

import json
import logging
import math
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import asdict, dataclass
from typing import Any, Final

from hpcc.audit.limiter import EventLimiter
from hpcc.control.mirror import Mirror
from hpcc.core import CallerError, HpccError, NotFoundError
from hpcc.ports import Clock, ConflictError, ControlStore, ControlStoreError, Entry
from hpcc.rpc.scheduler.api import (
    MAX_BY_CHARS,
    MAX_DRAIN_SECONDS,
    MAX_WHY_CHARS,
    DrainOrder,
    DrainState,
)
from hpcc.rpc.scheduler.drain_messages import label, seconds_of
from hpcc.scheduler.audit.histories import CHANGED_SPACE
from hpcc.scheduler.base.enrolled import WORKER_SPACE
from hpcc.scheduler.registry import MAX_WORKERS, WorkerRegistry

_log: Final = logging.getLogger(__name__)
MARK_SPACE: Final = "worker-drain"
PROGRESS_SPACE: Final = "worker-drain-progress"
# Who drains a worker whose history was changed. No login has a space in its name.
SCHEDULERS: Final = "the schedulers"
_LOOK_SECONDS: Final = 1.0


@dataclass(frozen=True, slots=True, kw_only=True)
class DrainMark:
    """An operator's mark. Times are seconds since the epoch; what runs may go on until `ends_at`.

    `by` and `reason` are for people.
    """

    at: float
    ends_at: float
    by: str = ""
    reason: str = ""

    @classmethod
    def of(cls, entry: Entry) -> DrainMark:
        """Parse an entry.

        Raises:
            ControlStoreError: it is malformed.
        """
        table = _table(entry)
        try:
            at, ends_at = _number(table["at"]), _number(table["ends_at"])
            by, reason = _text(table.get("by", "")), _text(table.get("reason", ""))
        except (KeyError, TypeError, ValueError, OverflowError) as error:
            raise _malformed(entry) from error
        return cls(
            at=at, ends_at=ends_at, by=label(by, MAX_BY_CHARS), reason=label(reason, MAX_WHY_CHARS)
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class DrainProgress:
    """What a worker said last about its drain; `at` is the mark's, whose drain it is."""

    at: float
    state: DrainState
    running: int
    queued: int

    @classmethod
    def of(cls, entry: Entry) -> DrainProgress:
        """Parse an entry.

        Raises:
            ControlStoreError: it is malformed.
        """
        table = _table(entry)
        try:
            return cls(
                at=_number(table["at"]), state=DrainState(_text(table["state"])),
                running=_count(table["running"]), queued=_count(table["queued"]),
            )  # fmt: skip
        except (KeyError, TypeError, ValueError, OverflowError) as error:
            raise _malformed(entry) from error


class DrainTable:
    """The marks in the control store, for an operator's command."""

    def __init__(self, store: ControlStore, clock: Clock) -> None:
        self._store, self._clock = store, clock

    async def order(self, worker_id: str, seconds: float, *, by: str, reason: str) -> DrainMark:
        """Mark a worker; a later order replaces an earlier one, and its deadline.

        Raises:
            NotFoundError: no worker of that name was ever enrolled.
            CallerError: `seconds` is out of range, or there are too many marks.
            ControlStoreError: the store does not answer.
        """
        if not 0 <= seconds <= MAX_DRAIN_SECONDS:
            raise CallerError(f"a drain takes 0 to {MAX_DRAIN_SECONDS:.0f} seconds", reason="usage")
        await self._known(worker_id)
        marks = await self._store.entries(MARK_SPACE)
        if len(marks) >= MAX_WORKERS and worker_id not in {e.key for e in marks}:
            raise CallerError(f"more than {MAX_WORKERS} workers drain", reason="too-many-workers")
        now = self._clock.now()
        mark = DrainMark(
            at=now, ends_at=now + seconds,
            by=label(by, MAX_BY_CHARS), reason=label(reason, MAX_WHY_CHARS),
        )  # fmt: skip
        await self._store.put(MARK_SPACE, worker_id, _encode(mark))
        return mark

    async def withdraw(self, worker_id: str) -> None:
        """Remove a worker's mark, if there is one.

        Raises:
            NotFoundError: no worker of that name was ever enrolled.
            CallerError: its history was changed, and no operator has acknowledged that.
            ControlStoreError: the store does not answer.
        """
        await self._known(worker_id)
        if await self._store.entry_or_none(CHANGED_SPACE, worker_id) is not None:
            raise CallerError(
                f"the history of worker {worker_id} was changed: read `hpcc scheduler audit-history"
                f" {worker_id}` and docs/runbook.md, then acknowledge it",
                reason="audit-history-changed",
            )
        await self._store.delete(MARK_SPACE, worker_id)
        await self._store.delete(PROGRESS_SPACE, worker_id)

    async def progress_or_none(self, worker_id: str, mark: DrainMark) -> DrainProgress | None:
        """Return what the worker said under this mark; None if it has said nothing yet.

        Raises:
            ControlStoreError: the store does not answer.
        """
        entry = await self._store.entry_or_none(PROGRESS_SPACE, worker_id)
        progress = DrainProgress.of(entry) if entry is not None else None
        return progress if progress is not None and progress.at == mark.at else None

    async def _known(self, worker_id: str) -> None:
        # A mistyped name would be a mark that nobody ever sees.
        if await self._store.entry_or_none(WORKER_SPACE, worker_id) is None:
            raise NotFoundError(
                f"no worker {worker_id} was ever enrolled: `hpcc scheduler workers` lists them"
            )


class Drains:
    """The marks in one scheduler's memory; they stay while the store is unreachable."""

    def __init__(self, store: ControlStore, events: EventLimiter, clock: Clock) -> None:
        self._store, self._events, self._clock = store, events, clock
        self._mirror = Mirror(store, MARK_SPACE, clock, self._take)
        self._registry: WorkerRegistry | None = None
        self._marks: Mapping[str, DrainMark] = {}
        # Changes without an event yet: the worker, and its mark; None if that was withdrawn.
        self._news: list[tuple[str, DrainMark | None]] = []
        self._written: dict[str, DrainProgress] = {}
        self._is_away = False

    def attach(self, registry: WorkerRegistry) -> None:
        """Drain workers of this registry."""
        self._registry = registry
        registry.drain(frozenset(self._marks))

    def mark_or_none(self, worker_id: str) -> DrainMark | None:
        """Return a worker's mark."""
        return self._marks.get(worker_id)

    def order_or_none(self, worker_id: str) -> DrainOrder | None:
        """Return the order for a worker, with the time that is left by this clock."""
        mark = self._marks.get(worker_id)
        if mark is None:
            return None
        seconds = seconds_of(mark.ends_at - self._clock.now())
        return DrainOrder(seconds=seconds, by=mark.by, reason=mark.reason)

    def held(self) -> frozenset[str]:
        """Return the workers that schedulers drain because their history was changed."""
        return frozenset(w for w, mark in self._marks.items() if mark.by == SCHEDULERS)

    async def hold(self, worker_id: str, why: str) -> None:
        """Drain a worker because its history was changed, unless it is drained already.

        What runs is ended: somebody who changes a trail may change results.

        Raises:
            ControlStoreError: the store does not answer.
        """
        now = self._clock.now()
        reason = label(f"audit-history-changed: {why}", MAX_WHY_CHARS)
        mark = DrainMark(at=now, ends_at=now, by=SCHEDULERS, reason=reason)
        with suppress(ConflictError):
            await self._store.put(MARK_SPACE, worker_id, _encode(mark), expect=0)

    async def release(self, worker_id: str) -> None:
        """End a drain that `hold` began.

        Raises:
            ControlStoreError: the store does not answer.
        """
        await release(self._store, worker_id)

    async def load(self) -> None:
        """Read the marks before the first worker speaks. Older ones get no second event.

        A scheduler without them would let all drained workers take compiles again.

        Raises:
            ControlStoreError: the store does not answer.
        """
        await self._mirror.read()
        if self._news:
            _log.warning("operators drain %d workers", len(self._news))
        self._news.clear()

    async def run(self) -> None:
        """Keep the marks current until cancelled.

        By polling: a command beside an embedded store is another process, which tells nobody.
        """
        while True:
            await self.look()
            await self._clock.sleep(_LOOK_SECONDS)

    async def look(self) -> None:
        """Read the marks, record what changed, and write how far the drained workers are."""
        try:
            await self._mirror.read()
            await self._write_progress()
        except ControlStoreError as error:
            if not self._is_away:
                _log.warning("the list of drained workers is not updated: %s", error)
            self._is_away = True
        else:
            self._is_away = False
        while self._news:
            worker_id, mark = self._news.pop(0)
            try:
                await self._record(worker_id, mark)
            except HpccError as error:
                _log.error("a drain of worker %s is not recorded: %s", worker_id, error)

    def _take(self) -> None:
        before, found = self._marks, dict[str, DrainMark]()
        for worker_id, entry in self._mirror.entries.items():
            try:
                found[worker_id] = DrainMark.of(entry)
            except ControlStoreError as error:
                _log.error("worker %s: %s", worker_id, error)
        self._marks = found
        self._news += [(w, mark) for w, mark in found.items() if before.get(w) != mark]
        self._news += [(w, None) for w in before if w not in found]
        self._written = {w: said for w, said in self._written.items() if w in found}
        if self._registry is not None:
            self._registry.drain(frozenset(found))

    async def _record(self, worker_id: str, mark: DrainMark | None) -> None:
        worker = ("worker", worker_id)
        if mark is None:
            _log.warning("worker %s is not drained any more", worker_id)
            await self._events.event("worker-drain-ended", "", worker)
            return
        _log.warning("worker %s is drained by %s: %s", worker_id, mark.by, mark.reason)
        until = ("ends_at", f"{mark.ends_at:.0f}")
        said = (("by", mark.by), ("reason", mark.reason))
        await self._events.event("worker-drain-ordered", "", worker, until, *said)

    async def _write_progress(self) -> None:
        """Write what has changed of the workers that speak here."""
        if self._registry is None:
            return
        for worker_id, mark in self._marks.items():
            row = self._registry.row_or_none(worker_id)
            if row is None or not row.drain or not self._registry.speaks_here(worker_id):
                continue
            said = DrainProgress(
                at=mark.at, state=row.drain, running=row.member.running, queued=row.member.queued
            )
            if self._written.get(worker_id) != said:
                await self._store.put(PROGRESS_SPACE, worker_id, _encode(said))
                self._written[worker_id] = said


async def release(store: ControlStore, worker_id: str) -> None:
    """End a worker's drain, if schedulers began it because its history was changed.

    Raises:
        ControlStoreError: the store does not answer.
    """
    entry = await store.entry_or_none(MARK_SPACE, worker_id)
    if entry is not None and DrainMark.of(entry).by == SCHEDULERS:
        await store.delete(MARK_SPACE, worker_id)
        await store.delete(PROGRESS_SPACE, worker_id)


def _encode(value: DrainMark | DrainProgress) -> bytes:
    return json.dumps(asdict(value), sort_keys=True).encode()


def _table(entry: Entry) -> Mapping[str, Any]:
    try:
        table = json.loads(entry.value)
    except (ValueError, RecursionError) as error:
        raise _malformed(entry) from error
    if not isinstance(table, dict):
        raise _malformed(entry)
    return table


def _number(value: object) -> float:
    if not isinstance(value, int | float) or isinstance(value, bool):
        raise TypeError("not a number")
    if not math.isfinite(value):
        raise ValueError("not finite")
    return float(value)


def _count(value: object) -> int:
    if not isinstance(value, int) or isinstance(value, bool) or value < 0:
        raise TypeError("not a count")
    return value


def _text(value: object) -> str:
    if not isinstance(value, str):
        raise TypeError("not a text")
    return value


def _malformed(entry: Entry) -> ControlStoreError:
    return ControlStoreError(f"the drain of worker {entry.key} in the control store is malformed")
