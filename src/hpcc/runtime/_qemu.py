"""Guests as QEMU microVMs, under KVM or emulated (TCG)."""

from __future__ import annotations

import asyncio
import os
import re
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
from hpcc.runtime._qemu_argv import (
    STATE_URI,
    Accelerator,
    Machine,
    SnapshotFds,
    qemu_argv,
    tsc_khz,
)
from hpcc.runtime._qmp import Qmp
from hpcc.runtime._snapshot_files import MAX_STATE_BYTES
from hpcc.runtime._snapshot_store import MEMORY, STATE, Saved, Snapshot, snapshot_key
from hpcc.runtime._tools import ToolError, run_tool, sha256_of
from hpcc.runtime._users import vmm_user, warden_label
from hpcc.runtime._vm import Vm, VmGuest, booted, probe_spec, wait_ready
from hpcc.runtime._warm import TEMPLATE_NICE, Template, WarmStart
from hpcc.wire import TOKEN_BYTES

PROGRAM: Final = "qemu-system-x86_64"
# The first with memory files that are opened for reading and mapped to be written.
_SNAPSHOT_VERSION: Final = (8, 2)
_VERSION: Final = re.compile(r"version (\d{1,4})\.(\d{1,4})")


@dataclass(frozen=True, slots=True, kw_only=True)
class QemuConfig:
    """How VMs are run. `directory` is for guests' working directories, 0700."""

    accelerator: Accelerator
    directory: Path
    program: str = PROGRAM
    # Added to the kernel's command line: tests only, to make a guest that never boots.
    extra_kernel_options: str = ""


