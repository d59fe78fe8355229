"""Answers and jail files of a compromised VMM are refused."""

from __future__ import annotations

import asyncio
import os
import socket
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from hpcc.core import IntegrityError
from hpcc.runtime.firecracker.io import (
    MAX_BODY_BYTES,
    MAX_HEAD_BYTES,
    MAX_VSOCK_ANSWER_BYTES,
    Api,
    Response,
    connect_in_jail,
    connect_to_guest,
    is_connected,
    json_object,
    request_bytes,
)
from hpcc.runtime.firecracker.plan import START_CALL, VERSION_CALL

NO_CONTENT = b"HTTP/1.1 204 \r\nServer: Firecracker API\r\nConnection: keep-alive\r\n\r\n"
FOUND = b'HTTP/1.1 200 \r\nContent-Type: application/json\r\nContent-Length: 7\r\n\r\n{"a":1}'


@pytest.fixture
def pair() -> Iterator[tuple[socket.socket, socket.socket]]:
    ours, theirs = socket.socketpair()
    ours.settimeout(0)
    with ours, theirs:
        yield ours, theirs


@pytest.fixture
def jail(tmp_path: Path) -> Iterator[int]:
    fd = os.open(tmp_path, os.O_PATH | os.O_DIRECTORY)
    yield fd
    os.close(fd)


def listener(path: Path) -> socket.socket:
    sock = socket.socket(socket.AF_UNIX)
    sock.bind(str(path))
    sock.listen()
    return sock


def test_a_request_states_its_length() -> None:
    head, _, body = request_bytes(START_CALL).partition(b"\r\n\r\n")
    assert head.startswith(b"PUT /actions HTTP/1.1\r\n")
    assert f"Content-Length: {len(body)}".encode() in head
    assert request_bytes(VERSION_CALL).endswith(b"\r\n\r\n")


@pytest.mark.parametrize(("answer", "body"), [(NO_CONTENT, b""), (FOUND, b'{"a":1}')])
def test_an_answer_is_read_however_it_is_cut(answer: bytes, body: bytes) -> None:
    for cut in range(len(answer)):
        response = Response()
        assert response.feed(answer[:cut]) is None
        assert response.feed(answer[cut:]) == body


@pytest.mark.parametrize(
    "answer",
    [
        b"SSH-2.0\r\n\r\n",
        b"HTTP/1.1 20 \r\n\r\n",
        b"HTTP/1.1 200 \r\nContent-Length: -1\r\n\r\n",
        b"HTTP/1.1 200 \r\nContent-Length: 1e3\r\n\r\n",
        b"HTTP/1.1 200 \r\nContent-Length: %d\r\n\r\n" % (MAX_BODY_BYTES + 1),
        b"HTTP/1.1 200 \r\nTransfer-Encoding: chunked\r\n\r\n",
        NO_CONTENT + NO_CONTENT,
        b"x" * (MAX_HEAD_BYTES + 1),
        b"HTTP/1.1 200 \r\nX: " + b"y" * MAX_HEAD_BYTES + b"\r\n\r\n",
    ],
)
def test_an_answer_that_is_none_is_refused(answer: bytes) -> None:
    with pytest.raises(IntegrityError):
        Response().feed(answer)


@given(st.lists(st.binary(max_size=200), max_size=20))
def test_any_bytes_are_an_answer_or_its_one_error(chunks: list[bytes]) -> None:
    response = Response()
    for chunk in chunks:
        try:
            if response.feed(chunk) is not None:
                return
        except IntegrityError:
            return


@pytest.mark.parametrize("body", [b"", b"[]", b"1", b"{", b"\xff", b"[" * MAX_BODY_BYTES])
def test_a_body_that_is_no_object_is_refused(body: bytes) -> None:
    with pytest.raises(IntegrityError):
        json_object(body)


async def test_a_refusal_carries_the_vmms_words(
    pair: tuple[socket.socket, socket.socket],
) -> None:
    body = b'{"fault_message":"no disk"}'
    pair[1].sendall(b"HTTP/1.1 400 \r\nContent-Length: %d\r\n\r\n%s" % (len(body), body))
    with pytest.raises(OSError, match="PUT /actions: status 400: no disk"):
        await Api(pair[0]).call(START_CALL)


