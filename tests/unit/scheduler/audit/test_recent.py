"""Attack: a flood of events that anybody can cause hides one that matters, or fills the memory."""

from __future__ import annotations

from hpcc.ports import SecurityEvent, SystemClock
from hpcc.rpc.scheduler.recent_events import MAX_EVENTS, MAX_FIELDS, MAX_TEXT_CHARS
from hpcc.scheduler.audit.recent import MAX_NAMES, OF_A_NAME, RecentEvents


def test_a_flood_of_one_kind_hides_no_other_event() -> None:
    recent = RecentEvents(SystemClock())
    recent.put(SecurityEvent(name="foreign-worker", at=1.0))
    for number in range(5000):
        recent.put(SecurityEvent(name="login-refused", at=2.0 + number))
    shown = [(e.name, e.at) for e in recent.shown().events]
    assert shown[:2] == [("login-refused", 5001.0), ("login-refused", 5000.0)]
    assert shown[OF_A_NAME:] == [("foreign-worker", 1.0)]


def test_the_last_of_each_name_is_shown_however_many_there_are() -> None:
    recent = RecentEvents(SystemClock())
    names = [f"kind-{number}" for number in range(MAX_NAMES)]
    for at in range(2 * OF_A_NAME):
        for name in names:
            recent.put(SecurityEvent(name=name, at=float(at)))
    shown = recent.shown().events
    assert len(shown) == MAX_EVENTS
    assert {e.name for e in shown if e.at == 2 * OF_A_NAME - 1} == set(names)
    assert [e.at for e in shown] == sorted((e.at for e in shown), reverse=True)
    for number in range(5000):
        recent.put(SecurityEvent(name=f"another-{number}", at=99.0))
    assert sum(e.at == 99.0 for e in recent.shown().events) <= OF_A_NAME


def test_texts_of_callers_are_short_in_one_line_and_without_credentials() -> None:
    recent = RecentEvents(SystemClock())
    fields = (("what", "a\nb\x1b[2J"), ("url", "https://u:s3cret-canary@h/"))
    more = tuple((f"n{number}", "x" * 9000) for number in range(90))
    recent.put(SecurityEvent(name="x", at=float("inf"), peer="p" * 999, fields=fields + more))
    (event,) = recent.shown().events
    assert event.fields[0] == ("what", "a\\nb\\x1b[2J")
    assert "canary" not in str(event)
    assert len(event.fields) == MAX_FIELDS
    assert max(len(value) for _, value in event.fields) == len(event.peer) == MAX_TEXT_CHARS
    assert event.at == 0.0
