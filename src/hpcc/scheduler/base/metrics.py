"""What a scheduler shows at its admin port. docs/metrics.md is generated from here."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from typing import Final

from hpcc.audit.metered import AuditMetrics
from hpcc.core import HpccError
from hpcc.obs.health.health import Health
from hpcc.obs.metrics.registry import OTHER, Values, Words
from hpcc.obs.metrics.service import ServiceMetrics
from hpcc.ports import Clock
from hpcc.routing.load import Load
from hpcc.routing.pools import PoolLoad
from hpcc.scheduler.base.pools import MAX_POOLS

# Why routes and logins are refused: words of this code and of the checks of tokens.
_MAX_REASONS: Final = 32
_MAX_RESULTS: Final = 512
# The methods of `hpcc.ports.ControlStore`, and the exchange.
_MAX_OPERATIONS: Final = 16
_REPORT_REFUSALS: Final = frozenset({"build", "build-rate", "builds-off"})
_MAX_REPORTS: Final = 256


class SchedulerMetrics:
    """All metrics of a scheduler. Those that are read on demand get their readers in `serve`."""

    def __init__(self, version: str, clock: Clock, health: Health | None = None) -> None:
        self._clock = clock
        self.service = ServiceMetrics(version, health)
        self.audit = AuditMetrics(self.service)
        registry = self._registry = self.service.registry
        self._reasons = Words(_MAX_REASONS)
        self._routes = registry.counter(
            "hpcc_scheduler_routes_total",
            "Requests for routes with a good session, by result: ok, or why there was none.",
            "tenant",
            "result",
            most=_MAX_RESULTS,
        )
        self._route_seconds = registry.histogram(
            "hpcc_scheduler_route_seconds", "How long it took to choose workers and sign tokens."
        ).of()
        self._logins = registry.counter(
            "hpcc_scheduler_logins_total", "Logins that were accepted.", "tenant"
        )
        self._refused = registry.counter(
            "hpcc_scheduler_logins_refused_total", "Logins that were refused.", "reason"
        )
        self.heartbeats = registry.counter(
            "hpcc_scheduler_heartbeats_total", "Heartbeats of workers to this scheduler."
        ).of()
        self.guests_lost = registry.counter(
            "hpcc_scheduler_guests_lost_total",
            "Guests that workers reported to this scheduler as lost.",
        ).of()
        self._workers = registry.asked_gauge(
            "hpcc_scheduler_workers",
            "Workers of the farm: live, draining (it takes no compiles), stale (it has not reported"
            " for too long, and may be gone).",
            "state",
            most=3,
        )
        self._slots = registry.asked_gauge(
            "hpcc_scheduler_slots",
            "Places for compiles at all live workers of the farm: busy, idle (free).",
            "state",
            most=2,
        )
        self._demand = registry.asked_gauge(
            "hpcc_scheduler_demand_slots",
            "Compiles that run or wait at live workers. Every scheduler counts the whole farm: take"
            " the maximum over schedulers, not the sum.",
        )
        self._pool_ready = registry.asked_gauge(
            "hpcc_scheduler_pool_ready_workers",
            "Workers of a pool of the config file that take compiles.",
            "pool",
            most=MAX_POOLS,
        )
        self._pool_wanted = registry.asked_gauge(
            "hpcc_scheduler_pool_recommended_workers",
            "How many workers a pool should have, inside its limits; absent while the scheduler"
            " does not know the farm. Every scheduler counts the whole farm.",
            "pool",
            most=MAX_POOLS,
        )
        self._watches = registry.asked_gauge(
            "hpcc_scheduler_watches", "Daemons that watch routes at this scheduler.", "tenant"
        )
        self._store_up = registry.asked_gauge(
            "hpcc_scheduler_control_store_up",
            "Whether the control store answered the last exchange; without it routes come from"
            " memory.",
        )
        self._store_seconds = registry.histogram(
            "hpcc_scheduler_control_store_seconds",
            "How long calls to the control store took that it answered; exchange is one round of"
            " many of them.",
            "operation",
            most=_MAX_OPERATIONS,
        )
        self._store_failures = registry.counter(
            "hpcc_scheduler_control_store_failures_total",
            "Calls that the control store did not answer.",
            "operation",
            most=_MAX_OPERATIONS,
        )
        self._build_reports = registry.counter(
            "hpcc_scheduler_build_reports_total",
            "Reports of builds by clients, by result: ok, or why they were not kept.",
            "tenant",
            "result",
            most=_MAX_REPORTS,
        )
        self._builds = registry.asked_gauge(
            "hpcc_scheduler_builds", "Reports of builds that this scheduler keeps in memory."
        )
        self._builds_displaced = registry.asked_counter(
            "hpcc_scheduler_builds_displaced_total",
            "Reports of builds that made room for newer ones.",
            "tenant",
        )

    @contextmanager
    def routing(self, tenant: str) -> Iterator[None]:
        """Count a request for a route. `tenant` is that of a good session."""
        started, result = self._clock.monotonic(), "ok"
        try:
            yield
        except HpccError as error:
            result = self._reasons.known(error.reason)
            raise
        finally:
            self._routes.of(self._registry.tenants.known(tenant), result).add()
            self._route_seconds.observe(self._clock.monotonic() - started)

    def routes_by_tenant(self) -> dict[str, dict[str, int]]:
        """Return how many requests for routes had each result, of tenants that have a name here."""
        found: dict[str, dict[str, int]] = {}
        for (tenant, result), number in self._routes.snapshot():
            if tenant != OTHER:
                found.setdefault(tenant, {})[result] = int(number.value)
        return found

    @contextmanager
    def login(self, tenant: str) -> Iterator[None]:
        """Count a login. `tenant` is shown only if the login is accepted."""
        try:
            yield
        except HpccError as error:
            self._refused.of(self._reasons.known(error.reason)).add()
            raise
        self._logins.of(self._registry.tenants.known(tenant)).add()

    @contextmanager
    def build_report(self, tenant: str) -> Iterator[None]:
        """Count a report of a build. `tenant` is that of a good session."""
        result = "ok"
        try:
            yield
        except HpccError as error:
            result = error.reason if error.reason in _REPORT_REFUSALS else OTHER
            raise
        finally:
            self._build_reports.of(self._registry.tenants.known(tenant), result).add()

    def read_builds(
        self, *, kept: Callable[[], int], displaced: Callable[[], Mapping[str, int]]
    ) -> None:
        """Set what is read on demand of builds."""
        known = self._registry.tenants.known
        self._builds.read = lambda: [((), kept())]
        self._builds_displaced.read = lambda: [((known(t),), n) for t, n in displaced().items()]

    def store_call(self, operation: str, seconds: float, is_answered: bool = True) -> None:  # noqa: FBT001, FBT002 - a callback's place
        """Count a call to the control store."""
        if is_answered:
            self._store_seconds.of(operation).observe(seconds)
        else:
            self._store_failures.of(operation).add()

    def read(
        self,
        *,
        load: Callable[[], Load],
        watches: Callable[[], Mapping[str, int]],
        is_store_up: Callable[[], bool],
        pools: Callable[[], Mapping[str, PoolLoad]],
    ) -> None:
        """Set what is read on demand: loads of the farm and its pools, watches, the store."""

        def workers() -> Iterable[tuple[Values, float]]:
            now = load()
            return [
                (("live",), now.live),
                (("draining",), now.draining),
                (("stale",), now.stale),
            ]

        def slots() -> Iterable[tuple[Values, float]]:
            now = load()
            return [(("busy",), now.running), (("idle",), now.idle)]

        known = self._registry.tenants.known
        self._workers.read, self._slots.read = workers, slots
        self._pool_ready.read = lambda: [((n,), p.ready) for n, p in pools().items()]
        self._pool_wanted.read = lambda: [((n,), p.recommended) for n, p in pools().items()]
        self._demand.read = lambda: [((), load().demand)]
        self._watches.read = lambda: [((known(t),), n) for t, n in watches().items()]
        self._store_up.read = lambda: [((), is_store_up())]
