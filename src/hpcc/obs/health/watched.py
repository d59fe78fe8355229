"""Conditions that take time to find out: a peer that must answer, a disk that must have room."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Coroutine, Iterable
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
    """A condition that is looked at again and again while `run` runs.

    A look that hangs is never ended, because the thread that it waits for would stay: each further
    look would take one more, until the service has none left. The next look waits for the same one.
    """

    def __init__(
        self,
        what: str,
        look: Callable[[], Coroutine[None, None, str]],
        clock: Clock,
        *,
        pause_seconds: float = LOOK_SECONDS,
    ) -> None:
        """`look` returns why the condition fails; `what` is who must answer it in time."""
        self._what, self._look, self._clock = what, look, clock
        self._pause_seconds = pause_seconds
        self._reason = f"{what} was not asked yet"
        self._looking: asyncio.Task[str] | None = None
        # The failure that the log has already.
        self._logged = ""

    def reason(self) -> str:
        """Return what was found last."""
        return self._reason

    async def look(self) -> None:
        """Look once, within a few seconds."""
        if self._looking is None:
            self._looking = asyncio.Task(self._look())
        done, _ = await asyncio.wait([self._looking], timeout=_ANSWER_SECONDS)
        if done:
            looked, self._looking = self._looking, None
            self._reason = self._found(looked)
        else:
            self._reason = f"{self._what} does not answer in {_ANSWER_SECONDS:g} s"

    def _found(self, looked: asyncio.Task[str]) -> str:
        try:
            reason = looked.result()
        # Nothing is awaited here, so what was cancelled is the look and not this task.
        except (Exception, asyncio.CancelledError) as error:  # noqa: BLE001 - the root of a task: a look that fails is a reason
            self._log_once(error)
            return f"{self._what} cannot be looked at: see the log"
        self._logged = ""
        return reason

    def _log_once(self, error: BaseException) -> None:
        if (text := repr(error)) != self._logged:
            _log.error("%s cannot be looked at", self._what, exc_info=error)
        self._logged = text

    async def run(self) -> None:
        """Look until cancelled."""
        try:
            while True:
                await self.look()
                await self._clock.sleep(self._pause_seconds)
        finally:
            if self._looking is not None:
                self._looking.cancel()


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

    async def look(self) -> str:
        """Return which directory has no room; "" if all have."""
        return await asyncio.to_thread(self._ask)

    def _ask(self) -> str:
        for directory in self._directories:
            try:
                # A service makes some of them when it needs them.
                existing = next(p for p in (directory, *directory.parents) if p.exists())
                free, whole = self._size_of(existing)
            except OSError as error:
                return f"{directory}: {error.strerror or error}"
            least = min(LEAST_FREE_BYTES, whole // _LEAST_SHARE)
            if free < least:
                return f"{directory}: {free >> 20} MiB are free, and {least >> 20} are needed"
        return ""
