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

from hpcc.config.farm import Farm
from hpcc.config.farm_session import FarmSession
from hpcc.config.private_file import write_private_file
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
from hpcc.core.memo import BoundedMemo, LruMemo
from hpcc.dispatch.parity import toolchain_of
from hpcc.dispatch.routes import RouteBook
from hpcc.identity.login.source import LoginSource
from hpcc.identity.proof import ProofKey
from hpcc.identity.result_keys import ResultKeys
from hpcc.identity.tls import PinnedPeer
from hpcc.ports import Clock
from hpcc.rpc.base.channel import dial
from hpcc.rpc.base.channel import open_channel as open_pinned
from hpcc.rpc.base.errors import UnauthenticatedError, UnavailableError
from hpcc.rpc.reapi.client import answers
from hpcc.rpc.scheduler.api import WATCHING, Route, RouteAsk, SessionGrant
from hpcc.rpc.scheduler.client import SchedulerClient
from hpcc.rpc.scheduler.schedulers import Schedulers, open_schedulers

_log: Final = logging.getLogger(__name__)
# A token is renewed when it would end within this, so that it outlives the calls made with it.
_RENEW_BEFORE_SECONDS: Final = 60.0
# A proof is valid for one method for a minute. Signing costs as much as the rest of a call.
_PROOF_SECONDS: Final = 10.0
_MAX_PROOFS: Final = 64
# Workers come and go, each with its own address and certificate.
_MAX_CHANNELS: Final = 64
# How long a worker has to accept a connection, and to answer when its death was reported.
DIAL_SECONDS: Final = 5.0
# How long the scheduler has to confirm that it will report deaths.
_WATCH_SECONDS: Final = 2.0
# Pause before a broken watch is opened again, while calls are under way.
_REWATCH_SECONDS: Final = 1.0


@dataclass(frozen=True, slots=True)
class RoutedWorker:
    """A worker to call: its channel, the route that allows it, and the proof for each call."""

    channel: grpc.aio.Channel
    route: Route
    tenant: TenantId
    prove: Callable[[str], str]


