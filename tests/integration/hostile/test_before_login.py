"""Strangers who hold thousands of calls: what they cost in memory, and whom they keep waiting.

Three real processes. A fourth holds the hostile calls and starts each again as it ends, while an
honest caller logs in and works.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, Awaitable, Callable
from contextlib import asynccontextmanager, suppress
from pathlib import Path
from typing import Final

import grpc
import pytest

from hpcc.core import Blob, Digest
from hpcc.rpc.base.errors import BusyError, DeadlineError
from hpcc_testkit.farm.separate import Part, SeparateFarm, separate_farm
from hpcc_testkit.hostile.flood import MESSAGE_BYTES, Flood, Hostile, flood

AUTHENTICATE: Final = "/hpcc.v1.SchedulerService/Authenticate"
ROUTE: Final = "/hpcc.v1.SchedulerService/Route"
ENROL: Final = "/hpcc.v1.WorkerEnrolmentService/Enrol"
REAPI: Final = "/build.bazel.remote.execution.v2"
UPLOAD: Final = f"{REAPI}.ContentAddressableStorage/BatchUpdateBlobs"
EXECUTE: Final = f"{REAPI}.Execution/Execute"
WRITE: Final = "/google.bytestream.ByteStream/Write"
pytestmark = pytest.mark.timeout(400)

BAD: Final = {"authorization": "Bearer nobody.gave.this"}
HONEST_CALLS: Final = 5
HONEST_SECONDS: Final = 300.0
# What a process may gain from 2,000 hostile calls. One message of 16 MiB in each of 64 calls is
# 1,024 MiB; the state that gRPC keeps for a call that says nothing is 30 KiB.
MOST_MIB: Final = 192


def floods(half_sent: str, *silent: str) -> tuple[Hostile, ...]:
    """Return 2,000 hostile calls: messages half sent, nothing sent, and bad tokens."""
    return (
        Hostile(half_sent, 600, headers=BAD),
        Hostile(half_sent, 100, announced=MESSAGE_BYTES * 32, headers=BAD),
        *(Hostile(path, 1000 // len(silent), announced=0, headers=BAD) for path in silent),
        Hostile(half_sent, 200, announced=40_000, sent=39_999, headers=BAD),
        Hostile(half_sent, 100, announced=0),
    )


@pytest.fixture
async def farm(tmp_path: Path) -> AsyncGenerator[SeparateFarm]:
    async with separate_farm(tmp_path) as farm:
        yield farm


@asynccontextmanager
async def bounded(part: Part, *hostile: Hostile) -> AsyncGenerator[Flood]:
    """Flood a process while the block runs; its memory must stay within `MOST_MIB`."""
    assert sum(h.count for h in hostile) == 2000
    before = part.resident_mib()
    most = before
    async with flood("127.0.0.1", part.port, *hostile) as running:

        async def look() -> None:
            nonlocal most
            while True:
                most = max(most, part.resident_mib())
                await asyncio.sleep(0.05)

        looking = asyncio.create_task(look())
        try:
            yield running
        finally:
            looking.cancel()
        said = await running.report()
    # It was a real flood: each call was started.
    assert said["calls"] >= 2000, said
    assert most - before < MOST_MIB, f"{before:.0f} MiB grew to {most:.0f}: {said}"


async def honest(call: Callable[[], Awaitable[object]]) -> None:
    """Make calls until enough of them went through; on a busy machine some come too late."""
    async with asyncio.timeout(HONEST_SECONDS):
        passed = 0
        while passed < HONEST_CALLS:
            with suppress(BusyError, DeadlineError, grpc.aio.AioRpcError):
                await call()
                passed += 1


async def test_strangers_with_half_a_login_fill_no_scheduler(farm: SeparateFarm) -> None:
    async with bounded(farm.scheduler, *floods(AUTHENTICATE, AUTHENTICATE, ROUTE)):
        await honest(farm.route)


async def test_strangers_with_half_an_enrolment_fill_no_scheduler(farm: SeparateFarm) -> None:
    async with bounded(farm.scheduler, *floods(ENROL, ENROL)):
        await honest(farm.route)


async def test_strangers_with_half_a_message_fill_no_worker(farm: SeparateFarm) -> None:
    route = await farm.route()
    blob = Blob.of(b"x" * (2 << 20))

    async def work() -> None:
        async with farm.client(route) as client:
            await client.upload([blob])
            assert not await client.find_missing([blob.digest])

    async with bounded(farm.worker, *floods(UPLOAD, EXECUTE, WRITE)):
        await honest(work)


async def test_strangers_with_half_a_message_fill_no_gateway(farm: SeparateFarm) -> None:
    async def work() -> None:
        async with farm.stock() as client:
            digest = Digest.of(b"x")
            assert await client.find_missing([digest]) == [digest]

    async with bounded(farm.gateway, *floods(UPLOAD, EXECUTE, WRITE)):
        await honest(work)
