"""The control store of one scheduler: SQLite in its process, leases in its memory."""

from __future__ import annotations

import asyncio
import secrets
import sqlite3
import threading
from collections.abc import AsyncGenerator, Callable, Generator, Mapping, Sequence
from contextlib import aclosing, contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Final, Self

from hpcc.control.checks import check_name, check_news, check_value, victim
from hpcc.control.fanout import Fanout
from hpcc.control.shares import check_asks, deal
from hpcc.core import CallerError
from hpcc.core.memo import BoundedMemo
from hpcc.files.disk import full_disk
from hpcc.ports import (
    ENTRY_TOPIC,
    MAX_FACTS_BYTES,
    MAX_SHARE_SECONDS,
    Anchor,
    Clock,
    ConflictError,
    ControlStoreError,
    Divide,
    Entry,
    LeasedShare,
    News,
    Reread,
    SessionAsk,
    SessionFloor,
    ShareKey,
    WorkerLease,
)

# Another process (`hpcc scheduler rotate-key`) may hold the file briefly.
_BUSY_SECONDS: Final = 5.0
_VERSION: Final = 1
# The number of spaces whose entries are cached.
_MAX_SPACES: Final = 64
_TABLES: Final = (
    "CREATE TABLE IF NOT EXISTS entry (space TEXT, key TEXT, value BLOB NOT NULL,"
    " version INTEGER NOT NULL, PRIMARY KEY (space, key)) STRICT",
    "CREATE TABLE IF NOT EXISTS session (serial INTEGER PRIMARY KEY AUTOINCREMENT,"
    " tenant TEXT NOT NULL, principal TEXT NOT NULL, expires_at REAL NOT NULL) STRICT",
    "CREATE INDEX IF NOT EXISTS session_of ON session (tenant, principal, serial)",
    "CREATE TABLE IF NOT EXISTS session_floor (tenant TEXT, principal TEXT,"
    " serial INTEGER NOT NULL, until REAL NOT NULL, PRIMARY KEY (tenant, principal)) STRICT",
    # Older versions created this table without its last columns.
    "CREATE TABLE IF NOT EXISTS anchor (worker TEXT PRIMARY KEY, count INTEGER"
    " NOT NULL, head TEXT NOT NULL, at REAL NOT NULL) STRICT",
    "ALTER TABLE anchor ADD COLUMN key BLOB NOT NULL DEFAULT x''",
    "ALTER TABLE anchor ADD COLUMN signature BLOB NOT NULL DEFAULT x''",
)
# Made whenever a file is opened. Older versions, which know no shares, ignore it.
_SHARES: Final = (
    "CREATE TABLE IF NOT EXISTS share (worker TEXT, tenant TEXT, principal TEXT,"
    " wanted INTEGER NOT NULL, granted INTEGER NOT NULL, held INTEGER NOT NULL,"
    " PRIMARY KEY (worker, tenant, principal)) STRICT"
)


