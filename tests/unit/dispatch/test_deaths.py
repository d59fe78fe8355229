"""Which actions the daemon no longer sends to any worker, and for how long."""

from __future__ import annotations

import pytest

from hpcc.core import CallerError, Digest
from hpcc.core.quarantine import MAX_REMEMBERED, QUARANTINE_SECONDS
from hpcc.dispatch.memory.deaths import (
    COUNTED_REASON,
    GuestDeaths,
)

ACTION, OTHER = Digest.of(b"action"), Digest.of(b"other")


def is_quarantined(deaths: GuestDeaths, action: Digest, now: float) -> bool:
    try:
        deaths.check(action, now)
    except CallerError as error:
        assert error.reason == "quarantined"
        return True
    return False


def test_an_action_that_ended_two_guests_stays_home_for_half_an_hour() -> None:
    deaths = GuestDeaths()
    deaths.note(ACTION, COUNTED_REASON, 100.0)
    assert not is_quarantined(deaths, ACTION, 100.0)
    deaths.note(ACTION, COUNTED_REASON, 200.0)
    assert is_quarantined(deaths, ACTION, 200.0)
    assert not is_quarantined(deaths, OTHER, 200.0)
    # From the last death on.
    assert is_quarantined(deaths, ACTION, 200.0 + QUARANTINE_SECONDS - 1)
    assert not is_quarantined(deaths, ACTION, 200.0 + QUARANTINE_SECONDS)
    deaths.note(ACTION, COUNTED_REASON, 200.0 + QUARANTINE_SECONDS)
    assert not is_quarantined(deaths, ACTION, 200.0 + QUARANTINE_SECONDS)


@pytest.mark.parametrize("reason", ["guest-lost-by-another", "worker-gone", "draining", ""])
def test_a_failure_that_is_not_the_actions_fault_is_not_counted(reason: str) -> None:
    deaths = GuestDeaths()
    for _ in range(5):
        deaths.note(ACTION, reason, 100.0)
    assert not is_quarantined(deaths, ACTION, 100.0)


def test_the_action_that_died_longest_ago_is_forgotten_first() -> None:
    deaths = GuestDeaths()
    for action in (ACTION, OTHER, OTHER, ACTION):
        deaths.note(action, COUNTED_REASON, 100.0)
    for number in range(MAX_REMEMBERED - 2):
        deaths.note(Digest.of(str(number).encode()), COUNTED_REASON, 100.0)
    assert is_quarantined(deaths, OTHER, 100.0)
    deaths.note(Digest.of(b"one more"), COUNTED_REASON, 100.0)
    assert not is_quarantined(deaths, OTHER, 100.0)
    assert is_quarantined(deaths, ACTION, 100.0)
