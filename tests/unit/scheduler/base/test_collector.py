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
