"""A compile's cgroup in both cgroup versions, tested by the files that are written and read."""

from __future__ import annotations

import asyncio
import errno
import shutil
import subprocess
from pathlib import Path

import pytest

from hpcc.agent.linux.cgroup import Room, enable_controllers, new_cgroup


@pytest.fixture
def v2(tmp_path: Path) -> Path:
    (tmp_path / "cgroup.controllers").write_text("memory pids\n")
    (tmp_path / "cgroup.subtree_control").write_text("")
    return tmp_path


@pytest.fixture
def v1(tmp_path: Path) -> Path:
    for name in ("memory", "pids"):
        (tmp_path / name).mkdir()
    return tmp_path


def content(*parts: str | Path) -> str:
    return Path(*parts).read_text()


def test_a_v2_group_has_its_limits_and_dies_as_one(v2: Path) -> None:
    root = Path(enable_controllers(str(v2), 5000))
    assert root.parent == v2
    group = new_cgroup(str(root), "x0", memory_bytes=1000, pids=7)
    assert content(v2, "cgroup.subtree_control") == "+memory +pids"
    assert content(root, "cgroup.subtree_control") == "+memory +pids"
    assert content(root, "memory.max") == "5000"
    assert content(root, "x0/memory.max") == "1000"
    assert content(root, "x0/pids.max") == "7"
    assert content(root, "x0/memory.oom.group") == "1"
    assert group.procs_paths == f"{root}/x0/cgroup.procs"
    group.kill()
    assert content(root, "x0/cgroup.kill") == "1"
    for count, expected in ((0, False), (2, True)):
        (root / "x0/memory.events").write_text(f"low 0\noom 1\noom_kill {count}\n")
        assert group.was_out_of_memory() is expected


def test_a_v2_root_that_is_busy_is_emptied_first(v2: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """In a container, the root group holds the first processes."""
    (v2 / "cgroup.procs").write_text("1\n7\n")
    moved: list[str] = []
    real = open

    def busy(path: str, mode: str = "r") -> object:
        if path.endswith("subtree_control") and not moved:
            moved.append("asked")
            raise OSError(errno.EBUSY, "busy")
        if path.endswith("agent/cgroup.procs"):
            mode = "a"
        return real(path, mode)

    monkeypatch.setattr("builtins.open", busy)
    enable_controllers(str(v2), 5000)
    monkeypatch.undo()
    assert content(v2, "agent/cgroup.procs") == "17"
    assert content(v2, "cgroup.subtree_control") == "+memory +pids"


def test_a_v1_group_has_its_limits_in_two_places(v1: Path) -> None:
    assert enable_controllers(str(v1), 5000) == str(v1)
    group = new_cgroup(str(v1), "x0", memory_bytes=1000, pids=7)
    assert content(v1, "memory/x0/memory.limit_in_bytes") == "1000"
    assert content(v1, "pids/x0/pids.max") == "7"
    assert group.procs_paths == f"{v1}/memory/x0/cgroup.procs:{v1}/pids/x0/cgroup.procs"
    (v1 / "memory/x0/memory.oom_control").write_text(
        "oom_kill_disable 0\nunder_oom 0\noom_kill 1\n"
    )
    assert group.was_out_of_memory()


def test_a_v1_group_is_killed_process_by_process(v1: Path) -> None:
    group = new_cgroup(str(v1), "x0", memory_bytes=1000, pids=7)
    child = subprocess.Popen(["sleep", "600"])
    gone = subprocess.Popen(["true"])
    gone.wait()
    (v1 / "pids/x0/cgroup.procs").write_text(f"{gone.pid}\n{child.pid}\n")
    group.kill()
    assert child.wait(timeout=10) == -9


async def test_a_compile_waits_while_a_killed_one_holds_its_memory(v2: Path) -> None:
    room = Room()
    await room.wait()
    group = new_cgroup(str(v2), "x0", memory_bytes=1000, pids=7)
    events = v2 / "x0/cgroup.events"
    events.write_text("populated 1\nfrozen 0\n")
    with pytest.raises(asyncio.CancelledError):
        async with room.gives_back(group):
            raise asyncio.CancelledError
    assert content(v2, "x0/cgroup.kill") == "1"
    waiting = asyncio.get_running_loop().create_task(room.wait())
    for _ in range(3):
        await asyncio.sleep(0.02)
        assert not waiting.done()
    events.write_text("populated 0\nfrozen 0\n")
    async with asyncio.timeout(30):
        await waiting


@pytest.mark.parametrize("kind", ["v1", "v2"])
async def test_a_group_that_was_removed_holds_nothing(
    kind: str, request: pytest.FixtureRequest
) -> None:
    root: Path = request.getfixturevalue(kind)
    group = new_cgroup(str(root), "x0", memory_bytes=1000, pids=7)
    for directory in group.directories:
        shutil.rmtree(directory)
    room = Room()
    async with room.gives_back(group):
        pass
    async with asyncio.timeout(30):
        await room.wait()
