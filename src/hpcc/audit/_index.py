"""SQLite beside the spool: a query index that can be thrown away and filled again."""

from __future__ import annotations

import itertools
import sqlite3
from collections.abc import Iterable, Iterator
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO, Final

from hpcc.audit._canonical import (
    GENESIS,
    AuditDamagedError,
    Record,
    decode_record,
    record_hash,
)
from hpcc.audit._spool import read_frames, read_placed, spool_path
from hpcc.core import CallerError, InfrastructureError, NotFoundError

INDEX_NAME: Final = "index.sqlite"
_SCHEMA_VERSION: Final = 1
_BATCH: Final = 500
_BUSY_SECONDS: Final = 10.0
_SCHEMA: Final = """
CREATE TABLE IF NOT EXISTS record (
  sequence INTEGER PRIMARY KEY,
  kind TEXT NOT NULL,
  row_id TEXT,
  at REAL NOT NULL,
  tenant TEXT NOT NULL,
  principal TEXT NOT NULL,
  action_digest TEXT NOT NULL,
  cache_status TEXT NOT NULL,
  isolation TEXT NOT NULL,
  name TEXT NOT NULL,
  hash TEXT NOT NULL,
  place INTEGER NOT NULL,
  data BLOB NOT NULL
) STRICT;
CREATE UNIQUE INDEX IF NOT EXISTS record_row_id ON record (row_id) WHERE row_id IS NOT NULL;
CREATE INDEX IF NOT EXISTS record_at ON record (kind, at);
"""


@dataclass(frozen=True, slots=True, kw_only=True)
class Query:
    """What to list; `since` is seconds since the epoch. Newest first, at most `limit`."""

    kind: str = "row"
    tenant: str = ""
    since: float = 0.0
    limit: int = 100


class AuditIndex:
    """The index of one audit directory; writer and readers fill it alike. Not thread-safe."""

    def __init__(self, directory: Path) -> None:
        path = directory / INDEX_NAME
        try:
            # Used by one task at a time, from whichever thread that runs in.
            self._db = sqlite3.connect(path, check_same_thread=False, timeout=_BUSY_SECONDS)
            self._create()
        except sqlite3.Error as error:
            raise InfrastructureError(f"cannot open {path}: {error}", reason="audit") from error

    def _create(self) -> None:
        self._db.execute("PRAGMA journal_mode = WAL")
        # The spool is the durable copy; a lost tail of the index is filled from it.
        self._db.execute("PRAGMA synchronous = NORMAL")
        (version,) = self._db.execute("PRAGMA user_version").fetchone()
        if version not in {0, _SCHEMA_VERSION}:
            self._db.execute("DROP TABLE IF EXISTS record")
        self._db.executescript(_SCHEMA)
        self._db.execute(f"PRAGMA user_version = {_SCHEMA_VERSION}")
        self._db.commit()

    def add(self, placed: Iterable[tuple[int, Record]]) -> None:
        """Add records with the offsets of their frames in the spool."""
        try:
            with self._db:
                self._db.executemany(
                    "INSERT OR REPLACE INTO record VALUES (?,?,?,?,?,?,?,?,?,?,?,?,?)",
                    (_columns(offset, record) for offset, record in placed),
                )
        except sqlite3.Error as error:
            raise InfrastructureError(f"audit index: {error}", reason="audit-index") from error

    def catch_up(self, directory: Path) -> int:
        """Add what the spool has and the index lacks; an index of another spool starts anew."""
        with spool_path(directory).open("rb") as file:
            sequence, head = self._seek(file)
            added = 0
            for batch in itertools.batched(read_placed(file, sequence=sequence, head=head), _BATCH):
                self.add(batch)
                added += len(batch)
        return added

    def _seek(self, file: BinaryIO) -> tuple[int, str]:
        """Go behind the last record that the index has, proved to be the one in the file."""
        last = self._db.execute(
            "SELECT sequence, hash, place FROM record ORDER BY sequence DESC LIMIT 1"
        ).fetchone()
        if last is None:
            return 0, GENESIS
        sequence, head, place = last
        file.seek(place)
        with suppress(AuditDamagedError):
            for offset, data in read_frames(file):
                if record_hash(data) == head:
                    file.seek(offset)
                    return sequence + 1, head
                break
        with self._db:
            self._db.execute("DELETE FROM record")
        file.seek(0)
        return 0, GENESIS

    def find(self, query: Query, *, oldest_first: bool = False) -> Iterator[Record]:
        """Yield records, newest first unless told otherwise."""
        rows = self._db.execute(
            "SELECT data FROM record WHERE kind = ? AND at >= ? AND (? = '' OR tenant = ?)"
            " ORDER BY CASE WHEN ? THEN sequence ELSE -sequence END LIMIT ?",
            (query.kind, query.since, query.tenant, query.tenant, oldest_first, query.limit),
        )
        for (data,) in rows:
            yield decode_record(data)

    def row(self, row_id: str) -> Record:
        """Return the row whose id starts with `row_id`.

        Raises:
            NotFoundError: there is none.
            CallerError: several rows start so.
        """
        escaped = row_id.replace("\\", "\\\\").replace("%", r"\%").replace("_", r"\_")
        rows = self._db.execute(
            r"SELECT data FROM record WHERE row_id LIKE ? ESCAPE '\' LIMIT 2", (f"{escaped}%",)
        ).fetchall()
        if not rows:
            raise NotFoundError(f"no audit row {row_id[:80]!r}: see `hpcc audit list`")
        if len(rows) > 1:
            raise CallerError(f"several audit rows start with {row_id[:80]!r}: give more of it")
        return decode_record(rows[0][0])

    def close(self) -> None:
        self._db.close()


def _columns(place: int, record: Record) -> tuple[object, ...]:
    body = record.body
    is_row = record.kind == "row"
    return (
        record.sequence, record.kind, body["row_id"] if is_row else None,
        body["started_at"] if is_row else body["at"], body["tenant"],
        body.get("principal", ""), body.get("action_digest", ""), body.get("cache_status", ""),
        body.get("isolation", ""), body.get("name", ""), record.hash, place, record.data,
    )  # fmt: skip
