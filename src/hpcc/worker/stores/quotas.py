"""What a tenant may take of this worker: compiles at once, uploads in a window, bytes of cache.

The limits come with route tokens. Tokens of before and after a change of the table are good side by
side for minutes; the one that was signed last counts for all.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Awaitable, Callable
from typing import Final

from hpcc.core import TenantId
from hpcc.identity.token import RouteClaims, RouteQuotas
from hpcc.ports import Clock
from hpcc.rpc.base.errors import BusyError
from hpcc.worker.stores.storage import TenantStorage

# Compiles of one tenant that wait for a place below its limit, each with its action in memory.
MAX_WAITING: Final = 256
_RETRY_SECONDS: Final = 5.0
# A daemon asks nobody for as long as it is told; what is cached costs no upload.
_MAX_RETRY_SECONDS: Final = 60.0


class _Tenant:
    """One tenant's use. Decides without awaiting; only `enter` waits."""

    def __init__(self) -> None:
        self.quotas, self.signed_at = RouteQuotas(), float("-inf")
        self._running = 0
        self._waiting: deque[asyncio.Future[None]] = deque()
        self._window_ends, self._uploaded = float("-inf"), 0

    async def enter(self) -> None:
        """Wait for a place; first come, first served."""
        if self._has_room() and not self._waiting:
            self._running += 1
            return
        if len(self._waiting) >= MAX_WAITING:
            raise BusyError(
                "too many compiles of the tenant wait here",
                retry_after_seconds=_RETRY_SECONDS,
                reason="quota-execs",
            )
        place = asyncio.get_running_loop().create_future()
        self._waiting.append(place)
        try:
            await place
        except asyncio.CancelledError:
            if place.done() and not place.cancelled():
                self.leave()  # it was given in the same moment
            else:
                # Who left must not count among those who wait, nor hold up who comes now.
                self._waiting.remove(place)
            raise

    def leave(self) -> None:
        self._running -= 1
        self.wake()

    def wake(self) -> None:
        """Give free places to who waits."""
        while self._waiting and (self._waiting[0].done() or self._has_room()):
            place = self._waiting.popleft()
            if not place.done():
                self._running += 1
                place.set_result(None)

    def _has_room(self) -> bool:
        limit = self.quotas.concurrent_execs
        return not limit or self._running < limit

    def upload(self, size_bytes: int, now: float) -> float:
        """Count an upload; return 0, or after how many seconds there is room for it again."""
        if now >= self._window_ends:
            self._window_ends = now + self.quotas.upload_window_seconds
            self._uploaded = 0
        limit = self.quotas.upload_bytes
        if limit and self._uploaded + size_bytes > limit:
            return self._window_ends - now
        self._uploaded += size_bytes
        return 0.0


class Quotas:
    """The use of all tenants of one worker."""

    def __init__(self, storage: TenantStorage, clock: Clock) -> None:
        self._storage, self._clock = storage, clock
        self._tenants: dict[TenantId, _Tenant] = {}

    def note(self, claims: RouteClaims) -> None:
        """Take the limits of a token that was checked."""
        tenant = self._of(claims.tenant)
        if claims.not_before < tenant.signed_at:
            return
        is_other = claims.quotas != tenant.quotas
        tenant.quotas, tenant.signed_at = claims.quotas, claims.not_before
        if is_other:
            self._storage.bound(claims.tenant, claims.quotas.cache_bytes)
            tenant.wake()

    def upload(self, tenant: TenantId, size_bytes: int) -> None:
        """Count an upload.

        Raises:
            BusyError: the tenant's window is used up.
        """
        seconds = self._of(tenant).upload(size_bytes, self._clock.monotonic())
        if seconds:
            raise BusyError(
                "the tenant has uploaded what it may for now",
                retry_after_seconds=min(seconds, _MAX_RETRY_SECONDS),
                reason="quota-upload",
            )

    async def execute[T](self, tenant: TenantId, run: Callable[[], Awaitable[T]]) -> T:
        """Run one compile when the tenant has a place for it.

        Raises:
            BusyError: too many wait already.
        """
        places = self._of(tenant)
        await places.enter()
        try:
            return await run()
        finally:
            places.leave()

    def _of(self, tenant: TenantId) -> _Tenant:
        return self._tenants.setdefault(tenant, _Tenant())
