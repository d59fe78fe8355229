"""Which actions are not run again, and for how long."""

from __future__ import annotations

from hpcc.core.quarantine import ActionQuarantine


def of_two_deaths(seconds: float = 100.0) -> ActionQuarantine[str]:
    return ActionQuarantine(max_deaths=2, seconds=seconds, max_actions=2)


def test_an_action_that_ended_two_guests_may_run_again_after_a_while() -> None:
    quarantine = of_two_deaths()
    quarantine.note("a", 0.0)
    assert not quarantine.holds("a", 0.0)
    quarantine.note("a", 50.0)
    assert quarantine.holds("a", 50.0)
    assert not quarantine.holds("b", 50.0)
    assert quarantine.held(50.0) == 1
    assert quarantine.holds("a", 149.0), "the time runs from the last death"
    assert not quarantine.holds("a", 150.0)
    assert quarantine.held(150.0) == 0
    quarantine.note("a", 150.0)
    assert not quarantine.holds("a", 150.0), "what is forgotten counts no more"


def test_only_the_death_that_quarantines_an_action_is_reported() -> None:
    quarantine = of_two_deaths()
    assert [quarantine.note("a", 0.0) for _ in range(3)] == [False, True, False]


def test_the_action_that_died_longest_ago_is_forgotten_first() -> None:
    quarantine = of_two_deaths()
    for action in ("a", "b", "b", "a"):
        quarantine.note(action, 0.0)
    quarantine.note("c", 0.0)
    assert quarantine.holds("a", 0.0)
    assert not quarantine.holds("b", 0.0)
