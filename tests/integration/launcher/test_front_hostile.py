"""The daemon's front against clients that only pretend to be launchers."""

from __future__ import annotations

import os
import socket
import struct
import subprocess
import threading
from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path

import pytest

from hpcc.daemon.front import Front
from hpcc.daemon.socket_lock import socket_path
from hpcc.daemon.transport import FrontLimits
from hpcc.daemon.unix_listener import UnixListener
from hpcc.ports import SystemClock
from hpcc.wire import launcher as wire
from hpcc.wire.launcher_version import decode_version
from hpcc_testkit.cache.launcher import (
    ANSWER_VARIABLE,
    Bench,
    ScriptedHandler,
    front_counters,
    paths_of,
    wait_until,
)

CORPUS = Path(__file__).parents[2] / "fuzz" / "corpus" / "launcher_request"
NEEDS_ROOT = pytest.mark.skipif(os.getuid() != 0, reason="needs root")


def stat_id(path: str) -> tuple[int, int]:
    found = os.stat(path)
    return found.st_dev, found.st_ino


def request_frame(
    answer: str,
    *,
    cwd: str = "/",
    mount_id: tuple[int, int] | None = None,
    gid: int | None = None,
) -> bytes:
    return wire.encode_request(
        wire.LauncherRequest(
            build_id=wire.BUILD_ID.encode(),
            compiler=b"/usr/bin/gcc",
            cwd=cwd.encode(),
            argv=(b"gcc", b"-c", b"a.c"),
            env=((ANSWER_VARIABLE.encode(), answer.encode()),),
            umask=0o22,
            gid=os.getegid() if gid is None else gid,
            stderr_is_tty=False,
            cwd_id=stat_id(cwd),
            root_id=stat_id("/"),
            mount_id=mount_id or stat_id("/proc/self/ns/mnt"),
        )
    )


def read_frame(connection: socket.socket) -> tuple[int, bytes]:
    data = b""
    while len(data) < wire.HEADER_BYTES:
        data += connection.recv(1)
    kind, length = wire.parse_header(data)
    body = b""
    while len(body) < length:
        body += connection.recv(length - len(body))
    return kind, body


class Harness:
    """Runs a front in this process."""

    def __init__(self, path: str, limits: FrontLimits) -> None:
        self.path, self.handler = path, ScriptedHandler()
        self.listener = socket.socket(socket.AF_UNIX)
        self.listener.bind(path)
        self.listener.listen(64)
        self.front = Front(
            UnixListener(self.listener, self.handler.replays, clock=SystemClock(), limits=limits),
            self.handler,
            on_admin=lambda body: b'{"asked": "%s"}' % body,
            on_version=lambda: True,
        )
        self.front.start()

    def connect(self) -> socket.socket:
        connection = socket.socket(socket.AF_UNIX)
        connection.settimeout(10)
        connection.connect(self.path)
        return connection

    def ask(self, frame: bytes) -> tuple[int, bytes]:
        with self.connect() as connection:
            connection.sendall(frame)
            while (found := read_frame(connection))[0] == wire.WAIT:
                continue
            return found


@pytest.fixture
def make_front(tmp_path: Path) -> Iterator[Callable[..., Harness]]:
    made: list[Harness] = []

    def make(**limits: float) -> Harness:
        harness = Harness(str(tmp_path / f"{len(made)}.sock"), FrontLimits(**limits))  # type: ignore[arg-type]  # by name, in tests
        made.append(harness)
        return harness

    yield make
    for harness in made:
        harness.front.close_door()
        harness.front.cancel()
        wait_until(lambda h=harness: not any(h.front.in_flight()))  # type: ignore[misc]  # a default binds it


@pytest.mark.parametrize(
    "path",
    sorted(p for p in CORPUS.iterdir() if p.name not in {"whole", "admin_unknown"}),
    ids=lambda p: p.name,
)
def test_a_malformed_frame_ends_the_connection_and_nothing_else(
    make_front: Callable[..., Harness], path: Path
) -> None:
    harness = make_front(receive_seconds=0.3)
    with harness.connect() as connection:
        connection.sendall(path.read_bytes())
        connection.shutdown(socket.SHUT_WR)
        left = connection.recv(1 << 16)
        assert left == b"" or wire.parse_header(left)[0] == wire.VERSION
        assert connection.recv(1) == b"" or left
    assert harness.ask(request_frame("exec")) == (wire.EXEC, b"scripted")
    assert len(harness.handler.requests) == 1


