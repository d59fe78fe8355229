"""Commands' side of the daemon on Windows: status, stats, start, stop. Not yet run there."""

from __future__ import annotations

import contextlib
import os
import subprocess
import sys
import threading
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Final

from hpcc.config.paths import Paths
from hpcc.core import InfrastructureError, NotFoundError
from hpcc.daemon.lifecycle import BACKOFF_NAME
from hpcc.daemon.pipe_listener import LauncherPipe
from hpcc.daemon.pipe_lock import dial_daemon, prepare_directory
from hpcc.daemon.transport import ask
from hpcc.windows import pipes
from hpcc.windows.library import Library, load_library
from hpcc.windows.processes import ServerProcess
from hpcc.wire import launcher as wire

# A person waits for a slow or busy machine; a launcher gives up after ten seconds.
START_SECONDS: Final = 60.0
LAUNCHER_START_SECONDS: Final = 9.0
LOG_NAME: Final = "daemon.log"
# Exit code of a daemon's process that finds another one holding the lock.
EXIT_ALREADY_RUNNING: Final = 75
_ANSWER_SECONDS: Final = 5.0
_HURRY_SECONDS: Final = 2.0
_DRAIN_SECONDS: Final = 900.0
_STOP_SECONDS: Final = 15.0
_PAUSE_SECONDS: Final = 0.05
_MAX_LOG_BYTES: Final = 1 << 20
_TAIL_BYTES: Final = 2048

# DETACHED_PROCESS, CREATE_NEW_PROCESS_GROUP, CREATE_BREAKAWAY_FROM_JOB ("Process Creation Flags").
_DETACHED: Final = 0x8 | 0x200
_BREAKAWAY: Final = 0x0100_0000
# What Windows, Python and the profile need; all other variables belong to a build.
_KEPT_NAMES: Final = frozenset(
    {
        "SYSTEMROOT", "SYSTEMDRIVE", "WINDIR", "PATH", "PATHEXT", "COMSPEC", "TEMP", "TMP",
        "USERPROFILE", "LOCALAPPDATA", "APPDATA", "USERNAME", "USERDOMAIN", "HOMEDRIVE", "HOMEPATH",
        "PROGRAMDATA", "PROGRAMFILES", "PROCESSOR_ARCHITECTURE", "NUMBER_OF_PROCESSORS", "HPCC_DIR",
    }
)  # fmt: skip


def daemon_environment(env: Mapping[str, str]) -> dict[str, str]:
    """Return the variables of an environment that the daemon gets; names ignore case."""
    return {name: value for name, value in env.items() if name.upper() in _KEPT_NAMES}


def query(
    paths: Paths,
    what: str,
    *,
    timeout_seconds: float = _ANSWER_SECONDS,
    library: Library | None = None,
) -> dict[str, object]:
    """Ask the running daemon: `status`, `stats`, `stop` or `stop-now`.

    Raises:
        NotFoundError: no daemon is running (reason `no-daemon`).
        CallerError: another user listens there (reason `foreign-daemon`).
        InfrastructureError: it does not answer (reason `daemon-hangs`) or is busy (`daemon-busy`).
    """
    del paths  # user and HPCC_DIR determine the pipe's name
    connection = dial_daemon(library or load_library())
    try:
        return ask(LauncherPipe(connection), what, timeout_seconds)
    finally:
        connection.close()


def start(
    paths: Paths, timeout_seconds: float = START_SECONDS, *, library: Library | None = None
) -> bool:
    """Start a daemon of this build unless one runs; returns whether it was started.

    A daemon of another build is stopped first.

    Raises:
        InfrastructureError: it could not be started (reason `daemon-start`); the text gives the
            cause or the path of the log.
    """
    library = library or load_library()
    if _is_there(paths, library, end_others=True):
        return False
    (paths.run / BACKOFF_NAME).unlink(missing_ok=True)
    deadline = time.monotonic() + timeout_seconds
    process = _spawn(paths)
    while time.monotonic() < deadline:
        if _is_there(paths, library):
            return True
        code = process.poll()
        if code == EXIT_ALREADY_RUNNING:
            # The other daemon is just starting, or about to end.
            threading.Event().wait(_PAUSE_SECONDS)
            if _is_there(paths, library):
                return False
            process = _spawn(paths)
        elif code is not None:
            raise InfrastructureError(
                f"the daemon did not start: {_last_line(paths)}", reason="daemon-start"
            )
        threading.Event().wait(_PAUSE_SECONDS)
    raise InfrastructureError(
        f"the daemon does not answer yet; see {paths.state / LOG_NAME}", reason="daemon-start"
    )


