"""Guests in Hyper-V isolation: a container in its own utility VM. Not yet run on Windows.

One Hyper-V socket leads in and out. The shim itself gives the VM read-only shares with Microsoft's
boot files and the image's layers (docs/security.md); hpcc adds no share.
"""

from __future__ import annotations

import secrets
import socket
from collections.abc import Awaitable, Callable
from contextlib import suppress
from dataclasses import replace
from typing import Final, Protocol

from hpcc.core import HpccError, InfrastructureError, Isolation
from hpcc.ports import Clock, GuestIdentity, GuestSpec
from hpcc.runtime.channel.channel import GuestChannel
from hpcc.runtime.containerd.container_vm import ContainerVm
from hpcc.runtime.vm.vm import SessionChannel
from hpcc.runtime.windows.hcs import ComputeService, HcsError, load_computecore, orphans
from hpcc.runtime.windows.host import WindowsHost
from hpcc.runtime.windows.hvsocket import Address, address_of, dial
from hpcc.runtime.windows.runtime import WindowsContainer, WindowsRuntime
from hpcc.runtime.windows.spec import AGENT_PORT, WindowsPlan, container_vmid, service_guid
from hpcc.wire.link import TOKEN_BYTES

# The share of a boot's time for the container's own address; the rest is for the utility VM's.
_OWN_ADDRESS: Final = 0.6


class Dial(Protocol):
    """How to connect to a service of a VM; `hvsocket.dial` is one."""

    def __call__(self, address: Address, *, timeout_seconds: float) -> Awaitable[socket.socket]: ...


class HyperVRuntime(WindowsRuntime):
    """One container in its own utility VM for each guest."""

    isolation = Isolation.HYPERV
    boundary = "hypervisor; network=none; vsmb=boot+layers-ro by the shim, none of ours"

    def __init__(
        self,
        host: WindowsHost,
        clock: Clock,
        *,
        dial: Dial = dial,
        compute: Callable[[], ComputeService] = lambda: ComputeService(load_computecore()),
    ) -> None:
        super().__init__(host, clock)
        self._dial, self._compute = dial, compute

    async def sweep(self) -> int:
        """Remove what earlier starts left, including utility VMs that outlived their container.

        Returns how many were removed.

        Raises:
            InfrastructureError: containerd or the Host Compute Service does not answer.
        """
        compute = self._compute()
        # Before the sweep of containers: a VM that starts later is not in this list.
        systems = await compute.systems()
        count, staying = await self._host.sweep()
        for name in orphans(systems, staying):
            with suppress(HcsError):
                count += await compute.terminate(name)
        return count

    async def _trouble(self) -> str:
        try:
            await self._compute().systems()
        except HpccError as error:
            return str(error)
        return ""

    def _container(self, spec: GuestSpec, identity: GuestIdentity) -> ContainerVm:
        return _UtilityVm(self._host, spec, identity, self._dial, self._compute)


class _UtilityVm(WindowsContainer):
    """One container whose first process is the agent."""

    def __init__(
        self,
        host: WindowsHost,
        spec: GuestSpec,
        identity: GuestIdentity,
        dial: Dial,
        compute: Callable[[], ComputeService],
    ) -> None:
        super().__init__(host, spec, identity)
        self._dial, self._compute = dial, compute

    async def _start(self) -> SessionChannel:
        plan = WindowsPlan(
            container_id=self.name,
            memory_mib=self._spec.memory_mib,
            vcpus=self._spec.vcpus,
            is_hyperv=True,
        )
        await self._run(plan)
        connection = await self._while_alive(self._connect())
        # The token is only sent on the connection. No argument, variable or file of the guest holds
        # it.
        channel = GuestChannel(connection, secrets.token_hex(TOKEN_BYTES // 2).encode())
        self._attach(channel)
        return channel

    async def _connect(self) -> socket.socket:
        """Dial the agent at the container's address, and at its VM's if nothing answers there.

        The agent accepts one connection; after it nothing dials again.
        """
        seconds, service = self._spec.boot_timeout_seconds, service_guid(AGENT_PORT)
        own = address_of(container_vmid(self.name), service)
        try:
            return await self._dial(own, timeout_seconds=seconds * _OWN_ADDRESS)
        except InfrastructureError as error:
            if error.reason == "not-windows":
                raise
            why = error
        try:
            vm = await self._compute().utility_vm(self.name)
        except HpccError as error:
            raise InfrastructureError(f"{why}; and its VM: {error}", reason="dial") from error
        connection = await self._dial(address_of(vm, service), timeout_seconds=seconds)
        self._identity = replace(
            self._identity, vmm_version=f"{self._identity.vmm_version}; dialled=utility-vm"
        )
        return connection

    async def _remove_rest(self) -> None:
        await super()._remove_rest()
        # A shim that dies normally ends its VM. A VM that remains is ended here.
        with suppress(HpccError):
            await self._compute().terminate(self.name)
