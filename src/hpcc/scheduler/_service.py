"""The scheduler's decisions behind its API: who may, where to, with which token."""

from __future__ import annotations

import hmac
import logging
import secrets
from collections.abc import AsyncGenerator, Mapping
from dataclasses import replace
from typing import Final

from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from hpcc.audit import AuditDamagedError, check_head
from hpcc.core import ClientPolicy, HostReport, Isolation, PolicyError, TenantId
from hpcc.identity import RouteClaims, TokenSigner, key_id
from hpcc.ports import Clock, SignedHead
from hpcc.rpc import (
    WATCHING,
    Admission,
    Beat,
    BeatAnswer,
    Registration,
    Route,
    RouteAsk,
    RouteChange,
    SessionGrant,
    UnauthenticatedError,
)
from hpcc.scheduler._anchors import AnchorStore
from hpcc.scheduler._config import SchedulerConfig
from hpcc.scheduler._parity import note_parity
from hpcc.scheduler._registry import Registry, Worker
from hpcc.scheduler._result_keys import ResultKeyTable
from hpcc.scheduler._tenants import TenantPolicy
from hpcc.scheduler._tenants_door import Door
from hpcc.scheduler._tenants_sessions import Session, Sessions
from hpcc.scheduler._watchers import Watcher, Watchers

_log: Final = logging.getLogger(__name__)


