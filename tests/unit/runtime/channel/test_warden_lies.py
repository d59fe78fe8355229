"""A compromised warden: the worker trusts it no more than a guest."""

from __future__ import annotations

import asyncio
import os
import signal
import socket
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager, suppress
from typing import Any

import pytest

from hpcc.core import ExecLimits, OutputEvent, ResultEvent, StdioEvent
from hpcc.ports import GuestLostError
from hpcc.runtime.channel import channel as channel_module
from hpcc.runtime.channel import warden as _warden
from hpcc.runtime.channel.channel import ChannelTiming, GuestChannel
from hpcc.runtime.channel.warden import WardenEnds, Zygote, cpu_seconds
from hpcc.runtime.channel.warden_budget import CpuBudget
from hpcc.wire import warden as wire
from hpcc.wire.link import TOKEN_BYTES
from hpcc_testkit.guests.guest_contract import MemoryBlobs, request
from hpcc_testkit.guests.wardens import lying_wardens

TOKEN = b"t" * TOKEN_BYTES
SECONDS = 8
DATA = bytes(3 << 20)
REQUEST = request("cc", outputs=("a.o",), limits=ExecLimits(stdio_bytes=1 << 22))
WITH_INPUT = request("cc", inputs=[("a.c", DATA)])
NEED = wire.NeedReply((), False)
RESULT = wire.ResultReply(
    exit_code=0, signal=0, reason=1, wall_seconds=0.0, user_seconds=0.0, system_seconds=0.0,
    stage_seconds=0.0, max_rss_bytes=0, detail="",
)  # fmt: skip
OUTPUT = wire.OutputReply("a.o", b"object", False, True)
TIMING = ChannelTiming(warden_ping_seconds=0.05, warden_missed_pings=4, cancel_seconds=0.2)


def reply(value: wire.Reply, number: int = 1) -> bytes:
    kind, pieces = wire.encode_reply(value)
    return wire.frame(kind, number, b"".join(pieces))


