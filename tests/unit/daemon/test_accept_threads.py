"""Keep-alive messages for launchers that wait, tested with a clock that stands still."""

from __future__ import annotations

from hpcc.daemon.accept_threads import AcceptThreads, Waits

TICK, MOST = 0.5, 900.0


class Clock:
    def __init__(self) -> None:
        self.at = 100.0

    def monotonic(self) -> float:
        return self.at

    def now(self) -> float:
        raise AssertionError

    async def sleep(self, seconds: float) -> None:
        raise AssertionError


def test_only_a_launcher_that_waits_a_tick_and_not_too_long_gets_wait() -> None:
    clock = Clock()
    sent: list[int] = []
    waits = Waits(sent.append, clock, tick_seconds=TICK, most_seconds=MOST)
    with waits.waiting(7):
        waits._send_all()
        assert sent == []
        for age in (TICK / 2, MOST):
            clock.at = 100.0 + age
            waits._send_all()
        clock.at += 1
        waits._send_all()
    assert sent == [7, 7]
    assert waits.count() == 0


def test_no_wait_is_sent_once_the_answer_may_be() -> None:
    clock = Clock()
    sent: list[int] = []
    waits = Waits(sent.append, clock, tick_seconds=TICK, most_seconds=MOST)
    with waits.waiting(7):
        clock.at += 1
    waits._send_all()
    assert sent == []


def test_a_launcher_that_does_not_read_keeps_wait_from_nobody_else() -> None:
    clock = Clock()
    sent: list[int] = []

    def send(number: int) -> None:
        if number == 7:
            raise BlockingIOError
        sent.append(number)

    waits = Waits(send, clock, tick_seconds=TICK, most_seconds=MOST)
    with waits.waiting(7), waits.waiting(8):
        clock.at += 1
        waits._send_all()
    assert sent == [8]


def test_a_thread_that_is_one_too_many_ends() -> None:
    threads = AcceptThreads(lambda: True, most=8, idle=1)
    threads._threads, threads._idle = 4, 2
    assert not threads.become_idle()
    threads._idle = 1
    assert threads.become_idle()
