"""A hostile guest at the other end of the byte stream is refused and retired, never obeyed.

Each test runs twice: with a warden in a separate process, as in production, and with one in the
test's own loop.
"""

from __future__ import annotations

import asyncio
import math
import os
import socket
import sys
from contextlib import AbstractAsyncContextManager
from dataclasses import replace
from typing import Any

import pytest
from grpclib import GRPCError, Status

from hpcc._proto import agent_pb2 as pb
from hpcc.core import (
    CallerError,
    Digest,
    ExecLimits,
    InputFile,
    NotFoundError,
    ResultEvent,
    StdioEvent,
)
from hpcc.ports import GuestLostError
from hpcc.runtime.channel.channel import ChannelTiming, GuestChannel
from hpcc.runtime.channel.warden_launch import launch_warden
from hpcc.wire.exec_frames import MAX_FRAME_BYTES
from hpcc.wire.link import MAX_JUNK_BYTES
from hpcc_testkit.guests import scripted_guest as scripted
from hpcc_testkit.guests.guest_contract import MemoryBlobs, request
from hpcc_testkit.guests.scripted_guest import Play, Script, welcome
from hpcc_testkit.guests.wardens import local_wardens

DATA = b"an input"
OK = pb.Result(reason=pb.Result.REASON_ENDED)
REQUEST = request(
    "cc", inputs=[("a.c", DATA)], outputs=("a.o", "b.o"),
    limits=ExecLimits(stdio_bytes=1000, output_bytes=1000),
)  # fmt: skip


WARDENS = {"process": lambda: launch_warden, "local": local_wardens}
chosen = "process"


@pytest.fixture(params=WARDENS, autouse=True)
def warden(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys.modules[__name__], "chosen", request.param)


def raw_guest(
    play: Play, timing: ChannelTiming | None = None
) -> AbstractAsyncContextManager[GuestChannel]:
    return scripted.raw_guest(play, launch=WARDENS[chosen](), timing=timing)


def guest(script: Script) -> AbstractAsyncContextManager[GuestChannel]:
    return scripted.scripted_guest(script, launch=WARDENS[chosen]())


def frames(*answers: Any) -> Script:
    """A guest that reads the request and then sends these frames, whatever the request was."""

    async def script(stream: Any) -> None:
        await stream.recv_message()
        for answer in answers:
            await stream.send_message(answer)

    return script


def need(*digests: bytes, more: bool = False) -> pb.ServerFrame:
    return pb.ServerFrame(need=pb.Need(digests=digests, more=more))


def out(data: bytes = b"x", stream: int = pb.Stdio.STREAM_STDOUT) -> pb.ServerFrame:
    return pb.ServerFrame(stdio=pb.Stdio(stream=stream, data=data))


def result(**fields: Any) -> pb.ServerFrame:
    return pb.ServerFrame(result=pb.Result(**{"reason": pb.Result.REASON_ENDED, **fields}))


def chunk(
    path: str = "a.o", data: bytes = b"o", last: bool = True, is_executable: bool = False
) -> pb.ServerFrame:
    return pb.ServerFrame(
        output=pb.OutputChunk(path=path, data=data, last=last, is_executable=is_executable)
    )


DIGEST = bytes.fromhex(REQUEST.inputs[0].digest.hash)

