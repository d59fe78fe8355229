"""The part of containerd's gRPC API that a runtime needs, equal on every operating system.

Code tells errors apart only by their status. A shim's failure is UNKNOWN with a text for people.
"""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Final, cast

from google.protobuf.any_pb2 import Any as AnyMessage
from google.protobuf.empty_pb2 import Empty
from grpclib import GRPCError, Status
from grpclib.client import Channel
from grpclib.exceptions import ProtocolError, StreamTerminatedError
from grpclib.protocol import H2Protocol

from hpcc._proto.containerd import containers_pb2, mount_pb2, namespace_pb2, oci_pb2, tasks_pb2
from hpcc._proto.containerd.containers_grpc import ContainersStub
from hpcc._proto.containerd.namespace_grpc import NamespacesStub
from hpcc._proto.containerd.tasks_grpc import TasksStub
from hpcc._proto.containerd.version_grpc import VersionStub
from hpcc.core import InfrastructureError

NAMESPACE: Final = "hpcc"
# A call that starts or ends processes, on a loaded machine.
_CALL_SECONDS: Final = 30.0
_PIPE_SECONDS: Final = 5.0
_SIGKILL: Final = 9
_MAX_TEXT_CHARS: Final = 800
# Without the prefix type.googleapis.com/: containerd compares these as they are.
_SPEC: Final = "types.containerd.io/opencontainers/runtime-spec/1/Spec"
_PROCESS: Final = "types.containerd.io/opencontainers/runtime-spec/1/Process"
_RUNC_OPTIONS: Final = "containerd.runc.v1.Options"
# grpclib raises AttributeError when a connection closes during a call.
_FOREIGN_ERRORS: Final = (ProtocolError, StreamTerminatedError, OSError, AttributeError)

type Connect = Callable[[Callable[[], H2Protocol]], Awaitable[H2Protocol]]


class ContainerdError(InfrastructureError):
    """containerd refused a call, failed in it or cannot be reached."""

    default_reason = "containerd"

    def __init__(self, message: str, status: Status | None = None) -> None:
        super().__init__(message)
        self.status = status


@dataclass(frozen=True, slots=True, kw_only=True)
class RootMount:
    """One of the mounts that make up a container's root, in order; `target` is below the root."""

    kind: str
    source: str
    options: tuple[str, ...] = ()
    target: str = ""


@dataclass(frozen=True, slots=True)
class RuntimeOptions:
    """Options for the shim: a message of the kind that its runtime reads. No type: no options."""

    type_url: str = ""
    value: bytes = b""


@dataclass(frozen=True, slots=True, kw_only=True)
class StdioPaths:
    """Where the shim finds a process's standard streams: paths of FIFOs or pipes; "" for none."""

    stdin: str = ""
    stdout: str = ""
    stderr: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class ScratchSnapshot:
    """The snapshot that a container writes to. A record that names it keeps it from collection."""

    snapshotter: str
    key: str


_NO_OPTIONS: Final = RuntimeOptions()


def runc_options(runc: Path) -> RuntimeOptions:
    """Return the options that make the shim of Linux run this program."""
    options = oci_pb2.Options(binary_name=str(runc))
    return RuntimeOptions(_RUNC_OPTIONS, options.SerializeToString())


@dataclass(frozen=True, slots=True)
class ContainerRecord:
    """A container that containerd stores."""

    container_id: str
    labels: Mapping[str, str]


def unix_connector(path: Path) -> Connect:
    """Return a connector for a containerd that listens on a Unix socket."""

    async def connect(protocol: Callable[[], H2Protocol]) -> H2Protocol:
        loop = asyncio.get_running_loop()
        _, made = await loop.create_unix_connection(protocol, str(path))
        return made

    return connect


def pipe_connector(address: str) -> Connect:
    """Return a connector for a containerd that listens on a named pipe. Windows only.

    The event loop itself retries a busy pipe. Not yet run on Windows.
    """

    async def connect(protocol: Callable[[], H2Protocol]) -> H2Protocol:
        loop = asyncio.get_running_loop()
        # Only ProactorEventLoop, the default on Windows, has it.
        create = getattr(loop, "create_pipe_connection", None)
        if create is None:
            raise ContainerdError(f"containerd, {address}: this event loop has no named pipes")
        try:
            async with asyncio.timeout(_PIPE_SECONDS):
                _, made = await create(protocol, address)
        except FileNotFoundError as error:
            raise ContainerdError(
                f"containerd does not listen on {address}: start it (`Start-Service containerd`),"
                " or name its pipe in the setting `containerd`"
            ) from error
        return cast("H2Protocol", made)

    return connect


