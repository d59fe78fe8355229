"""How long compiles waited lately: of the last minutes, of a bounded number, and one of the waits."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from hpcc.worker.waits import MAX_WAITS, WAIT_SECONDS, RecentWaits
from hpcc_testkit.farm.in_process import LaterClock


@given(st.lists(st.floats(0, 1e6), min_size=1, max_size=60))
def test_95_of_100_waits_are_no_longer_and_the_figure_is_one_of_them(waits: list[float]) -> None:
    recent = RecentWaits(LaterClock())
    for seconds in waits:
        recent.add(seconds)
    found, count = recent.p95()
    assert count == len(waits)
    assert found in waits
    assert sum(w <= found for w in waits) * 100 >= 95 * len(waits)
    assert sum(w < found for w in waits) * 100 < 95 * len(waits), "no smaller one would do"


def test_what_was_long_ago_is_forgotten_and_the_newest_are_held() -> None:
    clock = LaterClock()
    recent = RecentWaits(clock)
    assert recent.p95() == (0.0, 0)
    recent.add(900.0)
    recent.add(-1.0)  # a clock that was set back
    assert recent.p95() == (900.0, 2)
    clock.ahead += WAIT_SECONDS + 1.0
    assert recent.p95() == (0.0, 0)
    for number in range(3 * MAX_WAITS):
        recent.add(float(number))
    found, count = recent.p95()
    assert count == MAX_WAITS
    assert found > 2.9 * MAX_WAITS
