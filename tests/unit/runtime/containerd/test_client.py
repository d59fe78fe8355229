"""The client of containerd: its requests, their order, and how it reports refusals."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest
import pytest_asyncio
from google.protobuf.empty_pb2 import Empty
from grpclib import GRPCError, Status
from grpclib.const import Cardinality, Handler
from grpclib.server import Server, Stream

from hpcc._proto.containerd import (
    containers_pb2,
    namespace_pb2,
    oci_pb2,
    tasks_pb2,
    version_pb2,
)
from hpcc.core import InfrastructureError
from hpcc.runtime.containerd.client import (
    Containerd,
    ContainerdError,
    RootMount,
    StdioPaths,
    pipe_connector,
    runc_options,
    unix_connector,
)


class Daemon:
    """Answers every call of the client, records the calls, and refuses those that a test names."""

    def __init__(self) -> None:
        self.calls: list[tuple[str, Any]] = []
        self.metadata: list[dict[str, Any]] = []
        self.refusals: dict[str, Status] = {}
        self.listed: list[containers_pb2.Container] = []

    def __mapping__(self) -> dict[str, Any]:
        tasks = "/containerd.services.tasks.v1.Tasks/"
        containers = "/containerd.services.containers.v1.Containers/"
        answers = {
            "/containerd.services.version.v1.Version/Version": (
                Empty, version_pb2.VersionResponse(version="1.7.24"),
            ),
            "/containerd.services.namespaces.v1.Namespaces/Create": (
                namespace_pb2.CreateNamespaceRequest, namespace_pb2.CreateNamespaceResponse(),
            ),
            containers + "Create": (
                containers_pb2.CreateContainerRequest, containers_pb2.CreateContainerResponse(),
            ),
            containers + "List": (
                containers_pb2.ListContainersRequest,
                containers_pb2.ListContainersResponse(containers=self.listed),
            ),
            containers + "Delete": (containers_pb2.DeleteContainerRequest, Empty()),
            tasks + "Create": (
                tasks_pb2.CreateTaskRequest, tasks_pb2.CreateTaskResponse(pid=7),
            ),
            tasks + "Start": (tasks_pb2.StartRequest, tasks_pb2.StartResponse(pid=8)),
            tasks + "Exec": (tasks_pb2.ExecProcessRequest, Empty()),
            tasks + "Kill": (tasks_pb2.KillRequest, Empty()),
            tasks + "Wait": (tasks_pb2.WaitRequest, tasks_pb2.WaitResponse(exit_status=137)),
            tasks + "DeleteProcess": (
                tasks_pb2.DeleteProcessRequest, tasks_pb2.DeleteResponse(),
            ),
            tasks + "Delete": (tasks_pb2.DeleteTaskRequest, tasks_pb2.DeleteResponse()),
        }  # fmt: skip
        return {
            path: Handler(self._handler(path, answer), Cardinality.UNARY_UNARY, kind, type(answer))
            for path, (kind, answer) in answers.items()
        }

    def _handler(self, path: str, answer: object) -> Any:
        name = path.rpartition(".")[2]

        async def handle(stream: Stream[Any, Any]) -> None:
            self.calls.append((name, await stream.recv_message()))
            self.metadata.append(dict(stream.metadata or {}))
            if name in self.refusals:
                raise GRPCError(self.refusals[name], f"no {name}")
            await stream.send_message(answer)

        return handle

    @property
    def names(self) -> list[str]:
        return [name for name, _ in self.calls]


@pytest.fixture
def daemon() -> Daemon:
    return Daemon()


@pytest_asyncio.fixture
async def client(daemon: Daemon, tmp_path: Path) -> AsyncIterator[Containerd]:
    server = Server([daemon])
    await server.start(path=str(tmp_path / "s"))
    client = Containerd(unix_connector(tmp_path / "s"))
    try:
        yield client
    finally:
        client.close()
        server.close()
        await server.wait_closed()


REMOVAL = [
    "Tasks/Kill", "Tasks/Wait", "Tasks/DeleteProcess", "Tasks/Delete", "Containers/Delete",
]  # fmt: skip


async def test_calls_are_made_in_our_namespace(daemon: Daemon, client: Containerd) -> None:
    assert await client.version() == "1.7.24"
    await client.ensure_namespace()
    daemon.listed.append(containers_pb2.Container(id="c-1", labels={"hpcc.owner": "1.2"}))
    await client.containers()
    assert daemon.calls[1][1].namespace.name == "hpcc"
    assert daemon.metadata[2]["containerd-namespace"] == "hpcc"


async def test_a_namespace_that_is_there_already_is_no_error(
    daemon: Daemon, client: Containerd
) -> None:
    daemon.refusals["Namespaces/Create"] = Status.ALREADY_EXISTS
    await client.ensure_namespace()
    daemon.refusals["Namespaces/Create"] = Status.PERMISSION_DENIED
    with pytest.raises(ContainerdError, match="PERMISSION_DENIED"):
        await client.ensure_namespace()


async def test_specifications_travel_as_json_under_bare_names(
    daemon: Daemon, client: Containerd
) -> None:
    await client.create_container("c-1", "io.containerd.runc.v2", {"a": 1}, {"k": "v"})
    mounts = [RootMount(kind="erofs", source="/i", options=("ro",), target=".hpcc")]
    assert await client.create_task("c-1", mounts, runc_options(Path("/usr/sbin/runc"))) == 7
    await client.exec("c-1", "agent", {"b": 2}, StdioPaths(stdout="/log", stderr="/log"))
    assert await client.start("c-1", "agent") == 8
    assert await client.wait("c-1") == 137
    made, task, process = (request for _, request in daemon.calls[:3])
    kind = "types.containerd.io/opencontainers/runtime-spec/1/"
    assert made.container.spec.type_url == kind + "Spec"
    assert json.loads(made.container.spec.value) == {"a": 1}
    assert process.spec.type_url == kind + "Process"
    assert (process.stdin, process.stdout, process.stderr) == ("", "/log", "/log")
    assert task.rootfs[0].target == ".hpcc"
    assert oci_pb2.Options.FromString(task.options.value).binary_name == "/usr/sbin/runc"


async def test_removal_kills_waits_and_deletes_in_that_order(
    daemon: Daemon, client: Containerd
) -> None:
    await client.remove("c-1", ("agent",))
    assert daemon.names == REMOVAL
    assert daemon.calls[0][1].all
    assert daemon.calls[0][1].signal == 9


async def test_removal_of_what_is_gone_is_no_error(daemon: Daemon, client: Containerd) -> None:
    daemon.refusals = dict.fromkeys(REMOVAL, Status.NOT_FOUND)
    await client.remove("c-1", ("agent",))
    assert daemon.names == REMOVAL


@pytest.mark.parametrize("step", REMOVAL)
async def test_removal_goes_on_after_a_step_that_failed(
    daemon: Daemon, client: Containerd, step: str
) -> None:
    daemon.refusals[step] = Status.UNKNOWN
    with pytest.raises(ContainerdError) as caught:
        await client.remove("c-1", ("agent",))
    assert caught.value.status is Status.UNKNOWN
    assert daemon.names == REMOVAL


async def test_nobody_at_the_socket_is_one_error(tmp_path: Path) -> None:
    client = Containerd(unix_connector(tmp_path / "absent"))
    try:
        with pytest.raises(InfrastructureError) as caught:
            await client.version()
    finally:
        client.close()
    assert caught.value.reason == "containerd"


async def test_a_named_pipe_carries_the_same_calls(
    daemon: Daemon, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A Unix socket stands in for ProactorEventLoop.create_pipe_connection."""
    loop: Any = asyncio.get_running_loop()
    dialled: list[str] = []

    async def create(protocol: Any, address: str) -> Any:
        dialled.append(address)
        return await loop.create_unix_connection(protocol, str(tmp_path / "p"))

    monkeypatch.setattr(loop, "create_pipe_connection", create, raising=False)
    server = Server([daemon])
    await server.start(path=str(tmp_path / "p"))
    client = Containerd(pipe_connector(r"\\.\pipe\containerd-containerd"))
    try:
        assert await client.version() == "1.7.24"
    finally:
        client.close()
        server.close()
        await server.wait_closed()
    assert dialled == [r"\\.\pipe\containerd-containerd"]


async def test_elsewhere_a_named_pipe_is_an_error() -> None:
    client = Containerd(pipe_connector(r"\\.\pipe\containerd-containerd"))
    try:
        with pytest.raises(ContainerdError, match="no named pipes"):
            await client.version()
    finally:
        client.close()
