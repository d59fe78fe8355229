"""The bench's arithmetic: which figures it compares, and when a target counts as reached."""

from __future__ import annotations

import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

sys.path.insert(0, str(Path(__file__).resolve().parents[3] / "bench"))

import _builds
import _measure
import _places
import _report
import _rows
import _tools
import load
from _measure import Cost

Maker = Callable[..., _rows.Row]


def row(key: str, against: str = "ccache", **cpu: list[float]) -> _rows.Row:
    costs = {tool: [Cost(wall=2 * c, cpu=c) for c in figures] for tool, figures in cpu.items()}
    return _rows.Row(key, key, against, 10, costs)


def test_a_ratio_is_the_median_of_each_rounds_own_ratio() -> None:
    # The machine slowed down tenfold in the last two rounds: medians of each side would say 0.02.
    drifting = row("hit-10", hpcc=[1, 1, 1, 10, 10], ccache=[4, 5, 50, 50, 50])
    found = _rows.ratio(drifting, "ccache", "cpu")
    assert (found.median, found.q1, found.q3) == (0.2, 0.2, 0.2)


def test_quartiles_of_one_round_are_that_round() -> None:
    assert _rows.Spread.of([3.0]) == _rows.Spread(3.0, 3.0, 3.0)
    assert _rows.Spread.of([1.0, 2.0, 3.0, 4.0, 5.0]) == _rows.Spread(3.0, 2.0, 4.0)


def test_figures_are_of_one_operation() -> None:
    assert _rows.figures(row("hit-10", hpcc=[5.0]), "hpcc", "cpu") == [0.5]
    assert _rows.figures(row("rate-10", hpcc=[5.0]), "hpcc", "rate") == [1.0]


GOALS = {
    ("hit-10", "cpu"): (0.20, 0.12),
    ("hit-300", "cpu"): (0.25, 0.12),
    ("hit-1000", "cpu"): (0.35, 0.10),
    ("hit-300-dirs", "cpu"): (0.25, 0.12),
    ("hit-1000", "wall"): (0.35, 0.20),
    ("hit-10-dirs", "wall"): (0.35, 0.20),
    ("content-300", "cpu"): (0.60, None),
    ("warm-Lua", "cpu"): (0.30, 0.20),
    ("warm-all", "wall"): (0.45, None),
    ("ext4-fmt", "cpu"): (0.25, 0.15),
    ("cold-SQLite", "wall"): (1.03, 1.01),
    ("cold-all", "cpu"): (1.03, 1.01),
    ("cold-headers", "cpu"): (1.12, 1.06),
    ("rate-10", "rate"): (3.0, 5.0),
}


@pytest.mark.parametrize(("key", "metric"), GOALS)
def test_each_kind_of_row_has_its_goal(key: str, metric: str) -> None:
    goal = _rows.goal_of(row(key, hpcc=[1.0]), metric)
    assert goal is not None
    assert (goal.must, goal.aim) == GOALS[key, metric]


@pytest.mark.parametrize("key", ["new-daemon-Lua", "ext4-fmt"])
def test_a_figure_that_nobody_set_a_goal_for_is_not_judged(key: str) -> None:
    assert _rows.goal_of(row(key, hpcc=[1.0]), "wall") is None
    assert _rows.verdict(None, 100.0) == ""


@pytest.mark.parametrize(
    ("metric", "median", "expected"),
    [("cpu", 0.1, "aim"), ("cpu", 0.2, "holds"), ("cpu", 0.21, "misses"),
     ("rate", 5.0, "aim"), ("rate", 3.0, "holds"), ("rate", 2.9, "misses")],
)  # fmt: skip
def test_a_rate_must_be_above_and_a_cost_below(metric: str, median: float, expected: str) -> None:
    goal = _rows.Goal("x", metric, *((3.0, 5.0) if metric == "rate" else (0.2, 0.1)))
    assert _rows.verdict(goal, median) == expected


def test_a_total_adds_up_round_by_round_what_every_row_has() -> None:
    both = [row("warm-a", hpcc=[1.0, 2.0], ccache=[4.0, 4.0], sccache=[9.0, 9.0]),
            row("warm-b", hpcc=[3.0, 3.0], ccache=[4.0, 6.0])]  # fmt: skip
    found = _rows.total("warm-all", "all", both)
    assert {name: [c.cpu for c in costs] for name, costs in found.costs.items()} == {
        "hpcc": [4.0, 5.0],
        "ccache": [8.0, 10.0],
    }


def test_an_object_that_differs_from_the_bare_one_is_named_with_its_tool() -> None:
    found = _builds.compare([
        ("bare", {"a.o": b"1", "b.o": b"2"}),
        ("hpcc", {"a.o": b"1", "b.o": b"2"}),
        ("ccache", {"a.o": b"1", "b.o": b"3"}),
        ("hpcc", {"a.o": b"1"}),
    ])  # fmt: skip
    assert found.differing == {"ccache": ("b.o",), "hpcc": ("b.o",)}
    assert found.checked == 4
    assert found.unsteady == ()


def test_an_object_too_many_is_a_difference() -> None:
    found = _builds.compare([("bare", {"a.o": b"1"}), ("hpcc", {"a.o": b"1", "x.o": b""})])
    assert found.differing == {"hpcc": ("x.o",)}


