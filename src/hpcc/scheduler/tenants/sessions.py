"""Sessions of accepted callers. They are signed, so that every scheduler can check them.

A signed text cannot hold how many sessions a tenant has, nor which were ended to make room. The
control store counts both, only at logins; ends are broadcast to all schedulers.
"""

from __future__ import annotations

import functools
import hashlib
import json
from dataclasses import asdict
from typing import Final

from hpcc.core import CallerError, PolicyError, TenantId
from hpcc.core.memo import BoundedMemo
from hpcc.identity.oidc.verify import IdentityPolicy
from hpcc.identity.session_token import (
    SessionClaims,
    SessionTokenError,
    open_session_token,
    seal_session,
)
from hpcc.ports import Clock, ControlStore, SessionAsk, SessionFloor
from hpcc.rpc.base.errors import UnauthenticatedError
from hpcc.rpc.scheduler.api import SessionGrant
from hpcc.scheduler.base.signing import SigningKeys
from hpcc.scheduler.tenants.authenticator import Admitted, Authenticator
from hpcc.scheduler.tenants.table import TenantPolicy

# A cache of checked sessions, so that a route does not check the signature again.
_MAX_CHECKED: Final = 16_384
_MAX_FLOORS: Final = 100_000
_PARTS: Final = 4


class Sessions:
    """Each tenant has its own limit of sessions, so that no tenant can end another's.

    Within a tenant, a flood of one principal's logins ends that principal's sessions first.
    """

    def __init__(
        self,
        authenticator: Authenticator,
        clock: Clock,
        session_seconds: float,
        *,
        keys: SigningKeys,
        store: ControlStore,
    ) -> None:
        self._authenticator, self._clock, self._seconds = authenticator, clock, session_seconds
        self._keys, self._store = keys, store
        self._floors: dict[tuple[str, str], SessionFloor] = {}
        # By tenant: the last session under an older identity policy, as far as one was shown here.
        self._outdated: dict[TenantId, int] = {}
        self._checked: BoundedMemo[str, tuple[str, SessionClaims]] = BoundedMemo(_MAX_CHECKED)

    async def open(
        self, admitted: Admitted, client_version: str
    ) -> tuple[SessionGrant, tuple[SessionFloor, ...]]:
        """Count a login; return the session, and the ends that must be broadcast.

        Raises:
            ControlStoreError: the login cannot be counted now.
        """
        policy, now = admitted.policy, self._clock.now()
        expires_at = now + self._seconds
        if admitted.expires_at is not None:
            # Never longer than the provider's token is valid.
            expires_at = min(expires_at, admitted.expires_at)
        serial, floors = await self._store.open_session(
            SessionAsk(
                tenant=policy.tenant.value,
                principal=admitted.principal,
                now=now,
                expires_at=expires_at,
                most=policy.quotas.sessions,
            )
        )
        for floor in floors:
            self.end(floor)
        claims = SessionClaims(
            tenant=policy.tenant.value,
            principal=admitted.principal,
            client_version=client_version,
            identity=_fingerprint(policy.identity),
            expires_at=expires_at,
            serial=serial,
        )
        kid = self._keys.kid
        text = seal_session(claims, kid=kid, secret=self._keys.secrets()[kid])
        return SessionGrant(text, expires_at), floors

    def end(self, floor: SessionFloor) -> None:
        """Note an end from here or elsewhere; an end is never taken back."""
        key = (floor.tenant, floor.principal)
        known = self._floors.get(key)
        if known is None and len(self._floors) >= _MAX_FLOORS:
            now = self._clock.now()
            self._floors = {k: f for k, f in self._floors.items() if f.until > now}
        if known is None or known.serial < floor.serial:
            self._floors[key] = floor

    def find(self, credential: str, tenant: TenantId) -> tuple[SessionClaims, TenantPolicy]:
        """Return a session's claims and the policy in force for it now.

        Raises:
            UnauthenticatedError: the session is unknown or has ended, or the tenant's identity
                policy has changed since.
            PolicyError: it is another tenant's.
        """
        claims = self._claims(credential)
        if claims.tenant != tenant.value:
            raise PolicyError("the session is of another tenant", reason="foreign-tenant")
        return claims, self._policy(claims, tenant)

    def check(self, credential: str) -> None:
        """Raise as `find` does for a session that does not count, of whichever tenant it is."""
        claims = self._claims(credential)
        self._policy(claims, TenantId(claims.tenant))

    def _policy(self, claims: SessionClaims, tenant: TenantId) -> TenantPolicy:
        policy = self._authenticator.policy_or_none(tenant)
        floor = self._floors.get((claims.tenant, claims.principal))
        if policy is None or _fingerprint(policy.identity) != claims.identity:
            # Permanently: a table that returns to the old policy does not revive sessions.
            self._outdated[tenant] = max(claims.serial, self._outdated.get(tenant, 0))
        if (
            policy is None
            or claims.serial <= self._outdated.get(tenant, 0)
            or claims.expires_at <= self._clock.now()
            or (floor is not None and claims.serial < floor.serial)
        ):
            raise UnauthenticatedError("session is unknown or has ended", reason="session")
        return policy

    def is_over(self, credential: str, tenant: TenantId) -> bool:
        """Return whether `find` would refuse the session."""
        try:
            self.find(credential, tenant)
        except (UnauthenticatedError, PolicyError):
            return True
        return False

    def _claims(self, credential: str) -> SessionClaims:
        kid, claims = self._checked.get(credential, ("", None))
        if claims is not None and self._keys.is_listed(kid):
            return claims
        try:
            claims = open_session_token(credential, self._keys.secrets())
        except SessionTokenError as error:
            raise UnauthenticatedError(str(error), reason="session") from error
        self._checked[credential] = credential.partition(".")[0], claims
        return claims


@functools.lru_cache(maxsize=4096)
def _fingerprint(identity: IdentityPolicy | None) -> str:
    """Return a name for the identity policy of a login; another policy has another name."""
    if identity is None:
        return ""
    text = json.dumps(asdict(identity), sort_keys=True)
    return hashlib.sha256(text.encode()).hexdigest()[:32]


def floor_text(floor: SessionFloor) -> str:
    """Encode an end for a broadcast."""
    return json.dumps([floor.tenant, floor.principal, floor.serial, floor.until])


def parse_floor(text: str) -> SessionFloor:
    """Decode a broadcast.

    Raises:
        CallerError: it has another form.
    """
    try:
        row = json.loads(text)
    except (ValueError, RecursionError) as error:
        raise CallerError("not the end of a session") from error
    is_row = isinstance(row, list) and len(row) == _PARTS
    if not is_row or [type(v) for v in row] != [str, str, int, float]:
        raise CallerError("not the end of a session")
    return SessionFloor(*row)
