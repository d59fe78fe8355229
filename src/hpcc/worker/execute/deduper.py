"""Runs equal actions that arrive at the same time once; ends the run when its last waiter leaves.

The waiters may be several principals of a tenant. Each is recorded by name, and each receives the
result together with its lineage, so that every caller gets a separate audit row.
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
from hpcc.rpc.reapi.session import Running
from hpcc.worker.base.domain import TrustDomain
from hpcc.worker.base.rows import ExecutionResult

_log: Final = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class ExecutionKey:
    """Identifies equal executions. Callers of different trust domains never share one.

    `alone` is a unique text for an execution that no second caller may join, else empty.
    """

    domain: TrustDomain
    action: Digest
    alone: str = ""


@dataclass(frozen=True, slots=True)
class ExecutionOutcome:
    """The outcome of an execution for one waiter: an error or a result."""

    name: str
    executed: ExecutionResult | None = None
    error: HpccError | None = None
    # Whether another call started the execution; the row of that call does not name this caller.
    is_joined: bool = False


@dataclass(slots=True, eq=False)
class _Waiter:
    principal: str
    end: asyncio.Future[ExecutionOutcome]
    is_joined: bool

    def tell(self, end: ExecutionOutcome) -> None:
        if not self.end.done():
            self.end.set_result(replace(end, is_joined=self.is_joined))


@dataclass(slots=True, eq=False)
class _Execution:
    key: ExecutionKey
    name: str
    task: asyncio.Task[None] | None = None
    is_over: bool = False
    waiters: list[_Waiter] = field(default_factory=list)


class ExecutionDeduper:
    """In-flight executions, by key and by operation name."""

    def __init__(self, group: asyncio.TaskGroup) -> None:
        self._group = group
        self._by_key: dict[ExecutionKey, _Execution] = {}
        self._numbers = itertools.count(1)

    def __len__(self) -> int:
        """Return how many executions run or wait for their turn."""
        return len(self._by_key)

    async def run(
        self, key: ExecutionKey, principal: str, execute: Callable[[], Awaitable[ExecutionResult]]
    ) -> AsyncGenerator[Running | ExecutionOutcome]:
        """Join the execution of `key` or start it.

        Yields `Running` once, then the outcome. Closing the generator early ends this caller's
        wait; the execution is cancelled if no other caller waits for it.
        """
        execution = self._by_key.get(key)
        is_joined = execution is not None
        if execution is None:
            name = f"{key.domain.tenant}/operations/{key.action.hash[:32]}-{next(self._numbers)}"
            execution = self._by_key[key] = _Execution(key, name)
            execution.task = self._group.create_task(
                self._run_task(execution, execute), name="execution"
            )
            # A task that is cancelled before its first step never runs `_settle` itself.
            execution.task.add_done_callback(partial(self._ended, execution))
        async with aclosing(self._wait(execution, principal, is_joined=is_joined)) as updates:
            async for update in updates:
                yield update

    async def wait(
        self, name: str, domain: TrustDomain, principal: str
    ) -> AsyncGenerator[Running | ExecutionOutcome]:
        """Join an execution by its operation name; yields as `run` does.

        Raises:
            NotFoundError: it has ended, or it belongs to another trust domain.
        """
        execution = self._named(name, domain)
        async with aclosing(self._wait(execution, principal, is_joined=True)) as updates:
            async for update in updates:
                yield update

    def cancel(self, name: str, domain: TrustDomain, principal: str) -> None:
        """End a principal's waits, and cancel the execution if no other principal waits for it.

        Raises:
            NotFoundError: it has ended, or the principal does not wait for it.
        """
        execution = self._named(name, domain)
        own = [w for w in execution.waiters if w.principal == principal]
        if not own:
            raise _unknown()
        if len(own) == len(execution.waiters):
            self._kill(execution)  # the waiters get their outcome when it has ended
            return
        for waiter in own:
            execution.waiters.remove(waiter)
            waiter.tell(_cancelled(execution.name))

    def _named(self, name: str, domain: TrustDomain) -> _Execution:
        for execution in self._by_key.values():
            if execution.name == name and execution.key.domain == domain:
                return execution
        raise _unknown()

    async def _wait(
        self, execution: _Execution, principal: str, *, is_joined: bool
    ) -> AsyncGenerator[Running | ExecutionOutcome]:
        waiter = _Waiter(principal, asyncio.get_running_loop().create_future(), is_joined)
        execution.waiters.append(waiter)
        try:
            yield Running(execution.name)
            yield await waiter.end
        finally:
            if waiter in execution.waiters:
                execution.waiters.remove(waiter)
                if not execution.waiters:
                    self._kill(execution)

    def _kill(self, execution: _Execution) -> None:
        """Cancel an execution, once: a second cancel would interrupt its clean-up."""
        # Removed first: a new caller must not join an execution that is being cancelled.
        is_known = self._forget(execution)
        if is_known and execution.task is not None and not execution.is_over:
            execution.task.cancel()

    async def _run_task(
        self, execution: _Execution, execute: Callable[[], Awaitable[ExecutionResult]]
    ) -> None:
        try:
            end = ExecutionOutcome(execution.name, executed=await execute())
        except HpccError as error:
            end = ExecutionOutcome(execution.name, error=error)
        except Exception:  # noqa: BLE001 - the root of a task: one action's fault must not end the others
            _log.exception("execution failed")
            fault = InfrastructureError("the worker failed on this action", reason="internal")
            end = ExecutionOutcome(execution.name, error=fault)
        self._settle(execution, end)

    def _ended(self, execution: _Execution, _: asyncio.Task[None]) -> None:
        self._settle(execution, _cancelled(execution.name))

    def _settle(self, execution: _Execution, end: ExecutionOutcome) -> None:
        self._forget(execution)
        if not execution.is_over:
            execution.is_over = True
            for waiter in execution.waiters:
                waiter.tell(end)

    def _forget(self, execution: _Execution) -> bool:
        """Accept no further waiters; return whether it accepted them until now."""
        if self._by_key.get(execution.key) is not execution:
            return False
        del self._by_key[execution.key]
        return True


def _cancelled(name: str) -> ExecutionOutcome:
    error = InfrastructureError("the execution was cancelled", reason="cancelled")
    return ExecutionOutcome(name, error=error)


def _unknown() -> NotFoundError:
    return NotFoundError("no such operation: it ended or never was")
