"""Which compiles leave the queue for a full farm and run on this machine."""

from __future__ import annotations

import asyncio
import socket
from dataclasses import replace
from pathlib import Path

import pytest

from hpcc.core import GuestReuse, Isolation, LocalSlots, RemoteFailure, RemoteRequest, RunHere
from hpcc.dispatch import local_slots
from hpcc.dispatch.compile import Dispatcher
from hpcc.dispatch.lanes import LaneQueue
from hpcc.dispatch.local_slots import PATIENCE_SECONDS, Place, RunHereError, Slots, chance, running
from hpcc.dispatch.main import Farms, _Process
from hpcc.dispatch.remote_frames import (
    LENGTH,
    FrameKind,
    decode_frame,
    encode_frame,
    encode_outcome,
    encode_request,
    outcome_of,
    request_of,
)
from hpcc.dispatch.routes import Lane, RouteBook
from hpcc.rpc.scheduler.api import Route
from hpcc_testkit.services.idp_tokens import FixedClock

ROUTE = Route(
    endpoint="h:1", worker_certificate=b"c", token="t", token_expires_at=1e9, generation=1,
    isolation=Isolation.LOCAL_NONE, worker_id="w1", principal="ann", guest_reuse=GuestReuse.TENANT,
    minimum_isolation=Isolation.LOCAL_NONE, slots=1,
)  # fmt: skip


class Machine:
    """A queue for one open worker of one place, and a machine with some idle processors."""

    def __init__(self, processors: int = 4, route: Route = ROUTE) -> None:
        self.clock, self.busy, self.is_asking = FixedClock(), 0, False
        self.book = RouteBook()
        assert self.book.take((route,), self.clock.monotonic())
        self.lane.opened()
        self.queue = LaneQueue(self.clock, lambda: self.is_asking)
        self.slots = Slots(self.clock, busy=lambda: self.busy, processors=processors)

    @property
    def lane(self) -> Lane:
        return self.book.lanes[0]

    def join(self, permitted: LocalSlots = "exact") -> Place:
        return self.queue.join(self.book, chance(self.slots, permitted))

    def fill(self) -> None:
        """Take the worker's place, and the one that waits at the worker."""
        assert [self.queue.join(self.book).done() for _ in range(2)] == [True, True]

    def later(self, seconds: float = PATIENCE_SECONDS) -> None:
        self.clock.time += seconds
        self.queue.overflow(self.book)


def is_here(place: Place) -> bool:
    return place.done() and isinstance(place.result(), RunHere)


async def test_with_a_full_farm_the_last_ones_run_here_while_processors_are_idle() -> None:
    machine = Machine(processors=3)
    machine.fill()
    places = [machine.join() for _ in range(4)]
    machine.later()
    assert [is_here(p) for p in places] == [False, False, True, True], "one processor is left"
    machine.later()
    assert machine.slots.under_way == 2
    given = places[3].result()
    assert isinstance(given, RunHere)
    given.ran()
    given.give_back()
    assert machine.slots.under_way == 1, "the second call does nothing"
    machine.later()
    assert [is_here(p) for p in places] == [False, True, True, True]


async def test_the_only_processor_may_be_used() -> None:
    machine = Machine(processors=1)
    machine.fill()
    places = [machine.join() for _ in range(2)]
    machine.later()
    assert [is_here(p) for p in places] == [False, True]


async def test_nothing_runs_here_while_the_farm_has_a_place_or_will_have_one() -> None:
    machine = Machine()
    first = machine.join()
    assert isinstance(first.result(), Lane)
    machine.lane.is_open, machine.lane.is_opening = False, True
    machine.lane.opening_at = machine.clock.monotonic()
    waiting = machine.join()
    machine.later()
    assert not waiting.done(), "the worker opens"
    machine.lane.opened()
    machine.later()
    assert isinstance(waiting.result(), Lane)


async def test_nothing_runs_here_before_it_has_waited() -> None:
    machine = Machine()
    machine.fill()
    place = machine.join()
    machine.later(PATIENCE_SECONDS / 2)
    assert not place.done()
    machine.later(PATIENCE_SECONDS / 2)
    assert is_here(place)


async def test_a_pending_request_for_routes_is_waited_for_but_not_for_long() -> None:
    machine = Machine()
    machine.fill()
    machine.is_asking = True
    place = machine.join()
    machine.later()
    assert not place.done()
    machine.later(2.0)
    assert is_here(place), "the scheduler hangs"


async def test_nothing_runs_here_while_processors_are_busy() -> None:
    machine = Machine(processors=4)
    machine.fill()
    machine.busy = 3
    places = [machine.join() for _ in range(2)]
    machine.later()
    assert not any(map(is_here, places))
    machine.busy = 2
    machine.later()
    assert [is_here(p) for p in places] == [False, True]


async def test_a_request_without_permission_waits_for_the_farm() -> None:
    machine = Machine()
    machine.fill()
    off, exact, late = machine.join("off"), machine.join(), machine.join("off")
    machine.later()
    assert [is_here(p) for p in (off, exact, late)] == [False, True, False]


@pytest.mark.parametrize("label", [Isolation.PROCESS_RUNC, Isolation.QEMU_TCG])
async def test_a_route_that_demands_isolation_keeps_its_compiles(label: Isolation) -> None:
    machine = Machine(route=replace(ROUTE, minimum_isolation=label))
    machine.fill()
    exact, any_ = machine.join("exact"), machine.join("any")
    machine.later()
    assert [is_here(p) for p in (exact, any_)] == [False, True], "the user's own word counts"


