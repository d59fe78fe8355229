"""What every backend shares: the VMM's process, the boot with its retries, the guest."""

from __future__ import annotations

import asyncio
import secrets
import shutil
import socket
from abc import ABC, abstractmethod
from collections.abc import AsyncGenerator, AsyncIterator, Callable, Coroutine
from contextlib import asynccontextmanager, suppress
from pathlib import Path
from typing import Final, Protocol

from hpcc._proto import agent_pb2 as pb
from hpcc.core import (
    ExecEvent,
    ExecLimits,
    ExecRequest,
    IntegrityError,
    ResultEvent,
)
from hpcc.ports import (
    BlobSource,
    Clock,
    GuestBootError,
    GuestIdentity,
    GuestLostError,
    GuestSpec,
)
from hpcc.runtime.host.leftovers import new_directory
from hpcc.runtime.host.threads import in_thread
from hpcc.runtime.host.users import Leases
from hpcc.wire.exec_frames import ENTROPY_BYTES
from hpcc.wire.link import MAX_JUNK_BYTES, READY

_CONSOLE_BYTES: Final = 64 << 10
_LAST_WORDS_SECONDS: Final = 2.0
_CONSOLE_TAIL_CHARS: Final = 1500
_END_SECONDS: Final = 10.0
_BOOT_TRIES: Final = 2
_SELF_TEST: Final = "hpcc-self-test"
_READ_BYTES: Final = 4096


class _NoBlobs:
    async def read(self, digest: object) -> bytes:
        raise GuestLostError(f"the self-test has no input {digest}")


class SessionChannel(Protocol):
    """How a `VmGuest` talks to its agent.

    Either a `GuestChannel`, or a channel that starts an agent for each exec.
    """

    @property
    def lost(self) -> asyncio.Future[str]:
        """Completes with a reason when the guest is lost."""
        ...

    @property
    def last_detail(self) -> str:
        """The agent's text on its latest failure. Hostile, made printable."""
        ...

    async def connect(self) -> None:
        """Wait, without a deadline, until the agent answers.

        Raises:
            GuestLostError: the stream ended, or the peer is not the expected guest.
        """
        ...

    def exec(
        self, request: ExecRequest, blobs: BlobSource, first_exec: pb.Guest | None = None
    ) -> AsyncGenerator[ExecEvent]:
        """Run one compile; see `hpcc.ports.Guest.exec`. `first_exec` is for the first exec only."""
        ...

    def retire(self, reason: str) -> None:
        """Give up the guest: running execs fail with `reason`, and no new exec starts."""
        ...

    def close(self) -> None:
        """Give up the guest and release the connection; idempotent."""
        ...


class VmGuest:
    """`hpcc.ports.Guest` over one VM. `vmm_pid` is the VMM's process id on the host."""

    def __init__(self, identity: GuestIdentity, channel: SessionChannel, vmm_pid: int) -> None:
        self.identity, self.vmm_pid = identity, vmm_pid
        self._channel = channel

    @property
    def lost(self) -> asyncio.Future[str]:
        """Completes with a reason when the guest is lost; see `hpcc.ports.Guest.lost`."""
        return self._channel.lost

    @property
    def is_lost(self) -> bool:
        """Whether the guest is lost."""
        return self._channel.lost.done()

    async def exec(self, request: ExecRequest, blobs: BlobSource) -> AsyncGenerator[ExecEvent]:
        """Run one compile; see `hpcc.ports.Guest.exec`."""
        events = self._channel.exec(request, blobs)
        try:
            async for event in events:
                yield event
        finally:
            await events.aclose()


