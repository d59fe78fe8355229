"""Checks the credential of `Authenticate`: returns a principal of one tenant, or refuses."""

from __future__ import annotations

import hmac
import logging
from dataclasses import dataclass
from pathlib import Path
from typing import Final, Protocol

from hpcc.audit.limiter import EventLimiter
from hpcc.core import GuestReuse, HpccError, ImageDigest, Isolation, TenantId
from hpcc.identity.key_ring import Sealer
from hpcc.identity.oidc.http import ProviderHttp
from hpcc.identity.oidc.keys import KeyCache, KeyCacheLimits
from hpcc.identity.oidc.verify import IdentityPolicy, IdpTokenError, read_header, verify_idp_token
from hpcc.ports import Clock, ControlStore
from hpcc.rpc.base.errors import UnauthenticatedError, UnavailableError
from hpcc.scheduler.base.config import IN_STORE, SchedulerConfig
from hpcc.scheduler.tenants.changes import Tenants
from hpcc.scheduler.tenants.file import TenantsFile
from hpcc.scheduler.tenants.stored import StoredTenants, TableStore
from hpcc.scheduler.tenants.table import ImageRule, TenantPolicy

_log: Final = logging.getLogger(__name__)
# Two answers (discovery and keys) within the ten seconds that a daemon waits.
_PROVIDER_SECONDS: Final = 4.0


@dataclass(frozen=True, slots=True)
class Admitted:
    """An accepted caller; `expires_at` is in seconds since the epoch, None for no end."""

    policy: TenantPolicy
    principal: str
    expires_at: float | None


class Authenticator(Protocol):
    """Authenticator: has the tenants' policies and checks callers' credentials."""

    async def admit(self, credential: str, tenant: TenantId, principal: str) -> Admitted:
        """Check a caller's credential.

        `principal` is what the caller claims; only a tenant with a shared secret uses it.

        Raises:
            UnauthenticatedError: the credential is not valid for this tenant.
            UnavailableError: it cannot be checked now.
        """
        ...

    def policy_or_none(self, tenant: TenantId) -> TenantPolicy | None:
        """Return the policy in force for a tenant; None if there is no such tenant."""
        ...

    async def watch(self) -> None:
        """Keep the policies current, until cancelled."""
        ...


class StaticAuthenticator:
    """The one tenant of `hpcc up`, whose members share a secret and name themselves."""

    def __init__(self, config: SchedulerConfig, clock: Clock) -> None:
        self._secret, self._tenant, self._clock = config.tenant_secret, config.tenant, clock
        self._policy = TenantPolicy(
            tenant=TenantId(config.tenant),
            identity=None,
            images=tuple(ImageRule(ImageDigest(i)) for i in config.images),
            minimum_isolation=Isolation(config.minimum_isolation),
            # One machine with one person: the worker's own setting decides.
            guest_reuse=GuestReuse.TENANT,
            # Likewise hpcc.toml decides: the stricter value counts, and these are the weakest.
            fallback="quiet",
            parity="ignore",
        )

    async def admit(self, credential: str, tenant: TenantId, principal: str) -> Admitted:
        # Both are always compared, so that the time does not reveal which one was wrong.
        is_secret = hmac.compare_digest(credential.encode(), self._secret.encode())
        is_tenant = hmac.compare_digest(tenant.value.encode(), self._tenant.encode())
        if not (is_secret and is_tenant):
            _log.warning("refused: authenticate")
            raise UnauthenticatedError("tenant or secret is wrong", reason="bad-secret")
        return Admitted(self._policy, principal, None)

    def policy_or_none(self, tenant: TenantId) -> TenantPolicy | None:
        return self._policy if tenant == self._policy.tenant else None

    async def watch(self) -> None:
        while True:
            await self._clock.sleep(3600.0)


class TenantsSource(Protocol):
    """Where the policies in force come from: a file, or the control store."""

    @property
    def tenants(self) -> Tenants:
        """The table in force."""
        ...

    @property
    def trouble(self) -> str:
        """Why the newest table is not the one in force; "" if it is."""
        ...

    async def watch(self) -> None:
        """Keep the table current, until cancelled."""
        ...


class TableAuthenticator:
    """The tenants of a table, each with its own identity provider."""

    def __init__(
        self,
        source: TenantsSource,
        clock: Clock,
        *,
        http: ProviderHttp | None = None,
        limits: KeyCacheLimits | None = None,
    ) -> None:
        """Admit by what `source` has at each login."""
        self._source, self._clock = source, clock
        self._http, self._limits = http or ProviderHttp(total_seconds=_PROVIDER_SECONDS), limits
        # By tenant, even for equal issuers: one tenant's callers must not affect another tenant.
        self._keys: dict[tuple[TenantId, str], KeyCache] = {}

    async def admit(self, credential: str, tenant: TenantId, principal: str) -> Admitted:
        # The principal comes from the token, not from the caller's claim.
        del principal
        policy = self._source.tenants.get(tenant)
        if policy is None or policy.identity is None:
            _log.warning("refused: authenticate reason=unknown-tenant")
            raise UnauthenticatedError("there is no such tenant here", reason="unknown-tenant")
        try:
            return await self._verified(credential, policy, policy.identity)
        except IdpTokenError as error:
            _log.warning("refused: authenticate tenant=%s reason=%s", tenant, error.reason)
            raise UnauthenticatedError(str(error), reason=error.reason) from error
        except HpccError as error:
            _log.error("tenant %s: identity provider: %s", tenant, error)
            raise UnavailableError(
                "the tenant's identity provider cannot be asked for its keys", reason=error.reason
            ) from error

    async def _verified(
        self, credential: str, policy: TenantPolicy, identity: IdentityPolicy
    ) -> Admitted:
        # Before any request to the provider: malformed tokens must not reach it.
        header = read_header(credential, identity)
        keys = await self._cache(policy.tenant, identity.issuer).keys(header.kid)
        who = verify_idp_token(credential, identity, keys, self._clock)
        return Admitted(policy, who.principal, who.expires_at)

    def _cache(self, tenant: TenantId, issuer: str) -> KeyCache:
        cache = self._keys.get((tenant, issuer))
        if cache is None:
            live = {(t, p.identity.issuer) for t, p in self._source.tenants.items() if p.identity}
            self._keys = {k: c for k, c in self._keys.items() if k in live}
            cache = KeyCache(issuer, self._http, self._clock, self._limits)
            self._keys[tenant, issuer] = cache
        return cache

    def policy_or_none(self, tenant: TenantId) -> TenantPolicy | None:
        return self._source.tenants.get(tenant)

    async def watch(self) -> None:
        await self._source.watch()

    @property
    def trouble(self) -> str:
        """Why the newest table is not the one in force; "" if it is."""
        return self._source.trouble

    async def load(self, store: ControlStore, sealer: Sealer, events: EventLimiter) -> None:
        """Read a table of the control store before the first login; a file was read already.

        Raises:
            HpccError: there is one, and it cannot be used.
        """
        if isinstance(self._source, StoredTenants):
            await self._source.load(TableStore(store, sealer, self._clock), events)


def open_authenticator(config: SchedulerConfig, clock: Clock) -> Authenticator:
    """Return the authenticator that a configuration asks for.

    Raises:
        CallerError: the tenants table is invalid.
    """
    if config.tenants == IN_STORE:
        return TableAuthenticator(StoredTenants(clock), clock)
    if config.tenants:
        return TableAuthenticator(TenantsFile(Path(config.tenants), clock), clock)
    return StaticAuthenticator(config, clock)
