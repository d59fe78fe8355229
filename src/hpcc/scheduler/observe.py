"""What a session's holder may see of the farm, from memory.

A member of a tenant gets its own tenant and whether the farm has room; an operator gets everything.
Who is an operator is in the scheduler's config file, by tenant and principal, which a login has
proved. In a farm of `hpcc up` everybody has the one tenant's secret and is an operator of it.

What must never happen: a member learns of another tenant that it exists, what it runs, or which
worker it uses. So what a member gets is made without the part for operators, not cut from it.
"""

from __future__ import annotations

import bisect
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from typing import Final

from hpcc import __version__
from hpcc.core import NotFoundError, PolicyError
from hpcc.identity.session_token import SessionClaims
from hpcc.ports import Clock, LeasedShare
from hpcc.routing.load import SAMPLE_SECONDS, Load, LoadHistory, LoadSample
from hpcc.rpc.scheduler.api import NO_FACTS
from hpcc.rpc.scheduler.observe import (
    MAX_TENANTS,
    WORKERS_AT_ONCE,
    FarmStatus,
    RouteCount,
    TenantStatus,
    WorkerStatus,
)
from hpcc.rpc.scheduler.recent_events import SeenEvents
from hpcc.rpc.scheduler.worker_detail import (
    MAX_COMPILERS,
    MAX_IMAGES,
    MAX_PLACES,
    TenantPlaces,
    WorkerDetail,
    WorkerImage,
)
from hpcc.scheduler.base.config import SchedulerConfig
from hpcc.scheduler.drains import DrainMark
from hpcc.scheduler.registry import WorkerRegistry
from hpcc.scheduler.registry_row import Row

# Members may ask as often as they like; all workers are counted at most so often, and operators who
# look at the same time get one page. To make a page takes as long as a dozen routes.
_COUNT_SECONDS: Final = 1.0
# More than there are in the largest farm. Further ones are made for each who asks.
_MAX_PAGES: Final = 64
_MAX_UINT32: Final = (1 << 32) - 1


@dataclass(frozen=True, slots=True, kw_only=True)
class Sources:
    """Where the figures come from: watches by tenant, leased places, the control store.

    `routes` are requests for routes by tenant and result. `drain_mark` returns an operator's mark
    on a worker. `events` are the last security events.
    """

    watches: Callable[[], Mapping[str, int]]
    shares: Callable[[], list[LeasedShare]]
    is_store_up: Callable[[], bool]
    scheduler_id: Callable[[], str]
    drain_mark: Callable[[str], DrainMark | None]
    routes: Callable[[], Mapping[str, Mapping[str, int]]]
    events: Callable[[], SeenEvents] = SeenEvents


