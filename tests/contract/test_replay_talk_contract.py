"""Both engines receive a launcher's request and send a replay's answer in the same way."""

from __future__ import annotations

import contextlib
import os
import signal
import socket
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from hpcc.cache.base.outputs import OutputFile
from hpcc.cache.replay.engine import MAX_ANSWER_BYTES, REQUEST_BUFFER_BYTES, Engine, Outcome, Plan

Receive = Callable[[], tuple[int, bytes]]


def replay(engine: Engine, output: Path, answer: bytes, connection: int) -> int:
    plan = Plan((), (OutputFile(bytes(output), b"object"),), 0o644, (0, 0), answer)
    return engine.replay(engine.prepare(plan), connection)


@pytest.fixture
def pair() -> Iterator[tuple[socket.socket, socket.socket]]:
    ours, theirs = socket.socketpair()
    theirs.settimeout(10)
    with ours, theirs:
        yield ours, theirs


# ---- the answer ----


@pytest.mark.parametrize("size", [0, 1, MAX_ANSWER_BYTES])
def test_the_answer_is_sent_whole_and_the_connection_stays(
    engine: Engine, tmp_path: Path, pair: tuple[socket.socket, socket.socket], size: int
) -> None:
    ours, theirs = pair
    answer = bytes(i % 251 for i in range(size))
    assert replay(engine, tmp_path / "a.o", answer, ours.fileno()) == Outcome.DONE
    ours.sendall(b".")
    got = b""
    while not got.endswith(b"."):
        got += theirs.recv(1 << 16)
    assert got == answer + b"."


def test_a_launcher_that_is_gone_has_its_files_all_the_same(
    engine: Engine, tmp_path: Path, pair: tuple[socket.socket, socket.socket]
) -> None:
    ours, theirs = pair
    theirs.close()
    assert replay(engine, tmp_path / "a.o", b"answer", ours.fileno()) == Outcome.UNSENT
    assert (tmp_path / "a.o").read_bytes() == b"object"


@pytest.mark.timeout(20)
def test_a_launcher_that_does_not_read_is_not_waited_for(
    engine: Engine, tmp_path: Path, pair: tuple[socket.socket, socket.socket]
) -> None:
    ours, _ = pair
    ours.setblocking(False)
    with contextlib.suppress(BlockingIOError):
        while True:
            ours.send(b"x" * 65536)
    ours.setblocking(True)
    assert replay(engine, tmp_path / "a.o", b"answer", ours.fileno()) == Outcome.UNSENT
    assert (tmp_path / "a.o").read_bytes() == b"object"


def test_when_the_outputs_cannot_be_written_nothing_is_answered(
    engine: Engine, tmp_path: Path, pair: tuple[socket.socket, socket.socket]
) -> None:
    ours, theirs = pair
    (tmp_path / "a.o").mkdir()
    assert replay(engine, tmp_path / "a.o", b"answer", ours.fileno()) == Outcome.NOT_OURS
    theirs.setblocking(False)
    with pytest.raises(BlockingIOError):
        theirs.recv(1)


# ---- the request ----


@pytest.fixture
def listener(tmp_path: Path) -> Iterator[socket.socket]:
    with socket.socket(socket.AF_UNIX) as made:
        made.bind(os.fspath(tmp_path / "s"))
        made.listen(8)
        yield made


@pytest.fixture
def receive(engine: Engine, listener: socket.socket) -> Receive:
    return engine.receiver(listener, os.getuid())


def connect(listener: socket.socket) -> socket.socket:
    peer = socket.socket(socket.AF_UNIX)
    peer.connect(listener.getsockname())
    return peer


@pytest.mark.parametrize("size", [1, 12, 5000, REQUEST_BUFFER_BYTES])
def test_a_request_in_one_piece_comes_with_its_connection(
    receive: Receive, listener: socket.socket, size: int
) -> None:
    request = bytes(i % 251 for i in range(size))
    with connect(listener) as peer:
        peer.settimeout(10)
        peer.sendall(request)
        number, data = receive()
        assert data == request
        with socket.socket(fileno=number) as ours:
            assert not ours.get_inheritable()
            ours.sendall(b"answer")
            assert peer.recv(100) == b"answer"


