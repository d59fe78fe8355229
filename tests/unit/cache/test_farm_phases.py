"""What a worker says of its times is fitted into the call that brought the answer."""

from __future__ import annotations

import math

import pytest

from hpcc.cache.base.times import CompileTimes, Phase
from hpcc.cache.remote.client import FarmMoments, add_phases
from hpcc.core import FarmRun

MS = 1_000_000


def phases_of(ran: FarmRun | None) -> dict[Phase, tuple[int, int]]:
    times = CompileTimes()
    began = times.began_ns
    add_phases(times, FarmMoments(began, began + 10 * MS, began + 110 * MS), ran)
    found = {phase: (at // MS, took // MS) for phase, at, took in times.parts(200 * MS)}
    assert found.pop(Phase.PLACE)  # it began just now
    return found


def test_waiting_and_running_are_in_the_middle_of_the_call() -> None:
    assert phases_of(FarmRun("w1", "g", 0.02, 0.06)) == {
        Phase.PLAN: (0, 10), Phase.CALL: (10, 100), Phase.QUEUE: (20, 20), Phase.GUEST: (40, 60),
    }  # fmt: skip


@pytest.mark.parametrize(
    "ran", [None, FarmRun("w1"), FarmRun("w1", "g", 5.0, -1.0), FarmRun("w1", "g", 1.0, math.nan)]
)
def test_without_an_execution_there_is_only_the_call(ran: FarmRun | None) -> None:
    assert set(phases_of(ran)) == {Phase.PLAN, Phase.CALL}


@pytest.mark.parametrize(
    ("ran", "queue", "guest"),
    [
        (FarmRun("w1", "g", 1e300, 1e300), None, (10, 100)),
        (FarmRun("w1", "g", math.inf, 0.04), (10, 60), (70, 40)),
        (FarmRun("w1", "g", math.nan, math.inf), None, (10, 100)),
        (FarmRun("w1", "g", -7.0, 0.1), None, (10, 100)),
    ],
)
def test_times_that_do_not_fit_are_cut_to_the_call(
    ran: FarmRun, queue: tuple[int, int] | None, guest: tuple[int, int]
) -> None:
    found = phases_of(ran)
    assert found.get(Phase.QUEUE) == queue
    assert found[Phase.GUEST] == guest
