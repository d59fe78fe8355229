"""Guests as Firecracker microVMs, each in a jail of its own: Linux with working KVM, as root."""

from __future__ import annotations

import asyncio
import errno
import os
import secrets
import shutil
import signal
import socket
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Final

from hpcc.core import HpccError, Isolation
from hpcc.ports import Clock, GuestIdentity, GuestSpec, Probe
from hpcc.runtime._assets import GuestAssets
from hpcc.runtime._channel import GuestChannel
from hpcc.runtime._firecracker_io import (
    Api,
    connect_in_jail,
    connect_to_guest,
    request_bytes,
)
from hpcc.runtime._firecracker_plan import (
    AGENT,
    API_SOCKET,
    CONFIGURATION_CALL,
    IMAGE,
    INITRAMFS,
    KERNEL,
    LOAD_CALL,
    MEMORY,
    PROGRAM,
    RESUME_CALL,
    SAVE_CALLS,
    START_CALL,
    STATE,
    VERSION_CALL,
    VSOCK_SOCKET,
    Call,
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
from hpcc.runtime._snapshot_store import Saved, Snapshot, snapshot_key
from hpcc.runtime._tools import in_thread, sha256_of
from hpcc.runtime._users import vmm_user, warden_label
from hpcc.runtime._vm import Vm, VmGuest, booted, probe_spec, wait_ready
from hpcc.runtime._warm import TEMPLATE_NICE, Template, WarmStart
from hpcc.wire import TOKEN_BYTES, VSOCK_PORT

_RETRY_SECONDS: Final = 0.02
_BOOT_TRIES: Final = 2
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
    """One jailed microVM for each guest. With `warm`, guests are restored from snapshots."""

    isolation = Isolation.FIRECRACKER_KVM

    def __init__(
        self,
        config: FirecrackerConfig,
        assets: GuestAssets,
        clock: Clock,
        warm: WarmStart | None = None,
    ) -> None:
        self._config, self._assets, self._clock = config, assets, clock
        self._warm = warm
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
        return Probe(
            is_usable=True,
            isolation=self.isolation,
            summary=summary,
            details=details,
            no_warm_start="",
        )

    @asynccontextmanager
    async def guest(self, spec: GuestSpec) -> AsyncIterator[VmGuest]:
        """Boot a guest, trying twice; see `hpcc.ports.Runtime.guest`."""
        if self._warm is not None:
            async with self._warm.guest(self, spec, tries=_BOOT_TRIES) as guest:
                yield guest
            return
        async with booted(partial(self.cold, spec), spec, self._clock, tries=_BOOT_TRIES) as guest:
            yield guest

    def key(self, spec: GuestSpec) -> str:
        """Name everything that a snapshot of this guest depends on; reads files."""
        microvm = replace(self._microvm(spec, has_console=self._config.has_console), token="")
        tools = self._config.tools
        return snapshot_key(
            spec,
            self._assets.vmlinux_digest,
            sha256_of(self._assets.vsock_initramfs),
            self._assets.agent_digest,
            tools.version,
            tools.firecracker_digest,
            tools.jailer_digest,
            *(request_bytes(call).decode() for call in boot_calls(microvm)),
        )

    def cold(self, spec: GuestSpec) -> Vm:
        """Return a guest to boot."""
        return self._vm(spec, has_console=self._config.has_console)

    def restored(self, spec: GuestSpec, snapshot: Snapshot) -> Vm:
        """Return a guest to restore."""
        return self._vm(spec, has_console=self._config.has_console, snapshot=snapshot)

    def template(self, spec: GuestSpec) -> Template:
        """Return a guest that becomes a snapshot."""
        return self._vm(spec, has_console=self._config.has_console)

    def _microvm(self, spec: GuestSpec, *, has_console: bool) -> Microvm:
        return Microvm(
            memory_mib=spec.memory_mib,
            vcpus=spec.vcpus,
            token=secrets.token_hex(TOKEN_BYTES // 2),
            has_console=has_console,
            extra_options=self._config.extra_kernel_options,
        )

    def _vm(
        self, spec: GuestSpec, *, has_console: bool, snapshot: Snapshot | None = None
    ) -> _Microvm:
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
            snapshot_digest=snapshot.digest if snapshot else "",
        )
        microvm = self._microvm(spec, has_console=has_console)
        files = {
            KERNEL: self._assets.vmlinux,
            INITRAMFS: self._assets.vsock_initramfs,
            IMAGE: spec.image_path,
            AGENT: self._assets.agent_drive,
        }
        if snapshot is not None:
            microvm = replace(microvm, token=snapshot.token)
            files |= {MEMORY: snapshot.memory, STATE: snapshot.state}
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
        self._root: Path | None = None

    @property
    def pid(self) -> int:
        return self._pid

    @property
    def identity(self) -> GuestIdentity:
        return self._identity

    async def start(self) -> GuestChannel:
        """Start the jailer, boot or restore; returns the channel, connected to the agent."""
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
        """Become a snapshot; see `Template`."""
        async with self._jailed(is_template=True) as root_fd:
            await self._while_alive(self._configure(root_fd, boot_calls(self._microvm), START_CALL))
            await self._record(self._pid)
            sock = await self._while_alive(self._reach_agent(root_fd))
            # Cut before the agent's state is written; it takes the next connection.
            sock.close()
            await self._while_alive(self._call_all(root_fd, SAVE_CALLS))
        await self.hear_out()
        assert self._root is not None
        return Saved(
            memory=self._root / MEMORY, state=self._root / STATE, token=self._microvm.token
        )

    @asynccontextmanager
    async def _jailed(self, *, is_template: bool) -> AsyncIterator[int]:
        """Start the jailer; yields a descriptor of the jail's root."""
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
        cgroup = CGROUPS / cgroup_of(self._identity.guest_id) if self._has_cgroup else None
        owners = [os.getpid(), self._process.pid, *vmm]
        await asyncio.to_thread(record, self._directory, owners, cgroup)

    async def _spawn(self, jail_id: str, *, is_template: bool) -> asyncio.subprocess.Process:
        jail = Jail(
            jailer=str(self._config.tools.jailer),
            firecracker=str(self._config.tools.firecracker),
            jail_id=jail_id,
            base=str(self._directory),
            uid=self._uid,
            gid=self._uid,
            has_cgroup=self._has_cgroup,
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

    async def _configure(self, root_fd: int, calls: Sequence[Call], begin: Call) -> None:
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

    async def _call_all(self, root_fd: int, calls: Sequence[Call]) -> None:
        api = Api(connect_in_jail(root_fd, API_SOCKET, self._uid)[0])
        try:
            for call in calls:
                await api.call(call)
        finally:
            api.close()

    async def _reach_agent(self, root_fd: int) -> socket.socket:
        """Return a connection to the agent, which has said READY on it."""
        while True:
            try:
                sock, _ = connect_in_jail(root_fd, VSOCK_SOCKET, self._uid)
            except _NOT_YET:
                await asyncio.sleep(_RETRY_SECONDS)
                continue
            try:
                await connect_to_guest(sock, VSOCK_PORT)
                await wait_ready(sock)
            except ConnectionError:
                # The agent does not listen yet; or a restored guest has just cut, as it must, the
                # connections that it had.
                sock.close()
                await asyncio.sleep(_RETRY_SECONDS)
                continue
            except BaseException:
                sock.close()
                raise
            return sock

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
