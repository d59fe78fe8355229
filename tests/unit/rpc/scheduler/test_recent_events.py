"""What schedulers' answers about security events may make of a client: nothing beyond the bounds."""

from __future__ import annotations

from types import SimpleNamespace
from typing import cast

from hpcc._proto import observe_pb2 as pb
from hpcc.core import TenantId
from hpcc.rpc.base.errors import UnavailableError
from hpcc.rpc.scheduler.recent_events import (
    MAX_EVENTS,
    MAX_FIELDS,
    SeenEvent,
    SeenEvents,
    ask_events,
    events_message,
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
    assert await asked(many, wide) == SeenEvents(0.0, (), 2)
    field = pb.EventField(name="a\n", value="\x1b" * 900)
    odd = pb.SeenEvent(name="x\ry", at=float("nan"), fields=[field])
    (event,) = (await asked(pb.EventsResponse(since=1e300, events=[odd]))).events
    assert (event.name, event.at, event.fields[0][0]) == ("x\\ry", 0.0, "a\\n")
    assert event.fields[0][1].isprintable()
