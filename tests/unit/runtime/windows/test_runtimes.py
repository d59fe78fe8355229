"""Windows guests over a scripted containerd: made, dialled, lost, ended, swept. Nothing is Windows.

The calls are real gRPC over a Unix socket; the answers are derived from source.
"""

from __future__ import annotations

import asyncio
import json
import os
import socket
import sys
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any
from uuid import UUID

import pytest
from grpclib import Status
from grpclib.server import Server

from hpcc._proto import agent_pb2 as pb
from hpcc._proto.agent_grpc import AgentServiceBase
from hpcc._proto.containerd import containers_pb2
from hpcc.agent.base.greeter import Greeter
from hpcc.agent.base.stream_pair import StreamPair
from hpcc.core import ImageDigest, InfrastructureError, Isolation
from hpcc.ports import GuestBootError, GuestLostError, GuestSpec, SystemClock
from hpcc.runtime.containerd.client import Connect, StdioPaths
from hpcc.runtime.containerd.exec_channel import NewStreams
from hpcc.runtime.windows.guest_checks import GuestCheckError, GuestChecks
from hpcc.runtime.windows.hcs import ComputeSystem, HcsError
from hpcc.runtime.windows.host import WindowsHost, WindowsRuntimeConfig
from hpcc.runtime.windows.hyperv import HyperVRuntime
from hpcc.runtime.windows.layers.layer import build_windows_layer
from hpcc.runtime.windows.process import WindowsProcessRuntime, pipe_names
from hpcc.runtime.windows.runtime import WindowsRuntime
from hpcc.runtime.windows.spec import container_vmid, service_guid
from hpcc.wire.link import GuestLink
from hpcc_testkit.guests.fifo_streams import fifo_streams
from hpcc_testkit.guests.guest_contract import request, run
from hpcc_testkit.windows.scripted_containerd import ScriptedContainerd, serving, sha256

GOLDEN = Path(__file__).parents[3] / "golden" / "windows"
MOUNT = json.loads((GOLDEN / "from_source_windows_layer_mount.json").read_text())["value"]
LAYER = build_windows_layer({"hpcc-agent.exe": b"MZ"})
LAYERS = (sha256(b"base"), sha256(b"tools"))
BUILD = 20348
VM = UUID("0b7f2c51-6c3f-4c56-9d0f-7a4b8e1c2d30")
MAKING = [
    "Namespaces/Create", "Images/List", "Content/Read", "Content/Read", "Content/Read",
    "Snapshots/Stat", "Snapshots/Stat", "Leases/Create", "Content/Write", "Snapshots/Prepare",
    "Diff/Apply", "Snapshots/Commit", "Snapshots/Remove", "Leases/Delete", "Containers/Create",
    "Snapshots/Prepare", "Tasks/Create", "Tasks/Start",
]  # fmt: skip
ENDING = ["Tasks/Kill", "Tasks/Wait", "Tasks/Delete", "Containers/Delete", "Snapshots/Remove"]


class Agent(AgentServiceBase):
    """Answers every exec as the self-test expects, or `hangs`."""

    def __init__(self) -> None:
        self.births: list[bool] = []
        self.hangs = False
        self.status = 127

    async def Exec(self, stream: Any) -> None:  # noqa: N802 - the contract's name
        frame = await stream.recv_message()
        self.births.append(frame.header.HasField("guest"))
        await stream.send_message(pb.ServerFrame(need=pb.Need()))
        assert await stream.recv_message() is None
        if self.hangs:
            await asyncio.Event().wait()
        is_self_test = self.status == 127 or frame.header.exec_id == "hpcc-self-test"
        reason = pb.Result.REASON_NO_SUCH_PROGRAM if is_self_test else pb.Result.REASON_ENDED
        result = pb.Result(exit_code=127 if is_self_test else self.status, reason=reason)
        await stream.send_message(pb.ServerFrame(result=result))