async def test_a_vmm_that_hangs_up_is_an_error(pair: tuple[socket.socket, socket.socket]) -> None:
    pair[1].shutdown(socket.SHUT_WR)
    with pytest.raises(ConnectionResetError):
        await Api(pair[0]).call(START_CALL)


@pytest.mark.parametrize("answer", [b"OK 0\n", b"OK 1073741824\n"])
def test_the_vsock_answer_is_one_line(answer: bytes) -> None:
    assert not any(is_connected(answer[:n]) for n in range(len(answer)))
    assert is_connected(answer)


@pytest.mark.parametrize(
    "answer", [b"\n", b"OK\n", b"OK x\n", b"ERR 1\n", b"O" * MAX_VSOCK_ANSWER_BYTES]
)
def test_another_vsock_answer_is_refused(answer: bytes) -> None:
    with pytest.raises(IntegrityError):
        is_connected(answer)


async def test_what_follows_the_vsock_answer_is_left_to_the_guest(
    pair: tuple[socket.socket, socket.socket],
) -> None:
    pair[1].sendall(b"OK 7\n<hpcc")
    await connect_to_guest(pair[0], 5005)
    assert pair[1].recv(64) == b"CONNECT 5005\n"
    assert pair[0].recv(64) == b"<hpcc"


async def test_a_closed_vsock_means_not_yet(pair: tuple[socket.socket, socket.socket]) -> None:
    pair[1].shutdown(socket.SHUT_WR)
    with pytest.raises(ConnectionRefusedError):
        await connect_to_guest(pair[0], 5005)


def test_a_socket_in_the_jail_is_connected_to(tmp_path: Path, jail: int) -> None:
    with listener(tmp_path / "s"):
        sock, pid = connect_in_jail(jail, "s", os.geteuid())
        sock.close()
    assert pid == os.getpid()


def test_a_path_longer_than_a_socket_address_works(tmp_path: Path) -> None:
    directory = tmp_path / ("d" * 100) / ("e" * 100)
    directory.mkdir(parents=True)
    fd = os.open(directory, os.O_PATH | os.O_DIRECTORY)
    here = os.getcwd()
    os.chdir(directory)
    try:
        with listener(Path("s")):
            connect_in_jail(fd, "s", os.geteuid())[0].close()
    finally:
        os.chdir(here)
        os.close(fd)


def test_a_link_to_a_socket_outside_the_jail_is_not_followed(tmp_path: Path, jail: int) -> None:
    with listener(tmp_path / "root-owned-service"):
        (tmp_path / "s").symlink_to(tmp_path / "root-owned-service")
        with pytest.raises(IntegrityError, match="not a socket"):
            connect_in_jail(jail, "s", os.geteuid())


def test_a_hard_link_to_anothers_socket_is_not_talked_to(tmp_path: Path, jail: int) -> None:
    with listener(tmp_path / "s"), pytest.raises(IntegrityError, match="uid"):
        connect_in_jail(jail, "s", os.geteuid() + 1)


@pytest.mark.parametrize("make", [Path.mkdir, Path.touch, os.mkfifo])
def test_what_is_no_socket_is_refused(
    tmp_path: Path, jail: int, make: Callable[[Path], None]
) -> None:
    make(tmp_path / "s")
    with pytest.raises(IntegrityError, match="not a socket"):
        connect_in_jail(jail, "s", os.geteuid())


def test_an_absent_socket_is_an_error_of_its_own(jail: int) -> None:
    with pytest.raises(FileNotFoundError):
        connect_in_jail(jail, "s", os.geteuid())


async def test_an_endless_answer_ends(pair: tuple[socket.socket, socket.socket]) -> None:
    def flood() -> None:
        try:
            while True:
                pair[1].sendall(b"x" * 4096)
        except OSError:
            return

    thread = asyncio.get_running_loop().run_in_executor(None, flood)
    with pytest.raises(IntegrityError):
        await Api(pair[0]).call(VERSION_CALL)
    pair[0].close()
    await thread
