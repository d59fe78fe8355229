"""Several processes serve the daemon's socket: same answers, same counts, no process left."""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

pytestmark = pytest.mark.timeout(90)
HPCC = Path(sys.executable).parent / "hpcc"
_LONG_AGO = 1_700_000_000
_PATIENCE_SECONDS = 10.0


class Machine:
    """One user's hpcc with three processes, and a small project."""

    def __init__(self, directory: Path) -> None:
        self.work = directory / "work"
        self.work.mkdir(parents=True)
        config = directory / "hpcc/config"
        config.mkdir(parents=True)
        (config / "hpcc.toml").write_text("[daemon]\nprocesses = 3\n")
        self.env = {
            "PATH": os.environ["PATH"],
            "HOME": str(directory),
            "HPCC_DIR": str(directory / "hpcc"),
            "LC_ALL": "C",
        }
        self.write("a.h", "#define A 1\n")
        self.write("main.c", '#include "a.h"\nint main(void) { int unused; return A; }\n')

    def write(self, name: str, text: str) -> None:
        (self.work / name).write_text(text)
        os.utime(self.work / name, (_LONG_AGO, _LONG_AGO))

    def hpcc(self, *args: str) -> subprocess.CompletedProcess[bytes]:
        return subprocess.run(
            [HPCC, *args], env=self.env, cwd=self.work, capture_output=True, timeout=30, check=False
        )

    def compile(self, output: str = "main.o") -> bytes:
        argv = ["gcc", "-Wall", "-c", "-MD", "-MF", "main.d", "main.c", "-o", output]
        done = self.hpcc(*argv)
        assert done.returncode == 0, done.stderr
        assert b"unused" in done.stderr
        return (self.work / output).read_bytes()

    def bare(self) -> bytes:
        argv = ["gcc", "-Wall", "-c", "main.c", "-o", "bare.o"]
        subprocess.run(argv, cwd=self.work, env=self.env, capture_output=True, check=True)
        return (self.work / "bare.o").read_bytes()

    def status(self) -> dict[str, Any]:
        return json.loads(self.hpcc("status", "--json").stdout)

    def stats(self) -> dict[str, int]:
        return json.loads(self.hpcc("stats", "--json").stdout)

    def warm_up(self) -> None:
        """Compile until every process can know the request: stored, settled, hit, learned."""
        self.compile()
        time.sleep(2.2)  # the headers' stat answers for them from now on
        for _ in range(12):
            self.compile()


@pytest.fixture
def machine(tmp_path: Path) -> Iterator[Machine]:
    made = Machine(tmp_path)
    assert made.hpcc("start").returncode == 0
    yield made
    made.hpcc("stop", "--now")


def wait_gone(pids: list[int]) -> None:
    deadline = time.monotonic() + _PATIENCE_SECONDS
    while alive := [pid for pid in pids if Path(f"/proc/{pid}/exe").exists()]:
        assert time.monotonic() < deadline, f"still there: {alive}"
        time.sleep(0.05)


def settled(machine: Machine) -> dict[str, int]:
    """Return the counters once two readings agree: processes report their hits every 0.2 s."""
    last = machine.stats()
    for _ in range(60):
        time.sleep(0.5)
        now = machine.stats()
        if now["hit.local"] == last["hit.local"]:
            break
        last = now
    return now


def test_all_processes_answer_and_every_hit_is_counted(machine: Machine) -> None:
    status = machine.status()
    assert len(status["helpers"]) == 2
    machine.warm_up()
    bare, before = machine.bare(), settled(machine)
    for _ in range(30):
        assert machine.compile() == bare
    after = settled(machine)
    assert after["hit.local"] - before["hit.local"] == 30
    assert after["front.replayed"] - before.get("front.replayed", 0) >= 25
    served = [
        int(Path(f"/proc/{pid}/schedstat").read_text().split()[0]) for pid in status["helpers"]
    ]
    assert all(served), "each helper ran at all"


def test_an_edit_is_seen_by_every_process(machine: Machine) -> None:
    machine.warm_up()
    for number in range(2, 5):
        machine.write("a.h", f"#define A {number}\n")
        bare = machine.bare()
        for _ in range(9):
            assert machine.compile() == bare