async def play(agent: Agent, sock: socket.socket) -> None:
    """Serve a guest's end of its stream: any token, one session."""
    loop, link = asyncio.get_running_loop(), GuestLink(None)
    found = None
    while found is None:
        found = link.feed(await loop.sock_recv(sock, 65536))
    await loop.sock_sendall(sock, found[0])
    protocol = Server([agent])._protocol_factory()
    transport, _ = await loop.create_connection(lambda: protocol, sock=sock)
    try:
        if found[1]:
            protocol.data_received(found[1])
        await asyncio.Event().wait()
    finally:
        transport.abort()


@dataclass
class Compute:
    """A fake Host Compute Service: its list of systems, and those that were ended."""

    listed: list[ComputeSystem] = field(default_factory=list)
    ended: list[str] = field(default_factory=list)

    async def systems(self) -> list[ComputeSystem]:
        return self.listed

    async def utility_vm(self, container_id: str) -> UUID:
        if not self.listed:
            raise HcsError(f"the host has no system {container_id}@vm")
        return VM

    async def terminate(self, container_id: str) -> bool:
        self.ended.append(container_id)
        return any(s.system_id == f"{container_id}@vm" for s in self.listed)


@dataclass
class World:
    """One host: its containerd, its VMs, and the agent in its guests."""

    daemon: ScriptedContainerd
    config: WindowsRuntimeConfig
    image: ImageDigest
    compute: Compute = field(default_factory=Compute)
    agent: Agent = field(default_factory=Agent)
    dialled: list[tuple[str, str]] = field(default_factory=list)
    unreachable: set[str] = field(default_factory=set)
    ends: list[socket.socket] = field(default_factory=list)
    plays: list[asyncio.Task[None]] = field(default_factory=list)

    async def dial(self, address: tuple[str, str], *, timeout_seconds: float) -> socket.socket:
        self.dialled.append(address)
        if address[0] in self.unreachable or "all" in self.unreachable:
            raise InfrastructureError("no agent answered", reason="dial-timeout")
        host, guest = socket.socketpair()
        guest.settimeout(0)
        self.ends.append(guest)
        self.plays.append(asyncio.get_running_loop().create_task(play(self.agent, guest)))
        return host

    def hyperv(self) -> HyperVRuntime:
        host = WindowsHost(self.config, SystemClock())
        compute: Any = lambda: self.compute  # noqa: E731 - stands for a class
        return HyperVRuntime(host, SystemClock(), dial=self.dial, compute=compute)

    def process(self, streams: NewStreams) -> WindowsProcessRuntime:
        config = replace(self.config, is_hyperv=False)
        return WindowsProcessRuntime(WindowsHost(config, SystemClock()), SystemClock(), streams)

    def spec(self, **changes: Any) -> GuestSpec:
        base: dict[str, Any] = {
            "image": self.image, "image_path": Path(), "memory_mib": 4096, "vcpus": 4,
            "boot_timeout_seconds": 20.0,
        }  # fmt: skip
        return GuestSpec(**(base | changes))


@asynccontextmanager
async def world_of(directory: Path) -> AsyncIterator[World]:
    daemon = ScriptedContainerd(MOUNT)
    image = daemon.add_image("mcr.example/windows", {"10.0.20348.2700": LAYERS})
    async with serving(daemon, directory / "s") as connect:
        world = World(daemon, config_of(connect, image), image)
        try:
            yield world
        finally:
            for task in world.plays:
                task.cancel()
            if world.plays:
                await asyncio.wait(world.plays)
            for end in world.ends:
                end.close()


def config_of(connect: Connect, image: ImageDigest) -> WindowsRuntimeConfig:
    return WindowsRuntimeConfig(
        worker="w-1", boot="this", connect=connect, layer=LAYER, build=BUILD, is_hyperv=True,
        probe_image=image,
    )  # fmt: skip


async def until(condition: Callable[[], bool]) -> None:
    for _ in range(2000):
        if condition():
            return
        await asyncio.sleep(0.01)
    raise AssertionError("it never came to be")


