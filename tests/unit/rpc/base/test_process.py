"""How a service ends when its machine lacks something."""

from __future__ import annotations

import errno
import os
import socket
import subprocess
import sys
from pathlib import Path

import pytest

from hpcc.core import CallerError
from hpcc.rpc.base.process import fault_text, leaf_error

_FULL = """
import asyncio, errno, os
from pathlib import Path
from hpcc.rpc.base.process import run_service

async def main(process):
    process.progress("preparing kernel and agent")
    await asyncio.sleep(0)
    raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), "/var/lib/hpcc-worker/cache")

raise SystemExit(run_service("worker", main, Path("/dev/null")))
"""


@pytest.mark.skipif(sys.platform == "win32", reason="there is no such manager")
def test_a_full_disk_is_one_line_for_a_person_and_for_the_manager(tmp_path: Path) -> None:
    where = str(tmp_path / "notify")
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as listener:
        listener.bind(where)
        done = subprocess.run(
            [sys.executable, "-c", _FULL], env={**os.environ, "NOTIFY_SOCKET": where},
            capture_output=True, text=True, check=False, stdin=subprocess.DEVNULL, timeout=60,
        )  # fmt: skip
        listener.settimeout(20)
        heard = listener.recv(4096).decode()
        while "STATUS=ended" not in heard:
            heard = listener.recv(4096).decode()
    text = (
        "No space left on device: /var/lib/hpcc-worker/cache"
        " (make room, or name another directory in the config file)"
    )
    assert (done.returncode, done.stderr) == (1, f"hpcc worker: {text}\n")
    assert heard == f"STATUS=ended: {text}"


def test_what_a_machine_lacks_is_found_below_groups_and_after_our_errors() -> None:
    full = OSError(errno.ENOSPC, "No space left on device", "/a")
    group = BaseExceptionGroup("g", [ValueError(), BaseExceptionGroup("h", [full])])
    assert leaf_error(group) is full
    ours = CallerError("the config file is wrong")
    assert leaf_error(BaseExceptionGroup("g", [full, ours])) is ours
    other = BaseExceptionGroup("g", [OSError(errno.EBADF, "Bad file descriptor")])
    assert leaf_error(other) is other, "a fault of the code keeps its traceback"
    assert fault_text(OSError(errno.EMFILE, "Too many open files")) == (
        "Too many open files (raise LimitNOFILE)"
    )