class Vm(ABC):
    """One VMM process with everything that belongs to it.

    `end` undoes `start`, however far `start` came, also after a cancel.
    """

    def __init__(self) -> None:
        self._console = bytearray()
        self._errors = bytearray()
        self._directory: Path | None = None
        self._process: asyncio.subprocess.Process | None = None
        self._channel: SessionChannel | None = None
        self._tasks: list[asyncio.Task[None]] = []
        self._ending: asyncio.Task[None] | None = None
        self._exited: asyncio.Future[str] = asyncio.get_running_loop().create_future()
        self._leases: list[tuple[Leases, int]] = []

    @property
    @abstractmethod
    def pid(self) -> int:
        """The VMM's process id; 0 before it runs."""

    @property
    @abstractmethod
    def identity(self) -> GuestIdentity:
        """What audit rows record about the guest."""
        ...

    @abstractmethod
    async def start(self) -> SessionChannel:
        """Start the VMM; returns the channel to the guest, not connected yet.

        Raises:
            GuestLostError: the VMM ended.
            IntegrityError: the VMM sent something that is not allowed.
            OSError: the VMM or a file could not be opened, or a connection failed.
        """

    def _lease(self, leases: Leases) -> int:
        """Return a number that belongs to this VM until it has ended."""
        number = leases.take()
        self._leases.append((leases, number))
        return number

    def _give_back(self, _: object) -> None:
        for leases, number in self._leases:
            leases.give_back(number)

    async def _make_directory(self, parent: Path) -> Path:
        """Create the VM's directory; `end` removes it even if this call is cancelled."""

        def make() -> Path:
            self._directory = new_directory(parent)
            return self._directory

        return await in_thread(make)

    async def _launch(
        self, spawn: Coroutine[None, None, asyncio.subprocess.Process]
    ) -> asyncio.subprocess.Process:
        """Start the process and own it, even if this call is cancelled."""
        starting = asyncio.get_running_loop().create_task(spawn)
        try:
            await asyncio.shield(starting)
        except asyncio.CancelledError:
            await asyncio.wait([starting])
            if not starting.cancelled() and starting.exception() is None:
                self._adopt(starting.result())
            raise
        self._adopt(starting.result())
        return starting.result()

    def _adopt(self, process: asyncio.subprocess.Process) -> None:
        """Own the process from now on: its output and its end."""
        loop = asyncio.get_running_loop()
        self._process = process
        assert process.stdout is not None
        assert process.stderr is not None
        self._tasks = [
            loop.create_task(_keep_tail(process.stdout, self._console)),
            loop.create_task(_keep_tail(process.stderr, self._errors)),
            loop.create_task(self._watch(process)),
        ]

    def _attach(self, channel: SessionChannel) -> None:
        self._channel = channel
        if self._exited.done():
            channel.retire(self._exited.result())
        # A guest that broke the protocol is ended at once, not when its last user leaves it.
        channel.lost.add_done_callback(lambda _: self._kill())

    async def _watch(self, process: asyncio.subprocess.Process) -> None:
        reason = f"the VM ended with status {await process.wait()}"
        self._exited.set_result(reason)
        if self._channel is not None:
            self._channel.retire(reason)

    async def _while_alive[T](self, work: Coroutine[None, None, T]) -> T:
        """Return the result of `work`, unless the VMM ends first.

        Raises:
            GuestLostError: the VMM ended.
        """
        task = asyncio.get_running_loop().create_task(work)
        try:
            ends: list[asyncio.Future[T] | asyncio.Future[str]] = [task, self._exited]
            await asyncio.wait(ends, return_when=asyncio.FIRST_COMPLETED)
            if not task.done():
                raise GuestLostError(self._exited.result())
            return task.result()
        finally:
            task.cancel()
            await asyncio.wait([task])

    @property
    def console(self) -> str:
        """The end of what the guest wrote to its console. Hostile."""
        return self._console.decode("utf-8", "replace")

    def boot_error(self, cause: str) -> GuestBootError:
        """Return an error with the last output of console and VMM."""
        said = [
            text.decode("utf-8", "replace").strip()[-_CONSOLE_TAIL_CHARS:]
            for text in (self._errors, self._console)
        ]
        printable = ["".join(c if c.isprintable() or c == "\n" else "?" for c in t) for t in said]
        return GuestBootError("\n".join(["guest did not boot: " + cause, *filter(None, printable)]))

    async def hear_out(self) -> None:
        """End the VMM and read its remaining output, for two seconds at most."""
        self._kill()
        if self._tasks:
            await asyncio.wait(self._tasks, timeout=_LAST_WORDS_SECONDS)

    def _kill(self) -> None:
        if self._process is not None and self._process.returncode is None:
            with suppress(ProcessLookupError):
                self._process.kill()

    async def end(self) -> None:
        """Kill the VMM and remove all that belongs to it; idempotent, also after a cancel."""
        # The kill comes before the first await, so that a second cancel cannot prevent it.
        self._kill()
        if self._channel is not None:
            self._channel.close()
        if self._directory is not None:
            shutil.rmtree(self._directory, ignore_errors=True)
        if self._ending is None:
            self._ending = asyncio.get_running_loop().create_task(self._finish())
            self._ending.add_done_callback(self._give_back)
        await asyncio.shield(self._ending)

    async def _finish(self) -> None:
        if self._tasks:
            # The processes are dead, so these tasks end by themselves.
            await asyncio.wait(self._tasks, timeout=_END_SECONDS)
            for task in self._tasks:
                task.cancel()
        if self._process is not None:
            await self._process.wait()
        if self._directory is not None:
            # Files that the VMM wrote between the first removal and its death.
            await asyncio.to_thread(shutil.rmtree, self._directory, ignore_errors=True)


