"""How often a scheduler freezes its memory, so that the garbage collector skips it."""

from __future__ import annotations

import gc
from collections.abc import Iterator

import pytest

from hpcc.scheduler.base.collector import Collector


@pytest.fixture(autouse=True)
def _as_before() -> Iterator[None]:
    thresholds = gc.get_threshold()
    yield
    gc.set_threshold(*thresholds)
    gc.unfreeze()


def test_what_is_there_at_the_start_is_frozen() -> None:
    Collector().start()
    assert gc.get_freeze_count() > 0
    assert gc.get_threshold()[0] < 1000


def test_a_growing_farm_is_frozen_seldom() -> None:
    collector = Collector()
    frozen = [n for n in range(10_000) if collector.grown(n)]
    assert 10 < len(frozen) < 50
    assert not collector.grown(5)
    assert not collector.grown(9_999)


def test_workers_that_joined_last_are_frozen_once_the_farm_has_stopped_growing() -> None:
    collector = Collector()
    assert collector.grown(1000)
    for joined in range(1, 200):
        assert not collector.grown(1000 + joined), "more join each second"
    assert [collector.grown(1199) for _ in range(20)] == [False] * 9 + [True] + [False] * 10


def test_a_farm_that_shrinks_and_grows_again_is_frozen_no_further_time() -> None:
    """Garbage that is frozen stays, so pools that change all day must not add to it."""
    collector = Collector()
    assert collector.grown(1000)
    for workers in (500, 1000) * 5:
        assert not any(collector.grown(workers) for _ in range(30))
    assert not any(collector.grown(1015) for _ in range(30)), "a few are not worth it"
