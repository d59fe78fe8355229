"""What a worker shows at its admin port. docs/metrics.md is generated from here."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from typing import Final

from hpcc.audit.metered import AuditMetrics
from hpcc.obs.health.health import Health
from hpcc.obs.metrics.registry import OTHER, Reader, Values, Words
from hpcc.obs.metrics.service import ServiceMetrics
from hpcc.ports import AuditRow, SecurityEvent
from hpcc.worker.base.noted_events import NotedEvents

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
# Why a guest was lost in a compile: docs/spec/guest.md.
_BREACH: Final = "guest-lost-in-compile"
_CAUSES: Final = (
    "protocol-violation", "guest-silent", "guest-lost", "warden-protocol", "warden-died",
    "warden-silent", "warden-seccomp", "warden-cpu",
)  # fmt: skip
_STORE_CALLS: Final = ("get", "put", "has")
_CALLS: Final = len(_STORE_CALLS)


class WorkerMetrics:
    """All metrics of a worker. Those that are read on demand get their readers in `serve`."""

    def __init__(self, version: str, health: Health | None = None) -> None:
        self.service = ServiceMetrics(version, health)
        self.audit = AuditMetrics(self.service)
        # What is counted of the trail is also what heartbeats tell of it.
        self.noted = NotedEvents()
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
        self.guest_start_seconds = registry.histogram(
            "hpcc_worker_guest_start_seconds",
            "How long guests took to boot or to be restored, until they answered.",
        ).of()
        self.guest_start_failures = registry.asked_counter(
            "hpcc_worker_guest_start_failures_total", "Starts that gave no guest."
        )
        self.guest_memory = registry.asked_gauge(
            "hpcc_worker_guest_memory_bytes", "Memory that guests and their VMMs may take now."
        )
        self.guest_memory_limit = registry.asked_gauge(
            "hpcc_worker_guest_memory_limit_bytes",
            "Memory that all guests and their VMMs may take (memory_mib).",
        )
        self.refusals = registry.asked_counter(
            "hpcc_worker_refusals_total",
            "Compiles that got no guest: queue-full, draining, boot-failed.",
            "reason",
            most=3,
        )
        self.quarantined = registry.asked_gauge(
            "hpcc_worker_quarantined_actions",
            "Actions that ended two guests and are refused for half an hour.",
        )
        self._breaches = registry.counter(
            "hpcc_guest_protocol_breaches_total",
            "Compiles whose guest broke the protocol or was lost, by cause (docs/spec/guest.md).",
            "cause",
            most=len(_CAUSES),
        )
        for cause in _CAUSES:
            self._breaches.of(cause)  # begins at 0: an alert sees the first one
        self.draining = registry.asked_gauge(
            "hpcc_worker_draining", "1 while the worker takes no compiles: it ends, or is drained."
        )
        self.connected = registry.asked_gauge(
            "hpcc_worker_scheduler_up", "Whether the worker's stream to a scheduler is open."
        )
        self.engine_up = registry.asked_gauge(
            "hpcc_worker_engine_up",
            "Whether the engine whose bot the worker is answered its last call.",
        )
        self.engine_leases = registry.asked_counter(
            "hpcc_worker_engine_leases_total",
            "Leases of the engine by how they ended: completed (with a result, whatever the exit"
            " code), refused (the action is to blame), failed, cancelled.",
            "outcome",
            most=4,
        )
        self.anchor_age = registry.asked_gauge(
            "hpcc_audit_anchor_age_seconds",
            "How long ago a scheduler last had the end of this trail, with a heartbeat.",
        )
        self.sink_lag = registry.asked_gauge(
            "hpcc_audit_sink_lag_records",
            "Records of the trail that a sink has not confirmed: scheduler (the audit database),"
            " bucket (which gets whole segments).",
            "sink",
            most=2,
        )
        self.store_bytes = registry.asked_gauge(
            "hpcc_store_bytes", "Blobs of a tenant on this worker's disk.", "tenant"
        )
        self.store_limit = registry.asked_gauge(
            "hpcc_store_limit_bytes", "What a tenant's blobs may take of the disk.", "tenant"
        )
        self.store_evicted = registry.asked_counter(
            "hpcc_store_evicted_bytes_total", "Blobs that were removed to make room for others."
        )
        self.store_open = registry.asked_gauge(
            "hpcc_store_breaker_open",
            "1 while a tenant's shared store is not called, because it failed.",
            "tenant",
        )
        self._store_seconds = registry.histogram(
            "hpcc_store_call_seconds",
            "How long calls to S3 took, also those that failed.",
            "operation",
            most=_CALLS,
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

    def event(self, event: SecurityEvent) -> None:
        """Count and note an event of the trail; count a breach from it, so that both agree."""
        self.audit.event(event)
        self.noted.put(event)
        if event.name == _BREACH:
            cause = next((value for name, value in event.fields if name == "cause"), "")
            self._breaches.of(cause if cause in _CAUSES else OTHER).add()

    def store_called(self, operation: str, seconds: float) -> None:
        """Count the time of a call to S3."""
        self._store_seconds.of(operation).observe(seconds)

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
    for counts in counters:
        for name, count in counts.items():
            call, _, rest = name.partition(".")
            if rest and call in _STORE_CALLS and rest.partition(".")[0] == what:
                yield (call,), float(count)
