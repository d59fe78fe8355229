"""Builds continue when a daemon is killed at any call of its store, or when its disk is full."""

from __future__ import annotations

import contextlib
import itertools
import os
import resource
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from hpcc.core import HpccError
from hpcc.daemon.client import query
from hpcc_testkit.cache.launcher import counters, launcher_environment, paths_of, stop_daemon
from hpcc_testkit.cache.store_faults import Fault
from hpcc_testkit.suite.sampling import stride_of

_ARGV = ("gcc", "-O1", "-MD", "-c", "main.c", "-o", "main.o")
_START_SECONDS = 20.0
# A compile that is kept writes two entries, each with a new shard, and one file more per hit.
_MIN_POINTS = 10
# One point costs two daemons, so a run takes every fourth; see `hpcc_testkit.suite.sampling`.
_NTH = 4


class Build:
    """One source, compiled bare once, and through hpcc as often as a test calls `compile`."""

    def __init__(self, launcher: Path, directory: Path, *, data_bytes: int = 1) -> None:
        self._launcher, self.work = launcher, directory / "work"
        self.env = launcher_environment(directory / "hpcc")
        self.work.mkdir(parents=True)
        (self.work / "head.h").write_text("#define VALUE 42\n")
        (self.work / "main.c").write_text(
            f'#include "head.h"\nchar data[{data_bytes}] = {{1}};\nint f(void) {{ return VALUE; }}\n'
        )
        time.sleep(0.1)  # older than the compile by more than a tick
        self._run()
        self._bare = self._outputs()

    def compile(self) -> None:
        """Compile through hpcc; assert that the user sees what the bare compiler leaves."""
        for name in ("main.o", "main.d"):
            (self.work / name).unlink(missing_ok=True)
        ended = self._run(str(self._launcher), "wrap")
        assert (ended.returncode, ended.stdout, ended.stderr) == (0, b"", b"")
        assert self._outputs() == self._bare

    def _run(self, *prefix: str) -> subprocess.CompletedProcess[bytes]:
        return subprocess.run(
            [*prefix, *_ARGV],
            cwd=self.work,
            env=self.env,
            capture_output=True,
            timeout=60,
            check=False,
        )

    def _outputs(self) -> dict[str, bytes]:
        return {name: (self.work / name).read_bytes() for name in ("main.o", "main.d")}


@contextlib.contextmanager
def _daemon(
    env: dict[str, str], at: int, fault: Fault, preexec: Callable[[], None] | None = None
) -> Iterator[subprocess.Popen[bytes]]:
    command = [sys.executable, "-P", "-m", "hpcc_testkit.cache.store_faults", str(at), fault.value]
    process = subprocess.Popen(
        command,
        env=env,
        stdin=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
        start_new_session=True,
        preexec_fn=preexec,  # noqa: PLW1509 - sets a limit, nothing that a thread could hold
    )
    try:
        deadline = time.monotonic() + _START_SECONDS
        while process.poll() is None:
            try:
                query(paths_of(env), "status")
                break
            except HpccError:
                assert time.monotonic() < deadline, "the daemon does not answer"
                threading.Event().wait(0.02)
        yield process
    finally:
        process.kill()
        process.wait()


@pytest.mark.timeout(400)
@pytest.mark.parametrize("fault", [Fault.KILL_BEFORE, Fault.KILL_AFTER], ids=lambda f: f.value)
def test_a_daemon_killed_at_any_call_of_its_store_costs_no_build(
    fault: Fault, launcher: Path, tmp_path: Path
) -> None:
    for at in itertools.count(*stride_of(os.environ, _NTH)):
        build = Build(launcher, tmp_path / str(at))
        with _daemon(build.env, at, fault) as process:
            build.compile()
            with contextlib.suppress(HpccError):
                stop_daemon(build.env)  # the last call is made at the end
            is_killed = process.wait(20) == -signal.SIGKILL
        if not is_killed:
            break  # the compile makes no further call
        try:
            build.compile()  # the launcher starts a daemon
            build.compile()
            assert counters(build.env)["hit.local"] >= 1
            store = paths_of(build.env).cache / "private"
            assert not list(store.glob(".tmp-*")), f"call {at} left something"
        finally:
            with contextlib.suppress(HpccError):
                stop_daemon(build.env)
    assert at >= _MIN_POINTS, "the daemon died at too few calls"


def test_a_daemon_that_may_write_no_large_file_costs_no_build(
    launcher: Path, tmp_path: Path
) -> None:
    def limit() -> None:
        resource.setrlimit(resource.RLIMIT_FSIZE, (30_000, 30_000))

    build = Build(launcher, tmp_path, data_bytes=60_000)
    with _daemon(build.env, -1, Fault.FULL, limit):
        for _ in range(3):
            build.compile()
        counted = counters(build.env)
        assert (counted["store.write-error"], counted["miss.local"]) == (3, 3)
        stop_daemon(build.env)
    build.compile()
    build.compile()
    assert counters(build.env)["hit.local"] == 1
    stop_daemon(build.env)


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    cache = tmp_path / "hpcc" / "cache"
    cache.mkdir(parents=True, mode=0o700)
    mount = ["mount", "-t", "tmpfs", "-o", "size=16k,mode=0700", "hpcc-test", str(cache)]
    if subprocess.run(mount, capture_output=True, check=False).returncode:
        pytest.skip("this container may not mount; the test with a file limit stands in")
    yield cache
    subprocess.run(["umount", str(cache)], check=True)


def test_a_full_disk_costs_no_build(launcher: Path, tmp_path: Path, small_disk: Path) -> None:
    build = Build(launcher, tmp_path)
    with contextlib.suppress(OSError):
        (small_disk / "ballast").write_bytes(bytes(1 << 20))
    try:
        for _ in range(3):
            build.compile()
        assert counters(build.env)["store.disk-full"] >= 1
        assert not list(small_disk.rglob(".tmp-*"))
        (small_disk / "ballast").unlink()  # room again: the cache comes back by itself
        build.compile()
        build.compile()
        assert counters(build.env)["hit.local"] == 1
    finally:
        stop_daemon(build.env)
