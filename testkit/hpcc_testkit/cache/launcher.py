"""Builds the launcher of this tree and runs daemons with a scripted handler.

For tests of launcher and front. `build_launcher` compiles the C program, `scripted_daemon` runs a
daemon. `python -m hpcc_testkit.cache.launcher` is that daemon as a separate process: the real
lifecycle and front, with `ScriptedHandler` behind them.
"""

from __future__ import annotations

import argparse
import importlib.util
import os
import subprocess
import sys
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from types import ModuleType
from typing import Any, Final

from hpcc.cache.base.api import CompileRequest, Done, Exec, Finish, RemoteClient, Run, RunReport
from hpcc.cache.replay.engine import open_engine
from hpcc.cache.replay.handler import CacheHandler
from hpcc.cache.replay.replay import Replays
from hpcc.config.paths import Paths
from hpcc.config.settings import Settings
from hpcc.core import HpccError
from hpcc.daemon.client import query, stop
from hpcc.daemon.lifecycle import LifecycleLimits
from hpcc.daemon.main import run_daemon
from hpcc.wire import launcher as wire

ROOT: Final = Path(__file__).resolve().parents[3]
ANSWER_VARIABLE: Final = "HPCC_TEST_ANSWER"
_START_SECONDS: Final = 20.0
_PAUSE_SECONDS: Final = 0.01


class ScriptedHandler:
    """Gives the answer that the request's variable `HPCC_TEST_ANSWER` names.

    `exec` (the default), `run`, `filter`, `tentative` (adds that flag), `done:CODE:STDOUT:STDERR`,
    `block:SECONDS`, `raise`.
    Counts the calls that it gets: `begin`, `finish`, `abandon`, `cancelled`, `signal.N`, `exit.N`.
    """

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._counts: Counter[str] = Counter()
        self.requests: list[CompileRequest] = []
        self.reports: list[RunReport] = []
        self.replays = Replays(open_engine(), time.monotonic)

    def begin(self, request: CompileRequest, is_cancelled: Callable[[], bool]) -> Done | Exec | Run:
        self._count("begin")
        self.requests.append(request)
        word, *rest = request.env.get(ANSWER_VARIABLE.encode(), b"exec").split(b":")
        if word == b"done":
            return Done(int(rest[0]), rest[1], rest[2])
        if word in {b"run", b"filter"}:
            argv = (request.compiler, *request.argv[1:])
            return Run(argv, self, filter_headers=word == b"filter")
        if word == b"tentative":
            argv = (request.compiler, *request.argv[1:], b"--tentative")
            return Run(argv, self, is_tentative=True)
        if word == b"raise":
            raise RuntimeError("asked to")
        if word == b"block":
            self._block(float(rest[0]), is_cancelled)
        return Exec("scripted")

    def _block(self, seconds: float, is_cancelled: Callable[[], bool]) -> None:
        deadline = time.monotonic() + seconds
        while time.monotonic() < deadline:
            if is_cancelled():
                self._count("cancelled")
                return
            threading.Event().wait(_PAUSE_SECONDS)

    def finish(self, request: CompileRequest, run: Run, report: RunReport) -> Finish:
        assert run.token is self
        self._count("finish")
        self._count(f"signal.{report.signal}" if report.signal else f"exit.{report.exit_code}")
        self._count(f"bytes.{len(report.stdout)}.{len(report.stderr)}")
        if report.is_truncated:
            self._count("truncated")
        self.reports.append(report)
        if not run.filter_headers:
            return Finish(b"", b"")
        lines = report.stderr.splitlines(keepends=True)
        return Finish(b"", b"".join(line for line in lines if not line.startswith(b".")))

    def abandon(self, request: CompileRequest, run: Run) -> None:
        self._count("abandon")

    def counters(self) -> dict[str, int]:
        with self._lock:
            return dict(self._counts)

    def command(self, words: list[str]) -> dict[str, object]:
        return {"words": words}

    def close(self) -> None:
        return

    def _count(self, name: str) -> None:
        with self._lock:
            self._counts[name] += 1


@dataclass
class Bench:
    """One user's hpcc in a private directory, and a place to compile in."""

    launcher: Path
    work: Path
    env: dict[str, str]

    def run(
        self,
        *args: str | Path,
        answer: str = "exec",
        **options: Any,  # noqa: ANN401 - handed on to subprocess as they are
    ) -> subprocess.CompletedProcess[bytes]:
        """Run `hpcc ARGS…` to its end."""
        env = {**self.env, ANSWER_VARIABLE: answer, **options.pop("extra_env", {})}
        options = {"timeout": 30, "capture_output": True, "cwd": self.work, **options}
        return subprocess.run([self.launcher, *args], env=env, check=False, **options)

    def popen(
        self,
        *args: str | Path,
        answer: str = "exec",
        **options: Any,  # noqa: ANN401 - handed on to subprocess as they are
    ) -> subprocess.Popen[bytes]:
        """Start `hpcc ARGS…`."""
        env = {**self.env, ANSWER_VARIABLE: answer}
        return subprocess.Popen([self.launcher, *args], cwd=self.work, env=env, **options)

    @property
    def run_dir(self) -> Path:
        return Path(self.env["HPCC_DIR"], "run")

    def script(self, name: str, text: str) -> Path:
        """Make an executable that stands in for a compiler."""
        path = self.work / name
        path.write_text("#!/bin/sh\n" + text)
        path.chmod(0o755)
        return path