def test_of_a_longer_request_the_rest_stays_to_be_read(
    receive: Receive, listener: socket.socket
) -> None:
    with connect(listener) as peer:
        peer.sendall(b"x" * REQUEST_BUFFER_BYTES + b"the rest")
        number, data = receive()
        with socket.socket(fileno=number) as ours:
            assert data + ours.recv(100) == b"x" * REQUEST_BUFFER_BYTES + b"the rest"


def test_of_a_request_in_two_pieces_none_is_lost(receive: Receive, listener: socket.socket) -> None:
    with connect(listener) as peer:
        peer.sendall(b"first ")
        number, data = receive()
        peer.sendall(b"second")
        with socket.socket(fileno=number) as ours:
            assert data + ours.recv(100) == b"first second"


def test_a_request_that_comes_late_is_left_to_be_read(
    receive: Receive, listener: socket.socket
) -> None:
    with connect(listener) as peer:
        timer = threading.Timer(0.15, lambda: peer.sendall(b"late"))
        timer.start()
        number, data = receive()
        with socket.socket(fileno=number) as ours:
            # On a machine that stalled it may have come in time.
            assert (data or ours.recv(100)) == b"late"
        timer.join()


def test_of_a_request_a_moment_late_nothing_is_lost(
    receive: Receive, listener: socket.socket
) -> None:
    with connect(listener) as peer:
        timer = threading.Timer(0.01, lambda: peer.sendall(b"soon"))
        timer.start()
        number, data = receive()
        with socket.socket(fileno=number) as ours:
            assert (data or ours.recv(100)) == b"soon"
        timer.join()


def test_a_peer_that_says_nothing_gets_no_more_than_a_moment(
    receive: Receive, listener: socket.socket
) -> None:
    with connect(listener):
        number, data = receive()
        os.close(number)
        assert data == b""


@pytest.mark.parametrize("request_bytes", [b"", b"said and gone"])
def test_of_a_peer_that_is_gone_its_words_are_left(
    receive: Receive, listener: socket.socket, request_bytes: bytes
) -> None:
    with connect(listener) as peer:
        peer.sendall(request_bytes)
    number, data = receive()
    os.close(number)
    assert data == request_bytes


def test_one_receiver_serves_one_after_the_other(receive: Receive, listener: socket.socket) -> None:
    for request in (b"a long request", b"short", b"", b"again"):
        with connect(listener) as peer:
            peer.sendall(request)
            number, data = receive()
            os.close(number)
            assert data == request


def test_a_peer_of_another_user_is_turned_away(engine: Engine, listener: socket.socket) -> None:
    receive = engine.receiver(listener, os.getuid() + 1)
    with connect(listener) as peer:
        peer.settimeout(10)
        peer.sendall(b"request")
        with pytest.raises(PermissionError):
            receive()
        with contextlib.suppress(ConnectionResetError):  # its request was never read
            assert peer.recv(100) == b""


@pytest.mark.timeout(20)
def test_a_door_that_closes_wakes_the_receiver(receive: Receive, listener: socket.socket) -> None:
    errors: list[Exception] = []

    def wait() -> None:
        try:
            receive()
        except OSError as error:
            errors.append(error)

    thread = threading.Thread(target=wait)
    thread.start()
    listener.shutdown(socket.SHUT_RDWR)
    thread.join(10)
    assert len(errors) == 1
    assert not isinstance(errors[0], PermissionError)


@pytest.mark.timeout(20)
def test_a_signal_does_not_disturb_a_receiver(receive: Receive, listener: socket.socket) -> None:
    """The kernel may deliver a signal of the process to any thread, whose accept() then fails."""
    seen: list[int] = []
    before = signal.signal(signal.SIGUSR1, lambda number, _frame: seen.append(number))
    got: list[bytes] = []

    def wait() -> None:
        number, data = receive()
        os.close(number)
        got.append(data)

    thread = threading.Thread(target=wait)
    try:
        thread.start()
        assert thread.ident is not None
        for _ in range(3):
            time.sleep(0.02)
            signal.pthread_kill(thread.ident, signal.SIGUSR1)
        with connect(listener) as peer:
            peer.sendall(b"request")
            thread.join(10)
    finally:
        signal.signal(signal.SIGUSR1, before)
    assert got == [b"request"]
    assert seen