class SchedulerService:
    """`SchedulerBackend`; all state is in memory but the anchors."""

    def __init__(
        self,
        config: SchedulerConfig,
        key: Ed25519PrivateKey,
        anchors: AnchorStore,
        clock: Clock,
        *,
        scheduler_id: str,
        door: Door,
        result_keys: ResultKeyTable,
    ) -> None:
        self._result_keys = result_keys
        self._config, self._clock, self._anchors = config, clock, anchors
        self._scheduler_id = scheduler_id
        kid = key_id(key.public_key())
        self._signer = TokenSigner(key, kid=kid)
        public = key.public_key().public_bytes(
            serialization.Encoding.Raw, serialization.PublicFormat.Raw
        )
        self._token_keys = ((kid, public),)
        self._registry = Registry(clock, config.lease_seconds)
        self._door = door
        self._sessions = Sessions(door, clock, config.session_seconds)
        self._watchers = Watchers()

    async def authenticate(
        self,
        credential: str,
        tenant: TenantId,
        principal: str,
        client_version: str,
        host: HostReport | None = None,
    ) -> SessionGrant:
        admitted = await self._door.admit(credential, tenant, principal)
        policy, image = admitted.policy, None
        if host is not None and policy.allows(host.image):
            # Of an image of other tenants nothing is said, not even that it is here.
            image = self._registry.toolchains(host.image.digest)
            note_parity(tenant, host, image)
        said = ClientPolicy(fallback=policy.fallback, parity=policy.parity)
        grant = self._sessions.open(admitted, client_version)
        return replace(grant, policy=said, image=image)

    def route(self, credential: str, ask: RouteAsk) -> Route:
        session, policy = self._sessions.find(credential, ask.tenant)
        image = ask.image.digest
        if not policy.allows(ask.image):
            raise PolicyError(f"image {image} is not allowed for this tenant", reason="image")
        minimum = _minimum(policy.minimum_isolation, ask.minimum_isolation)
        self._watchers.tell(self._registry.expire())
        worker = self._registry.choose(
            image,
            minimum,
            failed_generation=ask.failed_generation,
            preferred_worker=ask.preferred_worker,
        )
        claims = self._claims(session, policy, ask, minimum, worker)
        return Route(
            endpoint=worker.registration.endpoint,
            worker_certificate=worker.registration.certificate,
            token=self._signer.sign(claims),
            token_expires_at=claims.expires_at,
            generation=worker.generation,
            isolation=worker.registration.isolation,
            worker_id=worker.registration.worker_id,
            principal=session.principal,
            guest_reuse=policy.guest_reuse,
            minimum_isolation=minimum,
        )

    async def result_keys(
        self, credential: str, tenant: TenantId, key_ids: tuple[str, ...]
    ) -> Mapping[str, bytes]:
        self._sessions.find(credential, tenant)
        return await self._result_keys.listed(key_ids)

    async def watch(self, credential: str, tenant: TenantId) -> AsyncGenerator[RouteChange]:
        session, _ = self._sessions.find(credential, tenant)
        watcher = Watcher(
            tenant, session.principal, lambda: self._sessions.is_over(credential, tenant)
        )
        self._watchers.add(watcher)
        try:
            # From here on the caller is told of every death: a route that it asks for now is safe.
            yield WATCHING
            for change in list(self._registry.live()):
                yield change
            while (news := await watcher.next_or_none()) is not None:
                yield news
        finally:
            self._watchers.discard(watcher)

    async def register(self, credential: str, registration: Registration) -> Admission:
        self._check_worker(credential)
        await self._result_keys.note(registration)
        replaced = self._registry.remove(registration.worker_id)
        worker = self._registry.register(registration)
        self._watchers.tell([replaced] if replaced else [])
        return Admission(
            token_keys=self._token_keys,
            generation=worker.generation,
            lease_seconds=self._config.lease_seconds,
            scheduler_id=self._scheduler_id,
            audience=worker.audience,
        )

    def heartbeat(self, credential: str, beat: Beat) -> BeatAnswer:
        self._check_worker(credential)
        worker = self._registry.heartbeat(beat)
        if beat.anchor is not None:
            self._note_anchor(beat.anchor)
        return BeatAnswer(self._token_keys, worker.generation)

    def _note_anchor(self, anchor: SignedHead) -> None:
        try:
            check_head(anchor)
        except AuditDamagedError as error:
            _log.error("audit anchor of worker %s: %s", anchor.worker, error)
            return
        is_whole = self._anchors.note(anchor.worker, anchor.count, anchor.head, self._clock.now())
        if not is_whole:
            _log.error("audit chain of worker %s was cut or changed", anchor.worker)

    def sandbox_lost(self, credential: str, worker_id: str, guest_id: str, reason: str) -> int:
        self._check_worker(credential)
        change, successor = self._registry.lost(worker_id)
        _log.warning("guest %s of worker %s is lost: %s", guest_id, worker_id, reason)
        self._watchers.tell([change])
        return successor.generation

    def deregister(self, credential: str, worker_id: str) -> None:
        self._check_worker(credential)
        change = self._registry.remove(worker_id)
        self._watchers.tell([change] if change else [])

    async def result_keys_for_worker(
        self, credential: str, tenant: TenantId, key_ids: tuple[str, ...]
    ) -> Mapping[str, bytes]:
        del tenant  # a worker serves all of them
        self._check_worker(credential)
        return await self._result_keys.listed(key_ids)

    async def expire_leases(self) -> None:
        """Drop who is over until cancelled: workers by lease or revoked key, watches by session."""
        while True:
            await self._clock.sleep(self._config.lease_seconds / 4)
            self._watchers.sweep()
            self._watchers.tell(self._registry.expire())
            for worker_id in await self._result_keys.tend(self._registry.registrations()):
                _log.error("worker %s is dropped: its result key was revoked", worker_id)
                change = self._registry.remove(worker_id)
                self._watchers.tell([change] if change else [])

    def _check_worker(self, credential: str) -> None:
        if not hmac.compare_digest(credential.encode(), self._config.worker_secret.encode()):
            _log.warning("refused: worker credential")
            raise UnauthenticatedError("worker secret is wrong", reason="bad-secret")

    def _claims(
        self,
        session: Session,
        policy: TenantPolicy,
        ask: RouteAsk,
        minimum: Isolation,
        worker: Worker,
    ) -> RouteClaims:
        now = self._clock.now()
        return RouteClaims(
            issuer=self._scheduler_id,
            subject=session.principal,
            tenant=session.tenant,
            audience=worker.audience,
            image=ask.image.digest,
            minimum_isolation=minimum,
            generation=worker.generation,
            rights=frozenset({"cache", "execute"}),
            guest_reuse=policy.guest_reuse,
            client_key=ask.client_key,
            quotas=policy.quotas.of_one_worker,
            not_before=now,
            expires_at=now + self._config.token_seconds,
            token_id=secrets.token_urlsafe(16),
            client_version=session.client_version,
        )


def _minimum(tenants: Isolation, asked: Isolation | None) -> Isolation:
    """A client may ask for more isolation than its tenant needs, never for less."""
    return tenants if asked is None or asked.rank < tenants.rank else asked
