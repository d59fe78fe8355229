"""The index of one segment: a SQLite database without the records, only what finds them.

It is made in memory while the segment is open, written when the segment is sealed, and never
changed. A reader takes the whole file into memory, compares it with the signed digest, and only
then gives it to SQLite. So no file can change between check and use, and SQLite opens, locks and
creates nothing.

Long texts are cut, so an index finds more than a query asks for. `query.matches` decides.
"""

from __future__ import annotations

import functools
import sqlite3
from collections.abc import Generator, Iterable, Iterator
from contextlib import closing, contextmanager
from dataclasses import dataclass
from itertools import islice
from typing import Final

from hpcc.audit.base.canonical import AuditDamagedError, Record
from hpcc.audit.base.index_statement import IndexFacts
from hpcc.audit.base.query import EQUAL, MAX_TIME, Query, output_digests, text_of
from hpcc.core import InfrastructureError

_VERSION: Final = 1
# Small, because a segment that was sealed by age may have few records.
_PAGE_BYTES: Final = 1024
# Texts that repeat are in one table, and a record has their numbers.
_SHARED: Final = (
    "worker", "tenant", "principal", "build_id", "image_digest", "cache_status", "guest_id",
    "isolation", "reuse", "reason", "name", "peer",
)  # fmt: skip
# Texts that are different in each record. Their beginning is enough to find it.
_UNIQUE: Final = ("row_id", "action_digest", "request_id")
_SHARED_CHARS: Final = 128
_UNIQUE_CHARS: Final = 16
_KINDS: Final = {"row": 0, "event": 1}
_MAX_EXACT: Final = 1 << 53
_MAX_CODE: Final = (1 << 63) - 1
# The columns are in the order of `_columns`.
_SCHEMA: Final = (
    "CREATE TABLE text (id INTEGER PRIMARY KEY, value TEXT NOT NULL) STRICT",
    "CREATE TABLE record (sequence INTEGER PRIMARY KEY, place INTEGER NOT NULL, hash BLOB NOT NULL,"
    " kind INTEGER NOT NULL, at REAL, exit_code INTEGER, "
    + ", ".join(f"{n} TEXT NOT NULL" for n in _UNIQUE) + ", "
    + ", ".join(f"{n} INTEGER NOT NULL" for n in _SHARED) + ") STRICT",
    "CREATE TABLE output (sequence INTEGER NOT NULL, digest TEXT NOT NULL) STRICT",
)  # fmt: skip
# Of SQLite's steps for each byte of an index. Honest ones need less than a tenth.
_STEPS_PER_BYTE: Final = 100
_MIN_STEPS: Final = 1_000_000
_LEAST_ROW_BYTES: Final = 4
_STEPS_AT_ONCE: Final = 10_000
_HASH_BYTES: Final = 32
_COLUMNS: Final = 6 + len(_UNIQUE) + len(_SHARED)


@dataclass(frozen=True, slots=True)
class FoundRecord:
    """Where a record is that an index found, and the hash that it must have there."""

    sequence: int
    place: int
    hash: str


class IndexBuilder:
    """Collects the records of one segment in order. Not thread-safe; any thread may use it.

    Raises:
        InfrastructureError: reason `audit-index`, from each method: the database failed.
    """

    def __init__(self) -> None:
        """Begin an empty index in memory."""
        self.count = 0
        self._texts: dict[str, int] = {}
        self._since, self._until = MAX_TIME, -MAX_TIME
        with database_errors():
            self._db = sqlite3.connect(":memory:", check_same_thread=False)
            self._db.execute(f"PRAGMA page_size = {_PAGE_BYTES}")
            self._db.execute(f"PRAGMA user_version = {_VERSION}")
            for statement in _SCHEMA:
                self._db.execute(statement)
            self._db.commit()

    @property
    def size_bytes(self) -> int:
        """Return about how many bytes the index will have."""
        with database_errors():
            (pages,) = self._db.execute("PRAGMA page_count").fetchone()
        return int(pages) * _PAGE_BYTES

    def add(self, placed: Iterable[tuple[int, Record]]) -> None:
        """Add records with the offsets of their frames in the segment."""
        with database_errors(), self._db:
            for place, record in placed:
                for number, text in self._new_texts(record):
                    self._db.execute("INSERT INTO text VALUES (?, ?)", (number, text))
                columns = _columns(place, record, self._texts)
                self._note_time(columns[4])
                marks = ", ".join("?" * _COLUMNS)
                self._db.execute(f"INSERT INTO record VALUES ({marks})", columns)  # noqa: S608 - only marks
                self._db.executemany("INSERT INTO output VALUES (?, ?)", _outputs(record))
                self.count += 1

    def _new_texts(self, record: Record) -> Iterator[tuple[int, str]]:
        for text in _shared_texts(record):
            if text not in self._texts:
                self._texts[text] = len(self._texts)
                yield self._texts[text], text

    def _note_time(self, at: object) -> None:
        low, high = (at, at) if isinstance(at, float) else (-MAX_TIME, MAX_TIME)
        self._since, self._until = min(self._since, low), max(self._until, high)

    def facts(self) -> IndexFacts:
        """Return the index as a file, the same for the same records, and its times."""
        with database_errors():
            self._db.execute("VACUUM")
            return IndexFacts(data=self._db.serialize(), since=self._since, until=self._until)

    def close(self) -> None:
        """Free the memory."""
        self._db.close()


