"""Security events that a scheduler noted lately, as it shows them to operators.

An event holds what a caller sent: names, addresses, claims. So each text is bounded, in one line
and without credentials where it is noted, and once more where an answer is read. Events of workers
are claims as a whole: a scheduler has them from the worker that they are of.
"""

from __future__ import annotations

import asyncio
import re
from collections import Counter, defaultdict
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, replace
from itertools import islice, zip_longest
from operator import itemgetter
from typing import Final, Protocol

from hpcc._proto import observe_pb2 as pb
from hpcc.core import HpccError, TenantId
from hpcc.obs.secrets import hide_secrets
from hpcc.obs.text import one_line
from hpcc.ports import SecurityEvent
from hpcc.rpc.base.errors import UnavailableError
from hpcc.rpc.base.method import Call, Method
from hpcc.rpc.scheduler.fact_messages import bounded
from hpcc.rpc.scheduler.schedulers import Schedulers

MAX_EVENTS: Final = 200
MAX_FIELDS: Final = 8
MAX_TEXT_CHARS: Final = 128
MAX_NOTED: Final = 8
"""How many events a heartbeat carries."""
MAX_CLAIM_CHARS: Final = 512
"""How long the texts of an event of a worker are together."""
# A later time is none of a calendar: the year 2242.
_MAX_AT: Final = float(1 << 33)
_NAME: Final = re.compile(r"[a-z0-9][a-z0-9.-]{0,63}")
_UNNAMED: Final = "unnamed"


@dataclass(frozen=True, slots=True, kw_only=True)
class SeenEvent:
    """One event. `tenant` is "" where the caller proved none, `peer` where there was no caller.

    `worker` is the worker that claims it; "" for an event of the scheduler that shows it.
    """

    name: str
    at: float
    tenant: str = ""
    peer: str = ""
    fields: tuple[tuple[str, str], ...] = ()
    worker: str = ""


@dataclass(frozen=True, slots=True)
class SeenEvents:
    """Events, the newest first, and since when all schedulers that showed theirs note them.

    `silent` is how many schedulers showed none. `of_workers` is what workers say of themselves.
    """

    since: float = 0.0
    events: tuple[SeenEvent, ...] = ()
    silent: int = 0
    of_workers: tuple[SeenEvent, ...] = ()


class EventsBackend(Protocol):
    """Shows security events. `credential` is the bearer as sent, unchecked."""

    def events(self, credential: str, tenant: TenantId) -> SeenEvents:
        """Return what is held.

        Raises:
            HpccError: the session does not count, or its holder is not an operator.
        """
        ...


def seen_event(event: SecurityEvent) -> SeenEvent:
    """Return an event as it may be held and shown."""
    return SeenEvent(
        name=_text(event.name),
        at=bounded(event.at, _MAX_AT),
        tenant=_text(event.tenant),
        peer=_text(event.peer),
        fields=tuple((_text(n), _text(v)) for n, v in event.fields[:MAX_FIELDS]),
    )


def noted_messages(events: Iterable[SeenEvent]) -> list[pb.SeenEvent]:
    """Build what a heartbeat carries."""
    return list(map(_message, events))


def noted_of(said: Iterable[pb.SeenEvent]) -> tuple[SeenEvent, ...]:
    """Return the events that a worker tells. What is beyond the bounds is cut.

    The texts of one event are together at most `MAX_CLAIM_CHARS` long.
    """
    return tuple(claimed(_event(one)) for one in islice(said, MAX_NOTED))


def claimed(event: SeenEvent) -> SeenEvent:
    """Return an event as a heartbeat may carry it.

    A worker cuts its own, too: a scheduler refuses a whole heartbeat that is too large, and the
    worker would be lost to it with each new stream.
    """
    room, fields = MAX_CLAIM_CHARS, []
    for name, value in event.fields:
        room -= len(name) + len(value)
        if room < 0:
            break
        fields.append((name, value))
    return SeenEvent(
        name=event.name if _NAME.fullmatch(event.name) else _UNNAMED,
        at=event.at, tenant=event.tenant, peer=event.peer, fields=tuple(fields),
    )  # fmt: skip


