"""Claims that a client carries from one worker to another count as those that lie there, or not."""

from __future__ import annotations

from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager
from dataclasses import replace
from pathlib import Path

import pytest

from hpcc.reapi.claims import ResultClaim
from hpcc.rpc.reapi.meeting import Seen, carried
from hpcc_testkit.farm.actions import made_action, run_script
from hpcc_testkit.farm.several import workers
from hpcc_testkit.guests.fake_runtime import FakeRuntime
from hpcc_testkit.hostile.rooted_farm import (
    EVIL,
    GOOD,
    LABEL,
    RootableGuest,
    SharingFarm,
    scheduling,
)

pytestmark = pytest.mark.timeout(120)
ONE, OTHER = ("cp a.c a.o", "true; cp a.c a.o")


class Machines(FakeRuntime):
    def __init__(self, directory: Path) -> None:
        super().__init__(directory, isolation=LABEL, guest_class=RootableGuest)


@asynccontextmanager
async def two(directory: Path) -> AsyncGenerator[SharingFarm]:
    """Run two workers without a common store. Ann uses one of them, the others the other."""
    async with scheduling(directory) as farm:
        farm.uses = dict.fromkeys(("bob", "carol", "mallory"), "w2") | {"ann": "w1", "eve": "w1"}
        async with workers(farm.farm, "w1", "w2", slots=2, runtime_class=Machines):
            # Each worker has room for one guest, and its first result would serve at once.
            await farm.warm("ann")
            await farm.warm("bob")
            yield farm


async def seen(farm: SharingFarm, name: str, script: str) -> Seen:
    """Look as a person until the worker has published something about an action."""
    async with farm.person(name) as client:
        while True:
            found = await client.look(made_action(script)[-1].digest, ["a.o"])
            if found.record or found.known.claims:
                return found


async def anns_claim(farm: SharingFarm, script: str) -> ResultClaim:
    assert await farm.build("ann", script) == (GOOD, False)
    (claim,) = (await seen(farm, "eve", script)).known.claims
    return claim


async def run(farm: SharingFarm, name: str, script: str, *claims: ResultClaim) -> bytes:
    async with farm.person(name, claims=carried(claims)) as client:
        data, is_cached = await run_script(client, script)
        assert not is_cached
        return data


async def test_a_carried_claim_agrees_with_an_execution_elsewhere(tmp_path: Path) -> None:
    async with two(tmp_path) as farm:
        claim = await anns_claim(farm, ONE)
        assert await run(farm, "bob", ONE, claim) == GOOD
        assert (await seen(farm, "carol", ONE)).record is not None
        assert await farm.build("carol", ONE) == (GOOD, True)
        assert set(farm.labels()) == {"agreed(2)"}


async def test_executions_that_did_not_see_each_other_are_joined_by_the_next_one(
    tmp_path: Path,
) -> None:
    """What happens after Ann and Bob executed at the same moment at different workers."""
    async with two(tmp_path) as farm:
        farm.farm.audit.rows.clear()
        hers = await anns_claim(farm, ONE)
        assert await run(farm, "bob", ONE) == GOOD
        (his,) = (await seen(farm, "carol", ONE)).known.claims
        # Nobody joins the two claims but an execution that brings them along.
        assert await run(farm, "carol", ONE, hers, his) == GOOD
        assert (await seen(farm, "mallory", ONE)).record is not None
        assert await farm.build("mallory", ONE) == (GOOD, True)
        assert len(farm.labels("executed")) == 3


async def test_a_carried_claim_counts_only_for_what_it_was_signed(tmp_path: Path) -> None:
    async with two(tmp_path) as farm:
        claim = await anns_claim(farm, ONE)
        forged = replace(claim, signature=bytes(64))
        assert await run(farm, "bob", OTHER, claim, forged) == GOOD
        (kept,) = (await seen(farm, "carol", OTHER)).known.claims
        assert kept.voter != claim.voter
        assert await run(farm, "bob", ONE, forged) == GOOD
        (kept,) = (await seen(farm, "carol", ONE)).known.claims
        assert kept.voter != claim.voter
        assert farm.labels() == []


async def test_a_rooted_guest_gets_no_votes_from_claims_that_its_owner_carries(
    tmp_path: Path,
) -> None:
    async with two(tmp_path) as farm:
        claim = await anns_claim(farm, ONE)
        await farm.root("mallory")
        assert await run(farm, "mallory", ONE, claim) == EVIL
        found = await seen(farm, "carol", ONE)
        assert found.record is None
        assert {c.result for c in found.known.claims} > {claim.result}
