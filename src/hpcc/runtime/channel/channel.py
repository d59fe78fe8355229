"""The worker's end of a guest: runs execs through the warden that parses the guest's bytes."""

from __future__ import annotations

import asyncio
import socket
from collections.abc import AsyncGenerator
from dataclasses import dataclass
from typing import Final

from hpcc._proto import agent_pb2 as pb
from hpcc.core import ExecEvent, ExecRequest, IntegrityError, ResultEvent
from hpcc.ports import BlobSource, GuestLostError
from hpcc.runtime.channel.held import HeldBlobs
from hpcc.runtime.channel.pending_exec import CallLimits, PendingExec, encode_header
from hpcc.runtime.channel.warden_budget import CpuBudget
from hpcc.runtime.channel.warden_launch import launch_warden
from hpcc.runtime.channel.warden_link import (
    WARDEN_CPU,
    WARDEN_DIED,
    WARDEN_SECCOMP,
    Launch,
    WardenLink,
)
from hpcc.wire import warden as wire
from hpcc.wire.exec_frames import check_exec_request
from hpcc.wire.frame_gate import PROTOCOL_VIOLATION

# From the request to the arrival of the last input: 1 GiB at the slowest measured rate takes 40 s.
STAGE_SECONDS: Final = 300.0
# Time that the agent may need after its own deadline to kill, collect and send.
GRACE_SECONDS: Final = 60.0
WARDEN_SILENT: Final = "warden-silent"
GUEST_SILENT: Final = "guest-silent"
# Texts of `lost` that start with one of these become errors with that reason.
_REASONS: Final = (
    PROTOCOL_VIOLATION, WARDEN_DIED, WARDEN_SILENT, WARDEN_SECCOMP, WARDEN_CPU,
    wire.WARDEN_PROTOCOL, GUEST_SILENT,
)  # fmt: skip
_READ_AHEAD_BYTES: Final = 512 << 10


@dataclass(frozen=True, slots=True, kw_only=True)
class ChannelTiming:
    """How soon silence is noticed. A busy host or an emulated guest may answer slowly."""

    guest_ping_seconds: float = 20.0
    guest_timeout_seconds: float = 60.0
    warden_ping_seconds: float = 5.0
    # A warden that answered none of this many pings in a row is lost.
    warden_missed_pings: int = 6
    # How long to wait after a warden's end for the zygote's report on how it ended.
    fate_seconds: float = 1.0
    # How long a warden may take to confirm a cancelled exec.
    cancel_seconds: float = 30.0


_TIMING: Final = ChannelTiming()


