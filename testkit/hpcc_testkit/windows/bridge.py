"""Runs real Windows calls on Linux, in a program under Wine, for tests of `hpcc.windows`.

One `Bridge` is one Windows process. Closing it closes all its handles, as the end of a process
does.
"""

from __future__ import annotations

import socket
import struct
import subprocess
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Final

from hpcc.windows.library import CallResult, narrowed
from hpcc_testkit.windows.wine import Wine, cross_build

_SOURCE: Final = Path(__file__).with_name("bridge.c")
# A minimal service; a test builds it with `cross_build`.
CONTROL_SERVICE: Final = _SOURCE.with_name("control_service.c")
_START_SECONDS: Final = 60.0


def build_bridge(directory: Path) -> Path:
    """Cross-build the bridge's program and return its path."""
    return cross_build(_SOURCE, directory / "bridge.exe", "-lws2_32")


class Bridge:
    """A `hpcc.windows.Library` in a process under Wine; each local thread has one thread there."""

    def __init__(self, wine: Wine, program: Path) -> None:
        self._listener = socket.create_server(("127.0.0.1", 0))
        self._listener.settimeout(_START_SECONDS)
        port = self._listener.getsockname()[1]
        self._process: subprocess.Popen[bytes] = wine.start(program, str(port), cwd=program.parent)
        self._first = self._listener.accept()[0]
        self._lock = threading.Lock()
        self._own = threading.local()
        self._channels: list[socket.socket] = []

    def call(self, function: str, *arguments: int) -> CallResult:
        name = function.encode()
        words = [argument & ((1 << 64) - 1) for argument in arguments]
        asked = (
            b"C" + bytes([len(name)]) + name + struct.pack(f"<B{len(words)}Q", len(words), *words)
        )
        value, error = struct.unpack("<QI", self._ask(asked, 12))
        return CallResult(narrowed(function, value), error)

    def allocate(self, data: bytes) -> int:
        (address,) = struct.unpack("<Q", self._ask(struct.pack("<cI", b"A", len(data)) + data, 8))
        return int(address)

    def load(self, address: int, size: int) -> bytes:
        return self._ask(struct.pack("<cQI", b"L", address, size), size)

    def free(self, address: int) -> None:
        self._ask(struct.pack("<cQ", b"F", address), 1)

    def close(self) -> None:
        """End the process."""
        self._process.kill()
        self._process.communicate()
        for channel in (self._first, self._listener, *self._channels):
            channel.close()

    def _ask(self, data: bytes, size: int) -> bytes:
        channel = getattr(self._own, "channel", None) or self._open()
        channel.sendall(data)
        answer = b""
        while len(answer) < size:
            more = channel.recv(size - len(answer))
            if not more:
                raise ConnectionError("the bridge has ended")
            answer += more
        return answer

    def _open(self) -> socket.socket:
        with self._lock:
            self._first.sendall(b"N")
            channel = self._listener.accept()[0]
            channel.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            self._channels.append(channel)
        self._own.channel = channel
        return channel


@contextmanager
def bridge(wine: Wine, program: Path) -> Iterator[Bridge]:
    """Run one Windows process while the block runs."""
    process = Bridge(wine, program)
    try:
        yield process
    finally:
        process.close()
