"""The index of the open segment is complete, or the segment gets none."""

from __future__ import annotations

import sqlite3

import pytest

from hpcc.audit.base.canonical import Record, encode_record
from hpcc.audit.base.query import Query, matches
from hpcc.audit.base.segments import Placed
from hpcc.audit.lookup import open_index
from hpcc.audit.lookup.index import IndexBuilder, SegmentIndex
from hpcc.audit.lookup.open_index import OpenIndex
from hpcc_testkit.farm.audit_rows import row


def records(count: int, **changes: object) -> list[Record]:
    found: list[Record] = []
    for number in range(count):
        previous = found[-1].hash if found else "0" * 64
        content = row(number, **changes)
        found.append(encode_record(content, sequence=number, previous=previous, worker="w1"))
    return found


def placed(found: list[Record]) -> list[Placed]:
    return [Placed(0, 100 * record.sequence, record) for record in found]


def test_an_index_that_lacks_a_record_is_not_used() -> None:
    index = OpenIndex()
    index.begin()
    index.add(placed(records(3))[:2])
    assert index.facts_or_none(3) is None
    assert index.facts_or_none(2) is not None
    index.close()
    assert index.facts_or_none(0) is None


def test_a_database_that_fails_once_ends_the_index_and_no_record(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    index = OpenIndex()
    index.begin()

    def full(*_: object) -> None:
        raise sqlite3.OperationalError("database or disk is full")

    with monkeypatch.context() as patch:
        patch.setattr(IndexBuilder, "_note_time", full)
        patch.setattr(open_index, "_MAX_WAITING", 1)
        index.add(placed(records(1)))
    index.add(placed(records(2))[1:])
    assert index.facts_or_none(2) is None


def test_the_same_records_give_the_same_bytes_however_they_were_added() -> None:
    found, made = placed(records(9)), []
    for sizes in ((9,), (1,) * 9, (4, 5)):
        index, begin = OpenIndex(), 0
        index.begin()
        for size in sizes:
            index.add(found[begin : begin + size])
            begin += size
        facts = index.facts_or_none(9)
        assert facts is not None
        made.append(facts.data)
        index.close()
    assert len(set(made)) == 1


@pytest.mark.parametrize(
    "changes",
    [
        {"started_at": float(1 << 60)},
        {"started_at": (1 << 53) + 1},
        {"exit_code": 1 << 70},
        {"principal": "a\0b"},
        {"principal": "x" * 500},
        {"row_id": "\ud800" * 40},
    ],
)
def test_an_index_finds_each_record_that_matches(changes: dict[str, object]) -> None:
    """What its types cannot hold is found too often, never too rarely."""
    found = records(3, **changes)
    builder = IndexBuilder()
    builder.add((10 * r.sequence, r) for r in found)
    index = SegmentIndex(builder.facts().data)
    builder.close()
    for name, value in changes.items():
        condition = {"started_at": "since"}.get(name, name)
        query = Query(**{condition: value})  # type: ignore[arg-type]  # built by name
        wanted = [r.sequence for r in found if matches(r, query)]
        assert {f.sequence for f in index.find(query, oldest_first=True)} >= set(wanted)
        assert wanted == [0, 1, 2] or name == "row_id"
    index.close()
