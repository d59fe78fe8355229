"""Standard streams of a process over FIFOs, as a shim on Linux opens them."""

from __future__ import annotations

import os
import secrets
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager, suppress
from pathlib import Path

from hpcc.runtime.containerd.client import StdioPaths
from hpcc.runtime.windows.pipe_streams import PipeStreams, pipe_streams


class FifoEnd:
    """hpcc's end of a FIFO; a read ends when the shim closes the other end."""

    def __init__(self, fd: int) -> None:
        self._fd = fd

    def receive(self, size: int, wait_ms: int | None) -> bytes:
        assert wait_ms is None
        return os.read(self._fd, size)

    def send(self, data: bytes, wait_ms: int) -> None:
        assert wait_ms
        view = memoryview(data)
        while view:
            view = view[os.write(self._fd, view) :]

    def cancel(self) -> None:
        """Do nothing: the process ends before its streams do."""

    def close(self) -> None:
        os.close(self._fd)


class _FifoAcceptor:
    """A FIFO that waits for the shim to open it."""

    def __init__(self, path: str, flags: int) -> None:
        self._path, self._flags = path, flags
        os.mkfifo(path, 0o600)
        self._is_open = True

    def accept(self) -> FifoEnd | None:
        fd = os.open(self._path, self._flags | os.O_CLOEXEC)
        if self._is_open:
            return FifoEnd(fd)
        os.close(fd)
        return None

    def close(self) -> None:
        if self._is_open:
            self._is_open = False
            with suppress(OSError):  # unblocks a process that waits in open()
                os.close(os.open(self._path, os.O_RDWR | os.O_NONBLOCK | os.O_CLOEXEC))


@asynccontextmanager
async def fifo_streams(directory: Path) -> AsyncGenerator[PipeStreams]:
    """Yield streams over new FIFOs in `directory` while the block runs."""
    name = secrets.token_hex(8)
    paths = [str(directory / f"{name}-{end}") for end in ("in", "out", "err")]
    stdio = StdioPaths(stdin=paths[0], stdout=paths[1], stderr=paths[2])

    def open_acceptor(path: str) -> _FifoAcceptor:
        return _FifoAcceptor(path, os.O_WRONLY if path == stdio.stdin else os.O_RDONLY)

    async with pipe_streams(stdio, open_acceptor) as streams:
        try:
            yield streams
        finally:
            # The FIFOs stay until the directory is removed: a shim opens each of them twice.
            if streams.last_words:
                print("an exec's agent said:", streams.last_words)