def test_what_two_bare_builds_write_differently_is_not_compared_but_named() -> None:
    found = _builds.compare([
        ("bare", {"a.o": b"1", "when.o": b"2"}),
        ("hpcc", {"a.o": b"1", "when.o": b"3"}),
        ("bare", {"a.o": b"1", "when.o": b"4"}),
    ])  # fmt: skip
    assert (found.unsteady, found.differing, found.checked) == (("when.o",), {}, 1)


def test_what_was_unsteady_before_is_not_compared_later_either() -> None:
    found = _builds.compare([("bare", {"when.o": b"1"}), ("hpcc", {"when.o": b"2"})], {"when.o"})
    assert found.differing == {}


def test_a_tool_that_did_not_do_what_the_row_is_about_gets_a_note() -> None:
    done = {"hpcc": _tools.Counts(5, 0), "ccache": _tools.Counts(3, 1)}
    assert _tools.count_notes(done, _tools.Counts(hits=5, misses=0)) == [
        "ccache had 3 hits and 1 misses, not 5 and 0"
    ]


def test_every_tool_comes_first_in_some_round() -> None:
    assert [_measure.rotated("abc", n)[0] for n in range(4)] == ["a", "b", "c", "a"]
    assert _measure.rotated([], 3) == []


def test_the_bare_compiler_is_no_cache_that_is_called_gcc(tmp_path: Path) -> None:
    masks, real = tmp_path / "masks", tmp_path / "real"
    for directory in (masks, real):
        directory.mkdir()
    (tmp_path / "ccache").touch()
    (masks / "gcc").symlink_to(tmp_path / "ccache")
    (real / "gcc").touch()
    path = f"{masks}:{real}:/nowhere"
    assert _tools.without_masks(path) == f"{real}:/nowhere"


class Served:
    name = "hpcc"

    def __init__(self, *seconds: float) -> None:
        self._seconds = list(seconds)

    def server_seconds(self) -> float:
        return self._seconds.pop(0)


def test_what_a_server_does_after_its_answers_is_charged_to_its_rounds(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(_measure, "settle", lambda _: None)
    costs = {"hpcc": [Cost(1.0, 5.0, server=2.0), Cost(1.0, 5.0, server=3.0)]}
    deferred = _measure.Deferred([Served(10.0, 17.0)])  # 7 s in all, 5 s of them in the rounds
    deferred.charge(costs)
    assert costs["hpcc"] == [Cost(1.0, 6.0, server=3.0), Cost(1.0, 6.0, server=4.0)]


MOUNTS = """\
1 0 254:0 / / rw,relatime shared:1 - ext4 /dev/vda rw
2 1 0:21 / /dev/shm rw - tmpfs tmpfs rw
3 1 0:22 / /with\\040space rw - xfs /dev/x rw
4 1 0:23 / /dev/shm rw master:2 - ramfs none rw
"""


@pytest.mark.parametrize(
    ("path", "expected"),
    [("/dev/shm/x", "ramfs"), ("/dev/shmx", "ext4"), ("/with space/x", "xfs"), ("/", "ext4")],
)
def test_the_file_system_of_a_path_is_that_of_the_innermost_mount(path: str, expected: str) -> None:
    assert _places.file_system(Path(path), MOUNTS) == expected


def test_the_report_names_what_is_missed_what_is_skipped_and_what_is_wrong() -> None:
    wrong = _rows.Row("warm-x", "warm x", "ccache", 1, row("", hpcc=[1.0], ccache=[2.0]).costs,
                      checked=3, differing=("a.o",))  # fmt: skip
    report = _report.Report(rows=[wrong], skipped=[("sccache", "is not installed")],
                            failed=[("builds", "make: no")])  # fmt: skip
    text = report.text()
    assert "**misses**" in text
    assert "missed: warm x (cpu 0.500, must 0.3)" in text
    assert "skipped: sccache: is not installed" in text
    assert "FAILED: builds: make: no" in text
    assert "WRONG" in text
    assert "a.o" in text
    assert report.differing() == ["warm x: a.o"]


def test_a_row_without_its_opponent_is_shown_and_not_judged() -> None:
    alone = row("hit-10", hpcc=[1.0])
    assert _rows.row_json(alone)["goals"] == {}
    text = _report.Report(rows=[alone]).text()
    assert "0 hold, 0 are missed" in text
    assert "nothing was compared" in text


def test_quantiles_of_the_load_are_of_all_hits() -> None:
    found: dict[str, Any] = load.summary(
        [n / 1e6 for n in range(1, 1001)], wall=0.5, daemon_cpu=0.1, client_cpu=0.05
    )
    assert found["hits_per_second"] == 2000.0
    assert found["latency_us"] == {
        "p50": 501.0, "p90": 901.0, "p99": 991.0, "p99.9": 1000.0, "mean": 500.5, "max": 1000.0,
    }  # fmt: skip
    assert found["daemon_cpu_us_per_hit"] == 100.0
    with pytest.raises(_measure.BenchError):
        load.summary([], wall=1.0, daemon_cpu=0.0, client_cpu=0.0)