def without_watching(calls: list[str]) -> list[str]:
    """Return the calls without those of a guest's watch, which may come at any position."""
    return [c for c in calls if c not in {"Tasks/Wait", "Events/Subscribe", "Version/Version"}]


async def test_a_guest_is_made_dialled_and_gone_in_that_order(tmp_path: Path) -> None:
    async with world_of(tmp_path) as world:
        async with world.hyperv().guest(world.spec()) as guest:
            name = guest.identity.guest_id
            assert without_watching(world.daemon.calls) == MAKING
            # One connection, to the address that follows from the container's id.
            assert world.dialled == [(str(container_vmid(name)), str(service_guid(17727)))]
            assert world.agent.births == [True]
            await run(guest, request("cl"))
            assert world.agent.births == [True, False]
        assert without_watching(world.daemon.calls)[-3:] == ENDING[-3:]
        assert "Tasks/Kill" in world.daemon.calls
        assert world.daemon.containers == {}
        assert world.daemon.tasks == {}
        assert name not in world.daemon.snapshots
        assert world.compute.ended == [name]


async def test_no_host_directory_share_pipe_or_network_is_ever_asked_for(tmp_path: Path) -> None:
    """Checks the bytes that containerd received, for both kinds of isolation."""
    async with world_of(tmp_path) as world, executing(world, tmp_path) as streams:
        for runtime in (world.hyperv(), world.process(streams)):
            async with runtime.guest(world.spec()) as guest:
                await run(guest, request("cl"))
        hyperv, process = world.daemon.requests["Containers/Create"]
        for made in (hyperv.container, process.container):
            spec = json.loads(made.spec.value)
            assert spec["mounts"] == []
            assert spec["root"] == {}
            assert set(spec["windows"]) <= {"hyperv", "ignoreFlushesDuringBoot", "resources"}
            assert spec["annotations"]["io.microsoft.disable-unsafe-operations"] == "true"
            assert made.snapshot_key == made.id
        for task in world.daemon.requests["Tasks/Create"]:
            assert [mount.type for mount in task.rootfs] == ["windows-layer"]
            assert (task.stdin, task.stdout, task.stderr, task.terminal) == ("", "", "", False)
        first, second = world.daemon.requests["Tasks/Create"]
        assert first.options.type_url == "containerd.runhcs.v1.Options"
        assert not second.HasField("options")
        # Further processes have streams and arguments, and nothing of the host beside them.
        for made in world.daemon.requests["Tasks/Exec"]:
            assert set(json.loads(made.spec.value)) == {"args", "cwd", "env", "user", "terminal"}


async def test_the_spec_is_the_one_derived_from_source(tmp_path: Path) -> None:
    async with world_of(tmp_path) as world:
        async with world.hyperv().guest(world.spec()):
            (made,) = world.daemon.requests["Containers/Create"]
        expected = json.loads((GOLDEN / "from_source_hyperv_spec.json").read_text())["value"]
        assert json.loads(made.container.spec.value) == expected
        assert made.container.runtime.name == "io.containerd.runhcs.v1"
        assert dict(made.container.labels) == {"hpcc.worker": "w-1", "hpcc.boot": "this"}


async def test_the_row_says_what_isolated_and_what_is_read_over_shares(tmp_path: Path) -> None:
    async with world_of(tmp_path) as world, world.hyperv().guest(world.spec()) as guest:
        identity = guest.identity
        assert identity.isolation is Isolation.HYPERV
        assert identity.agent_digest == LAYER.diff_id
        assert identity.vmm_version == (
            "runhcs ?, containerd 2.1.4; hypervisor; network=none; "
            "vsmb=boot+layers-ro by the shim, none of ours"
        )