async def test_what_ends_sooner_on_the_farm_is_not_taken() -> None:
    """Here a compile takes ten times as long as at the worker."""
    machine = Machine()
    for _ in range(3):
        given = machine.slots.take()
        machine.clock.time += 10.0
        given.ran()
    machine.fill()
    places = [machine.join() for _ in range(14)]
    for _ in range(4):
        machine.clock.time += 1.0
        machine.queue.ran(1.0)
        machine.queue.leave(machine.book, machine.lane)
    assert sum(isinstance(p.result(), Lane) for p in places if p.done()) == 4
    machine.queue.overflow(machine.book)
    # Ten wait here and one at the worker: the last one would end after twelve seconds.
    assert [is_here(p) for p in places[4:]] == [False] * 8 + [True] * 2


def test_how_long_a_compile_took_here_is_forgotten() -> None:
    clock = FixedClock()
    slots, took = Slots(clock, processors=4), list[float | None]()
    given = slots.take()
    clock.time += 10.0
    given.give_back()
    took.append(slots.took_seconds)
    given = slots.take()
    clock.time += 10.0
    given.ran()
    took.append(slots.took_seconds)
    clock.time += 60.0
    took.append(slots.took_seconds)
    assert took == [None, 10.0, None]


async def test_a_cancelled_compile_leaves_the_queue_and_gives_its_slot_back() -> None:
    machine = Machine()
    machine.fill()
    places = [machine.join() for _ in range(3)]
    waits = [asyncio.Task(machine.queue.wait(machine.book, p)) for p in places]
    await asyncio.sleep(0)
    waits[0].cancel()
    await asyncio.wait(waits[:1])
    machine.later()
    assert [is_here(p) for p in places[1:]] == [True, True]
    assert machine.slots.under_way == 2
    waits[1].cancel()  # it was given the slot, and has not run since
    await asyncio.wait(waits)
    assert [wait.cancelled() for wait in waits] == [True, True, False]
    assert isinstance(waits[2].exception(), RunHereError)
    assert machine.slots.under_way == 1
    assert machine.queue.wanted(machine.book) == 2


async def test_without_a_route_a_compile_that_may_run_here_asks_for_one() -> None:
    machine = Machine()
    machine.fill()
    place = machine.join()
    machine.book.silent()
    machine.queue.wake(machine.book)
    assert await place is None
    machine.later()
    assert machine.slots.under_way == 0


def test_a_machine_that_does_not_tell_its_load_has_no_idle_processor(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    file = tmp_path / "loadavg"
    monkeypatch.setattr(local_slots, "_LOAD", file)
    for text in ("", "0.1 0.2 0.3", "0.1 0.2 0.3 x/9 5"):
        file.write_text(text)
        assert Slots(FixedClock(), processors=64).free < 0, text
    file.unlink()
    assert Slots(FixedClock(), processors=64).free < 0
    file.write_text("0.20 0.18 0.12 3/80 11206\n")
    assert running() == 2, "without the thread that reads"
    assert Slots(FixedClock(), processors=64).free == 61


def request(permitted: LocalSlots) -> RemoteRequest:
    return RemoteRequest(
        argv=("gcc",), env=(), cwd="", inputs=(), outputs=("a.o",), may_run_here=permitted
    )


def test_permission_and_answer_survive_their_frames() -> None:
    for permitted in ("exact", "any", "off"):
        frame = decode_frame(encode_request(7, request(permitted))[LENGTH.size :])
        assert request_of(frame).may_run_here == permitted
    answer = encode_outcome(7, RunHere(lambda _: None))
    frame = decode_frame(answer[LENGTH.size :])
    assert (frame.kind, frame.request_id) == (FrameKind.OUTCOME, 7)
    assert isinstance(outcome_of(frame), RunHere)


def test_a_request_that_says_nothing_permits_nothing() -> None:
    """A daemon that is older than the files of its dispatcher sends such a one."""
    frame = decode_frame(encode_request(7, request("any"))[LENGTH.size :])
    head = {name: value for name, value in frame.head.items() if name != "may_run_here"}
    assert request_of(replace(frame, head=head)).may_run_here == "off"


class Full(Farms):
    def __init__(self) -> None:
        """Belong to no farm."""

    async def current(self) -> None:
        return None


@pytest.mark.parametrize(
    ("kind", "head"),
    [
        (FrameKind.ENDED, {"is_compiled": True}),
        (FrameKind.ENDED, {"is_compiled": False}),
        (FrameKind.ENDED, {}),
        (FrameKind.CANCEL, {}),
    ],
)
async def test_the_daemon_gives_a_slot_back_by_its_request(
    kind: FrameKind, head: dict[str, object], monkeypatch: pytest.MonkeyPatch
) -> None:
    clock = FixedClock()
    slots = Slots(clock, busy=lambda: 0, processors=4)

    async def here(*_args: object) -> RunHere | RemoteFailure:
        return slots.take()

    monkeypatch.setattr("hpcc.dispatch.main.compile_on", here)
    ours, theirs = socket.socketpair()
    ours.setblocking(False)
    reader, writer = await asyncio.open_connection(sock=theirs)
    dispatcher = Dispatcher(clock, timeout_seconds=9.0, version="t", build_id="b", slots=slots)
    process = asyncio.Task(_Process(reader, writer, Full(), dispatcher).run())
    loop = asyncio.get_running_loop()
    for number in (1, 2):
        await loop.sock_sendall(ours, encode_request(number, request("exact")))
        assert await loop.sock_recv(ours, 4096)
    assert slots.under_way == 2
    for number in (9, 1, 1):  # one that is unknown, and one twice
        await loop.sock_sendall(ours, encode_frame(kind, number, head))
    await loop.sock_sendall(ours, encode_request(3, request("exact")))
    assert await loop.sock_recv(ours, 4096)
    assert slots.under_way == 2
    ours.close()
    await process
    dispatcher.close()
    writer.close()
