"""The rate at which a worker may report dead guests, because every daemon receives each report."""

from __future__ import annotations

from typing import Any, cast

import pytest

from hpcc._proto import scheduler_pb2 as pb
from hpcc.rpc.base.errors import BusyError
from hpcc.rpc.base.generation_rate import _MAX_REMEMBERED, BURST, PER_SECOND, GenerationRateLimit
from hpcc.rpc.base.method import Call
from hpcc.rpc.scheduler.api import SchedulerBackend
from hpcc.rpc.scheduler.server import _WorkerSide

CALL = Call(credential="", tool_metadata=b"")


class Backend:
    """Accepts every report, and counts them."""

    reports = 0

    async def admit(self, certificate: bytes, worker_id: str) -> str:
        del certificate
        return worker_id

    async def sandbox_lost(self, *_: Any) -> int:
        self.reports += 1
        return 7


async def test_a_worker_whose_guests_die_without_end_is_heard_less_often() -> None:
    backend = Backend()
    side = _WorkerSide(cast("SchedulerBackend", backend), 60.0)

    async def report(worker_id: str, times: int = 1) -> None:
        for _ in range(times):
            await side.sandbox_lost(pb.SandboxLostRequest(worker_id=worker_id, generation=1), CALL)

    with pytest.raises(BusyError) as refused:
        await report("w1", 1000)
    assert refused.value.reason == "worker-lives"
    assert BURST <= backend.reports < 1000
    await report("w2")


def test_an_allowance_comes_back_and_is_forgotten_when_it_is_whole() -> None:
    limit = GenerationRateLimit()
    for _ in range(int(BURST)):
        limit.count("w1", 10.0)
    with pytest.raises(BusyError):
        limit.count("w1", 10.0)
    limit.count("w1", 10.0 + 1 / PER_SECOND)
    for number in range(2 * _MAX_REMEMBERED):
        limit.count(f"w-{number}", 100.0 + number)
    assert len(limit._left) <= _MAX_REMEMBERED
