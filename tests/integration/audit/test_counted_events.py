"""Each event of a trail is counted, no matter which part makes it, as soon as it is true."""

from __future__ import annotations

import asyncio
import errno
import os
from collections.abc import Sequence
from pathlib import Path
from typing import Final

import pytest

from hpcc.audit.base.spool_limits import SpoolLimits
from hpcc.audit.cursor import TrailCursor
from hpcc.core import CallerError
from hpcc.obs.metrics.text import exposition
from hpcc.ports import SystemClock
from hpcc.rpc.scheduler.audit_api import AuditPlace
from hpcc.worker.audit.shipper import Shipper
from hpcc.worker.base.metrics import WorkerMetrics
from hpcc.worker.figures import show_trail
from hpcc_testkit.farm.audit_rows import opened, refusal, written
from hpcc_testkit.services.scraped import Scrape

_HANG: Final = 60.0
_LIMITS: Final = SpoolLimits(segment_bytes=6000, max_bytes=600_000, keep_seconds=3600.0)


class _Later(SystemClock):
    """A clock that the test sets forward."""

    ahead = 0.0

    def now(self) -> float:
        return super().now() + self.ahead


class _Refusing:
    """A sink that takes nothing, and notes that it was asked again."""

    def __init__(self) -> None:
        self.again = asyncio.Event()
        self._calls = 0

    async def append(self, worker_id: str, first: int, records: Sequence[bytes]) -> AuditPlace:
        self._calls += 1
        if self._calls > 1:
            self.again.set()
        raise CallerError("no", reason="no-audit-sink")


def _counted(metrics: WorkerMetrics, name: str) -> float:
    registry = metrics.service.registry
    found = Scrape(exposition(registry, registry.ask())).values("hpcc_security_events_total")
    return next((value for labels, value in found.items() if dict(labels)["name"] == name), 0.0)


async def test_events_that_a_trail_or_its_sink_makes_are_counted(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    await written(tmp_path, 20)
    with (tmp_path / "spool.hpcc").open("ab") as file:
        file.write(b"\0\0")  # half of a length
    metrics, clock = WorkerMetrics("1"), _Later()
    async with (
        asyncio.timeout(_HANG),
        opened(tmp_path, limits=_LIMITS, clock=clock, listeners=(metrics.event,)) as log,
    ):
        assert _counted(metrics, "audit-torn-tail") == 1
        show_trail(metrics, log, lambda: ())  # listens already: nothing counts twice
        await log.event(refusal(1))
        assert _counted(metrics, "token-refused") == 1

        sink = _Refusing()
        shipper = Shipper(log, TrailCursor(tmp_path), sink, worker="w1", clock=clock)
        shipping = asyncio.Task(shipper.run())
        await sink.again.wait()
        shipping.cancel()
        await asyncio.wait([shipping])
        assert _counted(metrics, "audit-sink-refused") == 1

        def full(_descriptor: int) -> None:
            raise OSError(errno.ENOSPC, "no space")

        clock.ahead = 2 * _LIMITS.keep_seconds
        with monkeypatch.context() as patch:
            patch.setattr(os, "fdatasync", full)
            assert await log.retire() == 0
        assert _counted(metrics, "audit-retired") == 0, "nothing was removed"
        assert await log.retire() > 0
        assert _counted(metrics, "audit-retired") == 1
