"""The worker's requests for signing keys while its scheduler hangs."""

from __future__ import annotations

import asyncio
from typing import Any, cast

import pytest

from hpcc.rpc.base.errors import UnavailableError
from hpcc.worker.link import SchedulerLink


class Clock:
    at = 1000.0

    def monotonic(self) -> float:
        return self.at


async def test_tokens_of_invented_keys_do_not_wait_one_after_the_other(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Otherwise each would occupy one of the worker's calls until all earlier ones had ended."""
    clock, asked, begun, hangs = Clock(), 0, asyncio.Event(), asyncio.Event()
    nothing: Any = None
    link = SchedulerLink(
        nothing,
        nothing,
        cast("Any", clock),
        state=nothing,
        on_admission=nothing,
        keys=nothing,
        on_certificates=nothing,
    )

    async def renew() -> None:
        nonlocal asked
        asked += 1
        begun.set()
        await hangs.wait()
        clock.at += 10.0
        raise UnavailableError("the scheduler hangs")

    monkeypatch.setattr(link, "_renew", renew)
    async with asyncio.timeout(10), asyncio.TaskGroup() as group:
        calls = [group.create_task(link.refresh_keys()) for _ in range(50)]
        await begun.wait()
        clock.at += 1.0
        hangs.set()
    assert [call.result() for call in calls] == [True] * 50
    assert asked == 1
    assert not await link.refresh_keys(), "a moment ago"
