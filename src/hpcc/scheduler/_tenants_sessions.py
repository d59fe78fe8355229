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


class _Room:
    """One tenant's sessions by name, and each principal's, oldest first."""

    def __init__(self) -> None:
        self.sessions: OrderedDict[str, Session] = OrderedDict()
        self._names: dict[str, OrderedDict[str, None]] = {}

    def add(self, name: str, session: Session, most: int) -> None:
        """Take one in; a full room gives it a place of its principal's or of the greediest's."""
        while len(self.sessions) >= most:
            self.remove(self._victim(session.principal))
        self.sessions[name] = session
        self._names.setdefault(session.principal, OrderedDict())[name] = None

    def remove(self, name: str) -> None:
        principal = self.sessions.pop(name).principal
        names = self._names[principal]
        del names[name]
        if not names:
            del self._names[principal]

    def _victim(self, newcomer: str) -> str:
        """Return the oldest session of who has most; as with watchers, "much" is two or more."""
        own = self._names.get(newcomer, OrderedDict[str, None]())
        greediest = max(self._names.values(), key=len)
        if own and len(greediest) <= len(own) + 1:
            return next(iter(own))
        if len(greediest) == 1:
            return next(iter(self.sessions))  # all have one: more members than the tenant has room
        return next(iter(greediest))


class Sessions:
    """By their secret names. Each tenant has room of its own: none can end another's.

    Inside a tenant a flood of one principal's logins ends its own sessions first.
    """

    def __init__(self, door: Door, clock: Clock, session_seconds: float) -> None:
        self._door, self._clock, self._seconds = door, clock, session_seconds
        self._tenants: dict[TenantId, _Room] = {}

    def open(self, admitted: Admitted, client_version: str) -> SessionGrant:
        policy = admitted.policy
        expires_at = self._clock.now() + self._seconds
        if admitted.expires_at is not None:
            # Never longer than the provider's word is good.
            expires_at = min(expires_at, admitted.expires_at)
        room = self._tenants.setdefault(policy.tenant, _Room())
        name = secrets.token_urlsafe(_NAME_BYTES)
        session = Session(
            policy.tenant, admitted.principal, client_version, expires_at, policy.identity
        )
        room.add(name, session, policy.quotas.sessions)
        return SessionGrant(name, expires_at)

    def find(self, credential: str, tenant: TenantId) -> tuple[Session, TenantPolicy]:
        """Return a session and the policy in force for it now.

        Raises:
            UnauthenticatedError: unknown or over, or the table says otherwise since.
            PolicyError: it is another tenant's.
        """
        room = self._tenants.get(tenant)
        session = room.sessions.get(credential) if room is not None else None
        if room is None or session is None:
            if any(credential in r.sessions for r in self._tenants.values()):
                raise PolicyError("the session is of another tenant", reason="foreign-tenant")
            raise UnauthenticatedError("session is unknown or over", reason="session")
        policy = self._door.policy_or_none(tenant)
        is_changed = policy is None or policy.identity != session.identity
        if policy is None or is_changed or session.expires_at <= self._clock.now():
            room.remove(credential)
            raise UnauthenticatedError("session is unknown or over", reason="session")
        return session, policy

    def is_over(self, credential: str, tenant: TenantId) -> bool:
        """Say whether `find` would refuse it."""
        try:
            self.find(credential, tenant)
        except (UnauthenticatedError, PolicyError):
            return True
        return False
