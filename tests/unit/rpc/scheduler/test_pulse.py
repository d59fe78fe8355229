"""The scheduler's end of heartbeat streams, with hostile workers at the other end."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Any, cast

import pytest

from hpcc._proto import scheduler_pb2 as pb
from hpcc.core import CallerError, HpccError
from hpcc.rpc.base.errors import UnauthenticatedError
from hpcc.rpc.base.method import Call, Duplex
from hpcc.rpc.scheduler.api import (
    Beat,
    BeatAnswer,
    DrainOrder,
    DrainState,
    SchedulerBackend,
    WorkerFacts,
)
from hpcc.rpc.scheduler.drain_messages import order_of
from hpcc.rpc.scheduler.pulse import BEATS_PER_SECOND, BURST, Pulses, beat_message, beat_of

CALL = Call(credential="", tool_metadata=b"", certificate=b"w1's")


class Backend:
    """Accepts w1's certificate for w1 until it is revoked."""

    def __init__(self) -> None:
        self.beats: list[Beat] = []
        self.gone: list[str] = []
        self.is_revoked = False
        self.order: DrainOrder | None = None

    async def admit(self, certificate: bytes, worker_id: str) -> str:
        if self.is_revoked:
            raise UnauthenticatedError("revoked", reason="worker-revoked")
        assert certificate == b"w1's"
        return worker_id

    def heartbeat(self, beat: Beat) -> BeatAnswer:
        self.beats.append(beat)
        return BeatAnswer((("k", b"p"),), 7, 20.0, drain=self.order)

    def parted(self, worker_id: str) -> None:
        self.gone.append(worker_id)


class Wire(Duplex):
    """A stream in memory; None on it is its orderly end."""

    def __init__(self) -> None:
        self.sent: asyncio.Queue[pb.HeartbeatRequest | None] = asyncio.Queue()
        self.answers: asyncio.Queue[pb.HeartbeatResponse] = asyncio.Queue()

    async def read(self) -> Any:
        return await self.sent.get()

    async def write(self, message: Any) -> None:
        self.answers.put_nowait(message)


def message(**more: Any) -> pb.HeartbeatRequest:
    return pb.HeartbeatRequest(**{"worker_id": "w1", "generation": 7, **more})


def pulses(backend: Backend, idle_seconds: float = 60.0) -> Pulses:
    return Pulses(cast("SchedulerBackend", backend), idle_seconds)


async def reason_of(task: asyncio.Task[None]) -> str:
    with pytest.raises(HpccError) as refused:
        async with asyncio.timeout(30):
            await task
    return refused.value.reason


async def opened(served: Pulses, wire: Wire) -> asyncio.Task[None]:
    task = asyncio.Task(served.serve(wire, CALL))
    wire.sent.put_nowait(message())
    async with asyncio.timeout(30):
        answer = await wire.answers.get()
    assert (answer.generation, answer.token_keys[0].kid) == (7, "k")
    assert answer.lease_seconds == 20.0
    return task


async def test_the_end_of_a_stream_is_told_at_once() -> None:
    backend, wire = Backend(), Wire()
    task = await opened(pulses(backend), wire)
    assert backend.gone == []
    wire.sent.put_nowait(None)
    await task
    assert backend.gone == ["w1"]


async def test_a_connection_that_breaks_is_told_at_once() -> None:
    backend = Backend()
    task = await opened(pulses(backend), Wire())
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert backend.gone == ["w1"]


async def test_a_worker_that_is_revoked_is_refused_with_its_next_heartbeat() -> None:
    backend, wire = Backend(), Wire()
    task = await opened(pulses(backend), wire)
    backend.is_revoked = True
    wire.sent.put_nowait(message())
    assert await reason_of(task) == "worker-revoked"
    assert (len(backend.beats), backend.gone) == (1, ["w1"])


async def test_a_stream_that_was_never_admitted_ends_nobodys_life() -> None:
    backend, wire = Backend(), Wire()
    backend.is_revoked = True
    wire.sent.put_nowait(message())
    assert await reason_of(asyncio.Task(pulses(backend).serve(wire, CALL))) == "worker-revoked"
    assert (backend.beats, backend.gone) == ([], [])


async def test_a_second_stream_takes_the_place_of_the_first() -> None:
    backend, first, second = Backend(), Wire(), Wire()
    served = pulses(backend)
    old = await opened(served, first)
    new = await opened(served, second)
    assert await reason_of(old) == "pulse-replaced"
    # The worker is not gone: its other stream is there.
    assert backend.gone == []
    new.cancel()
    with pytest.raises(asyncio.CancelledError):
        await new
    assert backend.gone == ["w1"]


