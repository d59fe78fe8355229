"""Enrolment of workers: the values, the scheduler's handlers, the worker's calls."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Final, Protocol

import grpc

from hpcc._proto import scheduler_pb2 as pb
from hpcc.rpc.base.errors import UnavailableError, error_of_call
from hpcc.rpc.base.method import Call, Gate, Method, OnRefusal, bearer, service_handler
from hpcc.rpc.scheduler.api import WorkerAdmission

_SERVICE: Final = "hpcc.v1.WorkerEnrolmentService"
_CALL_SECONDS: Final = 10.0
_MAX_CERTIFICATE_BYTES: Final = 4096


@dataclass(frozen=True, slots=True)
class WorkerGrant:
    """A worker's certificate; `expires_at` in seconds since the epoch."""

    worker_id: str
    certificate_pem: bytes
    expires_at: float


class EnrolmentBackend(WorkerAdmission, Protocol):
    """Issues certificates. `request` is a certificate request as the worker sent it.

    Raises `HpccError` if the worker may not have a certificate, or the request is malformed.
    """

    async def enrol(self, token: str, request: bytes, worker_id: str) -> WorkerGrant:
        """Return the first certificate of a worker that shows a one-time token."""
        ...

    async def renew(self, certificate: bytes, request: bytes) -> WorkerGrant:
        """Return a new certificate. `certificate` is the connection's in PEM, empty for none."""
        ...


class _EnrolmentSide:
    def __init__(self, backend: EnrolmentBackend, worker_port: int) -> None:
        self._backend, self._worker_port = backend, worker_port

    def gate(self) -> Gate:
        return Gate(lambda call: self._backend.admit(call.certificate, None))

    async def enrol(self, request: pb.EnrolRequest, call: Call) -> pb.EnrolResponse:
        grant = await self._backend.enrol(
            call.credential, request.certificate_request, request.worker_id
        )
        return pb.EnrolResponse(
            certificate=grant.certificate_pem,
            expires_at=grant.expires_at,
            worker_port=self._worker_port,
        )

    async def renew(self, request: pb.RenewRequest, call: Call) -> pb.RenewResponse:
        grant = await self._backend.renew(call.certificate, request.certificate_request)
        return pb.RenewResponse(certificate=grant.certificate_pem, expires_at=grant.expires_at)


def enrol_handlers(
    backend: EnrolmentBackend, worker_port: int, on_refusal: OnRefusal | None = None
) -> tuple[grpc.GenericRpcHandler, ...]:
    """Build the handlers of the daemons' port."""
    side = _EnrolmentSide(backend, worker_port)
    method = Method("Enrol", pb.EnrolRequest, pb.EnrolResponse, unary=side.enrol, is_login=True)
    return (service_handler(_SERVICE, (method,), side.gate(), on_refusal),)


def renew_handlers(
    backend: EnrolmentBackend, on_refusal: OnRefusal | None = None
) -> tuple[grpc.GenericRpcHandler, ...]:
    """Build the handlers of the workers' port."""
    side = _EnrolmentSide(backend, 0)
    method = Method("Renew", pb.RenewRequest, pb.RenewResponse, unary=side.renew)
    return (service_handler(_SERVICE, (method,), side.gate(), on_refusal),)


async def ask_to_enrol(
    channel: grpc.aio.Channel, *, token: str, request: bytes, worker_id: str
) -> tuple[WorkerGrant, int]:
    """Enrol at the daemons' port; return the grant, and the scheduler's port for workers.

    Raises:
        HpccError: the scheduler refused, or did not answer.
    """
    answer = await _call(
        channel,
        "Enrol",
        pb.EnrolRequest(worker_id=worker_id, certificate_request=request),
        pb.EnrolResponse,
        bearer(token),
    )
    return _grant(worker_id, answer), int(answer.worker_port)


async def ask_to_renew(channel: grpc.aio.Channel, *, request: bytes, worker_id: str) -> WorkerGrant:
    """Renew a certificate over a connection that presents one that is still valid.

    Raises:
        HpccError: the scheduler refused, or did not answer.
    """
    message = pb.RenewRequest(certificate_request=request)
    return _grant(worker_id, await _call(channel, "Renew", message, pb.RenewResponse, ()))


def _grant(worker_id: str, answer: Any) -> WorkerGrant:  # noqa: ANN401 - either response
    if not 0 < len(answer.certificate) <= _MAX_CERTIFICATE_BYTES:
        raise UnavailableError("the scheduler sent no certificate")
    return WorkerGrant(worker_id, answer.certificate, answer.expires_at)


async def _call(
    channel: grpc.aio.Channel,
    method: str,
    request: Any,  # noqa: ANN401 - generated messages, named by each caller
    response: Any,  # noqa: ANN401 - likewise
    metadata: tuple[tuple[str, str], ...],
) -> Any:  # noqa: ANN401 - likewise
    call = channel.unary_unary(
        f"/{_SERVICE}/{method}",
        request_serializer=type(request).SerializeToString,
        response_deserializer=response.FromString,
    )
    try:
        return await call(request, metadata=metadata, timeout=_CALL_SECONDS)
    except grpc.aio.AioRpcError as error:
        raise error_of_call(error) from error
