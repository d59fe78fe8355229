"""What schedulers answer about builds, and what a client makes of several of them."""

from __future__ import annotations

from types import SimpleNamespace
from typing import cast

import pytest
from google.protobuf.message import Message

from hpcc._proto import builds_pb2 as pb
from hpcc.cli.farm.builds import build_document, build_lines, builds_document, builds_lines
from hpcc.core import CallerError, HpccError, NotFoundError, TenantId
from hpcc.core.build_lanes import MAX_BARS, MAX_COMPILES, MAX_LANES, PARTS, LaneRow
from hpcc.core.build_summary import (
    BINS,
    MAX_CAUSES,
    MAX_KINDS,
    MAX_NUMBER,
    MAX_PHASES,
    MAX_PLACES,
    MAX_SLOWEST,
    Activity,
    CauseTally,
    SlowCompile,
    Tally,
)
from hpcc.rpc.base.errors import UnavailableError
from hpcc.rpc.scheduler.build_messages import (
    MAX_SUMMARY_BYTES,
    decode_summary,
    encode_summary,
    summary_message,
    summary_of,
)
from hpcc.rpc.scheduler.builds import (
    BUILDS_AT_ONCE,
    SOURCES_AT_ONCE,
    FarmBuild,
    KeptBuild,
    ask_build,
    ask_builds,
    by_build,
    newest,
)
from hpcc.rpc.scheduler.schedulers import Schedulers
from hpcc_testkit.services.builds import kept, summary

ACME = TenantId("acme")


def answering(*answers: Message | HpccError) -> Schedulers:
    """Return schedulers, each with one answer."""

    def one(answer: Message | HpccError) -> SimpleNamespace:
        async def call(*_: object) -> Message:
            if isinstance(answer, HpccError):
                raise answer
            return answer

        return SimpleNamespace(call=call)

    return cast("Schedulers", SimpleNamespace(each=lambda: tuple(map(one, answers))))


def message(build: KeptBuild) -> pb.KeptBuild:
    return pb.KeptBuild(
        build_id=build.build_id, tenant=build.tenant, principal=build.principal,
        client_version=build.client_version, reported_at=build.reported_at,
        summary=summary_message(build.summary), is_proved=build.is_proved,
    )  # fmt: skip


def listed(*builds: KeptBuild, **fields: int) -> pb.BuildsResponse:
    said = pb.BuildsResponse(builds=map(message, builds), keep_seconds=9, **fields)
    said.kept = said.kept or len(builds)
    return said


def test_a_summary_is_the_same_after_the_wire() -> None:
    assert summary_of(summary_message(summary())) == summary()
    assert decode_summary(encode_summary(summary())) == summary()


def test_a_summary_of_many_bytes_is_refused_before_its_rows_are_read() -> None:
    said = summary_message(summary())
    said.commit = "a" * MAX_SUMMARY_BYTES
    with pytest.raises(CallerError, match="32 KiB"):
        summary_of(said)


