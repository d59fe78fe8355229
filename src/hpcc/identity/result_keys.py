"""Which keys may sign a tenant's results: fetched from the scheduler and cached for a minute."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import Final

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey

from hpcc.core import InfrastructureError, TenantId
from hpcc.core.memo import LruMemo
from hpcc.identity.keys import key_id
from hpcc.ports import Clock

# While the scheduler answers, a revoked key is trusted no longer than this.
FRESH_SECONDS: Final = 60.0
# While the scheduler does not answer: as long as its route tokens may live.
STALE_SECONDS: Final = 600.0
# An unknown key is requested again after this time, because its worker may have registered since.
# The same holds for a scheduler that did not answer.
AGAIN_SECONDS: Final = 5.0
# Writers of a store can invent key names: at most this many requests in that time, for all tenants.
MAX_ASKED: Final = 32
MAX_REMEMBERED: Final = 1024
_Name = tuple[TenantId, str]


@dataclass(frozen=True, slots=True)
class _Known:
    key: Ed25519PublicKey | None
    at: float


class ResultKeys:
    """Keys by tenant and key id. `ask` returns the 32 bytes of a listed key, or None."""

    def __init__(
        self, ask: Callable[[TenantId, str], Awaitable[bytes | None]], clock: Clock
    ) -> None:
        self._ask, self._clock = ask, clock
        self._known: LruMemo[_Name, _Known] = LruMemo(MAX_REMEMBERED)
        # One request at a time: the first results of a build all name the same key.
        self._lock = asyncio.Lock()
        self._asked_since, self._asked = float("-inf"), 0
        self._failed_at, self._failure = float("-inf"), InfrastructureError("never asked")

    async def key(self, tenant: TenantId, kid: str) -> Ed25519PublicKey | None:
        """Return the key, or None if it may not sign for the tenant.

        Raises:
            InfrastructureError: the key is not cached, and the scheduler does not answer.
        """
        name = (tenant, kid)
        if (known := self._younger(name, FRESH_SECONDS)) is not None:
            return known.key
        # During a request the other callers use an older answer: the scheduler may be slow.
        if self._lock.locked() and (old := self._younger(name, STALE_SECONDS)) is not None:
            return old.key
        async with self._lock:
            if (known := self._younger(name, FRESH_SECONDS)) is not None:
                return known.key
            try:
                return await self._asked_for(name)
            except InfrastructureError:
                if (old := self._younger(name, STALE_SECONDS)) is None:
                    raise
                return old.key

    async def _asked_for(self, name: _Name) -> Ed25519PublicKey | None:
        now = self._clock.monotonic()
        if now - self._failed_at < AGAIN_SECONDS:
            raise self._failure
        known = self._known.get(name)
        if (known is None or known.key is None) and not self._may_ask(now):
            return None
        try:
            raw = await self._ask(*name)
        except InfrastructureError as error:
            self._failed_at, self._failure = self._clock.monotonic(), error
            raise
        found = _Known(_read(name[1], raw), self._clock.monotonic())
        self._known[name] = found
        return found.key

    def _may_ask(self, now: float) -> bool:
        if now - self._asked_since >= AGAIN_SECONDS:
            self._asked_since, self._asked = now, 0
        self._asked += 1
        return self._asked <= MAX_ASKED

    def _younger(self, name: _Name, seconds: float) -> _Known | None:
        known = self._known.get(name)
        if known is None:
            return None
        limit = seconds if known.key is not None else AGAIN_SECONDS
        return known if self._clock.monotonic() - known.at < limit else None


def _read(kid: str, raw: bytes | None) -> Ed25519PublicKey | None:
    """Return the key of these bytes; None unless its id is the requested one."""
    if raw is None:
        return None
    try:
        key = Ed25519PublicKey.from_public_bytes(raw)
    except ValueError:
        return None
    return key if key_id(key) == kid else None
