"""Guests in process isolation on Windows: a container on the host's own kernel.

This is weaker than a virtual machine, is labelled so, and is never chosen automatically. The first
process keeps the container alive. Each compile is a further process in it, an agent that ends with
the compile. Not yet run on Windows.
"""

from __future__ import annotations

import secrets
from typing import Final

from hpcc.core import Isolation
from hpcc.ports import Clock, GuestIdentity, GuestSpec
from hpcc.runtime.containerd.client import StdioPaths
from hpcc.runtime.containerd.container_vm import ContainerVm
from hpcc.runtime.containerd.exec_channel import ExecChannel, ExecPlan, NewStreams
from hpcc.runtime.vm.vm import SessionChannel
from hpcc.runtime.windows.host import WindowsHost
from hpcc.runtime.windows.runtime import WindowsContainer, WindowsRuntime
from hpcc.runtime.windows.spec import WindowsPlan

_PIPE: Final = r"\\.\pipe\hpcc-{}-{}"


class WindowsProcessRuntime(WindowsRuntime):
    """One container on the host's kernel for each guest."""

    isolation = Isolation.PROCESS_WINDOWS
    boundary = "the host's own kernel, no hypervisor; network=none; no directory of the host"

    def __init__(self, host: WindowsHost, clock: Clock, streams: NewStreams) -> None:
        super().__init__(host, clock)
        self._streams = streams

    async def _trouble(self) -> str:
        return ""

    def _container(self, spec: GuestSpec, identity: GuestIdentity) -> ContainerVm:
        return _ProcessContainer(self._host, spec, identity, self._streams, self._clock)


class _ProcessContainer(WindowsContainer):
    """One container whose first process waits, with one agent for each exec."""

    def __init__(
        self,
        host: WindowsHost,
        spec: GuestSpec,
        identity: GuestIdentity,
        streams: NewStreams,
        clock: Clock,
    ) -> None:
        super().__init__(host, spec, identity)
        self._streams, self._clock = streams, clock

    async def _start(self) -> SessionChannel:
        plan = WindowsPlan(
            container_id=self.name,
            memory_mib=self._spec.memory_mib,
            vcpus=self._spec.vcpus,
            is_hyperv=False,
        )
        await self._run(plan)
        execs = ExecPlan(container_id=self.name, agent=lambda: plan.agent, streams=self._streams)
        channel = ExecChannel(self._client, execs, self._clock)
        self._attach(channel)
        return channel


def pipe_names() -> StdioPaths:
    """Return pipe names that cannot be guessed: the first client to open such a pipe gets it."""
    name = secrets.token_hex(16)
    return StdioPaths(
        stdin=_PIPE.format(name, "in"),
        stdout=_PIPE.format(name, "out"),
        stderr=_PIPE.format(name, "err"),
    )
