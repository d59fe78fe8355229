"""A build as spans: each compile once, children inside parents, and no name of a file unasked."""

from __future__ import annotations

import hashlib

import pytest
from hypothesis import given
from hypothesis import strategies as st
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest
from opentelemetry.proto.trace.v1.trace_pb2 import Span

from hpcc.cache.base.times import Phase
from hpcc.cache.recorder.compiles import MAX_AT_US, MAX_TOOK_US, Compile, PhasePart
from hpcc.cache.recorder.spans import (
    COMPILES_PER_REQUEST,
    TracedBuild,
    parent_of,
    requests_of,
    trace_id_of,
)
from hpcc_testkit.cache.recorded import AT_US, HOSTILE, MS, compile_at, hostile_build, small_build
from hpcc_testkit.receivers.collector import CollectorRequest, attributes, parse

TRACE = "4bf92f3577b34da6a3ce929d0e0e4736"
Groups = dict[tuple[str, str], list[Span]]
PARTS = st.lists(
    st.builds(PhasePart, st.sampled_from(Phase), st.integers(0, 60), st.integers(0, 60)), max_size=8
)


def spans_of(
    compiles: tuple[Compile, ...], build: str = "release-7", *, names: bool = False,
    parent: bytes = b"",
) -> Groups:  # fmt: skip
    """Return the spans of all requests by service, and check what holds for each trace."""
    traced = TracedBuild(build, compiles[0].began_us, parent)
    found: Groups = {}
    for request in requests_of(traced, compiles, names=names):
        groups = CollectorRequest("", {}, request.body).spans()
        assert sum(map(len, groups.values())) == request.spans
        for key, spans in groups.items():
            found.setdefault(key, []).extend(spans)
    everything = {span.span_id: span for spans in found.values() for span in spans}
    assert len(everything) == sum(map(len, found.values()))
    for span in everything.values():
        assert span.trace_id == trace_id_of(traced)
        assert span.start_time_unix_nano <= span.end_time_unix_nano
        above = everything.get(span.parent_span_id)
        if above is None:
            assert (span.name, span.parent_span_id) == ("build", parent)
            continue
        assert above.start_time_unix_nano <= span.start_time_unix_nano
        assert span.end_time_unix_nano <= above.end_time_unix_nano
    return found


def test_a_compile_on_the_farm_goes_from_the_launcher_to_the_guest() -> None:
    found = spans_of(small_build().compiles)
    assert set(found) == {("hpcc-client", ""), ("hpcc-worker", "w1")}
    here, there = found[("hpcc-client", "")], found[("hpcc-worker", "w1")]
    by_id = {span.span_id: span for span in here + there}
    guest = next(span for span in there if span.name == "guest")
    way = [guest]
    while way[-1].parent_span_id:
        way.append(by_id[way[-1].parent_span_id])
    assert [span.name for span in way] == ["guest", "call", "farm", "compile", "build"]
    assert attributes(guest) == {"hpcc.said_by": "worker"}
    began = (AT_US + 101 * MS) * 1000
    assert (guest.start_time_unix_nano, guest.end_time_unix_nano) == (began, began + 700 * 10**6)
    assert attributes(way[3]) == {
        "hpcc.kind": "farm", "hpcc.outcome": "miss.remote.executed",
        "hpcc.reason": "inputs-changed", "hpcc.worker": "w1", "hpcc.guest": "w1-g1",
        "hpcc.size_bytes": 2048,
    }  # fmt: skip
    assert attributes(way[4]) == {"hpcc.build": "release-7", "hpcc.compiles": 10, "hpcc.hits": 3}


def test_each_compile_is_there_once_and_a_failed_one_is_an_error() -> None:
    compiles = small_build().compiles
    (here, _) = spans_of(compiles).values()
    found = [span for span in here if span.name == "compile"]
    assert len(found) == len(compiles)
    kinds = [attributes(span)["hpcc.kind"] for span in found if span.status.code == 2]
    assert kinds == ["failed", "refused"]


def test_names_of_files_are_sent_only_when_asked_for() -> None:
    for build in (small_build(), hostile_build()):
        for c, words in ((c, (c.source, c.output, c.culprit)) for c in build.compiles):
            traced = TracedBuild("b", c.began_us)
            ((plain, _),) = requests_of(traced, [c])
            assert not [word for word in words if word and word.encode("utf-8", "replace") in plain]
            assert b"/home" not in plain
            assert b"/p/" not in plain
    (here, _) = spans_of(small_build().compiles, names=True).values()
    far = next(s for s in here if attributes(s).get("hpcc.worker") == "w1")
    assert attributes(far)["hpcc.source"] == "/home/ann/app/net/far.cc"
    assert attributes(far)["hpcc.output"] == "/home/ann/app/net/far.o"


