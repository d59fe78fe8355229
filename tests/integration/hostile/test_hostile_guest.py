"""A guest that misbehaves in every way: it is given up, with the right reason, at a bounded price.

The guest is a process at the other end of the byte stream, killed when the channel calls it lost, as
a worker kills a VM.
"""

from __future__ import annotations

import asyncio
import os
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, suppress
from pathlib import Path

import pytest

from hpcc.core import ExecLimits
from hpcc.ports import GuestLostError
from hpcc.runtime import GuestChannel
from hpcc.runtime import _channel as channel_module
from hpcc.runtime._channel import ChannelTiming
from hpcc.testing._guest_contract import MemoryBlobs, request
from hpcc.testing._hostile_attack import ESCAPE, SILENT
from hpcc.testing._hostile_exec import AFTER, EXEC
from hpcc.testing._hostile_link import IDLE, LINK
from hpcc.testing._hostile_server import HostileGuest, HostileServer

TOKEN = b"t" * 32
DATA = b"int x;\n" * 100_000
REQUEST = request(
    "cc", inputs=[("a.c", DATA)], outputs=("a.o", "b.o"),
    limits=ExecLimits(wall_seconds=0.5, stdio_bytes=1 << 20, output_bytes=1 << 20),
)  # fmt: skip
# What the host reads of one guest before it gives it up, and what that may cost it in memory.
MAX_TAKEN_BYTES = 16 << 20
MAX_GROWTH_BYTES = 96 << 20
MAX_TEXT_CHARS = 300
SECONDS = 20
PATIENT = ChannelTiming()
IMPATIENT = ChannelTiming(guest_ping_seconds=0.2, guest_timeout_seconds=0.4)


@pytest.fixture(scope="module")
def server() -> Iterator[HostileServer]:
    server = HostileServer()
    yield server
    server.stop()


@pytest.fixture(autouse=True)
def impatient(monkeypatch: pytest.MonkeyPatch) -> None:
    """A host that waits seconds, not minutes."""
    monkeypatch.setattr(channel_module, "STAGE_SECONDS", 2.0)
    monkeypatch.setattr(channel_module, "GRACE_SECONDS", 0.5)


def resident_bytes() -> int:
    return int(Path("/proc/self/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE")


class Meter:
    """The most memory that this process has had while it ran."""

    def __init__(self) -> None:
        self.before = self.most = resident_bytes()

    @property
    def growth(self) -> int:
        return self.most - self.before

    async def run(self) -> None:
        while True:
            self.most = max(self.most, resident_bytes())
            await asyncio.sleep(0.01)


@asynccontextmanager
async def hostile(
    server: HostileServer, stage: str, name: str, timing: ChannelTiming = PATIENT
) -> AsyncIterator[tuple[GuestChannel, HostileGuest]]:
    """A channel to a guest that does this; checks that it was ended, and what it cost."""
    guest, sock = server.start(stage, name)
    channel = GuestChannel(sock, TOKEN, timing=timing)
    channel.lost.add_done_callback(lambda _: guest.kill())
    meter = Meter()
    metering = asyncio.get_running_loop().create_task(meter.run())
    try:
        async with asyncio.timeout(SECONDS):
            yield channel, guest
            await channel.lost
        await asyncio.sleep(0)
        assert guest.is_killed
        assert guest.sent_bytes <= MAX_TAKEN_BYTES
        assert meter.growth <= MAX_GROWTH_BYTES
        text = channel.lost.result()
        assert text.isprintable()
        assert len(text) <= MAX_TEXT_CHARS
        with pytest.raises(GuestLostError):
            await run(channel)
    finally:
        metering.cancel()
        channel.close()
        guest.kill()
        for _ in range(3):
            await asyncio.sleep(0)  # closed transports say so in the next turns


async def run(channel: GuestChannel) -> None:
    async for _ in channel.exec(REQUEST, MemoryBlobs(DATA)):
        pass


def check_text(error: GuestLostError, channel: GuestChannel) -> None:
    """What the guest said reaches nobody's terminal as it was."""
    for text in (str(error), channel.last_detail):
        assert text.isprintable()
        assert ESCAPE[0] not in text
        assert len(text) <= 1024


@pytest.mark.parametrize("name", LINK)
async def test_a_guest_that_does_not_greet_is_given_up(name: str, server: HostileServer) -> None:
    async with hostile(server, "link", name) as (channel, _):
        if LINK[name].reason == SILENT:
            with pytest.raises(TimeoutError):
                async with asyncio.timeout(0.5):  # whoever connects has a deadline
                    await channel.connect()
            channel.retire("no answer")
        else:
            with pytest.raises(GuestLostError) as caught:
                await channel.connect()
            assert LINK[name].reason in (caught.value.reason, str(caught.value).rpartition(" ")[2])


@pytest.mark.parametrize("name", IDLE)
async def test_a_guest_that_is_not_asked_and_misbehaves_is_given_up(
    name: str, server: HostileServer
) -> None:
    async with hostile(server, "idle", name, IMPATIENT) as (channel, _):
        with suppress(GuestLostError):  # some are too quick
            await channel.connect()
        reason = await channel.lost
        with pytest.raises(GuestLostError) as caught:
            await run(channel)
        assert caught.value.reason == IDLE[name].reason, reason


@pytest.mark.parametrize("name", EXEC)
async def test_a_guest_that_answers_with_an_attack_is_given_up(
    name: str, server: HostileServer
) -> None:
    async with hostile(server, "exec", name) as (channel, _):
        await channel.connect()
        with pytest.raises(GuestLostError) as caught:
            await run(channel)
        check_text(caught.value, channel)
        assert caught.value.reason == EXEC[name].reason, str(caught.value)


@pytest.mark.parametrize("name", AFTER)
async def test_a_guest_that_goes_on_after_a_good_answer_is_given_up(
    name: str, server: HostileServer
) -> None:
    async with hostile(server, "after", name) as (channel, _):
        await channel.connect()
        with suppress(GuestLostError):  # or the answer was through before it was noticed
            await run(channel)
        assert (await channel.lost).startswith(AFTER[name].reason)
