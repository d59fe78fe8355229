"""Gives statements of the retention role, which a command left on this machine, to the trail."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager, suppress
from pathlib import Path
from typing import Final

from hpcc.audit.log import SpoolAuditLog
from hpcc.core import HpccError
from hpcc.ports import Clock
from hpcc.worker.base.retention_file import RetentionAnswer, RetentionFiles

_log: Final = logging.getLogger(__name__)
_LOOK_SECONDS: Final = 1.0


class RetentionInbox:
    """Obeys statements one after another, and answers each."""

    def __init__(self, state: Path, log: SpoolAuditLog, clock: Clock) -> None:
        self._files, self._log, self._clock = RetentionFiles(state), log, clock
        self._trouble = ""

    async def run(self) -> None:
        """Obey statements until cancelled. No file can end the worker."""
        is_new = True
        while True:
            try:
                if is_new:
                    await asyncio.to_thread(self._files.clear)
                    is_new = False
                await self.look()
            except (HpccError, OSError) as error:
                if str(error) != self._trouble:
                    _log.warning("retention statements wait: %s", error)
                self._trouble = str(error)
            await self._clock.sleep(_LOOK_SECONDS)

    async def look(self) -> None:
        """Obey what waits.

        Raises:
            OSError: the directory cannot be read, or a statement not removed.
            InfrastructureError: an answer cannot be written.
        """
        for name in await asyncio.to_thread(self._files.waiting):
            error = ""
            try:
                said = await self._log.obey(await asyncio.to_thread(self._files.read, name))
            except (HpccError, OSError) as refusal:
                error = str(refusal)
                _log.warning("a retention statement is refused: %s", refusal)
            else:
                _log.warning("the retention role: %s %s by %s", said.action.value, said.id, said.by)
            answer = RetentionAnswer(error=error, records=self._log.anchor[0])
            await asyncio.to_thread(self._files.answer, name, answer)


@asynccontextmanager
async def retention_inbox(state: Path, log: SpoolAuditLog, clock: Clock) -> AsyncGenerator[None]:
    """Obey statements within the block."""
    inbox = asyncio.Task(RetentionInbox(state, log, clock).run(), name="retention statements")
    try:
        yield
    finally:
        inbox.cancel()
        with suppress(asyncio.CancelledError):
            await inbox
