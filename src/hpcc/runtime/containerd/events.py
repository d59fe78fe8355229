"""How a container's end is noticed: by the answer to Wait, and by the exit event of its task.

Both are asked, because each misses something. Wait fails at once if a shim was killed. Events from
before the subscription, or from while containerd restarts, are lost.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, Coroutine
from contextlib import aclosing
from dataclasses import dataclass
from typing import Final

from google.protobuf.message import DecodeError
from grpclib import Status

from hpcc._proto.containerd import events_pb2, events_task_pb2
from hpcc._proto.containerd.events_grpc import EventsStub
from hpcc.runtime.containerd.client import Containerd, ContainerdError, foreign

_EXIT_TYPE: Final = "containerd.events.TaskExit"
_EXIT_TOPIC: Final = "/tasks/exit"
_RETRY_SECONDS: Final = 0.5


@dataclass(frozen=True, slots=True)
class TaskExit:
    """A process that has ended. If both ids are equal it is the container's first process."""

    container_id: str
    process_id: str
    status: int

    @property
    def is_first_process(self) -> bool:
        """Whether this is the container's first process, whose end is the container's."""
        return self.process_id in {"", self.container_id}


async def task_exits(client: Containerd, container_id: str) -> AsyncGenerator[TaskExit]:
    """Yield the exits of one container's processes from now on, without a deadline.

    Raises:
        ContainerdError: the stream ended or never began.
    """
    filters = (
        f'namespace=="{client.namespace}",topic=="{_EXIT_TOPIC}",'
        f'event.container_id=="{container_id}"'
    )
    request = events_pb2.SubscribeRequest(filters=[filters])
    async with foreign("events"), EventsStub(client.channel).Subscribe.open() as stream:
        await stream.send_message(request, end=True)
        async for envelope in stream:
            found = parse_exit(envelope)
            # containerd applies the filter; the ids are checked here all the same.
            if found is not None and found.container_id == container_id:
                yield found
    raise ContainerdError("containerd, events: the stream ended")


def parse_exit(envelope: events_pb2.Envelope) -> TaskExit | None:
    """Return the exit that an event reports; None for any other event."""
    if envelope.event.type_url != _EXIT_TYPE:
        return None
    try:
        said = events_task_pb2.TaskExit.FromString(envelope.event.value)
    except DecodeError:
        return None
    return TaskExit(said.container_id, said.id, said.exit_status)


async def wait_end(client: Containerd, container_id: str) -> str:
    """Wait until a container's first process has ended; returns how that was noticed.

    It has no deadline. A containerd that does not answer is asked again every half second, because
    containers go on while it restarts.
    """
    loop = asyncio.get_running_loop()
    witnesses: list[Coroutine[None, None, str]] = [
        _by_answer(client, container_id),
        _by_event(client, container_id),
    ]
    tasks = [loop.create_task(witness) for witness in witnesses]
    try:
        done, _ = await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
        return done.pop().result()
    finally:
        for task in tasks:
            task.cancel()
        await asyncio.wait(tasks)


async def _by_answer(client: Containerd, container_id: str) -> str:
    while True:
        try:
            return f"the container ended with status {await client.wait(container_id)}"
        except ContainerdError as error:
            if error.status is Status.NOT_FOUND:
                return "the container is gone: containerd knows no task of it"
        await asyncio.sleep(_RETRY_SECONDS)


async def _by_event(client: Containerd, container_id: str) -> str:
    while True:
        try:
            async with aclosing(task_exits(client, container_id)) as exits:
                async for exit_ in exits:
                    if exit_.is_first_process:
                        return f"the container ended with status {exit_.status} (its exit event)"
        except ContainerdError:
            pass
        await asyncio.sleep(_RETRY_SECONDS)
