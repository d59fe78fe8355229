"""What a build's compiles tell: only sums and claims that follow from them."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from hpcc.cache.recorder.compiles import CompileKind, kind_of
from hpcc.cache.recorder.reading import RecordedBuild
from hpcc.cache.recorder.report import Changed, changed_key, report_of
from hpcc_testkit.cache.recorded import MS, compile_at, small_build

SPANS = st.lists(
    st.tuples(st.integers(0, 500), st.integers(0, 200), st.booleans()), min_size=1, max_size=40
)


def test_a_build_with_one_compile_of_each_kind() -> None:
    report = report_of(small_build())
    assert report.counts == {
        CompileKind.HIT: 2, CompileKind.FARM: 1, CompileKind.HERE: 1, CompileKind.FARM_CACHE: 1, CompileKind.BYPASS: 1,
        CompileKind.NOT_KEPT: 1, CompileKind.FAILED: 1, CompileKind.GIVEN_UP: 1, CompileKind.REFUSED: 1,
    }  # fmt: skip
    assert (report.compiles, report.lookups, report.served) == (10, 7, 3)
    assert (report.ended_us - report.began_us, report.busy_us) == (906 * MS, 902 * MS)
    assert (report.compiled, report.compiled_us) == (3, 1600 * MS)
    assert [(c.family, c.word, c.compiles, c.took_us // MS) for c in report.causes] == [
        ("missed", "inputs-changed", 1, 900),
        ("fallback", "guest-lost", 1, 400),
        ("missed", "new-command", 1, 400),
        ("uncacheable", "date-time", 1, 300),
        ("failed", "", 1, 90),
        ("bypass", "stdin", 1, 0),
        ("given-up", "", 1, 0),
        ("refused", "farm-down", 1, 0),
    ]
    assert [(p.where, p.compiles) for p in report.places] == [("w1", 1), ("", 3)]
    assert [c.took_us // MS for c in report.slowest] == [900, 400, 300, 90]
    assert [c.source.rpartition("/")[2] for c in report.chain] == ["far.cc"]


def test_the_chain_is_the_last_to_end_and_what_ended_before_it_began() -> None:
    compiles = (
        compile_at(0, 100, source="/p/a"), compile_at(0, 90, source="/p/short"),
        compile_at(100, 200, source="/p/b"), compile_at(150, 100, source="/p/beside"),
        compile_at(310, 50, source="/p/c"),
    )  # fmt: skip
    report = report_of(RecordedBuild(build="b", compiles=compiles))
    assert [c.source for c in report.chain] == ["/p/a", "/p/b", "/p/c"]


@given(SPANS)
def test_sums_agree_with_a_slow_count(spans: list[tuple[int, int, bool]]) -> None:
    compiles = tuple(
        compile_at(began, took, "hit.local" if is_hit else "miss.local")
        for began, took, is_hit in sorted(spans)
    )
    report = report_of(RecordedBuild(build="b", compiles=compiles))
    busy = {ms for began, took, _ in spans for ms in range(began, began + took)}
    assert report.busy_us == len(busy) * MS
    under_way = [sum(b <= ms < b + t for b, t, _ in spans) for ms in busy]
    # A compile that took no time is under way at its moment.
    assert report.at_once >= max(under_way, default=0)
    assert report.at_once <= max(under_way, default=0) + sum(not t for _, t, _ in spans)
    assert sum(report.counts.values()) == len(spans)
    assert sum(report.took.values()) == report.total_us == sum(t for _, t, _ in spans) * MS
    assert report.compiled_us == sum(t for _, t, is_hit in spans if not is_hit) * MS


def test_a_changed_header_gets_the_compiles_that_share_it() -> None:
    compiles = tuple(
        compile_at(n, 10, source=f"/p/{n}.c", reason="inputs-changed") for n in range(4)
    )
    changed = {
        changed_key(compiles[0]): ("/p/0.c", "/p/config.h"),
        changed_key(compiles[1]): ("/p/config.h",),
        changed_key(compiles[2]): ("/p/2.c",),
    }
    report = report_of(RecordedBuild(build="b", compiles=compiles), changed)
    assert report.changed == (
        Changed("/p/config.h", 2, 20 * MS), Changed("/p/2.c", 1, 10 * MS),
    )  # fmt: skip


def test_a_local_slot_is_no_fallback_and_an_unknown_outcome_has_a_kind() -> None:
    there = compile_at(0, 1, fallback="local-slot")
    parity = compile_at(0, 1, fallback="parity: gcc 14.2 here, 14.3 there")
    report = report_of(RecordedBuild(build="b", compiles=(there, parity)))
    assert [(c.family, c.word) for c in report.causes] == [("missed", ""), ("fallback", "parity")]
    assert [kind_of(word) for word in ("hit.new", "miss.remote.new", "", "odd")] == [
        CompileKind.HIT, CompileKind.FARM_CACHE, CompileKind.HERE, CompileKind.HERE,
    ]  # fmt: skip
