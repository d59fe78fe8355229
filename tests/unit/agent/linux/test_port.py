"""The guest's port: a session starts after HELLO, and a lasting hang-up ends it."""

from __future__ import annotations

import asyncio
import os
import socket
from collections.abc import Callable
from pathlib import Path

import pytest

from hpcc.agent.base.greeter import Greeter
from hpcc.agent.linux.main import find_port, find_token, find_vsock_port
from hpcc.agent.linux.port import _HANGUP_SECONDS, PortTransport
from hpcc.agent.linux.vsock import accept_from_host, session_of_host
from hpcc.wire.link import NONCE_BYTES, READY, TOKEN_BYTES, GuestLink, HostLink

TOKEN = b"t" * TOKEN_BYTES


class Echo(asyncio.Protocol):
    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        assert isinstance(transport, asyncio.Transport)
        self.transport = transport

    def data_received(self, data: bytes) -> None:
        self.transport.write(data)


class Clocked:
    """An event loop whose clock stands still."""

    def __init__(self, loop: asyncio.AbstractEventLoop, now: float) -> None:
        self._loop, self._now = loop, now

    def time(self) -> float:
        return self._now

    def __getattr__(self, name: str) -> object:
        return getattr(self._loop, name)


async def connect() -> tuple[socket.socket, socket.socket, PortTransport]:
    host, guest = socket.socketpair()
    host.setblocking(False)
    guest.setblocking(False)
    greeter = Greeter(GuestLink(TOKEN), Echo)
    return host, guest, PortTransport(asyncio.get_running_loop(), guest.fileno(), greeter)


async def receive(sock: socket.socket, size: int) -> bytes:
    data = b""
    while len(data) < size:
        more = await asyncio.get_running_loop().sock_recv(sock, 1 << 16)
        assert more
        data += more
    return data


async def test_a_session_starts_after_junk_and_carries_more_than_the_buffers_hold() -> None:
    host, guest, transport = await connect()
    loop = asyncio.get_running_loop()
    link = HostLink(TOKEN, b"n" * NONCE_BYTES)
    payload = bytes(range(256)) * 40_000
    async with asyncio.timeout(20), asyncio.TaskGroup() as group:
        group.create_task(loop.sock_sendall(host, b"junk" + link.hello + payload))
        early = None
        while early is None:
            early = link.feed(await loop.sock_recv(host, 65536))
        assert early + await receive(host, len(payload) - len(early)) == payload
    transport.abort()
    assert await transport.ended is None
    host.close()
    guest.close()


async def test_a_host_that_has_gone_ends_the_session_after_a_while(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """A hang-up may overtake data. Only one that lasts, by the loop's clock, ends the session."""
    host, guest, transport = await connect()
    link = HostLink(TOKEN, b"n" * NONCE_BYTES)
    await asyncio.get_running_loop().sock_sendall(host, link.hello)
    await receive(
        host, len(READY) + len(link.hello)
    )  # or closing with unread bytes would be a reset
    loop, moment = asyncio.get_running_loop(), asyncio.get_running_loop().time()
    with monkeypatch.context() as patch:
        patch.setattr(transport, "_loop", Clocked(loop, moment))
        host.close()
        for _ in range(20):  # it looks every 10 ms
            await asyncio.sleep(0.01)
        assert not transport.ended.done()
        patch.setattr(transport, "_loop", Clocked(loop, moment + _HANGUP_SECONDS))
        for _ in range(20):
            await asyncio.sleep(0.01)
        assert not transport.ended.done()
        patch.setattr(transport, "_loop", Clocked(loop, moment + _HANGUP_SECONDS + 0.001))
        async with asyncio.timeout(60):
            assert isinstance(await transport.ended, OSError)
    guest.close()


def test_the_port_is_found_by_its_name(tmp_path: Path) -> None:
    for name, content in (("vport1p0", "other\n"), ("vport2p1", "hpcc.agent\n")):
        (tmp_path / name).mkdir()
        (tmp_path / name / "name").write_text(content)
    assert find_port(str(tmp_path)) == "/dev/vport2p1"
    (tmp_path / "vport2p1/name").write_text("x")
    with pytest.raises(SystemExit):
        find_port(str(tmp_path))


def test_the_token_comes_from_the_command_line() -> None:
    assert find_token("quiet hpcc.tok=abc x=y") == b"abc"
    with pytest.raises(SystemExit):
        find_token("quiet")


def test_the_channel_comes_from_the_command_line() -> None:
    assert find_vsock_port("quiet hpcc.vsock=5005 hpcc.tok=abc") == 5005
    assert find_vsock_port("quiet hpcc.tok=abc") is None


async def test_only_the_hosts_connection_is_taken(monkeypatch: pytest.MonkeyPatch) -> None:
    """The fake vsock listener yields connections and the context id of each."""
    stranger, host, listener = socket.socket(), socket.socket(), socket.socket()
    number = host.fileno()
    comers = iter(
        [(stranger, (socket.VMADDR_CID_HOST + 1, 1)), (host, (socket.VMADDR_CID_HOST, 1))]
    )

    async def accept(_: socket.socket) -> tuple[socket.socket, tuple[int, int]]:
        return next(comers)

    monkeypatch.setattr(asyncio.get_running_loop(), "sock_accept", accept)
    fd = await accept_from_host(listener)
    os.close(fd)
    assert fd == number
    assert stranger.fileno() == -1
    assert listener.fileno() != -1
    listener.close()


async def test_a_connection_without_a_session_is_not_the_last(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """A readiness check connects and disconnects; the snapshot is taken after that."""
    loop = asyncio.get_running_loop()
    ends = [socket.socketpair() for _ in range(3)]
    comers: asyncio.Queue[socket.socket] = asyncio.Queue()
    for host, _ in ends:
        host.setblocking(False)

    async def accept(_: socket.socket) -> tuple[socket.socket, tuple[int, int]]:
        return await comers.get(), (socket.VMADDR_CID_HOST, 1)

    monkeypatch.setattr(loop, "sock_accept", accept)
    listener = socket.socket()
    link = HostLink(TOKEN, b"n" * NONCE_BYTES)

    def greet(on_session: Callable[[asyncio.Transport], None]) -> Greeter:
        return Greeter(GuestLink(TOKEN), Echo, on_session)

    async with asyncio.timeout(20), asyncio.TaskGroup() as group:
        session = group.create_task(session_of_host(listener, greet))
        for host, guest in ends:
            comers.put_nowait(guest)
            assert await receive(host, len(READY)) == READY
        ends[0][0].close()
        await loop.sock_sendall(ends[2][0], link.hello + b"bytes")
        answer = await receive(ends[2][0], len(link.hello) + 5)
        assert answer.endswith(b"bytes")
        transport = await session
        assert await loop.sock_recv(ends[1][0], 1) == b"", "the others are cut"
    assert listener.fileno() == -1
    transport.abort()
    await transport.ended
    for host, _ in ends:
        host.close()
