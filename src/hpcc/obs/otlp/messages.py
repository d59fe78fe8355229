"""Spans and log records as OTLP has them. Pure.

Source of all numbers: opentelemetry-proto 1.x, `trace.proto`, `logs.proto`, `common.proto` and
`resource.proto`, which are stable. Fields are written in the order of their numbers.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Final

from hpcc.obs.otlp.protobuf import data, fixed64, message, number, read_fields, text

type Attributes = Sequence[tuple[str, str | int | bool]]
"""Names and values. An integer is below 2**63."""

TRACE_ID_BYTES: Final = 16
SPAN_ID_BYTES: Final = 8
_SCOPE: Final = "hpcc"
_INTERNAL: Final = 1
_ERROR: Final = 2
WARN: Final = 13
_SEVERITY_TEXTS: Final = {WARN: "WARN"}


@dataclass(frozen=True, slots=True, kw_only=True)
class OtlpSpan:
    """One span. Ids have 16 and 8 bytes, not all zero; `parent` is b"" for a root.

    Times are nanoseconds since the epoch.
    """

    trace_id: bytes
    span_id: bytes
    parent: bytes = b""
    name: str
    began_ns: int
    ended_ns: int
    attributes: Attributes = ()
    is_error: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class LogRecord:
    """One record of a log. `event` is the stable name, `body` the sentence for people."""

    at_ns: int
    observed_ns: int
    event: str
    body: str
    attributes: Attributes = ()
    severity: int = WARN


@dataclass(frozen=True, slots=True)
class SpanGroup:
    """Spans of one service; `resource` describes it."""

    resource: Attributes
    spans: Sequence[OtlpSpan]


def trace_request(groups: Iterable[SpanGroup], version: str) -> bytes:
    """Return an `ExportTraceServiceRequest`; `version` is hpcc's."""
    return b"".join(
        message(1, _scoped(group.resource, version, map(_span, group.spans))) for group in groups
    )


def logs_request(resource: Attributes, version: str, records: Iterable[bytes]) -> bytes:
    """Return an `ExportLogsServiceRequest` of records that `log_record` encoded."""
    return message(1, _scoped(resource, version, records))


def log_record(record: LogRecord) -> bytes:
    """Return a `LogRecord`."""
    return b"".join(
        (
            fixed64(1, record.at_ns),
            number(2, record.severity),
            text(3, _SEVERITY_TEXTS.get(record.severity, "")),
            message(5, text(1, record.body, always=True)),
            _attributes(6, record.attributes),
            fixed64(11, record.observed_ns),
            text(12, record.event),
        )
    )


def rejected_in(answer: bytes) -> int:
    """Return how many records a collector rejected, by its `Export…ServiceResponse`.

    Raises:
        ValueError: the bytes are not such an answer.
    """
    rejected = 0
    for field, value in read_fields(answer):
        if field != 1:
            continue
        if not isinstance(value, bytes):
            raise ValueError("not a partial success")  # noqa: TRY004 - as for all wrong bytes
        for inner, count in read_fields(value):
            if inner == 1 and isinstance(count, int):
                rejected = count
    return rejected


def _scoped(resource: Attributes, version: str, items: Iterable[bytes]) -> bytes:
    """Return a `ResourceSpans` or a `ResourceLogs`: both have the same form."""
    scope = message(1, text(1, _SCOPE) + text(2, version))
    inside = b"".join(message(2, item) for item in items)
    return message(1, _attributes(1, resource)) + message(2, scope + inside)


def _span(span: OtlpSpan) -> bytes:
    assert len(span.trace_id) == TRACE_ID_BYTES and any(span.trace_id), "a trace id"  # noqa: PT018 - one rule
    assert len(span.span_id) == SPAN_ID_BYTES and any(span.span_id), "a span id"  # noqa: PT018 - as above
    return b"".join(
        (
            data(1, span.trace_id),
            data(2, span.span_id),
            data(4, span.parent),
            text(5, span.name),
            number(6, _INTERNAL),
            fixed64(7, span.began_ns),
            fixed64(8, span.ended_ns),
            _attributes(9, span.attributes),
            message(15, number(3, _ERROR)) if span.is_error else b"",
        )
    )


def _attributes(field: int, given: Attributes) -> bytes:
    return b"".join(message(field, text(1, name) + message(2, _value(v))) for name, v in given)


def _value(value: str | int | bool) -> bytes:  # noqa: FBT001 - it is the value itself
    """Return an `AnyValue`. In a `oneof` a default is written as well."""
    if isinstance(value, bool):
        return number(2, int(value), always=True)
    return number(3, value, always=True) if isinstance(value, int) else text(1, value, always=True)