def test_the_largest_summary_that_is_inside_its_bounds_is_inside_the_largest_message() -> None:
    name, word, most = "n" * 128, "w" * 64, MAX_NUMBER
    # Widest where numbers are largest: the sum of gaps and lengths is limited.
    bars = (1, 127, MAX_COMPILES * 4 + 2) * (MAX_BARS // MAX_LANES)
    said = summary(
        name, commit="ab" * 32, busy_ms=most, total_ms=most, at_once=most, left_out=most,
        off_lanes=most, is_damaged=True,
        kinds=(Tally(word, most, most),) * MAX_KINDS,
        causes=(CauseTally(word, word, most, most),) * MAX_CAUSES,
        phases=(Tally(word, most, most),) * MAX_PHASES,
        places=tuple(Tally(f"w{n}".ljust(128, "x"), most, most) for n in range(MAX_PLACES)),
        slowest=(SlowCompile(most, most, word, word, name, name),) * MAX_SLOWEST,
        activity=(Activity(most, most, most, most),) * BINS,
        lanes=tuple(
            LaneRow(f"w{n % MAX_PLACES}".ljust(128, "x"), bars) for n in range(MAX_LANES)
        ),
    )  # fmt: skip
    assert summary_of(summary_message(said)) == said


def test_a_lane_of_a_place_that_is_not_there_is_refused() -> None:
    said = summary_message(summary())
    said.lanes[0].place = len(said.places)
    with pytest.raises(CallerError, match="a place that is not there"):
        summary_of(said)
    said = summary_message(summary())
    said.lanes[0].bars[1] = PARTS + 1
    with pytest.raises(CallerError, match="another form"):
        summary_of(said)


async def test_builds_of_several_schedulers_are_one_list() -> None:
    early, late = kept("one", reported_at=1.0), kept("two", reported_at=2.0)
    again = kept("one", reported_at=3.0, source="f" * 16)
    answers = answering(listed(early, displaced=1), listed(late, again, displaced=2))
    found = await ask_builds(answers, "session", ACME)
    assert [(b.summary.build, b.summary.source[0]) for b in found.builds] == [
        ("one", "f"), ("two", "0"), ("one", "0"),
    ]  # fmt: skip
    assert (found.displaced, found.kept, found.keep_seconds) == (3, 3, 9)
    one, two = by_build(found.builds)
    assert (len(one.reports), one.last.reported_at, len(two.reports)) == (2, 3.0, 1)
    assert one.summary.compiles == 28


def test_of_two_reports_of_a_source_the_one_with_more_compiles_counts() -> None:
    # The scheduler with the older report has the faster clock.
    old, new = kept(reported_at=99.0, kinds=()), kept(reported_at=5.0)
    assert newest([old, new]) == newest([new, old]) == (new,)


async def test_one_scheduler_that_is_away_or_older_costs_its_builds_only() -> None:
    away, old = UnavailableError("away"), CallerError("no such method")
    found = await ask_builds(answering(away, listed(kept()), old), "session", ACME)
    assert len(found.builds) == 1
    with pytest.raises(CallerError, match="no such method"):
        await ask_builds(answering(away, old), "session", ACME)
    with pytest.raises(UnavailableError):
        await ask_builds(answering(away), "session", ACME)


async def test_what_lacks_in_an_answer_is_said() -> None:
    away, none = UnavailableError("away"), NotFoundError("none")
    found = await ask_builds(answering(away, listed()), "session", ACME)
    assert "1 scheduler showed nothing" in "\n".join(builds_lines(found, ()))
    assert builds_document(found, ())["silent_schedulers"] == 1
    full = [listed(*(kept(f"{n}{i}") for i in range(2)), kept=9) for n in range(2)]
    found = await ask_builds(answering(*full), "session", ACME)
    assert builds_document(found, by_build(found.builds))["left_out"] == 14
    assert "14 older reports" in "\n".join(builds_lines(found, by_build(found.builds)))
    part = pb.BuildResponse(reports=[message(kept())], kept=70)
    build = await ask_build(answering(part, away, none), "session", ACME, kept().build_id)
    said = "\n".join(build_lines(build))
    assert "1 scheduler showed nothing" in said
    assert "69 older reports are kept and not in these numbers" in said
    assert "not counted" not in said
    partial = kept(is_damaged=True, left_out=7)
    lines = build_lines(FarmBuild(build_id=partial.build_id, reports=(partial,)))
    assert sum("not counted" in line for line in lines) == 2
    document = build_document(build)
    assert (document["reports_left_out"], document["silent_schedulers"]) == (69, 1)
    with pytest.raises(NotFoundError, match="1 schedulers showed nothing"):
        await ask_build(answering(none, away), "session", ACME, kept().build_id)


async def test_one_scheduler_that_keeps_none_does_not_hide_what_others_keep() -> None:
    found = await ask_builds(answering(listed(kept()), pb.BuildsResponse(since=5)), "session", ACME)
    assert (found.keep_seconds, found.since, len(found.builds)) == (9, 0.0, 1)


@pytest.mark.parametrize(
    "answer",
    [
        listed(*[kept()] * (BUILDS_AT_ONCE + 1)),
        pb.BuildsResponse(builds=[pb.KeptBuild(tenant="../x")]),
        pb.BuildsResponse(builds=[pb.KeptBuild(tenant="acme")]),
    ],
    ids=["many", "tenant", "empty"],
)
async def test_a_scheduler_that_exceeds_its_bounds_is_no_answer(answer: pb.BuildsResponse) -> None:
    with pytest.raises(UnavailableError):
        await ask_builds(answering(answer), "session", ACME)


async def test_a_build_is_put_together_and_an_answer_to_another_question_is_none() -> None:
    build = kept()
    other = kept("other")
    part = kept(source="f" * 16, reported_at=9.0)
    answers = answering(
        pb.BuildResponse(reports=[message(build), message(other)]),
        NotFoundError("none"),
        pb.BuildResponse(reports=[message(part)]),
    )
    found = await ask_build(answers, "session", ACME, build.build_id)
    assert {r.summary.source for r in found.reports} == {"0123456789abcdef", "f" * 16}
    lying = answering(pb.BuildResponse(reports=[message(other)]))
    with pytest.raises(NotFoundError):
        await ask_build(lying, "session", ACME, build.build_id)
    with pytest.raises(NotFoundError):
        await ask_build(answering(NotFoundError("none")), "session", ACME, build.build_id)
    many = pb.BuildResponse(reports=[message(build)] * (SOURCES_AT_ONCE + 1))
    with pytest.raises(UnavailableError):
        await ask_build(answering(many), "session", ACME, build.build_id)


async def test_odd_times_and_names_are_such_that_a_page_has_them() -> None:
    said = listed(kept())
    said.since = float("nan")
    said.builds[0].reported_at = float("inf")
    said.builds[0].client_version = "1\x1b[2J"
    found = await ask_builds(answering(said), "session", ACME)
    assert found.since == 0.0
    assert found.builds[0].reported_at == 0.0
    assert found.builds[0].client_version.isprintable()