async def test_a_stream_that_says_nothing_is_ended() -> None:
    backend = Backend()
    task = asyncio.Task(pulses(backend, 0.01).serve(Wire(), CALL))
    assert await reason_of(task) == "deadline"


async def test_a_flood_of_heartbeats_is_left_with_its_sender() -> None:
    backend, wire = Backend(), Wire()
    loop = asyncio.get_running_loop()
    began = loop.time()
    for _ in range(10_000):
        wire.sent.put_nowait(message())
    task = asyncio.Task(pulses(backend).serve(wire, CALL))
    while len(backend.beats) < BURST + 2:  # noqa: ASYNC110 - it has no event for it
        await asyncio.sleep(0.01)
    assert len(backend.beats) <= BURST + (loop.time() - began) * BEATS_PER_SECOND + 1
    assert wire.sent.qsize() > 9_000
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task


@pytest.mark.parametrize(
    "bad",
    [
        lambda: message(worker_id=""),
        lambda: message(worker_id="../w1"),
        lambda: message(generation=(1 << 62) + 1),
        # No database column would hold them, and leases are written together.
        lambda: message(running=(1 << 32) - 1),
        lambda: message(queued=1 << 31),
        lambda: message(audit=pb.AuditAnchor(public_key=bytes(33))),
        lambda: message(audit=pb.AuditAnchor(signature=bytes(65))),
    ],
)
async def test_a_heartbeat_that_is_not_well_formed_ends_the_stream(
    bad: Callable[[], pb.HeartbeatRequest],
) -> None:
    backend, wire = Backend(), Wire()
    task = await opened(pulses(backend), wire)
    wire.sent.put_nowait(bad())
    with pytest.raises(CallerError):
        await task
    assert len(backend.beats) == 1


async def test_an_order_to_drain_and_its_answer_travel_within_bounds() -> None:
    backend, wire = Backend(), Wire()
    task = await opened(pulses(backend), wire)

    async def answered(**said: Any) -> DrainOrder | None:
        wire.sent.put_nowait(message(**said))
        return order_of(await wire.answers.get())

    backend.order = DrainOrder(seconds=60.0, by="olga", reason="kernel")
    assert await answered(drain=1, drain_seconds=412.0) == backend.order
    backend.order = None
    assert await answered(drain=77, drain_seconds=float("nan")) is None
    assert await answered(drain=2, drain_seconds=1e300) is None
    wire.sent.put_nowait(None)
    await task
    assert [(beat.drain, beat.drain_seconds) for beat in backend.beats] == [
        (DrainState.NONE, 0.0), (DrainState.DRAINING, 412.0), (DrainState.DRAINING, 0.0),
        (DrainState.DRAINED, 86_400.0),
    ]  # fmt: skip


def test_a_scheduler_cannot_make_a_worker_wait_or_write_without_bounds() -> None:
    said = pb.DrainOrder(seconds=float("inf"), by="o" * 999, reason="r\x1b" * 999)
    order = order_of(pb.HeartbeatResponse(drain=said))
    assert order is not None
    assert (order.seconds, len(order.by), order.reason) == (0.0, 64, "r" * 100)
    assert order_of(pb.HeartbeatResponse()) is None


def test_what_a_worker_says_of_its_machine_is_bounded() -> None:
    facts = WorkerFacts(
        version="0.4.0",
        up_seconds=5.0,
        load=1.5,
        store_bytes=7,
        store_limit_bytes=9,
        wait_p95_seconds=0.5,
        waits=3,
    )
    sent = Beat(worker_id="w1", generation=1, running=1, queued=0, facts=facts)
    assert beat_of(beat_message(sent)) == sent
    odd = pb.HeartbeatRequest(
        worker_id="w1",
        generation=1,
        facts=pb.WorkerFacts(
            version="\x1b[2J" + "v" * 10_000, up_seconds=float("nan"), load=float("inf"),
            store_bytes=(1 << 64) - 1, store_limit_bytes=(1 << 64) - 1,
            wait_p95_seconds=float("-inf"),
        ),
    )  # fmt: skip
    said = beat_of(odd).facts
    assert (len(said.version), said.version.isprintable()) == (63, True)
    assert (said.up_seconds, said.load, said.wait_p95_seconds) == (0.0, 0.0, 0.0)
    assert said.store_bytes == said.store_limit_bytes == 1 << 60
    assert beat_of(pb.HeartbeatRequest(worker_id="w1", generation=1)).facts == WorkerFacts()
