"""Converts reports of builds between message and value. A scheduler and a client use both."""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from typing import Final

from hpcc._proto import builds_pb2 as pb
from hpcc.core import CallerError
from hpcc.core.build_lanes import LaneRow
from hpcc.core.build_summary import Activity, BuildSummary, CauseTally, SlowCompile, Tally

MAX_SUMMARY_BYTES: Final = 32 << 10


def summary_of(said: pb.BuildSummary) -> BuildSummary:
    """Return the value of a message, whose sender is not trusted.

    Raises:
        CallerError: it is too large, or a field is outside its bounds.
    """
    if said.ByteSize() > MAX_SUMMARY_BYTES:
        raise CallerError(
            f"a build's summary has at most {MAX_SUMMARY_BYTES >> 10} KiB", reason="build"
        )
    return BuildSummary(
        build=said.build,
        source=said.source,
        began_ms=said.began_ms,
        ended_ms=said.ended_ms,
        commit=said.commit,
        busy_ms=said.busy_ms,
        total_ms=said.total_ms,
        at_once=said.at_once,
        left_out=said.left_out,
        is_damaged=said.is_damaged,
        kinds=tuple(map(_tally, said.kinds)),
        causes=tuple(CauseTally(c.family, c.word, c.compiles, c.took_ms) for c in said.causes),
        phases=tuple(map(_tally, said.phases)),
        places=tuple(map(_tally, said.places)),
        slowest=tuple(
            SlowCompile(s.offset_ms, s.took_ms, s.kind, s.word, s.where, s.guest)
            for s in said.slowest
        ),
        activity=tuple(
            Activity(a.served, a.farm_ms, a.here_ms, a.instead_ms) for a in said.activity
        ),
        lanes=tuple(map(partial(_lane, said.places), said.lanes)),
        off_lanes=said.off_lanes,
    )


def _lane(places: Sequence[pb.BuildTally], said: pb.BuildLane) -> LaneRow:
    if said.place >= len(places):
        raise CallerError("a lane of a build has a place that is not there", reason="build")
    return LaneRow(places[said.place].word, tuple(said.bars))


def summary_message(summary: BuildSummary) -> pb.BuildSummary:
    """Build the message of a summary."""
    s = summary
    places = {tally.word: at for at, tally in enumerate(s.places)}
    return pb.BuildSummary(
        build=s.build,
        source=s.source,
        began_ms=s.began_ms,
        ended_ms=s.ended_ms,
        commit=s.commit,
        busy_ms=s.busy_ms,
        total_ms=s.total_ms,
        at_once=s.at_once,
        left_out=s.left_out,
        is_damaged=s.is_damaged,
        kinds=map(_tally_message, s.kinds),
        causes=[
            pb.BuildCause(family=c.family, word=c.word, compiles=c.compiles, took_ms=c.took_ms)
            for c in s.causes
        ],
        phases=map(_tally_message, s.phases),
        places=map(_tally_message, s.places),
        slowest=[
            pb.SlowCompile(
                offset_ms=c.offset_ms, took_ms=c.took_ms, kind=c.kind, word=c.word,
                where=c.where, guest=c.guest,
            )
            for c in s.slowest
        ],
        activity=[
            pb.BuildActivity(
                served=a.served, farm_ms=a.farm_ms, here_ms=a.here_ms, instead_ms=a.instead_ms
            )
            for a in s.activity
        ],
        lanes=[pb.BuildLane(place=places[e.where], bars=e.numbers) for e in s.lanes],
        off_lanes=s.off_lanes,
    )  # fmt: skip


def encode_summary(summary: BuildSummary) -> bytes:
    """Return a summary as bytes, which `decode_summary` reads: what a store keeps of it."""
    return summary_message(summary).SerializeToString(deterministic=True)


def decode_summary(encoded: bytes) -> BuildSummary:
    """Return the summary of bytes that `encode_summary` made."""
    return summary_of(pb.BuildSummary.FromString(encoded))


def _tally(said: pb.BuildTally) -> Tally:
    return Tally(said.word, said.compiles, said.took_ms)


def _tally_message(tally: Tally) -> pb.BuildTally:
    return pb.BuildTally(word=tally.word, compiles=tally.compiles, took_ms=tally.took_ms)
