"""What a machine copied into its private store, after tenant or user became stricter.

A real compiler, daemon's cache, dispatcher, scheduler and worker. The guests are local processes.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, Iterator
from contextlib import asynccontextmanager, contextmanager
from pathlib import Path

from hpcc.config.farm_session import load_farm_session_or_none
from hpcc.core import Sharing
from hpcc.scheduler.tenants.table import TenantPolicy
from hpcc_testkit.cache.machines import TeamMachine
from hpcc_testkit.hostile.rooted_farm import SharingFarm, people, sharing_farm

FRESH_CI = {"publish_fresh": ("ci",)}


class Person:
    """Somebody with a checkout, a daemon and a farm."""

    def __init__(self, farm: SharingFarm, name: str, directory: Path) -> None:
        self.machine = TeamMachine(directory / name, {}, farm_json=farm.farm.farm(name).to_json())
        self.machine.clone({f"{unit}.c": f"int {unit};\n" for unit in ("one", "two", "own")})

    async def compile(self, unit: str) -> dict[str, int]:
        """Compile a unit on the farm; return what was counted."""
        before = self.machine.cache.counters()
        ended = await asyncio.to_thread(
            self.machine.compile, "gcc", "-O1", "-c", f"{unit}.c", "-o", f"{unit}.o"
        )
        assert (ended.answer, ended.exit_code) == ("done", 0)
        after = self.machine.cache.counters()
        changed = {name: n - before.get(name, 0) for name, n in after.items()}
        return {k: n for k, n in changed.items() if n and k.startswith(("hit.", "miss."))}

    def restart(self, sharing: Sharing = "agreed") -> None:
        """End daemon and dispatcher; the next ones have this demand."""
        self.machine.restart()
        self.machine.sharing = sharing


@contextmanager
def person(farm: SharingFarm, name: str, directory: Path) -> Iterator[Person]:
    made = Person(farm, name, directory)
    try:
        yield made
    finally:
        made.machine.restart()


@asynccontextmanager
async def copied(tmp_path: Path) -> AsyncGenerator[tuple[SharingFarm, Person]]:
    """Yield a farm, and Ann, who has a copy of a fresh result of CI and one of her own."""
    async with sharing_farm(tmp_path / "farm", people(**FRESH_CI)) as farm:
        with person(farm, "ci", tmp_path) as ci, person(farm, "ann", tmp_path) as ann:
            assert await ci.compile("one") == {"miss.remote.executed": 1}
            await farm.settled()
            assert await ann.compile("one") == {"miss.remote.fresh": 1}
            assert await ann.compile("own") == {"miss.remote.executed": 1}
            assert await ann.compile("one") == await ann.compile("own") == {"hit.remote": 1}
            yield farm, ann


def stricter() -> TenantPolicy:
    """Return the policy under which a fresh result is one vote of two."""
    return people(**FRESH_CI, agree_across_workers=True)


async def test_after_a_policy_became_stricter_a_copy_is_not_served_and_an_own_result_is(
    tmp_path: Path,
) -> None:
    async with copied(tmp_path) as (farm, ann):
        farm.authenticator.policy = stricter()
        ann.restart()
        # Another daemon still goes by what the last route showed, until there is a new one.
        assert await ann.compile("one") == {"hit.remote": 1}
        assert await ann.compile("two") == {"miss.remote.executed": 1}
        assert await ann.compile("one") == {"miss.remote.executed": 1}
        assert await ann.compile("own") == {"hit.remote": 1}
        # Her own execution took the place of the copy, and the terms outlive the process.
        ann.restart()
        assert await ann.compile("one") == {"hit.remote": 1}
        said = load_farm_session_or_none(ann.machine.paths.farm_session_file)
        assert said is not None
        assert said.terms is not None
        assert said.terms.sharing.across_workers


async def test_a_user_who_demands_more_is_not_served_earlier_copies(tmp_path: Path) -> None:
    async with copied(tmp_path) as (_, ann):
        ann.restart("fresh")
        assert await ann.compile("one") == {"hit.remote": 1}
        ann.restart("private")
        assert await ann.compile("own") == {"hit.remote": 1}
        assert await ann.compile("one") == {"miss.remote.executed": 1}
