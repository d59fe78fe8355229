"""Trace events: every compile once, parts inside their compile, nothing overlapping in a row."""

from __future__ import annotations

import json
from collections import defaultdict
from typing import Any

from hypothesis import given
from hypothesis import strategies as st

from hpcc.cache.base.times import Phase
from hpcc.cache.recorder.compiles import PhasePart, nested
from hpcc.cache.recorder.reading import RecordedBuild
from hpcc.cli.builds.trace import lanes_of, trace_of
from hpcc_testkit.cache.recorded import MS, compile_at, small_build

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


@given(st.lists(st.tuples(st.integers(0, 50), st.integers(0, 20)), max_size=30))
def test_a_row_holds_no_two_compiles_at_once(spans: list[tuple[int, int]]) -> None:
    compiles = tuple(compile_at(began, took) for began, took in sorted(spans))
    if compiles:
        check_rows(slices(trace_of(RecordedBuild(build="b", compiles=compiles))))
    ends = [(began, began + took) for began, took in sorted(spans)]
    assert max(lanes_of(ends), default=0) <= len(spans)


@given(PARTS)
def test_parts_that_overlap_are_cut(parts: list[PhasePart]) -> None:
    inside = [p._replace(took_us=min(p.took_us, 60 - p.offset_us)) for p in parts]
    found = [each.part for each in nested(inside, 60)]
    assert len(found) == len(parts)
    check_rows([{"pid": 1, "tid": 1, "ts": p.offset_us, "dur": p.took_us} for p in found])
