"""A worker's helper as systemd starts it, for the worker's user that a test names."""

from __future__ import annotations

import os
import pwd
import socket
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Final

import hpcc

LISTENER: Final = 3
# As `python -I -m hpcc.helper`, with the package that this process has: a mutation row's is a copy.
_START: Final = """
import runpy, sys
sys.path.insert(0, sys.argv.pop(1))
runpy.run_module("hpcc.helper", run_name="__main__", alter_sys=True)
"""


@contextmanager
def worker_helper(user: str) -> Iterator[Path]:
    """Yield the socket of a helper that serves `user`; everybody may connect."""
    assert pwd.getpwnam(user).pw_uid
    with (
        tempfile.TemporaryDirectory() as directory,
        socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET) as listener,
    ):
        Path(directory).chmod(0o755)
        place = Path(directory, "socket")
        listener.bind(str(place))
        place.chmod(0o666)
        listener.listen()
        # The shell gives the descriptor its number, as systemd does.
        start = f'exec "$@" {LISTENER}<&0 0</dev/null'
        root = str(Path(hpcc.__file__).parents[1])
        argv = [sys.executable, "-I", "-B", "-c", _START, root, user]
        with subprocess.Popen(
            ["sh", "-c", start, "sh", *argv], stdin=listener.fileno(), env={}, cwd="/"
        ) as helper:
            try:
                yield place
            finally:
                helper.kill()


def as_user(user: str) -> dict[str, object]:
    """Return the arguments of `subprocess` for a process of `user`, in no other group."""
    entry = pwd.getpwnam(user)
    return {"user": entry.pw_uid, "group": entry.pw_gid, "extra_groups": []}


def worker_environment(place: Path, home: Path) -> dict[str, str]:
    """Return the environment of a worker that has a helper."""
    return {"PATH": os.environ["PATH"], "HOME": str(home), "HPCC_HELPER": str(place)}
