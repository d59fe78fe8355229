"""The first compile starts the real daemon, and a command ends it."""

from __future__ import annotations

import json
import os
import subprocess
import time
from contextlib import suppress
from pathlib import Path

import pytest

from hpcc.config.paths import Paths
from hpcc.core import InfrastructureError, NotFoundError
from hpcc.daemon.client import query, start, stop
from hpcc.daemon.socket_lock import socket_path
from hpcc.wire import launcher as wire
from hpcc.wire.address import daemon_socket
from hpcc_testkit.cache.launcher import (
    Bench,
    build_launcher,
    build_tool,
    counters,
    paths_of,
    scripted_daemon,
    stop_daemon,
    wait_until,
)


def status(bench: Bench) -> dict[str, object]:
    return query(paths_of(bench.env), "status")


def processes_of(bench: Bench) -> list[int]:
    """Return every process whose environment names this bench's directory."""
    mark = f"HPCC_DIR={bench.env['HPCC_DIR']}".encode()
    found = []
    for entry in Path("/proc").iterdir():
        try:
            if entry.name.isdigit() and mark in (entry / "environ").read_bytes().split(b"\0"):
                found.append(int(entry.name))
        except OSError:
            continue
    return found


def test_the_first_compile_starts_the_daemon_and_the_second_hits(bench: Bench) -> None:
    (bench.work / "b.c").write_text("int b;\n")
    assert bench.run("gcc", "-c", "b.c").returncode == 0
    first = (bench.work / "b.o").read_bytes()
    (bench.work / "b.o").unlink()
    time.sleep(0.1)
    assert bench.run("gcc", "-c", "b.c").returncode == 0
    assert (bench.work / "b.o").read_bytes() == first
    assert status(bench)["build_id"] == wire.BUILD_ID
    assert bench.run("stop").returncode == 0
    wait_until(lambda: not processes_of(bench))
    assert not (bench.run_dir / "daemon.sock").exists()


@pytest.mark.timeout(60)
def test_make_in_a_pipe_ends_although_it_started_the_daemon(bench: Bench) -> None:
    for name in "bcde":
        (bench.work / f"{name}.c").write_text(f"int {name};\n")
    (bench.work / "Makefile").write_text(
        "all: b.o c.o d.o e.o\n%.o: %.c\n\t+$(CC) -c $< -o $@\n"  # "+": with the jobserver
    )
    command = f"make -j2 CC='{bench.launcher} gcc' | cat"
    done = subprocess.run(
        ["sh", "-c", command],
        cwd=bench.work,
        env=bench.env,
        capture_output=True,
        timeout=30,
        check=False,
    )
    assert done.returncode == 0
    assert all((bench.work / f"{name}.o").exists() for name in "bcde")
    pid = status(bench)["pid"]
    # Nothing of make is left in it.
    environment = Path(f"/proc/{pid}/environ").read_bytes()
    assert b"MAKEFLAGS" not in environment
    assert os.readlink(f"/proc/{pid}/cwd") == "/"
    links = {os.readlink(f"/proc/{pid}/fd/{fd}") for fd in os.listdir(f"/proc/{pid}/fd")}
    assert not any(link.startswith("pipe:") for link in links)
    assert os.getsid(int(str(pid))) != os.getsid(0)


@pytest.mark.timeout(60)
def test_a_daemon_of_another_version_is_replaced_by_one_of_ours(bench: Bench) -> None:
    with scripted_daemon(bench.env, build_id="0.0.0-0") as old:
        assert bench.run("gcc", "-c", "a.c").returncode == 0
        assert old.wait(10) == 0
    assert status(bench)["build_id"] == wire.BUILD_ID
    assert bench.run("gcc", "-c", "a.c").returncode == 0


@pytest.mark.timeout(60)
def test_starts_at_the_same_time_give_one_daemon(bench: Bench) -> None:
    children = [bench.popen("start", stdout=subprocess.PIPE) for _ in range(4)]
    outs = [child.communicate(timeout=30)[0] for child in children]
    assert [child.returncode for child in children] == [0] * 4
    assert sorted(outs) == [b"the daemon is already running\n"] * 3 + [b"the daemon is started\n"]


def test_a_daemon_killed_with_kill_9_is_replaced_by_the_next_compile(bench: Bench) -> None:
    assert bench.run("start").returncode == 0
    pid = int(str(status(bench)["pid"]))
    os.kill(pid, 9)
    wait_until(lambda: not Path(f"/proc/{pid}").exists())
    assert (bench.run_dir / "daemon.sock").exists()
    assert bench.run("gcc", "-c", "a.c").returncode == 0
    assert status(bench)["pid"] != pid