class FarmConnection:
    """The session, route and channels that belong to one content of farm.json."""

    def __init__(
        self,
        farm: Farm,
        schedulers: Schedulers,
        clock: Clock,
        version: str,
        *,
        session_file: Path | None = None,
    ) -> None:
        self.farm = farm
        self.tenant = TenantId(farm.tenant)
        self.image = ImageRef.parse(farm.image)
        self._client, self._clock, self._version = SchedulerClient(schedulers), clock, version
        self._source = LoginSource(Path(farm.login), clock) if farm.login else None
        # Only this process has the key, so that a copied token does not work elsewhere.
        self._key = ProofKey()
        self._proofs: BoundedMemo[tuple[str, str], tuple[str, float]] = BoundedMemo(_MAX_PROOFS)
        self.result_keys = ResultKeys(self._result_key, clock)
        self._lock = asyncio.Lock()
        self._session: SessionGrant | None = None
        self._book = RouteBook()
        # Its guests may be warm for us. Any scheduler gets it as a hint.
        self._last_worker = ""
        self._channels: LruMemo[tuple[str, bytes], grpc.aio.Channel] = LruMemo(_MAX_CHANNELS)
        self._watcher: asyncio.Task[None] | None = None
        self._session_file = session_file
        # The scheduler's answer to the last login; None before the first.
        self.said: FarmSession | None = None
        # The compilers named by requests, by name, for the next login's report.
        self._hosts: dict[str, Toolchain] = {}
        self._read: BoundedMemo[str, Toolchain | None] = BoundedMemo(MAX_TOOLCHAINS)
        # `_is_watching`: a watch is open. `_is_told`: it delivers deaths, or has ended.
        self._is_watching = False
        self._is_told = asyncio.Event()
        # Calls under way, each with the scope that ends it when its worker is gone.
        self._scopes: dict[asyncio.Timeout, RoutedWorker] = {}
        self._probes: dict[grpc.aio.Channel, asyncio.Task[None]] = {}

    def host(self, text: str) -> Toolchain | None:
        """Parse the compiler that a request carries, and add it to the next login's report."""
        if text not in self._read:
            found = self._read[text] = toolchain_of(text)
            hosts = self._hosts
            if found and (found.names[0] in hosts or len(hosts) < MAX_TOOLCHAINS):
                hosts[found.names[0]] = found
        return self._read[text]

    async def worker(self) -> RoutedWorker:
        """Return a worker with a token that stays valid for at least a minute.

        Raises:
            HpccError: the scheduler is unreachable, refuses us, or knows no worker.
        """
        async with self._lock:
            route = self._book.current
            if route is None or route.token_expires_at - _RENEW_BEFORE_SECONDS < self._clock.now():
                route = await self._ask(0)
            return self._routed(route)

    async def reroute(self, failed: Route, error: HpccError) -> RoutedWorker:
        """Replace a route that failed; all compiles that used it share one route request.

        Raises:
            HpccError: see `worker`. The failed route is not returned while it is shunned.
        """
        async with self._lock:
            self._book.give_up(
                failed, self._clock.monotonic(), is_workers_fault=_is_workers_fault(error)
            )
            return self._routed(self._book.current or await self._ask(failed.generation))

    @asynccontextmanager
    async def reached(self, worker: RoutedWorker) -> AsyncGenerator[None]:
        """Dial a worker and run the block; the block is cancelled if the worker is gone.

        A reported death does not prove that the worker is gone: often one guest of many died. So
        the worker itself is asked.

        Raises:
            UnavailableError: the worker accepts no connection, or does not answer any more.
        """
        scope = asyncio.timeout(None)
        self._scopes[scope] = worker
        if self._watcher is None or self._watcher.done():
            # The watch broke while this route was requested.
            self._start_watch(None)
        try:
            async with scope:
                await dial(worker.channel, DIAL_SECONDS)
                yield
        except TimeoutError as error:
            if scope.expired():
                raise UnavailableError("the worker is gone", reason="worker-gone") from error
            raise
        finally:
            del self._scopes[scope]

    def _routed(self, route: Route) -> RoutedWorker:
        def prove(method: str) -> str:
            now = self._clock.now()
            proof, made_at = self._proofs.get((route.token, method), ("", 0.0))
            if not 0 <= now - made_at < _PROOF_SECONDS:
                proof = self._key.sign(route.token, method, now)
                self._proofs[route.token, method] = proof, now
            return proof

        return RoutedWorker(self._channel(route), route, self.tenant, prove)

    async def close(self) -> None:
        """End the watch and all probes, and close the channels."""
        if self._watcher is not None:
            await _ended(self._watcher)
        for probe in list(self._probes.values()):
            await _ended(probe)
        for channel in self._channels.values():
            await channel.close(0)

    async def _ask(self, failed_generation: int) -> Route:
        """Request a route that is neither dead nor shunned; a second time if the first one is."""
        route = await self._answer(failed_generation)
        if self._book.take(route, self._clock.monotonic()):
            return route
        route = await self._answer(route.generation)
        if self._book.take(route, self._clock.monotonic()):
            return route
        raise UnavailableError("the scheduler knows no other worker", reason="worker-gone")

    async def _answer(self, failed_generation: int) -> Route:
        ask = RouteAsk(
            tenant=self.tenant,
            image=self.image,
            minimum_isolation=_minimum(self.farm.isolation),
            failed_generation=failed_generation,
            client_key=self._key.public,
            last_worker=self._last_worker,
        )
        session = await self._login()
        try:
            route = await self._client.route(session, ask)
        except UnauthenticatedError:
            self._session = None  # the scheduler ended it, or revoked its key
            route = await self._client.route(await self._login(), ask)
        self._last_worker = route.worker_id
        return route

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
        session = await self._sign_in()
        if not self._is_watching:
            if self._watcher is not None:
                await _ended(self._watcher)
            self._start_watch(session)
        if not self._is_told.is_set():
            # A death between the route's answer and the first news would never be reported.
            with suppress(TimeoutError):
                async with asyncio.timeout(_WATCH_SECONDS):
                    await self._is_told.wait()
        return session

    async def _sign_in(self) -> str:
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
        return session.session

    def _start_watch(self, session: str | None) -> None:
        self._is_watching = session is not None
        self._is_told.clear()
        self._watcher = asyncio.Task(self._keep_watch(session), name="routes")

    async def _keep_watch(self, session: str | None) -> None:
        """Watch for deaths, and reopen the watch while calls are under way.

        Without calls the watch ends; the next login starts it again.
        """
        if session is not None:
            await self._watch(session)
        while self._scopes:
            await self._clock.sleep(_REWATCH_SECONDS)
            try:
                async with self._lock:
                    session = await self._sign_in()
            except HpccError as error:
                _log.info("route watch: %s", error)
                continue
            self._is_watching = True
            self._is_told.clear()
            await self._watch(session)

    async def _keep(self, grant: SessionGrant) -> None:
        """Write the scheduler's answer for the daemon. If that fails, the daemon keeps the old."""
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
        """Drop the route when the scheduler reports its death, or when the stream ends.

        The next compile then requests a new route instead of dialling a dead worker.
        """
        try:
            async with aclosing(self._client.watch(session, self.tenant)) as changes:
                async for change in changes:
                    self._is_told.set()
                    self._book.told(change)
                    if change == WATCHING:
                        # Deaths before this were not delivered, so workers in use are asked.
                        self._suspect(lambda _: True)
                    self._suspect(lambda w: self._book.is_dead(w.route))
        except HpccError as error:
            _log.info("route watch: %s", error)
            is_ours = self._session is not None and self._session.session == session
            if is_ours and isinstance(error, UnauthenticatedError):
                self._session = None
        finally:
            # Wakes `_login`, which must not wait for a stream that has ended.
            self._is_told.set()
            self._is_watching = False
        self._book.silent()
        self._suspect(lambda _: True)

    def _suspect(self, is_suspect: Callable[[RoutedWorker], bool]) -> None:
        """Ask the workers of suspect calls whether they are alive; one probe per worker."""
        for channel in {w.channel for w in self._scopes.values() if is_suspect(w)}:
            if channel not in self._probes:
                self._probes[channel] = asyncio.Task(self._probe(channel), name="probe")

    async def _probe(self, channel: grpc.aio.Channel) -> None:
        try:
            is_there = await answers(channel, DIAL_SECONDS)
        finally:
            del self._probes[channel]
        if not is_there:
            now = asyncio.get_running_loop().time()
            for scope in [s for s, w in self._scopes.items() if w.channel is channel]:
                scope.reschedule(now)

    def _channel(self, route: Route) -> grpc.aio.Channel:
        key = (route.endpoint, route.worker_certificate)
        channel = self._channels.get(key)
        if channel is None:
            peer = PinnedPeer.from_der(route.worker_certificate)
            channel = open_pinned(
                route.endpoint, certificate_pem=peer.certificate_pem, name=peer.name
            )
            self._channels[key] = channel  # an evicted channel closes with its last reference
        return channel