def test_a_launcher_of_the_protocol_before_hears_our_version(
    make_front: Callable[..., Harness],
) -> None:
    harness = make_front()
    body = request_frame("exec")[wire.HEADER_BYTES :]
    # Without the length of build facts, as protocol 2 had it.
    older = wire.frame(wire.REQUEST, struct.pack("<I", 2) + body[8:])
    kind, answer = harness.ask(older)
    assert (kind, decode_version(answer)) == (wire.VERSION, (wire.BUILD_ID, True))
    assert harness.handler.requests == []


def test_facts_that_are_no_facts_cost_no_compile(make_front: Callable[..., Harness]) -> None:
    harness = make_front()
    body = request_frame("exec")[wire.HEADER_BYTES :]
    front = struct.pack("<II", wire.PROTOCOL_VERSION, 5)
    assert harness.ask(wire.frame(wire.REQUEST, front + b"\0\xff\0=\0" + body[8:])) == (
        wire.EXEC,
        b"scripted",
    )
    (request,) = harness.handler.requests
    assert request.facts == b"\0\xff\0=\0"
    assert request.frame == body[8:]


def test_a_frame_that_never_ends_is_given_up(make_front: Callable[..., Harness]) -> None:
    harness = make_front(receive_seconds=0.3)
    with harness.connect() as connection:
        connection.sendall(request_frame("exec")[:-5])
        assert connection.recv(1) == b""
    assert harness.front.snapshot()["lost.launcher"] == 1


def test_a_frame_in_single_bytes_is_read(make_front: Callable[..., Harness]) -> None:
    harness = make_front()
    with harness.connect() as connection:
        for byte in request_frame("exec"):
            connection.sendall(bytes([byte]))
        assert read_frame(connection) == (wire.EXEC, b"scripted")


def test_a_frame_of_eight_mebibytes_is_read_and_one_more_is_not(
    make_front: Callable[..., Harness],
) -> None:
    harness = make_front()
    frame = request_frame("exec")
    strings = frame[wire.HEADER_BYTES + 76 :]
    head, _, tail = strings.partition(b"a.c\0")
    for size, answers in ((wire.MAX_REQUEST_BYTES, True), (wire.MAX_REQUEST_BYTES + 1, False)):
        filler = b"x" * (size - 76 - len(head) - len(tail) - 1)
        body = frame[wire.HEADER_BYTES :][:76] + head + filler + b"\0" + tail
        assert len(body) == size
        with harness.connect() as connection:
            try:
                connection.sendall(wire.MAGIC + struct.pack("<II", wire.REQUEST, size) + body)
            except (BrokenPipeError, ConnectionResetError):
                assert not answers
                continue
            if answers:
                assert read_frame(connection) == (wire.EXEC, b"scripted")
            else:
                assert connection.recv(1) == b""


def test_a_report_that_is_no_report_abandons_the_run(make_front: Callable[..., Harness]) -> None:
    harness = make_front()
    for data in (b"garbage-garbage-garbage", wire.WAIT_FRAME, b""):
        with harness.connect() as connection:
            connection.sendall(request_frame("run"))
            assert read_frame(connection)[0] == wire.RUN
            connection.sendall(data)
            connection.shutdown(socket.SHUT_WR)
            assert connection.recv(1) == b""
    assert harness.handler.counters()["abandon"] == 3
    assert "finish" not in harness.handler.counters()


def test_a_whole_run_is_reported_and_finished(make_front: Callable[..., Harness]) -> None:
    harness = make_front()
    with harness.connect() as connection:
        connection.sendall(request_frame("filter"))
        kind, body = read_frame(connection)
        assert (kind, wire.decode_run(body).filter_headers) == (wire.RUN, True)
        report = wire.LauncherReport(0, 0, b"out", b". /h.h\nwarn\n", False)
        connection.sendall(wire.encode_report(report))
        kind, body = read_frame(connection)
        assert (kind, wire.decode_finish(body)) == (wire.FINISH, (b"", b"warn\n"))