class QemuRuntime:
    """One VM for each guest; the VMM confined as far as its starter may.

    With `warm`, guests are restored from snapshots where this QEMU can.
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
        self._count = 0
        self._vmm_digest = ""
        self._no_snapshots: str | None = None

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
            is_usable=True,
            isolation=self.isolation,
            summary=f"a guest answered ({self.isolation})",
            no_warm_start=await why_no_snapshots(self._config.program),
        )

    @asynccontextmanager
    async def guest(self, spec: GuestSpec) -> AsyncIterator[VmGuest]:
        """Boot a guest, trying twice; see `hpcc.ports.Runtime.guest`."""
        if self._warm is None or await self._why_no_snapshots():
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
        if not self._vmm_digest:
            self._vmm_digest = await asyncio.to_thread(_program_digest, self._config.program)

    async def _why_no_snapshots(self) -> str:
        if self._no_snapshots is None:
            self._no_snapshots = await why_no_snapshots(self._config.program)
        return self._no_snapshots

    def key(self, spec: GuestSpec) -> str:
        """Name everything that a snapshot of this guest depends on; reads files."""
        machine = Machine(
            name="", accelerator=self._config.accelerator, memory_mib=spec.memory_mib,
            vcpus=spec.vcpus, kernel_fd=0, initramfs_fd=0, image_fd=0, drive_fd=0, port_fd=0,
            firmware=str(self._assets.firmware or ""), token="",
            tsc_khz=_tsc_khz(), extra_options=self._config.extra_kernel_options,
        )  # fmt: skip
        firmware = sha256_of(self._assets.firmware) if self._assets.firmware else ""
        return snapshot_key(
            spec,
            self._assets.kernel_digest,
            self._assets.initramfs_digest,
            self._assets.agent_digest,
            self._vmm_digest,
            firmware,
            *qemu_argv(self._config.program, machine),
        )

    def cold(self, spec: GuestSpec) -> Vm:
        """Return a guest to boot."""
        return self._vm(spec)

    def restored(self, spec: GuestSpec, snapshot: Snapshot) -> Vm:
        """Return a guest to restore."""
        return self._vm(spec, snapshot)

    def template(self, spec: GuestSpec) -> Template:
        """Return a guest that becomes a snapshot."""
        return self._vm(spec)

    def _vm(self, spec: GuestSpec, snapshot: Snapshot | None = None) -> _QemuVm:
        self._count += 1
        identity = GuestIdentity(
            guest_id=f"q-{secrets.token_hex(8)}",
            isolation=self.isolation,
            kernel_digest=self._assets.kernel_digest,
            vmm_digest=self._vmm_digest,
            agent_digest=self._assets.agent_digest,
            warden=warden_label(),
            snapshot_digest=snapshot.digest if snapshot else "",
        )
        return _QemuVm(self._config, self._assets, spec, identity, self._count, snapshot)


class _QemuVm(Vm):
    """One QEMU process."""

    def __init__(
        self,
        config: QemuConfig,
        assets: GuestAssets,
        spec: GuestSpec,
        identity: GuestIdentity,
        number: int,
        snapshot: Snapshot | None,
    ) -> None:
        super().__init__()
        self._config, self._assets, self._spec, self._identity = config, assets, spec, identity
        self._user, self._snapshot = vmm_user(number), snapshot
        self._token = snapshot.token if snapshot else secrets.token_hex(TOKEN_BYTES // 2)

    @property
    def pid(self) -> int:
        return self._process.pid if self._process else 0

    @property
    def identity(self) -> GuestIdentity:
        return self._identity

    async def start(self) -> GuestChannel:
        """Start QEMU, or restore; returns the channel to the guest, not connected yet."""
        directory = await self._make_directory(self._config.directory)
        host_end, vmm_end = socket.socketpair()
        channel = GuestChannel(host_end, self._token.encode())
        self._attach(channel)
        with ExitStack() as stack:
            stack.enter_context(vmm_end)
            if self._snapshot is None:
                await self._launch(self._spawn(self._open_files(stack, vmm_end.fileno(), None)))
            else:
                files = _opened(stack, self._snapshot.memory), _opened(stack, self._snapshot.state)
                control = await self._launch_controlled(stack, vmm_end, files, is_template=False)
                await self._while_alive(_restore(control))
        await asyncio.to_thread(record, directory, [os.getpid(), self.pid])
        return channel

    async def save(self) -> Saved:
        """Become a snapshot; see `Template`."""
        directory = await self._make_directory(self._config.directory)
        saved = Saved(memory=directory / MEMORY, state=directory / STATE, token=self._token)
        host_end, vmm_end = socket.socketpair()
        host_end.settimeout(0)
        with ExitStack() as stack:
            stack.enter_context(host_end)
            stack.enter_context(vmm_end)
            memory = _opened(stack, saved.memory, os.O_RDWR | os.O_CREAT | os.O_EXCL)
            os.ftruncate(memory, self._spec.memory_mib << 20)
            if self._user.uid is not None:
                # QEMU opens it anew by its number. Only the template's: what is kept is a copy.
                os.fchown(memory, self._user.uid, self._user.uid)
            state = _opened(stack, saved.state, os.O_WRONLY | os.O_CREAT | os.O_EXCL)
            control = await self._launch_controlled(
                stack, vmm_end, (memory, state), is_template=True
            )
            vmm_end.close()
            await asyncio.to_thread(record, directory, [os.getpid(), self.pid])
            await self._while_alive(wait_ready(host_end))
            await self._while_alive(_save(control))
        await self.hear_out()
        return saved

    async def _launch_controlled(
        self, stack: ExitStack, vmm_end: socket.socket, files: tuple[int, int], *, is_template: bool
    ) -> Qmp:
        """Start QEMU with a control channel and the files of a snapshot: memory, state."""
        ours, theirs = socket.socketpair()
        control = Qmp(ours)
        stack.callback(control.close)
        with theirs:
            fds = SnapshotFds(
                memory_fd=files[0],
                state_fd=files[1],
                control_fd=theirs.fileno(),
                is_template=is_template,
            )
            await self._launch(self._spawn(self._open_files(stack, vmm_end.fileno(), fds)))
        return control

    def _open_files(self, stack: ExitStack, port_fd: int, fds: SnapshotFds | None) -> Machine:
        return Machine(
            name=str(self._directory),
            accelerator=self._config.accelerator,
            memory_mib=self._spec.memory_mib,
            vcpus=self._spec.vcpus,
            kernel_fd=_opened(stack, self._assets.kernel),
            initramfs_fd=_opened(stack, self._assets.initramfs),
            image_fd=_opened(stack, self._spec.image_path),
            drive_fd=_opened(stack, self._assets.agent_drive),
            port_fd=port_fd,
            firmware=str(self._assets.firmware or ""),
            token=self._token,
            extra_options=self._config.extra_kernel_options,
            tsc_khz=_tsc_khz(),
            snapshot=fds,
        )

    async def _spawn(self, machine: Machine) -> asyncio.subprocess.Process:
        fds: tuple[int, ...] = (
            machine.kernel_fd, machine.initramfs_fd, machine.image_fd, machine.drive_fd,
            machine.port_fd,
        )  # fmt: skip
        snapshot, file_bytes = machine.snapshot, 0
        if snapshot is not None:
            fds = (*fds, snapshot.memory_fd, snapshot.state_fd, snapshot.control_fd)
            file_bytes = MAX_STATE_BYTES if snapshot.is_template else 0
        # A template gives way to the guests that are wanted.
        modest = ["nice", "-n", str(TEMPLATE_NICE)] if file_bytes else []
        # prlimit and setpriv are util-linux: limits, and death with the worker whatever kills it.
        confined = [
            "prlimit",
            "--core=0",
            f"--fsize={file_bytes}",
            "--nofile=256",
            "setpriv",
            "--pdeathsig=KILL",
        ]
        return await asyncio.create_subprocess_exec(
            *modest, *confined, *qemu_argv(self._config.program, machine),
            pass_fds=fds, cwd=self._directory, start_new_session=True,
            env={"PATH": os.environ.get("PATH", os.defpath), "LC_ALL": "C"},
            stdin=asyncio.subprocess.DEVNULL,
            stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.PIPE,
            **self._user.options(),  # type: ignore[arg-type]  # a TypedDict would have to list them all
        )  # fmt: skip


def _opened(stack: ExitStack, path: Path, flags: int = os.O_RDONLY) -> int:
    fd = os.open(path, flags | os.O_CLOEXEC, 0o600)
    stack.callback(os.close, fd)
    return fd


async def _restore(control: Qmp) -> None:
    await control.prepare()
    await control.call("migrate-incoming", {"uri": STATE_URI})
    await control.finish_migration()
    await control.call("cont")


async def _save(control: Qmp) -> None:
    await control.prepare()
    await control.call("stop")
    await control.call("migrate", {"uri": STATE_URI})
    await control.finish_migration()


async def why_no_snapshots(program: str) -> str:
    """Say why this QEMU cannot restore guests as `hpcc` does; "" if it can."""
    try:
        text = await run_tool(program, "--version")
    except ToolError as error:
        return str(error)
    found = _VERSION.search(text)
    if found is None or (int(found[1]), int(found[2])) < _SNAPSHOT_VERSION:
        wanted = ".".join(str(n) for n in _SNAPSHOT_VERSION)
        return f"snapshots need QEMU {wanted} or newer, this is {text[:80].splitlines()[0]!r}"
    return ""


def _tsc_khz() -> int:
    return tsc_khz(Path("/proc/cpuinfo").read_text())


def _program_digest(program: str) -> str:
    path = shutil.which(program)
    return sha256_of(Path(path)) if path else ""


def _probe_spec(assets: GuestAssets, accelerator: Accelerator) -> GuestSpec:
    return probe_spec(assets, 15.0 if accelerator == "kvm" else 90.0)
