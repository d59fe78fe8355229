"""Three people and CI build 100 units with a real compiler; workers are killed between them.

The guests are local processes that carry the label of a microVM, so that this takes seconds: what is
tried is who gets whose result, and not the boundary.
"""

from __future__ import annotations

import os
import signal
from collections import Counter
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager
from pathlib import Path

import pytest

from hpcc.audit.base.canonical import row_of
from hpcc.audit.base.query import Query
from hpcc.audit.lookup.reader import TrailReader
from hpcc.core import RemoteInput, RemoteRequest, RemoteResult
from hpcc.scheduler.tenants.table import TenantPolicy
from hpcc.store.disk_actions import sharing_directory
from hpcc_testkit.farm.in_process import TENANT, FarmUnderTest, farm_under_test
from hpcc_testkit.farm.policies import PolicyAuthenticator
from hpcc_testkit.farm.several import Build, build_on, worker_process
from hpcc_testkit.farm.worker import LABEL_VARIABLE
from hpcc_testkit.hostile.rooted_farm import LABEL, people, until

pytestmark = [pytest.mark.nightly, pytest.mark.slow, pytest.mark.timeout(600)]
UNITS = 100


class CBuild(Build):
    """A build whose units are C sources with a common header, compiled by this machine's gcc."""

    def request(self, number: int, seconds: float) -> RemoteRequest:
        del seconds
        texts = {
            "all.h": "static inline int twice(int x) { return 2 * x; }\n",
            f"{number}.c": f'#include "all.h"\nint unit_{number}(int x) {{ return twice(x); }}\n',
        }
        for name, text in texts.items():
            if not (self.directory / name).exists():
                (self.directory / name).write_text(text)
        return RemoteRequest(
            argv=("gcc", "-O1", "-c", f"{number}.c", "-o", f"{number}.o"),
            env=(("PATH", "/usr/bin:/bin"),),
            cwd="",
            inputs=tuple(
                RemoteInput(n, str(self.directory / n), is_executable=False) for n in texts
            ),
            outputs=(f"{number}.o",),
        )


class Story:
    """The farm, its one worker at a time, and what people built."""

    def __init__(self, farm: FarmUnderTest) -> None:
        self.farm, self.objects = farm, set[tuple[bytes, ...]]()

    def entries(self, kind: str) -> int:
        """Return how many shared results, or claims with their indices, are on the worker's disk."""
        directory = sharing_directory(self.farm.directory / "worker" / "store", TENANT, LABEL, kind)
        return sum(f.is_file() and not f.name.startswith(".") for f in directory.rglob("*"))

    @asynccontextmanager
    async def worker(self) -> AsyncGenerator[None]:
        """Run the worker while the block runs, and kill it then."""
        env = dict(os.environ) | {LABEL_VARIABLE: LABEL.value}
        async with worker_process(self.farm, "w1", 2, env=env) as process:
            yield
            process.send_signal(signal.SIGKILL)

    def is_published(self, *, is_agreed: bool) -> bool:
        """Return whether each unit is shared or, unless `is_agreed`, has a claim and its index."""
        claimed = 0 if is_agreed else self.entries("claims") // 2
        return self.entries("shared") + claimed >= UNITS

    async def build(self, person: str, *, is_agreed: bool = True) -> int:
        """Build all units and wait until they are published; return how many hit."""
        async with self.worker():
            async with build_on(self.farm, person) as made_for:
                build = CBuild(made_for.connection, made_for.dispatcher, made_for.directory)
                await build.run(range(UNITS), jobs=4)
                results = [build.outcomes[n] for n in range(UNITS)]
                made = [r for r in results if isinstance(r, RemoteResult) and not r.exit_code]
                assert len(made) == UNITS, [r for r in results if r not in made][:1]
                self.objects.add(tuple(r.outputs[0].data for r in made))
                hits = build.cached
            await until(lambda: self.is_published(is_agreed=is_agreed))
        return hits

    def executions(self) -> Counter[str]:
        """Return how often each action was executed, from the worker's trail."""
        index = TrailReader(self.farm.directory / "worker" / "audit")
        query = Query(kind="row", cache_status="executed", limit=1 << 20)
        return Counter(row_of(r).action_digest for r in index.find(query))


@asynccontextmanager
async def story(directory: Path, policy: TenantPolicy) -> AsyncGenerator[Story]:
    authenticator = PolicyAuthenticator(policy)
    async with farm_under_test(directory, authenticator=authenticator) as farm:
        yield Story(farm)


async def test_after_cis_build_a_developers_first_build_hits(tmp_path: Path) -> None:
    async with story(tmp_path, people(publish_fresh=("ci",))) as farm:
        assert await farm.build("ci") == 0
        assert await farm.build("ann") >= 0.99 * UNITS
        assert len(farm.objects) == 1
        assert set(farm.executions().values()) == {1}


async def test_without_ci_the_third_developer_hits_and_each_action_ran_once_more(
    tmp_path: Path,
) -> None:
    async with story(tmp_path, people()) as farm:
        assert await farm.build("ann", is_agreed=False) == 0
        # A first compile of Ann's guest may have been fresh.
        hits = await farm.build("bob")
        assert await farm.build("carol") >= 0.99 * UNITS
        assert len(farm.objects) == 1
        ran = farm.executions()
        assert len(ran) == UNITS
        assert sum(ran.values()) == 2 * UNITS - hits
        assert max(ran.values()) <= 2
