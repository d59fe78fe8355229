"""A scripted containerd on Windows, without Windows: real gRPC, answers as in containerd's source.

It keeps images, snapshots, containers and tasks, refuses the calls that a test names, and plays the
agent of each container that it starts. The expected answers of a real one are in
tests/golden/windows; they are derived from source, and their names say so.
"""

# ruff: noqa: ANN401 - messages of many kinds, and grpclib's streams, which have no types
from __future__ import annotations

import asyncio
import hashlib
import json
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

from google.protobuf.any_pb2 import Any as AnyMessage
from google.protobuf.empty_pb2 import Empty
from grpclib import GRPCError, Status
from grpclib.const import Cardinality, Handler
from grpclib.server import Server

from hpcc._proto.containerd import (
    containers_pb2,
    content_pb2,
    descriptor_pb2,
    diff_pb2,
    events_pb2,
    events_task_pb2,
    images_pb2,
    leases_pb2,
    mount_pb2,
    namespace_pb2,
    snapshots_pb2,
    tasks_pb2,
    transfer_pb2,
    version_pb2,
)
from hpcc.core import ImageDigest
from hpcc.runtime.containerd.client import Connect, unix_connector
from hpcc.runtime.windows.layers.containerd_layers import chain_id

_SIGKILL: Final = 137


def sha256(data: bytes) -> str:
    """Return the digest in the form of OCI."""
    return f"sha256:{hashlib.sha256(data).hexdigest()}"


@dataclass
class Task:
    """A process: a container's first one, or a later exec."""

    request: Any
    ended: asyncio.Event = field(default_factory=asyncio.Event)
    status: int = 0