async def test_where_nobody_is_at_the_containers_address_its_vm_is_dialled(tmp_path: Path) -> None:
    async with world_of(tmp_path) as world:
        runtime = world.hyperv()
        world.compute.listed = [system("hpcc-1@vm")]
        world.unreachable = {"own"}
        dial = world.dial

        async def refuse_first(address: Any, *, timeout_seconds: float) -> socket.socket:
            world.unreachable = set() if address[0] == str(VM) else {address[0]}
            return await dial(address, timeout_seconds=timeout_seconds)

        runtime._dial = refuse_first
        async with runtime.guest(world.spec()) as guest:
            assert [a[0] for a in world.dialled] == [
                str(container_vmid(guest.identity.guest_id)), str(VM)
            ]  # fmt: skip
            assert guest.identity.vmm_version.endswith("; dialled=utility-vm")
            assert len(world.ends) == 1


async def test_nobody_anywhere_is_a_boot_error_and_leaves_nothing(tmp_path: Path) -> None:
    async with world_of(tmp_path) as world:
        world.unreachable = {"all"}
        with pytest.raises(GuestBootError, match="and its VM: the host has no system"):
            async with world.hyperv().guest(world.spec()):
                pass
        assert world.daemon.calls.count("Containers/Create") == 2  # tried twice
        assert world.daemon.containers == world.daemon.tasks == {}


@pytest.mark.parametrize("witness", ["wait", "event", "gone", "stream"])
async def test_whoever_sees_a_guests_end_first_is_believed(tmp_path: Path, witness: str) -> None:
    async with world_of(tmp_path) as world, world.hyperv().guest(world.spec()) as guest:
        name = guest.identity.guest_id
        world.agent.hangs = True
        compile_ = asyncio.ensure_future(run(guest, request("cl")))
        await until(lambda: len(world.agent.births) > 1 and bool(world.daemon.listeners))
        match witness:
            case "wait":
                world.daemon.end(name, 1, says_so=False)
            case "event":
                world.daemon.tell(name, "", 255)
            case "gone":
                world.daemon.refusals["Tasks/Wait"] = Status.NOT_FOUND
                world.daemon.end(name, 0, says_so=False)
            case "stream":
                world.plays[0].cancel()
        reason = await guest.lost
        assert reason
        # An exit status of 1 is a utility VM's end, too: no result, whatever it is.
        with pytest.raises(GuestLostError):
            await compile_
        with pytest.raises(GuestLostError):
            await run(guest, request("cl"))


async def test_another_processs_exit_is_no_end_of_the_guest(tmp_path: Path) -> None:
    async with world_of(tmp_path) as world, world.hyperv().guest(world.spec()) as guest:
        await until(lambda: bool(world.daemon.listeners))
        world.daemon.tell(guest.identity.guest_id, "x7", 0)
        world.daemon.tell("hpcc-another", "", 0)
        await run(guest, request("cl"))
        assert not guest.is_lost


@pytest.mark.parametrize("step", ["Containers/Create", "Snapshots/Prepare", "Tasks/Create"])
async def test_a_step_that_fails_is_a_boot_error_and_leaves_nothing(
    tmp_path: Path, step: str
) -> None:
    async with world_of(tmp_path) as world:
        runtime = world.hyperv()
        async with runtime.guest(world.spec()):
            pass  # so that the agent's layer is there
        world.daemon.refusals[step] = Status.UNKNOWN
        with pytest.raises(GuestBootError, match="UNKNOWN"):
            async with runtime.guest(world.spec()):
                pass
        assert world.daemon.containers == world.daemon.tasks == {}
        assert not [s for s in world.daemon.snapshots if s.startswith("hpcc-")]


async def test_a_cancel_while_the_vm_boots_leaves_nothing(tmp_path: Path) -> None:
    async with world_of(tmp_path) as world:
        world.daemon.held["Tasks/Create"] = asyncio.Event()

        async def boot() -> None:
            async with world.hyperv().guest(world.spec()):
                pass

        task = asyncio.ensure_future(boot())
        await until(lambda: "Tasks/Create" in world.daemon.calls)
        task.cancel()
        world.daemon.held["Tasks/Create"].set()
        with pytest.raises(asyncio.CancelledError):
            await task
        assert world.daemon.containers == world.daemon.tasks == {}


