"""A security event is one log record, whatever a peer wrote into it."""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from opentelemetry.proto.logs.v1.logs_pb2 import LogRecord

from hpcc.obs.otlp.events import MAX_RECORD_BYTES, record_of
from hpcc.ports import SecurityEvent
from hpcc_testkit.receivers.collector import attributes, parse
from hpcc_testkit.suite.examples import examples


def _record(event: SecurityEvent, *, dropped: int = 0) -> LogRecord:
    encoded = record_of(event, 2_000_000_000.5, dropped=dropped)
    assert len(encoded) <= MAX_RECORD_BYTES
    return parse(LogRecord, encoded)


def test_a_record_says_who_reports_what() -> None:
    event = SecurityEvent(
        name="token-refused", at=1_796_000_000.25, tenant="acme", peer="ipv4:10.0.0.7:4711",
        request_id="r1", fields=(("reason", "token-expired"),),
    )  # fmt: skip
    found = _record(event, dropped=3)
    assert (found.time_unix_nano, found.observed_time_unix_nano) == (
        1_796_000_000_250_000_000, 2_000_000_000_500_000_000,
    )  # fmt: skip
    assert (found.event_name, found.severity_text, found.severity_number) == (
        "token-refused", "WARN", 13,
    )  # fmt: skip
    assert found.body.string_value == "security event token-refused"
    assert attributes(found) == {
        "hpcc.dropped_before": 3, "hpcc.tenant": "acme", "hpcc.peer": "ipv4:10.0.0.7:4711",
        "hpcc.request_id": "r1", "hpcc.field.reason": "token-expired",
    }  # fmt: skip


@settings(max_examples=examples(40))
@given(
    name=st.text(max_size=40),
    tenant=st.text(),
    fields=st.lists(st.tuples(st.text(max_size=70), st.text(max_size=300)), max_size=4),
    at=st.floats(-1e12, 1e12),
)
def test_any_text_makes_one_record(
    name: str, tenant: str, fields: list[tuple[str, str]], at: float
) -> None:
    found = _record(SecurityEvent(name=name, at=at, tenant=tenant, fields=tuple(fields)))
    assert found.event_name in {name, "security-event"}
    assert all(str(value).isprintable() for value in attributes(found).values())


def test_no_field_hides_of_whom_an_event_is() -> None:
    fields = (("tenant", "x"), ("cut", "1"), ("a", "one"), ("a", "two"))
    found = attributes(_record(SecurityEvent(name="x-y", at=0.0, tenant="acme", fields=fields)))
    assert found == {
        "hpcc.tenant": "acme", "hpcc.field.tenant": "x", "hpcc.field.cut": "1",
        "hpcc.field.a": "one",
    }  # fmt: skip


@pytest.mark.parametrize("text", ["x" * 5000, "\x00" * 5000, "ü" * 5000, "\ud800" * 5000])
def test_a_record_is_cut_where_its_limit_is(text: str) -> None:
    event = SecurityEvent(name="x-y", at=0.0, fields=tuple((f"f{i}", text) for i in range(40)))
    found = attributes(_record(event))
    assert found["hpcc.cut"] == 1
    assert 10 < len(found) < 20
    assert len(str(found["hpcc.field.f0"]).encode()) <= 512


def test_a_secret_does_not_leave() -> None:
    fields = (("what", "postgresql://hpcc:s3cret-canary@db/hpcc"),)
    assert b"canary" not in record_of(SecurityEvent(name="x-y", at=0.0, fields=fields), 0.0)
