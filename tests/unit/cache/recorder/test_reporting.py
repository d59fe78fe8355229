"""What a farm gets of recorded builds: no name of a file, once, and never in a compile's way."""

from __future__ import annotations

import shutil
from collections import Counter
from pathlib import Path

import pytest

from hpcc.cache.recorder import reporting
from hpcc.cache.recorder.compiles import Compile
from hpcc.cache.recorder.places import DIRECTORY_NAME, Limits
from hpcc.cache.recorder.reading import RecordedBuild, read_build
from hpcc.cache.recorder.recorder import Recorder
from hpcc.cache.recorder.report import report_of
from hpcc.cache.recorder.reporting import FAILED, REPORTED, BuildReports
from hpcc.cache.recorder.summary import summary_of_build
from hpcc.cli.web.parts.sums import Ends, ends_of
from hpcc.core import build_lanes
from hpcc.core.build_summary import BINS, NO_DISPATCHER, NO_REPORTS, BuildSummary
from hpcc_testkit.cache.recorded import AT_US, HOSTILE, compile_at, small_build
from hpcc_testkit.services.builds import SOURCE


def test_a_summary_has_the_numbers_of_the_report() -> None:
    recorded = small_build()
    report, said = report_of(recorded), summary_of_build(recorded, SOURCE)
    assert {t.word: t.compiles for t in said.kinds} == {
        kind.value: count for kind, count in report.counts.items()
    }
    assert said.compiles == report.compiles
    assert (said.began_ms * 1000, said.ended_ms * 1000) == (report.began_us, report.ended_us)
    assert [(c.family, c.word, c.compiles) for c in said.causes] == [
        (c.family, c.word, c.compiles) for c in report.causes
    ]
    assert [(t.word, t.compiles) for t in said.places] == [
        (p.where, p.compiles) for p in report.places
    ]
    assert [s.took_ms for s in said.slowest] == [c.took_us // 1000 for c in report.slowest]
    assert len(said.activity) == BINS
    assert sum(part.served for part in said.activity) == report.served
    on_farm = sum(part.farm_ms for part in said.activity)
    assert 900 - BINS <= on_farm <= 900, "each part rounds down"


def test_lanes_have_each_compile_that_ran_at_its_place_and_its_guests_time() -> None:
    recorded = small_build()
    said = summary_of_build(recorded, SOURCE)
    took_ms = said.ended_ms - said.began_ms
    found = [
        (
            lane.where,
            [(b.began * took_ms // build_lanes.PARTS, b.compiles, b.end) for b in lane.bars()],
        )
        for lane in said.lanes
    ]
    # 101 ms after the begin the guest began; what a cache served is in no lane.
    assert found == [
        ("w1", [(100, 1, build_lanes.AS_PLACE)]),
        ("", [(1, 1, build_lanes.INSTEAD), (419, 1, 0), (729, 1, build_lanes.FAILED)]),
    ]
    assert said.off_lanes == 0


def test_a_fallback_before_a_hit_or_an_error_is_nothing_that_the_farm_should_have_done() -> None:
    compiles = (
        compile_at(0, 5, "hit.local", fallback="parity"), compile_at(1, 6),
        compile_at(2, 7, "miss.failed", fallback="exit-code"),
        compile_at(3, 8, fallback="guest-lost"), compile_at(4, 9, "uncacheable", fallback="embed"),
    )  # fmt: skip
    said = summary_of_build(RecordedBuild(build="b", compiles=compiles), SOURCE)
    assert ends_of(said) == Ends(cache=1, here=1, instead=2)
    found = [(c.word, c.compiles, c.took_ms) for c in said.causes if c.family == "fallback"]
    assert found == [("embed", 1, 9), ("guest-lost", 1, 8)]
    assert sum(part.instead_ms for part in said.activity) in range(17 - BINS, 18)


def test_no_name_of_a_file_and_no_detail_of_a_reason_is_in_a_summary() -> None:
    odd = (
        compile_at(0, 50, "bypass", f"/home/ann/{HOSTILE}", reason=f"unknown-flag:-x={HOSTILE}"),
        compile_at(9, 60, "miss.remote.executed", "/home/ann/secret.c", reason="/home/ann/secret.c",
                   where=f"w1 {HOSTILE}"),
        compile_at(20, 70, "miss.local", "/home/ann/secret.c", fallback=f"guest-lost: {HOSTILE}"),
        compile_at(30, 70, "miss.local", "/home/ann/secret.c", fallback=HOSTILE),
    )  # fmt: skip
    said = str(summary_of_build(RecordedBuild(build="b", compiles=odd), SOURCE).table())
    for word in ("secret", "home", "ann", "script", "alert", "fplugin", ".c"):
        assert word not in said, word
    assert "unknown-flag" in said
    assert "guest-lost" in said


class Machine:
    """A cache directory with its recorder, a clock, and a farm."""

    def __init__(self, cache: Path) -> None:
        self.cache, self.at = cache, 1000.0
        self.recorder = Recorder(str(cache / DIRECTORY_NAME), lambda: AT_US / 1e6 + self.at)
        self.counts = Counter[str]()
        self.says = ""
        self.login: str | None = "acme"
        self.sent: list[BuildSummary] = []
        self.asked = 0

    def reports(self) -> BuildReports:
        return BuildReports(
            str(self.cache), self._send, self._count, login=lambda: self.login,
            monotonic=lambda: self.at,
        )  # fmt: skip

    def _count(self, name: str, amount: int) -> None:
        self.counts[name] += amount

    def _send(self, summary: BuildSummary) -> str:
        self.asked += 1
        if not self.says:
            self.sent.append(summary)
        return self.says

    def compiled(self, build: str, *compiles: Compile) -> None:
        for each in compiles or (compile_at(0, 5, "miss.remote.executed", where="w1"),):
            self.recorder.add(build, each)
        self.recorder.flush()

    def later(self, reports: BuildReports, seconds: float = 5.0, times: int = 1) -> None:
        for _ in range(times):
            self.at += seconds
            reports.turn()


def test_a_build_is_reported_while_it_runs_and_when_it_is_quiet_and_no_more(tmp_path: Path) -> None:
    machine = Machine(tmp_path)
    reports = machine.reports()
    machine.compiled("one")
    machine.later(reports)
    assert [s.compiles for s in machine.sent] == [1], "the first look tells of it"
    for _ in range(8):
        machine.compiled("one")
        machine.later(reports)
    told = [s.compiles for s in machine.sent]
    assert told == [1, 5, 9], "one that goes on is told of every twenty seconds"
    machine.compiled("one")
    machine.later(reports, times=10)
    assert [s.compiles for s in machine.sent] == [1, 5, 9, 10]
    assert machine.counts == {REPORTED: 4}
    assert len({s.source for s in machine.sent}) == 1


def test_a_large_build_is_read_less_often_while_it_goes_on(tmp_path: Path) -> None:
    machine = Machine(tmp_path)
    reports = machine.reports()
    machine.compiled("one", *(compile_at(n, 5, "miss.remote.executed", f"/{'x' * 900}{n}.c", where="w1")
                              for n in range(700)))  # fmt: skip
    machine.later(reports)
    for _ in range(59):
        machine.compiled("one")
        machine.later(reports)
    assert [s.compiles for s in machine.sent] == [700]
    machine.compiled("one")
    machine.later(reports)
    assert [s.compiles for s in machine.sent] == [700, 760], "after five minutes"
    machine.compiled("one")
    machine.later(reports, times=2)
    assert [s.compiles for s in machine.sent][2:] == [761], "and when it is quiet"


def test_a_build_of_which_a_part_made_room_is_not_told_as_whole(tmp_path: Path) -> None:
    machine = Machine(tmp_path)
    limits = Limits(total_bytes=6000, part_bytes=1000)
    machine.recorder = Recorder(str(tmp_path / DIRECTORY_NAME), lambda: AT_US / 1e6, limits)
    reports = machine.reports()
    for _ in range(60):
        machine.compiled("one", *[compile_at(n, 5, "miss.remote.executed") for n in range(5)])
        machine.later(reports)
    machine.later(reports, times=9)
    assert machine.sent[-1].compiles < 300
    assert machine.sent[-1].is_damaged
    assert not machine.sent[0].is_damaged


def test_a_source_has_its_name_for_as_long_as_its_directory(tmp_path: Path) -> None:
    names = set()
    for _ in range(2):
        machine = Machine(tmp_path)
        reports = machine.reports()
        machine.compiled("one")
        machine.later(reports, times=3)
        names |= {s.source for s in machine.sent}
    assert len(names) == 1
    (tmp_path / "build-reports.json").write_text('{"format": 1, "source": "../../etc"}')
    machine = Machine(tmp_path)
    reports = machine.reports()
    machine.compiled("one")
    machine.later(reports, times=3)
    assert machine.sent[-1].source not in names


def test_copies_of_a_directory_are_several_recorders(tmp_path: Path) -> None:
    Machine(tmp_path / "one").reports()
    shutil.copytree(tmp_path / "one", tmp_path / "two")
    names = set()
    for cache in (tmp_path / "one", tmp_path / "two"):
        machine = Machine(cache)
        reports = machine.reports()
        machine.compiled("ci-7")
        machine.later(reports)
        names |= {s.source for s in machine.sent}
    assert len(names) == 2


def test_builds_of_before_are_not_told_again_after_a_restart(tmp_path: Path) -> None:
    machine = Machine(tmp_path)
    machine.compiled("old")
    reports = machine.reports()
    machine.later(reports, times=10)
    assert machine.asked == 0
    machine.compiled("old")
    machine.later(reports, times=2)
    assert [s.compiles for s in machine.sent] == [2]


def test_a_farm_that_takes_no_report_is_asked_less_often_and_each_failure_is_counted(
    tmp_path: Path,
) -> None:
    machine = Machine(tmp_path)
    reports = machine.reports()
    machine.compiled("one")
    machine.says = "unavailable"
    machine.later(reports, times=60)  # five minutes
    assert 3 <= machine.asked <= 7
    assert machine.counts == {FAILED: machine.asked}
    machine.says = ""
    machine.later(reports, times=60)
    assert len(machine.sent) == 1
    assert machine.counts[REPORTED] == 1


def test_a_build_that_is_refused_keeps_no_other_from_being_told(tmp_path: Path) -> None:
    machine = Machine(tmp_path)
    reports = machine.reports()
    machine.compiled("odd")
    machine.says = "build"
    machine.later(reports)
    machine.says = ""
    machine.compiled("one")
    machine.later(reports, times=9)
    assert [s.build for s in machine.sent] == ["one"]
    assert machine.counts == {FAILED: 1, REPORTED: 1}


def test_a_farm_that_keeps_none_is_asked_once_an_hour(tmp_path: Path) -> None:
    machine = Machine(tmp_path)
    reports = machine.reports()
    machine.compiled("one")
    machine.says = "builds-off"
    machine.later(reports, times=700)
    assert machine.asked == 1


def test_a_build_that_never_asked_the_farm_waits_and_is_no_failure(tmp_path: Path) -> None:
    machine = Machine(tmp_path)
    reports = machine.reports()
    machine.compiled("one")
    machine.says = NO_DISPATCHER
    machine.later(reports, times=20)
    assert machine.counts == {}
    machine.says = ""
    machine.later(reports)
    assert len(machine.sent) == 1


def test_a_build_without_the_farm_is_not_reported_until_it_asks_the_farm(tmp_path: Path) -> None:
    machine = Machine(tmp_path)
    reports = machine.reports()
    machine.compiled("one", compile_at(0, 5), compile_at(1, 1, "hit.local"))
    machine.compiled("two", compile_at(0, 5, fallback="no-worker"))
    machine.later(reports, times=20)
    assert [s.build for s in machine.sent] == ["two"]
    machine.compiled("one", compile_at(9, 5, "miss.remote.cached", where="w1"))
    machine.later(reports, times=3)
    assert [(s.build, s.compiles) for s in machine.sent] == [("two", 1), ("one", 3)]


def test_a_farm_gets_no_build_of_before_the_login_to_it(tmp_path: Path) -> None:
    machine = Machine(tmp_path)
    reports = machine.reports()
    machine.compiled("secret-product")
    machine.says = "unavailable"
    machine.later(reports, times=3)
    machine.says, machine.login = "", "globex"
    machine.later(reports, times=99)
    machine.compiled("secret-product")  # of both
    machine.compiled("release-7")
    machine.later(reports, times=9)
    assert [s.build for s in machine.sent] == ["release-7"]


def test_a_farm_that_keeps_none_and_a_logout_cost_the_next_farm_no_hour(tmp_path: Path) -> None:
    machine = Machine(tmp_path)
    reports = machine.reports()
    machine.compiled("one")
    machine.login = None
    machine.later(reports, times=3)
    assert machine.asked == 0
    machine.login, machine.says = "acme", "builds-off"
    machine.later(reports, times=3)
    assert machine.asked == 1
    machine.login, machine.says = "globex", ""
    machine.later(reports, times=2)
    machine.compiled("two")
    machine.later(reports, times=2)
    assert [s.build for s in machine.sent] == ["two"]


def test_a_login_to_another_farm_while_a_build_is_read_keeps_it_here(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    machine = Machine(tmp_path)

    def slow(directory: str, build: str) -> RecordedBuild:
        machine.login = "globex"
        return read_build(directory, build)

    reports = machine.reports()
    machine.compiled("secret-product")
    monkeypatch.setattr(reporting, "read_build", slow)
    machine.later(reports, times=9)
    assert machine.asked == 0


def test_an_engine_that_takes_no_reports_is_no_failure_and_is_asked_once_an_hour(
    tmp_path: Path,
) -> None:
    machine = Machine(tmp_path)
    reports = machine.reports()
    machine.compiled("one")
    machine.says = NO_REPORTS
    machine.later(reports, times=700)
    assert (machine.asked, machine.counts) == (1, {})


def test_files_that_cannot_be_read_keep_no_build_from_being_told(tmp_path: Path) -> None:
    machine = Machine(tmp_path)
    reports = machine.reports()
    (tmp_path / DIRECTORY_NAME).mkdir(mode=0o700)
    for number in range(5):
        name = f"{number:012x}-{number:016x}-{number:016x}.part"
        (tmp_path / DIRECTORY_NAME / name).write_bytes(b"")
    machine.compiled("one")
    machine.later(reports, times=2)
    assert [s.build for s in machine.sent] == ["one"]


def test_the_thread_rests_after_each_build_that_it_read(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    machine = Machine(tmp_path)
    looks: list[float] = []

    def slow(directory: str, build: str) -> RecordedBuild:
        looks.append(machine.at)
        machine.at += 2.0
        return read_build(directory, build)

    monkeypatch.setattr(reporting, "read_build", slow)
    reports = machine.reports()
    # Of the first three the farm gets nothing.
    for name in ("a", "b", "c"):
        machine.compiled(name, compile_at(0, 5))
    machine.compiled("d")
    machine.later(reports)
    assert len(looks) == 4
    ended = machine.at
    machine.compiled("d")
    while len(looks) == 4:
        machine.later(reports)
    assert looks[4] - ended >= 9 * 4 * 2.0


def test_who_has_no_home_and_a_disk_that_fails_do_not_end_the_reports(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    machine = Machine(tmp_path)
    reports = machine.reports()
    monkeypatch.delenv("HOME")

    def nobody(_: int) -> None:
        raise KeyError

    monkeypatch.setattr("pwd.getpwuid", nobody)
    machine.compiled("one", compile_at(0, 5, "miss.remote.executed", "/src/a.c", where="w1"))
    machine.later(reports)
    assert len(machine.sent) == 1

    def fail(*_: object) -> RecordedBuild:
        raise OSError(5, "Input/output error")

    monkeypatch.setattr(reporting, "read_build", fail)
    machine.compiled("one")
    machine.later(reports, times=9)
    assert machine.counts[FAILED] == 1
    monkeypatch.undo()
    machine.compiled("one")
    machine.later(reports, times=9)
    assert machine.sent[-1].compiles == 3


def test_the_end_of_a_daemon_reports_what_is_left(tmp_path: Path) -> None:
    machine = Machine(tmp_path)
    reports = machine.reports()
    machine.compiled("one")
    machine.later(reports)
    machine.compiled("one")
    machine.at += 1
    reports.turn()
    assert len(machine.sent) == 1
    reports.turn(is_last=True)
    assert [s.compiles for s in machine.sent] == [1, 2]
