"""Guests as QEMU microVMs, under KVM or emulated (TCG)."""

from __future__ import annotations

import asyncio
import os
import secrets
import shutil
import socket
from collections.abc import AsyncIterator
from contextlib import ExitStack, asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from hpcc.core import Isolation
from hpcc.ports import Clock, GuestBootError, GuestIdentity, GuestSpec, Probe
from hpcc.runtime._assets import GuestAssets
from hpcc.runtime._channel import GuestChannel
from hpcc.runtime._leftovers import record
from hpcc.runtime._qemu_argv import Accelerator, Machine, qemu_argv, tsc_khz
from hpcc.runtime._tools import sha256_of
from hpcc.runtime._users import vmm_user, warden_label
from hpcc.runtime._vm import Vm, VmGuest, booted, probe_spec
from hpcc.wire import TOKEN_BYTES

PROGRAM: Final = "qemu-system-x86_64"


@dataclass(frozen=True, slots=True, kw_only=True)
class QemuConfig:
    """How VMs are run. `directory` is for guests' working directories, 0700."""

    accelerator: Accelerator
    directory: Path
    program: str = PROGRAM
    # Added to the kernel's command line: tests only, to make a guest that never boots.
    extra_kernel_options: str = ""


class QemuRuntime:
    """One VM for each guest; the VMM confined as far as its starter may."""

    def __init__(self, config: QemuConfig, assets: GuestAssets, clock: Clock) -> None:
        self._config, self._assets, self._clock = config, assets, clock
        self._count = 0
        self._vmm_digest = ""

    @property
    def isolation(self) -> Isolation:
        return Isolation.QEMU_KVM if self._config.accelerator == "kvm" else Isolation.QEMU_TCG

    async def probe(self) -> Probe:
        """Boot a guest from the agent drive alone, to its agent's answer."""
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
            is_usable=True, isolation=self.isolation, summary=f"a guest answered ({self.isolation})"
        )

    @asynccontextmanager
    async def guest(self, spec: GuestSpec) -> AsyncIterator[VmGuest]:
        """Boot a guest, trying twice; see `hpcc.ports.Runtime.guest`."""
        async with self._boot(spec, tries=2) as guest:
            yield guest

    @asynccontextmanager
    async def _boot(self, spec: GuestSpec, *, tries: int) -> AsyncIterator[VmGuest]:
        if not self._vmm_digest:
            self._vmm_digest = await asyncio.to_thread(_program_digest, self._config.program)
        async with booted(lambda: self._vm(spec), spec, self._clock, tries=tries) as guest:
            yield guest

    def _vm(self, spec: GuestSpec) -> Vm:
        self._count += 1
        identity = GuestIdentity(
            guest_id=f"q-{secrets.token_hex(8)}",
            isolation=self.isolation,
            kernel_digest=self._assets.kernel_digest,
            vmm_digest=self._vmm_digest,
            agent_digest=self._assets.agent_digest,
            warden=warden_label(),
        )
        return _QemuVm(self._config, self._assets, spec, identity, self._count)


class _QemuVm(Vm):
    """One QEMU process."""

    def __init__(
        self,
        config: QemuConfig,
        assets: GuestAssets,
        spec: GuestSpec,
        identity: GuestIdentity,
        number: int,
    ) -> None:
        super().__init__()
        self._config, self._assets, self._spec, self._identity = config, assets, spec, identity
        self._user = vmm_user(number)

    @property
    def pid(self) -> int:
        return self._process.pid if self._process else 0

    @property
    def identity(self) -> GuestIdentity:
        return self._identity

    async def start(self) -> GuestChannel:
        """Start QEMU; returns the channel to the guest, not connected yet."""
        directory = await self._make_directory(self._config.directory)
        token = secrets.token_hex(TOKEN_BYTES // 2)
        host_end, vmm_end = socket.socketpair()
        channel = GuestChannel(host_end, token.encode())
        self._attach(channel)
        with ExitStack() as stack:
            stack.enter_context(vmm_end)
            machine = self._open_files(stack, vmm_end.fileno(), token)
            await self._launch(self._spawn(machine))
        await asyncio.to_thread(record, directory, [os.getpid(), self.pid])
        return channel

    def _open_files(self, stack: ExitStack, port_fd: int, token: str) -> Machine:
        def opened(path: Path) -> int:
            fd = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
            stack.callback(os.close, fd)
            return fd

        cpuinfo = Path("/proc/cpuinfo").read_text()
        return Machine(
            name=str(self._directory),
            accelerator=self._config.accelerator,
            memory_mib=self._spec.memory_mib,
            vcpus=self._spec.vcpus,
            kernel_fd=opened(self._assets.kernel),
            initramfs_fd=opened(self._assets.initramfs),
            image_fd=opened(self._spec.image_path),
            drive_fd=opened(self._assets.agent_drive),
            port_fd=port_fd,
            firmware=str(self._assets.firmware or ""),
            token=token,
            extra_options=self._config.extra_kernel_options,
            tsc_khz=tsc_khz(cpuinfo),
        )

    async def _spawn(self, machine: Machine) -> asyncio.subprocess.Process:
        fds = (
            machine.kernel_fd, machine.initramfs_fd, machine.image_fd, machine.drive_fd,
            machine.port_fd,
        )  # fmt: skip
        # prlimit and setpriv are util-linux: limits, and death with the worker whatever kills it.
        confined = [
            "prlimit",
            "--core=0",
            "--fsize=0",
            "--nofile=256",
            "setpriv",
            "--pdeathsig=KILL",
        ]
        return await asyncio.create_subprocess_exec(
            *confined, *qemu_argv(self._config.program, machine),
            pass_fds=fds, cwd=self._directory, start_new_session=True,
            env={"PATH": os.environ.get("PATH", os.defpath), "LC_ALL": "C"},
            stdin=asyncio.subprocess.DEVNULL,
            stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.PIPE,
            **self._user.options(),  # type: ignore[arg-type]  # a TypedDict would have to list them all
        )  # fmt: skip


def _program_digest(program: str) -> str:
    path = shutil.which(program)
    return sha256_of(Path(path)) if path else ""


def _probe_spec(assets: GuestAssets, accelerator: Accelerator) -> GuestSpec:
    return probe_spec(assets, 15.0 if accelerator == "kvm" else 90.0)
