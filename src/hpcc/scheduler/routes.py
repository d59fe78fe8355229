"""Issues routes: which workers serve a caller, and the signed token for each of them.

One answer may have several routes, and a build uses all of them at the same time. Their tokens
differ in worker, generation, share and id only: each is bound to tenant, principal, image and
client key.
"""

from __future__ import annotations

import hashlib
import hmac
import secrets
from dataclasses import dataclass, replace
from functools import partial
from typing import Final

from hpcc.core import PRIVATE_ONLY, GuestReuse, Isolation, PolicyError, TenantId
from hpcc.identity.session_token import SessionClaims
from hpcc.identity.token import RouteClaims, RouteShare, RouteSharing
from hpcc.ports import Clock
from hpcc.routing.fleet import RouteRequest
from hpcc.routing.shares import allot
from hpcc.rpc.scheduler.api import MAX_ROUTES, Registration, Route, RouteAsk
from hpcc.scheduler.base.config import SchedulerConfig
from hpcc.scheduler.base.signing import SigningKeys
from hpcc.scheduler.registry import WorkerRegistry
from hpcc.scheduler.registry_row import Worker
from hpcc.scheduler.tenants.table import TenantPolicy, TenantQuotas

_PSEUDONYM_CHARS: Final = 32


@dataclass(frozen=True, slots=True, kw_only=True)
class _Terms:
    """What the routes of an answer have in common; `claims` lacks what depends on the worker."""

    claims: partial[RouteClaims]
    sharing: RouteSharing | None
    is_leased: bool
    has_others: bool
    packs: bool


class RouteIssuer:
    """Chooses workers and signs tokens. Uses memory only."""

    def __init__(
        self, config: SchedulerConfig, keys: SigningKeys, clock: Clock, registry: WorkerRegistry
    ) -> None:
        self._config, self._keys, self._clock, self._registry = config, keys, clock, registry

    def issue(self, session: SessionClaims, policy: TenantPolicy, ask: RouteAsk) -> Route:
        """Return a route for a caller, with more routes beside it if the caller wants several.

        Raises:
            PolicyError: the image is not allowed.
            NotFoundError: no live worker has the image at the required isolation.
        """
        image = ask.image.digest
        if not policy.allows(ask.image):
            raise PolicyError(f"image {image} is not allowed for this tenant", reason="image")
        minimum = _minimum(policy.minimum_isolation, ask.minimum_isolation)
        request = RouteRequest(
            image=image,
            rank=minimum.rank,
            home=_home(session, ask),
            last=ask.last_worker,
            # What is under way at the caller's workers counts against its quota: another first
            # worker would get a share beside them.
            preferred=ask.preferred_worker or next(iter(ask.warm_workers), ""),
            failed_generation=ask.failed_generation,
            warm=ask.warm_workers,
        )
        first = self._registry.choose(request, secrets.randbelow)
        workers, slots = self._workers(request, first, ask.wanted, policy.quotas)
        shares = policy.quotas.split(slots)
        terms = _Terms(
            claims=self._claims(session, policy, ask, minimum),
            sharing=self._sharing(policy, session.principal),
            is_leased=policy.quotas.is_leased,
            has_others=self._registry.has_others(image),
            packs=policy.sharing.packs,
        )
        one, *more = [
            self._route(terms, worker, places, share)
            for worker, places, share in zip(workers, slots, shares, strict=True)
        ]
        return replace(one, more=tuple(more)) if more else one

    def _workers(
        self, request: RouteRequest, first: Worker, wanted: int, quotas: TenantQuotas
    ) -> tuple[list[Worker], list[int]]:
        """Return the workers of an answer, and how many compiles each takes of the caller."""
        limit = quotas.most_execs
        workers = [first]
        if first.registration.capacity < wanted:
            further = self._registry.further(request, first, MAX_ROUTES - 1)
            if quotas.is_split:
                # A worker that does not know shares would grant the whole quota.
                further = [w for w in further if w.registration.knows_shares]
                further = further if first.registration.knows_shares else []
            if quotas.is_leased:
                # Likewise one that leases nothing.
                further = [w for w in further if w.registration.knows_leases]
                further = further if first.registration.knows_leases else []
            workers += further
        slots = allot([w.registration.capacity for w in workers], wanted, limit)
        workers = workers[: len(slots)]
        for worker in workers[1:]:
            self._registry.count_route(worker)
        return workers, slots

    def _route(self, terms: _Terms, worker: Worker, slots: int, share: RouteShare | None) -> Route:
        registration = worker.registration
        claims = terms.claims(
            audience=worker.audience,
            generation=worker.generation,
            leased=terms.is_leased and registration.knows_leases,
            sharing=_known_sharing(terms.sharing, registration),
            share=share,
            token_id=secrets.token_urlsafe(16),
        )
        return Route(
            endpoint=registration.endpoint,
            worker_certificate=registration.certificate,
            token=self._keys.signer().sign(claims),
            token_expires_at=claims.expires_at,
            generation=worker.generation,
            isolation=registration.isolation,
            worker_id=registration.worker_id,
            principal=claims.subject,
            guest_reuse=claims.guest_reuse,
            minimum_isolation=claims.minimum_isolation,
            slots=slots,
            store=_store_of(claims.tenant, registration.store),
            sharing=claims.sharing.policy if claims.sharing else PRIVATE_ONLY,
            has_others=terms.has_others,
            packs=terms.packs,
        )

    def _sharing(self, policy: TenantPolicy, principal: str) -> RouteSharing | None:
        """Return what the tenant accepts of colleagues' results, and the caller as a voter."""
        accepted = policy.sharing.policy
        if not _has_voters(policy):
            # One voter cannot agree, so nobody needs claims.
            accepted = replace(accepted, agree=0)
        if accepted.is_private or policy.guest_reuse is GuestReuse.EXEC:
            return None
        epoch, secret = self._keys.voter_secret()
        name = f"{policy.tenant}\0{_voter_name(policy, principal)}".encode()
        pseudonym = hmac.new(secret, name, hashlib.sha256).hexdigest()[:_PSEUDONYM_CHARS]
        return RouteSharing(
            policy=accepted,
            voter=f"{epoch}:{pseudonym}",
            verify_seconds=policy.sharing.verify_idle,
        )

    def _claims(
        self,
        session: SessionClaims,
        policy: TenantPolicy,
        ask: RouteAsk,
        minimum: Isolation,
    ) -> partial[RouteClaims]:
        """Return what the tokens of an answer have in common; `_route` names the worker."""
        now = self._clock.now()
        return partial(
            RouteClaims,
            issuer=self._keys.issuer,
            subject=session.principal,
            tenant=policy.tenant,
            image=ask.image.digest,
            minimum_isolation=minimum,
            rights=frozenset({"cache", "execute"}),
            guest_reuse=policy.sharing.reuse_of(session.principal, policy.guest_reuse),
            client_key=ask.client_key,
            quotas=policy.quotas.of_one_worker,
            not_before=now,
            expires_at=now + self._config.token_seconds,
            client_version=session.client_version,
        )


