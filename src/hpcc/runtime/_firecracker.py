"""Guests as Firecracker microVMs, each in a jail of its own: Linux with working KVM, as root."""

from __future__ import annotations

import asyncio
import errno
import os
import secrets
import shutil
import signal
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Final

from hpcc.core import HpccError, Isolation
from hpcc.ports import Clock, GuestIdentity, GuestSpec, Probe
from hpcc.runtime._assets import GuestAssets
from hpcc.runtime._channel import GuestChannel
from hpcc.runtime._firecracker_io import Api, connect_in_jail, connect_to_guest
from hpcc.runtime._firecracker_plan import (
    AGENT,
    API_SOCKET,
    CONFIGURATION_CALL,
    IMAGE,
    INITRAMFS,
    KERNEL,
    PROGRAM,
    START_CALL,
    VERSION_CALL,
    VSOCK_SOCKET,
    Jail,
    Microvm,
    boot_calls,
    cgroup_of,
    check_configuration,
    check_version,
    jailer_argv,
)
from hpcc.runtime._firecracker_tools import CGROUPS, FirecrackerTools, check_machine, has_cgroups
from hpcc.runtime._leftovers import record, remove_cgroup
from hpcc.runtime._tools import in_thread
from hpcc.runtime._users import vmm_user, warden_label
from hpcc.runtime._vm import Vm, VmGuest, booted, probe_spec
from hpcc.wire import TOKEN_BYTES, VSOCK_PORT

_RETRY_SECONDS: Final = 0.02
# The socket's name is there before somebody listens; a non-blocking connect may find it full.
_NOT_YET: Final = (FileNotFoundError, ConnectionRefusedError, BlockingIOError)


@dataclass(frozen=True, slots=True, kw_only=True)
class FirecrackerConfig:
    """How VMs are run. `directory` is for guests' jails, 0700, not mounted nodev or noexec."""

    tools: FirecrackerTools
    directory: Path
    # Diagnosis only: a serial port is one more thing that a guest can talk to.
    has_console: bool = False
    probe_seconds: float = 15.0
    # Added to the kernel's command line: tests only, to make a guest that never boots.
    extra_kernel_options: str = ""


