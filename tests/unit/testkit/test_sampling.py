"""Cases of a long list that one run leaves out run later."""

from __future__ import annotations

import pytest

from hpcc_testkit.suite.sampling import ALL_VARIABLE, SEED_VARIABLE, every_nth, seed_of, stride_of


@pytest.fixture(autouse=True)
def _no_settings(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv(ALL_VARIABLE, raising=False)
    monkeypatch.delenv(SEED_VARIABLE, raising=False)


@pytest.mark.parametrize("count", [1, 2, 3, 4, 5, 30])
def test_n_seeds_in_a_row_take_every_item_and_each_takes_one(
    count: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    items, taken = list(range(count)), []
    for seed in range(700, 704):
        monkeypatch.setenv(SEED_VARIABLE, str(seed))
        part = every_nth(items, 4)
        assert part
        taken += part
    assert sorted(set(taken)) == items


def test_one_seed_takes_the_same_items_again(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(SEED_VARIABLE, "11")
    assert every_nth(range(12), 4) == every_nth(range(12), 4) == range(3, 12, 4)


def test_everything_is_taken_where_that_is_asked(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(ALL_VARIABLE, "1")
    monkeypatch.setenv(SEED_VARIABLE, "3")
    assert every_nth(range(12), 4) == range(12)
    assert stride_of({ALL_VARIABLE: "1", SEED_VARIABLE: "3"}, 4) == (0, 1)


def test_no_item_is_no_error() -> None:
    assert every_nth([], 4) == []


def test_without_a_seed_the_day_is_one_and_a_bad_seed_is_an_error() -> None:
    assert seed_of({}) > 700_000
    with pytest.raises(ValueError, match="nonsense"):
        seed_of({SEED_VARIABLE: "nonsense"})
