"""What both Windows runtimes share, whatever isolates their guests: probe, sweep, identity.

Not yet run on Windows.
"""

from __future__ import annotations

import asyncio
import secrets
from abc import ABC, abstractmethod
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from pathlib import Path
from typing import Final

from hpcc.core import HpccError, InfrastructureError, Isolation
from hpcc.ports import Clock, GuestBootError, GuestIdentity, GuestSpec, Probe
from hpcc.runtime.channel.warden_launch import warden_label
from hpcc.runtime.containerd.client import (
    Containerd,
    ContainerdError,
    RootMount,
    RuntimeOptions,
    ScratchSnapshot,
)
from hpcc.runtime.containerd.container_vm import ContainerVm, whole
from hpcc.runtime.vm.vm import VmGuest, booted
from hpcc.runtime.windows.host import WindowsHost, WindowsTools
from hpcc.runtime.windows.layers.containerd_layers import LayerStore
from hpcc.runtime.windows.spec import RUNHCS_OPTIONS, RUNTIME, WindowsPlan

NO_SNAPSHOTS: Final = "containerd's Windows containers have no snapshots: every guest is booted"
_PROBE_SECONDS: Final = 120.0
# containerd core/mount/mount_windows.go; "CimFS" comes from the other snapshotter.
_ROOTS: Final = frozenset({"windows-layer", "CimFS"})
# A utility VM boots during the call that creates a task.
_TASK_SECONDS: Final = 120.0


class WindowsRuntime(ABC):
    """One container for each guest, from the image's layers and the agent's."""

    isolation: Isolation
    # What the audit row records about the boundary, beside the label. Each part is a fact of the
    # specification.
    boundary: str

    def __init__(self, host: WindowsHost, clock: Clock) -> None:
        self._host, self._clock = host, clock

    @abstractmethod
    def _container(self, spec: GuestSpec, identity: GuestIdentity) -> ContainerVm: ...

    @abstractmethod
    async def _trouble(self) -> str:
        """Return what this host lacks for the runtime, beside containerd; "" if nothing."""

    async def probe(self) -> Probe:
        """Boot a guest of the configured image until its agent answers; see `ports.Runtime`."""
        image = self._host.config.probe_image
        try:
            tools = await self._host.tools()
            if trouble := await self._trouble():
                raise InfrastructureError(trouble, reason="no-runtime")
            if image is None:
                raise InfrastructureError(
                    "no image to boot a guest of; try: worker.image_digests", reason="no-image"
                )
            spec = GuestSpec(image=image, image_path=Path(), boot_timeout_seconds=_PROBE_SECONDS)
            async with self._boot(spec, tries=1):
                pass
        except HpccError as error:
            lines = str(error).splitlines() or [""]
            problem, _, remedy = lines[0].partition("; try: ")
            return Probe(
                is_usable=False, isolation=self.isolation, summary=problem,
                details=tuple(lines[1:]), remedy=remedy or "see docs/windows.md",
                no_warm_start=NO_SNAPSHOTS,
            )  # fmt: skip
        return Probe(
            is_usable=True,
            isolation=self.isolation,
            summary=f"a guest answered ({self.isolation})",
            details=(tools.version, self.boundary),
            no_warm_start=NO_SNAPSHOTS,
        )

    async def sweep(self) -> int:
        """Remove what earlier starts of this worker left; returns how many were removed.

        Raises:
            InfrastructureError: containerd does not answer.
        """
        count, _ = await self._host.sweep()
        return count

    @asynccontextmanager
    async def guest(self, spec: GuestSpec) -> AsyncIterator[VmGuest]:
        """Start a container, with two tries; see `hpcc.ports.Runtime.guest`.

        Raises:
            GuestBootError: the guest did not answer in time or could not start.
        """
        async with self._boot(spec, tries=2) as guest:
            yield guest

    @asynccontextmanager
    async def _boot(self, spec: GuestSpec, *, tries: int) -> AsyncIterator[VmGuest]:
        try:
            tools = await self._host.tools()
        except InfrastructureError as error:
            raise GuestBootError(str(error)) from error
        async with booted(
            lambda: self._container(spec, self._identity(tools)), spec, self._clock, tries=tries
        ) as guest:
            yield guest

    def _identity(self, tools: WindowsTools) -> GuestIdentity:
        return GuestIdentity(
            guest_id=f"hpcc-{secrets.token_hex(8)}",
            isolation=self.isolation,
            kernel_digest="",  # the kernel is the host's or the image's: hpcc has no digest of it
            vmm_digest=tools.shim_digest,
            vmm_version=f"{tools.version}; {self.boundary}",
            agent_digest=self._host.config.layer.diff_id,
            warden=warden_label(),
        )


class WindowsContainer(ContainerVm):
    """One container with its own scratch disk; `pid` is its first process on the host."""

    def __init__(self, host: WindowsHost, spec: GuestSpec, identity: GuestIdentity) -> None:
        super().__init__(Containerd(host.config.connect), identity)
        self._host, self._spec = host, spec
        self._pid = 0

    @property
    def pid(self) -> int:
        return self._pid

    async def _run(self, plan: WindowsPlan) -> None:
        """Create record, scratch disk and task, and start it; it is watched from then on."""
        config, client = self._host.config, self._client
        await client.ensure_namespace()
        chain = await self._host.chain(client, self._spec.image)
        self._is_created = True
        scratch = ScratchSnapshot(snapshotter=config.snapshotter, key=self.name)
        await whole(client.create_container(self.name, RUNTIME, plan.spec, config.labels, scratch))
        rootfs = await self._scratch(chain)
        options = RuntimeOptions(RUNHCS_OPTIONS, plan.options) if plan.options else RuntimeOptions()
        self._pid = await whole(
            client.create_task(self.name, rootfs, options, timeout_seconds=_TASK_SECONDS)
        )
        self._watch_container()
        await whole(client.start(self.name))

    async def _scratch(self, chain: str) -> list[RootMount]:
        config = self._host.config
        layers = LayerStore(self._client, config.snapshotter)
        rootfs = await whole(layers.scratch(self.name, chain, config.scratch_bytes))
        # With a snapshotter that is not one of Windows', the root would be a directory of the host.
        if not rootfs or any(mount.kind not in _ROOTS for mount in rootfs):
            raise InfrastructureError(
                f"snapshotter {config.snapshotter!r} gives no Windows layers", reason="snapshotter"
            )
        return rootfs

    def _kill(self) -> None:
        # Only containerd can end it: soon, and again when it is removed.
        if self._pid and self._ending is None:
            loop = asyncio.get_running_loop()
            self._tasks.append(loop.create_task(self._kill_now()))

    async def _kill_now(self) -> None:
        with suppress(ContainerdError):
            await self._client.kill(self.name)

    async def _remove_rest(self) -> None:
        with suppress(ContainerdError):
            await LayerStore(self._client, self._host.config.snapshotter).remove(self.name)
