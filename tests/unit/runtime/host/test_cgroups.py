"""A VMM's cgroups, in a directory that stands for the kernel's."""

from __future__ import annotations

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
