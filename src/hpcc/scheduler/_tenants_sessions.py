"""Sessions: who was let in and still is. In memory; a daemon that loses one logs in again."""

from __future__ import annotations

import secrets
from collections import OrderedDict
from dataclasses import dataclass
from typing import Final

from hpcc.core import PolicyError, TenantId
from hpcc.identity import IdentityPolicy
from hpcc.ports import Clock
from hpcc.rpc import SessionGrant, UnauthenticatedError
from hpcc.scheduler._tenants import TenantPolicy
from hpcc.scheduler._tenants_door import Admitted, Door

_NAME_BYTES: Final = 32


@dataclass(frozen=True, slots=True)
class Session:
    """One login; `identity` is what it was checked against."""

    tenant: TenantId
    principal: str
    client_version: str
    expires_at: float
    identity: IdentityPolicy | None


class Sessions:
    """By their secret names. Each tenant has room of its own: none can end another's."""

    def __init__(self, door: Door, clock: Clock, session_seconds: float) -> None:
        self._door, self._clock, self._seconds = door, clock, session_seconds
        self._tenants: dict[TenantId, OrderedDict[str, Session]] = {}

    def open(self, admitted: Admitted, client_version: str) -> SessionGrant:
        policy = admitted.policy
        expires_at = self._clock.now() + self._seconds
        if admitted.expires_at is not None:
            # Never longer than the provider's word is good.
            expires_at = min(expires_at, admitted.expires_at)
        sessions = self._tenants.setdefault(policy.tenant, OrderedDict())
        while len(sessions) >= policy.quotas.sessions:
            sessions.popitem(last=False)
        name = secrets.token_urlsafe(_NAME_BYTES)
        sessions[name] = Session(
            policy.tenant, admitted.principal, client_version, expires_at, policy.identity
        )
        return SessionGrant(name, expires_at)

    def find(self, credential: str, tenant: TenantId) -> tuple[Session, TenantPolicy]:
        """Return a session and the policy in force for it now.

        Raises:
            UnauthenticatedError: unknown or over, or the table says otherwise since.
            PolicyError: it is another tenant's.
        """
        session = self._tenants.get(tenant, OrderedDict()).get(credential)
        if session is None:
            if any(credential in s for s in self._tenants.values()):
                raise PolicyError("the session is of another tenant", reason="foreign-tenant")
            raise UnauthenticatedError("session is unknown or over", reason="session")
        policy = self._door.policy_or_none(tenant)
        is_changed = policy is None or policy.identity != session.identity
        if policy is None or is_changed or session.expires_at <= self._clock.now():
            del self._tenants[tenant][credential]
            raise UnauthenticatedError("session is unknown or over", reason="session")
        return session, policy

    def is_over(self, credential: str, tenant: TenantId) -> bool:
        """Say whether `find` would refuse it."""
        try:
            self.find(credential, tenant)
        except (UnauthenticatedError, PolicyError):
            return True
        return False
