"""A build as trace events, for ui.perfetto.dev, speedscope and chrome://tracing.

Source of the format: "Trace Event Format", the JSON object form with complete events ("X"), flow
events ("s", "f") and metadata ("M"). Times are microseconds since the build began.

Rows: one process for hits, one for compiles that this machine began, one for each worker. A row of
a process holds compiles that do not overlap, so its rows are slots. A compile's parts lie inside
it. What a guest did is a second slice, at its worker, with an arrow from the compile.

No slice is of no length. speedscope reads the end of such a slice before its begin, so it stays
open and everything after it in its row lies inside it. A compile lasts a microsecond at least, and
a part of no length is left out.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from typing import Final

from hpcc.cache.base.times import Phase
from hpcc.cache.recorder.compiles import Compile, CompileKind, nested
from hpcc.cache.recorder.reading import RecordedBuild
from hpcc.cli.builds.words import KINDS, PHASES, common_directory, name_of
from hpcc.core.build_lanes import lane_numbers
from hpcc.obs.text import one_line

_HITS: Final = 1
_HERE: Final = 2
_FIRST_WORKER: Final = 10
_THERE: Final = frozenset({Phase.QUEUE, Phase.GUEST})

Event = dict[str, object]


def trace_of(recorded: RecordedBuild) -> dict[str, object]:
    """Return the trace of a build that has at least one compile."""
    compiles = recorded.compiles
    began_us = min(c.began_us for c in compiles)
    base = common_directory(compiles)
    hits = [c for c in compiles if c.kind is CompileKind.HIT]
    others = [c for c in compiles if c.kind is not CompileKind.HIT]
    events: list[Event] = []
    slots: dict[int, int] = {}
    for process, name, group in (
        (_HITS, "hits", hits), (_HERE, "compiles of this machine", others),
    ):  # fmt: skip
        lanes = lane_numbers([(c.began_us, c.ended_us) for c in group])
        if group:
            events += _rows(process, name, lanes)
        for c, lane in zip(group, lanes, strict=True):
            events += _compile_events(c, base, began_us, process, lane)
        slots = dict(zip(map(id, group), lanes, strict=True))
    events += _workers(others, slots, base, began_us)
    return {
        "displayTimeUnit": "ms",
        "otherData": {"build": recorded.build, "began_at": began_us / 1e6, "tool": "hpcc"},
        "traceEvents": events,
    }


def _rows(process: int, name: str, lanes: Iterable[int]) -> Iterator[Event]:
    yield _meta("process_name", process, 0, {"name": one_line(name)})
    yield _meta("process_sort_index", process, 0, {"sort_index": process})
    for lane in sorted(set(lanes)):
        yield _meta("thread_name", process, lane, {"name": f"slot {lane}"})


def _meta(what: str, process: int, lane: int, args: dict[str, object]) -> Event:
    return {"ph": "M", "name": what, "pid": process, "tid": lane, "args": args}


def _compile_events(
    c: Compile, base: str, began_us: int, process: int, lane: int
) -> Iterator[Event]:
    args = {
        "source": one_line(c.source), "output": one_line(c.output), "outcome": one_line(c.outcome),
        "reason": one_line(c.reason), "fallback": one_line(c.fallback),
        "worker": one_line(c.where), "guest": one_line(c.guest), "bytes": c.size_bytes,
        "found at": one_line(c.culprit), "what": KINDS[c.kind],
    }  # fmt: skip
    start = c.began_us - began_us
    yield _slice(one_line(name_of(c, base)), c.kind.value, start, c.took_us, process, lane) | {
        "args": {name: value for name, value in args.items() if value}
    }
    for part, _ in nested(c.phases, c.took_us):
        if part.took_us:
            name = PHASES[part.phase]
            yield _slice(name, "phase", start + part.offset_us, part.took_us, process, lane)


def _workers(
    compiles: Sequence[Compile], slots: dict[int, int], base: str, began_us: int
) -> Iterator[Event]:
    """Yield the workers' rows; `slots` are the rows of the compiles, by identity."""
    by_worker: dict[str, list[tuple[Compile, int, int]]] = {}
    for c in compiles:
        there = [part for part in c.phases if part.phase in _THERE]
        if there and c.where:
            start = c.began_us + min(part.offset_us for part in there)
            end = c.began_us + max(part.offset_us + part.took_us for part in there)
            by_worker.setdefault(c.where, []).append((c, start, end))
    flow = 0
    for process, where in enumerate(sorted(by_worker), _FIRST_WORKER):
        spans = sorted(by_worker[where], key=lambda span: span[1])
        lanes = lane_numbers([(start, end) for _, start, end in spans])
        yield from _rows(process, f"worker {where}", lanes)
        for (c, start, end), lane in zip(spans, lanes, strict=True):
            flow += 1
            at = start - began_us
            name = one_line(name_of(c, base))
            yield _slice(name, "guest", at, end - start, process, lane) | {
                "args": {"guest": one_line(c.guest), "said by": "the worker, fitted into the call"}
            }
            arrow: Event = {"name": "farm", "cat": "farm", "id": flow}
            yield arrow | {"ph": "s", "ts": at, "pid": _HERE, "tid": slots[id(c)]}
            yield arrow | {"ph": "f", "bp": "e", "ts": at, "pid": process, "tid": lane}
            for part in c.phases:
                if part.phase in _THERE and part.took_us:
                    begin = c.began_us + part.offset_us - began_us
                    yield _slice(PHASES[part.phase], "phase", begin, part.took_us, process, lane)


def _slice(name: str, kind: str, ts: int, took_us: int, process: int, lane: int) -> Event:
    return {
        "ph": "X", "name": name, "cat": kind, "ts": ts, "dur": max(took_us, 1), "pid": process,
        "tid": lane,
    }  # fmt: skip
