"""What `hpcc report` and `hpcc trace` show of a Windows client's compiles, here and on a farm."""

from __future__ import annotations

import time
from collections.abc import Callable
from pathlib import Path
from typing import Any, cast

import pytest

from hpcc.cache.base.api import CompileRequest, Done, Exec, Run
from hpcc.cache.base.counters import Counters
from hpcc.cache.base.times import Phase
from hpcc.cache.recorder.compiles import CompileKind
from hpcc.cache.recorder.reading import RecordedBuild, find_build, list_builds
from hpcc.cache.recorder.report import report_of
from hpcc.cache.windows.opening import open_windows_cache
from hpcc.cli.builds.text import report_lines
from hpcc.cli.builds.trace import trace_of
from hpcc.config.paths import Paths
from hpcc.config.settings import RemoteSettings, Settings
from hpcc.core import (
    FarmRun,
    Isolation,
    RemoteFailure,
    RemoteOutcome,
    RemoteOutput,
    RemoteRequest,
    RemoteResult,
)
from hpcc.daemon.windows_process import OnFarm
from hpcc.ports import SystemClock
from hpcc.wire.build_facts import encode_facts
from hpcc_testkit.cache.compiles import FakeRemote
from hpcc_testkit.windows.cl_drive import ARGV, checkout, client_of, request_in
from hpcc_testkit.windows.local_drive import LocalDrive

FACTS = encode_facts([(b"HPCC_BUILD", b"nightly")])
RAN = FarmRun("worker-7", "guest-3", 0.5, 0.25)


class Answers(FakeRemote):
    """A farm that answers what the test says."""

    result: RemoteResult

    def compile(self, request: RemoteRequest, is_cancelled: Callable[[], bool]) -> RemoteOutcome:
        del request, is_cancelled
        return self.failure or self.result


class Bench:
    """The daemon's handler of a Windows client with a farm that answers what the test says."""

    def __init__(self, directory: Path, programs: Path, fallback: str = "warn") -> None:
        self.cache_directory = directory / "home/cache"
        self.root = checkout(directory / "w")
        self.remote = Answers()
        drive = LocalDrive(programs / "clang-cl")
        paths = Paths.from_env({"HPCC_DIR": str(directory / "home")})
        settings = Settings(remote=RemoteSettings(fallback=cast("Any", fallback)))
        self.counters = Counters(str(directory / "counters"), now=lambda: 0.0)
        opened = (drive, paths, settings, self.counters, SystemClock())
        cache, store = open_windows_cache(*opened, lambda _disk, _cwd: None, "")
        farm = client_of(
            *(self.remote, drive, self.counters, settings.remote, time.monotonic, cache.records)
        )
        self.handler = OnFarm(
            self.counters, str(directory), cache, store, farm=farm, has_farm=lambda: True,
            find_root=lambda _: self.root, resolve=lambda program: program,
        )  # fmt: skip

    def compile(self, *argv: str) -> Done | Exec | Run:
        request: CompileRequest = request_in(self.root, *(argv or ARGV), program="clang-cl.exe")
        return self.handler.begin(request._replace(facts=FACTS), lambda: False)

    def recorded(self) -> RecordedBuild:
        self.handler.counters()
        return find_build(str(self.cache_directory), "nightly")


def result(*, is_cached: bool = False, exit_code: int = 0) -> RemoteResult:
    outputs = () if exit_code else (RemoteOutput("X.obj", b"object", is_executable=False),)
    return RemoteResult(
        exit_code=exit_code, stdout=b"", stderr=b"", outputs=outputs, is_cached=is_cached,
        isolation=Isolation.HYPERV, action="a" * 64, ran=RAN,
    )  # fmt: skip


@pytest.fixture
def bench(tmp_path: Path, programs: Path) -> Bench:
    return Bench(tmp_path, programs)


def test_what_a_farm_compiled_is_in_report_and_trace(bench: Bench) -> None:
    bench.remote.result = result()
    assert bench.compile() == Done(0, b"", b"")
    bench.remote.result = result(is_cached=True)
    assert bench.compile() == Done(0, b"", b"")
    recorded = bench.recorded()
    one, two = recorded.compiles
    assert (one.kind, two.kind) == (CompileKind.FARM, CompileKind.FARM_CACHE)
    assert (one.where, one.guest, one.size_bytes) == ("worker-7", "guest-3", 6)
    assert one.source.endswith("x.c")
    assert {Phase.FARM, Phase.PLAN, Phase.CALL} <= {part.phase for part in one.phases}
    assert (one.reason, one.fallback) == ("new-command", "")
    (line,) = list_builds(str(bench.cache_directory))
    assert (line.build, line.compiles, line.hits) == ("nightly", 2, 1)
    assert any("worker-7" in text for text in report_lines(report_of(recorded)))
    assert b"worker-7" in str(trace_of(recorded)).encode()
    counted = bench.counters.snapshot()
    assert counted["missed.new-command"] == counted["miss.remote.executed"] == 1


def test_a_farm_that_fails_is_a_reason_in_the_report(bench: Bench) -> None:
    bench.remote.failure = RemoteFailure("no-worker", "none is there")
    # The local cache has its reason, too: this environment names no installation.
    assert bench.compile() == Exec("visual-studio")
    (one,) = bench.recorded().compiles
    assert (one.kind, one.fallback_word) == (CompileKind.BYPASS, "no-worker")
    (cause,) = report_of(bench.recorded()).causes
    assert (cause.family, cause.word) == ("fallback", "no-worker")


def test_a_bypass_and_what_a_policy_refuses_are_recorded(tmp_path: Path, programs: Path) -> None:
    bench = Bench(tmp_path, programs, fallback="never")
    assert bench.compile("/c", "/GL", "x.c") == Exec("whole-program")
    bench.remote.failure = RemoteFailure("no-worker", "none is there")
    answer = bench.compile()
    assert isinstance(answer, Done)
    assert answer.exit_code
    kinds = [(c.kind, c.reason, c.fallback) for c in bench.recorded().compiles]
    assert kinds == [
        (CompileKind.BYPASS, "whole-program", ""),
        (CompileKind.REFUSED, "no-worker", ""),
    ]