class EmbeddedControlStore:
    """A `ControlStore` for one process. Leases end with it: workers then register again."""

    def __init__(self, path: Path, clock: Clock) -> None:
        """Open or create the file.

        Raises:
            ControlStoreError: it cannot be opened.
            CallerError: a newer version of hpcc wrote it.
        """
        self._clock, self._path = clock, path
        self._origin = secrets.token_hex(8)
        self._fanout = Fanout()
        # By worker id, with the monotonic time at which each lease ends.
        self._leases: dict[str, tuple[WorkerLease, float]] = {}
        # When each leased share ends (monotonic). Those of an earlier process get a full lease.
        self._share_ends: dict[ShareKey, float] = {}
        # What `entries` last read of each space, and at which version of the file.
        self._read: BoundedMemo[str, tuple[int, tuple[Entry, ...]]] = BoundedMemo(_MAX_SPACES)
        # A cancelled call continues in its thread.
        self._mutex = threading.Lock()
        try:
            path.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
            # SQLite would create it by the umask. It gives the log beside it the file's mode.
            path.touch(mode=0o600)
            self._db = sqlite3.connect(
                path, timeout=_BUSY_SECONDS, check_same_thread=False, isolation_level=None
            )
        except (OSError, sqlite3.Error) as error:
            raise ControlStoreError(f"cannot open {path}: {_why(path, error)}") from error
        try:
            self._make_tables()
        except CallerError:
            self._db.close()
            raise
        except sqlite3.Error as error:
            self._db.close()
            raise ControlStoreError(f"cannot open {path}: {_why(path, error)}") from error

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        with self._mutex:
            self._db.close()

    def _make_tables(self) -> None:
        # A commit is one write and one sync instead of three, and readers never wait.
        self._db.execute("PRAGMA journal_mode = WAL")
        self._db.execute("PRAGMA synchronous = FULL")
        with _transaction(self._db):
            (version,) = self._db.execute("PRAGMA user_version").fetchone()
            if version > _VERSION:
                raise CallerError(
                    f"{self._path} was written by a newer hpcc", reason="control-schema"
                )
            if version < _VERSION:
                for statement in _TABLES:
                    self._db.execute(statement)
                self._db.execute(f"PRAGMA user_version = {_VERSION}")
            self._db.execute(_SHARES)

    @property
    def origin(self) -> str:
        return self._origin

    async def entry_or_none(self, space: str, key: str) -> Entry | None:
        return await self._run(lambda db: _entry_or_none(db, space, key))

    async def entries(self, space: str) -> tuple[Entry, ...]:
        def read(db: sqlite3.Connection) -> tuple[Entry, ...]:
            # It changes when another process writes. This process's writes clear the cache.
            (version,) = db.execute("PRAGMA data_version").fetchone()
            read_at, found = self._read.get(space, (None, ()))
            if read_at != version:
                rows = db.execute(
                    "SELECT key, value, version FROM entry WHERE space = ? ORDER BY key", (space,)
                )
                found = tuple(Entry(*row) for row in rows)
                self._read[space] = version, found
            return found

        return await self._run(read)

    async def put(self, space: str, key: str, value: bytes, *, expect: int | None = None) -> Entry:
        check_name(space, key)
        check_value(value)

        def write(db: sqlite3.Connection) -> Entry:
            found = _entry_or_none(db, space, key)
            version = found.version if found else 0
            if expect is not None and expect != version:
                raise ConflictError(f"{space}/{key} changed meanwhile: try again")
            self._read.pop(space, None)
            db.execute(
                "INSERT OR REPLACE INTO entry VALUES (?, ?, ?, ?)", (space, key, value, version + 1)
            )
            return Entry(key, value, version + 1)

        entry = await self._run(write)
        self._send(ENTRY_TOPIC, space)
        return entry

    async def delete(self, space: str, key: str) -> bool:
        def write(db: sqlite3.Connection) -> bool:
            self._read.pop(space, None)
            done = db.execute("DELETE FROM entry WHERE space = ? AND key = ?", (space, key))
            return bool(done.rowcount)

        was_there = await self._run(write)
        if was_there:
            self._send(ENTRY_TOPIC, space)
        return was_there

    async def renew(self, leases: Sequence[WorkerLease]) -> frozenset[str]:
        now, wanted = self._clock.monotonic(), set[str]()
        for lease in leases:
            check_name(lease.worker_id)
            check_value(lease.facts or b"", MAX_FACTS_BYTES)
            old, ends_at = self._leases.get(lease.worker_id, (None, 0.0))
            newer = (lease.generation, now + lease.seconds)
            is_known = old is not None and old.since == lease.since
            is_newer = old is None or newer > (old.generation, ends_at)
            if lease.facts is None and not is_known:
                if is_newer:
                    wanted.add(lease.worker_id)
            elif is_newer:
                facts = lease.facts if lease.facts is not None or old is None else old.facts
                self._leases[lease.worker_id] = replace(lease, facts=facts), newer[1]
        return frozenset(wanted)

    async def end_lease(self, worker_id: str, generation: int) -> None:
        found = self._leases.get(worker_id)
        if found is not None and found[0].generation <= generation:
            del self._leases[worker_id]

    async def leases(self, known: Sequence[tuple[str, int, int]] = ()) -> tuple[WorkerLease, ...]:
        now, left_out = self._clock.monotonic(), set(known)
        self._leases = {w: found for w, found in self._leases.items() if found[1] > now}
        return tuple(
            replace(lease, seconds=ends_at - now, facts=None)
            for lease, ends_at in self._leases.values()
            if (lease.worker_id, lease.generation, lease.since) not in left_out
        )

    async def facts(self, worker_ids: Sequence[str]) -> Mapping[str, tuple[int, bytes]]:
        found = {w: self._leases[w][0] for w in worker_ids if w in self._leases}
        return {w: (lease.since, lease.facts or b"") for w, lease in found.items()}

    async def note_anchors(self, anchors: Sequence[Anchor]) -> frozenset[str]:
        for anchor in anchors:
            check_name(anchor.worker_id)
        return await self._run(
            lambda db: frozenset(a.worker_id for a in anchors if not _note(db, a))
        )

    async def anchor_or_none(self, worker_id: str) -> Anchor | None:
        return await self._run(lambda db: _anchor_or_none(db, worker_id))

    async def anchors(self) -> tuple[Anchor, ...]:
        def read(db: sqlite3.Connection) -> tuple[Anchor, ...]:
            rows = db.execute(f"SELECT {_ANCHOR} FROM anchor ORDER BY worker")  # noqa: S608 - names below
            return tuple(_anchor(row) for row in rows)

        return await self._run(read)

    async def open_session(self, ask: SessionAsk) -> tuple[int, tuple[SessionFloor, ...]]:
        check_name(ask.tenant, ask.principal)
        return await self._run(lambda db: _open_session(db, ask))

    async def session_floors(self, now: float) -> tuple[SessionFloor, ...]:
        def read(db: sqlite3.Connection) -> tuple[SessionFloor, ...]:
            rows = db.execute("SELECT * FROM session_floor WHERE until > ?", (now,))
            return tuple(SessionFloor(*row) for row in rows)

        return await self._run(read)

    async def lease_shares(
        self, asks: Sequence[LeasedShare], seconds: float, divide: Divide
    ) -> Mapping[ShareKey, LeasedShare]:
        check_asks(asks)

        def write(db: sqlite3.Connection) -> Mapping[ShareKey, LeasedShare]:
            now, rows = self._clock.monotonic(), _shares(db)
            until = now + min(seconds, MAX_SHARE_SECONDS)
            ends = {s.key: self._share_ends.get(s.key, until) for s in rows}
            shares, changes = deal((s for s in rows if ends[s.key] > now), asks, divide)
            before = {s.key: s for s in rows}
            for key in before.keys() - shares.keys():
                db.execute(
                    "DELETE FROM share WHERE worker = ? AND tenant = ? AND principal = ?", key
                )
            for key, share in changes.items():
                if share is not None and share != before.get(key):
                    numbers = share.wanted, share.granted, share.held
                    db.execute(
                        "INSERT OR REPLACE INTO share VALUES (?, ?, ?, ?, ?, ?)", (*key, *numbers)
                    )
            self._share_ends = {k: until if k in changes else ends[k] for k in shares}
            return shares

        return await self._run(write)

    async def tell(self, topic: str, text: str) -> None:
        check_news(topic, text)
        self._send(topic, text)

    async def watch(self) -> AsyncGenerator[News | Reread]:
        async with aclosing(self._fanout.watch()) as items:
            async for item in items:
                yield item

    def _send(self, topic: str, text: str) -> None:
        self._fanout.send(News(topic, text, self._origin))

    async def _run[T](self, work: Callable[[sqlite3.Connection], T]) -> T:
        """Run `work` as one transaction in a thread, because each commit waits for the disk."""

        def locked() -> T:
            with self._mutex, _transaction(self._db):
                return work(self._db)

        try:
            return await asyncio.to_thread(locked)
        except sqlite3.Error as error:
            raise ControlStoreError(f"{self._path}: {_why(self._path, error)}") from error


