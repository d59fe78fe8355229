"""A guest without a permanent agent: each exec starts an agent in the container and ends it.

The agent speaks on its standard streams, so that files are transferred as to any other guest:
checked, bounded, and without a directory that host and guest share. One exec runs at a time,
because all agents of a container work in the same directories.
"""

from __future__ import annotations

import asyncio
import secrets
import socket
import sys
from collections.abc import AsyncGenerator, Callable
from contextlib import (
    AbstractAsyncContextManager,
    AsyncExitStack,
    aclosing,
    asynccontextmanager,
    suppress,
)
from dataclasses import dataclass
from typing import Final, Protocol

from hpcc._proto import agent_pb2 as pb
from hpcc.core import ExecEvent, ExecRequest, InfrastructureError, IntegrityError
from hpcc.ports import BlobSource, Clock, GuestLostError
from hpcc.runtime.channel.channel import GuestChannel
from hpcc.runtime.containerd.client import Containerd, ContainerdError, StdioPaths
from hpcc.runtime.containerd.container_vm import whole
from hpcc.wire.exec_frames import ENTROPY_BYTES, check_exec_request
from hpcc.wire.link import TOKEN_BYTES

# The start of an interpreter on a busy machine.
_START_SECONDS: Final = 60.0
# How long an agent may take to end, with its compile, after its stream has ended.
_LEAVE_SECONDS: Final = 5.0
_END_SECONDS: Final = 60.0


class Streams(Protocol):
    """The standard streams of one process that is about to start.

    `connect` waits until the shim has opened them. It returns a socket that is joined with both
    streams: the process reads what is written to the socket, and writes what is read from it.
    """

    @property
    def stdio(self) -> StdioPaths:
        """The names of the streams, for the shim."""
        ...

    @property
    def last_words(self) -> str:
        """The end of the process's standard error, made printable. Hostile."""

    async def connect(self) -> socket.socket:
        """Wait, without a deadline, for the process; the caller owns the socket."""
        ...


type NewStreams = Callable[[], AbstractAsyncContextManager[Streams]]


@dataclass(frozen=True, slots=True, kw_only=True)
class ExecPlan:
    """What to start for each exec, and in which container; `agent` returns an OCI process."""

    container_id: str
    agent: Callable[[], object]
    streams: NewStreams


class ExecChannel:
    """A `hpcc.runtime.vm.vm.SessionChannel` with one agent per exec; call `close` when done."""

    def __init__(self, client: Containerd, plan: ExecPlan, clock: Clock) -> None:
        self._client, self._plan, self._clock = client, plan, clock
        self.lost: asyncio.Future[str] = asyncio.get_running_loop().create_future()
        self.last_detail = ""
        self._turn = asyncio.Lock()
        self._guest_id = plan.container_id
        self._count = 0

    async def connect(self) -> None:
        """Do nothing: an agent exists only while an exec runs."""

    def retire(self, reason: str) -> None:
        """Give up the guest: the running exec fails with `reason`, and no new exec starts."""
        if not self.lost.done():
            self.lost.set_result(reason)

    def close(self) -> None:
        """Give up the guest; idempotent."""
        self.retire("closed")

    async def exec(
        self, request: ExecRequest, blobs: BlobSource, first_exec: pb.Guest | None = None
    ) -> AsyncGenerator[ExecEvent]:
        """Run one compile; see `hpcc.ports.Guest.exec`.

        `first_exec` is what the guest learns in its first exec. Later agents get the same values.
        """
        check_exec_request(request)
        async with self._turn:
            self._check()
            try:
                async with self._agent() as channel:
                    events = channel.exec(request, blobs, first_exec or self._first_exec())
                    async with aclosing(events):
                        async for event in events:
                            self.last_detail = channel.last_detail
                            yield event
            except GuestLostError as error:
                self.retire(str(error))
                raise

    def _check(self) -> None:
        if self.lost.done():
            raise GuestLostError(f"guest lost: {self.lost.result()}")

    def _first_exec(self) -> pb.Guest:
        """Return what a guest learns in its first exec, for a new agent. It holds no secret."""
        return pb.Guest(
            guest_id=self._guest_id,
            wall_time_ns=int(self._clock.now() * 1e9),
            entropy=secrets.token_bytes(ENTROPY_BYTES),
        )

    @asynccontextmanager
    async def _agent(self) -> AsyncGenerator[GuestChannel]:
        """Start an agent and connect to it; after the block, it and its processes have ended."""
        name, self._count = f"x{self._count}", self._count + 1
        container = self._plan.container_id
        async with AsyncExitStack() as stack:
            try:
                streams = await stack.enter_async_context(self._plan.streams())
            except (OSError, InfrastructureError) as error:
                raise GuestLostError(f"guest lost: no pipes for an exec: {error}") from error
            try:
                channel = await self._connected(name, streams)

                def give_up(lost: asyncio.Future[str]) -> None:
                    channel.retire(lost.result())

                # The container's end also ends this exec.
                self.lost.add_done_callback(give_up)
                try:
                    yield channel
                finally:
                    self.lost.remove_done_callback(give_up)
                    channel.close()
            finally:
                await whole(self._end(container, name))

    async def _connected(self, name: str, streams: Streams) -> GuestChannel:
        channel: GuestChannel | None = None
        try:
            async with asyncio.timeout(_START_SECONDS):
                channel = await self._start(name, streams)
                await channel.connect()
        except (TimeoutError, InfrastructureError, IntegrityError, OSError) as error:
            text = str(error) or "no answer from the exec's agent in time"
            raise GuestLostError(f"guest lost: {text}\n{streams.last_words}".rstrip()) from error
        finally:
            if channel is not None and sys.exception() is not None:
                channel.close()
        return channel

    async def _start(self, name: str, streams: Streams) -> GuestChannel:
        container, agent = self._plan.container_id, self._plan.agent()
        await whole(self._client.exec(container, name, agent, streams.stdio))
        await whole(self._client.start(container, name))
        token = secrets.token_hex(TOKEN_BYTES // 2).encode()
        return GuestChannel(await streams.connect(), token)

    async def _end(self, container: str, name: str) -> None:
        """End the agent. It may end by itself first, because it removes what it made."""
        with suppress(ContainerdError, TimeoutError):
            async with asyncio.timeout(_LEAVE_SECONDS):
                await self._client.close_stdin(container, name)
                await self._client.wait(container, name)
        try:
            async with asyncio.timeout(_END_SECONDS):
                await self._client.remove_exec(container, name)
        except (ContainerdError, TimeoutError) as error:
            # A process that still runs there could reach into the next exec.
            self.retire(f"an exec's agent cannot be ended: {error}")
