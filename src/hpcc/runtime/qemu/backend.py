"""Guests as QEMU microVMs, under KVM or emulated (TCG)."""

from __future__ import annotations

import asyncio
import logging
import re
import secrets
import shutil
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Final

from hpcc.core import InfrastructureError, Isolation
from hpcc.ports import Clock, GuestBootError, GuestIdentity, GuestSpec, Probe
from hpcc.runtime.assets.assets import GuestAssets, probe_spec
from hpcc.runtime.host.tools import ToolError, run_tool, sha256_of
from hpcc.runtime.host.users import helper_socket, warden_label
from hpcc.runtime.qemu.argv import Accelerator, QemuMachine, kernel_command_line, qemu_argv
from hpcc.runtime.qemu.jail import QemuJail, find_jail
from hpcc.runtime.qemu.vm import PROGRAM, QemuConfig, QemuVm, host_tsc_khz
from hpcc.runtime.vm.command_line import recorded_line
from hpcc.runtime.vm.snapshot_store import Snapshot, snapshot_key
from hpcc.runtime.vm.vm import Vm, VmGuest, booted
from hpcc.runtime.vm.warm import Template, WarmStart

__all__ = ["PROGRAM", "QemuConfig", "QemuRuntime", "why_no_snapshots"]
# The first version with memory files that are opened for reading and mapped for writing.
_SNAPSHOT_VERSION: Final = (8, 2)
_log: Final = logging.getLogger(__name__)
_VERSION: Final = re.compile(r"version (\d{1,4})\.(\d{1,4})")


