"""Builds are sent in the background once, and stay until the collector has them."""

from __future__ import annotations

import json
import os
from collections import Counter
from pathlib import Path

import pytest

from hpcc.cache.recorder.compiles import Compile
from hpcc.cache.recorder.export import DROPPED, SENT, STATE_NAME, TraceExport
from hpcc.cache.recorder.places import DIRECTORY_NAME
from hpcc.cache.recorder.recorder import Recorder
from hpcc.obs.otlp.sender import CollectorAnswer, PostEnding
from hpcc_testkit.cache.recorded import AT_US, compile_at
from hpcc_testkit.receivers.collector import CollectorRequest, attributes

_TAKEN = CollectorAnswer(PostEnding.TAKEN)
_LATER = CollectorAnswer(PostEnding.LATER, "nobody listens there")


class Machine:
    """A cache directory with its recorder, a clock, and a collector."""

    def __init__(self, cache: Path) -> None:
        self.cache, self.at = cache, AT_US / 1e6
        self.recorder = Recorder(str(cache / DIRECTORY_NAME), lambda: self.at)
        self.counts = Counter[str]()
        self.answers: list[CollectorAnswer] = []
        self.sent: list[tuple[str, str, int]] = []
        self.asked = 0
        self._written: dict[Path, float] = {}

    def export(self) -> TraceExport:
        return TraceExport(
            str(self.cache), self._post, "otel.example:443", self._count, names=False,
            now=lambda: self.at,
        )  # fmt: skip

    def _count(self, name: str, amount: int) -> None:
        self.counts[name] += amount

    def _post(self, body: bytes) -> CollectorAnswer:
        self.asked += 1
        answer = self.answers.pop(0) if self.answers else _TAKEN
        if answer.ending is PostEnding.TAKEN:
            ((here),) = CollectorRequest("", {}, body).spans().values()
            roots = [span for span in here if span.name == "build"]
            self.sent += [
                (str(attributes(r)["hpcc.build"]), r.trace_id.hex(), len(here) - 1) for r in roots
            ]
        return answer

    def compiled(self, build: str, *compiles: Compile) -> None:
        """Record compiles soon after the last one has ended."""
        self.at = max(self.at, *(each.ended_us / 1e6 + 0.5 for each in compiles))
        for each in compiles:
            self.recorder.add(build, each)
        self.recorder.flush()
        for file in (self.cache / DIRECTORY_NAME).iterdir():
            if self._written.get(file) != file.stat().st_mtime:
                os.utime(file, (self.at, self.at))
                self._written[file] = file.stat().st_mtime

    def after(self, seconds: float) -> None:
        """Set the clock to so long after the first compile of the tests."""
        self.at = AT_US / 1e6 + seconds


@pytest.fixture
def machine(tmp_path: Path) -> Machine:
    found = Machine(tmp_path)
    found.at -= 1
    found.export()  # the setting was made before the first build
    return found


def test_a_build_is_sent_once_when_it_is_quiet(machine: Machine) -> None:
    machine.compiled("one", compile_at(0, 10), compile_at(5, 10))
    export = machine.export()
    machine.after(29)
    assert export.turn()
    assert machine.sent == []
    machine.after(31)
    assert export.turn()
    assert [(build, count) for build, _, count in machine.sent] == [("one", 2)]
    assert export.turn()
    assert machine.export().turn(), "a new daemon goes on where the old one ended"
    assert machine.asked == 1
    assert machine.counts == {SENT: 3}


def test_what_is_built_later_is_sent_as_the_same_trace(machine: Machine) -> None:
    export = machine.export()
    machine.compiled("one", compile_at(0, 10))
    machine.after(31)
    assert export.turn()
    machine.compiled("one", compile_at(40_000, 10), compile_at(40_005, 10))
    machine.after(90)
    assert export.turn()
    (_, first, one), (_, second, two) = machine.sent
    assert first == second
    assert (one, two) == (1, 2)


