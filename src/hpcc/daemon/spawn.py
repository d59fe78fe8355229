"""Starting the daemon on Unix so that it keeps nothing of its starter.

It gets its own session, a double fork, `/` as working directory, a log as output, no inherited
descriptor and a reduced environment. Otherwise `make -j2 | cat` would not end after it started a
daemon.
"""

from __future__ import annotations

import os
import select
import subprocess
import sys
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Final

from hpcc.config.owners import TRUST_VARIABLE, refuse_foreign_owner
from hpcc.config.paths import Paths
from hpcc.core import CallerError

LOG_NAME: Final = "daemon.log"
MAX_LOG_BYTES: Final = 1 << 20
_MAX_ANSWER_BYTES: Final = 4096
READY: Final = b"ready"

# All other variables belong to a build: MAKEFLAGS would tie the daemon to its jobserver.
_KEPT_NAMES: Final = frozenset(
    {"HOME", "PATH", "USER", "LOGNAME", "LANG", "LANGUAGE", "TZ", "TMPDIR", "HPCC_DIR"}
    | {TRUST_VARIABLE}
    | {"HPCC_NATIVE"}  # a switch to debug the native library
)
_KEPT_PREFIXES: Final = ("LC_", "XDG_")


def daemon_environment(env: Mapping[str, str]) -> dict[str, str]:
    """Return the variables of an environment that the daemon gets."""
    return {
        name: value
        for name, value in env.items()
        if name in _KEPT_NAMES or name.startswith(_KEPT_PREFIXES)
    }


def open_log(directory: Path) -> int:
    """Open the daemon's log for appending; a log over 1 MiB is renamed to `daemon.log.1` first."""
    directory.mkdir(mode=0o700, parents=True, exist_ok=True)
    path = directory / LOG_NAME
    try:
        if path.stat().st_size > MAX_LOG_BYTES:
            path.replace(path.with_suffix(".log.1"))
    except FileNotFoundError:
        pass
    flags = os.O_WRONLY | os.O_CREAT | os.O_APPEND | os.O_NOFOLLOW | os.O_CLOEXEC
    return os.open(path, flags, 0o600)


def spawn_daemon(paths: Paths, timeout_seconds: float) -> str:
    """Start a daemon and wait until it listens.

    Returns "" once it listens, `already-running` if another daemon holds the lock, else a sentence
    with the cause.

    Raises:
        CallerError: the log cannot be written (reason `run-dir`), or another user owns one of
            our directories (`foreign-owner`).
    """
    refuse_foreign_owner(paths, os.environ)  # before the log is written there
    try:
        log = open_log(paths.state)
    except OSError as error:
        raise CallerError(
            f"cannot write the daemon's log in {paths.state}: {error.strerror}", reason="run-dir"
        ) from error
    ready, ready_child = os.pipe2(os.O_CLOEXEC)
    try:
        process = subprocess.Popen(
            # -P: the working directory of a build must not be on the import path.
            [sys.executable, "-P", "-m", "hpcc.daemon", "--ready-fd", str(ready_child)],
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=log,
            cwd="/",
            env=daemon_environment(os.environ),
            start_new_session=True,
            pass_fds=(ready_child,),
        )
        os.close(ready_child)
        ready_child = -1
        answer = _read_answer(ready, timeout_seconds)
        # Our child has forked and ended, or it failed before that.
        _reap(process)
    finally:
        os.close(log)
        os.close(ready)
        if ready_child >= 0:
            os.close(ready_child)
    if answer == READY:
        return ""
    if answer:
        return answer.decode("utf-8", "replace")
    return f"the daemon did not start; see {paths.state / LOG_NAME}"


def _reap(process: subprocess.Popen[bytes]) -> None:
    try:
        process.wait(1.0)
    except subprocess.TimeoutExpired:
        process.kill()
        process.wait()


def _read_answer(ready: int, timeout_seconds: float) -> bytes:
    deadline = time.monotonic() + timeout_seconds
    answer = b""
    poll = select.poll()
    poll.register(ready, select.POLLIN)
    while len(answer) < _MAX_ANSWER_BYTES:
        left = deadline - time.monotonic()
        if left <= 0 or not poll.poll(left * 1000):
            return b""
        data = os.read(ready, _MAX_ANSWER_BYTES)
        if not data:
            break
        answer += data
    return answer
