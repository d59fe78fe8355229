"""The SQLite index beside the spool. It serves queries and can be deleted and rebuilt."""

from __future__ import annotations

import functools
import sqlite3
from collections.abc import Generator, Iterable, Iterator
from contextlib import closing, contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from hpcc.audit.canonical import AuditDamagedError, Record, decode_record, record_hash
from hpcc.audit.segments import (
    Placed,
    open_trail_file,
    read_frames,
    seals,
    segment_path,
    spool_path,
)
from hpcc.audit.trail import Retired, TrailStart, first_kept, walk
from hpcc.core import CallerError, InfrastructureError, NotFoundError
from hpcc.files.disk import full_disk

INDEX_NAME: Final = "index.sqlite"
_SCHEMA_VERSION: Final = 3
# A batch is added when it has this many records or bytes. This bounds memory while filling.
_BATCH: Final = 500
_BATCH_BYTES: Final = 8 << 20
_BUSY_SECONDS: Final = 10.0
_MAX_TIME: Final = float(1 << 63)
_TEXTS: Final = (
    "tenant", "principal", "build_id", "action_digest", "image_digest", "cache_status", "guest_id",
    "isolation", "reuse", "reason", "name", "peer", "request_id",
)  # fmt: skip
_SCHEMA: Final = f"""
CREATE TABLE IF NOT EXISTS record (
  sequence INTEGER PRIMARY KEY,
  kind TEXT NOT NULL,
  row_id TEXT,
  at REAL NOT NULL,
  exit_code INTEGER,
  worker TEXT NOT NULL,
  {" TEXT NOT NULL, ".join(_TEXTS)} TEXT NOT NULL,
  hash TEXT NOT NULL,
  segment INTEGER NOT NULL,
  place INTEGER NOT NULL,
  data BLOB NOT NULL
) STRICT;
CREATE INDEX IF NOT EXISTS record_row_id ON record (row_id) WHERE row_id IS NOT NULL;
CREATE INDEX IF NOT EXISTS record_at ON record (kind, at);
CREATE INDEX IF NOT EXISTS record_tenant ON record (tenant, at);
CREATE INDEX IF NOT EXISTS record_action ON record (action_digest);
"""
_COLUMNS: Final = (
    "sequence", "kind", "row_id", "at", "exit_code", "worker", *_TEXTS, "hash", "segment", "place",
    "data",
)  # fmt: skip
_INSERT: Final = (
    f"INSERT OR REPLACE INTO record ({', '.join(_COLUMNS)})"  # noqa: S608 - constant names
    f" VALUES ({', '.join('?' * len(_COLUMNS))})"
)


@dataclass(frozen=True, slots=True, kw_only=True)
class Query:
    """The conditions of a listing of at most `limit` records; empty texts and None set none.

    `since` (included) and `until` (excluded) are seconds since the epoch. `action_digest`,
    `image_digest`, `guest_id` and `peer` match by prefix, so that a part that a person copied is
    enough.
    """

    kind: str = "row"
    tenant: str = ""
    principal: str = ""
    build_id: str = ""
    action_digest: str = ""
    image_digest: str = ""
    guest_id: str = ""
    worker: str = ""
    isolation: str = ""
    reuse: str = ""
    cache_status: str = ""
    reason: str = ""
    name: str = ""
    peer: str = ""
    request_id: str = ""
    exit_code: int | None = None
    since: float = 0.0
    until: float | None = None
    limit: int = 100


_EQUAL: Final = (
    "tenant", "principal", "build_id", "worker", "isolation", "reuse", "cache_status", "reason",
    "name", "request_id",
)  # fmt: skip
_STARTS: Final = ("action_digest", "image_digest", "guest_id", "peer")


