"""The scheduler's services for daemons and workers: parses messages and calls the backend."""

from __future__ import annotations

import asyncio
import re
from collections.abc import AsyncGenerator, Iterable, Sequence
from contextlib import aclosing
from typing import Final

import grpc

from hpcc._proto import scheduler_pb2 as pb
from hpcc.core import CallerError, ImageRef, TenantId
from hpcc.rpc.base.generation_rate import GenerationRateLimit
from hpcc.rpc.base.method import Call, Gate, Method, OnRefusal, service_handler
from hpcc.rpc.scheduler.api import (
    ASK_AGAIN,
    MAX_SLOTS,
    MAX_WARM,
    Route,
    RouteAsk,
    SchedulerBackend,
)
from hpcc.rpc.scheduler.pulse import Pulses
from hpcc.rpc.scheduler.registration_messages import (
    generation_of,
    isolation_of,
    registration_of,
    worker_id_of,
)
from hpcc.rpc.scheduler.share_messages import asks_of, grants_message
from hpcc.rpc.scheduler.toolchain_messages import (
    image_message,
    policy_message,
    report_or_none,
)

_LABEL: Final = re.compile(r"[^\x00-\x1f\x7f]{0,128}")
_CLIENT_KEY_BYTES: Final = 32
_KEY_ID: Final = re.compile(r"[0-9a-f]{32}")
_MAX_KEY_IDS: Final = 64
_MAX_REASON_CHARS: Final = 200


def scheduler_handlers(
    backend: SchedulerBackend, on_refusal: OnRefusal | None = None
) -> tuple[grpc.GenericRpcHandler, ...]:
    """Build the handlers of the daemons' port; `on_refusal` runs for each refused call."""
    side = _DaemonSide(backend)
    gate = Gate(side.judge)
    return (service_handler("hpcc.v1.SchedulerService", side.methods(), gate, on_refusal),)


def registry_handlers(
    backend: SchedulerBackend, on_refusal: OnRefusal | None = None, *, idle_seconds: float
) -> tuple[grpc.GenericRpcHandler, ...]:
    """Build the handlers of the workers' port, whose server asks for client certificates.

    A worker's stream without a message for `idle_seconds` is ended.
    """
    methods = _WorkerSide(backend, idle_seconds).methods()
    gate = Gate(lambda call: backend.admit(call.certificate, None))
    return (service_handler("hpcc.v1.WorkerRegistryService", methods, gate, on_refusal),)


class _DaemonSide:
    def __init__(self, backend: SchedulerBackend) -> None:
        self._backend = backend

    def methods(self) -> tuple[Method, ...]:
        return (
            Method(
                "Authenticate",
                pb.AuthenticateRequest,
                pb.AuthenticateResponse,
                unary=self.authenticate,
                is_login=True,
            ),
            Method("Route", pb.RouteRequest, pb.RouteResponse, unary=self.route),
            Method("WatchRoutes", pb.WatchRoutesRequest, pb.RouteEvent, stream=self.watch),
            Method(
                "ResultKeys", pb.ResultKeysRequest, pb.ResultKeysResponse, unary=self.result_keys
            ),
        )

    async def judge(self, call: Call) -> None:
        self._backend.judge(call.credential)

    async def authenticate(
        self, request: pb.AuthenticateRequest, call: Call
    ) -> pb.AuthenticateResponse:
        if not request.principal or not _LABEL.fullmatch(request.principal):
            raise CallerError("principal must be 1 to 128 printable characters")
        grant = await self._backend.authenticate(
            call.credential,
            TenantId(request.tenant),
            request.principal,
            _label(request.client_version, 64),
            report_or_none(request.host) if request.HasField("host") else None,
        )
        return pb.AuthenticateResponse(
            session=grant.session,
            expires_at=grant.expires_at,
            policy=policy_message(grant.policy),
            image=image_message(grant.image) if grant.image is not None else None,
            scheduler_certificates=grant.certificates,
        )

    async def route(self, request: pb.RouteRequest, call: Call) -> pb.RouteResponse:
        ask = RouteAsk(
            tenant=TenantId(request.tenant),
            image=ImageRef.parse(request.image),
            minimum_isolation=(
                isolation_of(request.minimum_isolation) if request.minimum_isolation else None
            ),
            failed_generation=request.failed_generation,
            client_key=_client_key(request.client_key),
            preferred_worker=(
                worker_id_of(request.preferred_worker) if request.preferred_worker else ""
            ),
            last_worker=_last_worker(request.last_worker),
            wanted=min(request.wanted, MAX_SLOTS),
            warm_workers=_warm(request.warm_workers),
        )
        return _route_message(self._backend.route(call.credential, ask))

    async def watch(
        self, request: pb.WatchRoutesRequest, call: Call
    ) -> AsyncGenerator[pb.RouteEvent]:
        async with aclosing(
            self._backend.watch(
                call.credential, TenantId(request.tenant), takes_several=request.takes_several
            )
        ) as changes:
            async for change in changes:
                if change == ASK_AGAIN:
                    yield pb.RouteEvent(kind=pb.RouteEvent.KIND_ASK)
                    continue
                yield pb.RouteEvent(
                    kind=pb.RouteEvent.KIND_DEAD if change.is_dead else pb.RouteEvent.KIND_LIVE,
                    worker_id=change.worker_id,
                    generation=change.generation,
                )

    async def result_keys(self, request: pb.ResultKeysRequest, call: Call) -> pb.ResultKeysResponse:
        found = await self._backend.result_keys(
            call.credential, TenantId(request.tenant), _key_ids(request.key_ids)
        )
        return pb.ResultKeysResponse(keys=_keys(tuple(found.items())))


