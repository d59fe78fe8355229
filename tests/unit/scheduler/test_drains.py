"""An operator's marks on workers: what they do at each scheduler, and what the command gets back."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from pathlib import Path

import pytest

from hpcc.audit.limiter import EventLimiter
from hpcc.control.embedded import EmbeddedControlStore
from hpcc.core import CallerError, ImageDigest, Isolation, NotFoundError
from hpcc.ports import ControlStoreError
from hpcc.routing.fleet import RouteRequest
from hpcc.rpc.scheduler.api import Beat, DrainState, Registration
from hpcc.scheduler.base.enrolled import WORKER_SPACE
from hpcc.scheduler.drains import MARK_SPACE, PROGRESS_SPACE, Drains, DrainTable
from hpcc.scheduler.registry import WorkerRegistry
from hpcc_testkit.farm.memory_audit import MemoryAuditLog
from hpcc_testkit.services.idp_tokens import FixedClock

IMAGE = ImageDigest("sha256:" + "ab" * 32)


class Scheduler:
    """What one scheduler has of drains, and of workers."""

    def __init__(self, store: EmbeddedControlStore, clock: FixedClock) -> None:
        self.audit = MemoryAuditLog()
        self.registry = WorkerRegistry(clock, 10.0)
        self.drains = Drains(store, EventLimiter(self.audit, clock), clock)
        self.drains.attach(self.registry)

    def hears(self, worker: str, drain: DrainState = DrainState.NONE, running: int = 0) -> None:
        registration = Registration(
            worker_id=worker, endpoint="h:1", certificate=worker.encode(),
            isolation=Isolation.QEMU_TCG, images=(IMAGE,), capacity=2,
            result_key=b"k", result_proof=b"p",
        )  # fmt: skip
        if self.registry.row_or_none(worker) is None:
            self.registry.register(registration)
        self.registry.heartbeat(
            Beat(worker_id=worker, generation=1, running=running, queued=0, drain=drain)
        )

    def chosen(self) -> str:
        request = RouteRequest(image=IMAGE, rank=Isolation.QEMU_TCG.rank, home=0)
        try:
            return self.registry.choose(request, lambda _: 0).registration.worker_id
        except NotFoundError:
            return ""


@pytest.fixture
def clock() -> FixedClock:
    return FixedClock()


@pytest.fixture
def store(tmp_path: Path, clock: FixedClock) -> Iterator[EmbeddedControlStore]:
    with EmbeddedControlStore(tmp_path / "s.sqlite", clock) as store:
        asyncio.run(_enrol(store))
        yield store


async def _enrol(store: EmbeddedControlStore) -> None:
    await store.put(WORKER_SPACE, "w1", b"{}")


async def test_a_mark_holds_at_every_scheduler_and_over_its_restart(
    store: EmbeddedControlStore, clock: FixedClock
) -> None:
    one, two = Scheduler(store, clock), Scheduler(store, clock)
    for scheduler in (one, two):
        scheduler.hears("w1")
        assert scheduler.chosen() == "w1"
    table = DrainTable(store, clock)
    await table.order("w1", 600.0, by="olga", reason="kernel")
    again = Scheduler(store, clock)
    await again.drains.load()
    for scheduler in (one, two, again):
        await scheduler.drains.look()
        scheduler.hears("w1")
        assert scheduler.chosen() == ""
        order = scheduler.drains.order_or_none("w1")
        assert order is not None
        assert (order.seconds, order.by, order.reason) == (600.0, "olga", "kernel")
        await scheduler.drains.look()
        if scheduler is again:
            assert scheduler.audit.names() == [], "that was recorded when it was given"
            continue
        fields = dict(scheduler.audit.events[0].fields)
        assert scheduler.audit.names() == ["worker-drain-ordered"], "once"
        assert (fields["worker"], fields["by"], fields["reason"]) == ("w1", "olga", "kernel")
    clock.time += 601.0
    order = one.drains.order_or_none("w1")
    assert order is not None
    assert order.seconds == 0.0, "a worker that comes back late begins no drain"
    additions = two.registry.additions
    await table.withdraw("w1")
    for scheduler in (one, two):
        await scheduler.drains.look()
        assert scheduler.drains.order_or_none("w1") is None
        scheduler.hears("w1")
        assert scheduler.chosen() == "w1"
        assert scheduler.audit.names()[1:] == ["worker-drain-ended"]
    assert two.registry.additions == additions + 1, "daemons are told that there is more"


async def test_the_scheduler_that_hears_the_worker_says_how_far_it_is(
    store: EmbeddedControlStore, clock: FixedClock
) -> None:
    one, two = Scheduler(store, clock), Scheduler(store, clock)
    one.hears("w1")
    table = DrainTable(store, clock)
    mark = await table.order("w1", 60.0, by="", reason="")
    for scheduler in (one, two):
        await scheduler.drains.look()
    assert await table.progress_or_none("w1", mark) is None, "it has not answered yet"
    one.hears("w1", DrainState.DRAINING, running=3)
    for scheduler in (one, two):
        await scheduler.drains.look()
    said = await table.progress_or_none("w1", mark)
    assert said is not None
    assert (said.state, said.running) == (DrainState.DRAINING, 3)
    one.hears("w1", DrainState.DRAINED)
    await one.drains.look()
    said = await table.progress_or_none("w1", mark)
    assert said is not None
    assert said.state is DrainState.DRAINED
    clock.time += 1.0
    later = await table.order("w1", 60.0, by="", reason="")
    assert await table.progress_or_none("w1", later) is None, "that was another drain"


async def test_what_cannot_be_is_refused(store: EmbeddedControlStore, clock: FixedClock) -> None:
    table = DrainTable(store, clock)
    for name in ("w2", "", "W1", "w1 "):
        with pytest.raises(NotFoundError, match="ever enrolled"):
            await table.order(name, 60.0, by="", reason="")
        with pytest.raises(NotFoundError, match="ever enrolled"):
            await table.withdraw(name)
    for seconds in (-1.0, 86_401.0, float("nan"), float("inf")):
        with pytest.raises(CallerError, match="seconds"):
            await table.order("w1", seconds, by="", reason="")
    mark = await table.order("w1", 60.0, by="o\x1b[1m" * 99, reason="\n" + "r" * 999)
    assert (len(mark.by), mark.reason) == (51, "r" * 199)


MALFORMED = (
    b"", b"\xff", b"[]", b"{}", b'{"at": 1}', b'{"at": 1, "ends_at": "x"}',
    b'{"at": NaN, "ends_at": 1}', b'{"at": 1, "ends_at": 1e999}', b"[" * 100_000,
    b'{"at": "1", "ends_at": 1}', b'{"at": 1, "ends_at": true}',
    b'{"at": 1, "ends_at": %s}' % (b"9" * 400),
    b'{"at": 1, "ends_at": 1, "by": 5}', b'{"at": 1, "ends_at": 1, "by": null}',
    b'{"at": 1, "ends_at": 1, "reason": ["x"]}', b'{"at": 1, "ends_at": 1, "reason": {}}',
    b'{"at": 1, "state": "drained", "running": "1", "queued": 0}',
    b'{"at": 1, "state": "drained", "running": 1.5, "queued": 0}',
    b'{"at": 1, "state": "drained", "running": -1, "queued": 0}',
    b'{"at": 1, "state": "asleep", "running": 1, "queued": 0}',
    b'{"at": 1, "state": [], "running": 1, "queued": 0}',
)  # fmt: skip


async def test_a_malformed_mark_is_none_and_the_others_hold(
    store: EmbeddedControlStore, clock: FixedClock
) -> None:
    scheduler = Scheduler(store, clock)
    for name in ("w1", "w2"):
        scheduler.hears(name)
    mark = await DrainTable(store, clock).order("w1", 60.0, by="", reason="")
    for value in MALFORMED:
        await store.put(MARK_SPACE, "w2", value)
        await scheduler.drains.look()
        assert scheduler.chosen() == "w2", value
        await store.put(PROGRESS_SPACE, "w1", value)
        with pytest.raises(ControlStoreError, match="malformed"):
            await DrainTable(store, clock).progress_or_none("w1", mark)


async def test_marks_stay_while_the_store_is_away(
    store: EmbeddedControlStore, clock: FixedClock
) -> None:
    scheduler = Scheduler(store, clock)
    scheduler.hears("w1")
    await DrainTable(store, clock).order("w1", 60.0, by="", reason="")
    await scheduler.drains.look()
    store.close()
    await scheduler.drains.look()
    assert scheduler.chosen() == ""
    assert scheduler.drains.order_or_none("w1") is not None
