"""One jailed Firecracker: booted, restored, or a template that becomes a snapshot."""

from __future__ import annotations

import asyncio
import errno
import os
import shutil
import signal
import socket
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from hpcc.ports import GuestIdentity
from hpcc.runtime.channel.channel import GuestChannel
from hpcc.runtime.firecracker.io import Api, connect_in_jail, connect_to_guest
from hpcc.runtime.firecracker.plan import (
    API_SOCKET,
    CONFIGURATION_CALL,
    LOAD_CALL,
    MEMORY,
    PROGRAM,
    RESUME_CALL,
    SAVE_CALLS,
    START_CALL,
    STATE,
    VERSION_CALL,
    VSOCK_SOCKET,
    ApiRequest,
    Jail,
    Microvm,
    boot_calls,
    cgroup_of,
    check_configuration,
    check_version,
    jailer_argv,
)
from hpcc.runtime.firecracker.tools import FirecrackerTools
from hpcc.runtime.host.cgroups import CGROUPS, counts_swap, has_cgroups
from hpcc.runtime.host.leftovers import record, remove_cgroup
from hpcc.runtime.host.threads import in_thread
from hpcc.runtime.host.users import VMM_NUMBERS, vmm_user
from hpcc.runtime.vm.snapshot_store import Saved
from hpcc.runtime.vm.vm import Vm, wait_ready
from hpcc.runtime.vm.warm import TEMPLATE_NICE
from hpcc.wire.exec_frames import VSOCK_PORT

_RETRY_SECONDS: Final = 0.02
# How long the first connection may be silent; doubled for each further one. The kernel of a
# restored guest silently drops connections that arrive before it notices the restore.
_FIRST_READY_SECONDS: Final = 0.5
# The socket's name exists before the VMM listens. A non-blocking connect may find the queue full.
_NOT_YET: Final = (FileNotFoundError, ConnectionRefusedError, BlockingIOError)


@dataclass(frozen=True, slots=True, kw_only=True)
class FirecrackerConfig:
    """How VMs are run.

    `directory` holds the guests' jails. Its mode is 0700, and it is not mounted nodev or noexec.
    """

    tools: FirecrackerTools
    directory: Path
    # For diagnosis only: a serial port is one more device that a guest can attack.
    has_console: bool = False
    probe_seconds: float = 15.0
    # Added to the kernel's command line. Only tests use it, to make a guest that never boots.
    extra_kernel_options: str = ""


