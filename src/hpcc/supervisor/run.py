"""Starts services in order, keeps them running, and ends them in reverse order."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Mapping, Sequence

from hpcc.core import HpccError
from hpcc.ports import Clock
from hpcc.supervisor.policy import GiveUp, RestartPolicy
from hpcc.supervisor.process import Child, ChildSpec, Ready, SupervisorError

# A spec may need facts from the `ready` line of an earlier service, such as its port.
SpecFactory = Callable[[Mapping[str, Ready]], ChildSpec]


class Supervisor:
    """Runs an ordered list of services until a stop is requested or one is given up.

    `on_ready` is called each time all services are ready, with the `Ready` of each: at the start
    and after every restart.
    """

    def __init__(
        self,
        factories: Sequence[tuple[str, SpecFactory]],
        *,
        clock: Clock,
        progress: Callable[[str], None],
        on_ready: Callable[[Mapping[str, Ready]], None],
    ) -> None:
        self._factories, self._clock = tuple(factories), clock
        self._progress, self._on_ready = progress, on_ready
        self._children: dict[str, Child] = {}
        self._ready: dict[str, Ready] = {}
        self._policies = {name: RestartPolicy() for name, _ in self._factories}

    async def run(self, stop: asyncio.Event) -> None:
        """Run until `stop` is set. Afterwards no started process is alive.

        Raises:
            SupervisorError: a service did not become ready at the start, or was given up.
        """
        try:
            async with asyncio.TaskGroup() as tasks:
                work = tasks.create_task(self._work())
                await stop.wait()
                # A stop also cancels a service that is still starting.
                work.cancel()
        except* SupervisorError as group:
            errors = _flat(group)
        else:
            return
        finally:
            await self._stop_all()
        # Raised outside of `except*`, which would wrap it in a group again.
        raise errors[0]

    async def _work(self) -> None:
        for name, factory in self._factories:
            await self._start(name, factory)
        self._on_ready(self._ready)
        async with asyncio.TaskGroup() as tasks:
            for name, factory in self._factories:
                tasks.create_task(self._keep(name, factory))

    async def _stop_all(self) -> None:
        for name, _ in reversed(self._factories):
            child = self._children.pop(name, None)
            if child is not None:
                await child.stop()

    async def _start(self, name: str, factory: SpecFactory) -> None:
        try:
            spec = factory(self._ready)
        except HpccError as error:
            raise SupervisorError(f"{name}: {error}") from error
        child = await Child.start(spec)
        self._children[name] = child
        self._ready[name] = await child.wait_ready(self._progress)

    async def _keep(self, name: str, factory: SpecFactory) -> None:
        try:
            while True:
                status = await self._children[name].drain()
                await self._restart(name, factory, f"{name} ended with status {status}")
        except SupervisorError:
            raise
        except OSError as error:
            raise SupervisorError(f"{name}: {error}") from error

    async def _restart(self, name: str, factory: SpecFactory, why: str) -> None:
        while True:
            decision = self._policies[name].on_death(self._clock.monotonic())
            if isinstance(decision, GiveUp):
                raise SupervisorError(f"{why}; given up: {decision.reason}")
            self._progress(f"{why}; starting it again")
            await self._clock.sleep(decision.after_seconds)
            try:
                await self._start(name, factory)
            except SupervisorError as error:
                why = str(error)
                await self._children[name].stop()
                continue
            self._on_ready(self._ready)
            return


def _flat(group: BaseExceptionGroup[SupervisorError]) -> list[SupervisorError]:
    found: list[SupervisorError] = []
    for error in group.exceptions:
        if isinstance(error, SupervisorError):
            found.append(error)
        elif isinstance(error, BaseExceptionGroup):
            found.extend(_flat(error))
    return found
