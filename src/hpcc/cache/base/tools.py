"""Runs short compiler queries, bounded in time and output, killed when the launcher is gone."""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import tempfile
from collections.abc import Callable, Mapping, Sequence
from typing import Final, NamedTuple

MAX_ANSWER_BYTES: Final = 16 << 20
QUERY_SECONDS: Final = 20.0
_POLL_SECONDS: Final = 0.05


class ProgramOutput(NamedTuple):
    """A program's output. `exit_code` is -1 if it was killed after a timeout or a cancel."""

    exit_code: int
    stdout: bytes
    stderr: bytes


def ask(
    argv: Sequence[bytes],
    *,
    env: Mapping[bytes, bytes],
    cwd: bytes,
    is_cancelled: Callable[[], bool] = lambda: False,
    timeout_seconds: float = QUERY_SECONDS,
) -> ProgramOutput:
    """Run a program to its end; return up to `MAX_ANSWER_BYTES` of each stream.

    Its process group is killed after `timeout_seconds`, or when `is_cancelled` becomes true.

    Raises:
        OSError: the program could not be started.
    """
    with tempfile.TemporaryFile() as out, tempfile.TemporaryFile() as err:
        process = subprocess.Popen(
            argv,
            env=dict(env),
            cwd=cwd,
            stdin=subprocess.DEVNULL,
            stdout=out,
            stderr=err,
            start_new_session=True,
        )
        code = _wait(process, is_cancelled, timeout_seconds)
        return ProgramOutput(code, _content(out.fileno()), _content(err.fileno()))


def _wait(
    process: subprocess.Popen[bytes], is_cancelled: Callable[[], bool], timeout_seconds: float
) -> int:
    remaining = timeout_seconds
    while True:
        try:
            return process.wait(_POLL_SECONDS)
        except subprocess.TimeoutExpired:
            remaining -= _POLL_SECONDS
            if remaining > 0 and not is_cancelled():
                continue
        with contextlib.suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)
        process.wait()
        return -1


def _content(fd: int) -> bytes:
    size = min(os.fstat(fd).st_size, MAX_ANSWER_BYTES)
    return os.pread(fd, size, 0)
