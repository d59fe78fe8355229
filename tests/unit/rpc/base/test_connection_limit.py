"""How many connections an address may hold and open, and when it is excluded."""

from __future__ import annotations

import pytest

from hpcc.core import CallerError
from hpcc.rpc.base.connection_limit import (
    ConnectionLimit,
    Refused,
    check_connections,
    source_of,
)


def test_an_address_holds_so_many_and_another_is_not_touched() -> None:
    limit = ConnectionLimit(8)
    assert [limit.opened("a", 0.0) for _ in range(8)] == [True] * 8
    # Eight seconds later it may open others, but it holds all that it may.
    assert not limit.opened("a", 8.0)
    assert limit.opened("b", 8.0)
    limit.closed("a")  # the one that was refused
    limit.closed("a")
    assert limit.opened("a", 9.0)


def test_an_address_that_opens_and_closes_without_end_is_excluded_for_a_while() -> None:
    limit = ConnectionLimit(16)
    stayed = 0
    for _ in range(100):
        stayed += limit.opened("a", 0.0)
        limit.closed("a")
    assert stayed == 32
    assert limit.excluded(0.0) == {"a"}
    assert limit.excluded(1.9) == {"a"}, "a quarter has not come back"
    assert limit.excluded(2.1) == frozenset()
    assert limit.opened("a", 2.1)


def test_an_address_at_its_limit_that_tries_again_is_refused_and_not_excluded() -> None:
    limit = ConnectionLimit(8)
    for _ in range(8):
        limit.opened("a", 0.0)
    for second in range(1, 60):
        assert not limit.opened("a", float(second * 2))
        limit.closed("a")
        assert limit.excluded(float(second * 2)) == frozenset()


def test_a_banned_address_stays_away_for_a_minute_whatever_it_tries() -> None:
    limit = ConnectionLimit(16)
    assert limit.opened("a", 0.0)
    assert limit.ban("a", 0.0)
    for second in range(57):
        assert not limit.ban("a", float(second)), "no ban on top of a ban"
        assert not limit.opened("a", float(second))
        limit.closed("a")
        assert limit.excluded(float(second)) == {"a"}
    assert limit.opened("b", 57.0)
    assert limit.excluded(60.1) == frozenset()
    assert limit.opened("a", 60.1)


def test_an_address_without_connections_can_be_banned() -> None:
    limit = ConnectionLimit(8)
    assert limit.ban("a", 0.0)
    assert limit.excluded(0.0) == {"a"}


def test_what_was_refused_is_reported_once_with_most_first() -> None:
    limit = ConnectionLimit(8)
    for address, count in (("a", 9), ("b", 11), ("c", 8)):
        for _ in range(count):
            limit.opened(address, 0.0)
    assert limit.take_refused() == [Refused("b", 3, 11), Refused("a", 1, 9)]
    assert limit.take_refused() == []


def test_an_address_without_connections_is_forgotten() -> None:
    limit = ConnectionLimit(8)
    for number in range(1000):
        limit.opened(f"a{number}", 0.0)
        limit.closed(f"a{number}")
    limit.opened("stays", 0.0)
    limit.excluded(8.0)
    assert list(limit._sources) == ["stays"]


@pytest.mark.parametrize(
    ("host", "source"),
    [
        ("10.1.2.3", "10.1.2.3"),
        ("::ffff:10.1.2.3", "10.1.2.3"),
        ("2001:db8:1:2:3:4:5:6", "2001:db8:1:2::/64"),
        ("fe80::1%eth0", "fe80::/64"),
        ("", ""),
        ("no address", "no address"),
    ],
)
def test_one_machine_is_one_address(host: str, source: str) -> None:
    assert source_of(host) == source


@pytest.mark.parametrize("most", [-1, 1, 7])
def test_a_limit_below_a_few_daemons_is_refused(most: int) -> None:
    with pytest.raises(CallerError, match="connections_per_address"):
        check_connections(most)


@pytest.mark.parametrize("most", [0, 8, 1 << 20])
def test_a_limit_may_be_off_or_large(most: int) -> None:
    check_connections(most)
