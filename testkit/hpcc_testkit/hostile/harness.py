"""Runs an attack against a host, which must retire the guest for the right reason, at bounded cost.

The guest is a process at the other end of the byte stream. The harness kills it when the channel
reports it as lost, as a worker kills a VM. Use `Host.stand` for an attack and `Host.serve` for an
honest compile.
"""

from __future__ import annotations

import asyncio
import os
import time
from collections.abc import AsyncGenerator, Callable
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final

from hpcc.core import ExecEvent, ExecLimits
from hpcc.ports import GuestLostError
from hpcc.runtime.channel.channel import ChannelTiming, GuestChannel
from hpcc.wire.link import TOKEN_BYTES
from hpcc_testkit.guests.guest_contract import MemoryBlobs, request
from hpcc_testkit.hostile.attack import ESCAPE, LOST, SILENT, VIOLATION
from hpcc_testkit.hostile.exec import AFTER, EXEC
from hpcc_testkit.hostile.link import IDLE, LINK
from hpcc_testkit.hostile.server import HostileGuest, HostileServer

TOKEN: Final = b"t" * TOKEN_BYTES
DATA: Final = b"int x;\n" * 100_000
REQUEST: Final = request(
    "cc", inputs=[("a.c", DATA)], outputs=("a.o", "b.o"),
    limits=ExecLimits(wall_seconds=0.5, stdio_bytes=4 << 20, output_bytes=4 << 20),
)  # fmt: skip
# Bounds until a host retires a guest: bytes read of it, and the cost for worker and warden.
MAX_TAKEN_BYTES: Final = 16 << 20
MAX_GROWTH_BYTES: Final = 32 << 20
MAX_WARDEN_BYTES: Final = 128 << 20
MAX_CPU_SECONDS: Final = 5.0
MAX_TEXT_CHARS: Final = 400
SECONDS: Final = 20.0
_HASTY_SECONDS: Final = 6.0
# Seconds that a channel waits for a stage, and beyond a compile's limit. Short: no other check ends
# the attack. Long: on a busy machine the timeout must not come before the check.
_SHORT: Final = (2.0, 1.0)
_LONG: Final = (15.0, 15.0)
_GREETING_SECONDS: Final = 0.5
_METER_SECONDS: Final = 0.01
_PATIENT: Final = ChannelTiming()
# Sends pings that a guest must answer at once.
_IMPATIENT: Final = ChannelTiming(guest_ping_seconds=0.2, guest_timeout_seconds=0.4)


@dataclass(slots=True)
class Meter:
    """What an attack has cost so far; `run` updates it."""

    guest: HostileGuest
    channel: GuestChannel
    before_bytes: int = field(default_factory=lambda: _resident_bytes(os.getpid()))
    before_seconds: float = field(default_factory=time.process_time)
    growth_bytes: int = 0
    warden_bytes: int = 0
    warden_seconds: float = 0.0

    async def run(self) -> None:
        """Update the figures periodically; retire the channel when one is too high."""
        while not self.what_is_too_much():
            self.growth_bytes = max(
                self.growth_bytes, _resident_bytes(os.getpid()) - self.before_bytes
            )
            if self.channel.warden_pid:
                pid = self.channel.warden_pid
                self.warden_bytes = max(self.warden_bytes, _resident_bytes(pid))
                self.warden_seconds = max(self.warden_seconds, _cpu_seconds(pid))
            await asyncio.sleep(_METER_SECONDS)
        self.channel.retire("too expensive")

    def what_is_too_much(self) -> str:
        """Return the name of the figure that is too high, "" if all are in bounds."""
        seconds = time.process_time() - self.before_seconds
        figures = {
            "bytes taken of the guest": (self.guest.sent_bytes, MAX_TAKEN_BYTES),
            "bytes of the worker": (self.growth_bytes, MAX_GROWTH_BYTES),
            "bytes of the warden": (self.warden_bytes, MAX_WARDEN_BYTES),
            "seconds of the worker's processor": (seconds, MAX_CPU_SECONDS),
            "seconds of the warden's processor": (self.warden_seconds, MAX_CPU_SECONDS),
        }
        return ", ".join(f"{v} {k}" for k, (v, limit) in figures.items() if v > limit)


def _resident_bytes(pid: int) -> int:
    try:
        pages = int(Path(f"/proc/{pid}/statm").read_text().split()[1])
    except (OSError, IndexError):
        return 0  # it has ended
    return pages * os.sysconf("SC_PAGE_SIZE")


def _cpu_seconds(pid: int) -> float:
    try:
        fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    except OSError:
        return 0.0
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


def _check_text(text: str) -> None:
    """Assert that a guest's text is safe to print: printable, bounded, no escape sequences."""
    assert text.isprintable()
    assert ESCAPE[-1] not in text
    assert len(text) <= MAX_TEXT_CHARS


