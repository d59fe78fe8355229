"""A worker's security events reach the operator's pages, from its trail over its heartbeats."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from pathlib import Path

import pytest

from hpcc.cli.base.farm_observer import FarmObserver
from hpcc.config.paths import Paths
from hpcc.ports import SystemClock
from hpcc.rpc.scheduler.recent_events import SeenEvents
from hpcc_testkit.farm.processes import ProcessFarm, process_farm
from hpcc_testkit.services.web import Fetched, web_pages

pytestmark = pytest.mark.timeout(300)
_KIND = "worker-drain"


def logged_in(farm: ProcessFarm, directory: Path) -> dict[str, str]:
    """Return the environment of somebody who is logged in; one secret makes all operators."""
    env = {"HPCC_DIR": str(directory / "home"), "PATH": "/usr/bin:/bin"}
    paths = Paths.from_env(env)
    paths.state.mkdir(parents=True)
    paths.farm_file.write_text(farm.farm("olga").to_json())
    paths.farm_file.chmod(0o600)
    return env


async def until(observer: FarmObserver, is_it: Callable[[SeenEvents], bool]) -> SeenEvents:
    while not is_it(seen := await observer.events()):  # noqa: ASYNC110 - another process
        await asyncio.sleep(0.2)
    return seen


def has(seen: SeenEvents) -> bool:
    return any(event.name == _KIND for event in seen.of_workers)


async def test_what_a_worker_notes_is_shown_under_its_name_also_by_a_scheduler_that_starts_anew(
    tmp_path: Path,
) -> None:
    def pages() -> dict[str, str]:
        with web_pages(env, local=False) as link:
            client = Fetched(link)
            return {
                path: client.page(f"{client.root}/{path}")[0]
                for path in ("", "alerts", "worker/w1")
            }

    async with process_farm(tmp_path) as farm:
        env = logged_in(farm, tmp_path)
        await farm.hpcc("scheduler", "drain-worker", "w1", "--reason", "new kernel")
        async with FarmObserver(Paths.from_env(env), SystemClock()) as observer:
            seen = await until(observer, has)
            (event,) = (e for e in seen.of_workers if e.name == _KIND)
            assert event.worker == "w1"
            assert ("reason", "new kernel") in event.fields
            assert not any(e.name == _KIND for e in seen.events), "the scheduler's own are apart"
            shown = await asyncio.to_thread(pages)
            assert all(_KIND in page for page in shown.values()), shown.keys()
            assert "What it says of its security events" in shown["worker/w1"]

            await farm.kill("scheduler")
            await farm.start_scheduler()
        async with FarmObserver(Paths.from_env(env), SystemClock()) as observer:
            seen = await until(observer, has)
            assert [e for e in seen.of_workers if e.name == _KIND] == [event]
