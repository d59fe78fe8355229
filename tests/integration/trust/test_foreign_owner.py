"""Root is not served from a store that another user could have filled."""

from __future__ import annotations

import os
import shutil
import subprocess
import threading
from pathlib import Path

import pytest

from hpcc_testkit.cache.launcher import counters, launcher_environment, stop_daemon, wait_until
from hpcc_testkit.trust.steps import QUIET_SECONDS

_OTHER = 65534
pytestmark = pytest.mark.skipif(os.geteuid() != 0, reason="needs root to give files away")


def _compile(launcher: Path, env: dict[str, str], cwd: Path) -> None:
    command = [launcher, "wrap", "gcc", "-c", "a.c", "-o", "a.o"]
    subprocess.run(command, cwd=cwd, env=env, check=True)
    assert (cwd / "a.o").stat().st_size > 0


def _give(directory: Path, uid: int) -> None:
    for path in (directory, *directory.rglob("*")):
        os.chown(path, uid, uid, follow_symlinks=False)


def test_root_with_hpcc_dir_below_another_users_directory_gets_no_planted_object(
    launcher: Path, tmp_path: Path
) -> None:
    home = tmp_path / "home"
    home.mkdir()
    env = launcher_environment(home / "h")
    (tmp_path / "a.c").write_text("int value = 1;\n")
    threading.Event().wait(QUIET_SECONDS)
    try:
        _compile(launcher, env, tmp_path)
        wait_until(lambda: counters(env).get("miss.local", 0) == 1)
    finally:
        stop_daemon(env)
    # A store that the other user could have written; root made the directory above it.
    _give(home, _OTHER)
    _give(home / "h/run", 0)
    _compile(launcher, env, tmp_path)
    assert not (home / "h/run/daemon.sock").exists()
    trusting = {**env, "HPCC_TRUST_UID": str(_OTHER)}
    shutil.rmtree(home / "h/run")  # with the mark that no daemon could start
    try:
        _compile(launcher, trusting, tmp_path)
        wait_until(lambda: counters(trusting).get("hit.local", 0) == 1)
    finally:
        stop_daemon(trusting)
