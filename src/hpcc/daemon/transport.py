"""The seam between the front and a transport: `Listener`, `Connection`, and frames over them.

A transport accepts, receives, sends, and reports who the peer is. The front decides everything
else. `unix_listener` implements this seam for Unix sockets, `pipe_listener` for named pipes.
"""

from __future__ import annotations

import json
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Final, Protocol

from hpcc.core import CallerError, InfrastructureError
from hpcc.daemon.accept_threads import Waits
from hpcc.wire import launcher as wire

# Nearly every request is shorter, so that one read gets all of it.
FIRST_READ_BYTES: Final = 64 << 10
_CHUNK_BYTES: Final = 1 << 20


@dataclass(frozen=True, slots=True, kw_only=True)
class FrontLimits:
    """Limits of one front and its listener."""

    # A thread is needed only while a request is worked on; hits need one or two at any core count.
    threads: int = 64
    idle_threads: int = 4
    receive_seconds: float = 10.0
    # The launcher gives up after 2 s without a first answer, then after 10 s of silence.
    tick_seconds: float = 0.5
    # Longer than any remote compile may take: after this no WAIT is sent, and the launcher
    # compiles by itself.
    begin_seconds: float = 900.0
    # Launchers that run a compiler; on Unix each holds one descriptor and no thread.
    parked: int = 768


class Connection(Protocol):
    """One launcher, or a command with a question. One thread at a time uses it; any may cancel."""

    @property
    def number(self) -> int:
        """Return a number that no other open connection of this listener has."""
        ...

    def receive(self, size: int, timeout_seconds: float | None) -> bytes:
        """Read 1 to `size` bytes, or b"" when the peer has closed. None waits until `cancel`.

        Raises:
            TimeoutError: nothing came in time.
            OSError: the connection failed or was cancelled.
        """
        ...

    def send(self, data: bytes, timeout_seconds: float) -> None:
        """Send all of `data`.

        Raises:
            OSError: the peer is gone or does not read.
        """
        ...

    def send_last(self, data: bytes, timeout_seconds: float) -> None:
        """Send all of `data` so that the peer can read it although `close` follows.

        Raises:
            OSError: see `send`.
        """
        ...

    def is_ours(self) -> bool:
        """Report whether the peer is the daemon's user. Valid only after the first `receive`.

        Raises:
            OSError: the system cannot tell who the peer is.
        """
        ...

    def is_gone(self) -> bool:
        """Report whether the peer has closed its end; does not wait."""
        ...

    def cancel(self) -> None:
        """End waits on this connection, those under way and later ones."""
        ...

    def close(self) -> None:
        """Close this end. May be called again."""
        ...


Serve = Callable[[Connection, bytes, bool], None]
"""Serves a connection and closes it: the connection, the bytes read so far, and whether no thread
is left to accept, in which case it must not block."""


class Listener(Protocol):
    """One transport: where launchers connect."""

    @property
    def limits(self) -> FrontLimits: ...

    @property
    def waits(self) -> Waits:
        """Return the launchers that wait for an answer; the front adds its own."""
        ...

    @property
    def is_windows(self) -> bool:
        """Report whether launchers of this transport send Windows paths; see `wire.launcher`."""
        ...

    @property
    def helpers(self) -> list[int]:
        """Return the pids of further processes that answer hits."""
        ...

    def start(self, serve: Serve, count: Callable[[str], None]) -> None:
        """Accept connections on threads of this listener and pass each to `serve`.

        `count` increments a counter of the front.
        """
        ...

    def close(self) -> None:
        """Stop accepting. Open connections stay. May be called again."""
        ...

    def end(self) -> None:
        """Release what is left; called once, when nothing is under way."""
        ...

    def park(self, connection: Connection, resume: Callable[[], None]) -> None:
        """Call `resume` once when the peer sends or closes.

        A listener that can wait without a thread returns at once and calls `resume` on another
        thread. Others call it at once: its first `receive` waits.

        Raises:
            OSError: the connection cannot be watched; `resume` is not called.
        """
        ...

    def reason_not_ours(self, request: wire.LauncherRequest) -> str:
        """Return why the launcher's files are not those that we read and write, or ""."""
        ...


def receive_some(connection: Connection, timeout_seconds: float | None) -> bytes:
    """Read the first bytes of a frame.

    Raises:
        OSError: the peer is gone or too slow.
    """
    data = connection.receive(FIRST_READ_BYTES, timeout_seconds)
    if not data:
        raise ConnectionResetError("the peer closed")
    return data


def receive_frame(
    connection: Connection, timeout_seconds: float, data: bytes = b""
) -> tuple[int, bytes]:
    """Read exactly one frame and return its type and body; `data` is the part already read.

    The peer may send nothing more until it has its answer. Waiting for the first bytes and
    waiting for the rest are limited to `timeout_seconds` each.

    Raises:
        CallerError: this is not a frame (reason `malformed-frame`).
        OSError: the peer is gone or too slow.
    """
    buffer: bytes | bytearray = data or receive_some(connection, timeout_seconds)
    deadline = time.monotonic() + timeout_seconds
    if len(buffer) < wire.HEADER_BYTES:
        buffer = _receive_until(connection, buffer, wire.HEADER_BYTES, deadline)
    kind, length = wire.parse_header(buffer)
    end = wire.HEADER_BYTES + length
    if len(buffer) < end:
        buffer = _receive_until(connection, buffer, end, deadline)
    if len(buffer) > end:
        raise CallerError("launcher frame: bytes after its end", reason="malformed-frame")
    return kind, bytes(buffer[wire.HEADER_BYTES :])


def ask(connection: Connection, what: str, timeout_seconds: float) -> dict[str, object]:
    """Ask the daemon at the other end: `status`, `stats`, `stop` or `stop-now`.

    Raises:
        InfrastructureError: it does not answer (reason `daemon-hangs`), or not in our protocol.
    """
    try:
        connection.send(wire.frame(wire.ADMIN, what.encode()), timeout_seconds)
        kind, body = receive_frame(connection, timeout_seconds)
        answer = json.loads(body) if kind == wire.ADMIN_REPLY else None
    except (OSError, ValueError, CallerError) as error:
        raise InfrastructureError(
            "the daemon does not answer; `hpcc stop --now` ends it", reason="daemon-hangs"
        ) from error
    if not isinstance(answer, dict):
        raise InfrastructureError("the daemon speaks another protocol; `hpcc stop --now` ends it")
    return answer


def _receive_until(
    connection: Connection, data: bytes | bytearray, end: int, deadline: float
) -> bytearray:
    """Read until there are `end` bytes.

    A read for the header may take more, so that bytes after a frame without a body are seen.
    """
    buffer = bytearray(data)
    while len(buffer) < end:
        # Wall time does not enter any result here, and a Clock cannot wake a poll.
        left = deadline - time.monotonic()
        if left <= 0:
            raise TimeoutError("the peer is silent")
        size = (
            FIRST_READ_BYTES if end == wire.HEADER_BYTES else min(end - len(buffer), _CHUNK_BYTES)
        )
        more = connection.receive(size, left)
        if not more:
            raise ConnectionResetError("the peer closed")
        buffer += more
    return buffer
