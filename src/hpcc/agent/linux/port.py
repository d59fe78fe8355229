"""A virtio-serial port as an asyncio transport."""

from __future__ import annotations

import asyncio
import os
import select
from collections import deque
from collections.abc import Iterable
from typing import Final

# The driver returns at most one 4 KiB buffer for each read.
_READS_PER_WAKEUP: Final = 32
_READ_BYTES: Final = 64 << 10
_HIGH_WATER_BYTES: Final = 1 << 20
_LOW_WATER_BYTES: Final = 256 << 10
_HANGUP_POLL_SECONDS: Final = 0.01
# A hang-up is not ordered with the data, so only one that lasts is the end.
_HANGUP_SECONDS: Final = 1.0


class PortTransport(asyncio.Transport):
    """A duplex transport over one non-blocking character device.

    While no host is connected, the device reports a hang-up all the time (level triggered). The
    descriptor then leaves the event loop and is polled. A hang-up of a second ends the transport.
    """

    def __init__(
        self, loop: asyncio.AbstractEventLoop, fd: int, protocol: asyncio.Protocol
    ) -> None:
        super().__init__({"peername": ("port", 0), "sockname": ("port", 0)})
        self._loop, self._fd = loop, fd
        self._protocol: asyncio.BaseProtocol = protocol
        self._pending: deque[bytes] = deque()
        self._pending_bytes = 0
        self._is_closing = self._is_write_paused = self._is_up = False
        self._is_reading = True
        self._hangup_at: float | None = None
        self._poll = select.poll()
        self._poll.register(fd, select.POLLIN)
        self.ended: asyncio.Future[BaseException | None] = loop.create_future()
        protocol.connection_made(self)
        self._look_for_hangup()

    def get_protocol(self) -> asyncio.BaseProtocol:
        return self._protocol

    def set_protocol(self, protocol: asyncio.BaseProtocol) -> None:
        self._protocol = protocol

    def is_closing(self) -> bool:
        return self._is_closing

    def is_reading(self) -> bool:
        return self._is_reading

    def can_write_eof(self) -> bool:
        return False

    def get_write_buffer_size(self) -> int:
        return self._pending_bytes

    def pause_reading(self) -> None:
        if self._is_reading:
            self._is_reading = False
            self._loop.remove_reader(self._fd)

    def resume_reading(self) -> None:
        if not self._is_reading and not self._is_closing:
            self._is_reading = True
            if self._is_up:
                self._loop.add_reader(self._fd, self._read)

    def _look_for_hangup(self) -> None:
        if self._is_closing:
            return
        if any(events & select.POLLHUP for _, events in self._poll.poll(0)):
            if (
                self._hangup_at is not None
                and self._loop.time() - self._hangup_at > _HANGUP_SECONDS
            ):
                self._end(ConnectionResetError("the host has gone"))
                return
            self._loop.call_later(_HANGUP_POLL_SECONDS, self._look_for_hangup)
            return
        self._is_up, self._hangup_at = True, None
        if self._is_reading:
            self._loop.add_reader(self._fd, self._read)
        if self._pending:
            self._loop.add_writer(self._fd, self._flush)

    def _suspend(self) -> None:
        self._is_up, self._hangup_at = False, self._loop.time()
        self._loop.remove_reader(self._fd)
        self._loop.remove_writer(self._fd)
        self._look_for_hangup()

    def _read(self) -> None:
        parts: list[bytes] = []
        is_hangup = False
        try:
            for _ in range(_READS_PER_WAKEUP):
                data = os.read(self._fd, _READ_BYTES)
                if not data:
                    is_hangup = True
                    break
                parts.append(data)
        except BlockingIOError:
            pass
        except OSError as error:
            self._end(error)
            return
        if parts and isinstance(self._protocol, asyncio.Protocol):
            self._protocol.data_received(b"".join(parts))
        if is_hangup and not self._is_closing:
            self._suspend()

    def write(self, data: bytes | bytearray | memoryview) -> None:
        if not data or self._is_closing:
            return
        rest = bytes(data)
        if not self._pending and self._is_up:
            rest = self._try_write(rest)
            if not rest:
                return
            self._loop.add_writer(self._fd, self._flush)
        self._pending.append(rest)
        self._pending_bytes += len(rest)
        if self._pending_bytes > _HIGH_WATER_BYTES and not self._is_write_paused:
            self._is_write_paused = True
            self._protocol.pause_writing()

    def writelines(self, list_of_data: Iterable[bytes | bytearray | memoryview]) -> None:
        self.write(b"".join(list_of_data))

    def _try_write(self, data: bytes) -> bytes:
        view = memoryview(data)
        try:
            while view:
                view = view[os.write(self._fd, view) :]
        except BlockingIOError:
            pass
        except OSError as error:
            self._loop.call_soon(self._end, error)
        return bytes(view)

    def _flush(self) -> None:
        while self._pending:
            data = self._pending.popleft()
            rest = self._try_write(data)
            self._pending_bytes -= len(data) - len(rest)
            if rest:
                self._pending.appendleft(rest)
                break
        if not self._pending:
            self._loop.remove_writer(self._fd)
            if self._is_closing:
                self._end(None)
                return
        if self._is_write_paused and self._pending_bytes <= _LOW_WATER_BYTES:
            self._is_write_paused = False
            self._protocol.resume_writing()

    def close(self) -> None:
        if self._is_closing:
            return
        self._is_closing = True
        self._loop.remove_reader(self._fd)
        if not self._pending:
            self._end(None)

    def abort(self) -> None:
        self._end(None)

    def _end(self, error: BaseException | None) -> None:
        if self.ended.done():
            return
        self._is_closing = True
        self._loop.remove_reader(self._fd)
        self._loop.remove_writer(self._fd)
        self._pending.clear()
        self._pending_bytes = 0
        self.ended.set_result(error)
        reason = error if isinstance(error, Exception) else None
        self._loop.call_soon(self._protocol.connection_lost, reason)
