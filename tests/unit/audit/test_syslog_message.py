"""A security event is one message of RFC 5424, whatever a peer wrote into it."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from hpcc.audit.syslog_message import MAX_MESSAGE_BYTES, SyslogSource, framed
from hpcc.ports import SecurityEvent
from hpcc_testkit.receivers.syslog_server import SyslogMessage, parse_message, split_frames

_SOURCE = SyslogSource(service="worker", source="w1", enterprise=32473, host="m1", process=7)


def _sent(event: SecurityEvent, *, dropped: int = 0) -> SyslogMessage:
    (message,) = split_frames(framed(_SOURCE, event, dropped=dropped))
    assert len(message) <= MAX_MESSAGE_BYTES
    return parse_message(message)


def test_a_message_says_who_reports_what() -> None:
    event = SecurityEvent(
        name="token-refused",
        at=1_796_000_000.25,
        tenant="acme",
        fields=(("reason", "token-expired"),),
        peer="ipv4:10.0.0.7:4711",
        request_id="r1",
    )
    assert framed(_SOURCE, event) == (
        b"218 <84>1 2026-11-30T00:53:20.250000Z m1 hpcc-worker 7 token-refused "
        b'[hpcc@32473 name="token-refused" source="w1" tenant="acme" peer="ipv4:10.0.0.7:4711"'
        b' request_id="r1" reason="token-expired"] security event token-refused'
    )
    assert _sent(event, dropped=3).fields["dropped_before"] == "3"


@given(
    name=st.text(max_size=40),
    tenant=st.text(),
    fields=st.lists(st.tuples(st.text(max_size=40), st.text(max_size=2000)), max_size=30),
    host=st.text(max_size=300),
)
def test_any_text_makes_one_message(
    name: str, tenant: str, fields: list[tuple[str, str]], host: str
) -> None:
    source = SyslogSource(service="worker", source="w1", enterprise=1, host=host, process=7)
    event = SecurityEvent(name=name, at=0.0, tenant=tenant, fields=tuple(fields))
    (message,) = split_frames(framed(source, event))
    assert len(message) <= MAX_MESSAGE_BYTES
    found = parse_message(message)
    assert all(value.isprintable() for value in found.fields.values())


def test_no_field_hides_who_reports_or_of_whom() -> None:
    fields = (("source", "farm"), ("tenant", "x"), ("cut", "1"), ("a", "one"), ("a", "two"))
    event = SecurityEvent(name="worker-drain", at=0.0, tenant="acme", fields=(*fields, *fields))
    assert _sent(event).fields == {
        "name": "worker-drain", "source": "w1", "tenant": "acme", "field_source": "farm",
        "field_tenant": "x", "field_cut": "1", "a": "one", "field_a": "two",
    }  # fmt: skip


@pytest.mark.parametrize("text", ['"' * 5000, "\\" * 5000, "]" * 511 + "x", "\x00" * 5000])
def test_a_value_is_cut_between_characters(text: str) -> None:
    event = SecurityEvent(name="x-y", at=0.0, fields=tuple((f"f{i}", text) for i in range(40)))
    found = _sent(event)
    assert found.fields["cut"] == "1"
    assert set(found.fields["f0"]) <= set(text) | set("\\x0")
    assert found.fields["f1"] == found.fields["f0"]


def test_a_secret_does_not_leave() -> None:
    fields = (("what", "postgresql://hpcc:s3cret-canary@db/hpcc"),)
    assert "canary" not in str(_sent(SecurityEvent(name="x-y", at=0.0, fields=fields)))
