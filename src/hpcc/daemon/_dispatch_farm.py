"""The dispatcher's view of a farm: a session, a route per image, a channel per worker."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncGenerator, Callable
from contextlib import aclosing, asynccontextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import grpc

from hpcc.config import Farm, FarmSession, write_private_file
from hpcc.core import (
    MAX_TOOLCHAINS,
    CallerError,
    HostReport,
    HpccError,
    ImageRef,
    InfrastructureError,
    Isolation,
    TenantId,
    Toolchain,
)
from hpcc.daemon._parity import toolchain_of
from hpcc.identity import LoginSource, PinnedPeer, ProofKey, ResultKeys
from hpcc.ports import Clock
from hpcc.rpc import Route, RouteAsk, SchedulerClient, SessionGrant, UnauthenticatedError
from hpcc.rpc import open_channel as open_pinned

_log: Final = logging.getLogger(__name__)
# A token is renewed when it would end within this, so that it outlives the calls made with it.
_RENEW_BEFORE_SECONDS: Final = 60.0


@dataclass(frozen=True, slots=True)
class RoutedWorker:
    """A worker to call: its channel, the route that allows it, and the proof for each call."""

    channel: grpc.aio.Channel
    route: Route
    tenant: TenantId
    prove: Callable[[str], str]


class FarmConnection:
    """Everything that hangs on one content of farm.json."""

    def __init__(
        self,
        farm: Farm,
        channel: grpc.aio.Channel,
        clock: Clock,
        version: str,
        *,
        session_file: Path | None = None,
    ) -> None:
        self.farm = farm
        self.tenant = TenantId(farm.tenant)
        self.image = ImageRef.parse(farm.image)
        self._client, self._clock, self._version = SchedulerClient(channel), clock, version
        self._source = LoginSource(Path(farm.login), clock) if farm.login else None
        # Of this process and this farm alone: a token that was copied is of no use elsewhere.
        self._key = ProofKey()
        self.result_keys = ResultKeys(self._result_key, clock)
        self._lock = asyncio.Lock()
        self._session: SessionGrant | None = None
        self._route: Route | None = None
        self._channels: dict[tuple[str, bytes], grpc.aio.Channel] = {}
        self._watcher: asyncio.Task[None] | None = None
        self._session_file = session_file
        # What the scheduler said at the last login; None before the first.
        self.said: FarmSession | None = None
        # The compilers that compiles were asked for with, by name, for the next login's report.
        self._hosts: dict[str, Toolchain] = {}
        self._read: dict[str, Toolchain | None] = {"": None}

    def host(self, text: str) -> Toolchain | None:
        """Read the compiler that a request carries, and have it in the next login's report."""
        if text not in self._read:
            if len(self._read) >= MAX_TOOLCHAINS:
                self._read.clear()
            found = self._read[text] = toolchain_of(text)
            hosts = self._hosts
            if found and (found.names[0] in hosts or len(hosts) < MAX_TOOLCHAINS):
                hosts[found.names[0]] = found
        return self._read[text]

    async def worker(self) -> RoutedWorker:
        """Return a worker whose token is good for a while.

        Raises:
            HpccError: the scheduler is away, refuses us, or knows no worker.
        """
        async with self._lock:
            route = self._route
            if route is None or route.token_expires_at - _RENEW_BEFORE_SECONDS < self._clock.now():
                route = self._route = await self._ask(0)
            return self._routed(route)

    async def reroute(self, failed: Route) -> RoutedWorker:
        """Give up a route that failed; all compiles that used it share one question."""
        async with self._lock:
            if self._route is failed:
                self._route = None
            if self._route is None:
                self._route = await self._ask(failed.generation)
            return self._routed(self._route)

    def _routed(self, route: Route) -> RoutedWorker:
        def prove(method: str) -> str:
            return self._key.sign(route.token, method, self._clock.now())

        return RoutedWorker(self._channel(route), route, self.tenant, prove)

    async def close(self) -> None:
        if self._watcher is not None:
            self._watcher.cancel()
            with suppress(asyncio.CancelledError):
                await self._watcher
        for channel in self._channels.values():
            await channel.close(0)

    async def _ask(self, failed_generation: int) -> Route:
        ask = RouteAsk(
            tenant=self.tenant,
            image=self.image,
            minimum_isolation=_minimum(self.farm.isolation),
            failed_generation=failed_generation,
            client_key=self._key.public,
        )
        session = await self._login()
        try:
            return await self._client.route(session, ask)
        except UnauthenticatedError:
            self._session = None  # the scheduler was started anew
            return await self._client.route(await self._login(), ask)

    async def _result_key(self, tenant: TenantId, key_id: str) -> bytes | None:
        async with self._lock:
            session = await self._login()
        try:
            return await self._client.result_key(session, tenant, key_id)
        except UnauthenticatedError:
            async with self._lock:
                if self._session is not None and self._session.session == session:
                    self._session = None
                session = await self._login()
            return await self._client.result_key(session, tenant, key_id)

    async def _login(self) -> str:
        session = self._session
        if session is None or session.expires_at - _RENEW_BEFORE_SECONDS < self._clock.now():
            session = self._session = await self._client.authenticate(
                secret=await self._source.token() if self._source else self.farm.secret,
                tenant=self.tenant,
                principal=self.farm.principal,
                client_version=self._version,
                host=HostReport(self.image, tuple(self._hosts.values())),
            )
            await self._keep(session)
        if self._watcher is None or self._watcher.done():
            self._watcher = asyncio.Task(self._watch(session.session), name="routes")
        return session.session

    async def _keep(self, grant: SessionGrant) -> None:
        """Tell the daemon what the scheduler said; a full disk costs it the news, nothing else."""
        image = grant.image
        is_ours = image is not None and image.image == self.image.digest
        self.said = FarmSession(
            scheduler=self.farm.scheduler,
            tenant=self.farm.tenant,
            image=self.farm.image,
            expires_at=float(grant.expires_at),
            policy=grant.policy,
            compilers=image.compilers if image is not None and is_ours else None,
        )
        if self._session_file is None:
            return
        try:
            await asyncio.to_thread(
                write_private_file, self._session_file, self.said.to_json().encode()
            )
        except InfrastructureError as error:
            _log.warning("%s", error)

    async def _watch(self, session: str) -> None:
        """Drop the route as soon as the scheduler says that it died, or stops telling.

        The next compile asks again then, before it dials a dead worker.
        """
        try:
            async with aclosing(self._client.watch(session, self.tenant)) as changes:
                async for change in changes:
                    route = self._route
                    if (
                        change.is_dead
                        and route is not None
                        and route.worker_id == change.worker_id
                        and route.generation <= change.generation
                    ):
                        self._route = None
        except HpccError as error:
            _log.info("route watch: %s", error)
            is_ours = self._session is not None and self._session.session == session
            if is_ours and isinstance(error, UnauthenticatedError):
                self._session = None
        # The next question starts another watch, with the session of then.
        self._route = None

    def _channel(self, route: Route) -> grpc.aio.Channel:
        key = (route.endpoint, route.worker_certificate)
        channel = self._channels.get(key)
        if channel is None:
            peer = PinnedPeer.from_der(route.worker_certificate)
            channel = open_pinned(
                route.endpoint, certificate_pem=peer.certificate_pem, name=peer.name
            )
            self._channels[key] = channel
        return channel


def _minimum(label: str) -> Isolation | None:
    """A farm that came up with some isolation is not used with a weaker one."""
    try:
        return Isolation(label)
    except ValueError:
        return None


@asynccontextmanager
async def connect_farm(
    farm: Farm, clock: Clock, version: str, *, session_file: Path | None = None
) -> AsyncGenerator[FarmConnection]:
    """Give the connection to a farm; nothing is sent before the first compile.

    Raises:
        CallerError: farm.json holds no certificate.
    """
    try:
        peer = PinnedPeer.from_pem(farm.scheduler_certificate_pem.encode())
    except CallerError as error:
        raise CallerError(
            "farm.json is damaged: run `hpcc up` again", reason="farm-file"
        ) from error
    async with open_pinned(
        farm.scheduler, certificate_pem=peer.certificate_pem, name=peer.name
    ) as channel:
        connection = FarmConnection(farm, channel, clock, version, session_file=session_file)
        try:
            yield connection
        finally:
            await connection.close()
