"""Builds the sinks of a worker's trail from its configuration."""

from __future__ import annotations

from pathlib import Path
from typing import Protocol

from hpcc.audit.cursor import TrailCursor
from hpcc.audit.log import SpoolAuditLog
from hpcc.ports import AuditLog, Clock
from hpcc.worker.audit.objects import ObjectSinkConfig, SegmentUploader, read_credential
from hpcc.worker.audit.shipper import Receiver, Shipper
from hpcc.worker.base.config import WorkerConfig


class TrailSink(Protocol):
    """Keeps a copy of the trail current; it has the records below `acknowledged`."""

    name: str
    acknowledged: int

    async def run(self) -> None:
        """Copy until cancelled."""
        ...


def audit_sinks(
    config: WorkerConfig, audit: AuditLog, receiver: Receiver | None, clock: Clock
) -> tuple[TrailSink, ...]:
    """Return the configured sinks. The spool then keeps what one of them lacks.

    `receiver` is None for a worker without a scheduler, whose configuration names none.

    Raises:
        CallerError: a credential's file is invalid.
    """
    if not isinstance(audit, SpoolAuditLog):
        return ()
    sinks: list[TrailSink] = []
    if config.audit_sink and receiver is not None:
        cursor = TrailCursor(config.audit)
        sinks.append(Shipper(audit, cursor, receiver, worker=config.worker_id, clock=clock))
    if config.audit_s3_endpoint:
        access_key_id, secret = read_credential(Path(config.audit_s3_credential_file))
        bucket = ObjectSinkConfig(
            endpoint=config.audit_s3_endpoint.rstrip("/"),
            bucket=config.audit_s3_bucket,
            prefix=config.audit_s3_prefix.strip("/"),
            region=config.audit_s3_region,
            lock_days=config.audit_s3_lock_days,
            ca_file=config.audit_s3_ca_file,
            access_key_id=access_key_id,
            secret_access_key=secret,
        )
        sinks.append(SegmentUploader(config.audit, config.worker_id, bucket, clock))
    if sinks:
        audit.hold_for(lambda: min(sink.acknowledged for sink in sinks))
    return tuple(sinks)
