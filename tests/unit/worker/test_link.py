"""The worker's heartbeats: keys while the scheduler hangs, and what cannot wait."""

from __future__ import annotations

import asyncio
from dataclasses import replace
from types import SimpleNamespace
from typing import Any, cast

import pytest

from hpcc.core import ImageDigest, Isolation
from hpcc.ports import SecurityEvent, SystemClock
from hpcc.rpc.base.errors import UnavailableError
from hpcc.rpc.scheduler.api import (
    Admission,
    Beat,
    BeatAnswer,
    DrainOrder,
    DrainState,
    Registration,
)
from hpcc.rpc.scheduler.recent_events import MAX_NOTED
from hpcc.worker.link import LinkState, SchedulerLink

REGISTRATION = Registration(
    worker_id="w1", endpoint="h:1", certificate=b"c", isolation=Isolation.QEMU_TCG,
    images=(ImageDigest("sha256:" + "ab" * 32),), capacity=1, result_key=b"k", result_proof=b"p",
)  # fmt: skip


class Registry:
    """A scheduler that accepts everything, and gives `order` with each answer."""

    def __init__(self) -> None:
        self.registrations: list[Registration] = []
        self.beats: asyncio.Queue[Beat] = asyncio.Queue()
        self.order: DrainOrder | None = None
        self.refuses = False

    async def register(self, registration: Registration) -> Admission:
        self.registrations.append(registration)
        return Admission(
            token_keys=(), generation=7, lease_seconds=400.0, scheduler_id="s", audience="a"
        )

    def pulse(self) -> Registry:
        return self

    async def beat(self, beat: Beat) -> BeatAnswer:
        self.beats.put_nowait(beat)
        if self.refuses:
            raise UnavailableError("no answer")
        return BeatAnswer((), 7, 400.0, drain=self.order)

    async def wait_ended(self) -> None:
        await asyncio.Event().wait()

    def close(self) -> None:
        pass


class Clock:
    at = 1000.0

    def monotonic(self) -> float:
        return self.at


async def test_tokens_of_invented_keys_do_not_wait_one_after_the_other(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Otherwise each would occupy one of the worker's calls until all earlier ones had ended."""
    clock, asked, begun, hangs = Clock(), 0, asyncio.Event(), asyncio.Event()
    nothing: Any = None
    link = SchedulerLink(
        nothing,
        nothing,
        cast("Any", clock),
        state=nothing,
        on_admission=nothing,
        keys=nothing,
        on_certificates=nothing,
    )

    async def renew() -> None:
        nonlocal asked
        asked += 1
        begun.set()
        await hangs.wait()
        clock.at += 10.0
        raise UnavailableError("the scheduler hangs")

    monkeypatch.setattr(link, "_renew", renew)
    async with asyncio.timeout(10), asyncio.TaskGroup() as group:
        calls = [group.create_task(link.refresh_keys()) for _ in range(50)]
        await begun.wait()
        clock.at += 1.0
        hangs.set()
    assert [call.result() for call in calls] == [True] * 50
    assert asked == 1
    assert not await link.refresh_keys(), "a moment ago"


async def test_a_drain_is_registered_at_once_and_obeyed() -> None:
    """It does not wait for the next heartbeat, which is due in minutes."""
    state = LinkState(running=0, queued=0, anchor=None)
    client, orders = Registry(), list[DrainOrder | None]()
    link = SchedulerLink(
        cast("Any", client),
        REGISTRATION,
        SystemClock(),
        state=lambda: state,
        on_admission=lambda _: None,
        keys=cast("Any", SimpleNamespace(admitted=lambda _: None)),
        on_certificates=cast("Any", None),
        on_drain=orders.append,
    )
    async with asyncio.timeout(30):
        await link.register()
        task = asyncio.Task(link.run(400.0))
        assert not (await client.beats.get()).drain
        client.order = DrainOrder(seconds=5.0)
        state = replace(state, drain=DrainState.DRAINING, drain_seconds=5.0)
        link.hurry()
        beat = await client.beats.get()
        assert (beat.drain, beat.drain_seconds) == (DrainState.DRAINING, 5.0)
        assert [r.is_draining for r in client.registrations] == [False, True]
        assert client.registrations[1].generation == 7, "its life goes on"
        state = replace(state, drain=DrainState.DRAINED)
        link.hurry()
        assert (await client.beats.get()).drain is DrainState.DRAINED
        assert len(client.registrations) == 2, "nothing new for a route"
        state = replace(state, drain=DrainState.NONE)
        link.hurry()
        await client.beats.get()
        assert [r.is_draining for r in client.registrations][2:] == [False]
        assert orders[0] is None
        assert client.order in orders
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task


async def test_each_event_of_the_trail_goes_with_one_heartbeat_and_again_to_a_new_stream() -> None:
    client, state = Registry(), LinkState(running=0, queued=0, anchor=None)
    link = SchedulerLink(
        cast("Any", client),
        REGISTRATION,
        SystemClock(),
        state=lambda: state,
        on_admission=lambda _: None,
        keys=cast("Any", SimpleNamespace()),
        on_certificates=cast("Any", None),
    )
    names = [f"kind-{number}" for number in range(10)]
    for name in names:
        link.noted.put(SecurityEvent(name=name, at=1.0))

    async def told() -> list[str]:
        await link._answer()
        return [event.name for event in client.beats.get_nowait().events]

    assert await told() == names[:MAX_NOTED]
    assert await told() == names[MAX_NOTED:]
    assert await told() == []
    for number in range(50):
        link.noted.put(SecurityEvent(name="flood", at=float(number)))
    link.noted.put(SecurityEvent(name="late", at=1.0))
    assert await told() == ["flood"] * 4 + ["late"]
    client.refuses = True
    link.noted.put(SecurityEvent(name="lost-answer", at=1.0))
    with pytest.raises(UnavailableError):
        await told()
    client.refuses = False
    client.beats.get_nowait()
    assert await told() == names[:MAX_NOTED], "another stream: perhaps another scheduler"
    assert await told() == [*names[MAX_NOTED:], *["flood"] * 4, "late", "lost-answer"]
