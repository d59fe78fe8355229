"""When a gateway serves: with a certificate that counts, and a scheduler that answers."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Final

from hpcc.obs.health.health import Health
from hpcc.obs.health.watched import Watched
from hpcc.ports import Clock
from hpcc.rpc.base.health import trouble_of
from hpcc.rpc.scheduler.schedulers import Schedulers

_ANSWER_SECONDS: Final = 2.0


def watch_gateway(
    health: Health, schedulers: Schedulers, certificate_ends_at: Callable[[], float], clock: Clock
) -> Watched:
    """Name the conditions of a gateway; return the one that its `run` keeps current."""
    channels = [each.channel for each in schedulers.each()]

    async def look() -> str:
        """Ask all schedulers; one that serves is enough."""
        async with asyncio.TaskGroup() as group:
            asked = [group.create_task(trouble_of(c, _ANSWER_SECONDS)) for c in channels]
        troubles = [task.result() for task in asked]
        return "" if "" in troubles else troubles[0]

    def certificate() -> str:
        return "" if certificate_ends_at() > clock.now() else "the certificate has ended"

    upstream = Watched("the scheduler", look, clock)
    health.add("certificate", certificate)
    health.add("scheduler", upstream.reason)
    return upstream
