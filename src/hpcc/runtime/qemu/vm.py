"""One QEMU process: booted, restored from a snapshot, or a template that becomes a snapshot."""

from __future__ import annotations

import asyncio
import os
import secrets
import select
import signal
import socket
from collections.abc import Mapping, Sequence
from contextlib import ExitStack, suppress
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Final

from hpcc.config.settings import GUEST_OVERHEAD_MIB
from hpcc.ports import GuestIdentity, GuestSpec
from hpcc.runtime.assets.assets import GuestAssets
from hpcc.runtime.channel.channel import GuestChannel
from hpcc.runtime.host.cgroups import make_groups, remove_groups
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
from hpcc.runtime.qemu.jail import Jailing, QemuJail, jail_argv
from hpcc.runtime.qemu.qmp import Qmp
from hpcc.runtime.vm.snapshot_files import MAX_STATE_BYTES
from hpcc.runtime.vm.snapshot_store import MEMORY, STATE, Saved, Snapshot
from hpcc.runtime.vm.vm import Vm, wait_ready
from hpcc.runtime.vm.warm import TEMPLATE_NICE
from hpcc.wire.link import TOKEN_BYTES

PROGRAM: Final = "qemu-system-x86_64"
_JAIL: Final = "jail"
# Threads of QEMU beside those of its vCPUs; its pool for drives has up to 64.
_MAX_PIDS: Final = 96
_NUMBER_BYTES: Final = 16
_END_SECONDS: Final = 10.0


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
        jail: QemuJail | None,
    ) -> None:
        super().__init__()
        self._config, self._assets, self._spec, self._identity = config, assets, spec, identity
        self._user, self._snapshot = vmm_user(self._lease(VMM_NUMBERS)), snapshot
        self._jail, self._groups = jail, list[Path]()
        self._jailed_pid, self._jailed = 0, -1
        self._token = snapshot.token if snapshot else secrets.token_hex(TOKEN_BYTES // 2)

    @property
    def pid(self) -> int:
        return self._jailed_pid or (self._process.pid if self._process else 0)

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
                await self._run(self._open_files(stack, vmm_end.fileno(), None))
            else:
                files = _opened(stack, self._snapshot.memory), _opened(stack, self._snapshot.state)
                control = await self._launch_controlled(stack, vmm_end, files, is_template=False)
                await self._while_alive(_restore(control))
        await self._record(directory)
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
            # QEMU opens the file again through its descriptor. Only the template's file: what is
            # kept is a copy.
            if self._user.maps is not None:
                os.fchmod(memory, 0o640)  # the jail makes QEMU its owner
            elif self._user.uid is not None:
                os.fchown(memory, self._user.uid, self._user.uid)
            state = _opened(stack, saved.state, os.O_WRONLY | os.O_CREAT | os.O_EXCL)
            control = await self._launch_controlled(
                stack, vmm_end, (memory, state), is_template=True
            )
            vmm_end.close()
            await self._record(directory)
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
            await self._run(self._open_files(stack, vmm_end.fileno(), fds))
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
            has_mitigations=self._spec.has_mitigations,
            snapshot=fds,
        )

    async def _record(self, directory: Path) -> None:
        assert self._process is not None
        pids = [os.getpid(), self._process.pid, self.pid]
        await asyncio.to_thread(record, directory, pids, self._groups)

    async def _run(self, machine: QemuMachine) -> None:
        """Start QEMU, in its jail if this machine has one."""
        argv, files = qemu_argv(self._config.program, machine), _inherited(machine)
        is_template = machine.snapshot is not None and machine.snapshot.is_template
        if self._jail is None:
            command = ["setpriv", "--pdeathsig=KILL", *argv]
            await self._launch(self._spawn(command, files, self._user.options(), is_template))
            return
        reader, writer = await self._prepare_jail(is_template=is_template)
        try:
            jailing = Jailing(
                jail=self._jail, root=self._jail_root, argv=argv, user=self._user,
                guest_files=self._opened_by_name(machine), groups=self._groups, status_fd=writer,
            )  # fmt: skip
            command = jail_argv(jailing)
            await self._launch(self._spawn(command, (*files, writer), {}, is_template))
            os.close(writer)
            writer = -1
            self._jailed_pid = await self._while_alive(_number_from(reader))
            self._jailed = os.pidfd_open(self._jailed_pid)
        finally:
            for fd in (reader, writer):
                if fd >= 0:
                    os.close(fd)

    async def _prepare_jail(self, *, is_template: bool) -> tuple[int, int]:
        """Make the jail's directory and cgroups; returns the pipe that tells QEMU's number."""
        memory = self._spec.memory_mib * (2 if is_template else 1) + GUEST_OVERHEAD_MIB
        name = self._identity.guest_id
        if self._user.uid is not None:
            self._groups = await asyncio.to_thread(
                make_groups, name, memory_bytes=memory << 20, pids=_MAX_PIDS + self._spec.vcpus
            )
            await asyncio.to_thread(record, self._jail_root.parent, [os.getpid()], self._groups)
        await asyncio.to_thread(self._jail_root.mkdir, mode=0o700)
        return os.pipe()

    @property
    def _jail_root(self) -> Path:
        assert self._directory is not None
        return self._directory / _JAIL

    def _opened_by_name(self, machine: QemuMachine) -> list[tuple[str, Path, bool]]:
        """Return the files that QEMU opens by name, some of them by `/dev/fd`; see `Jailing`."""
        files = [
            (f"/dev/fd/{machine.kernel_fd}", self._assets.kernel, False),
            (f"/dev/fd/{machine.initramfs_fd}", self._assets.initramfs, False),
        ]
        if self._assets.firmware is not None:
            files.append((machine.firmware, self._assets.firmware, False))
        if machine.snapshot is not None:
            memory = Path(f"/proc/self/fd/{machine.snapshot.memory_fd}").readlink()
            place = f"/dev/fd/{machine.snapshot.memory_fd}"
            files.append((place, memory, machine.snapshot.is_template))
        return files

    async def _spawn(
        self,
        command: Sequence[str],
        fds: Sequence[int],
        options: Mapping[str, object],
        is_template: bool,  # noqa: FBT001 - a private call with names
    ) -> asyncio.subprocess.Process:
        # A template yields the CPU to guests that someone waits for.
        modest = ["nice", "-n", str(TEMPLATE_NICE)] if is_template else []
        file_bytes = MAX_STATE_BYTES if is_template else 0
        # prlimit and setpriv (util-linux) set limits and make QEMU die with the worker, whatever
        # ends that.
        limits = ["prlimit", "--core=0", f"--fsize={file_bytes}", "--nofile=256"]
        return await asyncio.create_subprocess_exec(
            *modest, *limits, *command,
            pass_fds=fds, cwd=self._directory, start_new_session=True,
            env={"PATH": os.environ.get("PATH", os.defpath), "LC_ALL": "C"},
            stdin=asyncio.subprocess.DEVNULL,
            stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.PIPE,
            **options,  # type: ignore[arg-type]  # a TypedDict would have to list them all
        )  # fmt: skip

    def _kill(self) -> None:
        """Kill QEMU and what waits for it, at once, however far its jail is."""
        if self._process is not None and self._process.returncode is None:
            with suppress(ProcessLookupError):
                os.killpg(self._process.pid, signal.SIGKILL)

    async def _finish(self) -> None:
        await super()._finish()
        if self._jailed >= 0:
            # `unshare` has ended. QEMU was killed with it, and may hold memory and uid for longer.
            await asyncio.to_thread(_wait_for_end, self._jailed)
            os.close(self._jailed)
            self._jailed = -1
        await asyncio.to_thread(remove_groups, self._groups)


