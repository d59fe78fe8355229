"""Attack: a worker floods the schedulers with events, invents times, or speaks for another one."""

from __future__ import annotations

from hpcc.ports import SystemClock
from hpcc.rpc.scheduler.recent_events import MAX_EVENTS, SeenEvent
from hpcc.scheduler.audit.worker_events import MAX_HELD, MAX_NAMES, OF_A_NAME, WorkerEvents


class Clock(SystemClock):
    def now(self) -> float:
        return 1000.0


def event(name: str = "guest-lost", at: float = 5.0, **more: str) -> SeenEvent:
    return SeenEvent(name=name, at=at, fields=tuple(more.items()))


def held(events: WorkerEvents, worker_id: str) -> list[SeenEvent]:
    return [e for e in events.shown() if e.worker == worker_id]


def test_a_flood_of_one_worker_hides_neither_its_other_names_nor_another_worker() -> None:
    events = WorkerEvents(Clock())
    events.note("w2", [event()])
    events.note("w1", [event("snapshot-damaged")])
    for number in range(3000):
        events.note("w1", [event("guest-lost", 100.0 + number, n=str(number))])
    shown = events.shown()
    assert len(held(events, "w1")) == OF_A_NAME + 1
    assert len(shown) == OF_A_NAME + 2
    assert {e.name for e in held(events, "w1")} == {"guest-lost", "snapshot-damaged"}
    for number in range(3000):
        events.note("w1", [event(f"invented-{number}")])
    assert len(held(events, "w1")) <= OF_A_NAME * (MAX_NAMES + 1)
    assert held(events, "w2") == [SeenEvent(name="guest-lost", at=5.0, worker="w2")]


def test_an_event_is_of_who_sent_it_and_not_of_later_than_now() -> None:
    events = WorkerEvents(Clock())
    events.note("w1", [SeenEvent(name="x", at=9e9, worker="w2")])
    assert events.shown() == (SeenEvent(name="x", at=1000.0, worker="w1"),)


def test_what_a_new_stream_says_again_is_there_once() -> None:
    events = WorkerEvents(Clock())
    said = [event(at=1.0), event(at=2.0), event(at=9e9)]
    events.note("w1", said)
    events.note("w1", said)
    assert [e.at for e in events.shown()] == [1000.0, 2.0, 1.0]


def test_all_workers_together_have_a_limit_and_who_has_most_loses() -> None:
    events = WorkerEvents(Clock())
    events.note("quiet", [event()])
    workers = [f"w{number}" for number in range(MAX_HELD // OF_A_NAME + 10)]
    for name in workers:
        events.note(name, [event(at=float(at)) for at in range(OF_A_NAME)])
    assert events._count == MAX_HELD == sum(map(len, events._held.values()))
    assert len(events._held["quiet"]) == 1
    assert len(events.shown()) == MAX_EVENTS


def test_workers_without_an_event_left_take_no_room() -> None:
    events = WorkerEvents(Clock())
    for number in range(MAX_HELD + 10):
        events.note(f"w{number}", [event()])
    assert len(events._held) == events._count == MAX_HELD
    assert [len(held) for held in events._held.values()] == [1] * MAX_HELD
    assert f"w{MAX_HELD + 9}" in events._held