class _WorkerSide:
    def __init__(self, backend: SchedulerBackend, idle_seconds: float) -> None:
        self._backend, self._pulses = backend, Pulses(backend, idle_seconds)
        self._generation_rate = GenerationRateLimit()

    def methods(self) -> tuple[Method, ...]:
        return (
            Method("Register", pb.RegisterRequest, pb.RegisterResponse, unary=self.register),
            Method("Pulse", pb.HeartbeatRequest, pb.HeartbeatResponse, duplex=self._pulses.serve),
            Method(
                "SandboxLost",
                pb.SandboxLostRequest,
                pb.SandboxLostResponse,
                unary=self.sandbox_lost,
            ),
            Method(
                "Deregister", pb.DeregisterRequest, pb.DeregisterResponse, unary=self.deregister
            ),
            Method(
                "ResultKeys", pb.ResultKeysRequest, pb.ResultKeysResponse, unary=self.result_keys
            ),
            Method(
                "LeaseShares",
                pb.LeaseSharesRequest,
                pb.LeaseSharesResponse,
                unary=self.lease_shares,
            ),
        )

    async def register(self, request: pb.RegisterRequest, call: Call) -> pb.RegisterResponse:
        registration = registration_of(request)
        await self._backend.admit(call.certificate, registration.worker_id)
        self._count_life(registration.worker_id)
        admission = await self._backend.register(registration)
        return pb.RegisterResponse(
            token_keys=_keys(admission.token_keys),
            generation=admission.generation,
            lease_seconds=admission.lease_seconds,
            scheduler_id=admission.scheduler_id,
            audience=admission.audience,
        )

    async def sandbox_lost(
        self, request: pb.SandboxLostRequest, call: Call
    ) -> pb.SandboxLostResponse:
        worker_id = worker_id_of(request.worker_id)
        await self._backend.admit(call.certificate, worker_id)
        self._count_life(worker_id)
        generation = await self._backend.sandbox_lost(
            worker_id,
            generation_of(request.generation),
            _label(request.guest_id, 128),
            _label(request.reason, _MAX_REASON_CHARS),
        )
        return pb.SandboxLostResponse(generation=generation)

    async def deregister(self, request: pb.DeregisterRequest, call: Call) -> pb.DeregisterResponse:
        worker_id = worker_id_of(request.worker_id)
        await self._backend.admit(call.certificate, worker_id)
        await self._backend.deregister(worker_id)
        return pb.DeregisterResponse()

    async def lease_shares(
        self, request: pb.LeaseSharesRequest, call: Call
    ) -> pb.LeaseSharesResponse:
        worker_id = worker_id_of(request.worker_id)
        await self._backend.admit(call.certificate, worker_id)
        return grants_message(await self._backend.lease_shares(worker_id, asks_of(request)))

    def _count_life(self, worker_id: str) -> None:
        self._generation_rate.count(worker_id, asyncio.get_running_loop().time())

    async def result_keys(self, request: pb.ResultKeysRequest, call: Call) -> pb.ResultKeysResponse:
        await self._backend.admit(call.certificate, None)
        found = await self._backend.result_keys_for_worker(
            TenantId(request.tenant), _key_ids(request.key_ids)
        )
        return pb.ResultKeysResponse(keys=_keys(tuple(found.items())))


def _key_ids(texts: Iterable[str]) -> tuple[str, ...]:
    key_ids = tuple(texts)
    if not 0 < len(key_ids) <= _MAX_KEY_IDS or not all(_KEY_ID.fullmatch(k) for k in key_ids):
        raise CallerError(f"ask for 1 to {_MAX_KEY_IDS} result keys by their ids")
    return key_ids


def _client_key(key: bytes) -> bytes:
    if len(key) not in {0, _CLIENT_KEY_BYTES}:
        raise CallerError("client key is not an Ed25519 key")
    return key


def _last_worker(text: str) -> str:
    return worker_id_of(text) if text else ""


def _warm(texts: Sequence[str]) -> tuple[str, ...]:
    if len(texts) > MAX_WARM:
        raise CallerError(f"at most {MAX_WARM} warm workers")
    return tuple(map(worker_id_of, texts))


def _route_message(route: Route) -> pb.RouteResponse:
    return pb.RouteResponse(
        endpoint=route.endpoint,
        worker_certificate=route.worker_certificate,
        token=route.token,
        token_expires_at=route.token_expires_at,
        generation=route.generation,
        isolation=route.isolation.value,
        worker_id=route.worker_id,
        principal=route.principal,
        guest_reuse=route.guest_reuse.value,
        minimum_isolation=route.minimum_isolation.value,
        slots=route.slots,
        store=route.store,
        sharing=route.sharing.text,
        has_others=route.has_others,
        packs=route.packs,
        more=[_route_message(r) for r in route.more],
    )


def _label(text: str, limit: int) -> str:
    return "".join(c for c in text[:limit] if c.isprintable())


def _keys(keys: tuple[tuple[str, bytes], ...]) -> list[pb.TokenKey]:
    return [pb.TokenKey(kid=kid, public_key=key) for kid, key in keys]