def test_what_was_built_before_the_setting_is_not_sent(tmp_path: Path) -> None:
    machine = Machine(tmp_path)
    machine.compiled("old", compile_at(0, 10))
    machine.after(1)
    export = machine.export()
    machine.after(100)
    assert export.turn()
    assert machine.asked == 0


def test_a_build_that_does_not_end_is_sent_every_few_minutes(machine: Machine) -> None:
    export = machine.export()
    for second in range(0, 700, 20):
        machine.compiled("nightly", compile_at(second * 1000, 10))
        machine.after(second + 1)
        assert export.turn()
    assert 2 <= len(machine.sent) <= 3
    machine.after(800)
    assert export.turn()
    assert sum(count for _, _, count in machine.sent) == 35


def test_what_the_collector_does_not_take_is_sent_later(
    machine: Machine, caplog: pytest.LogCaptureFixture
) -> None:
    machine.compiled("one", compile_at(0, 10))
    machine.compiled("two", compile_at(0, 10))
    machine.after(31)
    machine.answers = [_TAKEN, _LATER, _LATER]
    export = machine.export()
    assert not export.turn()
    assert not export.turn()
    assert export.turn()
    assert sorted(build for build, _, _ in machine.sent) == ["one", "two"]
    assert machine.counts == {SENT: 4}
    assert [record.getMessage() for record in caplog.records] == [
        "OTLP at otel.example:443 takes no builds: nobody listens there",
        "OTLP at otel.example:443 takes builds again",
    ]


@pytest.mark.parametrize(
    ("answer", "sent", "dropped"),
    [
        (CollectorAnswer(PostEnding.REFUSED, "it answers 400"), 0, 2),
        (CollectorAnswer(PostEnding.TAKEN, rejected=1), 1, 1),
        (CollectorAnswer(PostEnding.TAKEN, rejected=1 << 62), 0, 2),
    ],
)
def test_what_is_refused_is_counted_and_not_sent_again(
    machine: Machine, answer: CollectorAnswer, sent: int, dropped: int
) -> None:
    machine.compiled("one", compile_at(0, 10))
    machine.after(31)
    machine.answers = [answer]
    export = machine.export()
    assert export.turn()
    assert export.turn()
    assert machine.asked == 1
    assert (machine.counts[SENT], machine.counts[DROPPED]) == (sent, dropped)


@pytest.mark.parametrize(
    "text", ["", "[]", "{", '{"format": 1, "since": "x", "sent": {}}', '{"format": 2}', "[" * 9999]
)
def test_a_state_that_cannot_be_read_begins_anew(tmp_path: Path, text: str) -> None:
    machine = Machine(tmp_path)
    (tmp_path / STATE_NAME).write_text(text)
    machine.compiled("one", compile_at(0, 10))
    machine.after(31)
    assert machine.export().turn()
    assert machine.asked == 0, "it does not know what was sent"
    assert json.loads((tmp_path / STATE_NAME).read_text())["since"] == AT_US + 31_000_000


def test_the_state_forgets_builds_that_are_not_recorded_any_more(machine: Machine) -> None:
    machine.compiled("one", compile_at(0, 10))
    machine.after(31)
    export = machine.export()
    assert export.turn()
    state = machine.cache / STATE_NAME
    assert len(json.loads(state.read_text())["sent"]) == 1
    for part in (machine.cache / DIRECTORY_NAME).iterdir():
        part.unlink()
    assert export.turn()
    assert json.loads(state.read_text())["sent"] == {}


def test_a_clock_that_was_set_back_does_not_stop_the_export(machine: Machine) -> None:
    state = machine.cache / STATE_NAME
    future = AT_US + 10**15
    state.write_text(json.dumps({"format": 1, "since": future, "sent": {}}))
    export = machine.export()
    machine.compiled("one", compile_at(5_000, 10))
    build = next((machine.cache / DIRECTORY_NAME).iterdir()).name.split("-")[1]
    table = json.loads(state.read_text())
    assert table["since"] < AT_US
    state.write_text(json.dumps(table | {"sent": {build: future}}))
    machine.after(60)
    assert export.turn()
    assert [name for name, _, _ in machine.sent] == ["one"]
