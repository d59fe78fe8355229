"""Starts a program and waits for it and its pipes.

`asyncio.create_subprocess_exec` does more, and costs half a millisecond more for each compile.
"""

from __future__ import annotations

import asyncio
import fcntl
import os
import signal
from collections.abc import Mapping, Sequence
from typing import Final

# What Python ignores, and a program must not.
_SIGNALS: Final = (signal.SIGPIPE, signal.SIGXFSZ)


class OutputPipe:
    """A pipe that a program writes to and the event loop reads."""

    def __init__(self) -> None:
        self._fd, self.write_fd = os.pipe2(os.O_CLOEXEC)
        os.set_blocking(self._fd, False)

    async def read(self, size: int) -> bytes:
        """Return at most `size` bytes; b"" after the last writer's end."""
        while True:
            try:
                return os.read(self._fd, size)
            except BlockingIOError:
                await _readable(self._fd)

    def read_now(self, size: int) -> bytes:
        """Return at most `size` bytes of those that are there."""
        try:
            return os.read(self._fd, size)
        except BlockingIOError:
            return b""

    def close_write_end(self) -> None:
        if self.write_fd >= 0:
            os.close(self.write_fd)
            self.write_fd = -1

    def close(self) -> None:
        self.close_write_end()
        if self._fd >= 0:
            os.close(self._fd)
            self._fd = -1


class Program:
    """A running program. Make it in an event loop, and `wait` for it however it ends."""

    def __init__(self, argv: Sequence[str], env: Mapping[str, str], fds: Sequence[int]) -> None:
        """Start `argv`, whose standard input is empty; `fds` become its descriptors from 1 on.

        Raises:
            OSError: it cannot be started.
        """
        self.pid = _spawn(argv, env, fds)
        self._is_reaped = False
        # A task, so that the program is reaped also when nobody waits any more.
        self._end = asyncio.get_running_loop().create_task(self._reap())

    async def wait(self) -> None:
        """Return when it has ended."""
        await asyncio.shield(self._end)

    @property
    def has_ended(self) -> bool:
        return self._is_reaped

    def kill(self) -> None:
        if not self._is_reaped:
            os.kill(self.pid, signal.SIGKILL)

    async def _reap(self) -> None:
        try:
            fd = os.pidfd_open(self.pid)
        except OSError:  # an old kernel, or a container's filter
            await asyncio.to_thread(os.waitid, os.P_PID, self.pid, os.WEXITED | os.WNOWAIT)
        else:
            try:
                await _readable(fd)
            finally:
                os.close(fd)
        self._is_reaped = True
        os.waitpid(self.pid, 0)  # noqa: ASYNC222 - it has ended


def _spawn(argv: Sequence[str], env: Mapping[str, str], fds: Sequence[int]) -> int:
    # No descriptor that is copied has a number that another one becomes.
    low = 1 + len(fds)
    copies = {fd: fcntl.fcntl(fd, fcntl.F_DUPFD_CLOEXEC, low) for fd in fds if fd < low}
    try:
        return os.posix_spawn(
            argv[0], list(argv), env, setsigdef=_SIGNALS,
            file_actions=[
                (os.POSIX_SPAWN_OPEN, 0, "/dev/null", os.O_RDONLY, 0),
                *((os.POSIX_SPAWN_DUP2, copies.get(fd, fd), at) for at, fd in enumerate(fds, 1)),
            ],
        )  # fmt: skip
    finally:
        for fd in copies.values():
            os.close(fd)


async def _readable(fd: int) -> None:
    """Return when a read of a descriptor would not block."""
    loop = asyncio.get_running_loop()
    is_readable: asyncio.Future[None] = loop.create_future()
    loop.add_reader(fd, _set, is_readable)
    try:
        await is_readable
    finally:
        loop.remove_reader(fd)


def _set(future: asyncio.Future[None]) -> None:
    if not future.done():
        future.set_result(None)