def _why(path: Path, error: Exception) -> str:
    return "; ".join(filter(None, (str(error), full_disk(path))))


@contextmanager
def _transaction(db: sqlite3.Connection) -> Generator[None]:
    """Begin as a writer, so that what was read is still valid when the write happens."""
    db.execute("BEGIN IMMEDIATE")
    try:
        yield
    except BaseException:
        db.execute("ROLLBACK")
        raise
    db.execute("COMMIT")


def _entry_or_none(db: sqlite3.Connection, space: str, key: str) -> Entry | None:
    row = db.execute(
        "SELECT key, value, version FROM entry WHERE space = ? AND key = ?", (space, key)
    ).fetchone()
    return None if row is None else Entry(*row)


def _anchor_or_none(db: sqlite3.Connection, worker_id: str) -> Anchor | None:
    row = db.execute(
        f"SELECT {_ANCHOR} FROM anchor WHERE worker = ?",  # noqa: S608 - names just below
        (worker_id,),
    ).fetchone()
    return None if row is None else _anchor(row)


def _shares(db: sqlite3.Connection) -> tuple[LeasedShare, ...]:
    rows = db.execute("SELECT worker, tenant, principal, wanted, granted, held FROM share")
    return tuple(
        LeasedShare(worker_id=w, tenant=t, principal=p, wanted=wanted, granted=granted, held=held)
        for w, t, p, wanted, granted, held in rows
    )


