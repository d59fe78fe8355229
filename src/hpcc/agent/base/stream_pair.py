"""Two one-way streams as an asyncio transport: an agent that is reached on its standard streams.

It uses threads, because on Windows nothing else can wait for a standard handle, and no event loop
can wait for a file's descriptor.
"""

from __future__ import annotations

import asyncio
import os
import queue
import threading
from collections.abc import Iterable
from contextlib import suppress
from typing import Final

_READ_BYTES: Final = 64 << 10
_HIGH_WATER_BYTES: Final = 1 << 20
_LOW_WATER_BYTES: Final = 256 << 10


class StreamPair(asyncio.Transport):
    """Reads from one descriptor and writes to another. Both are blocking; the caller closes them.

    `ended` completes at the source's end, an error or `close`. A thread that is blocked in a read
    then stays until the process ends, which must follow the session's end.
    """

    def __init__(
        self,
        loop: asyncio.AbstractEventLoop,
        source: int,
        target: int,
        protocol: asyncio.Protocol,
    ) -> None:
        super().__init__({"peername": ("stdio", 0), "sockname": ("stdio", 0)})
        self._loop, self._source, self._target = loop, source, target
        self._protocol: asyncio.BaseProtocol = protocol
        self._queue: queue.SimpleQueue[bytes | None] = queue.SimpleQueue()
        self._pending_bytes = 0
        self._is_closing = self._is_write_paused = False
        self._may_read = threading.Event()
        self._may_read.set()
        # One piece at a time is on its way to the loop: a faster sender has to wait.
        self._taken = threading.Semaphore(1)
        self.ended: asyncio.Future[BaseException | None] = loop.create_future()
        protocol.connection_made(self)
        for work in (self._read, self._write):
            threading.Thread(target=work, name="hpcc stream", daemon=True).start()

    def get_protocol(self) -> asyncio.BaseProtocol:
        return self._protocol

    def set_protocol(self, protocol: asyncio.BaseProtocol) -> None:
        self._protocol = protocol

    def is_closing(self) -> bool:
        return self._is_closing

    def is_reading(self) -> bool:
        return self._may_read.is_set()

    def can_write_eof(self) -> bool:
        return False

    def get_write_buffer_size(self) -> int:
        return self._pending_bytes

    def pause_reading(self) -> None:
        self._may_read.clear()

    def resume_reading(self) -> None:
        self._may_read.set()

    def write(self, data: bytes | bytearray | memoryview) -> None:
        if not data or self._is_closing:
            return
        self._pending_bytes += len(data)
        self._queue.put(bytes(data))
        if self._pending_bytes > _HIGH_WATER_BYTES and not self._is_write_paused:
            self._is_write_paused = True
            self._protocol.pause_writing()

    def writelines(self, list_of_data: Iterable[bytes | bytearray | memoryview]) -> None:
        self.write(b"".join(list_of_data))

    def close(self) -> None:
        """End the transport after everything was written."""
        if not self._is_closing:
            self._is_closing = True
            self._queue.put(None)

    def abort(self) -> None:
        self._end(None)

    # In threads.

    def _read(self) -> None:
        error: OSError | None = None
        try:
            while True:
                self._may_read.wait()
                self._taken.acquire()
                if not (data := os.read(self._source, _READ_BYTES)):
                    break
                self._tell(self._received, data)
        except OSError as failed:
            error = failed
        self._tell(self._end, error or ConnectionResetError("the host has gone"))

    def _write(self) -> None:
        try:
            while (data := self._queue.get()) is not None:
                view = memoryview(data)
                while view:
                    view = view[os.write(self._target, view) :]
                self._tell(self._written, len(data))
        except OSError as error:
            self._tell(self._end, error)
        else:
            self._tell(self._end, None)

    def _tell(self, call: object, argument: object) -> None:
        with suppress(RuntimeError):  # the loop is closed, and with it the session
            self._loop.call_soon_threadsafe(call, argument)  # type: ignore[arg-type]  # see callers

    # In the loop.

    def _received(self, data: bytes) -> None:
        self._taken.release()
        if not self._is_closing and isinstance(self._protocol, asyncio.Protocol):
            self._protocol.data_received(data)

    def _written(self, count: int) -> None:
        self._pending_bytes -= count
        if self._is_write_paused and self._pending_bytes <= _LOW_WATER_BYTES:
            self._is_write_paused = False
            self._protocol.resume_writing()

    def _end(self, error: BaseException | None) -> None:
        if self.ended.done():
            return
        self._is_closing = True
        self._queue.put(None)
        self.ended.set_result(error)
        reason = error if isinstance(error, Exception) else None
        self._loop.call_soon(self._protocol.connection_lost, reason)