def test_a_path_too_long_for_a_socket_works_under_a_hashed_name(bench: Bench) -> None:
    deep = Path(bench.env["HPCC_DIR"], "d" * 100)
    bench.env["HPCC_DIR"] = str(deep)
    assert bench.run("gcc", "-c", "a.c").returncode == 0
    found = socket_path(paths_of(bench.env))
    assert found.startswith(f"/tmp/hpcc-{os.getuid()}/")
    assert status(bench)["socket"] == found
    assert bench.run("stop").returncode == 0
    assert not Path(found).exists()


def test_status_stop_and_start_say_what_they_found(bench: Bench) -> None:
    none = bench.run("status")
    assert (none.returncode, none.stdout[:22]) == (3, b"no daemon is running; ")
    assert none.stdout.splitlines()[1].startswith(b"root      ")
    assert bench.run("stop").stdout == b"no daemon was running\n"
    assert bench.run("start").stdout == b"the daemon is started\n"
    assert bench.run("start").stdout == b"the daemon is already running\n"
    assert bench.run("status").stdout.startswith(b"daemon    running, pid ")
    assert json.loads(bench.run("status", "--json").stdout)["farm"] is None
    assert bench.run("stop").stdout == b"the daemon is stopped\n"


def test_a_start_that_fails_says_why_and_where_to_look(bench: Bench) -> None:
    config = Path(bench.env["HPCC_DIR"], "config", "hpcc.toml")
    config.parent.mkdir(parents=True)
    config.write_text("[cache]\nmax_sise_bytes = 1\n")
    done = bench.run("start")
    assert done.returncode == 1
    assert b"max_size_bytes" in done.stderr
    assert bench.run("gcc", "-c", "a.c").returncode == 0
    # The launcher does not wait for the start that it tried; that one ends by itself.
    deadline = time.monotonic() + 10
    while processes_of(bench) and time.monotonic() < deadline:
        time.sleep(0.05)
    assert processes_of(bench) == []


def test_a_run_directory_that_is_not_ours_alone_is_refused(bench: Bench) -> None:
    bench.run_dir.mkdir(parents=True)
    bench.run_dir.chmod(0o777)
    done = bench.run("start")
    assert done.returncode == 1
    assert b"only you can write to" in done.stderr


def is_stopped(pid: int) -> bool:
    """Return whether every thread of the process has stopped."""
    tasks = Path(f"/proc/{pid}/task").iterdir()
    return all((t / "stat").read_text().rpartition(")")[2].split()[0] == "T" for t in tasks)


@pytest.mark.timeout(60)
def test_a_hung_daemon_is_reported_and_ended_by_stop_now(bench: Bench) -> None:
    with scripted_daemon(bench.env) as process:
        os.kill(process.pid, 19)  # SIGSTOP: it listens and never answers
        wait_until(lambda: is_stopped(process.pid))
        paths = paths_of(bench.env)
        with pytest.raises(InfrastructureError, match="stop --now"):
            query(paths, "status", timeout_seconds=0.3)
        assert stop(paths, now=True)
        assert process.wait(5) == -9


def test_a_question_without_a_daemon_is_not_found(bench: Bench) -> None:
    with pytest.raises(NotFoundError) as caught:
        query(paths_of(bench.env), "stats")
    assert caught.value.reason == "no-daemon"
    assert not stop(paths_of(bench.env))