class Host:
    """A host's side. A test may pass a `channel` class in which one check is removed."""

    def __init__(
        self,
        server: HostileServer,
        set_patience: Callable[[float, float], None],
        channel: Callable[..., GuestChannel] = GuestChannel,
        *,
        is_hasty: bool = False,
    ) -> None:
        """`set_patience` sets the channel's timeouts; set `is_hasty` if a check is removed."""
        self._server, self._set_patience, self._channel = server, set_patience, channel
        self._is_hasty = is_hasty
        self._seconds = _HASTY_SECONDS if is_hasty else SECONDS

    async def stand(self, stage: str, name: str) -> None:
        """Run one attack and assert that the host ends it.

        Raises:
            AssertionError: the host ended the attack for another reason, or at too high a cost.
            TimeoutError: the host did not end the attack in time.
        """
        reason = {"exec": EXEC, "idle": IDLE}.get(stage, {}).get(name)
        is_short = self._is_hasty or (reason is not None and reason.reason == SILENT)
        self._set_patience(*(_SHORT if is_short else _LONG))
        match stage:
            case "link":
                await self._link(name)
            case "idle":
                await self._idle(name)
            case "exec":
                await self._exec(name, EXEC[name].reason)
            case "deaf":
                # A guest that reads nothing does not see the pings either.
                await self._exec("asks-and-reads-nothing", LOST, _IMPATIENT)
            case "after":
                await self._after(name)
            case _:
                raise ValueError(stage)

    async def serve(self) -> list[ExecEvent]:
        """Compile in an honest guest, to show that the host works without the attack."""
        guest, sock = self._server.start("honest", "good-answer")
        channel = self._channel(sock, TOKEN)
        try:
            async with asyncio.timeout(self._seconds):
                await channel.connect()
                return [e async for e in channel.exec(REQUEST, MemoryBlobs(DATA))]
        finally:
            channel.close()
            guest.kill()

    @asynccontextmanager
    async def _hostile(
        self, stage: str, name: str, timing: ChannelTiming = _PATIENT
    ) -> AsyncGenerator[GuestChannel]:
        """Yield a channel to a guest with this attack; assert its end and its cost afterwards."""
        guest, sock = self._server.start(stage, name)
        channel = self._channel(sock, TOKEN, timing=timing)
        channel.lost.add_done_callback(lambda _: guest.kill())
        meter = Meter(guest, channel)
        metering = asyncio.get_running_loop().create_task(meter.run())
        try:
            async with asyncio.timeout(self._seconds):
                yield channel
                text = await channel.lost
            await asyncio.sleep(0)  # its callbacks run in the next turn
            assert guest.is_killed
            assert not meter.what_is_too_much()
            _check_text(text)
            _check_text(channel.last_detail)
            # A later compile on this channel fails at once.
            assert (await self._refusal(channel)) is not None
        finally:
            metering.cancel()
            channel.close()
            guest.kill()

    @staticmethod
    async def _refusal(channel: GuestChannel) -> GuestLostError | None:
        """Compile; return the error, or None if the host accepted the guest's answer."""
        try:
            async for _ in channel.exec(REQUEST, MemoryBlobs(DATA)):
                pass
        except GuestLostError as error:
            return error
        return None

    async def _link(self, name: str) -> None:
        async with self._hostile("link", name) as channel:
            ended = "it was taken for a guest"
            is_short = self._is_hasty or LINK[name].reason == SILENT
            try:
                # In production every connect has a deadline.
                async with asyncio.timeout(_GREETING_SECONDS if is_short else self._seconds):
                    await channel.connect()
            except TimeoutError:
                ended = SILENT
                channel.retire("no answer")
            except GuestLostError as error:
                ended = f"{error} {error.reason}"
            assert LINK[name].reason in ended.split()

    async def _idle(self, name: str) -> None:
        is_short = self._is_hasty or IDLE[name].reason == LOST
        timing = _IMPATIENT if is_short else _PATIENT
        async with self._hostile("idle", name, timing) as channel:
            with suppress(GuestLostError):  # some attacks end the guest before this
                await channel.connect()
            await channel.lost
            error = await self._refusal(channel)
            assert error is not None
            assert error.reason == IDLE[name].reason, str(error)

    async def _exec(self, name: str, reason: str, timing: ChannelTiming = _PATIENT) -> None:
        async with self._hostile("exec", name, timing) as channel:
            await channel.connect()
            error = await self._refusal(channel)
            assert error is not None, "the answer was taken"
            assert error.reason == reason, str(error)
            _check_text(str(error))

    async def _after(self, name: str) -> None:
        assert AFTER[name].reason == VIOLATION
        async with self._hostile("after", name) as channel:
            await channel.connect()
            await self._refusal(channel)  # or the answer arrived before the host noticed
            assert (await channel.lost).startswith(VIOLATION)
