"""Chains of records, and the end of an empty trail, for tests of a signer."""

from __future__ import annotations

from typing import Final

from hpcc.audit.base.canonical import GENESIS, encode_record
from hpcc.audit.base.trail_signer import TrailEnd
from hpcc.audit.tree.head import start_leaf
from hpcc_testkit.farm.audit_rows import row

START: Final = start_leaf(0, GENESIS)
EMPTY: Final = TrailEnd(
    count=0, head=GENESIS, tree_first=0, peaks=(START,), first=0, previous=GENESIS, size_bytes=0,
    signed_from=None,
)  # fmt: skip


def chain(count: int, *, start: int = 0, previous: str = GENESIS, base: int = 0) -> list[bytes]:
    """Return `count` records from number `start` on; another `base` gives other bytes."""
    found: list[bytes] = []
    for number in range(start, start + count):
        record = encode_record(row(base + number), sequence=number, previous=previous, worker="w1")
        found.append(record.data)
        previous = record.hash
    return found
