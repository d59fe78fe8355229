"""With any fault of the daemon the build succeeds, nothing hangs, and nothing is left behind."""

from __future__ import annotations

import fcntl
import json
import os
import shutil
import socket
import struct
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any, Self

import pytest

from hpcc.wire import launcher as wire
from hpcc.wire.launcher_version import encode_version
from hpcc_testkit.cache.launcher import (
    Bench,
    build_launcher,
    counters,
    front_counters,
    paths_of,
    scripted_daemon,
    stop_daemon,
    wait_until,
)

NEEDS_ROOT = pytest.mark.skipif(os.getuid() != 0, reason="needs root")


def compiles(bench: Bench, **kwargs: Any) -> None:
    """Compile once, successfully and with the right object.

    The time is not asserted: `run` ends a launcher that hangs, and `left_marks` shows what the
    launcher gave up.
    """
    (bench.work / "a.o").unlink(missing_ok=True)
    done = bench.run("gcc", "-c", "a.c", **kwargs)
    assert done.returncode == 0, done.stderr
    assert done.stderr.count(b"seen") >= 1
    assert b"hpcc" not in done.stderr
    assert (bench.work / "a.o").read_bytes()[:4] == b"\x7fELF"


def left_marks(bench: Bench) -> str:
    """Return the marks that compiles left for the daemon to count: one letter each (launcher/wire.h)."""
    try:
        return (bench.run_dir / "fallbacks").read_text()
    except FileNotFoundError:
        return ""


class FakeDaemon:
    """Listens at the daemon's address and calls `serve` for each connection."""

    def __init__(
        self, bench: Bench, serve: Callable[[socket.socket], None], *, backlog: int = 16
    ) -> None:
        bench.run_dir.mkdir(parents=True, mode=0o700, exist_ok=True)
        self.connections = 0
        self._serve = serve
        self._held: list[socket.socket] = []
        self._listener = socket.socket(socket.AF_UNIX)
        self._listener.bind(str(bench.run_dir / "daemon.sock"))
        self._listener.listen(backlog)
        self._thread = threading.Thread(target=self._loop, daemon=True)

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._listener.shutdown(socket.SHUT_RDWR)
        self._listener.close()
        for connection in self._held:
            connection.close()
        self._thread.join(5)

    def _loop(self) -> None:
        while True:
            try:
                connection, _ = self._listener.accept()
            except OSError:
                return
            self.connections += 1
            self._held.append(connection)
            self._serve(connection)


def say(data: bytes) -> Callable[[socket.socket], None]:
    def serve(connection: socket.socket) -> None:
        connection.recv(1 << 20)
        connection.sendall(data)
        connection.shutdown(socket.SHUT_WR)

    return serve


def raw(kind: int, body: bytes) -> bytes:
    return wire.MAGIC + struct.pack("<II", kind, len(body)) + body


@pytest.mark.parametrize(
    "answer",
    [
        b"",
        b"hpc1",
        b"HTTP/1.1 400 Bad Request\r\n\r\n",
        raw(99, b""),
        raw(wire.DONE, b"\0"),
        raw(wire.DONE, struct.pack("<3I", 0, 0xFFFFFFFF, 1)),
        raw(wire.DONE, struct.pack("<3I", 999, 0, 0)),
        raw(wire.RUN, struct.pack("<2I", 0, 1) + b"true\0"),
        raw(wire.RUN, struct.pack("<2I", 0, 7) + b"/bin/true\0"),
        raw(wire.FINISH, struct.pack("<2I", 0, 0)),
        raw(wire.REQUEST, b""),
        wire.MAGIC + struct.pack("<II", wire.DONE, 0xFFFFFFFF),
        wire.MAGIC + struct.pack("<II", wire.DONE, 100) + b"abc",
        wire.WAIT_FRAME * 3,
        encode_version("9.9-9", is_draining=False),
    ],
    ids=lambda b: b[:16].hex() or "nothing",
)
def test_nonsense_from_the_daemon_is_a_local_compile(bench: Bench, answer: bytes) -> None:
    with FakeDaemon(bench, say(answer)) as fake:
        compiles(bench)
    assert fake.connections == 1
    assert left_marks(bench) in ("l", "v")


