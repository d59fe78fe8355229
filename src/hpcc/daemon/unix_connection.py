"""A `Connection` over a blocking Unix socket; each call has a deadline."""

from __future__ import annotations

import contextlib
import select
import socket
import time


class UnixConnection:
    """A connected socket, which it owns. `daemon.transport.Connection` has the contract."""

    def __init__(self, connection: socket.socket) -> None:
        self._socket = connection
        self.number = connection.fileno()

    def receive(self, size: int, timeout_seconds: float | None) -> bytes:
        """Read some bytes; see `Connection.receive`."""
        try:
            return self._socket.recv(size, socket.MSG_DONTWAIT)
        except BlockingIOError:
            deadline = None if timeout_seconds is None else time.monotonic() + timeout_seconds
        while True:
            _wait(self._socket, select.POLLIN, deadline)
            with contextlib.suppress(BlockingIOError):
                return self._socket.recv(size, socket.MSG_DONTWAIT)

    def send(self, data: bytes, timeout_seconds: float) -> None:
        """Send all of `data`; see `Connection.send`."""
        send_all(self._socket, data, timeout_seconds)

    send_last = send

    def is_ours(self) -> bool:
        """Return True: `Engine.receiver` turned other users away before this object was made."""
        return True

    def is_gone(self) -> bool:
        """Report whether the peer has closed its end; does not wait."""
        try:
            return not self._socket.recv(1, socket.MSG_PEEK | socket.MSG_DONTWAIT)
        except (BlockingIOError, InterruptedError):
            return False
        except OSError:
            return True

    def cancel(self) -> None:
        """End waits on this connection, those under way and later ones."""
        with contextlib.suppress(OSError):  # the peer is gone already
            self._socket.shutdown(socket.SHUT_RDWR)

    def close(self) -> None:
        """Close the socket. May be called again."""
        self._socket.close()


def send_all(connection: socket.socket, data: bytes, timeout_seconds: float) -> None:
    """Send all of `data`.

    Raises:
        OSError: the peer is gone or does not read.
    """
    flags = socket.MSG_DONTWAIT | socket.MSG_NOSIGNAL
    try:
        sent = connection.send(data, flags)
    except BlockingIOError:
        sent = 0
    if sent == len(data):
        return
    rest = memoryview(data)[sent:]
    deadline = time.monotonic() + timeout_seconds
    while rest:
        _wait(connection, select.POLLOUT, deadline)
        try:
            rest = rest[connection.send(rest, flags) :]
        except BlockingIOError:
            continue


def _wait(connection: socket.socket, events: int, deadline: float | None) -> None:
    poll = select.poll()
    poll.register(connection, events)
    if deadline is None:
        poll.poll()
        return
    left = deadline - time.monotonic()
    if left <= 0 or not poll.poll(left * 1000):
        raise TimeoutError("the peer is silent")