def test_wait_is_sent_while_an_answer_is_made(make_front: Callable[..., Harness]) -> None:
    harness = make_front(tick_seconds=0.1)
    with harness.connect() as connection:
        connection.sendall(request_frame("block:0.6"))
        kinds = []
        while not kinds or kinds[-1] == wire.WAIT:
            kinds.append(read_frame(connection)[0])
    assert kinds[-1] == wire.EXEC
    assert 3 <= kinds.count(wire.WAIT) <= 8


def test_wait_stops_when_an_answer_takes_longer_than_any_can(
    make_front: Callable[..., Harness],
) -> None:
    harness = make_front(tick_seconds=0.05, begin_seconds=0.2)
    with harness.connect() as connection:
        connection.sendall(request_frame("block:1"))
        kinds = []
        while not kinds or kinds[-1] == wire.WAIT:
            kinds.append(read_frame(connection)[0])
    assert kinds.count(wire.WAIT) <= 5


def test_a_launcher_that_vanishes_cancels_what_is_made_for_it(
    make_front: Callable[..., Harness],
) -> None:
    harness = make_front()
    with harness.connect() as connection:
        connection.sendall(request_frame("block:20"))
        wait_until(lambda: len(harness.handler.requests) == 1)
    wait_until(lambda: harness.handler.counters().get("cancelled") == 1)


def test_hits_are_served_while_many_compiles_block(make_front: Callable[..., Harness]) -> None:
    # Threads to spare: one that has just answered counts as busy until it runs again.
    harness = make_front(threads=32, idle_threads=2)
    blocked = [harness.connect() for _ in range(8)]
    for connection in blocked:
        connection.sendall(request_frame("block:100"))
    wait_until(lambda: harness.front.in_flight()[0] == 8)
    for _ in range(20):
        assert harness.ask(request_frame("done:0::"))[0] == wire.DONE
    # None of them waited for one of those: they are all still there.
    assert harness.front.in_flight()[0] == 8
    for connection in blocked:
        connection.close()


def test_beyond_its_threads_the_front_says_busy_at_once(make_front: Callable[..., Harness]) -> None:
    harness = make_front(threads=3, idle_threads=1)
    blocked = [harness.connect() for _ in range(2)]
    for connection in blocked:
        connection.sendall(request_frame("block:20"))
        wait_until(lambda: harness.front.in_flight()[0] > 0)
    wait_until(lambda: harness.front.in_flight()[0] == 2)
    assert harness.ask(request_frame("exec")) == (wire.EXEC, b"daemon-busy")
    for connection in blocked:
        connection.close()
    wait_until(lambda: harness.front.in_flight()[0] == 0)
    wait_until(lambda: harness.ask(request_frame("exec")) == (wire.EXEC, b"scripted"))


def test_parked_launchers_hold_no_thread(make_front: Callable[..., Harness]) -> None:
    harness = make_front(threads=8, idle_threads=2, parked=40)
    parked = []
    for _ in range(40):
        connection = harness.connect()
        parked.append(connection)
        connection.sendall(request_frame("run"))
        assert read_frame(connection)[0] == wire.RUN
    assert harness.front.in_flight() == (0, 40)
    assert harness.ask(request_frame("run")) == (wire.EXEC, b"daemon-busy")
    report = wire.encode_report(wire.LauncherReport(0, 0, b"", b"", False))
    for connection in parked:
        connection.sendall(report)
        assert read_frame(connection)[0] == wire.FINISH
        connection.close()
    wait_until(lambda: harness.front.in_flight() == (0, 0))


def test_threads_of_a_burst_go_home(make_front: Callable[..., Harness]) -> None:
    harness = make_front(threads=30, idle_threads=2)
    before = threading.active_count()
    blocked = [harness.connect() for _ in range(20)]
    for connection in blocked:
        connection.sendall(request_frame("block:20"))
    wait_until(lambda: harness.front.in_flight()[0] == 20)
    for connection in blocked:
        connection.close()
    wait_until(lambda: threading.active_count() <= before + 4)


