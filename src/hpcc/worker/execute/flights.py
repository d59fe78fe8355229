"""Equal actions that run at the same time run once; the last waiter's leaving kills it.

Those who wait may be several principals of a tenant: each is known by name here, and what
the execution made comes with its origin, so that everybody who gets it gets a row of their own.
"""

from __future__ import annotations

import asyncio
import itertools
import logging
from collections.abc import AsyncGenerator, Awaitable, Callable
from contextlib import aclosing
from dataclasses import dataclass, field, replace
from functools import partial
from typing import Final

from hpcc.core import Digest, HpccError, InfrastructureError, NotFoundError
from hpcc.rpc.reapi.server import Running
from hpcc.worker.base.domain import TrustDomain
from hpcc.worker.base.rows import Made

_log: Final = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class FlightKey:
    """What makes two executions the same: nobody waits for another trust domain's.

    `alone` is a word of its own for one that nobody may join.
    """

    domain: TrustDomain
    action: Digest
    alone: str = ""


@dataclass(frozen=True, slots=True)
class Landing:
    """The end of a flight for one who waited: an error, or what was made."""

    name: str
    made: Made | None = None
    error: HpccError | None = None
    # Whether another call had it run; that one's row does not name this caller.
    is_joined: bool = False


@dataclass(slots=True, eq=False)
class _Waiter:
    principal: str
    end: asyncio.Future[Landing]
    is_joined: bool

    def tell(self, end: Landing) -> None:
        if not self.end.done():
            self.end.set_result(replace(end, is_joined=self.is_joined))


@dataclass(slots=True, eq=False)
class _Flight:
    key: FlightKey
    name: str
    task: asyncio.Task[None] | None = None
    is_over: bool = False
    waiters: list[_Waiter] = field(default_factory=list)


class Flights:
    """Executions under way, by key and by operation name."""

    def __init__(self, group: asyncio.TaskGroup) -> None:
        self._group = group
        self._by_key: dict[FlightKey, _Flight] = {}
        self._numbers = itertools.count(1)

    async def run(
        self, key: FlightKey, principal: str, execute: Callable[[], Awaitable[Made]]
    ) -> AsyncGenerator[Running | Landing]:
        """Join the execution of `key` or start it."""
        flight = self._by_key.get(key)
        is_joined = flight is not None
        if flight is None:
            name = f"{key.domain.tenant}/operations/{key.action.hash[:32]}-{next(self._numbers)}"
            flight = self._by_key[key] = _Flight(key, name)
            flight.task = self._group.create_task(self._fly(flight, execute), name="execution")
            # A task that is cancelled before its first step never gets to settle by itself.
            flight.task.add_done_callback(partial(self._ended, flight))
        async with aclosing(self._wait(flight, principal, is_joined=is_joined)) as updates:
            async for update in updates:
                yield update

    async def wait(
        self, name: str, domain: TrustDomain, principal: str
    ) -> AsyncGenerator[Running | Landing]:
        """Join an execution by its name.

        Raises:
            NotFoundError: it has ended, or is another trust domain's.
        """
        flight = self._named(name, domain)
        async with aclosing(self._wait(flight, principal, is_joined=True)) as updates:
            async for update in updates:
                yield update

    def cancel(self, name: str, domain: TrustDomain, principal: str) -> None:
        """End a principal's waiting, and the execution if nobody else waits for it.

        Raises:
            NotFoundError: it has ended, or the principal does not wait for it.
        """
        flight = self._named(name, domain)
        own = [w for w in flight.waiters if w.principal == principal]
        if not own:
            raise _unknown()
        if len(own) == len(flight.waiters):
            self._kill(flight)  # and who waits is told when it has ended
            return
        for waiter in own:
            flight.waiters.remove(waiter)
            waiter.tell(_cancelled(flight.name))

    def _named(self, name: str, domain: TrustDomain) -> _Flight:
        for flight in self._by_key.values():
            if flight.name == name and flight.key.domain == domain:
                return flight
        raise _unknown()

    async def _wait(
        self, flight: _Flight, principal: str, *, is_joined: bool
    ) -> AsyncGenerator[Running | Landing]:
        waiter = _Waiter(principal, asyncio.get_running_loop().create_future(), is_joined)
        flight.waiters.append(waiter)
        try:
            yield Running(flight.name)
            yield await waiter.end
        finally:
            if waiter in flight.waiters:
                flight.waiters.remove(waiter)
                if not flight.waiters:
                    self._kill(flight)

    def _kill(self, flight: _Flight) -> None:
        """End an execution, once: a second cancel would cut short what the first has begun."""
        # Forgotten at once: who comes now must not join what is being killed.
        is_known = self._forget(flight)
        if is_known and flight.task is not None and not flight.is_over:
            flight.task.cancel()

    async def _fly(self, flight: _Flight, execute: Callable[[], Awaitable[Made]]) -> None:
        try:
            end = Landing(flight.name, made=await execute())
        except HpccError as error:
            end = Landing(flight.name, error=error)
        except Exception:  # noqa: BLE001 - the root of a task: one action's fault must not end the others
            _log.exception("execution failed")
            fault = InfrastructureError("the worker failed on this action", reason="internal")
            end = Landing(flight.name, error=fault)
        self._settle(flight, end)

    def _ended(self, flight: _Flight, _: asyncio.Task[None]) -> None:
        self._settle(flight, _cancelled(flight.name))

    def _settle(self, flight: _Flight, end: Landing) -> None:
        self._forget(flight)
        if not flight.is_over:
            flight.is_over = True
            for waiter in flight.waiters:
                waiter.tell(end)

    def _forget(self, flight: _Flight) -> bool:
        """Let nobody join it any more; whether somebody could until now."""
        if self._by_key.get(flight.key) is not flight:
            return False
        del self._by_key[flight.key]
        return True


def _cancelled(name: str) -> Landing:
    error = InfrastructureError("the execution was cancelled", reason="cancelled")
    return Landing(name, error=error)


def _unknown() -> NotFoundError:
    return NotFoundError("no such operation: it ended or never was")
