"""Standard streams of a process that a shim starts: the shim opens our pipes, we carry bytes.

It uses threads and not the event loop, because waiting for a pipe blocks on Windows. Nothing here
interprets the bytes.
"""

from __future__ import annotations

import asyncio
import socket
import threading
from collections.abc import AsyncGenerator, Callable
from contextlib import asynccontextmanager, suppress
from typing import Final, Protocol

from hpcc.runtime.containerd.client import StdioPaths
from hpcc.runtime.host.threads import in_thread

_READ_BYTES: Final = 64 << 10
_TAIL_BYTES: Final = 16 << 10
_SHOWN_BYTES: Final = 800
# How long a living process may take to read what was written to it.
_WRITE_MS: Final = 60_000
_JOIN_SECONDS: Final = 0.1
_JOIN_TRIES: Final = 100


class PipeEnd(Protocol):
    """Our end of an opened pipe; see `hpcc.windows.PipeConnection`."""

    def receive(self, size: int, wait_ms: int | None) -> bytes:
        """Read up to `size` bytes; b"" at the end or after `cancel`."""
        ...

    def send(self, data: bytes, wait_ms: int) -> None:
        """Write all bytes.

        Raises:
            OSError: the other end has closed, or `cancel` was called.
        """
        ...

    def cancel(self) -> None:
        """Interrupt a waiting call and all later ones; from any thread, idempotent."""
        ...

    def close(self) -> None:
        """Close the pipe; idempotent."""
        ...


class PipeAcceptor(Protocol):
    """A pipe that waits for a client to open it; see `hpcc.windows.PipeListener`."""

    def accept(self) -> PipeEnd | None:
        """Wait for a client; None after `close`."""
        ...

    def close(self) -> None:
        """Interrupt `accept`; idempotent."""
        ...


class _Carrier:
    """One pipe and its thread: waits for the other end, then carries until either side ends."""

    def __init__(self, acceptor: PipeAcceptor, carry: Callable[[PipeEnd], None]) -> None:
        self._loop = asyncio.get_running_loop()
        self._acceptor, self._carry = acceptor, carry
        self._lock = threading.Lock()
        self._end: PipeEnd | None = None
        self._is_stopped = False
        self.opened: asyncio.Future[None] = self._loop.create_future()
        self._thread = threading.Thread(target=self._run, name="hpcc pipe", daemon=True)
        self._thread.start()

    def _run(self) -> None:
        try:
            end = self._acceptor.accept()
        except OSError:
            end = None
        # Only one client may open the pipe.
        self._acceptor.close()
        if end is None or not self._own(end):
            return
        try:
            self._carry(end)
        except OSError:
            pass  # either side is gone: the other sees the end of its stream
        finally:
            end.close()

    def _own(self, end: PipeEnd) -> bool:
        with self._lock:
            if self._is_stopped:
                end.close()
                return False
            self._end = end
        with suppress(RuntimeError):  # the loop is closed: nothing waits any more
            self._loop.call_soon_threadsafe(self._say_opened)
        return True

    def _say_opened(self) -> None:
        if not self.opened.done():
            self.opened.set_result(None)

    def stop(self) -> None:
        """Make the thread end; idempotent."""
        self._call_off()
        self.opened.cancel()

    def join(self) -> None:
        """Wait for the thread. It is interrupted repeatedly, because it may not have waited yet."""
        for _ in range(_JOIN_TRIES):
            self._thread.join(_JOIN_SECONDS)
            if not self._thread.is_alive():
                return
            self._call_off()

    def _call_off(self) -> None:
        with self._lock:
            self._is_stopped = True
            end = self._end
        self._acceptor.close()
        if end is not None:
            end.cancel()


class PipeStreams:
    """The three streams of one process; `stdio` holds the pipes' names for the shim."""

    def __init__(self, stdio: StdioPaths, open_acceptor: Callable[[str], PipeAcceptor]) -> None:
        self.stdio = stdio
        self.log = bytearray()
        self._ours, self._inner = socket.socketpair()
        self._open_acceptor = open_acceptor
        self._carriers: list[_Carrier] = []

    def open(self) -> None:
        """Create the pipes. If one fails, `close` ends those that exist.

        Raises:
            OSError: a pipe cannot be created.
        """
        for name, carry in (
            (self.stdio.stdin, self._to_process),
            (self.stdio.stdout, self._from_process),
            (self.stdio.stderr, self._keep),
        ):
            self._carriers.append(_Carrier(self._open_acceptor(name), carry))

    @property
    def last_words(self) -> str:
        """The end of the process's standard error, made printable. Hostile."""
        text = self.log[-_SHOWN_BYTES:].decode("utf-8", "replace")
        return "".join(c if c.isprintable() or c == "\n" else "?" for c in text).strip()

    async def connect(self) -> socket.socket:
        """Wait, without a deadline, until all pipes are open; the caller owns the socket."""
        await asyncio.wait([carrier.opened for carrier in self._carriers])
        # No other object may hold it: closing it is what ends the process's input.
        return socket.socket(fileno=self._ours.detach())

    def _to_process(self, end: PipeEnd) -> None:
        while data := self._inner.recv(_READ_BYTES):
            end.send(data, _WRITE_MS)

    def _from_process(self, end: PipeEnd) -> None:
        try:
            while data := end.receive(_READ_BYTES, None):
                self._inner.sendall(data)
        finally:
            with suppress(OSError):
                self._inner.shutdown(socket.SHUT_WR)

    def _keep(self, end: PipeEnd) -> None:
        while data := end.receive(_READ_BYTES, None):
            self.log += data
            del self.log[:-_TAIL_BYTES]

    async def close(self) -> None:
        """End the threads; bytes that were not carried yet are lost."""
        with suppress(OSError):
            self._inner.shutdown(socket.SHUT_RDWR)
        for carrier in self._carriers:
            carrier.stop()
        try:
            await in_thread(self._join)
        finally:
            self._ours.close()
            self._inner.close()

    def _join(self) -> None:
        for carrier in self._carriers:
            carrier.join()


@asynccontextmanager
async def pipe_streams(
    stdio: StdioPaths, open_acceptor: Callable[[str], PipeAcceptor]
) -> AsyncGenerator[PipeStreams]:
    """Provide pipes with the names in `stdio` while the block runs."""
    streams = PipeStreams(stdio, open_acceptor)
    try:
        streams.open()
        yield streams
    finally:
        await streams.close()
