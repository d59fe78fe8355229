"""A recorded build as spans of OpenTelemetry, from the launcher to the guest. Pure.

The build is the root, its compiles are below it, and a compile's parts lie inside each other. What
a worker said of its queue and its guest is a span of that worker. Ids follow from what is recorded,
so a build that is sent again has the same ids.

What leaves the machine: times, sizes, words of hpcc (outcome, reason), the build's name, and the
names of workers and guests. Names of files leave it only with `names`; command lines, variables and
source text are not in a record at all.
"""

from __future__ import annotations

import hashlib
import re
from collections import Counter
from collections.abc import Iterator, Sequence
from typing import Final, NamedTuple

from hpcc import __version__
from hpcc.cache.base.times import Phase
from hpcc.cache.recorder.compiles import Compile, CompileKind, nested
from hpcc.cache.recorder.report import SERVED
from hpcc.obs.otlp.messages import (
    SPAN_ID_BYTES,
    TRACE_ID_BYTES,
    Attributes,
    OtlpSpan,
    SpanGroup,
    trace_request,
)
from hpcc.obs.text import one_line

# A request of so many compiles has at most 5,000 spans, which take about a MiB.
COMPILES_PER_REQUEST: Final = 200
_THERE: Final = frozenset({Phase.QUEUE, Phase.GUEST})
_ERRORS: Final = frozenset({CompileKind.FAILED, CompileKind.REFUSED})
_TRACE: Final = re.compile(r"trace/(?!0{32})([0-9a-f]{32})")
_PARENT: Final = re.compile(
    r"(?!ff)[0-9a-f]{2}-([0-9a-f]{32})-(?!0{16})([0-9a-f]{16})-[0-9a-f]{2}.*"
)
# Words of hpcc. Anything else could hold a path.
_WORD: Final = re.compile(r"[a-z0-9][a-z0-9.+_-]{0,63}")
_UNKNOWN_WORD: Final = "other"
_MAX_NS: Final = (1 << 63) - 1
_CLIENT: Final[Attributes] = (
    ("service.namespace", "hpcc"),
    ("service.name", "hpcc-client"),
    ("service.version", __version__),
)


class SpanRequest(NamedTuple):
    """The body of one request, and how many spans it has."""

    body: bytes
    spans: int


class TracedBuild(NamedTuple):
    """The build whose compiles are sent. `began_us` is when its first recorded compile began.

    `parent` is the span that started the build, b"" if it is not known.
    """

    name: str
    began_us: int
    parent: bytes = b""


def trace_id_of(build: TracedBuild) -> bytes:
    """Return the trace of a build: the one that it was named by, else a separate one."""
    match = _TRACE.fullmatch(build.name)
    if match is not None:
        return bytes.fromhex(match[1])
    return _id(TRACE_ID_BYTES, b"build", build.name.encode("utf-8", "replace"), build.began_us)


def parent_of(build: str, traceparent: str) -> bytes:
    """Return the span that a `TRACEPARENT` names if it is of the build's trace, else b""."""
    match = _PARENT.fullmatch(traceparent)
    is_same = match is not None and build == f"trace/{match[1]}"
    return bytes.fromhex(match[2]) if match is not None and is_same else b""


def requests_of(
    build: TracedBuild, compiles: Sequence[Compile], *, names: bool = False
) -> Iterator[SpanRequest]:
    """Yield the requests for compiles of a build, of which there is at least one."""
    trace_id = trace_id_of(build)
    began_us = min(c.began_us for c in compiles)
    ended_us = max(c.ended_us for c in compiles)
    hits = sum(c.kind in SERVED for c in compiles)
    root = OtlpSpan(
        trace_id=trace_id,
        span_id=_id(SPAN_ID_BYTES, b"root", trace_id, began_us),
        parent=build.parent,
        name="build",
        began_ns=_ns(began_us),
        ended_ns=_ns(ended_us),
        attributes=(
            ("hpcc.build", one_line(build.name)),
            ("hpcc.compiles", len(compiles)),
            ("hpcc.hits", hits),
        ),
    )
    first: list[OtlpSpan] = [root]
    seen = Counter[tuple[int, int]]()
    for start in range(0, len(compiles), COMPILES_PER_REQUEST):
        here, there = first, dict[str, list[OtlpSpan]]()
        first = []
        for c in compiles[start : start + COMPILES_PER_REQUEST]:
            # Not by its names: an id would let anybody check a guess.
            when = c.began_us, c.took_us
            compile_id = _id(SPAN_ID_BYTES, b"compile", trace_id, *when, seen[when])
            seen[when] += 1
            _add_compile(root, c, compile_id, here, there, names=names)
        groups = [SpanGroup(_CLIENT, here)]
        groups += [SpanGroup(_worker(name), spans) for name, spans in sorted(there.items())]
        body = trace_request(groups, __version__)
        yield SpanRequest(body, sum(len(group.spans) for group in groups))


