"""Writes the counters of a worker's shared stores to its state directory, for the command line."""

from __future__ import annotations

import asyncio
import json
import logging
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from hpcc.config.private_file import write_private_file
from hpcc.core import CallerError, HpccError, NotFoundError
from hpcc.ports import Clock

_log: Final = logging.getLogger(__name__)
STORES_NAME: Final = "shared-stores.json"
_WRITE_SECONDS: Final = 10.0
_MAX_BYTES: Final = 4 << 20
_FORMAT: Final = 1


@dataclass(frozen=True, slots=True, kw_only=True)
class StoresReport:
    """Counters by tenant since the worker started. Times are seconds since the epoch."""

    since: float
    at: float
    tenants: Mapping[str, Mapping[str, int]]


class StoreStats:
    """Writes the file when a counter has changed."""

    def __init__(
        self, state: Path, counters: Callable[[], Mapping[str, Mapping[str, int]]], clock: Clock
    ) -> None:
        self._path, self._counters, self._clock = state / STORES_NAME, counters, clock
        self._since, self._written = clock.now(), ""

    async def run(self) -> None:
        """Keep the file current until cancelled; a failed write (full disk) is only logged."""
        while True:
            await self._clock.sleep(_WRITE_SECONDS)
            try:
                await self.write()
            except (HpccError, OSError) as error:
                _log.warning("%s is not written: %s", self._path, error)

    async def write(self) -> None:
        """Write the counters if they changed since the last write."""
        tenants = {tenant: dict(counts) for tenant, counts in self._counters().items()}
        text = json.dumps(tenants, sort_keys=True)
        if text == self._written:
            return
        report = {
            "format": _FORMAT, "since": self._since, "at": self._clock.now(), "tenants": tenants
        }  # fmt: skip
        await asyncio.to_thread(write_private_file, self._path, json.dumps(report).encode())
        self._written = text


def read_stores_report(state: Path) -> StoresReport:
    """Read the report of the worker with this state directory.

    Raises:
        NotFoundError: the worker has shared nothing yet.
        CallerError: the file is damaged or has another format.
    """
    path = state / STORES_NAME
    try:
        with path.open("rb") as file:
            table = json.loads(file.read(_MAX_BYTES))
        tenants = {
            str(tenant): {str(name): int(count) for name, count in counts.items()}
            for tenant, counts in table["tenants"].items()
        }
        report = StoresReport(since=float(table["since"]), at=float(table["at"]), tenants=tenants)
        is_known = table["format"] == _FORMAT
    except FileNotFoundError as error:
        raise NotFoundError(f"{path} does not exist: this worker has shared nothing yet") from error
    except (
        OSError, ValueError, TypeError, KeyError, AttributeError, OverflowError, RecursionError
    ) as error:  # fmt: skip
        raise CallerError(f"{path} cannot be read: remove it", reason="stores-report") from error
    if not is_known:
        raise CallerError(f"{path} is of another version of hpcc", reason="stores-report")
    return report
