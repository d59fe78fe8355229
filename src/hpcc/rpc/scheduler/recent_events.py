"""Security events that a scheduler noted lately, as it shows them to operators.

An event holds what a caller sent: names, addresses, claims. So each text is bounded, in one line
and without credentials where it is noted, and once more where an answer is read.
"""

from __future__ import annotations

import asyncio
from collections.abc import Iterable
from dataclasses import dataclass
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
# A later time is none of a calendar: the year 2242.
_MAX_AT: Final = float(1 << 33)


@dataclass(frozen=True, slots=True, kw_only=True)
class SeenEvent:
    """One event. `tenant` is "" where the caller proved none, `peer` where there was no caller."""

    name: str
    at: float
    tenant: str = ""
    peer: str = ""
    fields: tuple[tuple[str, str], ...] = ()


@dataclass(frozen=True, slots=True)
class SeenEvents:
    """Events, the newest first, and since when all schedulers that showed theirs note them.

    `silent` is how many schedulers showed none.
    """

    since: float = 0.0
    events: tuple[SeenEvent, ...] = ()
    silent: int = 0


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
    )


def newest_first(events: Iterable[SeenEvent]) -> tuple[SeenEvent, ...]:
    """Return events by their time, the newest first."""
    return tuple(sorted(events, key=lambda event: event.at, reverse=True))


def events_message(said: SeenEvents) -> pb.EventsResponse:
    """Build the answer."""
    return pb.EventsResponse(
        since=said.since,
        events=[
            pb.SeenEvent(
                name=e.name, at=e.at, tenant=e.tenant, peer=e.peer,
                fields=[pb.EventField(name=n, value=v) for n, v in e.fields],
            )
            for e in said.events
        ],
    )  # fmt: skip


def _events(answer: pb.EventsResponse) -> SeenEvents:
    if len(answer.events) > MAX_EVENTS or any(len(e.fields) > MAX_FIELDS for e in answer.events):
        raise UnavailableError("a scheduler shows too much at once", reason="bad-status")
    return SeenEvents(
        bounded(answer.since, _MAX_AT),
        tuple(
            SeenEvent(
                name=_text(e.name),
                at=bounded(e.at, _MAX_AT),
                tenant=_text(e.tenant),
                peer=_text(e.peer),
                fields=tuple((_text(f.name), _text(f.value)) for f in e.fields),
            )
            for e in answer.events
        ),
    )


def _text(text: str) -> str:
    # Twice, so that a credential at the limit is whole when it is looked for.
    return one_line(hide_secrets(text[: 2 * MAX_TEXT_CHARS]))[:MAX_TEXT_CHARS]
