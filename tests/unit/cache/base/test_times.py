"""The parts of one compile lie inside it, whatever was noted."""

from __future__ import annotations

import pytest

from hpcc.cache.base.times import MAX_PARTS, CompileTimes, Phase, measured


def test_a_part_ends_once_and_an_open_one_with_its_compile() -> None:
    times = CompileTimes()
    with measured(times, Phase.FARM), measured(times, Phase.PLAN), measured(times, Phase.PLAN):
        pass
    times.begin(Phase.STORE)
    took = times.elapsed_ns() + 1000
    parts = times.parts(took)
    assert [phase for phase, _, _ in parts] == [
        Phase.FARM, Phase.PLAN, Phase.PLAN, Phase.STORE,
    ]  # fmt: skip
    outer, first, second, store = parts
    assert first[1] <= second[1] <= second[1] + second[2] <= first[1] + first[2]
    assert first[1] + first[2] <= outer[1] + outer[2] <= store[1]
    assert store[1] + store[2] == took


def test_parts_are_cut_to_the_compile_and_bounded() -> None:
    times = CompileTimes()
    times.add(Phase.GUEST, times.began_ns - 50, times.began_ns + 10**12)
    times.add(Phase.QUEUE, times.began_ns + 10**12, times.began_ns + 5)
    assert times.parts(100) == [(Phase.GUEST, 0, 100), (Phase.QUEUE, 100, 0)]
    for _ in range(2 * MAX_PARTS):
        times.begin(Phase.WAIT)
    assert len(times.parts(100)) == MAX_PARTS
    times.end(Phase.COMPILE)  # none has begun


def test_a_block_without_times_runs_and_an_error_ends_a_part() -> None:
    with measured(None, Phase.WAIT):
        pass
    times = CompileTimes()
    with pytest.raises(OSError, match="x"), measured(times, Phase.WAIT):
        raise OSError("x")
    ((phase, _, took),) = times.parts(10**12)
    assert phase is Phase.WAIT
    assert took < 10**12


def test_an_attempt_in_which_nothing_was_done_is_no_part() -> None:
    times = CompileTimes()
    with measured(times, Phase.FARM, drops_empty=True):
        pass
    assert times.parts(times.elapsed_ns()) == []
    with measured(times, Phase.FARM, drops_empty=True), measured(times, Phase.PLAN):
        pass
    assert [phase for phase, _, _ in times.parts(times.elapsed_ns())] == [Phase.FARM, Phase.PLAN]
