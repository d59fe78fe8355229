"""Divides the farm's places among tenants and principals, with the other schedulers.

Workers ask for places (`LeaseShares`), never a build: a compile that finds a place starts at once.
The control store keeps who holds what, and one scheduler at a time divides, so the places of a
tenant never exceed its `farm_execs`. A share ends if its worker does not ask again in time.

A worker that gets fewer places holds the others until it says that nothing runs there any more.
So a place is never granted twice, whatever answer is lost.

Without the store, workers keep what they have. What they ask for beyond it is divided by what this
scheduler knew last, so that no build stops. Other schedulers may then grant the same places.
"""

from __future__ import annotations

import asyncio
import logging
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from typing import Final

from hpcc.control.shares import deal
from hpcc.core import TenantId
from hpcc.ports import (
    MAX_SHARE_SECONDS,
    Clock,
    ControlStore,
    ControlStoreError,
    LeasedShare,
    ShareKey,
)
from hpcc.routing.fair import Rules, divide
from hpcc.rpc.scheduler.api import ShareAsk, ShareGrants
from hpcc.scheduler.registry_row import Capacities
from hpcc.scheduler.tenants.table import TenantPolicy

_log: Final = logging.getLogger(__name__)
# In units of the scheduler's lease: three are 30 seconds.
_LEASES: Final = 3.0
# A worker asks so many times in one lease of its shares, if the farm is not too large for that.
_ASKS_IN_A_LEASE: Final = 15.0
_MIN_ASKS_IN_A_LEASE: Final = 4.0
_ASKS_PER_SECOND: Final = 400.0
# Who gets what cannot be divided changes with this period.
_TURN_SECONDS: Final = 10.0
# A worker's compiles wait for the first answer.
_STORE_SECONDS: Final = 2.5
# Between two divisions, however often workers ask: at least this, and so many times what the last
# one took, because routes wait meanwhile. Workers wait for their first answer, so not more.
_BREATH_SECONDS: Final = 0.02
_BREATHS: Final = 9.0
_MAX_BREATH_SECONDS: Final = 0.5
_RETRY_SECONDS: Final = 3.0


