"""Who calls: the caller's own token, accepted by the scheduler, kept as a session of theirs."""

from __future__ import annotations

import asyncio
import hashlib
from dataclasses import dataclass
from typing import Final
from weakref import WeakValueDictionary

from hpcc.core import HpccError, TenantId
from hpcc.core.memo import LruMemo
from hpcc.identity.oidc_verify import peek_claims
from hpcc.ports import Clock
from hpcc.rpc.scheduler.api import SessionGrant
from hpcc.rpc.scheduler.client import SchedulerClient

MAX_VISITORS: Final = 8192
_LOGINS_AT_ONCE: Final = 32
_RENEW_BEFORE_SECONDS: Final = 5.0
# With an identity provider the token says who it is; the one tenant of `hpcc up` has nothing else.
_PRINCIPAL: Final = "gateway"


@dataclass(frozen=True, slots=True)
class Visitor:
    """A caller whom the scheduler let in. `name` is the same for all of a person's tokens."""

    tenant: TenantId
    name: str
    grant: SessionGrant
    key: tuple[str, bytes]


class Visitors:
    """Sessions by tenant and token. Of a token only its hash is kept."""

    def __init__(self, client: SchedulerClient, clock: Clock, version: str) -> None:
        self._client, self._clock, self._version = client, clock, version
        self._known: LruMemo[tuple[str, bytes], Visitor] = LruMemo(MAX_VISITORS)
        self._tenant_of: LruMemo[bytes, str] = LruMemo(MAX_VISITORS)
        self._locks: WeakValueDictionary[tuple[str, bytes], asyncio.Lock] = WeakValueDictionary()
        self._logins = asyncio.Semaphore(_LOGINS_AT_ONCE)

    def tenant_or_none(self, credential: str) -> str | None:
        """Return whose token this was found to be; None for a stranger."""
        digest = _hash(credential)
        tenant = self._tenant_of.use(digest)
        visitor = self._known.use((tenant, digest)) if tenant else None
        return tenant if visitor is not None and self._is_good(visitor) else None

    async def admit(self, credential: str, tenant: TenantId) -> Visitor:
        """Let a caller in, by the scheduler's word.

        Raises:
            UnauthenticatedError: the token is not good, or not for this tenant.
            InfrastructureError: the scheduler is away.
        """
        key = (tenant.value, _hash(credential))
        visitor = self._known.use(key)
        if visitor is not None and self._is_good(visitor):
            return visitor
        # One question for all calls that a build starts with.
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
    """Name a caller whose token was accepted: by its subject, as its next token will say too."""
    try:
        claims = peek_claims(credential)
    except HpccError:
        return f"token {digest.hex()}"
    issuer, subject = claims.get("iss"), claims.get("sub")
    if not isinstance(issuer, str) or not isinstance(subject, str):
        return f"token {digest.hex()}"
    return f"subject {hashlib.sha256(repr((issuer, subject)).encode()).hexdigest()}"