class Observer:
    """Answers `Status` and `History`."""

    def __init__(
        self, config: SchedulerConfig, registry: WorkerRegistry, sources: Sources, clock: Clock
    ) -> None:
        self._registry, self._sources, self._clock = registry, sources, clock
        self._operators = frozenset(config.operators)
        # Its members share one secret, so a name proves nothing, and there is nobody else.
        self._is_one_tenant = not config.tenants
        self._load, self._counted_at = Load(), float("-inf")
        # Live workers by id, and the pages of them that were asked for, by the id before each.
        self._rows: list[Row] = []
        self._pages: dict[str, tuple[WorkerStatus, ...]] = {}
        self._listed_at = float("-inf")
        self._history = LoadHistory()

    def is_operator(self, tenant: str, principal: str) -> bool:
        """Return whether somebody who is logged in operates the farm."""
        return self._is_one_tenant or f"{tenant}/{principal}" in self._operators

    def status(self, session: SessionClaims, after_worker: str) -> FarmStatus:
        """Return what the session's holder may see.

        Raises:
            PolicyError: `after_worker` is for operators.
        """
        is_operator = self.is_operator(session.tenant, session.principal)
        if after_worker:
            self._check_operator(session, "workers")
        load = self.counted()
        common = FarmStatus(
            scheduler_id=self._sources.scheduler_id(),
            version=__version__,
            at=self._clock.now(),
            is_operator=is_operator,
            is_store_up=self._sources.is_store_up(),
            live=load.live,
            stale=load.stale,
            draining=load.draining,
            has_room=load.idle > 0,
            tenants=self._tenants(None if is_operator else session.tenant),
        )
        if not is_operator:
            return common
        workers = self._page(after_worker)
        return replace(
            common,
            capacity=load.capacity,
            running=load.running,
            queued=min(load.queued, _MAX_UINT32),
            workers=workers,
            has_more=bool(workers) and workers[-1].worker_id != _id_of(self._rows[-1]),
        )

    def _page(self, after_worker: str) -> tuple[WorkerStatus, ...]:
        """Return the workers behind an id, as they were at most a second ago."""
        now = self._clock.monotonic()
        if now - self._listed_at >= _COUNT_SECONDS:
            self._rows, self._listed_at = sorted(self._registry.live(), key=_id_of), now
            self._pages.clear()
        page = self._pages.get(after_worker)
        if page is None:
            start = bisect.bisect_right(self._rows, after_worker, key=_id_of)
            page = tuple(map(self._worker, self._rows[start : start + WORKERS_AT_ONCE]))
            if len(self._pages) < _MAX_PAGES:
                self._pages[after_worker] = page
        return page

    def history(self, session: SessionClaims) -> tuple[LoadSample, ...]:
        """Return the load of the last hour.

        Raises:
            PolicyError: the session's holder is not an operator.
        """
        self._check_operator(session, "how busy workers were")
        return self._history.samples

    def events(self, session: SessionClaims) -> SeenEvents:
        """Return the last security events.

        Raises:
            PolicyError: the session's holder is not an operator.
        """
        self._check_operator(session, "security events")
        return self._sources.events()

    def worker(self, session: SessionClaims, worker_id: str) -> WorkerDetail:
        """Return the images of a worker, and which tenants have places there.

        Raises:
            PolicyError: the session's holder is not an operator.
            NotFoundError: no worker of this id is registered.
        """
        self._check_operator(session, "workers")
        row = self._registry.row_or_none(worker_id)
        if row is None:
            raise NotFoundError("no worker of this id is registered", reason="unknown-worker")
        known = {t.image: t.compilers for t in row.registration.toolchains}
        images = sorted(row.member.images, key=lambda image: image.value)[:MAX_IMAGES]
        return WorkerDetail(
            images=tuple(
                WorkerImage(
                    image.value,
                    tuple(f"{c.names[0]} {c.version}" for c in known.get(image, ()))[
                        :MAX_COMPILERS
                    ],
                )
                for image in images
            ),
            places=self._places(worker_id),
        )

    def _places(self, worker_id: str) -> tuple[TenantPlaces, ...]:
        """Return the places that a worker leases, without the names of people."""
        found: dict[str, TenantPlaces] = {}
        for share in self._sources.shares():
            if share.worker_id == worker_id:
                none = TenantPlaces(tenant=share.tenant, wanted=0, granted=0, held=0, principals=0)
                known = found.get(share.tenant, none)
                found[share.tenant] = TenantPlaces(
                    tenant=share.tenant,
                    wanted=known.wanted + share.wanted,
                    granted=known.granted + share.granted,
                    held=known.held + share.held,
                    principals=known.principals + 1,
                )
        return tuple(found[name] for name in sorted(found)[:MAX_PLACES])

    def _check_operator(self, session: SessionClaims, what: str) -> None:
        if not self.is_operator(session.tenant, session.principal):
            raise PolicyError(f"only operators see {what}", reason="not-operator")

    async def run(self) -> None:
        """Note the load from time to time, until cancelled."""
        while True:
            load = self.counted()
            self._history.add(
                self._clock.now(), replace(load, queued=min(load.queued, _MAX_UINT32))
            )
            await self._clock.sleep(SAMPLE_SECONDS)

    def counted(self) -> Load:
        """Return the load of all workers, which is at most a second old."""
        now = self._clock.monotonic()
        if now - self._counted_at >= _COUNT_SECONDS:
            self._load = Load.of(row.member for row in self._registry.live())
            self._counted_at = now
        return self._load

    def _tenants(self, only: str | None) -> tuple[TenantStatus, ...]:
        """Return the tenants that have something to show; `only` is the one that a member sees."""
        found = {only: TenantStatus(tenant=only)} if only is not None else {}
        for tenant, daemons in self._sources.watches().items():
            if only in {None, tenant}:
                known = found.get(tenant, TenantStatus(tenant=tenant))
                found[tenant] = replace(known, daemons=daemons)
        for tenant, results in self._sources.routes().items():
            if only in {None, tenant}:
                known = found.get(tenant, TenantStatus(tenant=tenant))
                counts = tuple(RouteCount(*counted) for counted in sorted(results.items()))
                found[tenant] = replace(known, routes=counts)
        people = set[tuple[str, str]]()
        for share in self._sources.shares():
            if only in {None, share.tenant}:
                known = found.get(share.tenant, TenantStatus(tenant=share.tenant))
                person = (share.tenant, share.principal)
                found[share.tenant] = replace(
                    known,
                    wanted=known.wanted + share.wanted,
                    granted=known.granted + share.granted,
                    principals=known.principals + (person not in people),
                )
                people.add(person)
        names = sorted(found)[:MAX_TENANTS]
        return tuple(found[name] for name in names)

    def _worker(self, row: Row) -> WorkerStatus:
        member, registration = row.member, row.registration
        mark = self._sources.drain_mark(member.worker_id)
        is_heard = self._registry.speaks_here(member.worker_id)
        heard_seconds = self._clock.monotonic() - row.heard_at if is_heard else 0.0
        # Another scheduler has later ones.
        facts = row.facts if is_heard else NO_FACTS
        return WorkerStatus(
            worker_id=member.worker_id,
            endpoint=registration.endpoint,
            isolation=registration.isolation.value,
            is_stale=member.is_stale,
            is_heard=is_heard,
            capacity=member.capacity,
            running=member.running,
            queued=member.queued,
            images=len(member.images),
            lost_guests=round(member.losses, 2),
            # A worker that was listed up to a second ago may have lost its lease since.
            lease_seconds=max(round(member.lease_until - self._clock.monotonic(), 1), 0.0),
            drain=row.drain_state.value,
            drain_seconds=round(row.drain_seconds, 1) if row.drain_state else 0.0,
            drain_by=mark.by if mark is not None else "",
            drain_reason=mark.reason if mark is not None else "",
            # 0 is a worker that is not heard here.
            heard_seconds=max(round(heard_seconds, 1), 0.1) if is_heard else 0.0,
            version=facts.version,
            up_seconds=round(facts.up_seconds, 1),
            load=round(facts.load, 2),
            store_bytes=facts.store_bytes,
            store_limit_bytes=facts.store_limit_bytes,
            wait_p95_seconds=round(facts.wait_p95_seconds, 3),
            waits=facts.waits,
        )


def _id_of(row: Row) -> str:
    return row.member.worker_id
