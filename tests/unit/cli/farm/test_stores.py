"""The counters of shared stores reach the command line from a worker."""

from __future__ import annotations

import json
from collections import Counter
from pathlib import Path

import pytest

from hpcc.cli.farm.stores import lines
from hpcc.core import CallerError, NotFoundError
from hpcc.ports import SystemClock
from hpcc.worker.stores.store_stats import STORES_NAME, StoreStats, read_stores_report


async def test_what_was_counted_is_read_again(tmp_path: Path) -> None:
    counters = {"acme": Counter({"get.calls": 2, "get.ms": 5})}
    book = StoreStats(tmp_path, lambda: counters, SystemClock())
    with pytest.raises(NotFoundError):
        read_stores_report(tmp_path)
    await book.write()
    first = read_stores_report(tmp_path)
    assert first.tenants == {"acme": {"get.calls": 2, "get.ms": 5}}
    assert first.since <= first.at
    await book.write()
    assert read_stores_report(tmp_path) == first
    counters["acme"]["put.calls"] += 1
    await book.write()
    assert read_stores_report(tmp_path).tenants["acme"]["put.calls"] == 1
    assert (tmp_path / STORES_NAME).stat().st_mode & 0o777 == 0o600


@pytest.mark.parametrize(
    "text",
    [
        "",
        "[]",
        "{}",
        '{"tenants": []}',
        json.dumps({"format": 2, "since": 0, "at": 0, "tenants": {}}),
        '{"format": 1, "since": 1%s, "at": 0, "tenants": {}}' % ("0" * 400),
        '{"format": 1, "since": 0, "at": 0, "tenants": {"acme": {"get.calls": Infinity}}}',
    ],
)
def test_what_is_no_report_is_refused(tmp_path: Path, text: str) -> None:
    (tmp_path / STORES_NAME).write_text(text)
    with pytest.raises(CallerError):
        read_stores_report(tmp_path)


def test_calls_come_first_and_nothing_is_left_out() -> None:
    counts = {
        "get.calls": 1200, "get.ms": 2400, "get.bytes": 3_000_000, "get.absent": 4,
        "get.failed.store-timeout": 3, "lost-result.closed": 1, "put.calls": 0, "nothing": 0,
    }  # fmt: skip
    call, *rest = lines(counts)
    assert call.split(maxsplit=2)[2] == "calls, 2.0 ms each, 3.0 MB, 4 absent"
    assert [line.split() for line in rest] == [
        ["get.failed.store-timeout", "3"],
        ["lost-result.closed", "1"],
    ]
