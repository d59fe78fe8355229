"""Executes private results again in fresh guests while a worker has nothing else to do.

Problem: a result of a busy guest serves the person who made it, until somebody else compiles the
same. A worker that is idle can make it once more in a guest that executed nothing. That result is
`fresh` and serves everybody. It is the new one that is published, whether it is equal or not: a
compile that is not deterministic is shared that way too.

Rule. A candidate is executed if all of this holds, and otherwise waits or is dropped:

- nothing runs at this worker and nobody waits for a guest or a place, and one more guest fits
  without the end of another;
- its tenant has budget left in this hour (`verify_idle`), and its maker's quota has a place;
- the maker is admitted: a route token of the maker, seen here, has not expired;
- the action never ended a guest, as far as this worker remembers;
- nobody shares the action's result yet, and no other worker has a lease on it. A result that
  differs from others is executed until two fresh guests gave one, if the claimants' budget allows.

It is cancelled at the moment at which somebody waits for a guest or a place, and when the worker
ends. Candidates are in memory: a restart forgets them.

What must never happen: a person waits for an execution that nobody asked for; a tenant's code runs
after its maker was removed.
"""

from __future__ import annotations

import asyncio
import logging
from collections import Counter
from contextlib import suppress
from typing import Final

from hpcc.core import HpccError, TenantId
from hpcc.core.memo import LruMemo
from hpcc.identity.token import RouteClaims
from hpcc.ports import Clock
from hpcc.reapi.agreement import result_digest
from hpcc.worker.execute.runner import Runner
from hpcc.worker.execute.sharing import ResultSharing
from hpcc.worker.execute.turns import Candidate, Turns
from hpcc.worker.execute.work import Work, read_action
from hpcc.worker.pool.pool import GuestPool
from hpcc.worker.stores.quotas import Quotas
from hpcc.worker.stores.storage import TenantStorage

_log: Final = logging.getLogger(__name__)
_HOUR: Final = 3600.0
# Budgets refill and tokens end without an event.
_LOOK_SECONDS: Final = 5.0
_MAX_MAKERS: Final = 16_384
_MAX_BUDGETS: Final = 16_384
# How many executions an hour a voter's disagreements may cause.
_CLAIMANT_RUNS: Final = 8
# A boot and a compile of ordinary length, below the tenant's budget.
_MAX_SECONDS: Final = 300.0


class HourlyBudget[K]:
    """What each key used in the current hour; hours begin with a key's first use."""

    def __init__(self, clock: Clock) -> None:
        self._clock = clock
        self._used: LruMemo[K, tuple[float, float]] = LruMemo(_MAX_BUDGETS)

    def used(self, key: K) -> float:
        """Return what the key used in its hour."""
        began, used = self._used.use(key) or (float("-inf"), 0.0)
        return used if self._clock.monotonic() - began < _HOUR else 0.0

    def charge(self, key: K, amount: float) -> None:
        """Add to what the key used."""
        now = self._clock.monotonic()
        began, used = self._used.use(key) or (float("-inf"), 0.0)
        fresh = now - began >= _HOUR
        self._used[key] = (now, amount) if fresh else (began, used + amount)