def compiler_of(source: str) -> int:
    """Wait for GCC's compiler proper to run on this source; return its pid."""
    deadline = time.monotonic() + _PATIENCE_SECONDS
    while time.monotonic() < deadline:
        for line in Path("/proc").glob("[0-9]*/cmdline"):
            try:
                argv = line.read_bytes().split(b"\0")
            except OSError:
                continue  # it has ended
            if argv[0].endswith(b"/cc1") and source.encode() in argv:
                return int(line.parent.name)
        time.sleep(0.01)
    raise AssertionError(f"no compiler of {source}")


def test_a_compile_whose_output_a_helper_wrote_is_not_stored(machine: Machine) -> None:
    source = f"slow{os.getpid()}.c"
    machine.write(source, "".join(f"int f{n}(int a) {{ return a * {n}; }}\n" for n in range(6_000)))
    machine.warm_up()
    daemon = machine.status()["pid"]
    argv = [HPCC, "gcc", "-O1", "-c", source, "-o", "main.o"]
    with subprocess.Popen(argv, env=machine.env, cwd=machine.work) as slow:
        stopped = [compiler_of(source), daemon]
        for pid in stopped:
            os.kill(pid, signal.SIGSTOP)  # now only helpers answer
        try:
            machine.compile()
        finally:
            for pid in stopped:
                os.kill(pid, signal.SIGCONT)
        assert slow.wait(60) == 0
    after = settled(machine)
    assert after["uncacheable.modified-during-compile"] == 1, after
    misses = after["miss.local"]
    for _ in range(2):  # nobody else writes it, so it is stored
        subprocess.run(argv, env=machine.env, cwd=machine.work, check=True, timeout=60)
    last = settled(machine)
    assert last["miss.local"] == misses + 1, (after, last)


def test_a_cleaned_cache_is_clean_for_every_process(machine: Machine) -> None:
    machine.warm_up()
    assert machine.hpcc("clean").returncode == 0
    before = machine.stats()
    machine.compile()
    after = machine.stats()
    assert after["miss.local"] == before.get("miss.local", 0) + 1


def test_a_killed_helper_costs_nothing_but_itself(machine: Machine) -> None:
    machine.warm_up()
    bare = machine.bare()
    helpers = machine.status()["helpers"]
    os.kill(helpers[0], signal.SIGKILL)
    for _ in range(12):
        assert machine.compile() == bare
    machine.hpcc("stop")
    wait_gone(helpers)


def test_helpers_end_with_a_daemon_that_was_killed(machine: Machine) -> None:
    machine.warm_up()
    status = machine.status()
    os.kill(status["pid"], signal.SIGKILL)
    wait_gone(status["helpers"])
    assert machine.compile() == machine.bare()
    assert machine.status()["pid"] != status["pid"]


def test_stop_leaves_no_process_and_no_socket(machine: Machine) -> None:
    machine.warm_up()
    status = machine.status()
    assert machine.hpcc("stop").returncode == 0
    wait_gone([status["pid"], *status["helpers"]])
    assert not Path(status["socket"]).exists()
    assert machine.hpcc("start").returncode == 0


def test_many_at_once(machine: Machine) -> None:
    machine.warm_up()
    bare = machine.bare()
    for number in range(12):
        machine.compile(f"out{number}.o")
    command = [str(HPCC), "gcc", "-Wall", "-c", "-MD", "-MF"]
    running = [
        subprocess.Popen(
            [*command, f"d{i}.d", "main.c", "-o", f"o{i}.o"],
            env=machine.env,
            cwd=machine.work,
            stderr=subprocess.DEVNULL,
        )
        for i in range(24)
    ]
    for i, process in enumerate(running):
        assert process.wait(timeout=30) == 0
        assert (machine.work / f"o{i}.o").read_bytes() == bare


def test_a_wrong_number_of_processes_is_refused(machine: Machine) -> None:
    config = Path(machine.env["HPCC_DIR"]) / "config/hpcc.toml"
    for text in ("processes = 0", "processes = 65", 'processes = "2"', "proceses = 2"):
        config.write_text(f"[daemon]\n{text}\n")
        done = machine.hpcc("config", "show")
        assert done.returncode != 0
        assert b"proces" in done.stderr
    shutil.rmtree(config.parent)
