"""What a service manager hears, and when. No clock runs: times are numbers."""

from __future__ import annotations

import asyncio
import itertools

from hpcc.obs.health.health import Health
from hpcc.obs.health.manager import ServiceManager
from hpcc.obs.health.messages import EXTEND_SECONDS, ManagerMessages, keep_notified
from hpcc.ports import SystemClock

EXTEND = f"EXTEND_TIMEOUT_USEC={int(EXTEND_SECONDS * 1_000_000)}"


def hear(messages: ManagerMessages, health: Health, now: float) -> list[str]:
    lines = messages.due(health, now)
    messages.sent(lines, now)
    return lines


async def test_a_service_from_its_start_to_its_end() -> None:
    health, messages, trouble = Health(), ManagerMessages(60.0), "no scheduler answers"
    health.add("scheduler", lambda: trouble)
    health.summary = lambda: "0 of 2 places busy"
    health.starting("preparing kernel and agent")
    assert hear(messages, health, 0) == [EXTEND, "STATUS=starts: preparing kernel and agent"]
    assert hear(messages, health, 5) == [EXTEND], "a start that takes long gets more time"
    health.serving()
    unready = "STATUS=not ready; scheduler: no scheduler answers; 0 of 2 places busy"
    assert hear(messages, health, 6) == [EXTEND, unready], "it is up, and does not serve"
    assert messages.pause_seconds(health) == 1.0
    trouble = ""
    ready = ["READY=1", "STATUS=0 of 2 places busy", "WATCHDOG=1"]
    assert hear(messages, health, 7) == ready
    trouble = "no scheduler answers"
    assert hear(messages, health, 8) == [unready], "not ready later: it lives, and is not restarted"
    assert hear(messages, health, 37) == ["WATCHDOG=1"]
    health.stopping()
    ends = "STATUS=ends: running work finishes; 0 of 2 places busy"
    assert hear(messages, health, 38) == ["STOPPING=1", ends]
    assert hear(messages, health, 43) == ["STOPPING=1"], "TimeoutStopSec is its limit"


async def test_an_end_gets_as_much_time_as_the_service_needs_and_no_more() -> None:
    """A loop that runs can wait for a guest that never goes: the manager must end that."""
    health, messages = Health(), ManagerMessages(60.0)
    health.end_seconds = 660.0
    health.serving()
    assert EXTEND not in hear(messages, health, 0)
    health.stopping()
    assert hear(messages, health, 1000)[:2] == ["STOPPING=1", EXTEND]
    assert hear(messages, health, 1595) == ["STOPPING=1", EXTEND]
    # The last request ends with the time, and not a minute later.
    assert hear(messages, health, 1655) == ["STOPPING=1", "EXTEND_TIMEOUT_USEC=5000000"]
    assert hear(messages, health, 1660) == ["STOPPING=1"]
    assert hear(messages, health, 9000) == ["STOPPING=1"]


async def test_the_watchdog_is_fed_in_each_half_of_its_time() -> None:
    health, messages = Health(), ManagerMessages(20.0)
    health.serving()
    fed, now = [], 0.0
    while now < 100:
        if "WATCHDOG=1" in hear(messages, health, now):
            fed.append(now)
        # A timer that comes a little early must not cost a whole round.
        now += messages.pause_seconds(health) - 0.001
    pauses = [after - before for before, after in itertools.pairwise(fed)]
    assert len(pauses) >= 5
    assert max(pauses) <= 15.0


async def test_without_a_watchdog_nobody_feeds_one() -> None:
    health, messages = Health(), ManagerMessages(0.0)
    health.serving()
    assert hear(messages, health, 0) == ["READY=1", "STATUS=serves"]
    assert hear(messages, health, 500) == []


async def test_what_the_manager_did_not_get_is_said_again() -> None:
    health, messages = Health(), ManagerMessages(60.0)
    health.serving()
    lost = messages.due(health, 0)
    assert messages.due(health, 1) == lost == ["READY=1", "STATUS=serves", "WATCHDOG=1"]


class _Manager(ServiceManager):
    def __init__(self) -> None:
        super().__init__("/nobody", 60.0)
        self.heard: asyncio.Queue[tuple[str, ...]] = asyncio.Queue()

    def send(self, *lines: str) -> bool:
        self.heard.put_nowait(lines)
        return True


async def test_a_change_is_told_at_once() -> None:
    health, manager = Health(), _Manager()
    async with asyncio.TaskGroup() as group:
        telling = group.create_task(keep_notified(manager, health, SystemClock()))
        assert await manager.heard.get() == (EXTEND, "STATUS=starts")
        health.serving()
        assert await manager.heard.get() == ("READY=1", "STATUS=serves", "WATCHDOG=1")
        health.stopping()
        assert (await manager.heard.get())[0] == "STOPPING=1"
        telling.cancel()
