"""Every kind of leftover on a host that the chaos tests must detect is detected."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
from pathlib import Path

from hpcc_testkit.guests.host import ProcessTracker, files_below, traces_of

HIDING = """
import os, sys, time
if os.fork() == 0:
    os.setsid()
    if os.fork() == 0:
        os.execv("/bin/sleep", ["left-behind", "600"])
    time.sleep(0.5)
    os._exit(0)
os.wait()
"""


def test_a_process_that_hid_from_its_parents_is_found() -> None:
    with ProcessTracker() as tracker:
        subprocess.run([sys.executable, "-c", HIDING], check=True)
        found = tracker.alive("left-behind")
        try:
            assert len(found) == 1
            assert tracker.wait_gone(0.2) == found
        finally:
            for process in found:
                os.kill(process.pid, signal.SIGKILL)
        assert tracker.wait_gone(10) == []


def test_a_process_of_somebody_else_is_none_of_ours() -> None:
    other = subprocess.Popen(["sleep", "600"])
    try:
        with ProcessTracker() as tracker:
            assert tracker.alive() == []
    finally:
        other.kill()
        other.wait()


def test_a_socket_and_a_file_are_found(tmp_path: Path) -> None:
    # Not the beginning of a guest's name: others run at the same time.
    assert traces_of(tmp_path, {"", "q-none"}) == []
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind(str(tmp_path / "s"))
        assert len(traces_of(tmp_path, ())) == 1
        assert files_below(tmp_path, tmp_path / "absent") == [str(tmp_path / "s")]
