"""When a circuit breaker opens, and which calls it allows afterwards."""

from __future__ import annotations

import pytest

from hpcc.core.breaker import CircuitBreaker


def breaker(*, tries_one: bool) -> CircuitBreaker:
    return CircuitBreaker(failures=3, open_seconds=10.0, tries_one=tries_one)


@pytest.mark.parametrize("tries_one", [True, False])
def test_failures_in_a_row_open_it(*, tries_one: bool) -> None:
    of = breaker(tries_one=tries_one)
    assert [of.failed(0.0), of.failed(0.0)] == [False, False]
    assert of.succeeded(0.0) is None
    assert [of.failed(0.0), of.failed(0.0)] == [False, False]
    assert of.admits(0.0)
    assert of.failed(0.0)
    assert not of.admits(9.9)
    assert of.admits(10.0)


@pytest.mark.parametrize("tries_one", [True, False])
def test_one_failure_that_is_enough_opens_it(*, tries_one: bool) -> None:
    of = breaker(tries_one=tries_one)
    assert of.failed(0.0, at_once=True)
    assert not of.admits(9.9)


def test_one_caller_tries_and_its_success_admits_all() -> None:
    of = breaker(tries_one=True)
    of.failed(0.0, at_once=True)
    assert [of.admits(10.0), of.admits(10.0), of.admits(19.9)] == [True, False, False]
    assert of.admits(20.0), "the first caller has not come back"
    assert of.succeeded(25.0) == 25.0
    assert [of.admits(25.0), of.admits(25.0)] == [True, True]
    assert of.succeeded(26.0) is None
    assert not of.failed(26.0), "the count has started anew"


def test_after_a_caller_that_was_cancelled_while_it_tried_the_next_one_tries() -> None:
    of = breaker(tries_one=True)
    of.abandoned()
    assert not of.is_open
    of.failed(0.0, at_once=True)
    assert of.admits(10.0)
    assert of.is_open
    of.abandoned()
    assert [of.admits(10.1), of.admits(10.1)] == [True, False]


def test_while_one_caller_tries_each_failure_keeps_it_open() -> None:
    of = breaker(tries_one=True)
    of.failed(0.0, at_once=True)
    assert of.admits(10.0)
    assert not of.failed(15.0), "it was open before"
    assert not of.admits(24.9)
    assert of.admits(25.0)


def test_without_a_first_caller_all_are_admitted_and_the_count_starts_anew() -> None:
    of = breaker(tries_one=False)
    of.failed(0.0, at_once=True)
    assert [of.admits(10.0), of.admits(10.0)] == [True, True]
    assert [of.failed(10.0), of.failed(10.0)] == [False, False]
    assert of.admits(10.0)
    assert of.failed(10.0)
    assert not of.admits(19.9)


def test_without_a_first_caller_a_late_success_does_not_close_it() -> None:
    of = breaker(tries_one=False)
    of.failed(0.0, at_once=True)
    assert of.succeeded(5.0) is None
    assert not of.admits(5.0)
    assert of.admits(10.0)
