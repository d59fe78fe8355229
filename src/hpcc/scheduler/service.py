"""Answers daemons and workers: who may call, which worker serves, with which token.

The problem: a daemon needs a worker that it has never met, within milliseconds, and a worker must
know which tenant a stranger belongs to. The scheduler decides both and then leaves the path: it
names a worker and signs a route token, and the daemon talks to the worker directly.

What it decides:

- `authenticate`: whether a credential belongs to a tenant (`tenants`), and opens a session.
- `route`: whether the tenant's policy allows the image, and which live worker has it at the
  required isolation (`registry`). A client may ask for more isolation than its tenant's minimum,
  never for less. The token binds tenant, principal, worker, image, client key, rights and quotas
  for at most `token_seconds`.
- `admit`, `register`, `heartbeat`: which workers count (`enrolment`), until when, and which of
  their generations are over.
- `result_keys`: which keys may sign results (`result_keys`).

What it never receives: a source file or its name, a command line, an object file or an action
digest. Its requests hold an image digest, an isolation label and names, and what a client counted
of a build (`observing`); sources travel on the daemon's own connection to the worker.

Example: a guest dies. The worker calls `sandbox_lost`; its generation ends; every watching daemon
gets that change, and the next `route` names the new generation or another worker.

What must never happen: a route for an image that the policy does not allow, below the tenant's
minimum isolation, or for a session that has ended; a route that waits for the control store.
`route` and `heartbeat` therefore use memory only; `sharing` exchanges it with other schedulers.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncGenerator, Callable, Mapping, Sequence
from dataclasses import replace
from functools import partial
from typing import Final

from hpcc.core import ClientPolicy, HostReport, TenantId
from hpcc.ports import Clock, ControlStore
from hpcc.routing.fleet import Member
from hpcc.routing.load import Load
from hpcc.routing.pools import PoolLoad
from hpcc.rpc.scheduler.api import (
    WATCHING,
    Admission,
    Beat,
    BeatAnswer,
    Registration,
    Route,
    RouteAsk,
    RouteChange,
    SessionGrant,
    ShareAsk,
    ShareGrants,
)
from hpcc.scheduler.audit.anchors import Anchors
from hpcc.scheduler.audit.book import AuditBook
from hpcc.scheduler.audit.histories import Histories
from hpcc.scheduler.audit.recent import RecentEvents
from hpcc.scheduler.base.build_store import BuildStore
from hpcc.scheduler.base.collector import Collector
from hpcc.scheduler.base.config import SchedulerConfig
from hpcc.scheduler.base.metrics import SchedulerMetrics
from hpcc.scheduler.base.signing import SigningKeys
from hpcc.scheduler.certificates import CertificateBook
from hpcc.scheduler.drains import Drains
from hpcc.scheduler.enrolment import Enrolment
from hpcc.scheduler.observe import Observer, Sources
from hpcc.scheduler.observe_calls import ObserveCalls
from hpcc.scheduler.parity import note_parity
from hpcc.scheduler.registry import WorkerRegistry
from hpcc.scheduler.result_keys import result_key_table
from hpcc.scheduler.routes import RouteIssuer
from hpcc.scheduler.shares import ShareBook
from hpcc.scheduler.store_sync import ControlStoreSync
from hpcc.scheduler.tenants.authenticator import Authenticator
from hpcc.scheduler.tenants.sessions import Sessions
from hpcc.scheduler.watchers import Watcher, Watchers

_log: Final = logging.getLogger(__name__)
# Expired leases are searched at least so often.
_SWEEP_SECONDS: Final = 1.0
# Workers that join within this time are announced together.
_ANNOUNCE_SECONDS: Final = 0.25
# Workers handled without a pause; routes wait meanwhile.
_AT_ONCE: Final = 500


class SchedulerService:
    """`SchedulerBackend`. Routes come from memory; `sharing` keeps it current with others'."""

    def __init__(  # noqa: PLR0913 - the parts of a scheduler, which `serve_scheduler` builds
        self,
        config: SchedulerConfig,
        keys: SigningKeys,
        store: ControlStore,
        clock: Clock,
        *,
        authenticator: Authenticator,
        enrolment: Enrolment,
        book: AuditBook,
        certificates: CertificateBook,
        drains: Drains,
        histories: Histories,
        metrics: SchedulerMetrics,
        recent: RecentEvents,
    ) -> None:
        self._metrics, self._drains, self._histories = metrics, drains, histories
        self._enrolment, self._book, self._certificates = enrolment, book, certificates
        self._result_keys = result_key_table(config, store, clock)
        self._config, self._keys, self._clock = config, keys, clock
        self._registry = WorkerRegistry(clock, config.lease_seconds)
        drains.attach(self._registry)
        self._issuer = RouteIssuer(config, keys, clock, self._registry)
        self._authenticator = authenticator
        self._sessions = Sessions(
            authenticator, clock, config.session_seconds, keys=keys, store=store
        )
        self._watchers = Watchers()
        self._shares = ShareBook(
            store,
            clock,
            policy_or_none=authenticator.policy_or_none,
            capacities=self._registry.capacities,
            lease_seconds=config.lease_seconds,
        )
        self.sharing = ControlStoreSync(
            store,
            clock,
            registry=self._registry,
            watchers=self._watchers,
            sessions=self._sessions,
            lease_seconds=config.lease_seconds,
            anchors=Anchors(clock, check=book.check, on_cut=book.cut),
            is_alone=not config.database,
        )
        self._recent, self._observer = recent, self._new_observer(recent)
        builds = BuildStore(clock, config.build_limits, is_proved=bool(config.tenants))
        self.observing = ObserveCalls(self._sessions, self._observer, builds, metrics)

    def _new_observer(self, recent: RecentEvents) -> Observer:
        sources = Sources(
            watches=self._watchers.by_tenant,
            shares=self._shares.current,
            is_store_up=lambda: self.sharing.is_up,
            scheduler_id=lambda: self._keys.issuer,
            drain_mark=self._drains.mark_or_none,
            routes=self._metrics.routes_by_tenant,
            events=recent.shown,
        )
        return Observer(self._config, self._registry, sources, self._clock)

    def show(self, pools: Callable[[], Mapping[str, PoolLoad]]) -> None:
        """Let the metrics read what is in memory here, and the loads of pools."""
        self.sharing.on_exchange = partial(self._metrics.store_call, "exchange")
        self._metrics.read(
            load=self._observer.counted,
            watches=self._watchers.by_tenant,
            is_store_up=lambda: self.sharing.is_up,
            pools=pools,
        )

    def members(self) -> list[Member]:
        """Return the states of the workers whose lease has not ended."""
        return [row.member for row in self._registry.live()]

    def load(self) -> Load:
        """Return the load of all workers, which is at most a second old."""
        return self._observer.counted()

    def judge(self, credential: str) -> None:
        """Check that a credential is a session that counts, or raise UnauthenticatedError."""
        self._sessions.check(credential)

    async def authenticate(
        self,
        credential: str,
        tenant: TenantId,
        principal: str,
        client_version: str,
        host: HostReport | None = None,
    ) -> SessionGrant:
        """Open a session, with the tenant's client policy and the image's compilers.

        Raises:
            UnauthenticatedError: the credential is not valid for this tenant.
            UnavailableError: the credential cannot be checked now.
            ControlStoreError: the session cannot be counted now.
        """
        with self._metrics.login(tenant.value):
            admitted = await self._authenticator.admit(credential, tenant, principal)
        policy, image = admitted.policy, None
        if host is not None and policy.allows(host.image):
            # A caller learns nothing about an image of other tenants, not even that it is here.
            image = self._registry.toolchains(host.image.digest)
            note_parity(tenant, host, image)
        said = ClientPolicy(fallback=policy.fallback, parity=policy.parity)
        grant, floors = await self._sessions.open(admitted, client_version)
        await self.sharing.sessions_ended(floors)
        return replace(grant, policy=said, image=image, certificates=self._certificates.announced)

    def route(self, credential: str, ask: RouteAsk) -> Route:
        """Choose a worker, or several, and sign a token for each. Uses memory only.

        Raises:
            UnauthenticatedError: the session is unknown or has ended.
            PolicyError: the session is another tenant's, or the image is not allowed.
            NotFoundError: no live worker has the image at the required isolation.
        """
        session, policy = self._sessions.find(credential, ask.tenant)
        with self._metrics.routing(policy.tenant.value):
            return self._issuer.issue(session, policy, ask)

    async def result_keys(
        self, credential: str, tenant: TenantId, key_ids: tuple[str, ...]
    ) -> Mapping[str, bytes]:
        """Return the valid ones of these result keys, 32 bytes by key id."""
        self._sessions.find(credential, tenant)
        return await self._result_keys.listed(key_ids)

    async def watch(
        self, credential: str, tenant: TenantId, *, takes_several: bool = False
    ) -> AsyncGenerator[RouteChange]:
        """Yield `WATCHING`, then each generation that ends, until the session is over.

        Raises:
            UnauthenticatedError: the session is unknown or has ended.
            PolicyError: it is another tenant's, or there are too many watchers.
        """
        session, _ = self._sessions.find(credential, tenant)
        watcher = Watcher(
            tenant,
            session.principal,
            lambda: self._sessions.is_over(credential, tenant),
            takes_several=takes_several,
        )
        self._watchers.add(watcher)
        try:
            # Deaths from here on are delivered, so a route that the caller asks for now is safe.
            yield WATCHING
            while (news := await watcher.next_or_none()) is not None:
                yield news
        finally:
            self._watchers.discard(watcher)

    async def admit(self, certificate: bytes, worker_id: str | None) -> str:
        """Return the worker that a certificate belongs to; raises as `Enrolment.admit` does."""
        return await self._enrolment.admit(certificate, worker_id)

    async def register(self, registration: Registration) -> Admission:
        """Register a worker whose certificate `admit` has accepted.

        Raises:
            CallerError: there are too many workers, or the result key is not proved.
            PolicyError: the result key was revoked.
        """
        await self._result_keys.note(registration)
        row = self._registry.row_or_none(registration.worker_id)
        is_elsewhere = (
            row is not None
            and row.member.lease_until > self._clock.monotonic()
            and not self._registry.speaks_here(registration.worker_id)
        )
        worker, dead = self._registry.register(registration)
        self._watchers.tell(dead)
        self.sharing.joined(registration.worker_id)
        self._histories.registered(registration.worker_id, is_heard_elsewhere=is_elsewhere)
        for change in dead:
            await self.sharing.ended(change, worker.generation)
        return Admission(
            token_keys=self._keys.token_keys,
            generation=worker.generation,
            lease_seconds=self._registry.lease_seconds,
            scheduler_id=self._keys.issuer,
            audience=worker.audience,
        )

    def heartbeat(self, beat: Beat) -> BeatAnswer:
        """Renew a worker's lease and note its audit anchor.

        Raises:
            NotFoundError: the worker is not registered here: it must register again.
        """
        self._metrics.heartbeats.add()
        is_new_here = not self._registry.speaks_here(beat.worker_id)
        worker, dead = self._registry.heartbeat(beat)
        self._watchers.tell(dead)
        if is_new_here:
            # The scheduler that it spoke to before must not drop it as lost.
            self.sharing.joined(beat.worker_id)
        if beat.anchor is not None:
            self.sharing.anchors.note(beat.anchor)
        if beat.events:
            self._recent.workers.note(beat.worker_id, beat.events)
        return BeatAnswer(
            self._keys.token_keys,
            worker.generation,
            self._registry.lease_seconds,
            self._result_keys.due_or_empty(worker.registration.result_key),
            self._certificates.announced,
            self._drains.order_or_none(beat.worker_id),
            self._histories.note(
                beat.worker_id, beat.tree, beat.anchor.count if beat.anchor is not None else None
            ),
        )

    def parted(self, worker_id: str) -> None:
        """Note that a worker's stream ended: no new routes to it until it returns."""
        self._registry.parted(worker_id)
        self.sharing.anchors.hurry(worker_id)
        self._histories.hurry(worker_id)

    async def sandbox_lost(
        self, worker_id: str, generation: int, guest_id: str, reason: str
    ) -> int:
        """End a worker's generation after it lost a guest; return the next one.

        Raises:
            NotFoundError: the worker is not registered here.
        """
        change, successor = self._registry.lost(worker_id, generation)
        self._metrics.guests_lost.add()
        _log.warning("guest %s of worker %s is lost: %s", guest_id, worker_id, reason)
        self._watchers.tell([change])
        await self.sharing.ended(change, successor.generation)
        return successor.generation

    async def lease_shares(self, worker_id: str, asks: Sequence[ShareAsk]) -> ShareGrants:
        """Divide places among the workers that ask; see `ShareBook`."""
        return await self._shares.lease(worker_id, asks)

    async def deregister(self, worker_id: str) -> None:
        """Remove a worker; without effect if it is unknown."""
        await self._remove(worker_id)

    async def _remove(self, worker_id: str) -> None:
        change = self._registry.remove(worker_id)
        if change is not None:
            self._watchers.tell([change])
            await self.sharing.ended(change, 0)

    async def result_keys_for_worker(
        self, tenant: TenantId, key_ids: tuple[str, ...]
    ) -> Mapping[str, bytes]:
        """Return the valid ones of these result keys for a worker, which serves all tenants."""
        del tenant  # a worker serves all tenants
        return await self._result_keys.listed(key_ids)

    async def work(self, collector: Collector | None = None) -> None:
        """Do the periodic work until cancelled."""
        async with asyncio.TaskGroup() as group:
            if collector is not None:
                group.create_task(self._tend_memory(collector), name="collector")
            group.create_task(self.expire_leases(), name="scheduler leases")
            group.create_task(self.revoke_workers(), name="result keys")
            group.create_task(self.announce(), name="new workers")
            group.create_task(self.sharing.run(), name="control store")
            group.create_task(self._observer.run(), name="load of the last hour")

    async def _tend_memory(self, collector: Collector) -> None:
        while True:
            await self._clock.sleep(_SWEEP_SECONDS)
            collector.grown(len(self._registry))

    async def expire_leases(self) -> None:
        """Drop what has ended, until cancelled: workers by lease or stream, watches by session."""
        while True:
            await self._clock.sleep(min(self._config.lease_seconds / 4, _SWEEP_SECONDS))
            self._watchers.sweep()
            self._watchers.tell(self._registry.expire())
            for worker_id in self._registry.deserters():
                _log.warning("worker %s is dropped: its stream broke", worker_id)
                await self._remove(worker_id)

    async def announce(self) -> None:
        """Tell daemons when workers were added, until cancelled.

        One message stands for all workers of a quarter of a second, and carries no name.
        """
        known = self._registry.additions
        while True:
            await self._clock.sleep(_ANNOUNCE_SECONDS)
            if self._registry.additions != known:
                known = self._registry.additions
                self._watchers.ask_again()

    async def revoke_workers(self) -> None:
        """Drop workers that were revoked, or whose result key was, until cancelled."""
        while True:
            await self._clock.sleep(self._config.lease_seconds / 4)
            for number, worker in enumerate(self._registry.registrations()):
                if number % _AT_ONCE == _AT_ONCE - 1:
                    await asyncio.sleep(0)
                if self._enrolment.is_revoked(worker.worker_id):
                    _log.error("worker %s is dropped: it was revoked", worker.worker_id)
                    await self._remove(worker.worker_id)
            for worker_id in await self._result_keys.tend(self._registry.registrations()):
                _log.error("worker %s is dropped: its result key was revoked", worker_id)
                await self._remove(worker_id)