async def test_an_old_containerd_is_refused_with_what_to_do(tmp_path: Path) -> None:
    async with world_of(tmp_path) as world:
        world.daemon.version = "2.1.0"
        probe = await world.hyperv().probe()
        assert not probe.is_usable
        assert "2.1.1 or newer" in probe.summary
        assert "Containers/Create" not in world.daemon.calls
        with pytest.raises(GuestBootError, match=r"2\.1\.1"):
            async with world.hyperv().guest(world.spec()):
                pass


@pytest.mark.parametrize(
    ("said", "expected"),
    [
        ("containerd-shim-runhcs-v1 version v0.13.0", "runhcs 0.13.0"),
        ("x version commit: 7c9ff7f\nspec: 1.2.0", "runhcs ?"),
        ("x version 0.12.9", None),
        ("x version 0.13.0-rc.3", None),
    ],
)
async def test_a_shim_that_names_an_old_version_is_refused(
    tmp_path: Path, said: str, expected: str | None
) -> None:
    shim = tmp_path / "shim"
    shim.write_text(f"#!/bin/sh\ncat <<'E'\n{said}\nE\n")
    shim.chmod(0o755)
    async with world_of(tmp_path) as world:
        host = WindowsHost(replace(world.config, shim=shim), SystemClock())
        if expected is None:
            with pytest.raises(InfrastructureError, match=r"0\.13\.0 or newer"):
                await host.tools()
        else:
            tools = await host.tools()
            assert tools.version == f"{expected}, containerd 2.1.4"
            assert tools.shim_digest == sha256(shim.read_bytes())


async def test_a_probe_boots_a_guest_and_says_what_there_is_not(tmp_path: Path) -> None:
    async with world_of(tmp_path) as world:
        probe = await world.hyperv().probe()
        assert probe.is_usable
        assert "no snapshots" in probe.no_warm_start
        assert world.daemon.containers == {}
        world.config = replace(world.config, probe_image=None)
        assert not (await world.hyperv().probe()).is_usable


async def test_a_snapshotter_of_another_system_gives_no_root(tmp_path: Path) -> None:
    async with world_of(tmp_path) as world:
        world.daemon._mount = {"type": "bind", "source": "C:\\Users", "options": ["rw"]}
        with pytest.raises(GuestBootError, match="no Windows layers"):
            async with world.hyperv().guest(world.spec()):
                pass
        assert "Tasks/Create" not in world.daemon.calls


@pytest.mark.parametrize("isolation", ["hyperv", "process"])
async def test_an_image_for_a_newer_windows_is_refused(tmp_path: Path, isolation: str) -> None:
    async with world_of(tmp_path) as world:
        newer = world.daemon.add_image("newer", {"10.0.26100.1": LAYERS})
        older = world.daemon.add_image("older", {"10.0.17763.1": LAYERS})
        unpacked = world.daemon.add_image("un", {"10.0.20348.9": LAYERS}, is_unpacked=False)
        runtime: WindowsRuntime = (
            world.hyperv() if isolation == "hyperv" else world.process(no_streams)
        )
        for image, text in (
            (newer, "26100"), (unpacked, "is not unpacked"),
            (ImageDigest(sha256(b"none")), "containerd has no image"),
            *([(older, "host's own")] if isolation == "process" else []),
        ):  # fmt: skip
            with pytest.raises(GuestBootError, match=text):
                async with runtime.guest(world.spec(image=image)):
                    pass


async def test_what_another_start_left_is_swept_and_nothing_else(tmp_path: Path) -> None:
    async with world_of(tmp_path) as world:
        daemon = world.daemon
        for name, worker, boot in (
            ("hpcc-old", "w-1", "before"), ("hpcc-now", "w-1", "this"), ("hpcc-other", "w-2", "x"),
        ):  # fmt: skip
            labels = {"hpcc.worker": worker, "hpcc.boot": boot}
            daemon.containers[name] = containers_pb2.Container(id=name, labels=labels)
            daemon.snapshots[name] = False
        world.compute.listed = [
            system("hpcc-lost@vm"), system("hpcc-now@vm"), system("hpcc-other@vm"),
            system("hpcc-foreign@vm", owner="WSL"),
        ]  # fmt: skip
        assert await world.hyperv().sweep() == 2
        assert set(daemon.containers) == {"hpcc-now", "hpcc-other"}
        assert "hpcc-old" not in daemon.snapshots
        assert world.compute.ended == ["hpcc-lost"]


