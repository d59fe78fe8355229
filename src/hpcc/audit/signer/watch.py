"""Starts a trail's signer again if it ended while nobody asked it, and reports each restart.

A worker takes no new work without a signer, so nothing else would ask.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncGenerator, Awaitable, Callable
from contextlib import asynccontextmanager, suppress
from typing import Final

from hpcc.audit.base.trail_signer import TrailSigner
from hpcc.audit.signer.process import SignerProcess
from hpcc.core import HpccError
from hpcc.ports import Clock, SecurityEvent

RESTARTED_EVENT: Final = "audit-signer-restarted"
BEGUN_EVENT: Final = "audit-signer"
_LOOK_SECONDS: Final = 1.0
# A start takes a quarter of a second of CPU, also if it fails.
_MOST_SECONDS: Final = 16.0
_log: Final = logging.getLogger(__name__)

type Report = Callable[[SecurityEvent], Awaitable[None]]


@asynccontextmanager
async def watched_signer(signer: TrailSigner, report: Report, clock: Clock) -> AsyncGenerator[None]:
    """Keep a signer's process running within the block. A key in this process needs nothing."""
    if not isinstance(signer, SignerProcess):
        yield
        return
    if signer.has_begun:
        await report(_event(BEGUN_EVENT, signer, clock.now()))
    watch = asyncio.Task(_watch(signer, report, clock), name="signer of the audit trail")
    try:
        yield
    finally:
        watch.cancel()
        with suppress(asyncio.CancelledError):
            await watch


async def _watch(signer: SignerProcess, report: Report, clock: Clock) -> None:
    reported, pause = 0, _LOOK_SECONDS
    while True:
        try:
            await asyncio.to_thread(signer.revive)
            pause = _LOOK_SECONDS
        except (HpccError, OSError) as error:
            _log.warning("the signer of the trail does not start: %s", error)
            pause = min(pause * 2, _MOST_SECONDS)
        if signer.restarts != reported and not signer.trouble:
            reported = signer.restarts
            await report(_event(RESTARTED_EVENT, signer, clock.now()))
        await clock.sleep(pause)


def _event(name: str, signer: SignerProcess, at: float) -> SecurityEvent:
    fields = (("separation", signer.separation), ("restarts", str(signer.restarts)))
    return SecurityEvent(name=name, at=at, fields=fields)