def _columns(place: int, record: Record, texts: dict[str, int]) -> tuple[object, ...]:
    body = record.body
    code = body.get("exit_code")
    return (
        record.sequence, place, bytes.fromhex(record.hash), _KINDS[record.kind], _time(record),
        _bounded(code) if type(code) is int else None,
        *(_cut(body.get(n, ""), _UNIQUE_CHARS) for n in _UNIQUE),
        *(texts[t] for t in _shared_texts(record)),
    )  # fmt: skip


def _time(record: Record) -> float | None:
    """Return the time of a record; None if a comparison of doubles could miss it."""
    at = record.body.get("started_at" if record.kind == "row" else "at")
    if type(at) is int and abs(at) <= _MAX_EXACT:
        return float(at)
    return at if type(at) is float and -MAX_TIME < at < MAX_TIME else None


def _bounded(number: int) -> int:
    return min(max(number, -_MAX_CODE), _MAX_CODE)


def _shared_texts(record: Record) -> Iterator[str]:
    yield _cut(record.worker, _SHARED_CHARS)
    for name in _SHARED[1:]:
        yield _cut(record.body.get(name, ""), _SHARED_CHARS)


def _outputs(record: Record) -> Iterator[tuple[int, str]]:
    for digest in output_digests(record):
        yield record.sequence, _cut(digest, _UNIQUE_CHARS)


def _cut(value: object, chars: int) -> str:
    """Return the beginning of a text, without the character that ends a text for SQLite.

    Each character is replaced by one, so that a prefix stays a prefix.
    """
    return text_of(value)[:chars].replace("\0", "?")


class SegmentIndex:
    """An index that is open for reading, in memory."""

    def __init__(self, data: bytes) -> None:
        """Open an index whose bytes are the sealed ones.

        Raises:
            AuditDamagedError: it is not an index of this version.
        """
        self._db = sqlite3.connect(":memory:")
        try:
            self._db.deserialize(data)
            # Its pages can name one another so often that a worker's forged one has no end.
            self._most_rows = len(data) // _LEAST_ROW_BYTES
            self._steps = max(len(data) * _STEPS_PER_BYTE, _MIN_STEPS)
            self._db.set_progress_handler(self._is_too_much, _STEPS_AT_ONCE)
            self._db.execute("PRAGMA trusted_schema = OFF")
            self._db.execute("PRAGMA cell_size_check = ON")
            self._db.execute("PRAGMA query_only = ON")
            (version,) = self._db.execute("PRAGMA user_version").fetchone()
            # A view or a trigger could show other records than the table has.
            is_ours = version == _VERSION and _objects(self._db) == _own_objects()
        except (sqlite3.Error, OverflowError) as error:
            self._db.close()
            raise AuditDamagedError(f"the sealed index cannot be read: {error}") from error
        if not is_ours:
            self._db.close()
            raise AuditDamagedError("the sealed index has other tables than hpcc's")

    def find(self, query: Query, *, oldest_first: bool) -> Iterator[FoundRecord]:
        """Yield where the records are that may match, in order.

        Raises:
            AuditDamagedError: it cannot be read.
        """
        where, values = _conditions(query)
        order = "ASC" if oldest_first else "DESC"
        sql = f"SELECT sequence, place, hash FROM record WHERE {where} ORDER BY sequence {order}"  # noqa: S608 - constant names; values are bound
        with _damage():
            last = None
            for sequence, place, digest in self._db.execute(sql, values):
                step = 1 if last is None or oldest_first else -1
                is_in_order = last is None or (sequence - last) * step > 0
                if not (
                    is_in_order
                    and type(place) is int
                    and place >= 0
                    and isinstance(digest, bytes)
                    and len(digest) == _HASH_BYTES
                ):
                    raise AuditDamagedError("the sealed index has a record twice, or of no form")
                last = sequence
                yield FoundRecord(sequence, place, digest.hex())

    def _is_too_much(self) -> bool:
        self._steps -= _STEPS_AT_ONCE
        return self._steps < 0

    def rows(self) -> Iterator[tuple[object, ...]]:
        """Yield all records in order, as `index_row` makes them.

        Raises:
            AuditDamagedError: it cannot be read.
        """
        with _damage():
            texts = dict(self._db.execute("SELECT id, value FROM text"))
            rows = self._db.execute("SELECT sequence, digest FROM output ORDER BY rowid")
            outputs = islice(rows, self._most_rows)
            pending = next(outputs, None)
            for row in self._db.execute("SELECT * FROM record ORDER BY sequence"):
                found = []
                while pending is not None and pending[0] == row[0]:
                    found.append(pending[1])
                    pending = next(outputs, None)
                shared = (texts.get(number) for number in row[-len(_SHARED) :])
                yield *row[: -len(_SHARED)], *shared, tuple(found)
            if pending is not None:
                raise AuditDamagedError("the sealed index has outputs of no record")

    def close(self) -> None:
        """Free the memory."""
        self._db.close()


