"""Takes workers' audit records and has them kept: `AuditBackend`."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Sequence
from typing import Final, Protocol

from hpcc.audit.canonical import GENESIS, Record, foreign_record
from hpcc.core import CallerError, IntegrityError
from hpcc.rpc.scheduler.audit_api import AuditPlace

# Each batch may be 15 MiB and be decoded: this bounds what they take of memory together.
_MAX_AT_ONCE: Final = 4


class AuditSink(Protocol):
    """Where records are kept. The chain is checked there, too."""

    async def place(self, worker: str) -> AuditPlace:
        """Say which record is the next one of a worker."""
        ...

    async def append(self, worker: str, records: Sequence[Record]) -> AuditPlace:
        """Keep records, all or none; durable on return. Those that are there already are skipped.

        Raises:
            IntegrityError: reason `audit-gap` or `audit-damaged`: they do not continue the chain.
            InfrastructureError: reason `audit-sink`: it does not answer.
        """
        ...


class AuditIntake:
    """Checks the caller and each record before a sink sees them."""

    def __init__(
        self,
        admit: Callable[[bytes, str], Awaitable[str]],
        sink: AuditSink | None,
        heads: Callable[[str], Awaitable[Sequence[bytes]]],
    ) -> None:
        """`admit` raises for a certificate that is not that worker's; `heads` are its anchors.

        They are handed on as they are kept: whoever asks checks them, and a worker that has made
        very many must not keep a scheduler busy with its own signatures.
        """
        self._admit, self._sink, self._heads = admit, sink, heads
        self._room = asyncio.Semaphore(_MAX_AT_ONCE)

    async def anchors(self, certificate: bytes, worker_id: str) -> Sequence[bytes]:
        await self._admit(certificate, worker_id)
        async with self._room:
            return await self._heads(worker_id)

    async def append_audit(
        self, certificate: bytes, worker_id: str, first: int, records: Sequence[bytes]
    ) -> AuditPlace:
        await self._admit(certificate, worker_id)
        if self._sink is None:
            raise CallerError(
                "this scheduler keeps no audit records: set audit_database", reason="no-audit-sink"
            )
        if not records:
            return await self._sink.place(worker_id)
        async with self._room:
            checked = await asyncio.to_thread(_checked, worker_id, first, records)
            return await self._sink.append(worker_id, checked)


def _checked(worker: str, first: int, records: Sequence[bytes]) -> list[Record]:
    """Decode a run of records.

    Raises:
        IntegrityError: one is not the next, not the worker's, or not what a worker writes.
    """
    checked: list[Record] = []
    previous: str | None = GENESIS if first == 0 else None
    for number, data in enumerate(records, first):
        if not data:
            raise IntegrityError("an empty audit record", reason="audit-damaged")
        record = foreign_record(data, worker=worker, sequence=number, previous=previous)
        checked.append(record)
        previous = record.hash
    return checked
