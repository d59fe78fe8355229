"""What a killed worker left is swept; what lives is not touched."""

from __future__ import annotations

import json
import os
import subprocess
from pathlib import Path

from hpcc.runtime._leftovers import new_directory, record, start_time, sweep


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
