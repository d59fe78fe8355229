"""Rate limits of security events: a flood can hide only further events like itself."""

from __future__ import annotations

from typing import Any, cast

from hpcc.audit.limiter import EventLimiter
from hpcc.ports import SecurityEvent


class Log:
    def __init__(self) -> None:
        self.events: list[SecurityEvent] = []

    async def event(self, event: SecurityEvent) -> None:
        self.events.append(event)


class Clock:
    at = 1000.0

    def now(self) -> float:
        return self.at

    def monotonic(self) -> float:
        return self.at


async def test_a_flood_of_refusals_hides_no_event_of_another_kind_or_tenant() -> None:
    log, clock = Log(), Clock()
    events = EventLimiter(cast("Any", log), cast("Any", clock))
    for _ in range(500):
        await events.event("login-refused", "")
        await events.event("foreign-instance", "globex")
    assert len(log.events) == 40
    await events.event("audit-chain-cut", "")
    await events.event("foreign-instance", "acme")
    assert [(e.name, e.tenant) for e in log.events[40:]] == [
        ("audit-chain-cut", ""),
        ("foreign-instance", "acme"),
    ]
    clock.at += 1.0
    await events.event("login-refused", "")
    assert log.events[-1].fields == (("suppressed_before", "480"),)


async def test_names_without_end_take_no_memory_without_end() -> None:
    log = Log()
    events = EventLimiter(cast("Any", log), cast("Any", Clock()))
    for number in range(5000):
        await events.event("foreign-instance", f"t{number}")
    assert len(events._kinds) <= 4097
    assert len(log.events) == 4096 + 20