HOSTILE = {
    "stdio before Need": [out()],
    "result before Need": [result()],
    "two last Needs": [need(), need()],
    "Need for a blob that is no input": [need(os.urandom(32))],
    "Need for the same blob twice": [need(DIGEST, DIGEST)],
    "Need that promises more and asks nothing": [need(more=True)],
    "Need for ever": [need(DIGEST, more=True), need(DIGEST, more=True)],
    "empty frame": [pb.ServerFrame()],
    "output before Result": [need(), chunk()],
    "two Results": [need(), result(), result()],
    "stdio after Result": [need(), result(), out()],
    "no Result": [need(), out()],
    "nothing at all": [],
    "stdio of no stream": [need(), out(stream=0)],
    "empty stdio": [need(), out(b"")],
    "stdio over the limit": [need(), *[out(bytes(400))] * 3],
    "stdio chunk too large": [need(), out(bytes(300 << 10))],
    "undeclared output": [need(), result(), chunk("c.o")],
    "escaping output": [need(), result(), chunk("../../etc/passwd")],
    "absolute output": [need(), result(), chunk("/etc/passwd")],
    "outputs out of order": [need(), result(), chunk("b.o"), chunk("a.o")],
    "an output twice": [need(), result(), chunk("a.o"), chunk("a.o")],
    "outputs mixed": [need(), result(), chunk("a.o", last=False), chunk("b.o")],
    "output that never ends": [need(), result(), chunk("a.o", last=False)],
    "mode that changes": [need(), result(), chunk(last=False), chunk(is_executable=True)],
    "empty chunk that is not the last": [need(), result(), chunk(data=b"", last=False)],
    "empty chunks for ever": [need(), result(), chunk(last=False), chunk(data=b"", last=False)],
    "output over the limit": [
        need(),
        result(),
        chunk(data=bytes(600), last=False),
        chunk(data=bytes(600)),
    ],
    "output after a failed exec": [
        need(),
        result(reason=pb.Result.REASON_MEMORY, exit_code=137, signal=9),
        chunk(),
    ],
    "unknown reason": [need(), result(reason=0)],
    "failure with status 0": [need(), result(reason=pb.Result.REASON_DEADLINE)],
    "impossible status": [need(), result(exit_code=70_000)],
    "impossible signal": [need(), result(signal=99, exit_code=227)],
    "signal that disagrees": [need(), result(signal=9, exit_code=1)],
    "time that is no number": [need(), result(wall_seconds=math.nan)],
    "time before the start": [need(), result(user_seconds=-1.0)],
    "endless time": [need(), result(stage_seconds=math.inf)],
    "long detail": [need(), result(detail="x" * 2000)],
    "frame over the limit": [need(), out(bytes(MAX_FRAME_BYTES + 1))],
}


async def run(channel: GuestChannel) -> list[Any]:
    return [e async for e in channel.exec(REQUEST, MemoryBlobs(DATA))]


async def connect_and_run(channel: GuestChannel) -> list[Any]:
    """Connect and run one exec, for a guest whose fault may come before the warden is ready."""
    await channel.connect()
    return await run(channel)


@pytest.mark.parametrize("name", HOSTILE)
async def test_a_breach_retires_the_guest(name: str) -> None:
    async with guest(frames(*HOSTILE[name])) as channel, asyncio.timeout(20):
        with pytest.raises(GuestLostError) as caught:
            await run(channel)
        assert caught.value.reason == "protocol-violation"
        assert channel.lost.done()
        with pytest.raises(GuestLostError):
            await run(channel)


async def test_an_honest_answer_is_taken() -> None:
    answers = [
        need(DIGEST),
        out(b"warning\n", pb.Stdio.STREAM_STDERR),
        result(wall_seconds=1.5),
        chunk("b.o"),
    ]

    async def script(stream: Any) -> None:
        assert (await stream.recv_message()).header.exec_id == "contract"
        await stream.send_message(answers[0])
        sent = (await stream.recv_message()).chunk
        assert (sent.digest, sent.data, sent.last) == (DIGEST, DATA, True)
        assert await stream.recv_message() is None
        for answer in answers[1:]:
            await stream.send_message(answer)

    async with guest(script) as channel:
        events = await run(channel)
        assert events[0] == StdioEvent("stderr", b"warning\n")
        assert isinstance(events[1], ResultEvent)
        assert events[1].wall_seconds == 1.5
        assert events[2].path == "b.o"
        assert not channel.lost.done()