@asynccontextmanager
async def booted(
    new_vm: Callable[[], Vm], spec: GuestSpec, clock: Clock, *, tries: int = _BOOT_TRIES
) -> AsyncIterator[VmGuest]:
    """Boot a guest, up to `tries` times; however the block ends, nothing of it is left.

    Each try has `spec.boot_timeout_seconds`. The guest has answered a self-test when the block
    starts.

    Raises:
        GuestBootError: the guest did not answer in time or could not start, each time.
    """
    for attempt in range(1, tries + 1):
        machine = _running(new_vm(), spec, clock)
        try:
            guest = await machine.__aenter__()
        except GuestBootError:
            if attempt == tries:
                raise
            continue
        try:
            yield guest
        finally:
            await machine.__aexit__(None, None, None)
        return


@asynccontextmanager
async def _running(vm: Vm, spec: GuestSpec, clock: Clock) -> AsyncIterator[VmGuest]:
    try:
        try:
            async with asyncio.timeout(spec.boot_timeout_seconds):
                channel = await vm.start()
                await channel.connect()
                await _introduce(channel, vm.identity.guest_id, clock)
            guest = VmGuest(vm.identity, channel, vm.pid)
        except TimeoutError as error:
            seconds = f"{spec.boot_timeout_seconds:.0f} s"
            raise vm.boot_error(f"no answer from the guest's agent in {seconds}") from error
        except (GuestLostError, IntegrityError, OSError) as error:
            # The end of the stream is often seen before the VMM's last output.
            await vm.hear_out()
            raise vm.boot_error(str(error)) from error
        yield guest
    finally:
        await vm.end()


async def _introduce(channel: SessionChannel, guest_id: str, clock: Clock) -> None:
    """Give the guest its name, the time and entropy, by an exec that tests the whole path."""
    first_exec = pb.Guest(
        guest_id=guest_id,
        wall_time_ns=int(clock.now() * 1e9),
        entropy=secrets.token_bytes(ENTROPY_BYTES),
    )
    # It tests the sandbox, too, before any tenant's byte arrives. The exec names a program that
    # does not exist, so the image needs no program for it.
    request = ExecRequest(
        exec_id=_SELF_TEST, argv=(f"/{_SELF_TEST}",), env=(), cwd="", inputs=(), outputs=(),
        limits=ExecLimits(wall_seconds=60.0, memory_bytes=64 << 20),
    )  # fmt: skip
    async for event in channel.exec(request, _NoBlobs(), first_exec):
        if isinstance(event, ResultEvent) and event.reason != "no-such-program":
            raise GuestLostError(f"self-test: {event.reason or 'it ran'}: {channel.last_detail}")


async def wait_ready(sock: socket.socket) -> None:
    """Read from `sock` until the agent has sent READY and waits for its host.

    Raises:
        ConnectionResetError: the stream ended first.
        IntegrityError: more than `MAX_JUNK_BYTES` came first.
    """
    seen = b""
    while READY not in seen:
        data = await asyncio.get_running_loop().sock_recv(sock, _READ_BYTES)
        if not data:
            raise ConnectionResetError("the guest's stream ended before its agent was ready")
        seen += data
        if len(seen) > MAX_JUNK_BYTES:
            raise IntegrityError("no READY from the guest's agent", reason="link-handshake")


async def _keep_tail(stream: asyncio.StreamReader, tail: bytearray) -> None:
    """Read to the end and keep the last bytes. A guest may flood its console without limit."""
    while data := await stream.read(_CONSOLE_BYTES):
        tail += data
        del tail[:-_CONSOLE_BYTES]
