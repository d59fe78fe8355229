"""Writes what a worker's pool holds and has done to the state directory, for `hpcc status`."""

from __future__ import annotations

import asyncio
import json
import logging
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Final

from hpcc.config.private_file import write_private_file
from hpcc.core import CallerError, HpccError, NotFoundError
from hpcc.ports import Clock

_log: Final = logging.getLogger(__name__)
GUESTS_NAME: Final = "guests.json"
_WRITE_SECONDS: Final = 2.0
_MAX_BYTES: Final = 64 << 10
_MAX_COUNT: Final = 1 << 53


class GuestsReport:
    """Writes the file when a number has changed, and removes it at the end."""

    def __init__(self, state: Path, numbers: Callable[[], Mapping[str, int]], clock: Clock) -> None:
        self._path, self._numbers, self._clock = state / GUESTS_NAME, numbers, clock
        self._written: dict[str, int] = {}

    async def run(self) -> None:
        """Keep the file current until cancelled; a failed write (full disk) is only logged."""
        try:
            while True:
                try:
                    await self.write()
                except (HpccError, OSError) as error:
                    _log.warning("%s is not written: %s", self._path, error)
                await self._clock.sleep(_WRITE_SECONDS)
        finally:
            self._path.unlink(missing_ok=True)

    async def write(self) -> None:
        """Write the numbers if they changed since the last write."""
        numbers = dict(self._numbers())
        if numbers != self._written:
            await asyncio.to_thread(write_private_file, self._path, json.dumps(numbers).encode())
            self._written = numbers


def read_guests(state: Path) -> Mapping[str, int]:
    """Read the numbers of the worker with this state directory.

    Raises:
        NotFoundError: no worker runs there, or none has written yet.
        CallerError: the file is damaged.
    """
    path = state / GUESTS_NAME
    try:
        with path.open("rb") as file:
            table = json.loads(file.read(_MAX_BYTES))
        numbers = {str(name): min(int(count), _MAX_COUNT) for name, count in table.items()}
    except FileNotFoundError as error:
        raise NotFoundError(f"{path} does not exist: no worker runs here") from error
    except (OSError, ValueError, TypeError, AttributeError, RecursionError, OverflowError) as error:
        raise CallerError(f"{path} cannot be read", reason="guests-report") from error
    return numbers