async def test_what_only_the_next_exec_has_goes_in_its_header() -> None:
    """A guest that ignores that asks as before; one that has dropped a blob does, too."""
    new = b"int second;"
    request = replace(REQUEST, inputs=(*REQUEST.inputs, InputFile("new.c", Digest.of(new))))
    headers: list[pb.Header] = []

    async def script(stream: Any) -> None:
        headers.append((await stream.recv_message()).header)
        asked = [i.digest for i in headers[-1].inputs] if len(headers) != 2 else []
        await stream.send_message(need(*asked))
        sent = [message.chunk.digest async for message in stream]
        assert sent == asked
        await stream.send_message(result())

    async with guest(script) as channel:
        for wanted in (REQUEST, request, request):
            blobs = MemoryBlobs(DATA, new)
            assert [type(e) async for e in channel.exec(wanted, blobs)] == [ResultEvent]
    assert [list(header.blobs) for header in headers] == [[], [new], []]


async def test_a_length_prefix_of_4_gib_is_refused_before_it_is_read() -> None:
    async def script(stream: Any) -> None:
        await stream.recv_message()
        await stream.send_initial_metadata()
        await stream._stream.send_data(b"\0\xff\xff\xff\xff" + bytes(1000))
        await asyncio.Event().wait()

    async with guest(script) as channel, asyncio.timeout(20):
        with pytest.raises(GuestLostError) as caught:
            await run(channel)
        assert caught.value.reason == "protocol-violation"


@pytest.mark.parametrize(
    "raw", [b"\x01\0\0\0\x01x", b"\0\0\0\0\x03\xff\xff\xff", b"\0\0\0\0\x09short"]
)
async def test_bytes_that_are_no_message_are_refused(raw: bytes) -> None:
    async def script(stream: Any) -> None:
        await stream.recv_message()
        await stream.send_initial_metadata()
        await stream._stream.send_data(raw)

    async with guest(script) as channel, asyncio.timeout(20):
        with pytest.raises(GuestLostError):
            await run(channel)
        assert channel.lost.done()


async def test_an_error_status_retires_the_guest() -> None:
    async def script(stream: Any) -> None:
        raise GRPCError(Status.INVALID_ARGUMENT, "no")

    async with guest(script) as channel, asyncio.timeout(20):
        with pytest.raises(GuestLostError):
            await run(channel)
        assert channel.lost.done()


async def test_a_stream_that_ends_is_noticed_at_once() -> None:
    async def play(sock: socket.socket) -> None:
        await welcome(sock)
        sock.close()

    async with raw_guest(play) as channel, asyncio.timeout(5):
        with pytest.raises(GuestLostError):
            await connect_and_run(channel)
        assert await channel.lost == "the guest's stream ended"


@pytest.mark.parametrize(
    "garbage", [b"HTTP/1.1 400 Bad Request\r\n\r\n" * 9, b"\xff" * 5000, bytes(5000)]
)
async def test_garbage_instead_of_http2_retires_the_guest(garbage: bytes) -> None:
    async def play(sock: socket.socket) -> None:
        await welcome(sock)
        await asyncio.get_running_loop().sock_sendall(sock, garbage)
        await asyncio.Event().wait()

    async with raw_guest(play) as channel, asyncio.timeout(5):
        with pytest.raises(GuestLostError) as caught:
            await connect_and_run(channel)
        assert caught.value.reason == "protocol-violation", str(caught.value)


