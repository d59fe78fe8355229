"""One agent per exec, as in Windows' process isolation, passes the guest contract."""

from __future__ import annotations

import secrets
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any, Final

import pytest
import pytest_asyncio

from hpcc.ports import Guest, GuestSpec, SystemClock
from hpcc.runtime.assets.assets import GuestAssets
from hpcc.runtime.containerd.exec_channel import ExecChannel, ExecPlan
from hpcc.runtime.runc.backend import RuncRuntime, _Container
from hpcc.runtime.runc.spec import ContainerPlan
from hpcc.runtime.runc.tools import RuncConfig, RuncTools
from hpcc.runtime.vm.vm import SessionChannel, Vm, VmGuest
from hpcc_testkit.guests.containerd_daemon import ContainerdDaemon
from hpcc_testkit.guests.fifo_streams import fifo_streams
from hpcc_testkit.guests.guest_contract import GuestContract, MemoryBlobs, request, run

# An agent on its standard streams, with a private directory: each exec has a different one.
_AGENT: Final = """
import asyncio, os, sys
sys.path.append("/.hpcc/site")
from dataclasses import replace
from grpclib.server import Server
from hpcc.agent.linux.cgroup import enable_controllers
from hpcc.agent.linux.container import _config
from hpcc.agent.base.greeter import Greeter
from hpcc.agent.linux.machine import LinuxMachine
from hpcc.agent.base.service import Agent
from hpcc.agent.base.stream_pair import StreamPair
from hpcc.wire.link import GuestLink

async def main():
    config = replace(_config(), directory=sys.argv[1], keeps_sandbox=False)
    try:
        group = enable_controllers(config.cgroup_root, config.max_memory_bytes)
    except FileExistsError:
        group = config.cgroup_root + "/compiles"
    server = Server([Agent(LinuxMachine(replace(config, cgroup_root=group)))])
    greeter = Greeter(GuestLink(None), server._protocol_factory)
    await StreamPair(asyncio.get_running_loop(), 0, link, greeter).ended
    # The end cancelled the exec, which now removes its cgroup. A return from here would cancel it
    # again, and leave the group.
    if others := asyncio.all_tasks() - {asyncio.current_task()}:
        await asyncio.wait(others, timeout=4)

os.umask(0o022)
link = os.dup(1)
os.dup2(2, 1)
asyncio.run(main())
"""

pytestmark = [pytest.mark.vm, pytest.mark.asyncio(loop_scope="module"), pytest.mark.timeout(600)]


class ExecRuntime(RuncRuntime):
    """Containers of Linux in which each exec starts an agent."""

    def _container(self, spec: GuestSpec, tools: RuncTools) -> Vm:
        identity = super()._container(spec, tools).identity
        return _ExecContainer(self._config, self._assets, spec, identity, tools, self._ways)


class _ExecContainer(_Container):
    async def _start(self) -> SessionChannel:
        plan, places = await self._run_container()
        execs = ExecPlan(
            container_id=self.name,
            agent=lambda: _agent(plan),
            streams=lambda: fifo_streams(places.directory),
        )
        channel = ExecChannel(self._client, execs, SystemClock())
        self._attach(channel)
        return channel


def _agent(plan: ContainerPlan) -> dict[str, Any]:
    process: Any = plan.agent("")
    process["args"][-1:] = [_AGENT, f"/run/hpcc-{secrets.token_hex(8)}"]
    return dict(process)


@pytest.fixture(scope="module")
def program() -> str:
    return "/probe"


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def guest(
    assets: GuestAssets, containerd: ContainerdDaemon, guests_directory: Path, spec: GuestSpec
) -> AsyncIterator[VmGuest]:
    config = RuncConfig(directory=guests_directory, socket=containerd.socket)
    async with ExecRuntime(config, assets, SystemClock()).guest(spec) as started:
        yield started


class TestExecGuest(GuestContract):
    """See the contract."""

    async def test_a_blob_crosses_once(self, guest: Guest, program: str) -> None:
        """A blob is sent once for each exec, because an agent keeps nothing after its compile."""
        data = b"crosses"
        req = request(program, "copy", "a", "b", inputs=[("a", data), ("c", data)], outputs=("b",))
        blobs = MemoryBlobs(data)
        assert (await run(guest, req, blobs)).outputs == {"b": data}
        assert len(blobs.reads) == 1
