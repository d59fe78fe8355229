"""The remains of a killed worker are removed; live processes and their files are not touched."""

from __future__ import annotations

import json
import os
import subprocess
from pathlib import Path

import pytest

from hpcc.runtime.host.leftovers import mounts_below, new_directory, record, start_time, sweep


def test_a_living_owner_keeps_its_directory(tmp_path: Path) -> None:
    directory = new_directory(tmp_path)
    assert sweep(tmp_path) == 0
    assert directory.is_dir()
    assert directory.stat().st_mode & 0o777 == 0o700


def test_a_dead_owners_vmm_is_ended_and_its_directory_removed(tmp_path: Path) -> None:
    directory = new_directory(tmp_path)
    vmm = subprocess.Popen(["sleep", "600"])
    content = [[os.getpid(), start_time(os.getpid()) + 1], [vmm.pid, start_time(vmm.pid)]]
    (directory / "processes.json").write_text(json.dumps(content))
    assert sweep(tmp_path) == 1
    assert vmm.wait(timeout=10) == -9
    assert not directory.exists()


def test_a_vmm_that_was_never_recorded_is_found_by_where_it_lives(tmp_path: Path) -> None:
    directory = left_behind(tmp_path)
    vmm = subprocess.Popen(["sleep", "600"], cwd=directory)
    other = subprocess.Popen(["sleep", "600"], cwd=tmp_path)
    try:
        assert sweep(tmp_path) == 1
        assert vmm.wait(timeout=10) == -9
        assert not directory.exists()
        assert other.poll() is None
    finally:
        for process in (vmm, other):
            process.kill()
            process.wait()


@pytest.mark.skipif(os.geteuid() != 0, reason="who is not root makes no mounts to leave")
def test_a_mount_is_taken_away_and_what_is_behind_it_stays(tmp_path: Path) -> None:
    directory = left_behind(tmp_path)
    behind, point = tmp_path / "behind", directory / "a b"
    for path in (behind, point):
        path.mkdir()
    (behind / "precious").touch()
    done = subprocess.run(["mount", "--bind", str(behind), str(point)], check=False)
    if done.returncode:
        pytest.skip("mounts are not allowed here")
    assert mounts_below(directory) == [point]
    assert sweep(tmp_path) == 1
    assert mounts_below(tmp_path) == []
    assert not directory.exists()
    assert (behind / "precious").exists()


def left_behind(parent: Path) -> Path:
    directory = new_directory(parent)
    (directory / "processes.json").write_text(json.dumps([[1 << 30, 1]]))
    return directory


def test_a_pid_that_was_used_again_is_left_alone(tmp_path: Path) -> None:
    directory = new_directory(tmp_path)
    other = subprocess.Popen(["sleep", "600"])
    try:
        content = [[1 << 30, 1], [other.pid, start_time(other.pid) + 1]]
        (directory / "processes.json").write_text(json.dumps(content))
        assert sweep(tmp_path) == 1
        assert other.poll() is None
    finally:
        other.kill()
        other.wait()


def test_a_damaged_record_is_a_leftover(tmp_path: Path) -> None:
    directory = new_directory(tmp_path)
    (directory / "processes.json").write_text("{")
    assert sweep(tmp_path) == 1
    assert not directory.exists()


def test_a_record_names_owner_and_vmm(tmp_path: Path) -> None:
    directory = new_directory(tmp_path)
    record(directory, [os.getpid(), os.getppid()])
    pids = [pid for pid, _ in json.loads((directory / "processes.json").read_text())]
    assert pids == [os.getpid(), os.getppid()]
