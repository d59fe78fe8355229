"""Two worker processes share one machine: their slots add up, and one that is killed comes back."""

from __future__ import annotations

import asyncio
import signal
from collections import Counter
from contextlib import AsyncExitStack
from dataclasses import replace
from pathlib import Path

import pytest

from hpcc.core import RemoteRequest
from hpcc.dispatch import routes
from hpcc_testkit.farm.in_process import farm_under_test
from hpcc_testkit.farm.several import Build, build_on, worker_process

SLOTS = 2
# A worker says which process it is by the parent of the program that it runs.
SCRIPT = """
echo >> {runs}; echo $PPID >> {directory}/by
mkdir {directory}/now/{number} && ls {directory}/now | wc -l >> {directory}/at-once
sleep {seconds}; cp {number}.c {number}.o; rmdir {directory}/now/{number}
"""


class WatchedBuild(Build):
    """A build whose units note who ran them, and how many ran at the same time."""

    def request(self, number: int, seconds: float) -> RemoteRequest:
        made = super().request(number, seconds)
        script = SCRIPT.format(
            runs=self.directory / f"{number}.runs",
            directory=self.directory,
            number=number,
            seconds=seconds,
        )
        return replace(made, argv=("sh", "-c", script))

    def by_process(self) -> Counter[int]:
        return Counter(map(int, self._lines("by")))

    def most_at_once(self) -> int:
        return max(map(int, self._lines("at-once")))

    def forget(self) -> None:
        for name in ("by", "at-once"):
            (self.directory / name).unlink()

    def _lines(self, name: str) -> list[str]:
        file = self.directory / name
        return file.read_text().split() if file.exists() else []


@pytest.fixture
def patient(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let no delay of a busy machine count as a queue or as a worker that is slow to open."""
    for name in ("OPENING_SECONDS", "_QUEUED_SECONDS"):
        monkeypatch.setattr(routes, name, 60.0)


@pytest.mark.timeout(600)
@pytest.mark.usefixtures("patient")
async def test_slots_add_up_and_a_killed_worker_comes_back_to_the_same_build(
    tmp_path: Path,
) -> None:
    async with farm_under_test(tmp_path) as farm, AsyncExitStack() as stack:
        victim = await stack.enter_async_context(worker_process(farm, "w1", SLOTS))
        other = await stack.enter_async_context(worker_process(farm, "w2", SLOTS))
        plain = await stack.enter_async_context(build_on(farm))
        build = WatchedBuild(plain.connection, plain.dispatcher, plain.directory)
        (build.directory / "now").mkdir()

        await build.run(range(16), jobs=8)
        build.check(range(16))
        assert set(build.by_process()) == {victim.pid, other.pid}
        assert build.most_at_once() <= 2 * SLOTS

        build.forget()
        build.ended.clear()
        running = asyncio.ensure_future(build.run(range(16, 48), jobs=8))
        await build.until(lambda: build.by_process()[victim.pid] >= SLOTS)
        victim.send_signal(signal.SIGKILL)
        await victim.wait()
        # As a service manager does, with the same directories; its certificate is still good.
        again = await stack.enter_async_context(worker_process(farm, "w1", SLOTS))
        await running
        build.check(range(16, 48), may_be_local=True)

        build.forget()
        build.ended.clear()
        # A lane to a worker that was lost opens again after a while; a new machine asks at once.
        later = await stack.enter_async_context(build_on(farm, name="later"))
        last = WatchedBuild(later.connection, later.dispatcher, later.directory)
        (last.directory / "now").mkdir()
        await last.run(range(48, 64), jobs=8)
        last.check(range(48, 64), may_be_local=True)
        assert set(last.by_process()) == {again.pid, other.pid}
        assert last.most_at_once() <= 2 * SLOTS