_ANCHOR: Final = "worker, count, head, at, key, signature"


def _anchor(row: tuple[str, int, str, float, bytes, bytes]) -> Anchor:
    worker, count, head, at, key, signature = row
    return Anchor(worker_id=worker, count=count, head=head, at=at, key=key, signature=signature)


def _note(db: sqlite3.Connection, new: Anchor) -> bool:
    old = _anchor_or_none(db, new.worker_id)
    if old is not None:
        if new.count < old.count or (new.count == old.count and new.head != old.head):
            return False
        # An idle worker's anchors cause no writes.
        if new.count == old.count and new.signature in {b"", old.signature}:
            return True
    db.execute(
        f"INSERT OR REPLACE INTO anchor ({_ANCHOR}) VALUES (?, ?, ?, ?, ?, ?)",  # noqa: S608 - likewise
        (new.worker_id, new.count, new.head, new.at, new.key, new.signature),
    )
    return True


def _open_session(db: sqlite3.Connection, ask: SessionAsk) -> tuple[int, tuple[SessionFloor, ...]]:
    tenant = (ask.tenant,)
    db.execute("DELETE FROM session WHERE tenant = ? AND expires_at <= ?", (*tenant, ask.now))
    db.execute("DELETE FROM session_floor WHERE tenant = ? AND until <= ?", (*tenant, ask.now))
    floors = dict[str, SessionFloor]()
    while True:
        rows = db.execute(
            "SELECT principal, count(*), min(serial) FROM session WHERE tenant = ?"
            " GROUP BY principal",
            tenant,
        ).fetchall()
        room = {principal: (count, oldest) for principal, count, oldest in rows}
        if sum(count for count, _ in room.values()) < ask.most:
            break
        principal, oldest = victim(room, ask.principal)
        (until,) = db.execute(
            "SELECT expires_at FROM session WHERE serial = ?", (oldest,)
        ).fetchone()
        db.execute("DELETE FROM session WHERE serial = ?", (oldest,))
        db.execute(
            "INSERT INTO session_floor VALUES (?, ?, ?, ?) ON CONFLICT (tenant, principal)"
            " DO UPDATE SET serial = excluded.serial, until = max(until, excluded.until)",
            (ask.tenant, principal, oldest + 1, until),
        )
        floors[principal] = SessionFloor(ask.tenant, principal, oldest + 1, until)
    done = db.execute(
        "INSERT INTO session (tenant, principal, expires_at) VALUES (?, ?, ?)",
        (ask.tenant, ask.principal, ask.expires_at),
    )
    assert done.lastrowid is not None
    return done.lastrowid, tuple(floors.values())
