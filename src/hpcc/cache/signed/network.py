"""Runs calls to a remote cache on an event loop in one thread, which the first call starts."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import threading
from collections.abc import Awaitable, Callable
from concurrent.futures import Future
from contextlib import AbstractAsyncContextManager, AsyncExitStack
from typing import Final

from hpcc.core import HpccError, InfrastructureError
from hpcc.store.objects import Objects

_log: Final = logging.getLogger("hpcc.daemon.remote-cache")
_END_SECONDS: Final = 2.0

OpenObjects = Callable[[], AbstractAsyncContextManager[Objects]]


class Network:
    """One event loop with one client. Thread-safe. The thread does not keep a process alive."""

    def __init__(self, open_objects: OpenObjects) -> None:
        self._open = open_objects
        self._lock = threading.Lock()
        self._loop: asyncio.AbstractEventLoop | None = None
        self._thread: threading.Thread | None = None
        self._is_closed = False
        # Used on the loop's thread only.
        self._objects: Objects | None = None
        self._stack = AsyncExitStack()
        self._opening = asyncio.Lock()

    def submit[T](self, call: Callable[[Objects], Awaitable[T]]) -> Future[T]:
        """Start a call on the loop; the future raises what the call raises.

        Raises:
            InfrastructureError: the network is closed.
        """

        async def run() -> T:
            return await call(await self._client())

        with self._lock:
            if self._is_closed:
                raise InfrastructureError("the remote cache is closed", reason="store-away")
            if self._loop is None:
                self._loop = asyncio.new_event_loop()
                self._thread = threading.Thread(
                    target=self._run, args=(self._loop,), name="hpcc-remote-cache", daemon=True
                )
                self._thread.start()
            return asyncio.run_coroutine_threadsafe(run(), self._loop)

    def close(self) -> None:
        """End the loop; calls under way are cancelled."""
        with self._lock:
            self._is_closed = True
            loop, thread = self._loop, self._thread
        if loop is None or thread is None:
            return
        with contextlib.suppress(RuntimeError):  # it ended by itself
            loop.call_soon_threadsafe(loop.stop)
        thread.join(_END_SECONDS)

    async def _client(self) -> Objects:
        async with self._opening:
            if self._objects is None:
                self._objects = await self._stack.enter_async_context(self._open())
            return self._objects

    def _run(self, loop: asyncio.AbstractEventLoop) -> None:
        try:
            loop.run_forever()
            loop.run_until_complete(self._end())
        except (HpccError, OSError):
            _log.warning("the client of the remote cache did not end cleanly")
        finally:
            loop.close()

    async def _end(self) -> None:
        """Cancel what is under way and close the client."""
        tasks = asyncio.all_tasks() - {asyncio.current_task()}
        for task in tasks:
            task.cancel()
        if tasks:
            await asyncio.wait(tasks, timeout=_END_SECONDS)
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(_END_SECONDS):
                await self._stack.aclose()
