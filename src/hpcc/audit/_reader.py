"""What the command line asks of a trail."""

from __future__ import annotations

from collections.abc import Generator
from contextlib import contextmanager
from pathlib import Path

from hpcc.audit._canonical import GENESIS
from hpcc.audit._index import AuditIndex
from hpcc.audit._spool import read_placed, spool_path
from hpcc.core import NotFoundError


@contextmanager
def open_index(directory: Path) -> Generator[AuditIndex]:
    """Give the index, filled up to the end of the spool.

    Raises:
        NotFoundError: nothing was recorded here yet.
        AuditDamagedError: the trail was changed.
    """
    _require(directory)
    index = AuditIndex(directory)
    try:
        index.catch_up(directory)
        yield index
    finally:
        index.close()


def verify_chain(directory: Path) -> tuple[int, str]:
    """Read the whole trail; return the count of records and the hash of the last.

    Raises:
        NotFoundError: nothing was recorded here yet.
        AuditDamagedError: a record was changed, removed or put in.
    """
    _require(directory)
    count, head = 0, GENESIS
    with spool_path(directory).open("rb") as file:
        for _, record in read_placed(file):
            count, head = record.sequence + 1, record.hash
    return count, head


def _require(directory: Path) -> None:
    if not spool_path(directory).is_file():
        raise NotFoundError(f"no audit trail in {directory}: nothing was compiled remotely yet")
