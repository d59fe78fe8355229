"""Guests as containers of containerd and runc, on the host's own kernel.

This boundary is weaker than a virtual machine, and its label says so. The parts of a guest are the
same: the image and the agent's drive, read-only, and the agent, which sandboxes every compile.
"""

from __future__ import annotations

import asyncio
import os
import secrets
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Final

from hpcc.core import InfrastructureError, Isolation
from hpcc.ports import Clock, GuestBootError, GuestIdentity, GuestSpec, Probe
from hpcc.runtime.assets.assets import GuestAssets, probe_spec
from hpcc.runtime.channel.channel import GuestChannel
from hpcc.runtime.containerd.client import (
    Containerd,
    ContainerdError,
    StdioPaths,
    runc_options,
    unix_connector,
)
from hpcc.runtime.containerd.container_vm import ContainerVm, whole
from hpcc.runtime.host.leftovers import is_owner_alive, owner_of
from hpcc.runtime.host.machine_leases import MachineLeases, are_uids_used
from hpcc.runtime.host.threads import in_thread
from hpcc.runtime.host.users import warden_label
from hpcc.runtime.runc.host import (
    AgentSocket,
    GuestPlaces,
    PidHandle,
    delegate,
    groups_of_container,
    remove_groups,
    rootfs,
)
from hpcc.runtime.runc.spec import RANGES, UIDS, ContainerPlan, uid_range
from hpcc.runtime.runc.tools import RuncConfig, RuncTools, find_runc
from hpcc.runtime.vm.vm import SessionChannel, Vm, VmGuest, booted
from hpcc.wire.link import TOKEN_BYTES

_RUNTIME: Final = "io.containerd.runc.v2"
_AGENT: Final = "agent"
_OWNER: Final = "hpcc.owner"
_PLACE: Final = "hpcc.pid-namespace"
_PROBE_SECONDS: Final = 30.0
_LOG_BYTES: Final = 64 << 10
_RANGE_NUMBERS: Final = MachineLeases(
    RANGES,
    Path("/run/hpcc/uid-ranges"),
    lambda number: are_uids_used(uid_range(number), UIDS),
    # Workers that see no common directory should still differ.
    first=os.getpid() % RANGES,
)


class RuncRuntime:
    """One container for each guest."""

    isolation = Isolation.PROCESS_RUNC

    def __init__(self, config: RuncConfig, assets: GuestAssets, clock: Clock) -> None:
        self._config, self._assets, self._clock = config, assets, clock
        self._tools: RuncTools | None = None
        self._ways = _Ways(config.by_loop)

    async def probe(self) -> Probe:
        """Start a container from the agent's drive only, until its agent answers.

        See `hpcc.ports.Runtime.probe`.
        """
        try:
            tools = await self._found()
        except InfrastructureError as error:
            problem, _, remedy = str(error).partition("; ")
            return Probe(is_usable=False, isolation=self.isolation, summary=problem, remedy=remedy)
        try:
            async with self._boot(probe_spec(self._assets, _PROBE_SECONDS), tries=1):
                pass
        except GuestBootError as error:
            lines = str(error).splitlines() or [""]
            return Probe(
                is_usable=False, isolation=self.isolation, summary=lines[0],
                details=tuple(lines[1:]),
                remedy="see containerd's log (journalctl -u containerd) and docs/operate.md",
            )  # fmt: skip
        return Probe(
            is_usable=True,
            isolation=self.isolation,
            summary=f"a guest answered ({self.isolation})",
            details=(tools.version, "the host's own kernel: weaker than a virtual machine"),
        )

    async def sweep(self) -> int:
        """Remove the containers of workers that are gone; returns how many were removed.

        A container that cannot be removed now is left to the next sweep.

        Raises:
            ContainerdError: containerd does not answer.
        """
        count = 0
        place = await asyncio.to_thread(_pid_namespace)
        client = Containerd(unix_connector(self._config.socket))
        try:
            for container in await client.containers():
                labels = container.labels
                # A worker in another PID namespace has other process numbers, and sweeps its own
                # containers.
                if labels.get(_PLACE) != place or is_owner_alive(labels.get(_OWNER, "")):
                    continue
                with suppress(ContainerdError):
                    await client.remove(container.container_id, (_AGENT,))
                    count += 1
                await in_thread(partial(remove_groups, container.container_id))
        finally:
            client.close()
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
            tools = await self._found()
        except InfrastructureError as error:
            raise GuestBootError(str(error)) from error
        async with booted(
            lambda: self._container(spec, tools), spec, self._clock, tries=tries
        ) as guest:
            yield guest

    async def _found(self) -> RuncTools:
        if self._tools is None:
            self._tools = await find_runc(self._config)
        return self._tools

    def _container(self, spec: GuestSpec, tools: RuncTools) -> Vm:
        identity = GuestIdentity(
            guest_id=f"c-{secrets.token_hex(8)}",
            isolation=self.isolation,
            kernel_digest="",  # the host's
            vmm_digest=tools.runc_digest,
            vmm_version=tools.version,
            jailer_digest=tools.containerd_digest,
            agent_digest=self._assets.agent_digest,
            warden=warden_label(),
        )
        return _Container(self._config, self._assets, spec, identity, tools, self._ways)