def _is_workers_fault(error: HpccError) -> bool:
    """Return False where the worker may be asked again at once: old token, or just started."""
    return not isinstance(error, UnauthenticatedError) and error.reason != "not-ready"


async def _ended(task: asyncio.Task[None]) -> None:
    task.cancel()
    with suppress(asyncio.CancelledError):
        await task


def _minimum(label: str) -> Isolation | None:
    """Return the isolation that the farm came up with; a weaker one is not accepted."""
    try:
        return Isolation(label)
    except ValueError:
        return None


@asynccontextmanager
async def connect_farm(
    farm: Farm, clock: Clock, version: str, *, session_file: Path | None = None
) -> AsyncGenerator[FarmConnection]:
    """Open the connection to a farm; nothing is sent before the first compile.

    Raises:
        CallerError: farm.json holds no certificate.
    """
    try:
        peer = PinnedPeer.from_pem(farm.scheduler_certificate_pem.encode())
    except CallerError as error:
        raise CallerError(
            "farm.json is damaged: run `hpcc up` again", reason="farm-file"
        ) from error
    async with open_schedulers(
        farm.scheduler, certificate_pem=peer.certificate_pem, name=peer.name, clock=clock
    ) as schedulers:
        connection = FarmConnection(farm, schedulers, clock, version, session_file=session_file)
        try:
            yield connection
        finally:
            await connection.close()
