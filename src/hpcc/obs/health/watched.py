"""Conditions that take time to find out: a peer that must answer, a disk that must have room."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable, Iterable
from pathlib import Path
from typing import Final

from hpcc.files.disk import size_of_disk
from hpcc.ports import Clock

_log: Final = logging.getLogger(__name__)
LOOK_SECONDS: Final = 5.0
_ANSWER_SECONDS: Final = 4.0
# A record of the audit trail has at most 15 MiB, and several are written at once. A small disk,
# such as one in memory, needs its sixteenth.
LEAST_FREE_BYTES: Final = 64 << 20
_LEAST_SHARE: Final = 16


class Watched:
    """A condition that is looked at again and again while `run` runs."""

    def __init__(
        self,
        what: str,
        look: Callable[[], Awaitable[str]],
        clock: Clock,
        *,
        pause_seconds: float = LOOK_SECONDS,
    ) -> None:
        """`look` returns why the condition fails; `what` is who must answer it in time."""
        self._what, self._look, self._clock = what, look, clock
        self._pause_seconds = pause_seconds
        self._reason = f"{what} was not asked yet"

    def reason(self) -> str:
        """Return what was found last."""
        return self._reason

    async def look(self) -> None:
        """Look once, within a few seconds."""
        try:
            async with asyncio.timeout(_ANSWER_SECONDS):
                self._reason = await self._look()
        except TimeoutError:
            self._reason = f"{self._what} does not answer in {_ANSWER_SECONDS:g} s"
        except Exception:  # noqa: BLE001 - the root of a task: a look that fails is a reason
            _log.exception("%s cannot be looked at", self._what)
            self._reason = f"{self._what} cannot be looked at: see the log"

    async def run(self) -> None:
        """Look until cancelled."""
        while True:
            await self.look()
            await self._clock.sleep(self._pause_seconds)


class DiskRoom:
    """Whether the disks below some directories have room. Asks in a thread: a disk may hang."""

    def __init__(
        self,
        directories: Iterable[Path],
        size_of: Callable[[Path], tuple[int, int]] | None = None,
    ) -> None:
        """`size_of` returns how many bytes of a disk are free, and how many it has."""
        self._directories = tuple(dict.fromkeys(directories))
        self._size_of = size_of or size_of_disk
        # One thread at a time, however long a disk hangs.
        self._asking: asyncio.Future[str] | None = None

    async def look(self) -> str:
        """Return which directory has no room; "" if all have."""
        if self._asking is None or self._asking.done():
            self._asking = asyncio.get_running_loop().run_in_executor(None, self._ask)
        return await asyncio.shield(self._asking)

    def _ask(self) -> str:
        for directory in self._directories:
            # A service makes some of them when it needs them.
            existing = next(p for p in (directory, *directory.parents) if p.exists())
            try:
                free, whole = self._size_of(existing)
            except OSError as error:
                return f"{directory}: {error.strerror or error}"
            least = min(LEAST_FREE_BYTES, whole // _LEAST_SHARE)
            if free < least:
                return f"{directory}: {free >> 20} MiB are free, and {least >> 20} are needed"
        return ""
