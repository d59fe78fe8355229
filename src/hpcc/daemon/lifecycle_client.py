"""Commands' side of the daemon on Unix: status, stats, start, stop."""

from __future__ import annotations

import os
import select
import signal
import socket
import time
from typing import Final

from hpcc.cache.base.peer import peer_credentials
from hpcc.config.paths import Paths
from hpcc.core import CallerError, InfrastructureError, NotFoundError
from hpcc.daemon.lifecycle import BACKOFF_NAME
from hpcc.daemon.socket_lock import socket_path
from hpcc.daemon.spawn import spawn_daemon
from hpcc.daemon.transport import ask
from hpcc.daemon.unix_connection import UnixConnection
from hpcc.wire import launcher as wire

_ANSWER_SECONDS: Final = 5.0
_HURRY_SECONDS: Final = 2.0
# A person waits for a slow or busy machine; a launcher gives up after ten seconds.
START_SECONDS: Final = 60.0
LAUNCHER_START_SECONDS: Final = 9.0
_DRAIN_SECONDS: Final = 900.0
_KILL_SECONDS: Final = 8.0
_PAUSE_SECONDS: Final = 0.02


def _connect(paths: Paths) -> socket.socket:
    """Connect to the daemon.

    Raises:
        NotFoundError: no daemon is running (reason `no-daemon`).
        CallerError: another user listens there (reason `foreign-daemon`).
    """
    path = socket_path(paths)
    connection = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    try:
        connection.settimeout(_ANSWER_SECONDS)
        connection.connect(path)
        _, uid = peer_credentials(connection)
    except (FileNotFoundError, ConnectionRefusedError) as error:
        connection.close()
        raise NotFoundError("no daemon is running", reason="no-daemon") from error
    except OSError as error:
        connection.close()
        raise InfrastructureError(f"cannot reach the daemon on {path}: {error}") from error
    if uid != os.getuid():
        connection.close()
        raise CallerError(f"the daemon on {path} belongs to user {uid}", reason="foreign-daemon")
    connection.setblocking(True)
    return connection


def query(
    paths: Paths, what: str, *, timeout_seconds: float = _ANSWER_SECONDS
) -> dict[str, object]:
    """Ask the running daemon: `status` or `stats` (and `stop`, `stop-now`: see `stop`).

    `stats` returns `counters` (of the cache handler), `front` (counters of requests that did not
    reach it), `pid` and `uptime_seconds`.

    Raises:
        NotFoundError: no daemon is running (reason `no-daemon`).
        InfrastructureError: it does not answer (reason `daemon-hangs`).
    """
    with _connect(paths) as connection:
        return ask(UnixConnection(connection), what, timeout_seconds)


def start(paths: Paths, timeout_seconds: float = START_SECONDS) -> bool:
    """Start a daemon of this build unless one runs; returns whether it was started.

    A daemon of another build is stopped first.

    Raises:
        InfrastructureError: it could not be started (reason `daemon-start`); the text gives the
            cause or the path of the log.
    """
    try:
        if query(paths, "status").get("build_id") == wire.BUILD_ID:
            return False
        query(paths, "stop")
    except NotFoundError:
        pass
    (paths.run / BACKOFF_NAME).unlink(missing_ok=True)
    deadline = time.monotonic() + timeout_seconds
    while True:
        problem = spawn_daemon(paths, max(0.1, deadline - time.monotonic()))
        if not problem:
            return True
        # Another daemon holds the lock: one that is just starting, or one that is leaving.
        if problem != "already-running":
            raise InfrastructureError(problem, reason="daemon-start")
        try:
            if query(paths, "status").get("build_id") == wire.BUILD_ID:
                return False
        except NotFoundError:
            pass
        if time.monotonic() >= deadline:
            raise InfrastructureError(
                "another daemon runs but does not answer; `hpcc stop --now` ends it",
                reason="daemon-start",
            )
        time.sleep(_PAUSE_SECONDS)


def stop(paths: Paths, *, now: bool = False) -> bool:
    """End the daemon and wait until it is gone; returns whether one was there.

    The daemon first finishes what is under way. With `now` it does not wait: launchers continue
    without it, and a daemon that does not answer is killed.

    Raises:
        InfrastructureError: it hangs and `now` was not set, or it did not end when killed
            (reason `daemon-hangs`).
    """
    try:
        connection = _connect(paths)
    except NotFoundError:
        return False
    with connection:
        pid, _ = peer_credentials(connection)
        process = _open_process(pid)
        if process < 0:
            return False
        try:
            _stop_process(connection, process, now=now)
        finally:
            os.close(process)
    return True


def _open_process(pid: int) -> int:
    try:
        return os.pidfd_open(pid)
    except ProcessLookupError:
        return -1


def _stop_process(connection: socket.socket, process: int, *, now: bool) -> None:
    try:
        what, seconds = ("stop-now", _HURRY_SECONDS) if now else ("stop", _ANSWER_SECONDS)
        ask(UnixConnection(connection), what, seconds)
    except InfrastructureError:
        if not now:
            raise
    else:
        if _is_over(process, _KILL_SECONDS if now else _DRAIN_SECONDS):
            return
    if now:
        signal.pidfd_send_signal(process, signal.SIGKILL)
        if _is_over(process, _KILL_SECONDS):
            return
    raise InfrastructureError("the daemon does not end; see `hpcc status`", reason="daemon-hangs")


def _is_over(process: int, timeout_seconds: float) -> bool:
    poll = select.poll()
    poll.register(process, select.POLLIN)
    return bool(poll.poll(timeout_seconds * 1000))
