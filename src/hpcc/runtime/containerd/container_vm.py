"""What every container does, on Linux and on Windows: its end is watched, and it is removed."""

from __future__ import annotations

import asyncio
import shutil
from abc import abstractmethod
from collections.abc import Coroutine
from contextlib import suppress
from typing import Final

from hpcc.core import CallerError, InfrastructureError, NotFoundError
from hpcc.ports import GuestIdentity, GuestLostError
from hpcc.runtime.containerd.client import Containerd, ContainerdError
from hpcc.runtime.containerd.events import wait_end
from hpcc.runtime.vm.vm import SessionChannel, Vm

_END_SECONDS: Final = 60.0
_REMOVE_TRIES: Final = 10
_REMOVE_PAUSE_SECONDS: Final = 0.5


class ContainerVm(Vm):
    """One container, named by the guest's id. `exec_ids` are the processes besides its first."""

    def __init__(
        self, client: Containerd, identity: GuestIdentity, exec_ids: tuple[str, ...] = ()
    ) -> None:
        super().__init__()
        self._client, self._identity, self._exec_ids = client, identity, exec_ids
        self._is_created = False

    @property
    def identity(self) -> GuestIdentity:
        return self._identity

    @property
    def name(self) -> str:
        """The container's id, which is the guest's."""
        return self._identity.guest_id

    async def start(self) -> SessionChannel:
        """Start container and agent; returns the channel to the agent, not connected yet.

        Raises:
            GuestLostError: containerd or its shim failed, lacks the image, or the container ended.
        """
        try:
            return await self._start()
        except (InfrastructureError, NotFoundError, CallerError) as error:
            raise GuestLostError(str(error)) from error

    @abstractmethod
    async def _start(self) -> SessionChannel: ...

    def _watch_container(self) -> None:
        """Watch for the container's end from now on."""
        self._tasks.append(asyncio.get_running_loop().create_task(self._notice()))

    async def _notice(self) -> None:
        reason = await wait_end(self._client, self.name)
        if not self._exited.done():
            self._exited.set_result(reason)
        if self._channel is not None:
            self._channel.retire(reason)

    async def _finish(self) -> None:
        try:
            if self._is_created:
                with suppress(TimeoutError):
                    async with asyncio.timeout(_END_SECONDS):
                        await self._remove()
                await self._remove_rest()
        finally:
            for task in self._tasks:
                task.cancel()
            if self._tasks:
                await asyncio.wait(self._tasks)
            self._client.close()
            self._let_go()
            if self._directory is not None:
                await asyncio.to_thread(shutil.rmtree, self._directory, ignore_errors=True)

    async def _remove(self) -> None:
        """Remove the container, also while containerd restarts.

        If containerd stays away, the processes are dead all the same, and the next sweep removes
        the rest.
        """
        for _ in range(_REMOVE_TRIES):
            try:
                await self._client.remove(self.name, self._exec_ids)
            except ContainerdError:
                await asyncio.sleep(_REMOVE_PAUSE_SECONDS)
            else:
                return

    async def _remove_rest(self) -> None:
        """Remove what the host keeps for a container and containerd does not."""

    def _let_go(self) -> None:
        """Close the descriptors that this process holds for the container."""


async def whole[T](call: Coroutine[None, None, T]) -> T:
    """Run a call to its end, even if cancelled meanwhile, so that what it created is known."""
    task = asyncio.get_running_loop().create_task(call)
    try:
        return await asyncio.shield(task)
    except asyncio.CancelledError:
        await asyncio.wait([task])
        if not task.cancelled():
            task.exception()
        raise