def events_method(backend: EventsBackend) -> Method:
    """Build the method of `ObserveService`."""

    async def events(request: pb.EventsRequest, call: Call) -> pb.EventsResponse:
        return events_message(backend.events(call.credential, TenantId(request.tenant)))

    return Method("Events", pb.EventsRequest, pb.EventsResponse, unary=events)


async def ask_events(schedulers: Schedulers, session: str, tenant: TenantId) -> SeenEvents:
    """Return the events of all schedulers: each notes what its callers did."""

    async def ask(scheduler: Schedulers) -> SeenEvents | None:
        try:
            answer = await scheduler.call(
                "ObserveService/Events",
                pb.EventsRequest(tenant=tenant.value),
                pb.EventsResponse,
                session,
            )
            return _events(answer)
        except HpccError:
            return None

    async with asyncio.TaskGroup() as group:
        tasks = [group.create_task(ask(one)) for one in schedulers.each()]
    said = [task.result() for task in tasks]
    found = [one for one in said if one is not None]
    return SeenEvents(
        max((one.since for one in found), default=0.0),
        newest_first(event for one in found for event in one.events),
        len(said) - len(found),
        # A worker that went to another scheduler said its events there, too.
        fair({event: None for one in found for event in one.of_workers}, MAX_EVENTS),
    )


def fair(events: Iterable[SeenEvent], most: int) -> tuple[SeenEvent, ...]:
    """Return at most so many events of workers, the newest first.

    The first one of each worker is chosen before the second one of any: a worker that says much
    hides no other. Of one worker, the newest one of each name comes before the second one of any
    name.
    """
    by_worker: defaultdict[str, list[SeenEvent]] = defaultdict(list)
    for event in newest_first(events):
        by_worker[event.worker].append(event)
    return newest_first(islice(_in_turns(map(_by_rank, by_worker.values())), most))


def _by_rank(newest: Iterable[SeenEvent]) -> list[SeenEvent]:
    """Return the last event of each name, then those before them, and so on."""
    before, ranked = Counter[str](), list[tuple[int, SeenEvent]]()
    for event in newest:
        ranked.append((before[event.name], event))
        before[event.name] += 1
    return [event for _, event in sorted(ranked, key=itemgetter(0))]


def _in_turns(lists: Iterable[list[SeenEvent]]) -> Iterator[SeenEvent]:
    for rank in zip_longest(*lists):
        yield from newest_first(event for event in rank if event is not None)


def newest_first(events: Iterable[SeenEvent]) -> tuple[SeenEvent, ...]:
    """Return events by their time, the newest first."""
    return tuple(sorted(events, key=lambda event: event.at, reverse=True))


def events_message(said: SeenEvents) -> pb.EventsResponse:
    """Build the answer."""
    return pb.EventsResponse(
        since=said.since,
        events=map(_message, said.events),
        worker_events=map(_message, said.of_workers),
    )


def _message(e: SeenEvent) -> pb.SeenEvent:
    return pb.SeenEvent(
        name=e.name, at=e.at, tenant=e.tenant, peer=e.peer, worker=e.worker,
        fields=[pb.EventField(name=n, value=v) for n, v in e.fields],
    )  # fmt: skip


def _events(answer: pb.EventsResponse) -> SeenEvents:
    lists = answer.events, answer.worker_events
    if any(len(one) > MAX_EVENTS or any(len(e.fields) > MAX_FIELDS for e in one) for one in lists):
        raise UnavailableError("a scheduler shows too much at once", reason="bad-status")
    return SeenEvents(
        bounded(answer.since, _MAX_AT),
        tuple(map(_event, answer.events)),
        of_workers=tuple(replace(_event(e), worker=_text(e.worker)) for e in answer.worker_events),
    )


def _event(e: pb.SeenEvent) -> SeenEvent:
    return SeenEvent(
        name=_text(e.name),
        at=bounded(e.at, _MAX_AT),
        tenant=_text(e.tenant),
        peer=_text(e.peer),
        fields=tuple((_text(f.name), _text(f.value)) for f in islice(e.fields, MAX_FIELDS)),
    )


def _text(text: str) -> str:
    # Twice, so that a credential at the limit is whole when it is looked for.
    return one_line(hide_secrets(text[: 2 * MAX_TEXT_CHARS]))[:MAX_TEXT_CHARS]
