"""Divisions of a farm's places leave routes time, and hold back no answer that is there."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import cast

import pytest

from hpcc.control.embedded import EmbeddedControlStore
from hpcc.core import TenantId
from hpcc.ports import ControlStore, Divide, LeasedShare, ShareKey
from hpcc.rpc.scheduler.api import ShareAsk, ShareGrants
from hpcc.scheduler.shares import ShareBook
from hpcc.scheduler.tenants.table import TenantPolicy
from hpcc_testkit.farm.policies import TenantsAuthenticator
from hpcc_testkit.services.idp_tokens import FixedClock
from hpcc_testkit.suite.shared_farm import policy

pytestmark = pytest.mark.timeout(120)
ACME = TenantId("acme")


class GatedStore:
    """A store that answers once a test lets it, and counts how often it is asked."""

    def __init__(self, store: ControlStore) -> None:
        self._store, self.asked = store, 0
        self.began, self.gate = asyncio.Event(), asyncio.Event()

    async def lease_shares(
        self, asks: Sequence[LeasedShare], seconds: float, divide: Divide
    ) -> Mapping[ShareKey, LeasedShare]:
        self.asked += 1
        self.began.set()
        await self.gate.wait()
        return await self._store.lease_shares(asks, seconds, divide)


class Farm:
    """Workers of four places, a tenant that may use six, and a clock that a policy moves."""

    def __init__(self, store: ControlStore, clock: FixedClock) -> None:
        self.clock, self.takes = clock, 0.0
        self.store = GatedStore(store)
        self._authenticator = TenantsAuthenticator(policy(ACME.value, farm_execs=6))
        self._book = ShareBook(
            cast("ControlStore", self.store), clock, policy_or_none=self._policy_or_none,
            capacities=lambda: dict.fromkeys("abcd", 4), lease_seconds=10.0,
        )  # fmt: skip

    def _policy_or_none(self, tenant: TenantId) -> TenantPolicy | None:
        self.clock.time += self.takes
        return self._authenticator.policy_or_none(tenant)

    async def ask(self, worker: str, wanted: int = 4) -> ShareGrants:
        return await self._book.lease(worker, [ShareAsk(ACME, "ann", wanted, 0)])


@pytest.fixture
def pauses(monkeypatch: pytest.MonkeyPatch) -> list[float]:
    """Return the pauses from here on; none takes any time."""
    made, plain = list[float](), asyncio.sleep

    async def sleep(seconds: float) -> None:
        made.append(seconds)
        await plain(0)

    monkeypatch.setattr("hpcc.scheduler.shares.asyncio.sleep", sleep)
    return made


async def test_the_more_a_division_takes_the_longer_is_the_pause_behind_it(
    tmp_path: Path, pauses: list[float]
) -> None:
    """Routes wait for a division, so a farm with many shares must not divide all the time."""
    clock = FixedClock()
    with EmbeddedControlStore(tmp_path / "control.sqlite", clock) as store:
        farm, found = Farm(store, clock), []
        farm.store.gate.set()
        for farm.takes in (0.0, 0.0078125, 0.03125, 1.0, 0.0):
            await farm.ask("a")
            await farm.ask("a")
            # The policy is asked for once in the division and maybe behind it.
            found.append(pauses[-1])
    assert found == pytest.approx([0.02, 9 / 128, 9 / 32, 0.5, 0.02])


async def test_a_worker_that_shared_in_a_division_does_not_wait_for_the_pause_behind_it(
    tmp_path: Path, pauses: list[float]
) -> None:
    """Otherwise the answers of all but one worker are held back, and their compiles wait."""
    clock = FixedClock()
    with EmbeddedControlStore(tmp_path / "control.sqlite", clock) as store:
        farm = Farm(store, clock)
        farm.store.gate.set()
        for _ in range(2):
            grants = await asyncio.gather(*map(farm.ask, "abcd"))
            assert sum(places for g in grants for places in g.places.values()) == 6
    assert farm.store.asked == 2
    assert pauses == pytest.approx([float("-inf"), 0.02])


async def test_a_worker_that_goes_away_in_a_division_ends_no_pause(
    tmp_path: Path, pauses: list[float]
) -> None:
    """Otherwise one that asks and cancels makes a scheduler divide all the time."""
    clock = FixedClock()
    with EmbeddedControlStore(tmp_path / "control.sqlite", clock) as store:
        farm = Farm(store, clock)
        hasty = asyncio.create_task(farm.ask("a"))
        await farm.store.began.wait()
        pauses.clear()
        hasty.cancel()
        await asyncio.gather(hasty, return_exceptions=True)
        farm.store.gate.set()
        grants = await farm.ask("b")
    assert pauses == pytest.approx([0.02])
    # What the other asked for is divided with it.
    assert grants.places == {(ACME, "ann"): 3}
