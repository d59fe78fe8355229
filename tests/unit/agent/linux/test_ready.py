"""A sandbox is made before its program, and serves one exec with the limits that it was made for."""

from __future__ import annotations

import asyncio
import os
import shutil
from collections.abc import AsyncIterator
from pathlib import Path

import pytest
import pytest_asyncio

from hpcc.agent.linux import ready
from hpcc.agent.linux.ready import ReadySandbox, Sandboxes, SandboxLimits, SandboxPlaces

# Stands for `hpcc-init exec`: when it may go, it writes the job to a file.
HELPER = """#!/bin/sh
[ "$(head -c 1 <&5)" = g ] && tr '\\0' '|' </proc/self/fd/6 >"DIRECTORY/job" && echo done >&3
"""
LIMITS = SandboxLimits(memory_bytes=1 << 20, output_bytes=5, pids=7)


class Group:
    """A cgroup that is a directory."""

    def __init__(self, root: str, name: str, **_: int) -> None:
        self.path = Path(root, name)
        self.path.mkdir()
        self.procs_paths = f"{self.path}/cgroup.procs"

    def remove_unused(self) -> None:
        self.path.rmdir()

    async def remove(self) -> None:
        self.path.rmdir()


class NoNetworks:
    """Gives out descriptors of nothing."""

    def take(self) -> int:
        return os.open("/dev/null", os.O_RDONLY)


@pytest.fixture
def places(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> SandboxPlaces:
    monkeypatch.setattr(ready, "new_cgroup", Group)
    monkeypatch.setattr(ready, "Networks", NoNetworks)
    (tmp_path / "groups").mkdir()
    helper = tmp_path / "helper"
    helper.write_text(HELPER.replace("DIRECTORY", str(tmp_path)))
    helper.chmod(0o755)
    return SandboxPlaces(
        helper=str(helper), cgroup_root=str(tmp_path / "groups"), directory=str(tmp_path),
        waits_for_tick=True,
    )  # fmt: skip


@pytest_asyncio.fixture
async def sandboxes(places: SandboxPlaces) -> AsyncIterator[Sandboxes]:
    yield Sandboxes(places, keeps_one=True)
    # Their children end when nobody can tell them to go.


async def run(sandbox: ReadySandbox, places: SandboxPlaces, *argv: str, **env: str) -> str:
    sandbox.start("x0/src", "/src/a", argv, env)
    await sandbox.helper.wait()
    assert sandbox.report.read_now(100) == b"done\n"
    await sandbox.drop()
    return job(places)


def job(places: SandboxPlaces) -> str:
    return Path(places.directory, "job").read_text()


async def second_exec(sandboxes: Sandboxes) -> None:
    for _ in range(2):
        await (await sandboxes.take(LIMITS)).drop()
    sandboxes.make_ready(LIMITS)


def groups(places: SandboxPlaces) -> list[str]:
    """Return the groups of this agent's sandboxes, by number."""
    own = f"x{os.getpid()}-"
    return sorted(f"x{n.removeprefix(own)}" for n in os.listdir(places.cgroup_root) if own in n)


async def test_a_group_that_an_agent_before_it_left_is_in_no_ones_way(
    sandboxes: Sandboxes, places: SandboxPlaces
) -> None:
    for name in ("x0", f"x{os.getpid() + 1}-0"):
        os.mkdir(f"{places.cgroup_root}/{name}")
    assert await run(await sandboxes.take(LIMITS), places, "a") == "x0/src|/src/a|1|a|"
    assert groups(places) == []


async def test_the_job_arrives_whole(sandboxes: Sandboxes, places: SandboxPlaces) -> None:
    sandbox = await sandboxes.take(LIMITS)
    large = "y" * 200_000
    said = await run(sandbox, places, "cc", "-c", "", large, A="1", B="")
    assert said == f"x0/src|/src/a|4|cc|-c||{large}|A=1|B=|"


async def test_the_next_exec_gets_the_one_that_waits(
    sandboxes: Sandboxes, places: SandboxPlaces
) -> None:
    await second_exec(sandboxes)
    assert groups(places) == ["x2"]
    sandbox = await sandboxes.take(LIMITS)
    assert groups(places) == ["x2"]
    assert sandbox.uid == 10_002
    # It serves one exec: the next one at the same time gets another.
    other = await sandboxes.take(LIMITS)
    assert groups(places) == ["x2", "x3"]
    assert await run(sandbox, places, "a") == "x0/src|/src/a|1|a|"
    assert await run(other, places, "b") == "x0/src|/src/a|1|b|"
    assert groups(places) == []


@pytest.mark.parametrize(
    "other",
    [
        SandboxLimits(memory_bytes=2 << 20, output_bytes=5, pids=7),
        SandboxLimits(memory_bytes=1 << 20, output_bytes=6, pids=7),
        SandboxLimits(memory_bytes=1 << 20, output_bytes=5, pids=8),
    ],
)
async def test_other_limits_get_another(
    sandboxes: Sandboxes, places: SandboxPlaces, other: SandboxLimits
) -> None:
    await second_exec(sandboxes)
    sandbox = await sandboxes.take(other)
    assert groups(places) == ["x3"]
    assert sandbox.limits == other
    await sandbox.drop()


async def test_one_that_ended_is_not_used(sandboxes: Sandboxes, places: SandboxPlaces) -> None:
    await second_exec(sandboxes)
    waiting = sandboxes._waiting
    assert waiting is not None
    waiting.helper.kill()
    await waiting.helper.wait()
    sandbox = await sandboxes.take(LIMITS)
    assert groups(places) == ["x3"]
    await sandbox.drop()


async def test_a_helper_that_ended_before_its_program_is_no_error(sandboxes: Sandboxes) -> None:
    sandbox = await sandboxes.take(LIMITS)
    sandbox.helper.kill()
    await sandbox.helper.wait()
    sandbox.start("x0/src", "/src", ["cc"], {})
    assert sandbox.report.read_now(100) == b""
    await sandbox.drop()


async def test_a_guest_for_one_compile_makes_no_second(
    sandboxes: Sandboxes, places: SandboxPlaces
) -> None:
    await (await sandboxes.take(LIMITS)).drop()
    sandboxes.make_ready(LIMITS)
    assert groups(places) == []


async def test_none_waits_where_none_is_wanted(places: SandboxPlaces) -> None:
    sandboxes = Sandboxes(places, keeps_one=False)
    await second_exec(sandboxes)
    assert groups(places) == []


async def test_what_could_not_start_leaves_nothing(places: SandboxPlaces) -> None:
    shutil.move(places.helper, places.helper + ".gone")
    sandboxes = Sandboxes(places, keeps_one=True)
    before = os.listdir("/proc/self/fd")
    for _ in range(3):
        with pytest.raises(FileNotFoundError):
            await sandboxes.take(LIMITS)
    sandboxes.make_ready(LIMITS)  # the next exec will say why
    assert groups(places) == []
    await asyncio.sleep(0)
    assert len(os.listdir("/proc/self/fd")) == len(before)