class _ConnectedChannel(Channel):
    """grpclib's channel over whatever `connect` opens."""

    def __init__(self, connect: Connect) -> None:
        super().__init__(path="containerd")
        self._connect = connect

    async def _create_connection(self) -> H2Protocol:
        # Private in grpclib, whose 0.4.x is pinned. The containers' contract suite covers it.
        return await self._connect(self._protocol_factory)


class Containerd:
    """A client of one containerd namespace; call `close` when done.

    Every method raises `ContainerdError`. A call takes 30 s at most unless its docstring says more.
    """

    def __init__(self, connect: Connect, namespace: str = NAMESPACE) -> None:
        self.channel: Final = _ConnectedChannel(connect)
        self.namespace: Final = namespace
        self._metadata = {"containerd-namespace": namespace}
        self._containers, self._tasks = ContainersStub(self.channel), TasksStub(self.channel)

    def close(self) -> None:
        """Close the connection; idempotent."""
        self.channel.close()

    async def version(self) -> str:
        """Return the daemon's version, such as `1.7.24`."""
        async with foreign("version"):
            answer = await VersionStub(self.channel).Version(Empty(), timeout=_CALL_SECONDS)
        return answer.version

    async def ensure_namespace(self) -> None:
        """Create the namespace unless it exists."""
        namespace = namespace_pb2.Namespace(name=self.namespace)
        request = namespace_pb2.CreateNamespaceRequest(namespace=namespace)
        async with foreign("namespace", Status.ALREADY_EXISTS):
            await NamespacesStub(self.channel).Create(request, timeout=_CALL_SECONDS)

    async def create_container(
        self,
        container_id: str,
        runtime: str,
        spec: object,
        labels: Mapping[str, str],
        scratch: ScratchSnapshot | None = None,
    ) -> None:
        """Create the record; `spec` is an OCI runtime specification as JSON values.

        `scratch` need not exist yet. Created after the record, it always has an owner and is never
        collected.
        """
        container = containers_pb2.Container(
            id=container_id,
            labels=dict(labels),
            runtime=containers_pb2.Container.Runtime(name=runtime),
            spec=AnyMessage(type_url=_SPEC, value=json.dumps(spec).encode()),
            snapshotter=scratch.snapshotter if scratch else "",
            snapshot_key=scratch.key if scratch else "",
        )
        request = containers_pb2.CreateContainerRequest(container=container)
        async with foreign("create container"):
            await self._containers.Create(request, timeout=_CALL_SECONDS, metadata=self._metadata)

    async def containers(self) -> list[ContainerRecord]:
        """Return the containers of the namespace."""
        request = containers_pb2.ListContainersRequest()
        async with foreign("list containers"):
            answer = await self._containers.List(
                request, timeout=_CALL_SECONDS, metadata=self._metadata
            )
        return [ContainerRecord(c.id, dict(c.labels)) for c in answer.containers]

    async def create_task(
        self,
        container_id: str,
        rootfs: Sequence[RootMount],
        options: RuntimeOptions = _NO_OPTIONS,
        *,
        timeout_seconds: float = _CALL_SECONDS,
    ) -> int:
        """Mount the root and create the container's first process; returns its pid.

        With a utility VM this takes as long as the VM boots.
        """
        request = tasks_pb2.CreateTaskRequest(
            container_id=container_id,
            rootfs=[
                mount_pb2.Mount(type=m.kind, source=m.source, target=m.target, options=m.options)
                for m in rootfs
            ],
            options=AnyMessage(type_url=options.type_url, value=options.value)
            if options.type_url
            else None,
        )
        async with foreign("create task"):
            answer = await self._tasks.Create(
                request, timeout=timeout_seconds, metadata=self._metadata
            )
        return answer.pid

    async def start(self, container_id: str, exec_id: str = "") -> int:
        """Start a process that `create_task` or `exec` created; returns its pid."""
        request = tasks_pb2.StartRequest(container_id=container_id, exec_id=exec_id)
        async with foreign("start"):
            answer = await self._tasks.Start(
                request, timeout=_CALL_SECONDS, metadata=self._metadata
            )
        return answer.pid

    async def exec(
        self, container_id: str, exec_id: str, process: object, stdio: StdioPaths
    ) -> None:
        """Create a further process from an OCI `process` as JSON values."""
        request = tasks_pb2.ExecProcessRequest(
            container_id=container_id,
            exec_id=exec_id,
            stdin=stdio.stdin,
            stdout=stdio.stdout,
            stderr=stdio.stderr,
            spec=AnyMessage(type_url=_PROCESS, value=json.dumps(process).encode()),
        )
        async with foreign("exec"):
            await self._tasks.Exec(request, timeout=_CALL_SECONDS, metadata=self._metadata)

    async def wait(self, container_id: str, exec_id: str = "") -> int:
        """Return the exit status of a process once it has ended. Waits without a deadline.

        Without `exec_id` it waits for the container's first process.
        """
        request = tasks_pb2.WaitRequest(container_id=container_id, exec_id=exec_id)
        async with foreign("wait"):
            answer = await self._tasks.Wait(request, metadata=self._metadata)
        return answer.exit_status

    async def close_stdin(self, container_id: str, exec_id: str) -> None:
        """Close a process's standard input, which the shim also holds open."""
        request = tasks_pb2.CloseIORequest(container_id=container_id, exec_id=exec_id, stdin=True)
        async with foreign("close stdin", Status.NOT_FOUND):
            await self._tasks.CloseIO(request, timeout=_CALL_SECONDS, metadata=self._metadata)

    async def kill(self, container_id: str) -> None:
        """Kill every process in the container; succeeds if they are already gone."""
        async with foreign("kill", Status.NOT_FOUND):
            await self._kill(container_id)

    async def remove_exec(self, container_id: str, exec_id: str) -> None:
        """End one further process and remove its record; succeeds if it is already gone.

        Every step runs even if an earlier one failed. The last error is raised.
        """
        await _all_of(
            ("kill", lambda: self._kill(container_id, exec_id)),
            ("wait", lambda: self._wait_ended(container_id, exec_id)),
            ("delete", lambda: self._delete_exec(container_id, exec_id)),
        )

    async def remove(self, container_id: str, exec_ids: Sequence[str] = ()) -> None:
        """End every process in the container and remove it; succeeds if it is already gone.

        Every step runs even if an earlier one failed. The last error is raised.
        """
        await _all_of(
            ("kill", lambda: self._kill(container_id)),
            ("wait", lambda: self._wait_ended(container_id)),
            *[(f"delete {e}", lambda e=e: self._delete_exec(container_id, e)) for e in exec_ids],
            ("delete task", lambda: self._delete_task(container_id)),
            ("delete container", lambda: self._delete_container(container_id)),
        )

    async def _kill(self, container_id: str, exec_id: str = "") -> None:
        request = tasks_pb2.KillRequest(
            container_id=container_id, exec_id=exec_id, signal=_SIGKILL, all=not exec_id
        )
        await self._tasks.Kill(request, timeout=_CALL_SECONDS, metadata=self._metadata)

    async def _wait_ended(self, container_id: str, exec_id: str = "") -> None:
        request = tasks_pb2.WaitRequest(container_id=container_id, exec_id=exec_id)
        await self._tasks.Wait(request, timeout=_CALL_SECONDS, metadata=self._metadata)

    async def _delete_exec(self, container_id: str, exec_id: str) -> None:
        request = tasks_pb2.DeleteProcessRequest(container_id=container_id, exec_id=exec_id)
        await self._tasks.DeleteProcess(request, timeout=_CALL_SECONDS, metadata=self._metadata)

    async def _delete_task(self, container_id: str) -> None:
        request = tasks_pb2.DeleteTaskRequest(container_id=container_id)
        await self._tasks.Delete(request, timeout=_CALL_SECONDS, metadata=self._metadata)

    async def _delete_container(self, container_id: str) -> None:
        request = containers_pb2.DeleteContainerRequest(id=container_id)
        await self._containers.Delete(request, timeout=_CALL_SECONDS, metadata=self._metadata)


async def _all_of(*steps: tuple[str, Callable[[], Awaitable[object]]]) -> None:
    failure: ContainerdError | None = None
    for what, step in steps:
        try:
            async with foreign(what, Status.NOT_FOUND):
                await step()
        except ContainerdError as error:
            failure = error
    if failure is not None:
        raise failure


@asynccontextmanager
async def foreign(what: str, *harmless: Status) -> AsyncIterator[None]:
    """Turn grpclib's errors into `ContainerdError`, except for a `harmless` status."""
    try:
        yield
    except GRPCError as error:
        if error.status not in harmless:
            text = (error.message or "")[:_MAX_TEXT_CHARS]
            raise ContainerdError(
                f"containerd, {what}: {error.status.name}: {text}", error.status
            ) from error
    except TimeoutError as error:
        raise ContainerdError(f"containerd, {what}: no answer in time") from error
    except _FOREIGN_ERRORS as error:
        raise ContainerdError(
            f"containerd, {what}: {str(error) or type(error).__name__}"
        ) from error
