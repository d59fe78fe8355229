"""What an index may take: room of the trail, time and rows of who reads it."""

from __future__ import annotations

import sqlite3
import struct
from contextlib import closing
from pathlib import Path

import pytest

from hpcc.audit.base.canonical import Record, canonical, decode_record
from hpcc.audit.base.heads import HeadSigner
from hpcc.audit.base.index_statement import IndexFacts, index_path, sign_index
from hpcc.audit.base.query import Query, matches
from hpcc.audit.base.segments import seals
from hpcc.audit.base.spool_limits import SpoolLimits
from hpcc.audit.lookup.sealed import write_index, write_statement
from hpcc.cli.main import main
from hpcc_testkit.farm.audit_rows import KEY, SMALL, opened, written
from hpcc_testkit.hostile.forged_indexes import as_of_an_earlier_version

_PAGE = 1024


async def test_indexes_of_old_segments_do_not_take_the_room_of_records(tmp_path: Path) -> None:
    await written(tmp_path, 40)
    as_of_an_earlier_version(tmp_path)
    size = sum(p.stat().st_size for p in tmp_path.glob("*.hpcc"))  # noqa: ASYNC240 - a test
    for percent, has_all in ((140, False), (600, True)):
        limits = SpoolLimits(segment_bytes=6000, max_bytes=size * percent // 100)
        async with opened(tmp_path, limits=limits) as log:
            await log.index_old()
            log.require_room("acme")
        missing = [s for s in seals(tmp_path) if not index_path(tmp_path, s.first).exists()]
        assert (not missing) == has_all


def _interior(child: int) -> bytes:
    """Return a page of a table whose hundred children are one page."""
    page = bytearray(_PAGE)
    places = range(_PAGE - 5, _PAGE - 505, -5)
    for number, place in enumerate(places):
        page[place : place + 5] = struct.pack(">IB", child, 1)
        page[12 + 2 * number : 14 + 2 * number] = struct.pack(">H", place)
    page[:12] = struct.pack(">BHHHBI", 5, 0, 100, places[-1], 0, child)
    return bytes(page)


def _endless(data: bytes, table: str) -> bytes:
    """Return an index in which a table has its rows again and again."""
    with closing(sqlite3.connect(":memory:")) as db:
        db.deserialize(data)
        (root,) = db.execute(
            "SELECT rootpage FROM sqlite_master WHERE name = ?", (table,)
        ).fetchone()
    leaf = data[(root - 1) * _PAGE : root * _PAGE]
    count = len(data) // _PAGE
    more = [leaf, *(_interior(count + 1 + number) for number in range(12))]
    pages = bytearray(data + b"".join(more))
    pages[(root - 1) * _PAGE : root * _PAGE] = _interior(count + len(more))
    pages[28:32] = struct.pack(">I", count + len(more))
    return bytes(pages)


def _signed(trail: Path, data: bytes) -> None:
    """Sign an index as a worker that lies."""
    seal = next(iter(seals(trail)))
    facts = IndexFacts(data=data, since=0.0, until=1e12)
    write_statement(trail, sign_index(HeadSigner("w1", KEY), 0, seal.signed.head, facts))
    write_index(trail, 0, data)


@pytest.mark.parametrize(
    ("table", "command"),
    [
        ("text", ("query", "--tenant", "tenant-1")),
        ("text", ("verify",)),
        ("record", ("list", "-n", "1000")),
        ("output", ("query", "--object", "zz")),
        ("output", ("verify",)),
    ],
)
async def test_an_index_without_an_end_that_the_worker_signed_ends(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], table: str, command: tuple[str, ...]
) -> None:
    await written(tmp_path, 12, limits=SMALL)
    _signed(tmp_path, _endless(index_path(tmp_path, 0).read_bytes(), table))
    assert main(["audit", *command, "--directory", str(tmp_path)]) == 1
    assert "sealed index" in capsys.readouterr().err


@pytest.mark.parametrize(
    "script",
    [
        "INSERT INTO record SELECT 900, place, hash, kind, at, exit_code, row_id, action_digest,"
        " request_id, worker, tenant, principal, build_id, image_digest, cache_status, guest_id,"
        " isolation, reuse, reason, name, peer FROM record WHERE sequence = 1",
        "UPDATE record SET place = -5",
        "UPDATE record SET hash = x'00'",
    ],
)
async def test_a_signed_index_shows_no_record_twice_and_no_traceback(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], script: str
) -> None:
    await written(tmp_path, 12, limits=SMALL)
    with closing(sqlite3.connect(index_path(tmp_path, 0))) as db:
        db.execute(script)
        db.commit()
    _signed(tmp_path, index_path(tmp_path, 0).read_bytes())
    assert main(["audit", "export", "--directory", str(tmp_path)]) == 1
    assert "the sealed index has a record" in capsys.readouterr().err


def _event(**body: object) -> Record:
    table = {
        "body": {"name": "x", "at": 1.0, **body}, "format": 1, "kind": "event",
        "previous": "0" * 64, "sequence": 0, "worker": "w1",
    }  # fmt: skip
    return decode_record(canonical(table))


def test_a_forged_exit_code_of_an_event_matches_nothing_and_crashes_nobody() -> None:
    record = _event(exit_code=[])
    assert matches(record, Query(kind="event"))
    assert not matches(record, Query(kind="event", exit_code=1))
