"""Rows of many callers are written together, and none of them harms the others."""

from __future__ import annotations

import asyncio
from pathlib import Path

import pytest

from hpcc.audit.base.query import Query
from hpcc.audit.lookup.reader import TrailReader
from hpcc.audit.spool import Spool
from hpcc.audit.verify import verify_trail
from hpcc.core import InfrastructureError
from hpcc.ports import AuditRow
from hpcc_testkit.farm.audit_rows import opened, row


@pytest.fixture
def writes(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """Return the sizes of what is written to the trail at once."""
    sizes: list[int] = []
    append = Spool.append

    def noted(spool: Spool, frames: bytes, *, force: bool = False) -> None:
        sizes.append(len(frames))
        append(spool, frames, force=force)

    monkeypatch.setattr(Spool, "append", noted)
    return sizes


async def failed(directory: Path, rows: list[AuditRow]) -> list[int]:
    """Append all rows at once; return the numbers of those that could not be written."""
    async with opened(directory) as log:
        done = await asyncio.gather(*map(log.append, rows), return_exceptions=True)
    assert all(end is None or isinstance(end, InfrastructureError) for end in done)
    return [number for number, end in enumerate(done) if end is not None]


@pytest.mark.parametrize(
    "changes", [{"argv": ("\x01" * (3 << 20),)}, {"duration_seconds": float("nan")}]
)
async def test_a_row_that_cannot_be_written_fails_no_other_tenants_row(
    tmp_path: Path, writes: list[int], changes: dict[str, object]
) -> None:
    rows = [row(number) for number in range(20)]
    rows[10] = row(10, **changes)
    assert await failed(tmp_path, rows) == [10]
    assert verify_trail(tmp_path).count == 19
    # The one that the writer waited for, then all others together.
    assert len(writes) <= 2


async def test_large_rows_at_once_are_not_all_in_memory_at_once(
    tmp_path: Path, writes: list[int]
) -> None:
    argv = ("a" * (1 << 20),)
    assert not await failed(tmp_path, [row(number, argv=argv) for number in range(20)])
    assert verify_trail(tmp_path).count == 20
    assert max(writes) < 2 << 20


async def test_a_text_that_the_index_cannot_hold_stops_neither_writer_nor_readers(
    tmp_path: Path,
) -> None:
    strange = row(0, build_id="b\ud800", exit_code=1 << 70)
    # So many that the index is filled while the trail is open.
    assert not await failed(tmp_path, [strange, *(row(number) for number in range(1, 100))])
    index = TrailReader(tmp_path)
    (found,) = index.find(Query(build_id="b?"))
    assert found.body["build_id"] == "b\ud800"
    assert len(list(index.find(Query(limit=1000)))) == 100
