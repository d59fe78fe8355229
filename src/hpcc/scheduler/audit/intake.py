"""`AuditBackend`: checks workers' audit records and passes them to a sink."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Sequence
from typing import Final, Protocol

from hpcc.audit.base.canonical import GENESIS, Record, foreign_record
from hpcc.core import CallerError, IntegrityError
from hpcc.rpc.scheduler.audit_api import AuditPlace

# A batch may be 15 MiB, and decoded it may take 25 times as much: these bound all batches together.
_MAX_AT_ONCE: Final = 4
# An honest batch is larger only if it is one large record.
_LARGE_BYTES: Final = 1 << 20


class AuditSink(Protocol):
    """Stores records. It checks the chain too."""

    async def place(self, worker: str) -> AuditPlace:
        """Return the number of the worker's next record."""
        ...

    async def append(self, worker: str, records: Sequence[Record]) -> AuditPlace:
        """Store all records or none; durable on return. Records that it has already are skipped.

        Raises:
            IntegrityError: `audit-gap` or `audit-damaged`: they do not continue the chain.
            InfrastructureError: `audit-sink`: the sink does not answer.
        """
        ...


class AuditIntake:
    """Checks the caller and each record before the sink receives it."""

    def __init__(
        self,
        admit: Callable[[bytes, str], Awaitable[str]],
        sink: AuditSink | None,
        heads: Callable[[str], Awaitable[Sequence[bytes]]],
    ) -> None:
        """`admit` raises for a certificate of another worker; `heads` returns a worker's anchors.

        Anchors are returned unchecked and the caller checks them: a worker with very many must not
        keep a scheduler busy with its signatures.
        """
        self._admit, self._sink, self._heads = admit, sink, heads
        self._room = asyncio.Semaphore(_MAX_AT_ONCE)
        self._large = asyncio.Semaphore(1)

    async def anchors(self, certificate: bytes, worker_id: str) -> Sequence[bytes]:
        """Return the anchors of the worker that shows this certificate, as encoded heads."""
        await self._admit(certificate, worker_id)
        async with self._room:
            return await self._heads(worker_id)

    async def append_audit(
        self, certificate: bytes, worker_id: str, first: int, records: Sequence[bytes]
    ) -> AuditPlace:
        """Store a run of records; return which record is next. None given: only return it.

        Raises:
            CallerError: this scheduler stores no audit records.
            IntegrityError: the records do not continue the worker's chain, or are damaged.
            InfrastructureError: the sink does not answer.
        """
        await self._admit(certificate, worker_id)
        if self._sink is None:
            raise CallerError(
                "this scheduler keeps no audit records: set audit_database", reason="no-audit-sink"
            )
        if not records:
            return await self._sink.place(worker_id)
        is_large = sum(map(len, records)) > _LARGE_BYTES
        async with self._large if is_large else self._room:
            checked = await asyncio.to_thread(_checked, worker_id, first, records)
            return await self._sink.append(worker_id, checked)


def _checked(worker: str, first: int, records: Sequence[bytes]) -> list[Record]:
    """Decode a run of records, the first of which has number `first`.

    Raises:
        IntegrityError: one is out of order, another worker's, or has another form.
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