class Warden:
    """The warden's end of the connection."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._reader, self._writer = reader, writer

    async def hear(self, *kinds: int) -> tuple[int, int, bytes]:
        """Read up to a frame of one of these kinds; others are answered or skipped."""
        while True:
            head = await self._reader.readexactly(wire.HEADER_BYTES)
            kind, number, length = wire.parse_head(head, wire.TO_WARDEN)
            body = await self._reader.readexactly(length)
            if kind in kinds:
                return kind, number, body
            if kind == wire.PING:
                self._writer.write(wire.frame(wire.PONG))

    async def say(self, *frames: bytes) -> None:
        self._writer.write(b"".join(frames))
        await self._writer.drain()

    async def for_ever(self) -> None:
        await self.hear(-1)


Lie = Callable[[Warden], Awaitable[None]]


@asynccontextmanager
async def connected(lie: Lie, fate: int = 0) -> AsyncIterator[GuestChannel]:
    async def script(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        warden = Warden(reader, writer)
        assert (await warden.hear(wire.START))[2].startswith(TOKEN)
        await lie(warden)

    before = asyncio.all_tasks()
    host, guest = socket.socketpair()
    with guest:
        channel = GuestChannel(host, TOKEN, launch=lying_wardens(script, fate=fate), timing=TIMING)
        try:
            async with asyncio.timeout(SECONDS):
                await channel.connect()
                yield channel
        finally:
            channel.close()
            if others := asyncio.all_tasks() - before:
                await asyncio.wait(others, timeout=SECONDS)
            for _ in range(3):
                await asyncio.sleep(0)


async def run(channel: GuestChannel, req: Any = REQUEST) -> list[Any]:
    return [e async for e in channel.exec(req, MemoryBlobs(DATA))]


def says(*frames: bytes) -> Lie:
    """Return a warden that reports ready and answers the exec with these bytes."""

    async def lie(warden: Warden) -> None:
        await warden.say(wire.frame(wire.READY))
        await warden.hear(wire.EXEC)
        await warden.say(*frames)
        await warden.for_ever()

    return lie


async def refused(lie: Lie, req: Any = REQUEST, *, fate: int = 0) -> str:
    with pytest.raises(GuestLostError) as caught:
        async with connected(lie, fate) as channel:
            await run(channel, req)
    return caught.value.reason


async def test_an_honest_warden_is_believed() -> None:
    async def lie(warden: Warden) -> None:
        await warden.say(wire.frame(wire.READY))
        kind, number, header = await warden.hear(wire.EXEC)
        assert (kind, number) == (wire.EXEC, 1)
        assert b"a.o" in header
        await warden.say(reply(NEED))
        await warden.hear(wire.FINISH)
        await warden.say(reply(wire.StdioReply(2, b"warning")), reply(RESULT), reply(OUTPUT))
        await warden.say(wire.frame(wire.END, 1))
        await warden.for_ever()

    async with connected(lie) as channel:
        events = await run(channel)
    assert [type(e) for e in events] == [StdioEvent, ResultEvent, OutputEvent]


BROKEN = {
    "unknown kind": bytes([99]) + bytes(8),
    "a kind of the other direction": wire.frame(wire.EXEC, 1, b""),
    "a body of 4 GiB": bytes([wire.STDIO]) + b"\1\0\0\0" + b"\xff" * 4,
    "a body over its kind's limit": bytes([wire.END]) + b"\1\0\0\0" + b"\1\0\0\0",
    "a reply to no exec": reply(NEED, 2),
    "a reply to exec 0": bytes([wire.NEED]) + bytes(4) + b"\1\0\0\0\0",
    "an end of no exec": wire.frame(wire.END, 7),
    "two ends": reply(NEED) + reply(RESULT) + wire.frame(wire.END, 1) * 2,
    "pongs that nobody asked for": wire.frame(wire.PONG) * 1000,
    "a pong of an exec": bytes([wire.PONG]) + b"\1\0\0\0" + bytes(4),
    "last words of an exec": wire.frame(wire.LOST, 1, wire.encode_lost(wire.LostCode.ENDED, "")),
    "a digest that is cut off": wire.frame(wire.NEED, 1, b"\0" + bytes(31)),
    "an unknown flag": wire.frame(wire.NEED, 1, b"\2"),
    "a path that is not UTF-8": wire.frame(wire.OUTPUT, 1, b"\1\1\0\xff"),
    "a path beyond the body": wire.frame(wire.OUTPUT, 1, b"\1\xff\0"),
    "a result that is cut off": wire.frame(wire.RESULT, 1, bytes(10)),
    "last words without a code": wire.frame(wire.LOST),
    "a chunk that was never sent": wire.frame(wire.TAKEN, 1),
    "replies without credit": reply(NEED) + reply(wire.StdioReply(1, b"x")) * 1000,
}


@pytest.mark.parametrize("name", BROKEN)
async def test_a_broken_frame_ends_the_guest(name: str) -> None:
    async with connected(says(BROKEN[name])) as channel:
        with suppress(GuestLostError):
            await run(channel)
        assert (await channel.lost).startswith(wire.WARDEN_PROTOCOL)
        with pytest.raises(GuestLostError):
            await run(channel)


LIES = {
    "two Results": [NEED, RESULT, RESULT],
    "no Result": [NEED],
    "a Need for what is no input": [wire.NeedReply((bytes(32),), False)],
    "an output before its Result": [NEED, OUTPUT],
    "an output nobody asked for": [NEED, RESULT, wire.OutputReply("b.o", b"x", False, True)],
    "stdio after the Result": [NEED, RESULT, wire.StdioReply(1, b"x")],
    "an output that is not over": [NEED, RESULT, wire.OutputReply("a.o", bytes(1 << 17), False, False)],
    "a stream of its own": [NEED, wire.StdioReply(3, b"x")],
}  # fmt: skip


@pytest.mark.parametrize("name", LIES)
async def test_a_lie_in_good_form_ends_the_guest(name: str) -> None:
    frames = [*map(reply, LIES[name]), wire.frame(wire.END, 1)]
    assert await refused(says(*frames)) == "protocol-violation"


async def test_a_flood_to_a_slow_consumer_is_bounded_by_the_credit(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    taken = 0
    honest = channel_module.PendingExec.take

    def count(call: channel_module.PendingExec, value: wire.Reply) -> None:
        nonlocal taken
        taken += 1
        honest(call, value)

    monkeypatch.setattr(channel_module.PendingExec, "take", count)
    flood = reply(NEED) + reply(wire.StdioReply(1, bytes(1000))) * 1000
    async with connected(says(flood)) as channel:
        events = channel.exec(REQUEST, MemoryBlobs())
        await anext(events)
        assert (await channel.lost).startswith(wire.WARDEN_PROTOCOL)
        await events.aclose()
    # The Need returned its credit; the event that the consumer holds has not returned its credit.
    assert taken <= 1 + wire.REPLIES_AHEAD + 1


@pytest.mark.parametrize("pieces", [1, wire.REPLIES_AHEAD, 5 * wire.REPLIES_AHEAD + 3])
async def test_credit_comes_for_half_of_it_at_once_and_always_in_time(pieces: int) -> None:
    credits = 0

    async def honest(warden: Warden) -> None:
        nonlocal credits
        await warden.say(wire.frame(wire.READY))
        await warden.hear(wire.EXEC)
        replies = [NEED, *[wire.StdioReply(1, b"x")] * pieces, RESULT, OUTPUT]
        for sent, value in enumerate(replies):
            while sent - credits == wire.REPLIES_AHEAD:
                await warden.hear(wire.CREDIT)
                credits += 1
            await warden.say(reply(value))
        await warden.say(wire.frame(wire.END, 1))
        await warden.for_ever()

    async with connected(honest) as channel:
        events = await run(channel)
    assert len(events) == pieces + 2
    assert (credits == 0) is (pieces + 3 <= wire.REPLIES_AHEAD)


async def test_a_warden_that_takes_nothing_gets_no_more_than_its_credit() -> None:
    chunks = 0

    async def lie(warden: Warden) -> None:
        nonlocal chunks
        await warden.say(wire.frame(wire.READY))
        await warden.hear(wire.EXEC)
        await warden.say(reply(wire.NeedReply((bytes.fromhex(WITH_INPUT.inputs[0].digest.hash),), False)))  # fmt: skip
        try:
            async with asyncio.timeout(0.5):
                while True:
                    await warden.hear(wire.CHUNK)
                    chunks += 1
        except TimeoutError:
            await warden.say(wire.frame(wire.LOST, 0, wire.encode_lost(wire.LostCode.ENDED, "")))

    await refused(lie, WITH_INPUT)
    assert chunks == wire.CHUNKS_AHEAD < len(DATA) >> 18


async def test_a_warden_that_answers_no_ping_is_given_up() -> None:
    async def lie(warden: Warden) -> None:
        await warden.say(wire.frame(wire.READY))
        await asyncio.Event().wait()

    assert await refused(lie) == "warden-silent"


async def test_a_warden_that_answers_pings_and_nothing_else_is_given_up_at_the_deadline(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(channel_module, "STAGE_SECONDS", 0.3)
    assert await refused(says()) == "guest-silent"


async def test_a_warden_that_does_not_end_a_cancelled_exec_is_given_up() -> None:
    lie = says(reply(NEED), reply(wire.StdioReply(1, b"x")))
    async with connected(lie) as channel:
        events = channel.exec(REQUEST, MemoryBlobs())
        await anext(events)
        await events.aclose()
        assert (await channel.lost).startswith("warden-silent")


@pytest.mark.parametrize(
    ("fate", "reason"),
    [
        (signal.SIGKILL, "warden-died"),
        (signal.SIGSYS, "warden-seccomp"),
        (signal.SIGXCPU, "warden-cpu"),
        (70 << 8, "warden-died"),
        (0, "warden-died"),
    ],
)
async def test_how_a_warden_ended_is_the_reason(fate: int, reason: str) -> None:
    async def lie(warden: Warden) -> None:
        await warden.say(wire.frame(wire.READY))
        await warden.hear(wire.EXEC)

    assert await refused(lie, fate=fate) == reason


@pytest.mark.parametrize(
    ("code", "reason"),
    [
        (wire.LostCode.ENDED, "guest-lost"),
        (wire.LostCode.BREACH, "protocol-violation"),
        (wire.LostCode.FAILED, "guest-lost"),
        (wire.LostCode.HANDSHAKE, "guest-lost"),
    ],
)
async def test_last_words_are_the_reason(code: wire.LostCode, reason: str) -> None:
    # A text cannot pass for a reason.
    words = wire.frame(wire.LOST, 0, wire.encode_lost(code, "warden-seccomp: \x1b[31m"))
    assert await refused(says(words)) == reason


async def test_a_warden_that_works_for_nothing_is_given_up(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(_warden, "cpu_seconds", lambda _: 1000.0)
    assert await refused(says()) == "warden-cpu"


def test_work_is_worth_time() -> None:
    budget = CpuBudget()
    assert not budget.is_used_up(10.0)
    assert budget.is_used_up(30.0)
    budget.earn(execs=10, size_bytes=100 << 20, seconds=1000.0)
    assert not budget.is_used_up(120.0)
    assert cpu_seconds(os.getpid()) > 0.0
    assert cpu_seconds(2**22 + 1) == 0.0


async def test_no_zygote_is_an_error_of_this_guest(tmp_path: Any) -> None:
    zygote = Zygote(tmp_path / "absent.py")
    host, guest = socket.socketpair()
    with guest:
        channel = GuestChannel(host, TOKEN, launch=zygote.launch)
        try:
            with pytest.raises(GuestLostError) as caught:
                async with asyncio.timeout(SECONDS):
                    await channel.connect()
        finally:
            channel.close()
            zygote.close()
            await asyncio.sleep(0)
    assert caught.value.reason == "warden-died"


def test_ends_are_closed_together() -> None:
    ends = WardenEnds(*socket.socketpair())
    ends.close()
    assert ends.stream.fileno() == ends.line.fileno() == -1