def build_tool(source: str, output: Path, *flags: str) -> Path:
    """Compile one program of launcher/ with gcc, all warnings and `flags`."""
    command = ["gcc", "-std=c11", "-O1", "-g", "-Wall", "-Wextra", "-Werror", "-D_GNU_SOURCE"]
    subprocess.run(
        [*command, *flags, str(ROOT / "launcher" / source), "-o", str(output)], check=True
    )
    return output


def _build_script() -> ModuleType:
    spec = importlib.util.spec_from_file_location("hatch_build", ROOT / "tools" / "hatch_build.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def build_windows_launcher(output: Path, *flags: str, root: Path = ROOT) -> Path:
    """Cross-build `hpcc.exe` as the wheel's build does, from the sources below `root`."""
    _build_script().build_windows_launcher(root, output, flags=flags)
    return output


def build_windows_service(output: Path, *flags: str) -> Path:
    """Cross-build `hpcc-service.exe` as the wheel's build does."""
    _build_script().build_windows_service(ROOT, output, flags=flags)
    return output


def build_launcher(directory: Path, *flags: str, build_id: str = "") -> Path:
    """Build `hpcc` as the package's build does, with an `hpcc-cli` of this tree beside it."""
    directory.mkdir(parents=True, exist_ok=True)
    launcher = directory / "hpcc"
    _build_script().build_launcher(ROOT, launcher, build_id=build_id, flags=flags)
    cli = directory / "hpcc-cli"
    cli.write_text(
        f"#!{sys.executable}\nimport sys\nsys.argv[0] = 'hpcc'\n"
        "from hpcc.cli.main import main\nsys.exit(main())\n"
    )
    cli.chmod(0o755)
    return launcher


def launcher_environment(directory: Path, **extra: str) -> dict[str, str]:
    """Return an environment in which hpcc keeps all its files in `directory`."""
    kept = {name: os.environ[name] for name in ("PATH", "HOME") if name in os.environ}
    return {**kept, "HPCC_DIR": str(directory), **extra}


def paths_of(env: Mapping[str, str]) -> Paths:
    """Return the paths of a daemon with this environment."""
    return Paths.from_env(env)


@contextmanager
def scripted_daemon(
    env: Mapping[str, str], *, build_id: str = wire.BUILD_ID, min_age_seconds: float = 0.0
) -> Iterator[subprocess.Popen[bytes]]:
    """Run a daemon with `ScriptedHandler` as a process until the block ends."""
    paths = paths_of(env)
    command = [sys.executable, "-P", "-m", "hpcc_testkit.cache.launcher"]
    command += ["--build-id", build_id, "--min-age", str(min_age_seconds)]
    process = subprocess.Popen(
        command, env=dict(env), stdin=subprocess.DEVNULL, start_new_session=True
    )
    try:
        deadline = time.monotonic() + _START_SECONDS
        while True:
            assert process.poll() is None, "the daemon ended at once"
            try:
                query(paths, "status")
                break
            except HpccError:
                assert time.monotonic() < deadline, "the daemon does not answer"
                threading.Event().wait(_PAUSE_SECONDS)
        yield process
    finally:
        process.kill()
        process.wait()


def counters(env: Mapping[str, str]) -> dict[str, int]:
    """Return the counters of the running daemon's handler."""
    answer = query(paths_of(env), "stats")["counters"]
    assert isinstance(answer, dict)
    return answer


def front_counters(env: Mapping[str, str]) -> dict[str, int]:
    """Return the counters of the running daemon's front."""
    answer = query(paths_of(env), "stats")["front"]
    assert isinstance(answer, dict)
    return answer


def stop_daemon(env: Mapping[str, str]) -> bool:
    """End a daemon that a launcher started; return whether there was one."""
    return stop(paths_of(env), now=True)


def wait_until(condition: Callable[[], bool], *, timeout_seconds: float = 10.0) -> None:
    """Wait until another process makes `condition` true; fail the test after the timeout."""
    deadline = time.monotonic() + timeout_seconds
    while not condition():
        assert time.monotonic() < deadline, "it did not happen in time"
        threading.Event().wait(_PAUSE_SECONDS)


def _scripted_parts(_paths: Paths, _settings: Settings) -> tuple[CacheHandler, RemoteClient | None]:
    return ScriptedHandler(), None


def _main(argv: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser()
    parser.add_argument("--build-id", default=wire.BUILD_ID)
    parser.add_argument("--min-age", type=float, default=0.0)
    args = parser.parse_args(argv)
    limits = LifecycleLimits(min_age_seconds=args.min_age, check_seconds=0.2)
    return run_daemon([], parts=_scripted_parts, build_id=args.build_id, limits=limits)


if __name__ == "__main__":
    sys.exit(_main())