class GuestChannel:
    """Runs execs over one stream to a guest.

    It owns `sock`; call `close` when done. The warden starts at once, so that it is ready when the
    guest is. `lost` completes with a reason as soon as the stream ends, the guest breaks the
    protocol, or its warden dies, hangs or breaks its own protocol. Several execs may run at once.

    Raises:
        GuestLostError: no warden could be started.
    """

    def __init__(
        self,
        sock: socket.socket,
        token: bytes,
        *,
        launch: Launch = launch_warden,
        timing: ChannelTiming = _TIMING,
    ) -> None:
        self._loop = asyncio.get_running_loop()
        self._token, self._timing = token, timing
        self.lost: asyncio.Future[str] = self._loop.create_future()
        # The agent's text on its latest failure, for logs. Hostile.
        self.last_detail = ""
        # The warden's process id; 0 until it is known.
        self.warden_pid = 0
        self._budget = CpuBudget()
        with sock:
            sock.settimeout(0)
            self._ends: WardenLink = launch(sock)
        self._ends.watch(self._hear_pid, self._hear_fate)
        self._is_open = True
        self._writer: asyncio.StreamWriter | None = None
        self._reading: asyncio.Task[None] | None = None
        self._is_at_end = True
        # How the warden ended; "" until the zygote reports it.
        self._fate = ""
        self._ready: asyncio.Future[None] = self._loop.create_future()
        self._calls: dict[int, PendingExec] = {}
        self._held = HeldBlobs()
        self._next_number = 1
        self._pings_missed = 0
        self._pongs_due = 0
        self._timer: asyncio.TimerHandle | None = None

    async def connect(self) -> None:
        """Do the handshake with the guest. The caller sets the deadline.

        Raises:
            GuestLostError: the stream ended, or the peer is not the expected guest.
        """
        if self.lost.done():
            raise self._lost_error("")
        try:
            reader, self._writer = await self._ends.open(_READ_AHEAD_BYTES)
        except (OSError, EOFError, IntegrityError) as error:
            # How the warden ended explains more, if the report comes soon.
            await asyncio.wait([self.lost], timeout=self._timing.fate_seconds)
            raise self._lost_error(f"{WARDEN_DIED}: {error}", WARDEN_DIED) from error
        self._is_at_end = False
        self._reading = self._loop.create_task(self._read(reader))
        timing = self._timing
        start = wire.Start(
            self._token,
            round(timing.guest_ping_seconds * 1000),
            round(timing.guest_timeout_seconds * 1000),
        )
        self.say(wire.frame(wire.START, 0, wire.encode_start(start)))
        self._ping_later()
        ends: list[asyncio.Future[None] | asyncio.Future[str]] = [self._ready, self.lost]
        await asyncio.wait(ends, return_when=asyncio.FIRST_COMPLETED)
        if self.lost.done():
            raise self._lost_error("")

    def retire(self, reason: str) -> None:
        """Give up the guest: running execs fail with `reason`, and no new exec starts."""
        if not self.lost.done():
            self.lost.set_result(reason)

    def close(self) -> None:
        """End the warden and give up the guest; idempotent."""
        self.retire("closed")
        if not self._is_open:
            return
        self._is_open = False
        if self._timer is not None:
            self._timer.cancel()
        if self._reading is not None:
            self._reading.cancel()
        if self._writer is not None:
            self._writer.transport.abort()
        self._ends.close()

    async def exec(
        self, request: ExecRequest, blobs: BlobSource, first_exec: pb.Guest | None = None
    ) -> AsyncGenerator[ExecEvent]:
        """Run one compile; see `hpcc.ports.Guest.exec`.

        `first_exec` is what the guest learns in its first exec: name, time, entropy.
        """
        check_exec_request(request)
        header = encode_header(request, first_exec, await self._held.ahead(request, blobs))
        if self.lost.done():
            raise self._lost_error("")
        number, self._next_number = self._next_number, self._next_number + 1
        limits = CallLimits(STAGE_SECONDS, GRACE_SECONDS)
        call = PendingExec(self, number, request, header, blobs, limits)
        self._calls[number] = call
        self._budget.earn(execs=1)
        # A separate task, because its deadlines must not cancel the consumer.
        pump = self._loop.create_task(call.run())

        def give_up(_: object) -> None:
            pump.cancel()

        self.lost.add_done_callback(give_up)
        try:
            while (event := await call.next_event()) is not None:
                self.last_detail = call.detail
                if isinstance(event, ResultEvent):
                    self._held.note(request)
                yield event
                call.give_credit()
            await self._outcome(call, pump)
        finally:
            self.lost.remove_done_callback(give_up)
            pump.cancel()
            self._cancel(call)
            # Its error was raised above, or the consumer has left and no longer needs it.
            await asyncio.wait([pump])
            if not pump.cancelled():
                pump.exception()

    async def _outcome(self, call: PendingExec, pump: asyncio.Task[None]) -> None:
        await asyncio.wait([pump])
        if pump.cancelled():
            raise self._lost_error("")
        try:
            pump.result()
        except TimeoutError as error:
            if error is call.source_error:
                raise
            self.retire(f"{GUEST_SILENT}: no answer in time")
            raise self._lost_error("no answer in time") from error
        except IntegrityError as error:
            if error is call.source_error:
                raise
            self.retire(f"{error.reason}: {error}")
            # The breach is the cause, whatever else happened to the guest meanwhile.
            raise self._lost_error(str(error), error.reason) from error
        except OSError as error:
            if error is call.source_error:
                raise
            # The warden is gone. Its last frame, or how it ended, explains more.
            await asyncio.wait([self.lost], timeout=2 * self._timing.fate_seconds)
            raise self._lost_error("") from error

    def _lost_error(self, text: str, reason: str | None = None) -> GuestLostError:
        self.retire(text or "lost")
        cause = self.lost.result()
        word = cause.partition(":")[0]
        if reason is None and word in _REASONS:
            reason = word
        return GuestLostError(f"guest lost: {text or cause}", reason=reason)

    # Frames from the warden.

    async def _read(self, reader: asyncio.StreamReader) -> None:
        try:
            while True:
                header = await reader.readexactly(wire.HEADER_BYTES)
                kind, number, length = wire.parse_head(header, wire.TO_WORKER)
                self._take(kind, number, await reader.readexactly(length))
                self._budget.earn(size_bytes=length)
        except IntegrityError as error:
            self.retire(f"{error.reason}: {error}")
        except (asyncio.IncompleteReadError, OSError):
            self._is_at_end = True
            if self._fate:
                self.retire(self._fate)
            else:
                # The zygote is about to report how the warden ended.
                self._loop.call_later(self._timing.fate_seconds, self.retire, WARDEN_DIED)

    def _take(self, kind: int, number: int, body: bytes) -> None:
        if kind == wire.READY and not self._ready.done():
            self._ready.set_result(None)
        elif kind == wire.PONG:
            # A pong is the only frame that neither credit nor an exec's end bounds. A flood of them
            # would cost the worker more than the warden.
            self._pongs_due -= 1
            if self._pongs_due < 0:
                raise IntegrityError("a pong without a ping", reason=wire.WARDEN_PROTOCOL)
            self._pings_missed = 0
        elif kind == wire.LOST:
            self.retire(_lost_text(*wire.decode_lost(body)))
        elif (call := self._calls.get(number)) is None:
            raise IntegrityError("a frame of no exec", reason=wire.WARDEN_PROTOCOL)
        elif kind == wire.END:
            del self._calls[number]
            call.ended()
        elif kind == wire.TAKEN:
            call.chunk_taken()
        else:
            call.take(wire.decode_reply(kind, body))

    def _hear_pid(self, pid: int) -> None:
        self.warden_pid = pid

    def _hear_fate(self, fate: str) -> None:
        self._fate = fate
        # The warden's last frame may still be unread, and explains more.
        if self._is_at_end:
            self.retire(self._fate)

    # Frames to the warden.

    def say(self, frame: bytes) -> None:
        """Send a small frame; it is dropped if the warden is gone."""
        if self._writer is not None and not self._writer.is_closing():
            self._writer.write(frame)

    async def send(self, *pieces: bytes | memoryview) -> None:
        """Send a frame and wait while the warden is slow.

        Raises:
            OSError: the warden is gone.
        """
        # On a lost connection asyncio's writelines leaves a handler behind for a descriptor that is
        # already closed.
        if self._writer is None or self._writer.is_closing():
            raise ConnectionResetError("the warden is gone")
        self._budget.earn(size_bytes=sum(map(len, pieces)))
        self._writer.writelines(pieces)
        await self._writer.drain()

    def _cancel(self, call: PendingExec) -> None:
        """Cancel a running call and discard any frames that still arrive for it."""
        if self._calls.get(call.number) is not call or self.lost.done():
            return
        call.abandon()
        self.say(wire.frame(wire.CANCEL, call.number))
        self._loop.call_later(self._timing.cancel_seconds, self._check_cancelled, call)

    def _check_cancelled(self, call: PendingExec) -> None:
        if self._calls.get(call.number) is call:
            self.retire(f"{WARDEN_SILENT}: it does not end an exec")

    def _ping_later(self) -> None:
        self._timer = self._loop.call_later(self._timing.warden_ping_seconds, self._ping)

    def _ping(self) -> None:
        if self._pings_missed >= self._timing.warden_missed_pings:
            self.retire(f"{WARDEN_SILENT}: it answers no ping")
        self._budget.earn(seconds=self._timing.warden_ping_seconds)
        if self._budget.is_used_up(self._ends.cpu_seconds()):
            self.retire(f"{WARDEN_CPU}: more than its work can need")
        if self.lost.done():
            return
        # Counted in turns of this loop, so that a worker that was stopped does not blame the
        # warden.
        self._pings_missed += 1
        self._pongs_due += 1
        self.say(wire.frame(wire.PING))
        self._ping_later()


def _lost_text(code: wire.LostCode, text: str) -> str:
    match code:
        case wire.LostCode.ENDED:
            return f"the guest's stream ended: {text}" if text else "the guest's stream ended"
        case wire.LostCode.BREACH:
            return f"{PROTOCOL_VIOLATION}: {text}"
        case wire.LostCode.FAILED:
            return f"stream failed: {text}"
        case wire.LostCode.HANDSHAKE:
            return f"no guest answered: {text}"