def system(name: str, owner: str = "containerd-shim-runhcs-v1.exe") -> ComputeSystem:
    return ComputeSystem(
        system_id=name, kind="VirtualMachine", owner=owner, state="Running", runtime_id=VM
    )


def no_streams() -> Any:
    raise AssertionError("nothing is started")


@asynccontextmanager
async def executing(world: World, directory: Path) -> AsyncIterator[NewStreams]:
    """Play the shim: a started exec gets an agent on its streams."""
    pairs: list[tuple[StreamPair, list[int]]] = []

    async def start(container: str, process: str) -> None:
        if not process:
            return
        said = world.daemon.tasks[container, process].request
        loop = asyncio.get_running_loop()
        opened = await asyncio.gather(
            loop.run_in_executor(None, os.open, said.stdin, os.O_RDONLY),
            loop.run_in_executor(None, os.open, said.stdout, os.O_WRONLY),
            loop.run_in_executor(None, os.open, said.stderr, os.O_WRONLY),
        )
        session = Server([world.agent])._protocol_factory
        pair = StreamPair(loop, opened[0], opened[1], Greeter(GuestLink(None), session))
        pairs.append((pair, opened))

        def over(_: object) -> None:
            for fd in opened:
                os.close(fd)
            world.daemon.end(container, 0, process=process)

        pair.ended.add_done_callback(over)

    world.daemon.on_start = start
    (directory / "streams").mkdir(exist_ok=True)
    yield lambda: fifo_streams(directory / "streams")


async def test_each_compile_is_a_process_of_its_own_in_a_container_that_waits(
    tmp_path: Path,
) -> None:
    async with world_of(tmp_path) as world, executing(world, tmp_path) as streams:
        async with world.process(streams).guest(world.spec()) as guest:
            assert guest.identity.isolation is Isolation.PROCESS_WINDOWS
            assert "no hypervisor" in guest.identity.vmm_version
            for _ in range(2):
                await run(guest, request("cl"))
            (made,) = world.daemon.requests["Containers/Create"]
            assert json.loads(made.container.spec.value)["process"]["args"][1:] == ["pause"]
            # One exec for the self-test and one for each of two compiles. Each agent gets its
            # identity, and each exec is gone afterwards.
            execs = world.daemon.requests["Tasks/Exec"]
            assert [e.exec_id for e in execs] == ["x0", "x1", "x2"]
            assert {json.loads(e.spec.value)["args"][2] for e in execs} == {"--stdio"}
            assert world.agent.births == [True, True, True]
            assert set(world.daemon.tasks) == {(guest.identity.guest_id, "")}
        assert world.daemon.containers == world.daemon.tasks == {}
        assert world.dialled == []


async def test_an_exec_whose_agent_is_ended_loses_the_guest(tmp_path: Path) -> None:
    async with (
        world_of(tmp_path) as world,
        executing(world, tmp_path) as streams,
        world.process(streams).guest(world.spec()) as guest,
    ):
        world.agent.hangs = True
        compile_ = asyncio.ensure_future(run(guest, request("cl")))
        await until(lambda: len(world.agent.births) > 1)
        world.daemon.end(guest.identity.guest_id, 1)
        with pytest.raises(GuestLostError):
            await compile_
        assert guest.is_lost


async def test_an_exec_whose_agent_cannot_be_ended_retires_the_guest(tmp_path: Path) -> None:
    async with (
        world_of(tmp_path) as world,
        executing(world, tmp_path) as streams,
        world.process(streams).guest(world.spec()) as guest,
    ):
        world.daemon.refusals["Tasks/DeleteProcess"] = Status.UNKNOWN
        await run(guest, request("cl"))
        assert "cannot be ended" in await guest.lost
        with pytest.raises(GuestLostError):
            await run(guest, request("cl"))


