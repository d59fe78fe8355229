"""Trace events: every compile once, parts inside their compile, nothing overlapping in a row."""

from __future__ import annotations

import json
from collections import defaultdict
from pathlib import Path
from typing import Any

from hypothesis import given
from hypothesis import strategies as st

from hpcc.cache.base.times import Phase
from hpcc.cache.recorder.compiles import PhasePart, nested
from hpcc.cache.recorder.places import DIRECTORY_NAME
from hpcc.cache.recorder.reading import RecordedBuild, find_build
from hpcc.cache.recorder.recorder import Recorder
from hpcc.cli.builds.trace import trace_of
from hpcc.core.build_lanes import lane_numbers
from hpcc_testkit.cache.recorded import AT_US, MS, compile_at, large_build, small_build

PARTS = st.lists(
    st.builds(PhasePart, st.sampled_from(Phase), st.integers(0, 60), st.integers(0, 60)), max_size=8
)


def slices(trace: dict[str, Any]) -> list[dict[str, Any]]:
    return [event for event in trace["traceEvents"] if event["ph"] == "X"]


def check_rows(events: list[dict[str, Any]]) -> None:
    """Check that the slices of each row lie inside each other or apart, as viewers need it."""
    rows = defaultdict(list)
    for event in events:
        rows[event["pid"], event["tid"]].append((event["ts"], event["ts"] + event["dur"]))
    for spans in rows.values():
        for number, (began, ended) in enumerate(spans):
            assert began <= ended
            for other_began, other_ended in spans[:number]:
                is_apart = ended <= other_began or other_ended <= began
                is_inside = other_began <= began and ended <= other_ended
                assert is_apart or is_inside, (began, ended, other_began, other_ended)


def test_a_compile_on_the_farm_is_a_slice_here_with_its_parts_and_one_at_its_worker() -> None:
    trace = json.loads(json.dumps(trace_of(small_build())))
    check_rows(slices(trace))
    names = {
        e["pid"]: e["args"]["name"] for e in trace["traceEvents"] if e["name"] == "process_name"
    }
    assert names == {1: "hits", 2: "compiles of this machine", 10: "worker w1"}
    far = [e for e in slices(trace) if e["name"] == "net/far.cc"]
    assert [(e["pid"], e["ts"], e["dur"]) for e in far] == [
        (2, 1 * MS, 900 * MS), (10, 61 * MS, 740 * MS),
    ]  # fmt: skip
    assert far[0]["args"]["worker"] == "w1"
    assert far[0]["args"]["reason"] == "inputs-changed"
    start, finish = (e for e in trace["traceEvents"] if e["ph"] in "sf")
    assert (start["id"], start["pid"], finish["pid"]) == (finish["id"], 2, 10)
    at_worker = [e["name"] for e in slices(trace) if e["pid"] == 10]
    assert at_worker == ["net/far.cc", "wait for a guest", "guest"]


def test_every_compile_is_in_the_trace_once() -> None:
    recorded = small_build()
    compiles = [e for e in slices(trace_of(recorded)) if "outcome" in e.get("args", {})]
    assert len(compiles) == len(recorded.compiles)
    assert sum(e["dur"] for e in compiles) == sum(c.took_us for c in recorded.compiles)


def test_no_slice_is_of_no_length() -> None:
    parts = (
        PhasePart(Phase.FARM, 0, 9 * MS), PhasePart(Phase.QUEUE, MS, 0),
        PhasePart(Phase.GUEST, MS, 0),
    )  # fmt: skip
    compiles = (
        compile_at(0, 0, "hit.local"),
        compile_at(1, 9, "miss.remote.executed", where="w1", phases=parts),
    )
    found = slices(trace_of(RecordedBuild(build="b", compiles=compiles)))
    check_rows(found)
    assert [(e["name"], e["dur"]) for e in found] == [
        ("a.c", 1), ("a.c", 9 * MS), ("attempt on the farm", 9 * MS), ("a.c", 1),
    ]  # fmt: skip


def test_in_a_build_of_500_units_each_is_there_once_and_parts_are_inside_their_compile(
    tmp_path: Path,
) -> None:
    recorder = Recorder(str(tmp_path / DIRECTORY_NAME), lambda: AT_US / 1e6)
    units = large_build(500).compiles
    for compile_ in units:
        recorder.add("large", compile_)
    recorder.flush()
    events = slices(json.loads(json.dumps(trace_of(find_build(str(tmp_path), "large")))))
    check_rows(events)
    compiles = [e for e in events if "outcome" in e.get("args", {})]
    assert sorted(e["name"] for e in compiles) == sorted(c.source.rpartition("/")[2] for c in units)
    assert sum(e["dur"] for e in compiles) == sum(c.took_us for c in units)
    # At workers the wait and the guest are inside what is there of their compile.
    parents = [*compiles, *(e for e in events if e["cat"] == "guest")]
    rows = defaultdict(list)
    for parent in parents:
        rows[parent["pid"], parent["tid"]].append((parent["ts"], parent["ts"] + parent["dur"]))
    parts = [e for e in events if e["cat"] == "phase"]
    assert len(parts) > len(units)
    for part in parts:
        began, ended = part["ts"], part["ts"] + part["dur"]
        row = rows[part["pid"], part["tid"]]
        assert sum(at <= began and ended <= until for at, until in row) == 1, part


@given(st.lists(st.tuples(st.integers(0, 50), st.integers(0, 20)), max_size=30))
def test_a_row_holds_no_two_compiles_at_once(spans: list[tuple[int, int]]) -> None:
    compiles = tuple(compile_at(began, took) for began, took in sorted(spans))
    if compiles:
        check_rows(slices(trace_of(RecordedBuild(build="b", compiles=compiles))))
    ends = [(began, began + took) for began, took in sorted(spans)]
    assert max(lane_numbers(ends), default=0) <= len(spans)


@given(PARTS)
def test_parts_that_overlap_are_cut(parts: list[PhasePart]) -> None:
    inside = [p._replace(took_us=min(p.took_us, 60 - p.offset_us)) for p in parts]
    found = [each.part for each in nested(inside, 60)]
    assert len(found) == len(parts)
    check_rows([{"pid": 1, "tid": 1, "ts": p.offset_us, "dur": p.took_us} for p in found])