class QemuRuntime:
    """One VM for each guest, confined as far as the worker's rights allow.

    With `warm`, guests are restored from snapshots if this QEMU can do so.
    """

    def __init__(
        self,
        config: QemuConfig,
        assets: GuestAssets,
        clock: Clock,
        warm: WarmStart | None = None,
    ) -> None:
        self._config, self._assets, self._clock = config, assets, clock
        self._warm = warm
        self._vmm_digest = ""
        self._no_snapshots: str | None = None
        self._jail: QemuJail | None = None
        self.why_no_jail: str | None = None

    @property
    def isolation(self) -> Isolation:
        """`qemu/kvm` or `qemu/tcg`, by the accelerator of the configuration."""
        return Isolation.QEMU_KVM if self._config.accelerator == "kvm" else Isolation.QEMU_TCG

    async def probe(self) -> Probe:
        """Boot a guest from the agent drive only, until its agent answers; see `ports.Runtime`."""
        program = shutil.which(self._config.program)
        if program is None:
            return Probe(
                is_usable=False, isolation=self.isolation,
                summary=f"{self._config.program} is not installed",
                remedy="apt-get install qemu-system-x86",
            )  # fmt: skip
        try:
            async with self._boot(_probe_spec(self._assets, self._config.accelerator), tries=1):
                pass
        except GuestBootError as error:
            lines = str(error).splitlines() or [""]
            return Probe(
                is_usable=False,
                isolation=self.isolation,
                summary=lines[0],
                details=tuple(lines[1:]),
            )
        return Probe(
            is_usable=True,
            isolation=self.isolation,
            summary=f"a guest answered ({self.isolation})",
            no_warm_start=await why_no_snapshots(self._config.program),
        )

    @asynccontextmanager
    async def guest(self, spec: GuestSpec) -> AsyncIterator[VmGuest]:
        """Restore or boot a guest, with two tries to boot; see `hpcc.ports.Runtime.guest`.

        Raises:
            GuestBootError: the guest did not answer in time or could not start.
        """
        if self._warm is None or spec.is_passing or await self._why_no_snapshots():
            async with self._boot(spec, tries=2) as guest:
                yield guest
            return
        await self._ask_program()
        async with self._warm.guest(self, spec, tries=2) as guest:
            yield guest

    @asynccontextmanager
    async def _boot(self, spec: GuestSpec, *, tries: int) -> AsyncIterator[VmGuest]:
        await self._ask_program()
        async with booted(lambda: self.cold(spec), spec, self._clock, tries=tries) as guest:
            yield guest

    async def _ask_program(self) -> None:
        if self.why_no_jail is None:
            self._vmm_digest = await asyncio.to_thread(_program_digest, self._config.program)
            await self._find_jail()

    async def _find_jail(self) -> None:
        try:
            self._jail = await find_jail(self._config.program, self._config.directory)
        except InfrastructureError as error:
            if helper_socket():
                # Who set up a helper wants no guest without what it is for.
                raise GuestBootError(f"QEMU has no jail: {error}") from error
            self.why_no_jail = str(error)
            _log.warning("QEMU runs without a jail: %s", error)
        else:
            self.why_no_jail = ""

    async def _why_no_snapshots(self) -> str:
        if self._no_snapshots is None:
            self._no_snapshots = await why_no_snapshots(self._config.program)
        return self._no_snapshots

    def key(self, spec: GuestSpec) -> str:
        """Return a name for everything that a snapshot of this guest depends on. Reads files.

        Raises:
            OSError: a file is missing.
        """
        firmware = sha256_of(self._assets.firmware) if self._assets.firmware else ""
        return snapshot_key(
            spec,
            self._assets.kernel_digest,
            self._assets.initramfs_digest,
            self._assets.agent_digest,
            self._vmm_digest,
            firmware,
            *qemu_argv(self._config.program, self._machine(spec)),
        )

    def _machine(self, spec: GuestSpec) -> QemuMachine:
        """Return a guest's VM without what differs each time: descriptors, name and token."""
        return QemuMachine(
            name="", accelerator=self._config.accelerator, memory_mib=spec.memory_mib,
            vcpus=spec.vcpus, kernel_fd=0, initramfs_fd=0, image_fd=0, drive_fd=0, port_fd=0,
            firmware=str(self._assets.firmware or ""), token="",
            tsc_khz=host_tsc_khz(), extra_options=self._config.extra_kernel_options,
            has_mitigations=spec.has_mitigations,
        )  # fmt: skip

    def cold(self, spec: GuestSpec) -> Vm:
        """Return a guest to boot."""
        return self._vm(spec)

    def restored(self, spec: GuestSpec, snapshot: Snapshot) -> Vm:
        """Return a guest to restore."""
        return self._vm(spec, snapshot)

    def template(self, spec: GuestSpec) -> Template:
        """Return a VM that becomes a snapshot."""
        return self._vm(spec)

    def _vm(self, spec: GuestSpec, snapshot: Snapshot | None = None) -> QemuVm:
        identity = GuestIdentity(
            guest_id=f"q-{secrets.token_hex(8)}",
            isolation=self.isolation,
            kernel_digest=self._assets.kernel_digest,
            vmm_digest=self._vmm_digest,
            agent_digest=self._assets.agent_digest,
            warden=warden_label(),
            snapshot_digest=snapshot.digest if snapshot else "",
            kernel_command_line=recorded_line(kernel_command_line(self._machine(spec))),
            vmm_jail="hpcc" if self._jail else "none",
        )
        return QemuVm(self._config, self._assets, spec, identity, snapshot, self._jail)


async def why_no_snapshots(program: str) -> str:
    """Return why this QEMU cannot restore guests as `hpcc` needs it; "" if it can."""
    try:
        text = await run_tool(program, "--version")
    except ToolError as error:
        return str(error)
    found = _VERSION.search(text)
    if found is None or (int(found[1]), int(found[2])) < _SNAPSHOT_VERSION:
        wanted = ".".join(str(n) for n in _SNAPSHOT_VERSION)
        return f"snapshots need QEMU {wanted} or newer, this is {text[:80].splitlines()[0]!r}"
    return ""


def _program_digest(program: str) -> str:
    path = shutil.which(program)
    return sha256_of(Path(path)) if path else ""


def _probe_spec(assets: GuestAssets, accelerator: Accelerator) -> GuestSpec:
    return probe_spec(assets, 15.0 if accelerator == "kvm" else 90.0)