@pytest.mark.parametrize("mount_id", [(1, 1), (0, 0), (wire.MOUNT_IS_ID, 0), (0, 1)])
def test_another_mount_namespace_is_not_ours(
    make_front: Callable[..., Harness], mount_id: tuple[int, int]
) -> None:
    harness = make_front()
    frame = request_frame("done:0::", mount_id=mount_id)
    assert harness.ask(frame) == (wire.EXEC, b"other-mount-namespace")
    assert harness.handler.requests == []


def test_a_launcher_of_another_group_is_not_ours(make_front: Callable[..., Harness]) -> None:
    harness = make_front()
    frame = request_frame("done:0::", gid=os.getegid() + 1)
    assert harness.ask(frame) == (wire.EXEC, b"other-group")
    assert harness.handler.requests == []


def test_a_mount_namespace_may_be_told_by_the_mount_at_its_root(
    make_front: Callable[..., Harness],
) -> None:
    root = os.open("/", os.O_PATH)
    with open(f"/proc/self/fdinfo/{root}") as file:
        number = int(file.read().partition("mnt_id:")[2].split()[0])
    os.close(root)
    harness = make_front()
    frame = request_frame("done:0::", mount_id=(wire.MOUNT_IS_ID, number))
    assert harness.ask(frame)[0] == wire.DONE
    frame = request_frame("done:0::", mount_id=(wire.MOUNT_IS_ID, number + 1))
    assert harness.ask(frame) == (wire.EXEC, b"other-mount-namespace")


def test_a_directory_that_is_another_here_is_not_ours(
    make_front: Callable[..., Harness], tmp_path: Path
) -> None:
    harness = make_front()
    here, gone = tmp_path / "here", tmp_path / "gone"
    here.mkdir()
    gone.mkdir()
    frame = request_frame("done:0::", cwd=str(gone))
    gone.rmdir()
    assert harness.ask(frame) == (wire.EXEC, b"other-directory")
    here.rename(gone)
    assert harness.ask(frame) == (wire.EXEC, b"other-directory")


def test_a_handler_that_raises_costs_one_local_compile(make_front: Callable[..., Harness]) -> None:
    harness = make_front()
    assert harness.ask(request_frame("raise")) == (wire.EXEC, b"internal-error")
    assert harness.front.snapshot()["exec.internal-error"] == 1


def test_another_build_is_told_the_version(make_front: Callable[..., Harness]) -> None:
    harness = make_front()
    for frame in (
        request_frame("exec").replace(wire.BUILD_ID.encode(), b"9" * len(wire.BUILD_ID)),
        wire.MAGIC + struct.pack("<III", wire.REQUEST, 4, 77),
    ):
        kind, body = harness.ask(frame)
        assert kind == wire.VERSION
        assert decode_version(body) == (wire.BUILD_ID, True)


def test_a_peer_of_another_uid_gets_no_answer(
    make_front: Callable[..., Harness], monkeypatch: pytest.MonkeyPatch
) -> None:
    # The kernel says who we are; so the front becomes another's.
    uid = os.getuid()
    with monkeypatch.context() as patch:
        patch.setattr(os, "getuid", lambda: uid + 1)
        harness = make_front()
    # It may hang up before or after our bytes are on their way.
    with harness.connect() as connection, suppress(ConnectionResetError, BrokenPipeError):
        connection.sendall(request_frame("done:0::"))
        assert connection.recv(1) == b""
    assert harness.handler.requests == []


@NEEDS_ROOT
def test_another_user_is_not_served(bench: Bench, daemon: subprocess.Popen[bytes]) -> None:
    path = socket_path(paths_of(bench.env))
    os.chmod(path, 0o666)
    parent = Path(path).parent
    # From inside, so that the directories above stay closed: other tests compile below them.
    os.chmod(parent, 0o755)
    code = (
        "import os, socket, sys\n"
        "os.setuid(65534)\n"
        "s = socket.socket(socket.AF_UNIX); s.connect(sys.argv[1])\n"
        "try:\n    s.sendall(sys.stdin.buffer.read()); got = len(s.recv(99))\n"
        "except OSError: got = 0\n"
        "sys.exit(got)\n"
    )
    done = subprocess.run(
        ["/usr/bin/python3", "-c", code, Path(path).name],
        input=request_frame("done:0::"),
        cwd=parent,
        timeout=20,
        check=False,
    )
    assert done.returncode == 0
    assert front_counters(bench.env) == {"refused.foreign-user": 1}
