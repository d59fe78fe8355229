"""Counts what goes into a trail: records, how long they take, what failed.

Rows are counted where a worker writes them. Events are counted by a listener of the trail, because
the trail and its shipper make some themselves, which pass no decorator.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Final

from hpcc.audit.log import SpoolAuditLog
from hpcc.core import InfrastructureError
from hpcc.obs.metrics.service import ServiceMetrics
from hpcc.ports import AuditLog, AuditRow, Clock, SecurityEvent

# Events that an alert watches (deploy/monitoring). Their counters begin at 0, because Prometheus
# sees no increase in a series that it meets with a 1.
WATCHED: Final = (
    "action-quarantined", "audit-anchor-refused", "audit-chain-cut", "audit-history-changed",
    "audit-key-changed",
    "audit-refused", "audit-row-lost", "audit-sink-refused", "enrol-foreign-name",
    "enrol-token-replayed", "foreign-tenant", "foreign-worker", "result-disagreement",
    "result-refused", "snapshot-damaged", "store-damaged", "worker-certificate-refused",
    "worker-revoked",
)  # fmt: skip


class AuditMetrics:
    """The metrics of a trail, and their declaration."""

    def __init__(self, service: ServiceMetrics) -> None:
        registry, self._service = service.registry, service
        # Why the last row is not durable; "" if it is.
        self.trouble = ""
        self.records = registry.counter(
            "hpcc_audit_records_total",
            "Records by kind: row, which are durable; event, of which hpcc_audit_lost_events_total"
            " are not.",
            "kind",
            most=2,
        )
        self.seconds = registry.histogram(
            "hpcc_audit_append_seconds", "How long a row took until it was durable."
        ).of()
        self.failures = registry.counter(
            "hpcc_audit_append_failures_total",
            "Rows that could not be made durable; their results were not released.",
        ).of()
        self.trail_bytes = registry.asked_gauge(
            "hpcc_audit_trail_bytes", "What the trail takes of the disk."
        )
        self.limit_bytes = registry.asked_gauge(
            "hpcc_audit_limit_bytes", "What the trail may take of the disk (audit_max_bytes)."
        )
        self.lost_events = registry.asked_counter(
            "hpcc_audit_lost_events_total", "Security events that the disk had no room for."
        )
        self.signer_restarts = registry.asked_counter(
            "hpcc_audit_signer_restarts_total",
            "How often the process that signs was started again.",
        )
        self.signer = registry.asked_gauge(
            "hpcc_audit_signer_up",
            "1 if records can be signed, by how their signer is kept apart: own-uid, same-uid, or"
            " in-process.",
            "separation",
            most=3,
        )
        for name in WATCHED:
            service.security_event(name, 0)

    def show(self, log: SpoolAuditLog | None) -> None:
        """Read size and losses of this trail on demand; None is a trail without files."""
        if log is None:
            return
        self.trail_bytes.read = lambda: [((), log.size[0])]
        self.limit_bytes.read = lambda: [((), log.size[1])]
        self.lost_events.read = lambda: [((), log.lost_events)]
        signer = log.signer
        self.signer.read = lambda: [((signer.separation,), int(not signer.trouble))]
        self.signer_restarts.read = lambda: [((), signer.restarts)]

    def event(self, event: SecurityEvent) -> None:
        """Count a security event of the trail; this is one of its listeners."""
        self.records.of("event").add()
        self._service.reported(event)


class MeteredAuditLog:
    """`AuditLog` that counts rows. `on_row` gets each row that is durable."""

    def __init__(
        self,
        inner: AuditLog,
        metrics: AuditMetrics,
        clock: Clock,
        on_row: Callable[[AuditRow], None] = lambda _: None,
    ) -> None:
        self._inner, self._metrics, self._clock = inner, metrics, clock
        self._on_row = on_row

    async def append(self, row: AuditRow) -> None:
        started = self._clock.monotonic()
        try:
            await self._inner.append(row)
        except InfrastructureError as error:
            self._metrics.failures.add()
            self._metrics.trouble = str(error)
            raise
        self._metrics.trouble = ""
        self._metrics.seconds.observe(self._clock.monotonic() - started)
        self._metrics.records.of("row").add()
        self._on_row(row)

    async def event(self, event: SecurityEvent) -> None:
        await self._inner.event(event)

    def require_room(self, tenant: str = "") -> None:
        self._inner.require_room(tenant)