@asynccontextmanager
async def checking(tmp_path: Path) -> AsyncIterator[tuple[World, GuestChecks]]:
    """Run the self-test's checks of guests on a scripted host."""
    layer = tmp_path / "layer.tar"
    layer.write_bytes(LAYER.tar)
    async with world_of(tmp_path) as world, executing(world, tmp_path) as streams:
        terminate = world.compute.terminate

        async def end(container_id: str) -> bool:
            if (container_id, "") in world.daemon.tasks:
                world.daemon.end(container_id, 1)
            return await terminate(container_id)

        monkey: Any = world.compute
        monkey.terminate = end
        yield (
            world,
            GuestChecks(
                image=world.image, layer=layer, connect=world.config.connect, clock=SystemClock(),
                build=lambda: BUILD, compute=lambda: monkey, dial=world.dial,
                streams=lambda: streams,
            ),
        )  # fmt: skip


async def test_the_self_tests_guests_are_the_runtimes_own(tmp_path: Path) -> None:
    async with checking(tmp_path) as (world, checks):
        assert "own address" in await checks.address()
        assert "answered" in await checks.answer()
        assert "1024 MiB" in await checks.start()
        assert "noticed" in await checks.loss()
        world.agent.status = 7
        assert "no hypervisor" in await checks.process()
        assert world.daemon.containers == world.daemon.tasks == {}


async def test_a_check_of_a_guest_that_is_not_as_hoped_fails(tmp_path: Path) -> None:
    async with checking(tmp_path) as (world, checks):
        with pytest.raises(GuestCheckError, match="127"):
            await checks.process()
        world.compute.listed = [system("hpcc-1@vm")]
        dial = world.dial

        async def only_the_vm(address: Any, *, timeout_seconds: float) -> socket.socket:
            world.unreachable = set() if address[0] == str(VM) else {"all"}
            return await dial(address, timeout_seconds=timeout_seconds)

        with pytest.raises(GuestCheckError, match="container's own address"):
            await replace(checks, dial=only_the_vm).address()


_STUB = """
import pathlib, sys
assert sys.argv[1:5] == ["run", "--restricted", "medium", "--"] and sys.argv[6:8] == ["-I", "-c"]
compile(sys.argv[8], "dial", "exec")
said = pathlib.Path({words!r})
first, _, rest = said.read_text().partition(",")
said.write_text(rest)
print(first)
"""


@pytest.mark.parametrize(
    ("words", "expected"),
    [
        ("refused 10061,refused 10060,refused 10013", ""),
        ("refused 10061,connected 0", "connected 0"),
        ("refused 10022", "refused 10022"),
        ("refused 10061," * 30, "refused 10061"),
        ("", "saw: $"),
    ],
)
async def test_a_dial_without_rights_passes_only_when_rights_were_missing(
    tmp_path: Path, words: str, expected: str
) -> None:
    (tmp_path / "words").write_text(words)
    (tmp_path / "stub.py").write_text(_STUB.format(words=str(tmp_path / "words")))
    stub = (sys.executable, str(tmp_path / "stub.py"))
    async with checking(tmp_path) as (world, checks):
        if expected:
            with pytest.raises(GuestCheckError, match=expected):
                await checks.rights(stub, pause_seconds=0)
        else:
            assert "was refused" in await checks.rights(stub, pause_seconds=0)
        assert world.daemon.containers == world.daemon.tasks == {}
        assert (tmp_path / "words").read_text() == ""


def test_pipes_have_names_that_nobody_can_know() -> None:
    names = [pipe_names() for _ in range(3)]
    for stdio in names:
        assert isinstance(stdio, StdioPaths)
        assert stdio.stdin.startswith("\\\\.\\pipe\\hpcc-")
        assert stdio.stdin.endswith("-in")
        assert len({stdio.stdin, stdio.stdout, stdio.stderr}) == 3
    assert len({stdio.stdin for stdio in names}) == 3
