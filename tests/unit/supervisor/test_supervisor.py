"""Services that die, hang, send invalid data, or are asked to stop."""

from __future__ import annotations

import asyncio
import os
import sys
from collections.abc import Mapping
from pathlib import Path

import pytest

from hpcc.core import CallerError
from hpcc.ports import SystemClock
from hpcc.supervisor.policy import GiveUp, Restart, RestartPolicy
from hpcc.supervisor.process import ChildSpec, Ready, SupervisorError
from hpcc.supervisor.run import Supervisor

SERVE = "import sys,json;print(json.dumps({'progress':'warming'}));print(json.dumps({'ready':True,'port':7}),flush=True);sys.stdin.read()"


def spec(tmp_path: Path, code: str, *, ready_seconds: float = 20) -> ChildSpec:
    return ChildSpec(
        name="svc",
        argv=(sys.executable, "-I", "-c", code),
        env={},
        log=tmp_path / "svc.log",
        ready_seconds=ready_seconds,
    )


class Harness:
    def __init__(self, tmp_path: Path, code: str, **kw: float) -> None:
        self.said: list[str] = []
        self.ready: list[Mapping[str, Ready]] = []
        self.pids: list[int] = []
        self.became_ready = asyncio.Event()
        self.supervisor = Supervisor(
            [("svc", lambda _: spec(tmp_path, code, **kw))],
            clock=SystemClock(),
            progress=self.said.append,
            on_ready=self._on_ready,
        )

    def _on_ready(self, ready: Mapping[str, Ready]) -> None:
        self.ready.append(dict(ready))
        self.pids.append(self.supervisor._children["svc"].process.pid)
        self.became_ready.set()


def is_alive(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    return True


async def test_a_service_is_started_and_ended(tmp_path: Path) -> None:
    harness, stop = Harness(tmp_path, SERVE), asyncio.Event()
    async with asyncio.TaskGroup() as tasks:
        tasks.create_task(harness.supervisor.run(stop))
        await harness.became_ready.wait()
        assert harness.ready[0]["svc"].facts["port"] == 7
        assert harness.said == ["warming"]
        stop.set()
    assert not is_alive(harness.pids[0])


async def test_a_killed_service_is_started_again(tmp_path: Path) -> None:
    harness, stop = Harness(tmp_path, SERVE), asyncio.Event()
    async with asyncio.timeout(60), asyncio.TaskGroup() as tasks:
        tasks.create_task(harness.supervisor.run(stop))
        await harness.became_ready.wait()
        harness.became_ready.clear()
        os.kill(harness.pids[0], 9)
        await harness.became_ready.wait()
        stop.set()
    assert len(set(harness.pids)) == 2
    assert not any(map(is_alive, harness.pids))


@pytest.mark.parametrize(
    ("code", "says"),
    [
        ("import sys; sys.exit('no disk')", "no disk"),
        ("print('hello',flush=True); import sys; sys.stdin.read()", "JSON"),
        ("print('['*100000,flush=True); import sys; sys.stdin.read()", "JSON"),
    ],
)
async def test_a_service_that_fails_at_the_start_is_named_with_its_last_words(
    tmp_path: Path, code: str, says: str
) -> None:
    with pytest.raises(SupervisorError) as caught:
        await Harness(tmp_path, code).supervisor.run(asyncio.Event())
    assert says in str(caught.value)


async def test_a_service_that_never_gets_ready_is_ended(tmp_path: Path) -> None:
    harness = Harness(tmp_path, "import sys; sys.stdin.read()", ready_seconds=0.5)
    with pytest.raises(SupervisorError, match="not ready within"):
        await harness.supervisor.run(asyncio.Event())


async def test_a_service_that_keeps_dying_is_given_up(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("hpcc.supervisor.policy.FIRST_DELAY_SECONDS", 0.0)
    code = "print('{\"ready\": true}',flush=True)"
    with pytest.raises(SupervisorError, match="given up"):
        await Harness(tmp_path, code).supervisor.run(asyncio.Event())


def test_restarts_wait_longer_each_time_and_end() -> None:
    policy = RestartPolicy()
    decisions = [policy.on_death(float(i)) for i in range(6)]
    delays = [d.after_seconds for d in decisions if isinstance(d, Restart)]
    assert delays == sorted(delays)
    assert len(delays) == 5
    assert isinstance(decisions[-1], GiveUp)


def test_old_deaths_are_forgotten() -> None:
    policy = RestartPolicy()
    for i in range(20):
        assert isinstance(policy.on_death(i * 400.0), Restart)


async def test_a_stop_while_a_service_still_starts_is_obeyed_at_once(tmp_path: Path) -> None:
    harness, stop = (
        Harness(tmp_path, "import sys; sys.stdin.read()", ready_seconds=100),
        asyncio.Event(),
    )
    async with asyncio.timeout(30), asyncio.TaskGroup() as tasks:
        tasks.create_task(harness.supervisor.run(stop))
        while not harness.supervisor._children:  # noqa: ASYNC110 - a test waits for a process
            await asyncio.sleep(0.01)
        pid = harness.supervisor._children["svc"].process.pid
        stop.set()
    assert not is_alive(pid)


async def test_a_service_that_cannot_be_described_is_named_in_one_line(tmp_path: Path) -> None:
    def refuse(_ready: Mapping[str, Ready]) -> ChildSpec:
        raise CallerError("secrets must have at least 32 characters")

    supervisor = Supervisor(
        [("svc", refuse)], clock=SystemClock(), progress=print, on_ready=lambda _: None
    )
    with pytest.raises(SupervisorError, match="svc: secrets must have"):
        await supervisor.run(asyncio.Event())
