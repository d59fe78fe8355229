"""Calls to workers that are under way, and their end when the worker is gone."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, Callable
from contextlib import asynccontextmanager, suppress
from typing import Final

import grpc

from hpcc.dispatch.channels import RoutedWorker
from hpcc.rpc.base.channel import dial
from hpcc.rpc.base.errors import UnavailableError
from hpcc.rpc.reapi.client import answers

# How long a worker has to accept a connection, and to answer when its death was reported.
DIAL_SECONDS: Final = 5.0
# The worker of a call that takes longer than this is asked whether it is there, again and again.
STALL_SECONDS: Final = 10.0


class WorkerCalls:
    """The calls of one connection to a farm; true while there are any."""

    def __init__(self) -> None:
        # Each with the scope that ends it when its worker is gone.
        self._scopes: dict[asyncio.Timeout, RoutedWorker] = {}
        self._timers: dict[asyncio.Timeout, asyncio.TimerHandle] = {}
        self._probes: dict[grpc.aio.Channel, asyncio.Task[None]] = {}

    def __bool__(self) -> bool:
        return bool(self._scopes)

    async def close(self) -> None:
        """End all probes."""
        for probe in list(self._probes.values()):
            await ended(probe)

    @asynccontextmanager
    async def reached(self, worker: RoutedWorker) -> AsyncGenerator[None]:
        """Dial a worker and run the block; the block is cancelled if the worker is gone.

        A reported death does not prove that the worker is gone: often one guest of many died. So
        the worker itself is asked.

        Raises:
            UnavailableError: the worker accepts no connection, or does not answer any more.
        """
        scope = asyncio.timeout(None)
        self._scopes[scope] = worker
        self._ask_later(scope)
        try:
            async with scope:
                await dial(worker.channel, DIAL_SECONDS)
                yield
        except TimeoutError as error:
            if scope.expired():
                raise UnavailableError("the worker is gone", reason="worker-gone") from error
            raise
        finally:
            del self._scopes[scope]
            self._timers.pop(scope).cancel()

    def suspect(self, is_suspect: Callable[[RoutedWorker], bool]) -> None:
        """Ask the workers of suspect calls whether they are alive; one probe per worker."""
        for channel in {w.channel for w in self._scopes.values() if is_suspect(w)}:
            if channel not in self._probes:
                self._probes[channel] = asyncio.Task(self._probe(channel), name="probe")

    def _ask_later(self, scope: asyncio.Timeout) -> None:
        """Ask the worker of a call whether it is there, each time it was silent for so long."""
        loop = asyncio.get_running_loop()
        self._timers[scope] = loop.call_later(STALL_SECONDS, self._silent, scope)

    def _silent(self, scope: asyncio.Timeout) -> None:
        self._ask_later(scope)
        self.suspect(lambda worker: worker is self._scopes[scope])

    async def _probe(self, channel: grpc.aio.Channel) -> None:
        try:
            is_there = await answers(channel, DIAL_SECONDS)
        finally:
            del self._probes[channel]
        if not is_there:
            now = asyncio.get_running_loop().time()
            for scope in [s for s, w in self._scopes.items() if w.channel is channel]:
                scope.reschedule(now)


async def ended(task: asyncio.Task[None]) -> None:
    """Cancel a task and wait for its end."""
    task.cancel()
    with suppress(asyncio.CancelledError):
        await task
