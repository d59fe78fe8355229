from __future__ import annotations

import threading

from hpcc.cache.signed.asking import Asking, AskingLimits, Turn


class _Clock:
    def __init__(self) -> None:
        self.now = 100.0

    def __call__(self) -> float:
        return self.now


def test_an_answer_is_remembered_for_a_while_and_a_failure_is_not() -> None:
    clock = _Clock()
    asking = Asking(AskingLimits(again_seconds=60.0), clock)
    assert asking.begin("a") is Turn.ASK
    asking.end("a", is_answered=False)
    assert asking.begin("a") is Turn.ASK
    asking.end("a", is_answered=True)
    assert asking.begin("a") is Turn.KNOWN
    assert asking.begin("b") is Turn.ASK
    clock.now += 60.0
    assert asking.begin("a") is Turn.ASK


def test_who_comes_second_waits_for_the_first() -> None:
    asking = Asking(AskingLimits(wait_seconds=60.0), _Clock())
    assert asking.begin("a") is Turn.ASK
    turns: list[Turn] = []
    second = threading.Thread(target=lambda: turns.append(asking.begin("a")))
    second.start()
    assert turns == []
    asking.end("a", is_answered=True)
    second.join(60)
    assert turns == [Turn.WAITED]


def test_who_waits_does_not_wait_forever() -> None:
    asking = Asking(AskingLimits(wait_seconds=0.01), _Clock())
    assert asking.begin("a") is Turn.ASK
    assert asking.begin("a") is Turn.WAITED


def test_calls_stop_after_three_failures_or_one_timeout_and_begin_again_with_one() -> None:
    clock = _Clock()
    for reasons in (["store-http"] * 3, ["store-timeout"], ["store-denied"]):
        asking = Asking(AskingLimits(failures=3, open_seconds=30.0), clock)
        for reason in reasons:
            assert asking.admits()
            asking.failed(reason)
        assert not asking.admits()
        clock.now += 30.0
        assert asking.admits()
        assert not asking.admits()  # one tries
        asking.worked()
        assert asking.admits()