class IdleVerifier:
    """Takes candidates from `ResultSharing`; `run` executes them one after the other."""

    def __init__(
        self,
        runner: Runner,
        pool: GuestPool,
        quotas: Quotas,
        storage: TenantStorage,
        sharing: ResultSharing,
        clock: Clock,
    ) -> None:
        self._runner, self._pool, self._quotas = runner, pool, quotas
        self._storage, self._sharing, self._clock = storage, sharing, clock
        self._turns = Turns()
        # Until when a principal is known to be admitted, in seconds since the epoch.
        self._admitted: LruMemo[tuple[TenantId, str], float] = LruMemo(_MAX_MAKERS)
        self._seconds: HourlyBudget[TenantId] = HourlyBudget(clock)
        self._runs: HourlyBudget[tuple[TenantId, str]] = HourlyBudget(clock)
        self._wake = asyncio.Event()
        self._scope: asyncio.Timeout | None = None
        self.counters: Counter[str] = sharing.counters
        sharing.on_private = self.offer
        pool.changed, quotas.on_wait = self._changed, self._give_way

    def note(self, claims: RouteClaims) -> None:
        """Note that a principal is admitted until its token ends.

        Places of a tenant with a quota for the whole farm are leased from the scheduler, which
        grants them to builds. So nothing is executed again for its members.
        """
        if claims.leased:
            return
        key = claims.tenant, claims.subject
        self._admitted[key] = max(self._admitted.use(key) or 0.0, claims.expires_at)

    def offer(self, candidate: Candidate) -> None:
        """Execute this again later, if the tenant has a budget for it. Never waits."""
        if candidate.sharing.verify_seconds:
            self.counters["verify.dropped"] += not self._turns.add(candidate)
            self._wake.set()

    async def run(self) -> None:
        """Verify until cancelled."""
        while True:
            candidate = self._next()
            if candidate is None:
                self._wake.clear()
                with suppress(TimeoutError):
                    async with asyncio.timeout(_LOOK_SECONDS if self._turns else None):
                        await self._wake.wait()
                continue
            try:
                await self._verify(candidate)
            except HpccError as error:
                self.counters[f"verify.lost.{error.reason}"] += 1
            except Exception:  # noqa: BLE001 - the root of a task: one action must not end the others
                _log.exception("a result is not verified")
                self.counters["verify.lost.internal"] += 1

    def _changed(self) -> None:
        if self._pool.is_awaited:
            self._give_way()
        elif self._turns:
            self._wake.set()

    def _give_way(self) -> None:
        """Cancel what runs. Without effect if nothing does."""
        scope, self._scope = self._scope, None
        if scope is not None and not scope.expired():
            self.counters["verify.preempted"] += 1
            scope.reschedule(asyncio.get_running_loop().time())

    def _next(self) -> Candidate | None:
        """Return a candidate that may run now. Drops those that never may, keeps the rest."""
        later = list[Candidate]()
        found = None
        while found is None and (candidate := self._turns.take()) is not None:
            if refusal := self._refusal(candidate):
                self.counters[f"verify.skipped.{refusal}"] += 1
            elif self._may_run(candidate):
                found = candidate
            else:
                later.append(candidate)
        for candidate in later:
            self._turns.add(candidate)
        return found

    def _refusal(self, candidate: Candidate) -> str:
        """Return why a candidate may never run, else ""."""
        tenant = candidate.domain.tenant
        admitted = self._admitted.get((tenant, candidate.principal), 0.0)
        if self._clock.now() >= admitted:
            return "not-admitted"
        if self._runner.has_ended_a_guest(tenant, candidate.action):
            return "ended-a-guest"
        if any(self._runs.used((tenant, v)) >= _CLAIMANT_RUNS for v in candidate.claimants):
            return "claimant-budget"
        return ""

    def _may_run(self, candidate: Candidate) -> bool:
        domain, tenant = candidate.domain.common, candidate.domain.tenant
        has_budget = self._seconds.used(tenant) < candidate.sharing.verify_seconds
        has_place = self._quotas.has_room(tenant, candidate.principal)
        return has_budget and has_place and self._pool.is_idle_for(domain)

    async def _verify(self, candidate: Candidate) -> None:
        tenant, began = candidate.domain.tenant, self._clock.monotonic()
        left = candidate.sharing.verify_seconds - self._seconds.used(tenant)
        try:
            async with asyncio.timeout(min(left, _MAX_SECONDS)) as self._scope:
                await self._executed(candidate)
        except TimeoutError:
            if self._scope is None:  # it gave way
                self._turns.add(candidate)
            else:
                self.counters["verify.too-long"] += 1
        finally:
            self._scope = None
            self._seconds.charge(tenant, self._clock.monotonic() - began)

    async def _executed(self, candidate: Candidate) -> None:
        domain, action = candidate.domain, candidate.action
        if not await self._sharing.may_verify(candidate):
            self.counters["verify.skipped.settled"] += 1
            return
        spec, command = await read_action(await self._storage.blobs(domain.tenant), action)
        work = Work(
            digest=action,
            action=spec,
            command=command,
            domain=domain.common,
            sharing=candidate.sharing,
            principal=candidate.principal,
            client=candidate.client,
            client_version=candidate.client_version,
            queued_at=self._clock.now(),
            is_verification=True,
        )
        for voter in candidate.claimants:
            self._runs.charge((domain.tenant, voter), 1)
        made = await self._quotas.execute(
            domain.tenant, lambda: self._runner.run(work), principal=candidate.principal
        )
        is_equal = result_digest(made.record) == candidate.result
        self.counters["verify.equal" if is_equal else "verify.differs"] += 1
