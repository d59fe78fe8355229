"""The audit service: workers send their audit records to a scheduler, which stores them."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Final, Protocol

import grpc

from hpcc._proto import audit_pb2 as pb
from hpcc.core import CallerError
from hpcc.rpc.base.errors import error_of_call
from hpcc.rpc.base.method import Call, Gate, Method, OnRefusal, service_handler
from hpcc.rpc.scheduler.api import WorkerAdmission
from hpcc.rpc.scheduler.registration_messages import worker_id_of
from hpcc.rpc.scheduler.schedulers import Schedulers

MAX_AUDIT_RECORDS: Final = 1000
# A single record may have this size; the message adds little to it.
MAX_AUDIT_BYTES: Final = 15 << 20
_MAX_SEQUENCE: Final = (1 << 63) - 1
# A database that may be busy writes and syncs each batch.
AUDIT_CALL_SECONDS: Final = 30.0
# Each has about 350 bytes.
MAX_ANCHORS: Final = 30_000


@dataclass(frozen=True, slots=True)
class AuditPlace:
    """Where the farm's copy of a worker's chain ends: `next` is its first missing record number."""

    next: int
    is_empty: bool


class AuditBackend(Protocol):
    """Stores workers' records. `certificate` is the caller's in PEM, not yet authorized."""

    async def append_audit(
        self, certificate: bytes, worker_id: str, first: int, records: Sequence[bytes]
    ) -> AuditPlace:
        """Store records numbered from `first` and return where the copy ends then.

        Raises:
            HpccError: the caller is not this worker, or the records were not committed.
        """
        ...

    async def anchors(self, certificate: bytes, worker_id: str) -> Sequence[bytes]:
        """Return the signed heads of a worker's chain as bytes, the newest last.

        Raises:
            HpccError: the caller is not this worker, or the heads cannot be read.
        """
        ...


def audit_handlers(
    backend: AuditBackend, workers: WorkerAdmission, on_refusal: OnRefusal | None = None
) -> tuple[grpc.GenericRpcHandler, ...]:
    """Build the handler of the audit service."""
    server = _AuditServer(backend)
    methods = (
        Method("AppendAudit", pb.AppendAuditRequest, pb.AppendAuditResponse, unary=server.append),
        Method("Anchors", pb.AnchorsRequest, pb.AnchorsResponse, unary=server.anchors),
    )
    gate = Gate(lambda call: workers.admit(call.certificate, None))
    return (service_handler("hpcc.v1.AuditService", methods, gate, on_refusal),)


class _AuditServer:
    def __init__(self, backend: AuditBackend) -> None:
        self._backend = backend

    async def append(self, request: pb.AppendAuditRequest, call: Call) -> pb.AppendAuditResponse:
        records = list(request.records)
        if len(records) > MAX_AUDIT_RECORDS or sum(map(len, records)) > MAX_AUDIT_BYTES:
            raise CallerError("too many audit records in one call")
        if request.first > _MAX_SEQUENCE - MAX_AUDIT_RECORDS:
            raise CallerError("no such record number")
        place = await self._backend.append_audit(
            call.certificate, worker_id_of(request.worker_id), request.first, records
        )
        return pb.AppendAuditResponse(next=place.next, is_empty=place.is_empty)

    async def anchors(self, request: pb.AnchorsRequest, call: Call) -> pb.AnchorsResponse:
        heads = await self._backend.anchors(call.certificate, worker_id_of(request.worker_id))
        return pb.AnchorsResponse(heads=heads[-MAX_ANCHORS:])


class AuditClient:
    """A worker's client. The caller owns the channels, which present the worker's certificate.

    `schedulers` returns the current ones. `append` uses the scheduler that answered the last
    heartbeat; its database may be unreachable while the scheduler is up.
    """

    def __init__(self, schedulers: Callable[[], Schedulers]) -> None:
        self._schedulers = schedulers

    async def append(self, worker_id: str, first: int, records: Sequence[bytes]) -> AuditPlace:
        """Send records numbered from `first`; returns when the scheduler has committed them.

        Raises:
            HpccError: the scheduler refused them, or did not answer in time.
        """
        request = pb.AppendAuditRequest(worker_id=worker_id, first=first, records=records)
        call = self._schedulers().channel.unary_unary(
            "/hpcc.v1.AuditService/AppendAudit",
            request_serializer=pb.AppendAuditRequest.SerializeToString,
            response_deserializer=pb.AppendAuditResponse.FromString,
        )
        try:
            answer = await call(request, timeout=AUDIT_CALL_SECONDS)
        except grpc.aio.AioRpcError as error:
            raise error_of_call(error) from error
        return AuditPlace(answer.next, answer.is_empty)

    async def anchors(self, worker_id: str) -> list[bytes]:
        """Return the signed heads of the worker that the schedulers store, as bytes.

        Raises:
            HpccError: a scheduler refused, or no scheduler answers.
        """
        answer = await self._schedulers().call(
            "AuditService/Anchors", pb.AnchorsRequest(worker_id=worker_id), pb.AnchorsResponse, ""
        )
        return list(answer.heads)
