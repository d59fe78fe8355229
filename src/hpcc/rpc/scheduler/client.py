"""Two clients of the scheduler: one for daemons, one for workers."""

from __future__ import annotations

from collections.abc import AsyncGenerator, Sequence
from dataclasses import replace
from typing import Any

import grpc

from hpcc._proto import scheduler_pb2 as pb
from hpcc.core import (
    PRIVATE_ONLY,
    CallerError,
    GuestReuse,
    HostReport,
    Isolation,
    SharingPolicy,
    TenantId,
)
from hpcc.rpc.base.errors import UnavailableError, error_of_call
from hpcc.rpc.base.method import bearer, check_token
from hpcc.rpc.scheduler.api import (
    ASK_AGAIN,
    MAX_CERTIFICATES,
    MAX_ROUTES,
    MAX_SLOTS,
    MAX_WARM,
    Admission,
    Registration,
    Route,
    RouteAsk,
    RouteChange,
    SessionGrant,
    ShareAsk,
    ShareGrants,
)
from hpcc.rpc.scheduler.pulse import Pulse
from hpcc.rpc.scheduler.registration_messages import (
    check_address,
    registration_message,
    worker_id_of,
)
from hpcc.rpc.scheduler.schedulers import Schedulers
from hpcc.rpc.scheduler.share_messages import ask_message, grants_of
from hpcc.rpc.scheduler.toolchain_messages import (
    image_or_none,
    policy_of,
    report_message,
)


class SchedulerClient:
    """A daemon's client. The caller owns the channels.

    Its calls raise `HpccError` if a scheduler refuses or no scheduler answers.
    """

    def __init__(self, to: grpc.aio.Channel | Schedulers) -> None:
        self._schedulers = to if isinstance(to, Schedulers) else Schedulers((to,))

    async def authenticate(
        self,
        *,
        secret: str,
        tenant: TenantId,
        principal: str,
        client_version: str,
        host: HostReport | None = None,
    ) -> SessionGrant:
        """Open a session. `secret` is the bearer; `host` reports the local compilers."""
        answer = await self._schedulers.call(
            "SchedulerService/Authenticate",
            pb.AuthenticateRequest(
                tenant=tenant.value,
                principal=principal,
                client_version=client_version,
                host=report_message(host),
            ),
            pb.AuthenticateResponse,
            secret,
        )
        image = image_or_none(answer.image) if answer.HasField("image") else None
        return SessionGrant(
            answer.session,
            answer.expires_at,
            policy_of(answer.policy),
            image,
            tuple(answer.scheduler_certificates)[:MAX_CERTIFICATES],
        )

    async def route(self, session: str, ask: RouteAsk) -> Route:
        """Return a worker for a route request.

        Raises:
            UnavailableError: the answer has an unknown isolation label or guest reuse class.
        """
        answer = await self._schedulers.call(
            "SchedulerService/Route",
            pb.RouteRequest(
                tenant=ask.tenant.value,
                image=str(ask.image),
                minimum_isolation=ask.minimum_isolation.value if ask.minimum_isolation else "",
                failed_generation=ask.failed_generation,
                client_key=ask.client_key,
                preferred_worker=ask.preferred_worker,
                last_worker=ask.last_worker,
                wanted=ask.wanted,
                warm_workers=ask.warm_workers[:MAX_WARM],
            ),
            pb.RouteResponse,
            session,
        )
        more = answer.more[: MAX_ROUTES - 1] if ask.wanted else ()
        return replace(_route(answer), more=tuple(filter(None, map(_route_or_none, more))))

    async def result_key(self, session: str, tenant: TenantId, key_id: str) -> bytes | None:
        """Return a key (32 bytes) that may sign results of the tenant, or None if unknown."""
        return await _result_key(self._schedulers, "SchedulerService", session, tenant, key_id)

    async def watch(self, session: str, tenant: TenantId) -> AsyncGenerator[RouteChange]:
        """Yield changes of generations, and `ASK_AGAIN`, until the stream breaks.

        Raises:
            HpccError: the stream broke, or was refused.
        """
        channel = self._schedulers.channel
        call = channel.unary_stream(
            "/hpcc.v1.SchedulerService/WatchRoutes",
            request_serializer=pb.WatchRoutesRequest.SerializeToString,
            response_deserializer=pb.RouteEvent.FromString,
        )(pb.WatchRoutesRequest(tenant=tenant.value, takes_several=True), metadata=bearer(session))
        try:
            async for event in call:
                if event.kind == pb.RouteEvent.KIND_ASK:
                    yield ASK_AGAIN
                    continue
                if event.worker_id:
                    worker_id_of(event.worker_id)
                is_dead = event.kind == pb.RouteEvent.KIND_DEAD
                yield RouteChange(event.worker_id, event.generation, is_dead)
        except grpc.aio.AioRpcError as error:
            said = error_of_call(error)
            if isinstance(said, UnavailableError):
                self._schedulers.failed(channel)
            raise said from error
        finally:
            call.cancel()


