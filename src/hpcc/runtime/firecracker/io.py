"""Talking to a jailed VMM: its API (HTTP/1.1) and its vsock, each a Unix socket in the jail.

A VMM that was taken over owns its jail. It may put anything there and send anything. So a socket is
opened without following links, its owner is checked, and every answer is bounded.
"""

from __future__ import annotations

import asyncio
import json
import os
import re
import socket
import stat
import struct
from collections.abc import Mapping
from typing import Final

from hpcc.core import IntegrityError
from hpcc.runtime.firecracker.plan import ApiRequest

MAX_HEAD_BYTES: Final = 8 << 10
MAX_BODY_BYTES: Final = 64 << 10
# "OK 4294967295\n" and some room.
MAX_VSOCK_ANSWER_BYTES: Final = 32
_READ_BYTES: Final = 16 << 10
_FAULT_CHARS: Final = 300
_STATUS: Final = re.compile(rb"HTTP/1\.[01] (\d{3})(?: [^\r\n]*)?")
_VSOCK_ANSWER: Final = re.compile(rb"OK \d{1,10}\n")
_PEER: Final = struct.Struct("3i")
_OK: Final = range(200, 300)


def connect_in_jail(directory_fd: int, name: str, uid: int) -> tuple[socket.socket, int]:
    """Connect to a socket in the jail; returns it, non-blocking, and the listener's pid.

    Raises:
        IntegrityError: the name is not a socket, or the listener has another uid.
        OSError: the name does not exist yet, or nothing listens yet.
    """
    # By descriptor: no link is followed, and the path may be longer than a socket address.
    fd = os.open(name, os.O_PATH | os.O_NOFOLLOW | os.O_CLOEXEC, dir_fd=directory_fd)
    try:
        if not stat.S_ISSOCK(os.fstat(fd).st_mode):
            raise IntegrityError(f"{name} in the jail is not a socket", reason="jail")
        sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM | socket.SOCK_NONBLOCK)
        try:
            sock.connect(f"/proc/self/fd/{fd}")
            pid = _checked_peer(sock, name, uid)
        except BaseException:
            sock.close()
            raise
    finally:
        os.close(fd)
    return sock, pid


def _checked_peer(sock: socket.socket, name: str, uid: int) -> int:
    pid, peer_uid, _ = _PEER.unpack(
        sock.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, _PEER.size)
    )
    if peer_uid != uid:
        raise IntegrityError(f"{name} in the jail belongs to uid {peer_uid}", reason="jail")
    return int(pid)


def request_bytes(call: ApiRequest) -> bytes:
    """Encode a call as an HTTP request."""
    body = b"" if call.body is None else json.dumps(call.body).encode()
    head = [f"{call.method} {call.path} HTTP/1.1", "Host: localhost", "Accept: application/json"]
    if body:
        head += ["Content-Type: application/json", f"Content-Length: {len(body)}"]
    return "\r\n".join([*head, "", ""]).encode() + body


class Response:
    """One HTTP response, parsed as it arrives."""

    def __init__(self) -> None:
        self._buffer = b""
        self._head_bytes = 0
        self._body_bytes = 0
        self.status = 0

    def feed(self, data: bytes) -> bytes | None:
        """Add bytes; returns the body once it is complete, else None.

        Raises:
            IntegrityError: it is not HTTP, too large, or more than one response.
        """
        self._buffer += data
        if not self._head_bytes and not self._read_head():
            return None
        body = self._buffer[self._head_bytes :]
        if len(body) > self._body_bytes:
            raise IntegrityError("more than one answer from the VMM", reason="vmm-api")
        return body if len(body) == self._body_bytes else None

    def _read_head(self) -> bool:
        end = self._buffer.find(b"\r\n\r\n")
        if end > MAX_HEAD_BYTES or (end < 0 and len(self._buffer) > MAX_HEAD_BYTES):
            raise IntegrityError("an overlong head from the VMM", reason="vmm-api")
        if end < 0:
            return False
        first, *lines = self._buffer[:end].split(b"\r\n")
        status = _STATUS.fullmatch(first)
        if status is None:
            raise IntegrityError("no HTTP from the VMM", reason="vmm-api")
        self.status, self._head_bytes = int(status[1]), end + 4
        for line in lines:
            name, _, value = line.partition(b":")
            if name.strip().lower() == b"transfer-encoding":
                raise IntegrityError("an answer of unknown length", reason="vmm-api")
            if name.strip().lower() == b"content-length":
                self._body_bytes = _length(value.strip())
        return True


def _length(text: bytes) -> int:
    if not re.fullmatch(rb"\d{1,9}", text) or int(text) > MAX_BODY_BYTES:
        raise IntegrityError("an overlong answer from the VMM", reason="vmm-api")
    return int(text)


def json_object(body: bytes) -> Mapping[str, object]:
    """Decode a body.

    Raises:
        IntegrityError: it is not a JSON object.
    """
    try:
        value = json.loads(body)
    except (ValueError, RecursionError) as error:
        raise IntegrityError("no JSON from the VMM", reason="vmm-api") from error
    if not isinstance(value, dict):
        raise IntegrityError("no JSON object from the VMM", reason="vmm-api")
    return value


class Api:
    """The VMM's API over one connection; it owns the socket."""

    def __init__(self, sock: socket.socket) -> None:
        self._sock = sock

    async def call(self, call: ApiRequest) -> Mapping[str, object]:
        """Make a call and return its answer, {} if it has no body.

        Raises:
            IntegrityError: the answer is not valid.
            OSError: the VMM refused, with its own text, or the connection ended.
        """
        loop = asyncio.get_running_loop()
        await loop.sock_sendall(self._sock, request_bytes(call))
        response = Response()
        body: bytes | None = None
        while body is None:
            data = await loop.sock_recv(self._sock, _READ_BYTES)
            if not data:
                raise ConnectionResetError(f"the VMM hung up on {call.method} {call.path}")
            body = response.feed(data)
        answer = json_object(body) if body else {}
        if response.status not in _OK:
            fault = str(answer.get("fault_message", ""))[:_FAULT_CHARS]
            raise OSError(f"{call.method} {call.path}: status {response.status}: {fault}")
        return answer

    def close(self) -> None:
        """Close the connection; idempotent."""
        self._sock.close()


def connect_line(port: int) -> bytes:
    """Return the line that asks for a port in the guest (Firecracker: docs/vsock.md)."""
    return b"CONNECT %d\n" % port


def is_connected(answer: bytes) -> bool:
    """Return whether the answer so far is complete and accepts the connection.

    Raises:
        IntegrityError: it can no longer become a valid answer.
    """
    if _VSOCK_ANSWER.fullmatch(answer):
        return True
    if len(answer) >= MAX_VSOCK_ANSWER_BYTES or b"\n" in answer:
        raise IntegrityError("no vsock answer from the VMM", reason="vmm-vsock")
    return False


async def connect_to_guest(sock: socket.socket, port: int) -> None:
    """Ask the VMM to connect `sock` to a port in the guest.

    Raises:
        ConnectionRefusedError: nothing listens there yet.
        IntegrityError: the VMM's answer is not valid.
    """
    loop = asyncio.get_running_loop()
    await loop.sock_sendall(sock, connect_line(port))
    answer = b""
    # Byte by byte, because what follows the line comes from the guest.
    while not is_connected(answer):
        data = await loop.sock_recv(sock, 1)
        if not data:
            raise ConnectionRefusedError("nobody listens in the guest")
        answer += data