def test_start_from_a_program_leaves_no_child_behind(
    bench: Bench, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(os, "environ", os.environ | bench.env)
    for name, value in bench.env.items():
        monkeypatch.setenv(name, value)
    assert start(paths_of(bench.env))
    pid = int(str(status(bench)["pid"]))
    parent = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[1]
    assert int(parent) != os.getpid()
    assert not start(paths_of(bench.env))
    assert stop_daemon(bench.env)


PLACES = [
    ("/h", "/home/me", "/run/user/7", 7),
    ("/h//x/./y/", "-", "-", 7),
    ("//two", "/home/me", "-", 7),
    ("///three", "/home/me", "-", 7),
    ("/", "/home/me", "-", 7),
    ("/" + "long/" * 30, "/home/me", "-", 7),
    ("/" + "x" * 91, "/home/me", "-", 7),  # 107 bytes with /run/daemon.sock: just fits
    ("/" + "x" * 92, "/home/me", "-", 7),
    ("/\N{LATIN SMALL LETTER U WITH DIAERESIS}" + "y" * 110, "/home/me", "-", 7),
    ("-", "/home/me", "/run/user/7", 7),
    ("", "/home/me", "/run/user/7/", 7),
    ("-", "/home/me", "relative", 7),
    ("-", "/home/me", "-", 4294967294),
    ("-", "/home/me", "/" + "r" * 200, 0),
]


@pytest.fixture(scope="module")
def print_place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return build_tool("print_place.c", tmp_path_factory.mktemp("place") / "print_place")


@pytest.mark.parametrize(("hpcc_dir", "home", "runtime", "uid"), PLACES)
def test_launcher_and_daemon_agree_on_the_place(
    print_place: Path, hpcc_dir: str, home: str, runtime: str, uid: int
) -> None:
    names = {"HPCC_DIR": hpcc_dir, "HOME": home, "XDG_RUNTIME_DIR": runtime}
    env = {name: value for name, value in names.items() if value != "-"}
    # Without a home there is no cache; the launcher does not mind as long as HPCC_DIR is set.
    run = os.fsencode(Paths.from_env(env, uid=uid).run)
    done = subprocess.run(
        [print_place, hpcc_dir, home, runtime, str(uid)], capture_output=True, check=True
    )
    assert done.stdout.splitlines() == [run, daemon_socket(run, uid)]


@pytest.mark.parametrize("place", [("rel", "/home", "-"), ("-", "-", "/run"), ("-", "home", "-")])
def test_launcher_and_daemon_agree_that_there_is_no_place(
    print_place: Path, place: tuple[str, str, str]
) -> None:
    assert subprocess.run([print_place, *place, "7"], check=False).returncode == 1


def test_a_drained_daemon_hands_over_while_it_still_works(bench: Bench, tmp_path: Path) -> None:
    old_launcher = build_launcher(tmp_path / "old", build_id="0.0.0-0")
    script = bench.script("cc-slow", "touch started\nsleep 1.5\necho done")
    with scripted_daemon(bench.env, build_id="0.0.0-0") as old:
        env = {**bench.env, "HPCC_TEST_ANSWER": "run"}
        child = subprocess.Popen(
            [old_launcher, "wrap", script], cwd=bench.work, env=env, stdout=subprocess.PIPE
        )
        wait_until((bench.work / "started").exists)
        assert bench.run("start").returncode == 0
        assert status(bench)["build_id"] == wire.BUILD_ID
        assert child.communicate(timeout=10)[0] == b"done\n"
        assert old.wait(10) == 0


def test_counters_of_handler_and_front_come_with_stats(bench: Bench) -> None:
    assert bench.run("gcc", "-c", "a.c").returncode == 0
    assert isinstance(counters(bench.env), dict)
    assert query(paths_of(bench.env), "stats")["front"] == {"requests": 1}


@pytest.mark.timeout(110)
def test_a_daemon_killed_again_and_again_costs_no_object(bench: Bench) -> None:
    names = [f"f{i}" for i in range(24)]
    for name in names:
        (bench.work / f"{name}.c").write_text(f"int {name}(void) {{ return 1; }}\n")
    (bench.work / "Makefile").write_text(
        f"all: {' '.join(name + '.o' for name in names)}\n%.o: %.c\n\t@$(CC) -O1 -c $< -o $@\n"
    )
    wanted = {}
    subprocess.run(["make", "-s", "CC=gcc"], cwd=bench.work, check=True, timeout=60)
    for name in names:
        wanted[name] = (bench.work / f"{name}.o").read_bytes()
    for delay in (0.0, 0.02, 0.1, 0.2, 0.3, 0.5):
        for name in names:
            (bench.work / f"{name}.o").unlink()
        build = subprocess.Popen(
            ["make", "-s", "-j4", f"CC={bench.launcher} gcc"], cwd=bench.work, env=bench.env
        )
        time.sleep(delay)
        for pid in processes_of(bench):
            with suppress(OSError):  # it has ended since
                if b"hpcc.daemon" in Path(f"/proc/{pid}/cmdline").read_bytes():
                    os.kill(pid, 9)
        assert build.wait(40) == 0
        for name in names:
            assert (bench.work / f"{name}.o").read_bytes() == wanted[name]
    stop_daemon(bench.env)
    wait_until(lambda: not processes_of(bench))
