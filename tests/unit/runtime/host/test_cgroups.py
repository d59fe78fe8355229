"""A VMM's cgroups, in a directory that stands for the kernel's."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from hpcc.runtime.host import cgroups


@pytest.mark.parametrize(
    ("files", "expected"),
    [
        ({"cgroup.controllers": "cpu memory pids"}, True),
        ({"cgroup.controllers": "cpu"}, False),
        ({}, False),
        (
            {
                "cgroup.type": "domain",
                "cgroup.controllers": "memory pids",
                "cgroup.subtree_control": "",
            },
            False,
        ),
        ({"cgroup.type": "domain", "cgroup.subtree_control": "memory pids"}, True),
    ],
)
def test_a_cgroup_is_used_where_its_controllers_can_be(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, files: dict[str, str], expected: bool
) -> None:
    for name, text in files.items():
        (tmp_path / name).write_text(text)
    monkeypatch.setattr(cgroups, "CGROUPS", tmp_path)
    assert cgroups.has_cgroups() is expected


def test_version_2_limits_memory_swap_and_processes(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    (tmp_path / "cgroup.controllers").write_text("cpu memory pids")
    monkeypatch.setattr(cgroups, "CGROUPS", tmp_path)
    group = tmp_path / "hpcc" / "q-1"
    limited = ("memory.max", "memory.swap.max", "pids.max")

    def kernel_made(path: Path, *_: object, **__: object) -> None:
        original(path, parents=True)
        for name in limited if path == group else ():
            (path / name).touch()

    original = Path.mkdir
    monkeypatch.setattr(Path, "mkdir", kernel_made)
    assert cgroups.make_groups("q-1", memory_bytes=4096, pids=7) == [group]
    assert [(group / name).read_text() for name in limited] == ["4096", "0", "7"]
    assert (tmp_path / "hpcc" / "cgroup.subtree_control").read_text() == "+memory +pids"


def test_without_a_hierarchy_there_is_no_group(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setattr(cgroups, "CGROUPS", tmp_path)
    assert cgroups.make_groups("q-1", memory_bytes=4096, pids=7) == []
    (tmp_path / "memory").mkdir()
    assert cgroups.make_groups("q-1", memory_bytes=4096, pids=7) == []
    assert [p.name for p in tmp_path.iterdir()] == ["memory"]


@pytest.mark.parametrize("counts", [True, False])
def test_swap_is_limited_where_a_group_below_the_root_has_the_file(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, counts: bool
) -> None:
    monkeypatch.setattr(cgroups, "CGROUPS", tmp_path)
    (tmp_path / "cgroup.subtree_control").touch()
    original = Path.mkdir

    def kernel_made(path: Path, *_: object, **__: object) -> None:
        original(path)
        if counts:
            (path / "memory.swap.max").write_text("max\n")

    monkeypatch.setattr(Path, "mkdir", kernel_made)
    assert cgroups.counts_swap() is counts
    assert (tmp_path / "cgroup.subtree_control").read_text() == "+memory +pids"


def test_swap_is_not_limited_where_no_group_can_be_made(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setattr(cgroups, "CGROUPS", tmp_path / "absent")
    assert not cgroups.counts_swap()


@pytest.fixture
def unit(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Path:
    """The cgroup that systemd delegated to the unit of a worker that is not root."""
    unit = tmp_path / "system.slice" / "w.service"
    (unit / "worker").mkdir(parents=True)
    (unit / "cgroup.type").write_text("domain")
    (unit / "cgroup.controllers").write_text("cpu memory pids")
    (unit / "cgroup.procs").write_text("")
    (tmp_path / "own").write_text("0::/system.slice/w.service/worker\n")
    monkeypatch.setattr(os, "geteuid", lambda: 1000)
    monkeypatch.setattr(cgroups, "CGROUPS", tmp_path)
    monkeypatch.setattr(cgroups, "OWN_CGROUP", tmp_path / "own")
    return unit


def test_a_worker_that_is_not_root_makes_groups_beside_its_own(unit: Path) -> None:
    assert cgroups.make_groups("q-1", memory_bytes=4096, pids=7) == [unit / "hpcc" / "q-1"]
    assert (unit / "cgroup.subtree_control").read_text() == "+memory +pids"


@pytest.mark.parametrize(
    ("name", "text"), [("cgroup.procs", "17\n"), ("cgroup.controllers", "cpu pids")]
)
def test_a_unit_whose_children_would_have_no_limit_gets_no_groups(
    unit: Path, name: str, text: str
) -> None:
    (unit / name).write_text(text)
    assert not cgroups.has_cgroups()
    assert cgroups.make_groups("q-1", memory_bytes=4096, pids=7) == []


def test_nothing_is_made_in_a_cgroup_that_was_not_delegated(
    unit: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(os, "access", lambda *_: False)
    assert cgroups.make_groups("q-1", memory_bytes=4096, pids=7) == []
    assert not (unit / "hpcc").exists()