@dataclass(slots=True)
class _Ways:
    """Whether images are mounted through loop devices, as before Linux 6.12; None: unknown."""

    by_loop: bool | None


class _Container(ContainerVm):
    """One container: a first process that keeps it alive, and the agent beside that process."""

    def __init__(
        self,
        config: RuncConfig,
        assets: GuestAssets,
        spec: GuestSpec,
        identity: GuestIdentity,
        tools: RuncTools,
        ways: _Ways,
    ) -> None:
        super().__init__(Containerd(unix_connector(config.socket)), identity, (_AGENT,))
        self._config, self._assets, self._spec = config, assets, spec
        self._tools, self._ways = tools, ways
        self._first_uid = uid_range(self._lease(_RANGE_NUMBERS))
        self._first: PidHandle | None = None
        self._log: asyncio.ReadTransport | None = None

    @property
    def pid(self) -> int:
        return self._first.pid if self._first else 0

    async def _start(self) -> SessionChannel:
        token = secrets.token_hex(TOKEN_BYTES // 2)
        plan, places = await self._run_container()
        name = self.name
        listener = AgentSocket(places, self._first_uid)
        try:
            await self._read_log(places.log)
            agent, log = plan.agent(token), str(places.log)
            stdio = StdioPaths(stdout=log, stderr=log)
            await whole(self._client.exec(name, _AGENT, agent, stdio))
            await whole(self._client.start(name, _AGENT))
            connection = await self._while_alive(listener.accept())
        finally:
            listener.close()
        channel = GuestChannel(connection, token.encode())
        self._attach(channel)
        return channel

    async def _run_container(self) -> tuple[ContainerPlan, GuestPlaces]:
        """Create the container and start its first process, which is watched from then on."""
        name = self.name
        places = GuestPlaces(await self._make_directory(self._config.directory))
        await in_thread(places.make)
        plan = ContainerPlan(
            container_id=name,
            first_uid=self._first_uid,
            memory_mib=self._spec.memory_mib,
            vcpus=self._spec.vcpus,
            link=places.link,
        )
        await self._client.ensure_namespace()
        self._is_created = True
        labels = {_OWNER: owner_of(os.getpid()), _PLACE: await in_thread(_pid_namespace)}
        await whole(self._client.create_container(name, _RUNTIME, plan.spec, labels))
        pid = await self._create_task(places)
        self._first = PidHandle(pid)
        await in_thread(lambda: delegate(groups_of_container(pid, name), self._first_uid))
        self._watch_container()
        await whole(self._client.start(name))
        return plan, places

    async def _create_task(self, places: GuestPlaces) -> int:
        """Mount the root and create the first process: from files, or else from loop devices."""
        failure: ContainerdError | None = None
        for by_loop in (False, True) if self._ways.by_loop is None else (self._ways.by_loop,):
            image, drive = self._spec.image_path, self._assets.agent_drive
            mounts = await in_thread(partial(rootfs, places, image, drive, by_loop=by_loop))
            try:
                name, options = self._identity.guest_id, runc_options(self._tools.runc)
                pid = await whole(self._client.create_task(name, mounts, options))
            except ContainerdError as error:
                failure = failure or error
                continue
            self._ways.by_loop = by_loop
            return pid
        assert failure is not None
        raise failure

    async def _read_log(self, fifo: Path) -> None:
        """Keep the end of the agent's output. We also hold a writer of the FIFO until the end."""
        loop = asyncio.get_running_loop()
        fd = os.open(fifo, os.O_RDWR | os.O_NONBLOCK | os.O_CLOEXEC)
        reader = asyncio.StreamReader()
        self._log, _ = await loop.connect_read_pipe(
            lambda: asyncio.StreamReaderProtocol(reader), os.fdopen(fd, "rb", 0)
        )
        self._tasks.append(loop.create_task(_keep_tail(reader, self._console)))

    def _kill(self) -> None:
        # The whole PID namespace ends with its first process, without containerd's help.
        if self._first is not None:
            self._first.kill()

    async def _remove_rest(self) -> None:
        await asyncio.to_thread(remove_groups, self.name)

    def _let_go(self) -> None:
        if self._log is not None:
            self._log.close()
        if self._first is not None:
            self._first.close()


def _pid_namespace() -> str:
    """Name the PID namespace whose process numbers `owner_of` uses."""
    return str(Path("/proc/self/ns/pid").stat().st_ino)


async def _keep_tail(stream: asyncio.StreamReader, tail: bytearray) -> None:
    """Read until cancelled and keep the last bytes."""
    while data := await stream.read(_LOG_BYTES):
        tail += data
        del tail[:-_LOG_BYTES]