class RegistryClient:
    """A worker's client. The caller owns the channels, which present the worker's certificate.

    Its calls raise `HpccError` if a scheduler refuses or no scheduler answers.
    """

    def __init__(self, to: grpc.aio.Channel | Schedulers) -> None:
        self._schedulers = to if isinstance(to, Schedulers) else Schedulers((to,))

    @property
    def schedulers(self) -> Schedulers:
        """Return the channels in use now."""
        return self._schedulers

    def use(self, schedulers: Schedulers) -> None:
        """Use other channels from the next call on."""
        self._schedulers = schedulers

    async def register(self, registration: Registration) -> Admission:
        """Register the worker; return its generation, its lease and the keys of route tokens."""
        answer = await self._call(
            "Register",
            registration_message(registration),
            pb.RegisterResponse,
        )
        return Admission(
            token_keys=tuple((k.kid, k.public_key) for k in answer.token_keys),
            generation=answer.generation,
            lease_seconds=answer.lease_seconds,
            scheduler_id=answer.scheduler_id,
            audience=answer.audience,
        )

    def pulse(self) -> Pulse:
        """Open the stream of heartbeats to the scheduler tried first; the caller closes it."""
        return Pulse(self._schedulers)

    async def sandbox_lost(
        self, *, worker_id: str, generation: int, guest_id: str, reason: str
    ) -> int:
        """Report a dead guest; return the worker's new generation."""
        answer = await self._call(
            "SandboxLost",
            pb.SandboxLostRequest(
                worker_id=worker_id, generation=generation, guest_id=guest_id, reason=reason[:200]
            ),
            pb.SandboxLostResponse,
        )
        return int(answer.generation)

    async def result_key(self, tenant: TenantId, key_id: str) -> bytes | None:
        """Return a key (32 bytes) that may sign results of the tenant, or None if unknown."""
        return await _result_key(self._schedulers, "WorkerRegistryService", "", tenant, key_id)

    async def deregister(self, worker_id: str) -> None:
        """Remove the worker from the farm."""
        await self._call(
            "Deregister", pb.DeregisterRequest(worker_id=worker_id), pb.DeregisterResponse
        )

    async def lease_shares(self, worker_id: str, asks: Sequence[ShareAsk]) -> ShareGrants:
        """Ask for places for compiles of tenants whose limits count on the whole farm."""
        answer = await self._call(
            "LeaseShares", ask_message(worker_id, asks), pb.LeaseSharesResponse
        )
        return grants_of(answer)

    async def _call(self, method: str, request: Any, response: Any) -> Any:  # noqa: ANN401 - generated messages, named by each caller
        return await self._schedulers.call(f"WorkerRegistryService/{method}", request, response, "")


def _route_or_none(answer: pb.RouteResponse) -> Route | None:
    """Parse a further route. What this version does not understand is not used."""
    try:
        return _route(answer)
    except UnavailableError:
        return None


def _route(answer: pb.RouteResponse) -> Route:
    try:
        check_address(answer.endpoint, answer.worker_certificate)
        worker_id = worker_id_of(answer.worker_id)
        check_token(answer.token)
    except CallerError as error:
        raise UnavailableError(f"the scheduler names an impossible worker: {error}") from error
    try:
        isolation, minimum = Isolation(answer.isolation), Isolation(answer.minimum_isolation)
        reuse = GuestReuse(answer.guest_reuse)
    except ValueError as error:
        raise UnavailableError("the scheduler names an unknown isolation or guest reuse") from error
    return Route(
        endpoint=answer.endpoint,
        worker_certificate=answer.worker_certificate,
        token=answer.token,
        token_expires_at=answer.token_expires_at,
        generation=answer.generation,
        isolation=isolation,
        worker_id=worker_id,
        principal=answer.principal,
        guest_reuse=reuse,
        minimum_isolation=minimum,
        slots=min(answer.slots, MAX_SLOTS),
        store=answer.store,
        sharing=_sharing(answer.sharing),
        has_others=answer.has_others,
        packs=answer.packs,
    )


def _sharing(text: str) -> SharingPolicy:
    """Parse what the tenant accepts of colleagues' results. Words of a later version: nothing."""
    try:
        return SharingPolicy.parse(text) if text else PRIVATE_ONLY
    except CallerError:
        return PRIVATE_ONLY


async def _result_key(
    schedulers: Schedulers, service: str, credential: str, tenant: TenantId, key_id: str
) -> bytes | None:
    answer = await schedulers.call(
        f"{service}/ResultKeys",
        pb.ResultKeysRequest(tenant=tenant.value, key_ids=[key_id]),
        pb.ResultKeysResponse,
        credential,
    )
    found: dict[str, bytes] = {k.kid: k.public_key for k in answer.keys}
    return found.get(key_id)
