"""The numbers of a pool that `hpcc status` shows."""

from __future__ import annotations

import asyncio
from contextlib import suppress
from pathlib import Path

import pytest

from hpcc.core import CallerError, NotFoundError
from hpcc.ports import SystemClock
from hpcc.worker.pool.report import GUESTS_NAME, GuestsReport, read_guests


async def test_the_numbers_are_there_while_the_worker_runs_and_not_after(tmp_path: Path) -> None:
    numbers = {"guests": 1}
    report = GuestsReport(tmp_path, lambda: numbers, SystemClock())
    task = asyncio.create_task(report.run())
    while not (tmp_path / GUESTS_NAME).exists():  # noqa: ASYNC110 - of a thread
        await asyncio.sleep(0.01)
    assert read_guests(tmp_path) == {"guests": 1}
    numbers["guests"] = 2
    await report.write()
    assert read_guests(tmp_path) == {"guests": 2}
    task.cancel()
    with suppress(asyncio.CancelledError):
        await task
    with pytest.raises(NotFoundError):
        read_guests(tmp_path)


async def test_a_full_disk_ends_nothing(tmp_path: Path) -> None:
    report = GuestsReport(tmp_path / "absent", lambda: {"guests": 1}, SystemClock())
    task = asyncio.create_task(report.run())
    for _ in range(100):
        await asyncio.sleep(0)
    assert not task.done()
    task.cancel()
    with suppress(asyncio.CancelledError):
        await task


@pytest.mark.parametrize(
    "text", ["", "[]", "1", '{"a": "x"}', '{"a": [1]}', '{"a": 1e999}', "[" * 50_000]
)
def test_a_damaged_file_is_told(tmp_path: Path, text: str) -> None:
    (tmp_path / GUESTS_NAME).write_text(text)
    with pytest.raises(CallerError):
        read_guests(tmp_path)