class JailedVm(Vm):
    """One jailer, which becomes one Firecracker; see `Vm`, and `Template` for `save`."""

    def __init__(
        self,
        config: FirecrackerConfig,
        identity: GuestIdentity,
        microvm: Microvm,
        files: dict[str, Path],
    ) -> None:
        super().__init__()
        self._config, self._identity, self._microvm = config, identity, microvm
        uid = vmm_user(self._lease(VMM_NUMBERS)).uid
        self._files, self._uid = files, os.geteuid() if uid is None else uid
        self._has_cgroup = has_cgroups()
        self._pid = 0
        self._root: Path | None = None

    @property
    def pid(self) -> int:
        return self._pid

    @property
    def identity(self) -> GuestIdentity:
        return self._identity

    async def start(self) -> GuestChannel:
        """Start the jailer and boot or restore; returns the channel on a connection to the agent.

        See `Vm.start`.
        """
        calls = [LOAD_CALL] if MEMORY in self._files else boot_calls(self._microvm)
        begin = RESUME_CALL if MEMORY in self._files else START_CALL
        async with self._jailed(is_template=False) as root_fd:
            await self._while_alive(self._configure(root_fd, calls, begin))
            await self._record(self._pid)
            sock = await self._while_alive(self._reach_agent(root_fd))
        channel = GuestChannel(sock, self._microvm.token.encode())
        self._attach(channel)
        return channel

    async def save(self) -> Saved:
        """Boot, become a snapshot and end; see `Template.save`."""
        async with self._jailed(is_template=True) as root_fd:
            await self._while_alive(self._configure(root_fd, boot_calls(self._microvm), START_CALL))
            await self._record(self._pid)
            sock = await self._while_alive(self._reach_agent(root_fd))
            # Closed before the agent's state is saved. The agent then accepts the next connection.
            sock.close()
            await self._while_alive(self._call_all(root_fd, SAVE_CALLS))
        await self.hear_out()
        assert self._root is not None
        return Saved(
            memory=self._root / MEMORY, state=self._root / STATE, token=self._microvm.token
        )

    @asynccontextmanager
    async def _jailed(self, *, is_template: bool) -> AsyncIterator[int]:
        """Start the jailer; yields a descriptor of the jail's root directory."""
        directory = await self._make_directory(self._config.directory)
        jail_id = self._identity.guest_id
        self._root = root = directory / PROGRAM / jail_id / "root"
        await in_thread(lambda: _fill(root, self._files))
        await self._launch(self._spawn(jail_id, is_template=is_template))
        await self._record()
        root_fd = os.open(root, os.O_PATH | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC)
        try:
            yield root_fd
        finally:
            os.close(root_fd)

    async def _record(self, *vmm: int) -> None:
        assert self._directory is not None
        assert self._process is not None
        cgroups = [CGROUPS / cgroup_of(self._identity.guest_id)] if self._has_cgroup else []
        owners = [os.getpid(), self._process.pid, *vmm]
        await asyncio.to_thread(record, self._directory, owners, cgroups)

    async def _spawn(self, jail_id: str, *, is_template: bool) -> asyncio.subprocess.Process:
        swap = self._has_cgroup and await asyncio.to_thread(counts_swap)
        jail = Jail(
            jailer=str(self._config.tools.jailer),
            firecracker=str(self._config.tools.firecracker),
            jail_id=jail_id,
            base=str(self._directory),
            uid=self._uid,
            gid=self._uid,
            has_cgroup=self._has_cgroup,
            counts_swap=swap,
            memory_mib=self._microvm.memory_mib,
            is_template=is_template,
        )
        modest = ["nice", "-n", str(TEMPLATE_NICE)] if is_template else []
        return await asyncio.create_subprocess_exec(
            *modest, *jailer_argv(jail), cwd="/", start_new_session=True,
            env={"PATH": os.environ.get("PATH", os.defpath), "LC_ALL": "C"},
            stdin=asyncio.subprocess.DEVNULL,
            stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.PIPE,
        )  # fmt: skip

    async def _configure(
        self, root_fd: int, calls: Sequence[ApiRequest], begin: ApiRequest
    ) -> None:
        while True:
            try:
                sock, self._pid = connect_in_jail(root_fd, API_SOCKET, self._uid)
                break
            except _NOT_YET:
                await asyncio.sleep(_RETRY_SECONDS)
        api = Api(sock)
        try:
            check_version(await api.call(VERSION_CALL), self._config.tools.version)
            for call in calls:
                await api.call(call)
            check_configuration(await api.call(CONFIGURATION_CALL))
            await api.call(begin)
        finally:
            api.close()

    async def _call_all(self, root_fd: int, calls: Sequence[ApiRequest]) -> None:
        api = Api(connect_in_jail(root_fd, API_SOCKET, self._uid)[0])
        try:
            for call in calls:
                await api.call(call)
        finally:
            api.close()

    async def _reach_agent(self, root_fd: int) -> socket.socket:
        """Return a connection on which the agent has sent READY."""
        patience = _FIRST_READY_SECONDS
        while True:
            try:
                sock, _ = connect_in_jail(root_fd, VSOCK_SOCKET, self._uid)
            except _NOT_YET:
                await asyncio.sleep(_RETRY_SECONDS)
                continue
            try:
                await connect_to_guest(sock, VSOCK_PORT)
                async with asyncio.timeout(patience):
                    await wait_ready(sock)
            except TimeoutError:
                sock.close()
                patience *= 2
                continue
            except ConnectionError:
                # The agent does not listen yet, or a restored guest has just closed its old
                # connections, as it must.
                sock.close()
                await asyncio.sleep(_RETRY_SECONDS)
                continue
            except BaseException:
                sock.close()
                raise
            return sock

    def _kill(self) -> None:
        """Kill every process of the jail at once, whatever state they are in."""
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

    They keep their owner, who is not the VMM's user. So the VMM can read and not write them.
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
