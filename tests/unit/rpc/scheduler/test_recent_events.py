"""What schedulers' answers about security events may make of a client: nothing beyond the bounds."""

from __future__ import annotations

from types import SimpleNamespace
from typing import cast

from hpcc._proto import observe_pb2 as pb
from hpcc.core import TenantId
from hpcc.rpc.base.errors import UnavailableError
from hpcc.rpc.scheduler.recent_events import (
    MAX_CLAIM_CHARS,
    MAX_EVENTS,
    MAX_FIELDS,
    MAX_NOTED,
    SeenEvent,
    SeenEvents,
    ask_events,
    events_message,
    fair,
    noted_messages,
    noted_of,
)
from hpcc.rpc.scheduler.schedulers import Schedulers


async def asked(*answers: pb.EventsResponse | None) -> SeenEvents:
    """Ask schedulers that answer this; None is one that does not."""

    def scheduler(answer: pb.EventsResponse | None) -> SimpleNamespace:
        async def call(*_: object) -> pb.EventsResponse:
            if answer is None:
                raise UnavailableError("away")
            return answer

        return SimpleNamespace(call=call)

    each = tuple(map(scheduler, answers))
    schedulers = cast("Schedulers", SimpleNamespace(each=lambda: each))
    return await ask_events(schedulers, "session", TenantId("acme"))


async def test_events_of_all_schedulers_are_one_list_and_those_that_show_none_are_counted() -> None:
    old, new = SeenEvent(name="old", at=1.0), SeenEvent(name="new", at=9.0, fields=(("a", "b"),))
    late = SeenEvent(name="late", at=5.0, tenant="acme", peer="ipv4:10.0.0.7:1")
    first = events_message(SeenEvents(100.0, (new, old)))
    second = events_message(SeenEvents(200.0, (late,)))
    assert await asked(first, None, second) == SeenEvents(200.0, (new, late, old), 1)
    assert await asked(None) == SeenEvents(0.0, (), 1)


async def test_a_scheduler_of_more_than_its_bounds_shows_none_and_odd_texts_are_one_line() -> None:
    many = pb.EventsResponse(events=[pb.SeenEvent()] * (MAX_EVENTS + 1))
    wide = pb.EventsResponse(events=[pb.SeenEvent(fields=[pb.EventField()] * (MAX_FIELDS + 1))])
    of_workers = pb.EventsResponse(worker_events=[pb.SeenEvent()] * (MAX_EVENTS + 1))
    assert await asked(many, wide, of_workers) == SeenEvents(0.0, (), 3)
    field = pb.EventField(name="a\n", value="\x1b" * 900)
    odd = pb.SeenEvent(name="x\ry", at=float("nan"), fields=[field])
    (event,) = (await asked(pb.EventsResponse(since=1e300, events=[odd]))).events
    assert (event.name, event.at, event.fields[0][0]) == ("x\\ry", 0.0, "a\\n")
    assert event.fields[0][1].isprintable()


async def test_what_a_worker_told_two_schedulers_is_there_once() -> None:
    lost = SeenEvent(name="guest-lost", at=3.0, worker="w1", fields=(("guest", "g"),))
    damaged = SeenEvent(name="snapshot-damaged", at=4.0, worker="w2")
    first = events_message(SeenEvents(1.0, of_workers=(lost,)))
    second = events_message(SeenEvents(1.0, of_workers=(damaged, lost)))
    assert await asked(first, second) == SeenEvents(1.0, of_workers=(damaged, lost))


def test_a_worker_that_says_much_hides_no_other_in_a_short_list() -> None:
    flood = [SeenEvent(name="x", at=1000.0 + n, worker="w1") for n in range(300)]
    quiet = [SeenEvent(name="x", at=float(n), worker=f"q{n}") for n in range(5)]
    shown = fair((*flood, *quiet), 8)
    assert {e.worker for e in shown} == {"w1", "q0", "q1", "q2", "q3", "q4"}
    assert [e.at for e in shown] == sorted((e.at for e in shown), reverse=True)
    # More workers than room: those that said something last.
    assert {e.worker for e in fair((*flood, *quiet), 2)} == {"w1", "q4"}


async def test_a_workers_newest_event_is_the_first_and_no_name_hides_another() -> None:
    start, lost = (SeenEvent(name=n, at=t, worker="w1") for n, t in (("start", 1.0), ("lost", 9.0)))
    assert fair((start, lost), 1) == (lost,)
    flood = [SeenEvent(name="lost", at=10.0 + n, worker="w1") for n in range(4)]
    assert fair((start, *flood), 2) == (flood[-1], start)
    # It went from the first scheduler to the second one.
    others = [SeenEvent(name="x", at=5.0, worker=f"w{n}") for n in range(2, MAX_EVENTS + 1)]
    first, second = (SeenEvents(1.0, of_workers=one) for one in ((start,), (lost, *others)))
    seen = await asked(events_message(first), events_message(second))
    assert lost in seen.of_workers
    assert len(seen.of_workers) == MAX_EVENTS


def test_a_heartbeats_events_are_cut_to_their_bounds_and_claim_no_worker() -> None:
    field = pb.EventField(name="n" * 900, value="v\n" * 900)
    long = pb.SeenEvent(name="guest-lost", worker="w9", fields=[field] * 90)
    found = noted_of([long] * 90)
    assert len(found) == MAX_NOTED
    assert all(e.worker == "" and e.name == "guest-lost" for e in found)
    assert sum(len(n) + len(v) for n, v in found[0].fields) <= MAX_CLAIM_CHARS
    (odd,) = noted_of([pb.SeenEvent(name="Nothing is wrong with w1.", at=float("inf"))])
    assert (odd.name, odd.at) == ("unnamed", 0.0)
    fine = SeenEvent(name="guest-lost", at=5.0, tenant="acme", fields=(("cause", "x"),))
    assert noted_of(noted_messages([fine])) == (fine,)
