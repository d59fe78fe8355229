"""What a scheduler shows of its farm: the values, the handler, the call."""

from __future__ import annotations

import asyncio
import math
from dataclasses import dataclass, replace
from typing import Final, Protocol

import grpc

from hpcc._proto import observe_pb2 as pb
from hpcc.core import CallerError, HpccError, TenantId
from hpcc.routing.load import MAX_SAMPLES, Load, LoadSample
from hpcc.rpc.base.errors import UnavailableError
from hpcc.rpc.base.method import Call, Gate, Method, OnRefusal, service_handler
from hpcc.rpc.scheduler.api import DrainState
from hpcc.rpc.scheduler.builds import BuildBackend, build_methods
from hpcc.rpc.scheduler.drain_messages import seconds_of
from hpcc.rpc.scheduler.fact_messages import MAX_BYTES, bounded
from hpcc.rpc.scheduler.recent_events import EventsBackend, events_method
from hpcc.rpc.scheduler.registration_messages import worker_id_of
from hpcc.rpc.scheduler.schedulers import Schedulers
from hpcc.rpc.scheduler.worker_detail import WorkerDetail, worker_message

# Workers in one answer, and the most that are read of one scheduler.
WORKERS_AT_ONCE: Final = 500
_MAX_WORKERS: Final = 10_000
MAX_TENANTS: Final = 1_024
MAX_ROUTE_COUNTS: Final = 1_024
_MAX_TEXT_CHARS: Final = 300
# A later time is none of a calendar: the year 2242.
_MAX_AT: Final = float(1 << 33)


@dataclass(frozen=True, slots=True)
class RouteCount:
    """How many requests for routes had one result: `ok`, or a word why there was no route."""

    result: str
    count: int


