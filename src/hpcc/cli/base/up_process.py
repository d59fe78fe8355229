"""The process that `hpcc up` leaves running: how it is started, told to stop, and ended.

Windows has no SIGTERM. There `hpcc down` writes a file beside the lock, and the process looks for
it. Not yet run on Windows.
"""

from __future__ import annotations

import asyncio
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import IO, Final

from hpcc.config.paths import Paths
from hpcc.config.private_file import write_private_file
from hpcc.core import InfrastructureError

# The supervisor needs less to end a worker with a busy guest (two services, 20 s each).
DOWN_SECONDS: Final = 50.0
POLL_SECONDS: Final = 0.05
_WINDOWS_POLL_SECONDS: Final = 0.2
# DETACHED_PROCESS, CREATE_NEW_PROCESS_GROUP ("Process Creation Flags").
_DETACHED: Final = 0x8 | 0x200


def stop_file(paths: Paths) -> Path:
    """Return the file that asks the process to stop, on Windows."""
    return paths.state / "up.stop"


def forget_stop(paths: Paths) -> None:
    """Remove the request to stop of an older process, before a new one is started."""
    stop_file(paths).unlink(missing_ok=True)


def start_detached(argv: list[str], errors: IO[bytes], directory: Path) -> subprocess.Popen[bytes]:  # noqa: TID251 - no event loop here
    """Start a process that outlives this one and its terminal; its standard output is a pipe."""
    if sys.platform == "win32":
        return subprocess.Popen(  # noqa: TID251, S603 - no event loop here; this interpreter
            argv,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=errors,
            cwd=directory,
            creationflags=_DETACHED,
        )
    return subprocess.Popen(  # noqa: TID251, S603 - as above
        argv,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=errors,
        cwd="/",
        start_new_session=True,
    )


@contextmanager
def watch_for_stop(paths: Paths, stop: asyncio.Event) -> Iterator[None]:
    """Set `stop` when the process is asked to stop while the block runs."""
    if sys.platform == "win32":
        with watch_for_file(stop_file(paths), stop):
            yield
    else:
        loop = asyncio.get_running_loop()
        for number in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP):
            loop.add_signal_handler(number, stop.set)
        yield


@contextmanager
def watch_for_file(path: Path, stop: asyncio.Event) -> Iterator[None]:
    """Set `stop` when a file appears, or is there: `forget_stop` removes that of an older run."""
    task = asyncio.create_task(  # noqa: TID251 - this block owns it
        _until_there(path, stop), name="stop file"
    )
    try:
        yield
    finally:
        task.cancel()


async def _until_there(path: Path, stop: asyncio.Event) -> None:
    while not path.exists():  # noqa: ASYNC110, ASYNC240 - another process makes it
        await asyncio.sleep(_WINDOWS_POLL_SECONDS)
    stop.set()


def end(paths: Paths, pid: int, is_gone: Callable[[], bool]) -> None:
    """Ask the process to stop, kill it if it does not, and wait until it is gone.

    Raises:
        InfrastructureError: it does not end (reason `down-failed`).
    """
    for ask, seconds in ((_ask, DOWN_SECONDS), (_kill, 10.0)):
        try:
            ask(paths, pid)
        except ProcessLookupError:
            return
        deadline = time.monotonic() + seconds  # noqa: TID251 - a command that waits, no event loop
        while time.monotonic() < deadline:  # noqa: TID251 - as above
            if is_gone():
                stop_file(paths).unlink(missing_ok=True)
                return
            time.sleep(POLL_SECONDS)  # noqa: TID251 - as above
    raise InfrastructureError(f"process {pid} of `hpcc up` does not end", reason="down-failed")


def _ask(paths: Paths, pid: int) -> None:
    if sys.platform == "win32":
        write_private_file(stop_file(paths), b"")
    else:
        os.kill(pid, signal.SIGTERM)


def _kill(_paths: Paths, pid: int) -> None:
    if sys.platform == "win32":
        # TerminateProcess. Its services end in order: their standard input ends with it.
        with suppress(OSError):  # it has just ended
            os.kill(pid, signal.SIGTERM)
    else:
        os.kill(pid, signal.SIGKILL)