class FirecrackerRuntime:
    """One jailed microVM for each guest."""

    isolation = Isolation.FIRECRACKER_KVM

    def __init__(self, config: FirecrackerConfig, assets: GuestAssets, clock: Clock) -> None:
        self._config, self._assets, self._clock = config, assets, clock
        self._count = 0

    async def probe(self) -> Probe:
        """Boot a guest from the agent drive alone, with its console on, to its agent's answer."""
        spec = probe_spec(self._assets, self._config.probe_seconds)
        try:
            await asyncio.to_thread(check_machine, self._config.directory)
            async with booted(
                partial(self._vm, spec, has_console=True), spec, self._clock, tries=1
            ):
                pass
        except HpccError as error:
            lines = str(error).splitlines() or [""]
            return Probe(
                is_usable=False,
                isolation=self.isolation,
                summary=lines[0],
                details=tuple(lines[1:]),
            )
        details = (
            () if has_cgroups() else ("no cgroup v2: the VMM's memory has no limit of its own",)
        )
        summary = f"a guest answered ({self.isolation}, Firecracker {self._config.tools.version})"
        return Probe(is_usable=True, isolation=self.isolation, summary=summary, details=details)

    @asynccontextmanager
    async def guest(self, spec: GuestSpec) -> AsyncIterator[VmGuest]:
        """Boot a guest, trying twice; see `hpcc.ports.Runtime.guest`."""
        new_vm = partial(self._vm, spec, has_console=self._config.has_console)
        async with booted(new_vm, spec, self._clock) as guest:
            yield guest

    def _vm(self, spec: GuestSpec, *, has_console: bool) -> Vm:
        self._count += 1
        tools = self._config.tools
        identity = GuestIdentity(
            guest_id=f"f-{secrets.token_hex(8)}",
            isolation=self.isolation,
            kernel_digest=self._assets.vmlinux_digest,
            vmm_digest=tools.firecracker_digest,
            agent_digest=self._assets.agent_digest,
            warden=warden_label(),
            vmm_version=f"{PROGRAM} {tools.version}",
            jailer_digest=tools.jailer_digest,
        )
        microvm = Microvm(
            memory_mib=spec.memory_mib,
            vcpus=spec.vcpus,
            token=secrets.token_hex(TOKEN_BYTES // 2),
            has_console=has_console,
            extra_options=self._config.extra_kernel_options,
        )
        files = {
            KERNEL: self._assets.vmlinux,
            INITRAMFS: self._assets.vsock_initramfs,
            IMAGE: spec.image_path,
            AGENT: self._assets.agent_drive,
        }
        uid = vmm_user(self._count).uid
        return _Microvm(
            self._config, identity, microvm, files, os.geteuid() if uid is None else uid
        )


class _Microvm(Vm):
    """One jailer, which becomes one Firecracker."""

    def __init__(
        self,
        config: FirecrackerConfig,
        identity: GuestIdentity,
        microvm: Microvm,
        files: dict[str, Path],
        uid: int,
    ) -> None:
        super().__init__()
        self._config, self._identity, self._microvm = config, identity, microvm
        self._files, self._uid = files, uid
        self._has_cgroup = has_cgroups()
        self._pid = 0

    @property
    def pid(self) -> int:
        return self._pid

    @property
    def identity(self) -> GuestIdentity:
        return self._identity

    async def start(self) -> GuestChannel:
        """Start the jailer, configure and boot; returns the channel, connected to the agent."""
        directory = await self._make_directory(self._config.directory)
        jail_id = self._identity.guest_id
        root = directory / PROGRAM / jail_id / "root"
        await in_thread(lambda: _fill(root, self._files))
        process = await self._launch(self._spawn(jail_id))
        cgroup = CGROUPS / cgroup_of(jail_id) if self._has_cgroup else None
        owners = [os.getpid(), process.pid]
        await asyncio.to_thread(record, directory, owners, cgroup)
        root_fd = os.open(root, os.O_PATH | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC)
        try:
            await self._while_alive(self._configure(root_fd))
            await asyncio.to_thread(record, directory, [*owners, self._pid], cgroup)
            return await self._while_alive(self._reach_agent(root_fd))
        finally:
            os.close(root_fd)

    async def _spawn(self, jail_id: str) -> asyncio.subprocess.Process:
        jail = Jail(
            jailer=str(self._config.tools.jailer),
            firecracker=str(self._config.tools.firecracker),
            jail_id=jail_id,
            base=str(self._directory),
            uid=self._uid,
            gid=self._uid,
            has_cgroup=self._has_cgroup,
            memory_mib=self._microvm.memory_mib,
        )
        return await asyncio.create_subprocess_exec(
            *jailer_argv(jail), cwd="/", start_new_session=True,
            env={"PATH": os.environ.get("PATH", os.defpath), "LC_ALL": "C"},
            stdin=asyncio.subprocess.DEVNULL,
            stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.PIPE,
        )  # fmt: skip

    async def _configure(self, root_fd: int) -> None:
        while True:
            try:
                sock, self._pid = connect_in_jail(root_fd, API_SOCKET, self._uid)
                break
            except _NOT_YET:
                await asyncio.sleep(_RETRY_SECONDS)
        api = Api(sock)
        try:
            check_version(await api.call(VERSION_CALL), self._config.tools.version)
            for call in boot_calls(self._microvm):
                await api.call(call)
            check_configuration(await api.call(CONFIGURATION_CALL))
            await api.call(START_CALL)
        finally:
            api.close()

    async def _reach_agent(self, root_fd: int) -> GuestChannel:
        while True:
            try:
                sock, _ = connect_in_jail(root_fd, VSOCK_SOCKET, self._uid)
            except _NOT_YET:
                await asyncio.sleep(_RETRY_SECONDS)
                continue
            try:
                await connect_to_guest(sock, VSOCK_PORT)
            except ConnectionError:
                # The agent does not listen yet.
                sock.close()
                await asyncio.sleep(_RETRY_SECONDS)
                continue
            except BaseException:
                sock.close()
                raise
            channel = GuestChannel(sock, self._microvm.token.encode())
            self._attach(channel)
            return channel

    def _kill(self) -> None:
        """End every process of the jail at once, whatever they have got to."""
        if self._process is not None and self._process.returncode is None:
            with suppress(ProcessLookupError):
                os.killpg(self._process.pid, signal.SIGKILL)

    async def _finish(self) -> None:
        await super()._finish()
        if self._has_cgroup:
            cgroup = CGROUPS / cgroup_of(self._identity.guest_id)
            await asyncio.to_thread(remove_cgroup, cgroup)


def _fill(root: Path, files: dict[str, Path]) -> None:
    """Put the VM's files into the jail: linked, or copied from another file system.

    They stay their owner's, who is not the VMM's user: it can read them and no more.
    """
    root.mkdir(parents=True, mode=0o700)
    for name, source in files.items():
        target = root / name
        try:
            target.hardlink_to(source.resolve(strict=True))
        except OSError as error:
            if error.errno not in (errno.EXDEV, errno.EPERM, errno.EMLINK):
                raise
            shutil.copyfile(source, target)
            target.chmod(0o444)
