"""Enforces a tenant's quotas on this worker: concurrent compiles, uploads in a window, cache bytes.

The limits come with route tokens. After the tenants' table changed, tokens with old and new limits
are valid at the same time for minutes; the limits of the token that was signed last apply.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from contextlib import AsyncExitStack
from typing import Final

from hpcc.core import TenantId
from hpcc.core.memo import LruMemo
from hpcc.identity.token import RouteClaims, RouteQuotas, RouteShare
from hpcc.ports import Clock
from hpcc.rpc.base.errors import BusyError
from hpcc.worker.stores.leases import ShareLeases
from hpcc.worker.stores.places import PlaceQueue, closed
from hpcc.worker.stores.storage import TenantStorage

_MAX_SHARES: Final = 16_384
# A daemon pauses uploads as long as the answer says; cached results need no upload.
_MAX_RETRY_SECONDS: Final = 60.0


class _Use(PlaceQueue):
    """What a tenant or a principal uses. `on_wait` is called when a compile has to wait."""

    def __init__(self, on_wait: Callable[[], None]) -> None:
        super().__init__()
        self._on_wait = on_wait
        self.quotas, self.signed_at = RouteQuotas(), float("-inf")
        self._window_ends, self._uploaded = float("-inf"), 0

    @property
    def limit(self) -> int | None:
        return self.quotas.concurrent_execs or None

    def must_wait(self) -> None:
        """Report that a compile waits. The limit is that of the token."""
        self._on_wait()

    @property
    def has_room(self) -> bool:
        """Whether a compile would get a place at once."""
        return self._has_room() and not self.waiting

    def upload(self, size_bytes: int, now: float) -> float:
        """Count an upload; return 0.0, or the seconds until the window has room for it again."""
        if now >= self._window_ends:
            self._window_ends = now + self.quotas.upload_window_seconds
            self._uploaded = 0
        limit = self.quotas.upload_bytes
        if limit and self._uploaded + size_bytes > limit:
            return self._window_ends - now
        self._uploaded += size_bytes
        return 0.0


class Quotas:
    """The quota use of all tenants of one worker."""

    def __init__(self, storage: TenantStorage, clock: Clock) -> None:
        self._storage, self._clock = storage, clock
        self.leases = ShareLeases(clock)
        # Called when a compile has to wait for a place.
        self.on_wait: Callable[[], None] = lambda: None
        self._tenants: dict[TenantId, _Use] = {}
        self._is_closed = False
        # The shares of principals with routes to several workers.
        self._shares: LruMemo[tuple[TenantId, str], _Use] = LruMemo(_MAX_SHARES)

    def note(self, claims: RouteClaims) -> None:
        """Adopt the limits of a token that was checked, unless a newer token set them."""
        self._note_share(claims)
        tenant = self._of(claims.tenant)
        if claims.not_before < tenant.signed_at:
            return
        is_other = claims.quotas != tenant.quotas
        tenant.quotas, tenant.signed_at = claims.quotas, claims.not_before
        if is_other:
            self._storage.bound(claims.tenant, claims.quotas.cache_bytes)
            tenant.wake()

    def _note_share(self, claims: RouteClaims) -> None:
        key = claims.tenant, claims.subject
        use = self._shares.use(key)
        if use is None and claims.share is None:
            return
        if use is None:
            use = self._shares[key] = self._new()
        if claims.not_before < use.signed_at:
            return
        share = claims.share or RouteShare()
        use.quotas = RouteQuotas(
            concurrent_execs=share.in_flight,
            upload_bytes=share.upload_bytes,
            upload_window_seconds=claims.quotas.upload_window_seconds,
        )
        use.signed_at = claims.not_before
        use.wake()

    def upload(self, tenant: TenantId, size_bytes: int, *, principal: str = "") -> None:
        """Count an upload of `size_bytes`.

        Raises:
            BusyError: it would exceed the limit of the tenant, or the principal's share of it, for
                this window.
        """
        now, share = self._clock.monotonic(), self._shares.use((tenant, principal))
        seconds = share.upload(size_bytes, now) if share is not None else 0.0
        seconds = seconds or self._of(tenant).upload(size_bytes, now)
        if seconds:
            raise BusyError(
                "the tenant has reached its upload quota for now",
                retry_after_seconds=min(seconds, _MAX_RETRY_SECONDS),
                reason="quota-upload",
            )

    async def execute[T](
        self,
        tenant: TenantId,
        run: Callable[[], Awaitable[T]],
        *,
        principal: str = "",
        is_leased: bool = False,
    ) -> T:
        """Run one compile when the tenant has a place for it, and the principal's share has one.

        If it `is_leased`, also when this worker has leased a place for it.

        Raises:
            BusyError: too many compiles of the tenant wait already.
            InfrastructureError: the worker takes no compiles, now or since this one waits.
        """
        self.require_open()
        share = self._shares.use((tenant, principal))
        leased = self.leases.of(tenant, principal) if is_leased else None
        async with AsyncExitStack() as stack:
            # The leased one first: what waits here for another place is known to the scheduler.
            for use in (leased, share, self._of(tenant)):
                if use is not None:
                    await use.enter()
                    stack.callback(use.leave)
            return await run()

    def require_open(self) -> None:
        """Check that the worker takes compiles.

        Raises:
            InfrastructureError: it takes none.
        """
        if self._is_closed:
            raise closed()

    def close(self) -> None:
        """Refuse compiles, also those that wait for a place."""
        self._is_closed = True
        self.leases.refuse()
        for use in (*self._tenants.values(), *self._shares.values()):
            use.refuse()

    def reopen(self) -> None:
        """Take compiles again."""
        self._is_closed = False

    def has_room(self, tenant: TenantId, principal: str) -> bool:
        """Return whether a compile of this principal would get its places at once."""
        share = self._shares.use((tenant, principal))
        return self._of(tenant).has_room and (share is None or share.has_room)

    def _new(self) -> _Use:
        return _Use(self._waits)

    def _waits(self) -> None:
        self.on_wait()

    def _of(self, tenant: TenantId) -> _Use:
        return self._tenants.setdefault(tenant, self._new())