def _is_there(paths: Paths, library: Library, *, end_others: bool = False) -> bool:
    """Report whether a daemon of this build answers; `end_others` stops one of another build."""
    try:
        if query(paths, "status", library=library).get("build_id") == wire.BUILD_ID:
            return True
        if end_others:
            query(paths, "stop", library=library)
    except NotFoundError:
        pass
    except InfrastructureError as error:
        if error.reason != "daemon-busy":  # a daemon that drains may look busy
            raise
    return False


def stop(paths: Paths, *, now: bool = False, library: Library | None = None) -> bool:
    """End the daemon and wait until it is gone; returns whether one was there.

    With `now` launchers continue without it, and a daemon that does not answer is killed.

    Raises:
        InfrastructureError: it hangs and `now` was not set, or it did not end when killed
            (reason `daemon-hangs`).
    """
    try:
        connection = dial_daemon(library or load_library())
    except NotFoundError:
        return False
    process = None
    try:
        process = connection.server()
        _stop_process(connection, process, now=now)
    finally:
        connection.close()
        if process is not None:
            process.close()
    return True


def _stop_process(connection: pipes.PipeConnection, process: ServerProcess, *, now: bool) -> None:
    try:
        what, seconds = ("stop-now", _HURRY_SECONDS) if now else ("stop", _ANSWER_SECONDS)
        ask(LauncherPipe(connection), what, seconds)
    except InfrastructureError:
        if not now:
            raise
    else:
        connection.close()  # the daemon keeps its end until its answer is read
        if process.is_over(int(1000 * (_STOP_SECONDS if now else _DRAIN_SECONDS))):
            return
    if now:
        process.kill()
        if process.is_over(int(1000 * _STOP_SECONDS)):
            return
    raise InfrastructureError("the daemon does not end; see `hpcc status`", reason="daemon-hangs")


def _spawn(paths: Paths) -> subprocess.Popen[bytes]:
    """Start a daemon without a console, and outside the build's job if the job allows that."""
    prepare_directory(paths.state)
    log_file = paths.state / LOG_NAME
    with contextlib.suppress(OSError):  # it does not exist, or a daemon writes to it
        if log_file.stat().st_size > _MAX_LOG_BYTES:
            log_file.replace(log_file.with_suffix(".log.1"))
    try:
        with log_file.open("ab") as log:
            try:
                return _popen(paths, log.fileno(), _DETACHED | _BREAKAWAY)
            except PermissionError:  # the job forbids it: the daemon ends with the build
                return _popen(paths, log.fileno(), _DETACHED)
    except OSError as error:
        raise InfrastructureError(
            f"the daemon cannot be started: {error}", reason="daemon-start"
        ) from error


def _popen(paths: Paths, log: int, flags: int) -> subprocess.Popen[bytes]:
    return subprocess.Popen(
        # -P: the working directory of a build must not be on the import path.
        [sys.executable, "-P", "-m", "hpcc.daemon"],
        stdin=subprocess.DEVNULL,
        stdout=log,
        stderr=log,
        cwd=paths.state,
        env=daemon_environment(os.environ),
        creationflags=flags,
        close_fds=True,
    )


def _last_line(paths: Paths) -> str:
    path: Path = paths.state / LOG_NAME
    try:
        with path.open("rb") as file:
            file.seek(max(0, path.stat().st_size - _TAIL_BYTES))
            lines = file.read().decode("utf-8", "replace").split("\n")
    except OSError:
        return f"see {path}"
    text = next((line.strip() for line in reversed(lines) if line.strip()), "it printed nothing")
    return f"{text[:300]} (log: {path})"