def index_row(place: int, record: Record) -> tuple[object, ...]:
    """Return what an index must have of a record."""
    plain = _columns(place, record, dict.fromkeys(_shared_texts(record), 0))
    return (
        *plain[: -len(_SHARED)], *_shared_texts(record),
        tuple(digest for _, digest in _outputs(record)),
    )  # fmt: skip


def _conditions(query: Query) -> tuple[str, list[object]]:
    """Return a condition that every record meets that `matches` accepts, and its values."""
    terms, values = ["kind = ?", "(at IS NULL OR at >= ?)"], [_KINDS[query.kind], query.since]
    found: list[tuple[str, object]] = []
    if query.until is not None:
        found.append(("(at IS NULL OR at < ?)", query.until))
    if query.exit_code is not None:
        found.append(("exit_code = ?", _bounded(query.exit_code)))
    for name in (*EQUAL, "worker"):
        found += _equal(name, getattr(query, name))
    for name in ("image_digest", "guest_id", "peer"):
        if start := _cut(getattr(query, name), _SHARED_CHARS):
            found.append(
                (
                    f"{name} IN (SELECT id FROM text WHERE substr(value, 1, {len(start)}) = ?)",  # noqa: S608 - constant names
                    start,
                )
            )
    for name in ("row_id", "action_digest"):
        if start := _cut(getattr(query, name), _UNIQUE_CHARS):
            found.append((f"substr({name}, 1, {len(start)}) = ?", start))
    if start := _cut(query.object_digest, _UNIQUE_CHARS):
        found.append(
            (
                "sequence IN (SELECT sequence FROM output"  # noqa: S608 - constant names
                f" WHERE substr(digest, 1, {len(start)}) = ?)",
                start,
            )
        )
    terms += [term for term, _ in found]
    return " AND ".join(terms), [*values, *(value for _, value in found)]


def _equal(name: str, text: str) -> list[tuple[str, object]]:
    if not text:
        return []
    if name in _UNIQUE:
        return [(f"{name} = ?", _cut(text, _UNIQUE_CHARS))]
    return [
        (f"{name} IN (SELECT id FROM text WHERE value = ?)", _cut(text, _SHARED_CHARS))  # noqa: S608 - constant names
    ]


def _objects(db: sqlite3.Connection) -> list[tuple[str, ...]]:
    return db.execute(
        "SELECT type, name, tbl_name, sql FROM sqlite_master ORDER BY type, name"
    ).fetchall()


@functools.cache
def _own_objects() -> list[tuple[str, ...]]:
    with closing(sqlite3.connect(":memory:")) as db:
        for statement in _SCHEMA:
            db.execute(statement)
        return _objects(db)


@contextmanager
def database_errors() -> Generator[None]:
    """Map SQLite's errors to ours.

    Raises:
        InfrastructureError: reason `audit-index`: the database failed.
    """
    try:
        yield
    except (sqlite3.Error, MemoryError) as error:
        raise InfrastructureError(f"audit index: {error}", reason="audit-index") from error


@contextmanager
def _damage() -> Generator[None]:
    try:
        yield
    except (sqlite3.Error, OverflowError, TypeError, ValueError) as error:
        raise AuditDamagedError(f"the sealed index cannot be read: {error}") from error
