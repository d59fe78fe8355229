"""Frames over blocking sockets, each with a deadline, and what the kernel says of a peer."""

from __future__ import annotations

import contextlib
import os
import re
import select
import socket
import time
from typing import Final

from hpcc.core import CallerError
from hpcc.wire import launcher as wire

# A request is nearly always shorter, and then one recv has all of it.
_FIRST_READ_BYTES: Final = 64 << 10
_MOUNT_NAMESPACE: Final = "/proc/self/ns/mnt"
_MOUNT_ID: Final = re.compile(rb"^mnt_id:\t(\d+)$", re.MULTILINE)


def stat_id(path: bytes | str) -> tuple[int, int]:
    """Return device and inode of what the path leads to."""
    found = os.stat(path)
    return found.st_dev, found.st_ino


def mount_ids() -> frozenset[tuple[int, int]]:
    """Return what a launcher may send for our mount namespace; see `put_places` in launcher/hpcc.c.

    That is the id of the mount at `/`, or device and inode of the namespace where the launcher's
    kernel does not tell the former. Nothing without /proc, and then every launcher is a stranger.
    """
    found = []
    with contextlib.suppress(OSError):
        found.append(stat_id(_MOUNT_NAMESPACE))
    with contextlib.suppress(OSError):
        # As long as we live this mount does, so that no other one gets its id.
        root = os.open("/", os.O_PATH | os.O_CLOEXEC)
        try:
            with open(f"/proc/self/fdinfo/{root}", "rb") as file:
                match = _MOUNT_ID.search(file.read())
        finally:
            os.close(root)
        if match is not None:
            found.append((wire.MOUNT_IS_ID, int(match[1])))
    return frozenset(found)


def is_gone(connection: socket.socket) -> bool:
    """Whether the peer has closed its end; asks without waiting."""
    try:
        return not connection.recv(1, socket.MSG_PEEK | socket.MSG_DONTWAIT)
    except (BlockingIOError, InterruptedError):
        return False
    except OSError:
        return True


def _wait(connection: socket.socket, events: int, deadline: float) -> None:
    poll = select.poll()
    poll.register(connection, events)
    # Wall time is no part of any result here, and a Clock cannot wake a poll.
    left = deadline - time.monotonic()
    if left <= 0 or not poll.poll(left * 1000):
        raise TimeoutError("the peer is silent")


def receive_frame(
    connection: socket.socket, timeout_seconds: float, data: bytes = b""
) -> tuple[int, bytes]:
    """Read exactly one frame, of which `data` is here; nothing may follow until it is answered.

    Raises:
        CallerError: not a frame (reason `malformed-frame`).
        OSError: the peer is gone or too slow.
    """
    data = data or _receive_some(connection, _FIRST_READ_BYTES, timeout_seconds)
    deadline = 0.0
    buffer: bytes | bytearray = data
    while len(buffer) < wire.HEADER_BYTES:
        deadline = deadline or time.monotonic() + timeout_seconds
        buffer = bytearray(buffer)
        buffer += _receive_until(connection, _FIRST_READ_BYTES, deadline)
    kind, length = wire.parse_header(buffer)
    end = wire.HEADER_BYTES + length
    if len(buffer) < end:
        deadline = deadline or time.monotonic() + timeout_seconds
        buffer = bytearray(buffer)
        while len(buffer) < end:
            buffer += _receive_until(connection, min(end - len(buffer), 1 << 20), deadline)
    if len(buffer) > end:
        raise CallerError("launcher frame: bytes after its end", reason="malformed-frame")
    return kind, bytes(buffer[wire.HEADER_BYTES :])


def _receive_some(connection: socket.socket, size: int, timeout_seconds: float) -> bytes:
    try:
        data = connection.recv(size, socket.MSG_DONTWAIT)
    except BlockingIOError:
        deadline = time.monotonic() + timeout_seconds
        return _receive_until(connection, size, deadline)
    if not data:
        raise ConnectionResetError("the peer closed")
    return data


def _receive_until(connection: socket.socket, size: int, deadline: float) -> bytes:
    while True:
        _wait(connection, select.POLLIN, deadline)
        try:
            data = connection.recv(size, socket.MSG_DONTWAIT)
        except BlockingIOError:
            continue
        if not data:
            raise ConnectionResetError("the peer closed")
        return data


def send_frame(connection: socket.socket, frame: bytes, timeout_seconds: float) -> None:
    """Send all of it.

    Raises:
        OSError: the peer is gone or does not read.
    """
    flags = socket.MSG_DONTWAIT | socket.MSG_NOSIGNAL
    try:
        sent = connection.send(frame, flags)
    except BlockingIOError:
        sent = 0
    if sent == len(frame):
        return
    rest = memoryview(frame)[sent:]
    deadline = time.monotonic() + timeout_seconds
    while rest:
        _wait(connection, select.POLLOUT, deadline)
        try:
            rest = rest[connection.send(rest, flags) :]
        except BlockingIOError:
            continue
