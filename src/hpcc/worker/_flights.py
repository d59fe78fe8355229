"""Equal actions that run at the same time run once; the last waiter's leaving kills it."""

from __future__ import annotations

import asyncio
import itertools
import logging
from collections.abc import AsyncGenerator, Awaitable, Callable
from contextlib import aclosing
from dataclasses import dataclass
from typing import Final

from hpcc.core import Digest, HpccError, InfrastructureError, NotFoundError
from hpcc.rpc import Finished, Running
from hpcc.worker._domain import TrustDomain

_log: Final = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class FlightKey:
    """What makes two executions the same: nobody waits for another trust domain's."""

    domain: TrustDomain
    action: Digest


@dataclass(slots=True, eq=False)
class _Flight:
    key: FlightKey
    name: str
    done: asyncio.Future[Finished]
    task: asyncio.Task[None] | None = None
    waiters: int = 0


class Flights:
    """Executions under way, by key and by operation name."""

    def __init__(self, group: asyncio.TaskGroup) -> None:
        self._group = group
        self._by_key: dict[FlightKey, _Flight] = {}
        self._numbers = itertools.count(1)

    async def run(
        self, key: FlightKey, execute: Callable[[], Awaitable[bytes]]
    ) -> AsyncGenerator[Running | Finished]:
        """Join the execution of `key` or start it."""
        flight = self._by_key.get(key)
        if flight is None:
            name = f"{key.domain.tenant}/operations/{key.action.hash[:32]}-{next(self._numbers)}"
            flight = _Flight(key, name, asyncio.get_running_loop().create_future())
            self._by_key[key] = flight
            flight.task = self._group.create_task(self._fly(flight, execute), name="execution")
            # A task that is cancelled before its first step never gets to settle by itself.
            flight.task.add_done_callback(lambda _: self._settle(flight, _cancelled(flight.name)))
        async with aclosing(self._wait(flight)) as updates:
            async for update in updates:
                yield update

    async def wait(self, name: str, domain: TrustDomain) -> AsyncGenerator[Running | Finished]:
        """Join an execution by its name.

        Raises:
            NotFoundError: it has ended, or is another's.
        """
        async with aclosing(self._wait(self._named(name, domain))) as updates:
            async for update in updates:
                yield update

    def cancel(self, name: str, domain: TrustDomain) -> None:
        """End an execution for all its waiters; see `wait` for what it raises."""
        flight = self._named(name, domain)
        if flight.task is not None:
            flight.task.cancel()

    def _named(self, name: str, domain: TrustDomain) -> _Flight:
        for flight in self._by_key.values():
            if flight.name == name and flight.key.domain == domain:
                return flight
        raise NotFoundError("no such operation: it ended or never was")

    async def _wait(self, flight: _Flight) -> AsyncGenerator[Running | Finished]:
        flight.waiters += 1
        try:
            yield Running(flight.name)
            yield await asyncio.shield(flight.done)
        finally:
            flight.waiters -= 1
            if not flight.waiters and flight.task is not None and not flight.done.done():
                # Forgotten at once: who comes now must not join what is being killed.
                self._forget(flight)
                flight.task.cancel()

    async def _fly(self, flight: _Flight, execute: Callable[[], Awaitable[bytes]]) -> None:
        try:
            end = Finished(flight.name, result=await execute())
        except HpccError as error:
            end = Finished(flight.name, error=error)
        except Exception:  # noqa: BLE001 - the root of a task: one action's fault must not end the others
            _log.exception("execution failed")
            fault = InfrastructureError("the worker failed on this action", reason="internal")
            end = Finished(flight.name, error=fault)
        self._settle(flight, end)

    def _settle(self, flight: _Flight, end: Finished) -> None:
        self._forget(flight)
        if not flight.done.done():
            flight.done.set_result(end)

    def _forget(self, flight: _Flight) -> None:
        if self._by_key.get(flight.key) is flight:
            del self._by_key[flight.key]


def _cancelled(name: str) -> Finished:
    error = InfrastructureError("the execution was cancelled", reason="cancelled")
    return Finished(name, error=error)