def test_a_hung_daemon_is_waited_for_once(bench: Bench) -> None:
    with FakeDaemon(bench, lambda _: None) as fake:
        compiles(bench)
        # The next ones do not even ask.
        compiles(bench)
    assert fake.connections == 1
    assert left_marks(bench) == "sb"


@pytest.fixture(scope="module")
def hasty_launcher(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Build a launcher that waits two seconds instead of ten."""
    flags = ("-DNEXT_FRAME_MS=2000", "-DSTART_MS=2000")
    return build_launcher(tmp_path_factory.mktemp("hasty"), *flags)


def test_a_daemon_that_falls_silent_after_a_sign_of_life_is_given_up(
    bench: Bench, hasty_launcher: Path
) -> None:
    bench.launcher = hasty_launcher
    with FakeDaemon(bench, lambda c: c.sendall(wire.WAIT_FRAME)) as fake:
        compiles(bench)
    assert fake.connections == 1
    assert left_marks(bench) == "s"


def test_a_daemon_whose_queue_is_full_is_given_up(bench: Bench) -> None:
    bench.run_dir.mkdir(parents=True, mode=0o700)
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind(str(bench.run_dir / "daemon.sock"))
        listener.listen(0)
        waiting = []
        for _ in range(3):  # nobody accepts: the queue holds one
            caller = socket.socket(socket.AF_UNIX)
            caller.setblocking(False)
            waiting.append(caller)
            try:
                caller.connect(str(bench.run_dir / "daemon.sock"))
            except BlockingIOError:
                break
        compiles(bench)
        assert left_marks(bench) == "n"
        for caller in waiting:
            caller.close()


def test_a_slow_answer_is_waited_for_as_long_as_the_daemon_lives(bench: Bench) -> None:
    with scripted_daemon(bench.env):
        compiles(bench, answer="block:4")  # twice as long as a hung daemon gets
        assert counters(bench.env)["begin"] == 1
        assert left_marks(bench) == ""


@NEEDS_ROOT
def test_a_socket_of_another_user_is_not_spoken_to(bench: Bench) -> None:
    with scripted_daemon(bench.env):
        os.chown(bench.run_dir / "daemon.sock", 65534, 65534)
        compiles(bench)
        os.chown(bench.run_dir / "daemon.sock", 0, 0)
        assert front_counters(bench.env) == {}


@NEEDS_ROOT
def test_a_daemon_that_runs_as_another_user_is_not_spoken_to(bench: Bench, tmp_path: Path) -> None:
    # The file is ours, the process behind it is not: only the kernel's word counts.
    code = (
        "import os, socket, sys, time\n"
        "s = socket.socket(socket.AF_UNIX); s.bind(sys.argv[1])\n"
        "os.setuid(65534); s.listen(8)\n"
        "print('ready', flush=True)\n"
        "s.settimeout(20); c, _ = s.accept()\n"
        "print(len(c.recv(1 << 16)), flush=True)\n"
    )
    bench.run_dir.mkdir(parents=True, mode=0o700)
    command = [sys.executable, "-c", code, str(bench.run_dir / "daemon.sock")]
    with subprocess.Popen(command, stdout=subprocess.PIPE) as fake:
        assert fake.stdout is not None
        assert fake.stdout.readline() == b"ready\n"
        compiles(bench)
        assert fake.stdout.readline() == b"0\n"  # connected, told nothing


@NEEDS_ROOT
def test_a_run_directory_of_another_user_is_not_used(bench: Bench) -> None:
    bench.run_dir.mkdir(parents=True, mode=0o700)
    os.chown(bench.run_dir, 65534, 65534)
    compiles(bench)
    assert list(bench.run_dir.iterdir()) == []


def test_a_run_directory_others_can_write_to_is_not_used(bench: Bench) -> None:
    bench.run_dir.mkdir(parents=True)
    bench.run_dir.chmod(0o777)
    compiles(bench)
    assert list(bench.run_dir.iterdir()) == []


@NEEDS_ROOT
@pytest.mark.skipif(not shutil.which("unshare"), reason="needs unshare")
def test_a_compile_in_another_mount_namespace_is_not_the_daemons(bench: Bench) -> None:
    other = bench.work.parent / "other"
    other.mkdir()
    (other / "a.c").write_text("int other;\n")
    with scripted_daemon(bench.env):
        script = (
            f"mount --bind {other} {bench.work} && cd {bench.work} && {bench.launcher} gcc -c a.c"
        )
        env = {**bench.env, "HPCC_TEST_ANSWER": "done:0::"}
        subprocess.run(["unshare", "-m", "sh", "-c", script], env=env, check=True, timeout=20)
        assert front_counters(bench.env)["exec.other-mount-namespace"] == 1
        assert "begin" not in counters(bench.env)
    # A bind mount in the other namespace only: the object is of its source, and lies there.
    assert b"other" in (other / "a.o").read_bytes()
    assert not (bench.work / "a.o").exists()


@NEEDS_ROOT
def test_the_daemon_writes_no_object_for_a_compile_of_another_group(bench: Bench) -> None:
    group = os.getegid() + 4321
    env = {**bench.env, "HPCC_TEST_ANSWER": "done:0::"}
    command = [str(bench.launcher), "gcc", "-c", "a.c"]
    with scripted_daemon(bench.env):
        subprocess.run(command, cwd=bench.work, env=env, group=group, check=True, timeout=20)
        assert front_counters(bench.env)["exec.other-group"] == 1
        assert "begin" not in counters(bench.env)
    assert (bench.work / "a.o").stat().st_gid == group


@pytest.mark.timeout(120)
@pytest.mark.parametrize("delay", [0.0, 0.05, 0.2, 0.6])
@pytest.mark.parametrize("answer", ["block:30", "run", "filter"])
def test_a_daemon_killed_at_any_moment_costs_no_build(
    bench: Bench, answer: str, delay: float
) -> None:
    script = bench.script("cc-slow", "sleep 0.3\necho diag >&2\necho object > out.o\n")
    with scripted_daemon(bench.env) as process:
        child = bench.popen("wrap", script, answer=answer, stderr=subprocess.PIPE)
        time.sleep(delay)
        process.kill()
        process.wait()
        # Nobody is to start another daemon here: that is its own test.
        _, err = child.communicate(timeout=30)
    assert (child.returncode, err) == (0, b"diag\n")
    assert (bench.work / "out.o").read_text() == "object\n"


def test_the_socket_of_a_killed_daemon_is_replaced(bench: Bench) -> None:
    with scripted_daemon(bench.env) as process:
        process.kill()
        process.wait()
        assert (bench.run_dir / "daemon.sock").exists()
        with scripted_daemon(bench.env):
            compiles(bench)
            assert counters(bench.env)["begin"] == 1


def test_a_second_daemon_leaves_the_first_ones_socket_alone(bench: Bench) -> None:
    with scripted_daemon(bench.env):
        command = [sys.executable, "-P", "-m", "hpcc_testkit.cache.launcher"]
        second = subprocess.run(
            command, env=bench.env, capture_output=True, text=True, timeout=20, check=False
        )
        assert (second.returncode, second.stderr) == (1, "already-running\n")
        compiles(bench)
        assert counters(bench.env)["begin"] == 1


def test_a_daemon_of_another_version_drains_and_finishes_what_it_has(
    bench: Bench, tmp_path: Path
) -> None:
    other = build_launcher(tmp_path / "other", build_id="0.0.0-0")
    script = bench.script("cc-slow", "touch started\nsleep 1\necho done")
    with scripted_daemon(bench.env, build_id="0.0.0-0") as old:
        env = {**bench.env, "HPCC_TEST_ANSWER": "run"}
        child = subprocess.Popen(
            [other, "wrap", script], cwd=bench.work, env=env, stdout=subprocess.PIPE
        )
        wait_until((bench.work / "started").exists)
        # This launcher's build meets the old daemon, which goes; `start` may or may not work here.
        compiles(bench)
        out, _ = child.communicate(timeout=10)
        assert (child.returncode, out) == (0, b"done\n")
        assert old.wait(10) == 0


def test_a_young_daemon_of_another_version_stays_and_is_not_used(bench: Bench) -> None:
    with scripted_daemon(bench.env, build_id="0.0.0-0", min_age_seconds=60) as old:
        compiles(bench)
        compiles(bench)
        assert left_marks(bench) == "vv"
        assert old.poll() is None
        assert front_counters(bench.env) == {"refused.other-version": 2}


def no_start(bench: Bench) -> None:
    """Prevent the start of a daemon: its state directory is a file."""
    home = paths_of(bench.env).state
    home.parent.mkdir(parents=True, exist_ok=True)
    home.write_text("in the way")


def test_a_daemon_that_cannot_start_is_tried_once_and_then_left_alone(bench: Bench) -> None:
    no_start(bench)
    compiles(bench)
    assert (bench.run_dir / "backoff").exists()
    compiles(bench)
    # Long ago, as a clock that was set back would have it: tried again.
    os.utime(bench.run_dir / "backoff", (time.time() + 1e6, time.time() + 1e6))
    before = time.time()
    compiles(bench)
    assert left_marks(bench) == "nbn"
    # Its time is the end of the pause: 30 s after the failure.
    until = os.stat(bench.run_dir / "backoff").st_mtime
    assert before - 1 <= until - 30 <= time.time() + 1


def test_a_daemon_that_comes_late_is_used_at_once(bench: Bench) -> None:
    no_start(bench)
    compiles(bench)
    marker = bench.run_dir / "backoff"
    assert marker.stat().st_mtime > time.time() + 10
    paths_of(bench.env).state.unlink()
    with scripted_daemon(bench.env):
        wait_until(lambda: not marker.exists())
        compiles(bench)
        assert counters(bench.env)["begin"] == 1


def test_an_entry_of_the_environment_that_is_no_variable_keeps_no_daemon_from_starting(
    bench: Bench, tmp_path: Path
) -> None:
    # Only execve itself makes such an entry: the program that starts a build may do so.
    launcher, started = tmp_path / "bin/hpcc", tmp_path / "started"
    launcher.parent.mkdir()
    shutil.copy(bench.launcher, launcher)
    cli = launcher.with_name("hpcc-cli")
    cli.write_text(f"#!/bin/sh\nenv > {started}\nexit 1\n")
    cli.chmod(0o755)
    code = (
        "import ctypes, os, sys\n"
        "text = lambda words: (ctypes.c_char_p * (len(words) + 1))(*words, None)\n"
        "entries = [n + b'=' + v for n, v in os.environb.items()]\n"
        "argv = [os.fsencode(word) for word in sys.argv[1:]]\n"
        "entries = [b'PYTHONPATH', *entries, b'PYTHONHOME=/nowhere', b'LD_AUDIT']\n"
        "ctypes.CDLL(None).execve(argv[0], text(argv), text(entries))\n"
    )
    command = [sys.executable, "-c", code, str(launcher), "gcc", "-c", "a.c"]
    subprocess.run(command, cwd=bench.work, env=bench.env, check=True, timeout=30)
    assert "PYTHON" not in started.read_text()
    assert left_marks(bench) == "n"


@pytest.mark.timeout(60)
def test_many_compiles_at_once_try_to_start_it_once(bench: Bench, tmp_path: Path) -> None:
    tries = tmp_path / "tries"
    own = tmp_path / "bin"
    own.mkdir()
    shutil.copy(bench.launcher, own / "hpcc")
    (own / "hpcc-cli").write_text(f"#!/bin/sh\necho x >> {tries}\nsleep 0.5\nexit 1\n")
    (own / "hpcc-cli").chmod(0o755)
    children = [
        subprocess.Popen(
            [own / "hpcc", "gcc", "-w", "-c", "a.c", "-o", f"{i}.o"], cwd=bench.work, env=bench.env
        )
        for i in range(12)
    ]
    assert [child.wait(20) for child in children] == [0] * 12
    assert tries.read_text() == "x\n"


@pytest.mark.timeout(60)
def test_a_start_that_hangs_is_given_up_and_ended(
    bench: Bench, hasty_launcher: Path, tmp_path: Path
) -> None:
    own = tmp_path / "bin"
    own.mkdir()
    shutil.copy(hasty_launcher, own / "hpcc")
    (own / "hpcc-cli").write_text(f"#!/bin/sh\necho $$ > {tmp_path}/pid\nexec sleep 50\n")
    (own / "hpcc-cli").chmod(0o755)
    bench.launcher = own / "hpcc"
    compiles(bench)
    assert left_marks(bench) == "n"
    with pytest.raises(ProcessLookupError):
        os.kill(int((tmp_path / "pid").read_text()), 0)


def test_marks_are_bounded_and_go_into_a_file_of_ours_only(bench: Bench) -> None:
    no_start(bench)
    compiles(bench)
    marks = bench.run_dir / "fallbacks"
    marks.write_bytes(b"b" * ((1 << 16) - 1))
    compiles(bench)
    compiles(bench)
    assert marks.stat().st_size == 1 << 16
    marks.unlink()
    victim = bench.work / "victim"
    victim.write_text("mine")
    marks.symlink_to(victim)
    compiles(bench)
    marks.unlink()
    os.mkfifo(marks)
    compiles(bench)
    assert victim.read_text() == "mine"


def test_what_was_compiled_without_the_daemon_is_shown_by_stats(bench: Bench) -> None:
    bench.run_dir.mkdir(parents=True, mode=0o700)
    (bench.run_dir / "fallbacks").write_text("nnsx")
    wanted = {"launcher.no-daemon": 2, "launcher.silent-daemon": 1, "launcher.unknown": 1}

    def shown() -> dict[str, int]:
        table = json.loads(bench.run("stats", "--json").stdout)
        return {name: count for name, count in table.items() if name.startswith("launcher.")}

    assert shown() == wanted  # without a daemon
    assert shown() == wanted  # and nothing was counted twice
    assert bench.run("start").returncode == 0
    assert shown() == wanted
    assert left_marks(bench) == ""
    (bench.run_dir / "fallbacks").write_text("l")
    assert bench.run("stop").returncode == 0
    wait_until(lambda: not (bench.run_dir / "daemon.sock").exists())
    wait_until(lambda: left_marks(bench) == "")
    assert b"2  no-daemon: no daemon was running" in bench.run("stats").stdout
    wait_until(lambda: shown() == {**wanted, "launcher.lost-daemon": 1})


def test_no_home_and_no_place_is_a_local_compile(bench: Bench) -> None:
    for env in ({"HOME": "", "HPCC_DIR": ""}, {"HPCC_DIR": "not/absolute"}):
        bench_env = {**bench.env, **env}
        done = subprocess.run(
            [bench.launcher, "gcc", "-w", "-c", "a.c"],
            cwd=bench.work,
            env=bench_env,
            timeout=20,
            check=False,
        )
        assert done.returncode == 0


def test_a_lock_that_somebody_keeps_costs_no_build(bench: Bench, hasty_launcher: Path) -> None:
    bench.launcher = hasty_launcher
    bench.run_dir.mkdir(parents=True, mode=0o700)
    with (bench.run_dir / "start.lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        compiles(bench)
    assert left_marks(bench) == "n"


def test_stop_now_lets_running_launchers_finish_by_themselves(bench: Bench) -> None:
    script = bench.script("cc-slow", "touch started\nsleep 1\necho done")
    with scripted_daemon(bench.env) as process:
        child = bench.popen("wrap", script, answer="run", stdout=subprocess.PIPE)
        wait_until((bench.work / "started").exists)
        assert stop_daemon(bench.env)
        assert process.wait(10) == 0
        out, _ = child.communicate(timeout=10)
    assert (child.returncode, out) == (0, b"done\n")
    assert not (bench.run_dir / "daemon.sock").exists()


def test_a_daemon_whose_directory_was_swept_away_ends(bench: Bench) -> None:
    with scripted_daemon(bench.env) as process:
        shutil.rmtree(bench.run_dir)
        assert process.wait(10) == 0


def test_a_swept_daemon_leaves_its_successors_socket_alone(bench: Bench) -> None:
    with scripted_daemon(bench.env) as process:
        shutil.rmtree(bench.run_dir)
        with FakeDaemon(bench, say(b"")):
            assert process.wait(10) == 0
            assert (bench.run_dir / "daemon.sock").exists()
