"""Authenticates callers by their own token at the scheduler, and keeps a session for each."""

from __future__ import annotations

import asyncio
import hashlib
from dataclasses import dataclass
from typing import Final
from weakref import WeakValueDictionary

from hpcc.core import HpccError, TenantId
from hpcc.core.memo import LruMemo
from hpcc.identity.oidc.verify import peek_claims
from hpcc.ports import Clock
from hpcc.rpc.scheduler.api import SessionGrant
from hpcc.rpc.scheduler.client import SchedulerClient

MAX_VISITORS: Final = 8192
_LOGINS_AT_ONCE: Final = 32
_RENEW_BEFORE_SECONDS: Final = 5.0
# With an identity provider the token names the principal; the tenant of `hpcc up` has no names.
_PRINCIPAL: Final = "gateway"


@dataclass(frozen=True, slots=True)
class Visitor:
    """An authenticated caller. `name` is the same for all tokens of one person."""

    tenant: TenantId
    name: str
    grant: SessionGrant
    key: tuple[str, bytes]


class Visitors:
    """Sessions by tenant and token. Only the hash of a token is kept."""

    def __init__(self, client: SchedulerClient, clock: Clock, version: str) -> None:
        self._client, self._clock, self._version = client, clock, version
        self._known: LruMemo[tuple[str, bytes], Visitor] = LruMemo(MAX_VISITORS)
        self._tenant_of: LruMemo[bytes, str] = LruMemo(MAX_VISITORS)
        self._locks: WeakValueDictionary[tuple[str, bytes], asyncio.Lock] = WeakValueDictionary()
        self._logins = asyncio.Semaphore(_LOGINS_AT_ONCE)

    @property
    def count(self) -> int:
        """How many sessions are remembered."""
        return len(self._known)

    def tenant_or_none(self, credential: str) -> str | None:
        """Return the tenant whose token this was found to be; None for an unknown token."""
        digest = _hash(credential)
        tenant = self._tenant_of.use(digest)
        visitor = self._known.use((tenant, digest)) if tenant else None
        return tenant if visitor is not None and self._is_good(visitor) else None

    async def admit(self, credential: str, tenant: TenantId) -> Visitor:
        """Authenticate a caller at the scheduler, or return its present session.

        Raises:
            UnauthenticatedError: the token is invalid, or is not for this tenant.
            InfrastructureError: the scheduler is unreachable.
        """
        key = (tenant.value, _hash(credential))
        visitor = self._known.use(key)
        if visitor is not None and self._is_good(visitor):
            return visitor
        # One request for all calls that a build starts with.
        lock = self._locks.setdefault(key, asyncio.Lock())
        async with lock, self._logins:
            visitor = self._known.use(key)
            if visitor is not None and self._is_good(visitor):
                return visitor
            grant = await self._client.authenticate(
                secret=credential,
                tenant=tenant,
                principal=_PRINCIPAL,
                client_version=self._version,
            )
            visitor = Visitor(tenant, _name(credential, key[1]), grant, key)
            self._known[key] = visitor
            self._tenant_of[key[1]] = tenant.value
            return visitor

    def forget(self, visitor: Visitor) -> None:
        """Drop a session that the scheduler does not know any more."""
        if self._known.use(visitor.key) is visitor:
            del self._known[visitor.key]

    def _is_good(self, visitor: Visitor) -> bool:
        return visitor.grant.expires_at - _RENEW_BEFORE_SECONDS > self._clock.now()


def _hash(credential: str) -> bytes:
    return hashlib.sha256(credential.encode()).digest()


def _name(credential: str, digest: bytes) -> str:
    """Return a caller's name from its accepted token's subject, equal for its next token."""
    try:
        claims = peek_claims(credential)
    except HpccError:
        return f"token {digest.hex()}"
    issuer, subject = claims.get("iss"), claims.get("sub")
    if not isinstance(issuer, str) or not isinstance(subject, str):
        return f"token {digest.hex()}"
    return f"subject {hashlib.sha256(repr((issuer, subject)).encode()).hexdigest()}"
