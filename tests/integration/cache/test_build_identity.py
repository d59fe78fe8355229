"""Builds with other names share replays, and the records of their compiles name them."""

from __future__ import annotations

import os
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest

from hpcc.cache.results.records_read import CompileRecord, read_records
from hpcc.cli.cache.explain import explain_lines
from hpcc.daemon.client import query
from hpcc_testkit.cache.launcher import build_launcher, counters, paths_of
from hpcc_testkit.cache.replayed import Build, ReplayDaemon, fill, settle

ARGV = ["gcc", "-O1", "-Iinc", "-MD", "-MF", "out/a.d", "-c", "src/a.c", "-o", "out/a.o"]
TRACE_ID = "4bf92f3577b34da6a3ce929d0e0e4736"
NAMED = {
    f"trace/{TRACE_ID}": {"TRACEPARENT": f"00-{TRACE_ID}-00f067aa0ba902b7-01"},
    "release-7": {"HPCC_BUILD": "release-7"},
    "github/acme/app/7": {"GITHUB_REPOSITORY": "acme/app", "GITHUB_RUN_ID": "7"},
}


@pytest.fixture(scope="module")
def launcher(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return build_launcher(tmp_path_factory.mktemp("launcher"))


@pytest.fixture(
    params=[("native", 1), ("python", 1), ("native", 2)], ids=["native", "python", "processes"]
)
def daemon(
    request: pytest.FixtureRequest, launcher: Path, tmp_path: Path
) -> Iterator[ReplayDaemon]:
    (tmp_path / "h").mkdir()
    daemon = ReplayDaemon(launcher, tmp_path / "h", *request.param)
    fill(tmp_path / "w")
    daemon.start()
    settle()
    yield daemon
    daemon.stop()


def records_of(daemon: ReplayDaemon) -> list[CompileRecord]:
    daemon.replayed()  # waits for the counts of hit processes
    query(paths_of(daemon.env), "stats")  # writes the records
    return read_records(os.fspath(paths_of(daemon.env).cache))


def test_a_replay_is_found_whatever_the_build_is_called(
    daemon: ReplayDaemon, tmp_path: Path
) -> None:
    build = Build(daemon, tmp_path / "w", ARGV)
    build.establish()
    # Each hit process learns for itself.
    for _ in range(8 * (daemon.processes - 1)):
        build.same()
    before = daemon.replayed()
    for variables in NAMED.values():
        replace(build, extra_env=variables).same()
    assert daemon.replayed() == before + len(NAMED)
    records = records_of(daemon)
    assert sorted(r.build for r in records[-len(NAMED) :]) == sorted(NAMED)
    assert {r.outcome for r in records[-len(NAMED) :]} == {"hit.local"}
    guesses = {r.build for r in records[: -len(NAMED)]}
    assert len(guesses) == 1
    assert guesses.pop().startswith("guessed/")
    assert f"  build         {records[-1].build}" in explain_lines(records)


def test_a_bad_identity_costs_a_name_and_no_hit(daemon: ReplayDaemon, tmp_path: Path) -> None:
    build = Build(daemon, tmp_path / "w", ARGV, {"HPCC_BUILD": "a\tb", "TRACEPARENT": "00-x"})
    build.establish()
    assert {r.build for r in records_of(daemon)} == {records_of(daemon)[0].build}
    assert records_of(daemon)[0].build.startswith("guessed/")
    counts = counters(daemon.env)
    compiles = len(records_of(daemon))
    assert counts["build.bad-name"] == counts["build.bad-traceparent"] == compiles


def test_a_miss_names_its_build_and_a_bypass_as_well(daemon: ReplayDaemon, tmp_path: Path) -> None:
    for argv in (ARGV, ["gcc", "--version"]):
        Build(daemon, tmp_path / "w", argv, {"HPCC_BUILD": "release-7"}).through()
    assert [(r.outcome, r.build) for r in records_of(daemon)] == [
        ("miss.local", "release-7"),
        ("bypass", "release-7"),
    ]