class ShareBook:
    """The shares that this scheduler knows, and how they are divided."""

    def __init__(
        self,
        store: ControlStore,
        clock: Clock,
        *,
        policy_or_none: Callable[[TenantId], TenantPolicy | None],
        capacities: Callable[[], Capacities | dict[str, int]],
        lease_seconds: float,
    ) -> None:
        self._store, self._clock = store, clock
        self._policy_or_none, self._capacities = policy_or_none, capacities
        self.seconds = min(_LEASES * lease_seconds, MAX_SHARE_SECONDS)
        self._turn = asyncio.Lock()
        self._pending: dict[ShareKey, LeasedShare] = {}
        # As last divided, with the end of each (monotonic).
        self._known: dict[ShareKey, tuple[LeasedShare, float]] = {}
        self._divided_at, self._took_seconds = float("-inf"), 0.0
        self._is_away, self._retry_at = False, float("-inf")
        # Until then a store that is back may lack shares that workers hold.
        self._settled_at = float("-inf")

    async def lease(self, worker_id: str, asks: Sequence[ShareAsk]) -> ShareGrants:
        """Divide the places; all workers that ask at the same time share one transaction."""
        most = self._capacities().get(worker_id)
        mine = {}
        for ask in asks:
            wanted, held = (n if most is None else min(n, most) for n in (ask.wanted, ask.held))
            share = LeasedShare(
                worker_id=worker_id, tenant=ask.tenant.value, principal=ask.principal,
                wanted=wanted, held=held,
            )  # fmt: skip
            mine[share.key] = share
        self._pending |= mine
        async with self._turn:
            # A worker whose asks another one has divided does not wait for the pause behind it.
            if any(self._pending.get(key) is share for key, share in mine.items()):
                breath = min(_BREATHS * self._took_seconds, _MAX_BREATH_SECONDS)
                breath = max(_BREATH_SECONDS, breath)
                await asyncio.sleep(self._divided_at + breath - self._clock.monotonic())
                try:
                    await self._divide_pending()
                finally:
                    # Also if the caller went away: the store may have divided nevertheless.
                    self._divided_at = self._clock.monotonic()
        places = dict[tuple[TenantId, str], int]()
        for ask in asks:
            known = self._known.get((worker_id, ask.tenant.value, ask.principal))
            if known is not None:
                places[ask.tenant, ask.principal] = known[0].granted
            elif self._is_leased(ask.tenant):
                places[ask.tenant, ask.principal] = 0  # a share of nothing is not kept
        return ShareGrants(places, self.seconds, self._renew_seconds())

    def current(self) -> list[LeasedShare]:
        """Return the shares that were divided here last and have not ended."""
        now = self._clock.monotonic()
        return [share for share, until in self._known.values() if until > now]

    def _renew_seconds(self) -> float:
        often = self.seconds / _ASKS_IN_A_LEASE
        return min(
            max(often, len(self._capacities()) / _ASKS_PER_SECOND),
            self.seconds / _MIN_ASKS_IN_A_LEASE,
        )

    def _is_leased(self, tenant: TenantId) -> bool:
        policy = self._policy_or_none(tenant)
        return policy is not None and policy.quotas.is_leased

    async def _divide_pending(self) -> None:
        asks = tuple(self._pending.values())
        # Copied here, because the store divides in a thread while workers come and go.
        capacities = self._capacities().copy()
        shares = await self._shared_or_none(asks, capacities)
        if shares is None:
            shares = self._alone(asks, capacities)
        now, asked = self._clock.monotonic(), {ask.key for ask in asks}
        kept = {}
        if now < self._settled_at:
            kept = {k: v for k, v in self._known.items() if v[1] > now and k not in asked}
        self._known = kept | {key: (share, now + self.seconds) for key, share in shares.items()}
        for ask in asks:
            if self._pending.get(ask.key) is ask:
                del self._pending[ask.key]

    async def _shared_or_none(
        self, asks: Sequence[LeasedShare], capacities: Mapping[str, int]
    ) -> Mapping[ShareKey, LeasedShare] | None:
        """Divide in the store; return None if it does not answer."""
        if self._clock.monotonic() < self._retry_at:
            return None
        keys = [ask.key for ask in asks]

        def places(live: Mapping[ShareKey, LeasedShare]) -> dict[ShareKey, int]:
            return self._places(self._with_known(live), keys, capacities)

        try:
            async with asyncio.timeout(_STORE_SECONDS):
                shares = await self._store.lease_shares(asks, self.seconds, places)
        except (ControlStoreError, TimeoutError) as error:
            if not self._is_away:
                _log.error(
                    "places are divided from memory: %s", str(error) or "the store is too slow"
                )
            self._is_away, self._retry_at = True, self._clock.monotonic() + _RETRY_SECONDS
            return None
        if self._is_away:
            self._is_away = False
            self._settled_at = self._clock.monotonic() + self.seconds
        return shares

    def _with_known(self, live: Mapping[ShareKey, LeasedShare]) -> Mapping[ShareKey, LeasedShare]:
        """Add what other workers held before the store was away: they may not have asked since."""
        now = self._clock.monotonic()
        if not self._is_away and now >= self._settled_at:
            return live
        return {key: share for key, (share, until) in self._known.items() if until > now} | {**live}

    def _alone(
        self, asks: Sequence[LeasedShare], capacities: Mapping[str, int]
    ) -> Mapping[ShareKey, LeasedShare]:
        """Divide by what is known here. No share ends meanwhile."""
        keys = [ask.key for ask in asks]
        known = (share for share, _ in self._known.values())

        def places(live: Mapping[ShareKey, LeasedShare]) -> dict[ShareKey, int]:
            found = self._places(live, keys, capacities)
            # One at least, because nothing shows when others give theirs back.
            return {key: max(n, min(live[key].wanted, 1)) for key, n in found.items()}

        shares, _ = deal(known, asks, places)
        return shares

    def _places(
        self,
        shares: Mapping[ShareKey, LeasedShare],
        keys: Sequence[ShareKey],
        capacities: Mapping[str, int],
    ) -> dict[ShareKey, int]:
        """Return the places of the shares that were asked for."""
        started = self._clock.monotonic()
        tenants = map(TenantId, {share.tenant for share in shares.values()})
        quotas = {
            tenant.value: policy.quotas
            for tenant in tenants
            if (policy := self._policy_or_none(tenant)) is not None and policy.quotas.is_leased
        }
        limits = {t: q.farm_execs for t, q in quotas.items() if q.farm_execs is not None}
        wants = {
            key: min(share.wanted, quotas[share.tenant].most_execs or share.wanted)
            for key, share in shares.items()
            if share.tenant in quotas
        }
        fair = divide(
            wants,
            Rules(
                capacities=capacities,
                limits=limits,
                weights={t: q.farm_weight or 1 for t, q in quotas.items()},
                turn=int(self._clock.now() / _TURN_SECONDS),
            ),
        )
        held = Counter[str]()
        for share in shares.values():
            held[share.tenant] += share.held
        places = dict[ShareKey, int]()
        for key in keys:
            if key not in fair:
                continue
            share = shares[key]
            others = held[share.tenant] - share.held
            # What others hold counts until they give it back.
            room = max(limits.get(share.tenant, others + fair[key]) - others, 0)
            places[key] = min(fair[key], room)
            held[share.tenant] = others + max(places[key], share.held)
        self._took_seconds = self._clock.monotonic() - started
        return places