class ScriptedContainerd:
    """The daemon's state and answers. It calls `on_start` with each started container and exec."""

    def __init__(self, mount: dict[str, Any]) -> None:
        self.version = "2.1.4"
        self.calls: list[str] = []
        self.requests: dict[str, list[Any]] = {}
        self.refusals: dict[str, Status] = {}
        self.held: dict[str, asyncio.Event] = {}
        self.images: dict[str, str] = {}
        self.content: dict[str, bytes] = {}
        self.snapshots: dict[str, bool] = {}  # by name: whether it is committed
        self.containers: dict[str, containers_pb2.Container] = {}
        self.tasks: dict[tuple[str, str], Task] = {}
        self.listeners: list[asyncio.Queue[events_pb2.Envelope]] = []
        self.on_start: Callable[[str, str], Awaitable[None] | None] = lambda *_: None
        self._mount = mount

    def add_image(
        self, name: str, versions: dict[str, tuple[str, ...]], *, is_unpacked: bool = True
    ) -> ImageDigest:
        """Add an image with a manifest and unpacked layers for each version of Windows."""
        manifests = [self._manifest(version, layers) for version, layers in versions.items()]
        index = self._keep({"schemaVersion": 2, "manifests": manifests})
        self.images[name] = index["digest"]
        for layers in versions.values():
            top = ""
            for layer in layers:
                top = chain_id(top, layer)
                self.snapshots[top] = is_unpacked
        if not is_unpacked:
            self.snapshots.clear()
        return ImageDigest(index["digest"])

    def _manifest(self, version: str, layers: tuple[str, ...]) -> dict[str, Any]:
        config = self._keep(
            {
                "os": "windows", "architecture": "amd64", "os.version": version,
                "rootfs": {"type": "layers", "diff_ids": list(layers)},
            }
        )  # fmt: skip
        manifest = self._keep({"schemaVersion": 2, "config": config, "layers": []})
        platform = {"os": "windows", "architecture": "amd64", "os.version": version}
        return {**manifest, "platform": platform}

    def _keep(self, document: object) -> dict[str, Any]:
        data = json.dumps(document).encode()
        self.content[sha256(data)] = data
        return {"digest": sha256(data), "size": len(data), "mediaType": "application/json"}

    def end(self, container: str, status: int, *, process: str = "", says_so: bool = True) -> None:
        """End a process; with `says_so` false its exit event is not published."""
        task = self.tasks[container, process]
        if task.ended.is_set():
            return
        task.status = status
        task.ended.set()
        if says_so:
            self.tell(container, process, status)

    def tell(self, container: str, process: str, status: int) -> None:
        """Publish an exit event."""
        said = events_task_pb2.TaskExit(
            container_id=container, id=process or container, exit_status=status
        )
        value = AnyMessage(type_url="containerd.events.TaskExit", value=said.SerializeToString())
        envelope = events_pb2.Envelope(namespace="hpcc", topic="/tasks/exit", event=value)
        for listener in self.listeners:
            listener.put_nowait(envelope)

    # The handlers, by service and method.

    async def _version(self, _: Any) -> Any:
        return version_pb2.VersionResponse(version=self.version)

    async def _namespace(self, _: Any) -> Any:
        return namespace_pb2.CreateNamespaceResponse()

    async def _list_images(self, request: images_pb2.ListImagesRequest) -> Any:
        return images_pb2.ListImagesResponse(
            images=[
                images_pb2.Image(name=name, target=descriptor_pb2.Descriptor(digest=digest))
                for name, digest in self.images.items()
                if request.filters == [f'target.digest=="{digest}"']
            ]
        )

    async def _transfer(self, _: Any) -> Any:
        return Empty()

    async def _stat(self, request: Any) -> Any:
        if request.key not in self.snapshots:
            raise GRPCError(Status.NOT_FOUND, "snapshot does not exist")
        kind = snapshots_pb2.COMMITTED if self.snapshots[request.key] else snapshots_pb2.ACTIVE
        return snapshots_pb2.StatSnapshotResponse(info=snapshots_pb2.Info(kind=kind))

    async def _prepare(self, request: Any) -> Any:
        if request.parent not in self.snapshots:
            raise GRPCError(Status.NOT_FOUND, f"parent {request.parent} does not exist")
        self.snapshots[request.key] = False
        return snapshots_pb2.PrepareSnapshotResponse(mounts=[mount_pb2.Mount(**self._mount)])

    async def _commit(self, request: Any) -> Any:
        del self.snapshots[request.key]
        self.snapshots[request.name] = True
        return Empty()

    async def _remove(self, request: Any) -> Any:
        if self.snapshots.pop(request.key, None) is None:
            raise GRPCError(Status.NOT_FOUND, "snapshot does not exist")
        return Empty()

    async def _apply(self, request: diff_pb2.ApplyRequest) -> Any:
        return diff_pb2.ApplyResponse(applied=descriptor_pb2.Descriptor(digest=request.diff.digest))

    async def _lease(self, _: Any) -> Any:
        return leases_pb2.CreateResponse()

    async def _empty(self, _: Any) -> Any:
        return Empty()

    async def _create_container(self, request: containers_pb2.CreateContainerRequest) -> Any:
        self.containers[request.container.id] = request.container
        return containers_pb2.CreateContainerResponse(container=request.container)

    async def _list_containers(self, _: Any) -> Any:
        return containers_pb2.ListContainersResponse(containers=self.containers.values())

    async def _delete_container(self, request: Any) -> Any:
        if self.containers.pop(request.id, None) is None:
            raise GRPCError(Status.NOT_FOUND, "container does not exist")
        return Empty()

    async def _create_task(self, request: Any) -> Any:
        self.tasks[request.container_id, ""] = Task(request)
        return tasks_pb2.CreateTaskResponse(container_id=request.container_id, pid=4711)

    async def _exec(self, request: Any) -> Any:
        self.tasks[request.container_id, request.exec_id] = Task(request)
        return Empty()

    async def _start(self, request: Any) -> Any:
        self._task(request)
        if (waiting := self.on_start(request.container_id, request.exec_id)) is not None:
            await waiting
        return tasks_pb2.StartResponse(pid=4712)

    async def _wait(self, request: Any) -> Any:
        task = self._task(request)
        await task.ended.wait()
        return tasks_pb2.WaitResponse(exit_status=task.status)

    async def _kill(self, request: Any) -> Any:
        self._task(request)
        for container, process in list(self.tasks):
            if container == request.container_id and (process == request.exec_id or request.all):
                self.end(container, _SIGKILL, process=process)
        return Empty()

    async def _delete_task(self, request: Any) -> Any:
        task = self._task(request)
        if not task.ended.is_set():
            raise GRPCError(Status.UNKNOWN, "cannot delete a running process")
        process = getattr(request, "exec_id", "")
        del self.tasks[request.container_id, process]
        return tasks_pb2.DeleteResponse(exit_status=task.status)

    def _task(self, request: Any) -> Task:
        found = self.tasks.get((request.container_id, getattr(request, "exec_id", "")))
        if found is None:
            raise GRPCError(Status.NOT_FOUND, "no running task found")
        return found

    async def _read(self, stream: Any, request: Any) -> None:
        if request.digest not in self.content:
            raise GRPCError(Status.NOT_FOUND, "content not found")
        data = self.content[request.digest]
        await stream.send_message(content_pb2.ReadContentResponse(offset=0, data=data))

    async def _write(self, stream: Any, request: Any) -> None:
        while request is not None:
            await stream.send_message(content_pb2.WriteContentResponse())
            if request.action == content_pb2.COMMIT:
                return
            request = await stream.recv_message()

    async def _subscribe(self, stream: Any, _: Any) -> None:
        queue: asyncio.Queue[events_pb2.Envelope] = asyncio.Queue()
        self.listeners.append(queue)
        try:
            while True:
                await stream.send_message(await queue.get())
        finally:
            self.listeners.remove(queue)

    def __mapping__(self) -> dict[str, Handler]:
        c, s, t = containers_pb2, snapshots_pb2, tasks_pb2
        unary: dict[str, tuple[Any, Any]] = {
            "version.v1.Version/Version": (Empty, self._version),
            "namespaces.v1.Namespaces/Create": (
                namespace_pb2.CreateNamespaceRequest, self._namespace,
            ),
            "images.v1.Images/List": (images_pb2.ListImagesRequest, self._list_images),
            "transfer.v1.Transfer/Transfer": (transfer_pb2.TransferRequest, self._transfer),
            "snapshots.v1.Snapshots/Stat": (s.StatSnapshotRequest, self._stat),
            "snapshots.v1.Snapshots/Prepare": (s.PrepareSnapshotRequest, self._prepare),
            "snapshots.v1.Snapshots/Commit": (s.CommitSnapshotRequest, self._commit),
            "snapshots.v1.Snapshots/Remove": (s.RemoveSnapshotRequest, self._remove),
            "diff.v1.Diff/Apply": (diff_pb2.ApplyRequest, self._apply),
            "leases.v1.Leases/Create": (leases_pb2.CreateRequest, self._lease),
            "leases.v1.Leases/Delete": (leases_pb2.DeleteRequest, self._empty),
            "containers.v1.Containers/Create": (c.CreateContainerRequest, self._create_container),
            "containers.v1.Containers/List": (c.ListContainersRequest, self._list_containers),
            "containers.v1.Containers/Delete": (c.DeleteContainerRequest, self._delete_container),
            "tasks.v1.Tasks/Create": (t.CreateTaskRequest, self._create_task),
            "tasks.v1.Tasks/Exec": (t.ExecProcessRequest, self._exec),
            "tasks.v1.Tasks/Start": (t.StartRequest, self._start),
            "tasks.v1.Tasks/Wait": (t.WaitRequest, self._wait),
            "tasks.v1.Tasks/Kill": (t.KillRequest, self._kill),
            "tasks.v1.Tasks/CloseIO": (t.CloseIORequest, self._empty),
            "tasks.v1.Tasks/Delete": (t.DeleteTaskRequest, self._delete_task),
            "tasks.v1.Tasks/DeleteProcess": (t.DeleteProcessRequest, self._delete_task),
        }  # fmt: skip
        streams: dict[str, tuple[Any, Any]] = {
            "content.v1.Content/Read": (content_pb2.ReadContentRequest, self._read),
            "content.v1.Content/Write": (content_pb2.WriteContentRequest, self._write),
            "events.v1.Events/Subscribe": (events_pb2.SubscribeRequest, self._subscribe),
        }
        return {
            f"/containerd.services.{path}": Handler(
                self._handler(path, call, is_unary=path in unary),
                Cardinality.UNARY_UNARY if path in unary else Cardinality.STREAM_STREAM,
                kind,
                object,
            )
            for path, (kind, call) in (unary | streams).items()
        }

    def _handler(self, path: str, call: Any, *, is_unary: bool) -> Any:
        name = path.rpartition(".")[2]

        async def handle(stream: Any) -> None:
            request = await stream.recv_message()
            self.calls.append(name)
            self.requests.setdefault(name, []).append(request)
            if name in self.held:
                await self.held[name].wait()
            if name in self.refusals:
                raise GRPCError(self.refusals[name], f"no {name}")
            if is_unary:
                await stream.send_message(await call(request))
            else:
                await call(stream, request)

        return handle


@asynccontextmanager
async def serving(daemon: ScriptedContainerd, path: Path) -> AsyncIterator[Connect]:
    """Serve the daemon on a Unix socket; yield the function that connects to it."""
    server = Server([daemon])
    await server.start(path=str(path))
    try:
        yield unix_connector(path)
    finally:
        server.close()
        await server.wait_closed()
