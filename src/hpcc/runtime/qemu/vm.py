"""One QEMU process: booted, restored from a snapshot, or a template that becomes a snapshot."""

from __future__ import annotations

import asyncio
import os
import secrets
import socket
from contextlib import ExitStack
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Final

from hpcc.ports import GuestIdentity, GuestSpec
from hpcc.runtime.assets.assets import GuestAssets
from hpcc.runtime.channel.channel import GuestChannel
from hpcc.runtime.host.leftovers import record
from hpcc.runtime.host.users import VMM_NUMBERS, vmm_user
from hpcc.runtime.qemu.argv import (
    STATE_URI,
    Accelerator,
    QemuMachine,
    SnapshotFds,
    qemu_argv,
    tsc_khz,
)
from hpcc.runtime.qemu.qmp import Qmp
from hpcc.runtime.vm.snapshot_files import MAX_STATE_BYTES
from hpcc.runtime.vm.snapshot_store import MEMORY, STATE, Saved, Snapshot
from hpcc.runtime.vm.vm import Vm, wait_ready
from hpcc.runtime.vm.warm import TEMPLATE_NICE
from hpcc.wire.link import TOKEN_BYTES

PROGRAM: Final = "qemu-system-x86_64"


@dataclass(frozen=True, slots=True, kw_only=True)
class QemuConfig:
    """How VMs are run. `directory` holds the guests' working directories; its mode is 0700."""

    accelerator: Accelerator
    directory: Path
    program: str = PROGRAM
    # Added to the kernel's command line. Only tests use it, to make a guest that never boots.
    extra_kernel_options: str = ""


class QemuVm(Vm):
    """One QEMU process; see `Vm` for its life and `Template` for `save`."""

    def __init__(
        self,
        config: QemuConfig,
        assets: GuestAssets,
        spec: GuestSpec,
        identity: GuestIdentity,
        snapshot: Snapshot | None,
    ) -> None:
        super().__init__()
        self._config, self._assets, self._spec, self._identity = config, assets, spec, identity
        self._user, self._snapshot = vmm_user(self._lease(VMM_NUMBERS)), snapshot
        self._token = snapshot.token if snapshot else secrets.token_hex(TOKEN_BYTES // 2)

    @property
    def pid(self) -> int:
        return self._process.pid if self._process else 0

    @property
    def identity(self) -> GuestIdentity:
        return self._identity

    async def start(self) -> GuestChannel:
        """Start QEMU and boot or restore; returns the channel to the guest, not connected yet."""
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
        """Boot, become a snapshot and end; see `Template.save`."""
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
                # QEMU opens the file again through its descriptor. Only the template's file: what
                # is kept is a copy.
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
        """Start QEMU with a control channel and a snapshot's files (memory, state)."""
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

    def _open_files(self, stack: ExitStack, port_fd: int, fds: SnapshotFds | None) -> QemuMachine:
        return QemuMachine(
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
            tsc_khz=host_tsc_khz(),
            snapshot=fds,
        )

    async def _spawn(self, machine: QemuMachine) -> asyncio.subprocess.Process:
        fds: tuple[int, ...] = (
            machine.kernel_fd, machine.initramfs_fd, machine.image_fd, machine.drive_fd,
            machine.port_fd,
        )  # fmt: skip
        snapshot, file_bytes = machine.snapshot, 0
        if snapshot is not None:
            fds = (*fds, snapshot.memory_fd, snapshot.state_fd, snapshot.control_fd)
            file_bytes = MAX_STATE_BYTES if snapshot.is_template else 0
        # A template yields the CPU to guests that someone waits for.
        modest = ["nice", "-n", str(TEMPLATE_NICE)] if file_bytes else []
        # prlimit and setpriv (util-linux) set limits and make QEMU die with the worker, whatever
        # ends that.
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


@cache
def host_tsc_khz() -> int:
    """Return this machine's clock rate in kHz; 0 if /proc/cpuinfo does not state it.

    It is read once. On a processor that changes its rate a snapshot would otherwise never be found.
    """
    return tsc_khz(Path("/proc/cpuinfo").read_text())