def _known_sharing(sharing: RouteSharing | None, worker: Registration) -> RouteSharing | None:
    """Return those claims about sharing that a worker understands."""
    if sharing is None or not worker.knows_sharing:
        return None
    return sharing if worker.knows_verify else replace(sharing, verify_seconds=0)


def _has_voters(policy: TenantPolicy) -> bool:
    """Return whether a tenant's principals are known to be different people.

    A person is one by `sub` of a token that names a known client. Nothing shows that two names
    are two people where members share a secret or name no client; and an email can change.
    """
    identity = policy.identity
    return identity is not None and bool(identity.client_ids) and identity.principal_claim == "sub"


def _voter_name(policy: TenantPolicy, principal: str) -> str:
    """Return the name of the voter that a principal is; "" for all those that are one together."""
    is_person = _has_voters(policy) and not policy.sharing.is_machine(principal)
    return f"person {principal}" if is_person else ""


def _home(session: SessionClaims, ask: RouteAsk) -> int:
    """Return a number for principal and image that is equal at all schedulers (affinity)."""
    text = f"{session.tenant}\0{ask.image.digest}\0{session.principal}"
    return int.from_bytes(hashlib.blake2b(text.encode(), digest_size=8).digest())


def _store_of(tenant: TenantId, store: str) -> str:
    """Return a text that is equal for workers with one action cache, and names no store."""
    if not store:
        return ""
    return hashlib.blake2b(f"{tenant}\0{store}".encode(), digest_size=8).hexdigest()


def _minimum(tenants: Isolation, asked: Isolation | None) -> Isolation:
    """Return the stronger of both: a client may ask for more isolation, never for less."""
    return tenants if asked is None or asked.rank < tenants.rank else asked
