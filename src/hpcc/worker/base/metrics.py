"""What a worker shows at its admin port. docs/metrics.md is generated from here."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from typing import Final

from hpcc.audit.metered import AuditMetrics
from hpcc.obs.health.health import Health
from hpcc.obs.metrics.registry import OTHER, Reader, Values, Words
from hpcc.obs.metrics.service import ServiceMetrics
from hpcc.ports import AuditRow

# What a row's status is called here. A question for `hpcc explain` does not count.
_OUTCOMES: Final = {
    "executed": "executed", "hit": "cached", "joined": "joined", "abandoned": "lost",
    "verify": "verified", "pack": "packed",
}  # fmt: skip
_NO_COMPILE: Final = "explain"
# Why compiles were lost: `core` has about as many reasons that end in a guest.
_MAX_REASONS: Final = 32
# Tenants times outcomes, and lost compiles times reasons.
_MAX_OUTCOMES: Final = 512
_STORE_CALLS: Final = ("get", "put", "has")
_CALLS: Final = len(_STORE_CALLS)
_MILLISECOND: Final = 0.001


class WorkerMetrics:
    """All metrics of a worker. Those that are read on demand get their readers in `serve`."""

    def __init__(self, version: str, health: Health | None = None) -> None:
        self.service = ServiceMetrics(version, health)
        self.audit = AuditMetrics(self.service)
        registry = self._registry = self.service.registry
        self._reasons = Words(_MAX_REASONS)
        self._compiles = registry.counter(
            "hpcc_worker_compiles_total",
            "Compiles by how they ended, one for each audit row: executed, cached (found in the"
            " action cache), joined (another call's execution), lost (began in a guest and gave no"
            " result; reason says why), verified (made again while idle), packed (of a build pack,"
            " as its client reported).",
            "tenant",
            "outcome",
            "reason",
            most=_MAX_OUTCOMES,
        )
        self._seconds = registry.histogram(
            "hpcc_worker_compile_seconds",
            "How long executions took in their guest.",
            "tenant",
        )
        self._waits = registry.histogram(
            "hpcc_worker_queue_wait_seconds",
            "How long executions waited for a guest, from the request on.",
            "tenant",
        )
        self.guests_lost = registry.counter(
            "hpcc_worker_guests_lost_total", "Guests that died or were ended as unsafe."
        ).of()
        self.slots = registry.asked_gauge(
            "hpcc_worker_slots", "Places for compiles: busy, idle (free).", "state", most=2
        )
        self.queue = registry.asked_gauge(
            "hpcc_worker_queue_length", "Compiles that wait for a guest.", "tenant"
        )
        self.guests = registry.asked_gauge(
            "hpcc_worker_guests",
            "Guests that take memory: booting, idle, busy, ending.",
            "state",
            most=4,
        )
        self.guest_starts = registry.asked_counter(
            "hpcc_worker_guest_starts_total",
            "Guests that were started: ahead (a build had announced compiles), demand.",
            "kind",
            most=2,
        )
        self.guests_parked = registry.asked_counter(
            "hpcc_worker_guests_parked_total", "Idle guests that were ended to free their memory."
        )
        self.draining = registry.asked_gauge(
            "hpcc_worker_draining", "1 while the worker ends and takes no compiles."
        )
        self.connected = registry.asked_gauge(
            "hpcc_worker_scheduler_up", "Whether the worker's stream to a scheduler is open."
        )
        self._stores = {
            "calls": registry.asked_counter(
                "hpcc_store_calls_total",
                "Calls to the shared store that were begun, of all tenants: get, put, has.",
                "operation",
                most=_CALLS,
            ),
            "absent": registry.asked_counter(
                "hpcc_store_absent_total",
                "Calls that found no object.",
                "operation",
                most=_CALLS,
            ),
            "failed": registry.asked_counter(
                "hpcc_store_failures_total", "Calls that failed.", "operation", most=_CALLS
            ),
            "ms": registry.asked_counter(
                "hpcc_store_call_seconds_total",
                "How long calls took together.",
                "operation",
                most=_CALLS,
            ),
            "bytes": registry.asked_counter(
                "hpcc_store_transferred_bytes_total",
                "Bytes to (put) and from (get) the shared store, as stored.",
                "operation",
                most=_CALLS,
            ),
        }

    def row(self, row: AuditRow) -> None:
        """Count a compile from its audit row, so that both always agree."""
        if row.cache_status == _NO_COMPILE:
            return
        outcome = _OUTCOMES.get(row.cache_status, OTHER)
        tenant = self._registry.tenants.known(row.tenant)
        reason = self._reasons.known(row.reason) if outcome == "lost" else ""
        self._compiles.of(tenant, outcome, reason).add()
        if outcome == "executed":
            self._seconds.of(tenant).observe(row.duration_seconds)

    def waited(self, tenant: str, seconds: float) -> None:
        """Count the time from a request to its guest."""
        self._waits.of(self._registry.tenants.known(tenant)).observe(seconds)

    def by_tenant(self, counts: Mapping[str, int]) -> Iterable[tuple[Values, float]]:
        """Return counts with the tenants that have names here; the others are one."""
        return [((self._registry.tenants.known(t),), float(n)) for t, n in counts.items()]

    def read_stores(self, counters: Callable[[], Iterable[Mapping[str, int]]]) -> None:
        """Show the counters of the tenants' shared stores (`hpcc.store.metered`), added up."""

        def reader(what: str) -> Reader:
            return lambda: _store_values(counters(), what)

        for what, asked in self._stores.items():
            asked.read = reader(what)


def _store_values(
    counters: Iterable[Mapping[str, int]], what: str
) -> Iterable[tuple[Values, float]]:
    """Yield the counters `get.calls`, `get.failed.REASON` and their like, by operation."""
    unit = _MILLISECOND if what == "ms" else 1.0
    for counts in counters:
        for name, count in counts.items():
            call, _, rest = name.partition(".")
            if rest and call in _STORE_CALLS and rest.partition(".")[0] == what:
                yield (call,), count * unit
