"""The daemon's named pipe under Wine: its server in Python, hpcc.exe at the other end.

A program under Wine (hpcc_testkit.windows.bridge) makes the server's calls. The code above those
calls is the code that runs on Windows.
"""

from __future__ import annotations

import subprocess
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path

import pytest

from hpcc.cache.base.api import CompileRequest, Done, Exec, Finish, Run, RunReport
from hpcc.config.paths import Paths
from hpcc.core import CallerError, InfrastructureError, NotFoundError
from hpcc.daemon.lifecycle import Daemon, LifecycleLimits
from hpcc.daemon.main import open_daemon
from hpcc.daemon.pipe_lock import PipeLock
from hpcc.daemon.windows_client import query, stop
from hpcc.daemon.windows_process import WindowsPlace
from hpcc.windows.files import WindowsLock, directory_id
from hpcc.windows.library import WindowsError
from hpcc.windows.pipes import PipeListener, _create
from hpcc.windows.users import own_sid
from hpcc.wire import launcher
from hpcc.wire.pipe import daemon_pipe, pipe_sddl
from hpcc_testkit.cache.launcher import build_windows_launcher, wait_until
from hpcc_testkit.windows.bridge import Bridge, bridge, build_bridge
from hpcc_testkit.windows.wine import Wine, cross_build

pytestmark = pytest.mark.timeout(500)
_COMPILER = r"""
#include <stdio.h>
#include <windows.h>
int main(int argc, char **argv) {
    if (argc > 1 && !strcmp(argv[1], "slow")) Sleep(2500);
    printf("out %s", argc > 1 ? argv[1] : "");
    fprintf(stderr, "err");
    return argc - 1;
}
"""
_STRANGER = "S-1-5-21-1-2-3-1001"


class Script:
    """A handler that answers with `answer`, and records the requests that it gets."""

    def __init__(self) -> None:
        self.answer: Callable[[CompileRequest], Done | Exec | Run] = lambda _: Exec("scripted")
        self.requests: list[CompileRequest] = []
        self.reports: list[RunReport] = []
        self.abandoned = threading.Event()

    def begin(self, request: CompileRequest, is_cancelled: Callable[[], bool]) -> Done | Exec | Run:
        self.requests.append(request)
        return self.answer(request)

    def finish(self, request: CompileRequest, run: Run, report: RunReport) -> Finish:
        self.reports.append(report)
        return Finish(b"", b"!")

    def abandon(self, request: CompileRequest, run: Run) -> None:
        self.abandoned.set()

    def counters(self) -> dict[str, int]:
        return {"asked": len(self.requests)}

    def close(self) -> None:
        return


@pytest.fixture(scope="module")
def programs(tmp_path_factory: pytest.TempPathFactory) -> Path:
    directory = tmp_path_factory.mktemp("pipes")
    build_bridge(directory)
    build_windows_launcher(directory / "hpcc.exe")
    (directory / "cl.c").write_text(_COMPILER)
    cross_build(directory / "cl.c", directory / "cl.exe")
    return directory


@pytest.fixture(scope="module")
def server(wine: Wine, programs: Path) -> Iterator[Bridge]:
    """Start the daemon's process."""
    with bridge(wine, programs / "bridge.exe") as process:
        yield process


@pytest.fixture(scope="module")
def other(wine: Wine, programs: Path) -> Iterator[Bridge]:
    """Start another process: a command, or a second daemon."""
    with bridge(wine, programs / "bridge.exe") as process:
        yield process


class Place:
    def __init__(self, wine: Wine, programs: Path, server: Bridge, directory: Path) -> None:
        self.wine, self.programs, self.server, self.cwd = wine, programs, server, directory
        self.script = Script()
        self.hpcc_dir = "Z:" + str(directory / "h").replace("/", "\\")
        self.paths = Paths(**{n: directory / n for n in ("cache", "state", "config", "run")})

    @contextmanager
    def daemon(self, **options: object) -> Iterator[Daemon]:
        endpoint_lock = PipeLock.open(self.server, self.paths, self.hpcc_dir)
        daemon = open_daemon(
            WindowsPlace(self.server, endpoint_lock), lambda: (self.script, None), begin_seconds=900, **options,
        )  # fmt: skip
        thread = threading.Thread(target=daemon.serve, args=(lambda: None,))
        thread.start()
        try:
            yield daemon
        finally:
            daemon.stop(now=True)
            thread.join(60)
            assert not thread.is_alive()
            wait_until(lambda: not any(t.name == "hpcc-front" for t in threading.enumerate()))

    def refuses(self, other: Bridge) -> bool:
        try:
            query(self.paths, "status", library=other)
        except InfrastructureError as error:
            return error.reason == "daemon-busy"
        return False

    def compile(self, *arguments: str) -> subprocess.CompletedProcess[bytes]:
        cl = "Z:" + str(self.programs / "cl.exe").replace("/", "\\")
        return self.wine.run(self.programs / "hpcc.exe", "wrap", cl, *arguments, cwd=self.cwd)