@dataclass(frozen=True, slots=True, kw_only=True)
class TenantStatus:
    """One tenant. `daemons` watch routes at the scheduler that answered.

    `wanted`, `granted` and `principals` are of tenants whose limits count on the whole farm:
    compiles at once of all its people, and how many of them have something to compile. `routes`
    are counted since that scheduler started; empty if it does not count this tenant by name.
    """

    tenant: str
    daemons: int = 0
    wanted: int = 0
    granted: int = 0
    principals: int = 0
    routes: tuple[RouteCount, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class WorkerStatus:
    """One worker, for operators. `is_heard`: it speaks to the scheduler that answered.

    `lost_guests` is of lately. `lease_seconds` are left until it is dropped, unless it reports.
    `drain` is a `DrainState`; what runs may take `drain_seconds`. `drain_by` and `drain_reason` are
    those of an operator's order. `heard_seconds` have passed since its last report here; what
    follows is as in `WorkerFacts`.
    """

    worker_id: str
    endpoint: str
    isolation: str
    is_stale: bool
    is_heard: bool
    capacity: int
    running: int
    queued: int
    images: int
    lost_guests: float
    lease_seconds: float
    drain: str = ""
    drain_seconds: float = 0.0
    drain_by: str = ""
    drain_reason: str = ""
    heard_seconds: float = 0.0
    version: str = ""
    up_seconds: float = 0.0
    load: float = 0.0
    store_bytes: int = 0
    store_limit_bytes: int = 0
    wait_p95_seconds: float = 0.0
    waits: int = 0


@dataclass(frozen=True, slots=True, kw_only=True)
class FarmStatus:
    """The farm as one scheduler knows it.

    `capacity`, `running`, `queued` (compiles at once) and `workers` are empty for a member.
    """

    scheduler_id: str
    version: str
    at: float
    is_operator: bool
    is_store_up: bool
    live: int
    stale: int
    has_room: bool
    tenants: tuple[TenantStatus, ...] = ()
    capacity: int = 0
    running: int = 0
    queued: int = 0
    workers: tuple[WorkerStatus, ...] = ()
    has_more: bool = False
    draining: int = 0


class ObserveBackend(BuildBackend, EventsBackend, Protocol):
    """Shows a farm. `credential` is the bearer as sent, unchecked."""

    def judge(self, credential: str) -> None:
        """Check that a credential is a session of some tenant, before a message is read."""
        ...

    def status(self, credential: str, tenant: TenantId, after_worker: str) -> FarmStatus:
        """Return what the session's holder may see.

        Raises:
            HpccError: the session does not count, or its holder may not ask for this.
        """
        ...

    def history(self, credential: str, tenant: TenantId) -> tuple[LoadSample, ...]:
        """Return the load of the last hour, the oldest sample first.

        Raises:
            HpccError: the session does not count, or its holder is not an operator.
        """
        ...

    def worker(self, credential: str, tenant: TenantId, worker_id: str) -> WorkerDetail:
        """Return one worker.

        Raises:
            NotFoundError: it is not registered.
            HpccError: the session does not count, or its holder is not an operator.
        """
        ...


def observe_handlers(
    backend: ObserveBackend, on_refusal: OnRefusal | None = None
) -> tuple[grpc.GenericRpcHandler, ...]:
    """Build the handler of the service, for the daemons' port."""

    async def judge(call: Call) -> None:
        backend.judge(call.credential)

    async def status(request: pb.StatusRequest, call: Call) -> pb.StatusResponse:
        after = worker_id_of(request.after_worker) if request.after_worker else ""
        return _message(backend.status(call.credential, TenantId(request.tenant), after))

    async def history(request: pb.HistoryRequest, call: Call) -> pb.HistoryResponse:
        return _samples_message(backend.history(call.credential, TenantId(request.tenant)))

    async def worker(request: pb.WorkerRequest, call: Call) -> pb.WorkerResponse:
        worker_id, tenant = worker_id_of(request.worker_id), TenantId(request.tenant)
        return worker_message(backend.worker(call.credential, tenant, worker_id))

    methods = (
        Method("Status", pb.StatusRequest, pb.StatusResponse, unary=status),
        Method("History", pb.HistoryRequest, pb.HistoryResponse, unary=history),
        Method("Worker", pb.WorkerRequest, pb.WorkerResponse, unary=worker),
        events_method(backend),
        *build_methods(backend),
    )
    return (service_handler("hpcc.v1.ObserveService", methods, Gate(judge), on_refusal),)


async def ask_all(
    schedulers: Schedulers, session: str, tenant: TenantId
) -> list[FarmStatus | HpccError]:
    """Ask every scheduler of a farm; return what each answered or why not, in their order.

    All of them are asked, because each knows its own daemons only, and to see which are there.
    """

    async def ask(scheduler: Schedulers) -> FarmStatus | HpccError:
        try:
            return await _whole(scheduler, session, tenant)
        except HpccError as error:
            return error

    async with asyncio.TaskGroup() as group:
        tasks = [group.create_task(ask(one)) for one in schedulers.each()]
    return [task.result() for task in tasks]


async def ask_history(
    schedulers: Schedulers, session: str, tenant: TenantId
) -> tuple[LoadSample, ...]:
    """Return the load of the last hour from the scheduler that has run for the longest time.

    Each counts the whole farm. It is empty where none shows it.
    """

    async def ask(scheduler: Schedulers) -> tuple[LoadSample, ...]:
        try:
            answer = await scheduler.call(
                "ObserveService/History",
                pb.HistoryRequest(tenant=tenant.value),
                pb.HistoryResponse,
                session,
            )
        except HpccError:
            return ()
        return _samples(answer)

    async with asyncio.TaskGroup() as group:
        tasks = [group.create_task(ask(one)) for one in schedulers.each()]
    return max((task.result() for task in tasks), key=len)


def _samples(answer: pb.HistoryResponse) -> tuple[LoadSample, ...]:
    """Return samples in the order of their time; none if there are too many."""
    if len(answer.samples) > MAX_SAMPLES:
        return ()
    found = (
        LoadSample(
            min(max(_finite(s.at), 0.0), _MAX_AT),
            Load(
                live=s.live, stale=s.stale, draining=s.draining, capacity=s.capacity,
                running=min(s.running, s.capacity), queued=s.queued,
            ),
        )
        for s in answer.samples
    )  # fmt: skip
    return tuple(sorted(found, key=lambda sample: sample.at))


def _samples_message(samples: tuple[LoadSample, ...]) -> pb.HistoryResponse:
    return pb.HistoryResponse(
        samples=[
            pb.LoadSample(
                at=s.at, live=s.load.live, stale=s.load.stale, draining=s.load.draining,
                capacity=s.load.capacity, running=s.load.running, queued=s.load.queued,
            )
            for s in samples
        ]
    )  # fmt: skip


async def _whole(scheduler: Schedulers, session: str, tenant: TenantId) -> FarmStatus:
    first = await _page(scheduler, session, tenant, "")
    workers, page = list(first.workers), first
    while page.has_more and page.workers and len(workers) < _MAX_WORKERS:
        after = page.workers[-1].worker_id
        page = await _page(scheduler, session, tenant, after)
        if not page.workers or page.workers[0].worker_id <= after:
            raise UnavailableError("a scheduler repeats workers", reason="bad-status")
        workers += page.workers
    return replace(first, workers=tuple(workers), has_more=False)


async def _page(scheduler: Schedulers, session: str, tenant: TenantId, after: str) -> FarmStatus:
    answer = await scheduler.call(
        "ObserveService/Status",
        pb.StatusRequest(tenant=tenant.value, after_worker=after),
        pb.StatusResponse,
        session,
    )
    routes = sum(len(t.routes) for t in answer.tenants)
    if (
        len(answer.workers) > WORKERS_AT_ONCE
        or len(answer.tenants) > MAX_TENANTS
        or routes > MAX_ROUTE_COUNTS
    ):
        raise UnavailableError("a scheduler shows too much at once", reason="bad-status")
    try:
        workers = tuple(_worker(w) for w in answer.workers)
    except CallerError as error:
        raise UnavailableError(f"a scheduler's status: {error}", reason="bad-status") from error
    return FarmStatus(
        scheduler_id=_text(answer.scheduler_id),
        version=_text(answer.version),
        at=bounded(answer.at, _MAX_AT),
        is_operator=answer.is_operator,
        is_store_up=answer.is_store_up,
        live=answer.live,
        stale=answer.stale,
        has_room=answer.has_room,
        tenants=tuple(map(_tenant, answer.tenants)),
        capacity=answer.capacity,
        running=answer.running,
        queued=answer.queued,
        workers=workers,
        has_more=answer.has_more,
        draining=answer.draining,
    )  # fmt: skip


def _tenant(said: pb.TenantStatus) -> TenantStatus:
    return TenantStatus(
        tenant=_text(said.tenant),
        daemons=said.daemons,
        wanted=said.wanted,
        granted=said.granted,
        principals=said.principals,
        routes=tuple(RouteCount(_text(r.result), r.count) for r in said.routes),
    )


def _worker(said: pb.WorkerStatus) -> WorkerStatus:
    return WorkerStatus(
        worker_id=worker_id_of(said.worker_id),
        endpoint=_text(said.endpoint),
        isolation=_text(said.isolation),
        is_stale=said.is_stale,
        is_heard=said.is_heard,
        capacity=said.capacity,
        running=said.running,
        queued=said.queued,
        images=said.images,
        lost_guests=_finite(said.lost_guests),
        lease_seconds=_finite(said.lease_seconds),
        drain=_drain(said.drain),
        drain_seconds=seconds_of(said.drain_seconds),
        drain_by=_text(said.drain_by),
        drain_reason=_text(said.drain_reason),
        heard_seconds=bounded(said.heard_seconds),
        version=_text(said.version),
        up_seconds=bounded(said.up_seconds),
        load=bounded(said.load),
        store_bytes=min(said.store_bytes, MAX_BYTES),
        store_limit_bytes=min(said.store_limit_bytes, MAX_BYTES),
        wait_p95_seconds=bounded(said.wait_p95_seconds),
        waits=said.waits,
    )


def _drain(text: str) -> str:
    """Return a known state. A word of a later version is a worker that takes no compiles."""
    return text if text in set(DrainState) else DrainState.DRAINING.value


def _message(status: FarmStatus) -> pb.StatusResponse:
    return pb.StatusResponse(
        scheduler_id=status.scheduler_id,
        version=status.version,
        at=status.at,
        is_operator=status.is_operator,
        is_store_up=status.is_store_up,
        live=status.live,
        stale=status.stale,
        has_room=status.has_room,
        tenants=[
            pb.TenantStatus(
                tenant=t.tenant, daemons=t.daemons, wanted=t.wanted, granted=t.granted,
                principals=t.principals,
                routes=[pb.RouteCount(result=r.result, count=r.count) for r in t.routes],
            )
            for t in status.tenants
        ],
        capacity=status.capacity,
        running=status.running,
        queued=status.queued,
        workers=[
            pb.WorkerStatus(
                worker_id=w.worker_id, endpoint=w.endpoint, isolation=w.isolation,
                is_stale=w.is_stale, is_heard=w.is_heard, capacity=w.capacity, running=w.running,
                queued=w.queued, images=w.images, lost_guests=w.lost_guests,
                lease_seconds=w.lease_seconds, drain=w.drain, drain_seconds=w.drain_seconds,
                drain_by=w.drain_by, drain_reason=w.drain_reason,
                heard_seconds=w.heard_seconds, version=w.version, up_seconds=w.up_seconds,
                load=w.load, store_bytes=w.store_bytes, store_limit_bytes=w.store_limit_bytes,
                wait_p95_seconds=w.wait_p95_seconds, waits=w.waits,
            )
            for w in status.workers
        ],
        has_more=status.has_more,
        draining=status.draining,
    )  # fmt: skip


def _finite(value: float) -> float:
    """Return a number that JSON has; what is not a number becomes 0."""
    return value if math.isfinite(value) else 0.0


def _text(text: str) -> str:
    return "".join(c for c in text[:_MAX_TEXT_CHARS] if c.isprintable())