class AuditIndex:
    """The index of one audit directory. The writer and readers fill it. Not thread-safe."""

    def __init__(self, directory: Path, *, is_kept: bool = True) -> None:
        """Open the index beside the trail, or a temporary one if `is_kept` is false.

        Raises:
            InfrastructureError: it cannot be opened.
        """
        path = directory / INDEX_NAME
        db = None
        try:
            if is_kept and not path.exists():
                # The same mode as the trail's files. SQLite would use the umask.
                path.touch(mode=0o600)
            # One task at a time uses it, from any thread.
            self._db = db = sqlite3.connect(
                path if is_kept else "", check_same_thread=False, timeout=_BUSY_SECONDS
            )
            self._create()
        except (OSError, sqlite3.Error) as error:
            if db is not None:
                db.close()
            remedy = full_disk(path) or "delete it, it is made again"
            raise InfrastructureError(
                f"cannot open {path}: {error}; {remedy}", reason="audit"
            ) from error

    def _create(self) -> None:
        self._db.execute("PRAGMA journal_mode = WAL")
        # The spool is the durable copy. `catch_up` fills a lost tail of the index from it.
        self._db.execute("PRAGMA synchronous = NORMAL")
        (version,) = self._db.execute("PRAGMA user_version").fetchone()
        if version not in {0, _SCHEMA_VERSION}:
            self._db.execute("DROP TABLE IF EXISTS record")
        self._db.executescript(_SCHEMA)
        self._db.execute(f"PRAGMA user_version = {_SCHEMA_VERSION}")
        self._db.commit()
        # A view or a trigger could show other records than the trail has.
        if _objects(self._db) != _own_objects():
            raise sqlite3.DatabaseError("it has other tables than hpcc's")

    def add(self, placed: Iterable[Placed]) -> None:
        """Add records with the places of their frames in the spool.

        Raises:
            AuditDamagedError: a record is neither a row nor an event.
            InfrastructureError: reason `audit-index`: the database failed.
        """
        try:
            with self._db:
                self._db.executemany(_INSERT, map(columns_of, placed))
        except sqlite3.Error as error:
            raise InfrastructureError(f"audit index: {error}", reason="audit-index") from error

    def forget(self, before: int) -> None:
        """Delete the records below number `before`, which retention removed from the trail.

        Raises:
            InfrastructureError: reason `audit-index`: the database failed.
        """
        try:
            with self._db:
                self._db.execute("DELETE FROM record WHERE sequence < ?", (before,))
        except sqlite3.Error as error:
            raise InfrastructureError(f"audit index: {error}", reason="audit-index") from error

    def catch_up(self, directory: Path) -> int:
        """Add the records that the index lacks; return how many.

        An index of another spool is emptied first.

        Raises:
            AuditDamagedError: the trail was changed.
            InfrastructureError: the database failed.
        """
        added, size = 0, 0
        batch: list[Placed] = []
        with database_errors():
            start = self._start(directory)
            (oldest,) = self._db.execute("SELECT min(sequence) FROM record").fetchone()
        kept = first_kept(directory)
        if oldest is not None and oldest < kept:
            self.forget(kept)
        for item in walk(directory, start):
            if isinstance(item, Retired):
                continue
            batch.append(item)
            size += len(item.record.data)
            if len(batch) >= _BATCH or size >= _BATCH_BYTES:
                self.add(batch)
                added, size, batch = added + len(batch), 0, []
        self.add(batch)
        return added + len(batch)

    def _start(self, directory: Path) -> TrailStart:
        """Return the place after the index's last record, if the trail still has that record."""
        last = self._db.execute(
            "SELECT sequence, hash, segment, place FROM record ORDER BY sequence DESC LIMIT 1"
        ).fetchone()
        if last is None:
            return TrailStart()
        start = _proved_or_none(directory, *last)
        if start is None:
            with self._db:
                self._db.execute("DELETE FROM record")
        return start or TrailStart()

    def find(self, query: Query, *, oldest_first: bool = False) -> Iterator[Record]:
        """Yield the records that match, newest first unless `oldest_first`."""
        where, values = _conditions(query)
        with database_errors():
            rows = self._db.execute(
                f"SELECT data FROM record WHERE {where} ORDER BY"  # noqa: S608 - constant names; values are bound
                f" sequence {'ASC' if oldest_first else 'DESC'} LIMIT ?",
                (*values, query.limit),
            )
            for (data,) in rows:
                yield decode_record(data)

    def stored(self) -> Iterator[tuple[object, ...]]:
        """Return the columns of all records in order, as they are when the first is taken.

        The iterator raises SQLite's errors: see `database_errors`.
        """
        with database_errors():
            return self._db.execute(
                f"SELECT {', '.join(_COLUMNS)} FROM record ORDER BY sequence"  # noqa: S608 - ours
            )

    def row(self, row_id: str) -> Record:
        """Return the row whose id starts with `row_id`.

        Raises:
            NotFoundError: there is no such row.
            CallerError: several rows start with it.
        """
        with database_errors():
            rows = self._db.execute(
                r"SELECT data FROM record WHERE row_id LIKE ? ESCAPE '\' LIMIT 2",
                (_starts(row_id),),
            ).fetchall()
        if not rows:
            raise NotFoundError(f"no audit row {row_id[:80]!r}: see `hpcc audit list`")
        if len(rows) > 1:
            raise CallerError(f"several audit rows start with {row_id[:80]!r}: give more of it")
        return decode_record(rows[0][0])

    def close(self) -> None:
        """Close the database."""
        self._db.close()