def test_hostile_texts_are_words_or_one_line() -> None:
    for names in (False, True):
        for spans in spans_of(hostile_build().compiles, HOSTILE, names=names).values():
            for value in (v for span in spans for v in attributes(span).values()):
                assert str(value).isprintable()
    detail = compile_at(0, 1, "bypass", reason="flag:-I/home/ann/secret", fallback="x:/home/ann")
    ((here),) = spans_of((detail,)).values()
    found = attributes(here[1])
    assert (found["hpcc.reason"], found["hpcc.fallback"]) == ("flag", "x")


def test_a_build_of_a_trace_is_in_that_trace_below_the_span_that_began_it() -> None:
    build, span = f"trace/{TRACE}", "00f067aa0ba902b7"
    parent = parent_of(build, f"00-{TRACE}-{span}-01")
    assert parent == bytes.fromhex(span)
    found = spans_of(small_build().compiles, build, parent=parent)
    assert found[("hpcc-client", "")][0].trace_id.hex() == TRACE
    for other in ("", "x", f"00-{TRACE[::-1]}-{span}-01", f"00-{TRACE}-{'0' * 16}-01"):
        assert parent_of(build, other) == b""
    assert parent_of("release-7", f"00-{TRACE}-{span}-01") == b""


@pytest.mark.parametrize("name", ["trace/" + "0" * 32, "trace/xyz", "x", "", "\udcff"])
def test_any_other_build_has_a_trace_that_follows_from_its_name_and_begin(name: str) -> None:
    found = {trace_id_of(TracedBuild(name, at)) for at in (1, 1, 2)}
    assert len(found) == 2
    assert all(len(trace_id) == 16 and any(trace_id) for trace_id in found)


def test_a_build_that_is_sent_again_has_the_same_bytes() -> None:
    compiles = small_build().compiles
    traced = TracedBuild("b", compiles[0].began_us)
    assert list(requests_of(traced, compiles)) == list(requests_of(traced, compiles))


def test_a_compile_has_one_id_whether_its_build_is_sent_at_once_or_in_parts() -> None:
    compiles = tuple(compile_at(n // 2, 1, source=f"/home/ann/{n}.c") for n in range(6))

    def ids(*parts: tuple[Compile, ...]) -> list[bytes]:
        traced = TracedBuild("b", compiles[0].began_us)
        bodies = [request.body for part in parts for request in requests_of(traced, part)]
        groups = [g for body in bodies for g in CollectorRequest("", {}, body).spans().values()]
        return [span.span_id for spans in groups for span in spans if span.name == "compile"]

    assert ids(compiles) == ids(compiles[:2], compiles[2:])
    assert len(set(ids(compiles))) == 6


def test_a_large_build_is_sent_in_parts_with_one_root() -> None:
    compiles = tuple(compile_at(n, 1) for n in range(2 * COMPILES_PER_REQUEST + 1))
    traced = TracedBuild("b", compiles[0].began_us)
    bodies = [request.body for request in requests_of(traced, compiles)]
    assert len(bodies) == 3
    ((here),) = spans_of(compiles).values()
    assert [s.name for s in here].count("build") == 1
    assert [s.name for s in here].count("compile") == len(compiles)
    assert len({hashlib.sha256(body).digest() for body in bodies}) == 3


@given(PARTS, st.integers(60, 100))
def test_parts_that_overlap_are_inside_each_other(parts: list[PhasePart], took_ms: int) -> None:
    inside = tuple(p._replace(took_us=min(p.took_us, 60 - p.offset_us)) for p in parts)
    found = spans_of((compile_at(0, took_ms, where="w1", phases=inside),))
    assert sum(map(len, found.values())) == 2 + len(parts)


def test_the_last_year_fits() -> None:
    late = compile_at(0, 1)._replace(began_us=MAX_AT_US, took_us=MAX_TOOK_US)
    ((request),) = requests_of(TracedBuild("b", late.began_us), [late])
    assert parse(ExportTraceServiceRequest, request.body)