async def test_junk_for_ever_before_the_handshake_is_refused() -> None:
    async def play(sock: socket.socket) -> None:
        await asyncio.get_running_loop().sock_sendall(
            sock, b"boot message\n" * (2 * MAX_JUNK_BYTES // 13)
        )

    async with raw_guest(play) as channel, asyncio.timeout(5):
        with pytest.raises(GuestLostError) as caught:
            await channel.connect()
        assert "link-handshake" in str(caught.value)


async def test_a_guest_that_closes_before_the_handshake_is_an_error() -> None:
    async def play(sock: socket.socket) -> None:
        sock.close()

    async with raw_guest(play) as channel, asyncio.timeout(5):
        with pytest.raises(GuestLostError):
            await channel.connect()


async def test_a_missing_blob_does_not_retire_the_guest() -> None:
    resets: list[str] = []

    async def script(stream: Any) -> None:
        await stream.recv_message()
        await stream.send_message(need(DIGEST))
        try:
            await stream.recv_message()
        finally:
            resets.append("reset")

    async with guest(script) as channel, asyncio.timeout(20):
        with pytest.raises(NotFoundError):
            _ = [e async for e in channel.exec(REQUEST, MemoryBlobs())]
        assert not channel.lost.done()
        for _ in range(20):
            await asyncio.sleep(0)
    assert resets == ["reset"]


async def test_closing_the_events_resets_the_stream() -> None:
    ended = asyncio.Event()

    async def script(stream: Any) -> None:
        await stream.recv_message()
        await stream.send_message(need())
        await stream.send_message(out())
        try:
            await asyncio.Event().wait()
        finally:
            ended.set()

    async with guest(script) as channel, asyncio.timeout(20):
        events = channel.exec(REQUEST, MemoryBlobs(DATA))
        assert isinstance(await anext(events), StdioEvent)
        await events.aclose()
        await ended.wait()
        assert not channel.lost.done()


async def test_a_slow_consumer_holds_the_guest_back() -> None:
    sent = 0
    request_ = request("cc", outputs=("o",), limits=ExecLimits(output_bytes=1 << 30))

    async def script(stream: Any) -> None:
        nonlocal sent
        await stream.recv_message()
        await stream.send_message(need())
        await stream.send_message(result())
        for _ in range(400):
            await stream.send_message(chunk("o", bytes(256 << 10), last=False))
            sent += 256 << 10

    async with guest(script) as channel, asyncio.timeout(20):
        events = channel.exec(request_, MemoryBlobs())
        await anext(events)
        await asyncio.sleep(0.5)
        assert sent < 16 << 20
        await events.aclose()


async def test_a_slow_consumer_holds_up_no_other_exec() -> None:
    large = request("large", outputs=("o",), limits=ExecLimits(output_bytes=1 << 30))

    async def script(stream: Any) -> None:
        header = (await stream.recv_message()).header
        await stream.send_message(need())
        await stream.recv_message()
        await stream.send_message(result())
        for _ in range(100 if header.argv[0] == "large" else 0):
            await stream.send_message(chunk("o", bytes(256 << 10), last=False))

    async with guest(script) as channel, asyncio.timeout(20):
        slow = channel.exec(large, MemoryBlobs())
        await anext(slow)
        await asyncio.sleep(0.3)  # it has filled all that there is of room
        for _ in range(3):
            assert [type(e) for e in await run_small(channel)] == [ResultEvent]
        await slow.aclose()


async def run_small(channel: GuestChannel) -> list[Any]:
    return [e async for e in channel.exec(request("small"), MemoryBlobs())]


async def test_a_request_over_a_limit_never_reaches_the_guest() -> None:
    async def script(stream: Any) -> None:
        pytest.fail("it was sent")

    async with guest(script) as channel:
        for bad in [
            request("cc", inputs=[("../x", DATA)]),
            request("cc", inputs=[("/x", DATA)]),
            request("cc", inputs=[("a", DATA), ("a", DATA)]),
            request("cc", inputs=[("a", DATA), ("a/b", DATA)]),
            request("cc", inputs=[("a", DATA)], cwd="a"),
            request("cc", inputs=[("a", DATA)], outputs=("a/o",)),
            request("cc", outputs=tuple(f"o{i}" for i in range(65))),
            request("cc", cwd="a/../b"),
            request(),
            request("c\0c"),
            request("cc", env=(("A=B", "x"),)),
            request("cc", env=(("A", "x" * (3 << 20)),)),
            request("cc", limits=ExecLimits(pids=0)),
            request("cc", limits=ExecLimits(wall_seconds=math.inf)),
        ]:
            with pytest.raises(CallerError):
                _ = [e async for e in channel.exec(bad, MemoryBlobs())]


async def test_a_guest_that_answers_no_ping_is_lost() -> None:
    impatient = ChannelTiming(guest_ping_seconds=0.2, guest_timeout_seconds=0.4)

    async def play(sock: socket.socket) -> None:
        await welcome(sock)
        await asyncio.Event().wait()

    async with raw_guest(play, impatient) as channel, asyncio.timeout(10):
        await channel.connect()
        assert await channel.lost == "the guest's stream ended"