@pytest.fixture
def place(
    wine: Wine, programs: Path, server: Bridge, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> Place:
    place = Place(wine, programs, server, tmp_path)
    monkeypatch.setenv("HPCC_DIR", place.hpcc_dir)  # for commands
    monkeypatch.setitem(wine.env, "HPCC_DIR", place.hpcc_dir)  # for launchers
    return place


@pytest.fixture(autouse=True)
def windows_paths(monkeypatch: pytest.MonkeyPatch) -> None:
    """Return the lock's Windows path, because it is opened under Wine, where Z: is the root."""
    take = WindowsLock.take.__func__

    def taken(cls: type[WindowsLock], library: Bridge, path: str) -> WindowsLock:
        return take(cls, library, "Z:" + path.replace("/", "\\"))

    monkeypatch.setattr(WindowsLock, "take", classmethod(taken))


def test_a_hit_reaches_the_launcher_and_its_request_the_handler(place: Place) -> None:
    place.script.answer = lambda _: Done(3, b"out" * 70_000, b"err")
    with place.daemon():
        done = place.compile("/c", "é.c")
    assert (done.returncode, done.stdout, done.stderr) == (3, b"out" * 70_000, b"err")
    (request,) = place.script.requests
    assert request.argv[1:] == (b"/c", "é.c".encode())
    assert request.cwd == b"Z:" + str(place.cwd).replace("/", "\\").encode()


def test_a_run_is_reported_and_finished_and_a_long_one_is_waited_for(place: Place) -> None:
    place.script.answer = lambda r: Run((r.compiler, *r.argv[1:]), None)
    with place.daemon():
        done = place.compile("slow", "2")  # longer than the launcher waits for a first word
    assert (done.returncode, done.stdout, done.stderr) == (2, b"out slow", b"err!"), done
    assert [(r.exit_code, r.stderr) for r in place.script.reports] == [(2, b"err")]


def test_who_waits_long_for_an_answer_is_told_that_we_live(place: Place) -> None:
    def answer(_: CompileRequest) -> Done:
        time.sleep(3)  # the launcher gives up after two
        return Done(0, b"late", b"")

    place.script.answer = answer
    with place.daemon():
        assert place.compile("/c").stdout == b"late"


def test_commands_reach_the_daemon_and_end_it(
    place: Place, other: Bridge, monkeypatch: pytest.MonkeyPatch
) -> None:
    with place.daemon(limits=LifecycleLimits(stop_seconds=1)):
        assert place.compile("/c").returncode == 1
        said = query(place.paths, "status", library=other)
        assert (said["build_id"], said["engine"]) == (launcher.BUILD_ID, "none")
        assert query(place.paths, "stats", library=other)["counters"] == {"asked": 1}
        # Its process is the bridge here, which goes on.
        monkeypatch.setattr("hpcc.windows.processes.ServerProcess.is_over", lambda *_: True)
        assert stop(place.paths, library=other)
        deadline = time.monotonic() + 30
        while True:
            try:
                query(place.paths, "status", library=other)
            except NotFoundError:
                break
            except InfrastructureError:
                pass
            assert time.monotonic() < deadline
    assert not stop(place.paths, library=other)


def test_a_launcher_of_another_build_is_told_so(place: Place) -> None:
    place.script.answer = lambda _: Done(0, b"never", b"")
    with place.daemon(build_id="other"):
        assert place.compile("/c").stdout == b"out /c"
    assert place.script.requests == []


def test_nonsense_is_refused_and_the_next_one_served(place: Place, other: Bridge) -> None:
    from hpcc.daemon.pipe_lock import dial_daemon

    nonsense = [b"GET / HTTP/1.1\r\n\r\n", b"hpc1" + b"\1\0\0\0" + b"\xff" * 4,
                launcher.frame(launcher.ADMIN, b"status") + b"x", launcher.WAIT_FRAME]  # fmt: skip
    with place.daemon() as daemon:
        for data in nonsense:
            connection = dial_daemon(other)
            connection.send(data, 1000)
            assert connection.receive(100, 5000) == b""
            connection.close()
        assert query(place.paths, "status", library=other)["pid"]
        counts = daemon._front.snapshot()
    assert counts["refused.malformed-frame"] == len(nonsense)


def test_a_client_of_another_user_is_not_served(
    place: Place, other: Bridge, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("hpcc.windows.pipes.PipeConnection.client", lambda _: _STRANGER)
    with place.daemon() as daemon:
        with pytest.raises(InfrastructureError):
            query(place.paths, "status", library=other)
        assert daemon._front.snapshot() == {"refused.foreign-user": 1}


def test_there_is_one_daemon(place: Place, other: Bridge) -> None:
    with place.daemon():
        with pytest.raises(CallerError) as caught:
            PipeLock.open(other, place.paths, place.hpcc_dir)
        assert caught.value.reason == "already-running"


def test_a_name_that_another_user_has_is_not_joined(server: Bridge, other: Bridge) -> None:
    sid = own_sid(server)
    name = daemon_pipe(sid, "taken")
    _create(other, name, f"O:{_STRANGER}D:(A;;GA;;;WD)", is_first=True)
    with pytest.raises(CallerError) as caught:
        PipeListener.open(server, name, pipe_sddl(sid), sid)
    assert caught.value.reason == "pipe-taken"


def test_a_daemon_that_drains_shares_its_name_with_the_next(
    place: Place, other: Bridge, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A compile still runs in the old daemon, so it keeps the pipe; launchers reach the new one."""
    place.script.answer = lambda r: Run((r.compiler, *r.argv[1:]), None)
    with place.daemon() as old, ThreadPoolExecutor(1) as pool:
        slow = pool.submit(place.compile, "slow")
        wait_until(lambda: old._front.in_flight()[1] == 1, timeout_seconds=60)
        old.stop(now=False)
        wait_until(lambda: place.refuses(other), timeout_seconds=30)
        monkeypatch.setattr(place, "server", other)
        with place.daemon():
            place.script.answer = lambda _: Done(0, b"from the new one", b"")
            assert place.compile("/c").stdout == b"from the new one"
        assert slow.result(60).stdout == b"out slow"
    assert len(place.script.reports) == 1


def test_a_directory_has_one_number_for_every_process(server: Bridge, other: Bridge) -> None:
    found = directory_id(server, "C:\\windows")
    assert found == directory_id(other, "C:\\WINDOWS\\.")
    assert found != directory_id(other, "C:\\")
    with pytest.raises(WindowsError):
        directory_id(other, "C:\\nowhere")