def _worker(name: str) -> Attributes:
    return (
        ("service.namespace", "hpcc"),
        ("service.name", "hpcc-worker"),
        ("service.instance.id", one_line(name)),
    )


def _add_compile(
    root: OtlpSpan, c: Compile, compile_id: bytes, here: list[OtlpSpan],
    there: dict[str, list[OtlpSpan]], *, names: bool,
) -> None:  # fmt: skip
    """Add a compile with its parts: to this machine's spans, or to those of its worker."""
    here.append(
        OtlpSpan(
            trace_id=root.trace_id, span_id=compile_id, parent=root.span_id, name="compile",
            began_ns=_ns(c.began_us), ended_ns=_ns(c.ended_us),
            attributes=_attributes(c, names=names), is_error=c.kind in _ERRORS,
        )
    )  # fmt: skip
    ids: list[bytes] = []
    for place, (part, parent) in enumerate(nested(c.phases, c.took_us)):
        ids.append(_id(SPAN_ID_BYTES, b"part", compile_id, place))
        is_there = part.phase in _THERE and bool(c.where)
        began_us = c.began_us + part.offset_us
        span = OtlpSpan(
            trace_id=root.trace_id, span_id=ids[-1],
            parent=compile_id if parent < 0 else ids[parent], name=_part_name(part.phase),
            began_ns=_ns(began_us), ended_ns=_ns(began_us + part.took_us),
            # A worker's clock is another one, and what it says is fitted into the call.
            attributes=(("hpcc.said_by", "worker"),) if is_there else (),
        )  # fmt: skip
        (there.setdefault(c.where, []) if is_there else here).append(span)


def _part_name(phase: Phase) -> str:
    """Return the name of a part's span; `compile` is the name of the whole."""
    return "compiler" if phase is Phase.COMPILE else phase.value


def _attributes(c: Compile, *, names: bool) -> Attributes:
    found: list[tuple[str, str | int]] = [
        (f"hpcc.{name}", _word(value))
        for name, value in (
            ("kind", c.kind.value), ("outcome", c.outcome), ("reason", c.reason),
            ("fallback", c.fallback_word),
        )
        if value
    ]  # fmt: skip
    found += [
        (f"hpcc.{name}", one_line(value))
        for name, value in (("worker", c.where), ("guest", c.guest))
        if value
    ]
    found += [
        (f"hpcc.{name}", count)
        for name, count in (("size_bytes", c.size_bytes), ("saved_us", c.saved_us))
        if count
    ]
    if names:
        found += [
            (f"hpcc.{name}", one_line(value))
            for name, value in (
                ("source", c.source), ("output", c.output), ("found_at", c.culprit),
            )
            if value
        ]  # fmt: skip
    return found


def _word(text: str) -> str:
    """Return the word in front of a detail; the detail may name a file."""
    word = text.partition(":")[0]
    return word if _WORD.fullmatch(word) else _UNKNOWN_WORD


def _ns(us: int) -> int:
    """Return a recorded time, which may be in the year 9999, as OTLP can hold it."""
    return min(us * 1000, _MAX_NS)


def _id(size: int, *parts: bytes | int) -> bytes:
    """Return an id that follows from the parts, and is not all zero."""
    texts = (part if isinstance(part, bytes) else b"%d" % part for part in parts)
    digest = hashlib.sha256(b"\0".join(texts)).digest()[:size]
    return digest if any(digest) else b"\1" * size