def _opened(stack: ExitStack, path: Path, flags: int = os.O_RDONLY) -> int:
    fd = os.open(path, flags | os.O_CLOEXEC, 0o600)
    stack.callback(os.close, fd)
    return fd


def _inherited(machine: QemuMachine) -> tuple[int, ...]:
    fds: tuple[int, ...] = (
        machine.kernel_fd, machine.initramfs_fd, machine.image_fd, machine.drive_fd,
        machine.port_fd,
    )  # fmt: skip
    snapshot = machine.snapshot
    if snapshot is None:
        return fds
    return (*fds, snapshot.memory_fd, snapshot.state_fd, snapshot.control_fd)


def _wait_for_end(pidfd: int) -> None:
    poll = select.poll()
    poll.register(pidfd, select.POLLIN)
    poll.poll(_END_SECONDS * 1000)


async def _number_from(reader: int) -> int:
    """Return the number that a jailed QEMU has on the host; it tells it before it runs."""
    loop = asyncio.get_running_loop()
    told: asyncio.Future[None] = loop.create_future()

    def tell() -> None:
        loop.remove_reader(reader)
        told.set_result(None)

    loop.add_reader(reader, tell)
    try:
        await told
    finally:
        loop.remove_reader(reader)
    text = os.read(reader, _NUMBER_BYTES)
    if not text:
        raise ConnectionResetError("QEMU's jail could not be made")
    return int(text)


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