def _objects(db: sqlite3.Connection) -> list[tuple[str, ...]]:
    return db.execute(
        "SELECT type, name, tbl_name, sql FROM sqlite_master ORDER BY type, name"
    ).fetchall()


@functools.cache
def _own_objects() -> list[tuple[str, ...]]:
    with closing(sqlite3.connect(":memory:")) as db:
        db.executescript(_SCHEMA)
        return _objects(db)


@contextmanager
def database_errors() -> Generator[None]:
    """Map SQLite's errors to ours.

    Raises:
        InfrastructureError: reason `audit-index`: the database failed.
    """
    try:
        yield
    except sqlite3.Error as error:
        raise InfrastructureError(
            f"audit index: {error}; delete {INDEX_NAME}, it is made again", reason="audit-index"
        ) from error


def _proved_or_none(
    directory: Path, sequence: int, head: str, segment: int, place: int
) -> TrailStart | None:
    """Return the place after this record; None if the trail does not have it there."""
    previous = "0" * 64
    with suppress(AuditDamagedError):
        for seal in seals(directory):
            if seal.end > segment:
                break
            previous = seal.signed.head
        for path in (segment_path(directory, segment), spool_path(directory)):
            with suppress(FileNotFoundError), open_trail_file(path) as file:
                file.seek(place)
                for after, data in read_frames(file):
                    if record_hash(data) == head:
                        return TrailStart(segment, previous, after, sequence + 1, head)
                    break
    return None


def _conditions(query: Query) -> tuple[str, list[object]]:
    terms, values = ["kind = ?", "at >= ?"], [query.kind, query.since]
    conditions: list[tuple[str, object]] = [
        *((f"{name} = ?", getattr(query, name)) for name in _EQUAL if getattr(query, name)),
        *(
            (rf"{name} LIKE ? ESCAPE '\'", _starts(getattr(query, name)))
            for name in _STARTS
            if getattr(query, name)
        ),
    ]
    if query.exit_code is not None:
        conditions.append(("exit_code = ?", query.exit_code))
    if query.until is not None:
        conditions.append(("at < ?", query.until))
    terms += [term for term, _ in conditions]
    return " AND ".join(terms), [*values, *(value for _, value in conditions)]


def _starts(text: str) -> str:
    escaped = text.replace("\\", "\\\\").replace("%", r"\%").replace("_", r"\_")
    return f"{escaped}%"


def columns_of(placed: Placed) -> tuple[object, ...]:
    """Return a record's columns.

    Raises:
        AuditDamagedError: one of them has another type.
    """
    record = placed.record
    body = record.body
    row_id, at, exit_code = None, body.get("at"), None
    if record.kind == "row":
        row_id, at, exit_code = body.get("row_id"), body.get("started_at"), body.get("exit_code")
        if not isinstance(row_id, str) or type(exit_code) is not int:
            raise AuditDamagedError(f"record {record.sequence} is no row")
        row_id, exit_code = _text(row_id), min(max(exit_code, -(1 << 63)), (1 << 63) - 1)
    if not isinstance(at, int | float) or not -_MAX_TIME < at < _MAX_TIME:
        raise AuditDamagedError(f"record {record.sequence} has no time")
    return (
        record.sequence, record.kind, row_id, at, exit_code, _text(record.worker),
        *(_text(body.get(name, "")) for name in _TEXTS), record.hash, placed.segment,
        placed.place, record.data,
    )  # fmt: skip


def _text(value: object) -> str:
    """Replace what SQLite's text type cannot hold; `data` keeps the original."""
    return str(value).encode("utf-8", "replace").decode()
