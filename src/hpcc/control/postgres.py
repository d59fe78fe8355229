"""The control store of several schedulers: PostgreSQL."""

from __future__ import annotations

import asyncio
import json
import secrets
from collections.abc import AsyncGenerator, Mapping, Sequence
from contextlib import aclosing, asynccontextmanager, suppress
from typing import Any, Final

import asyncpg

from hpcc.control.checks import check_name, check_news, check_value, victim
from hpcc.control.connect import (
    CONNECT_SECONDS,
    STATEMENT_SECONDS,
    connect_arguments,
    store_errors,
)
from hpcc.control.database import DatabaseConfig
from hpcc.control.fanout import Fanout
from hpcc.control.listen import CHANNEL, BroadcastListener
from hpcc.control.schema import check_schema
from hpcc.control.shares import check_asks, deal
from hpcc.ports import (
    ENTRY_TOPIC,
    MAX_FACTS_BYTES,
    MAX_SHARE_SECONDS,
    Anchor,
    Clock,
    ConflictError,
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

_MAX_CONNECTIONS: Final = 4
# The time to get a connection, and for a transaction of several statements.
_OPERATION_SECONDS: Final = CONNECT_SECONDS + 2 * STATEMENT_SECONDS

_PUT: Final = """
    INSERT INTO hpcc.entry AS e (space, key, value, version) VALUES ($1, $2, $3, 1)
    ON CONFLICT (space, key) DO UPDATE SET value = excluded.value, version = e.version + 1
    WHERE $4::bigint IS NULL OR e.version = $4
    RETURNING version"""
_RENEW: Final = """
    WITH told AS (
        SELECT * FROM unnest($1::text[], $2::bigint[], $3::bigint[], $4::integer[], $5::integer[],
                             $6::double precision[], $7::bytea[])
            AS t (worker, generation, since, running, queued, seconds, facts) ORDER BY worker),
    new AS (
        INSERT INTO hpcc.lease AS l (worker, generation, since, running, queued, expires_at, facts)
        SELECT worker, generation, since, running, queued, now() + seconds * interval '1 s', facts
            FROM told WHERE facts IS NOT NULL
        ON CONFLICT (worker) DO UPDATE SET
            generation = excluded.generation, since = excluded.since, running = excluded.running,
            queued = excluded.queued, expires_at = excluded.expires_at, facts = excluded.facts
        WHERE (l.generation, l.expires_at) < (excluded.generation, excluded.expires_at)),
    known AS (
        UPDATE hpcc.lease AS l SET
            generation = told.generation, running = told.running, queued = told.queued,
            expires_at = now() + told.seconds * interval '1 s'
        FROM told WHERE told.facts IS NULL AND l.worker = told.worker AND l.since = told.since
            AND (l.generation, l.expires_at)
                < (told.generation, now() + told.seconds * interval '1 s'))
    SELECT worker FROM told WHERE facts IS NULL AND NOT EXISTS (
        SELECT FROM hpcc.lease AS l WHERE l.worker = told.worker
            AND (l.since = told.since OR l.generation > told.generation))"""
_LEASES: Final = """
    SELECT worker, generation, since, running, queued,
        extract(epoch FROM expires_at - now())::double precision AS seconds
    FROM hpcc.lease AS l WHERE expires_at > now() AND NOT EXISTS (
        SELECT FROM unnest($1::text[], $2::bigint[], $3::bigint[]) AS k (worker, generation, since)
        WHERE (k.worker, k.generation, k.since) = (l.worker, l.generation, l.since))"""
_FORGET: Final = "DELETE FROM hpcc.lease WHERE expires_at < now() - interval '1 h'"
_ANCHORS: Final = """
    WITH told AS (
        SELECT * FROM unnest($1::text[], $2::bigint[], $3::text[], $4::double precision[],
                             $5::bytea[], $6::bytea[])
            AS t (worker, length, head, at, key, signature)
        ORDER BY worker),
    bad AS (
        SELECT worker FROM told JOIN hpcc.anchor AS a USING (worker)
        WHERE told.length < a.length OR (told.length = a.length AND told.head <> a.head)),
    kept AS (
        INSERT INTO hpcc.anchor AS a (worker, length, head, at, key, signature)
        SELECT worker, length, head, at, key, signature FROM told
            WHERE worker NOT IN (SELECT worker FROM bad)
        ON CONFLICT (worker) DO UPDATE SET length = excluded.length, head = excluded.head,
            at = excluded.at, key = excluded.key, signature = excluded.signature
        WHERE excluded.length > a.length OR (excluded.length = a.length
            AND excluded.head = a.head AND excluded.signature NOT IN ('', a.signature)))
    SELECT worker FROM bad"""
_FLOOR: Final = """
    INSERT INTO hpcc.session_floor AS f (tenant, principal, serial, until) VALUES ($1, $2, $3, $4)
    ON CONFLICT (tenant, principal) DO UPDATE
        SET serial = excluded.serial, until = greatest(f.until, excluded.until)
    RETURNING tenant, principal, serial, until"""

# The lock under which places are divided; an arbitrary number for hpcc.
_SHARES_LOCK: Final = 0x6870_6363_7368
# A clock that went back must not lengthen a lease.
_BOUND_SHARES: Final = """
    UPDATE hpcc.share SET expires_at = clock_timestamp() + $1 * interval '1 s'
    WHERE expires_at > clock_timestamp() + $1 * interval '1 s'"""
_LIVE_SHARES: Final = """
    SELECT worker, tenant, principal, wanted, granted, held FROM hpcc.share
    WHERE expires_at > clock_timestamp()"""
_PUT_SHARES: Final = """
    INSERT INTO hpcc.share (worker, tenant, principal, wanted, granted, held, expires_at)
    SELECT worker, tenant, principal, wanted, granted, held,
            clock_timestamp() + $7 * interval '1 s'
        FROM unnest($1::text[], $2::text[], $3::text[], $4::integer[], $5::integer[],
                    $6::integer[]) AS t (worker, tenant, principal, wanted, granted, held)
    ON CONFLICT (worker, tenant, principal) DO UPDATE SET wanted = excluded.wanted,
        granted = excluded.granted, held = excluded.held, expires_at = excluded.expires_at"""
_END_SHARES: Final = """
    DELETE FROM hpcc.share WHERE expires_at <= clock_timestamp()
        OR (worker, tenant, principal) IN (SELECT * FROM unnest($1::text[], $2::text[], $3::text[]))
    """


class PostgresControlStore:
    """A replica's `ControlStore`: one of many handles on one database."""

    def __init__(self, config: DatabaseConfig, pool: Any, fanout: Fanout, origin: str) -> None:  # noqa: ANN401 - asyncpg ships no types
        self._config, self._pool, self._fanout, self._origin = config, pool, fanout, origin

    @property
    def origin(self) -> str:
        return self._origin

    async def check(self) -> None:
        """Check that the database answers and has this version's tables.

        Raises:
            CallerError: the tables are missing or of another version.
            ControlStoreError: it does not answer.
        """
        async with self._connection() as db:
            await check_schema(db)

    async def entry_or_none(self, space: str, key: str) -> Entry | None:
        async with self._connection() as db:
            row = await db.fetchrow(
                "SELECT key, value, version FROM hpcc.entry WHERE space = $1 AND key = $2",
                space, key,
            )  # fmt: skip
        return None if row is None else Entry(*row)

    async def entries(self, space: str) -> tuple[Entry, ...]:
        async with self._connection() as db:
            rows = await db.fetch(
                "SELECT key, value, version FROM hpcc.entry WHERE space = $1"
                ' ORDER BY key COLLATE "C"',
                space,
            )
        return tuple(Entry(*row) for row in rows)

    async def put(self, space: str, key: str, value: bytes, *, expect: int | None = None) -> Entry:
        check_name(space, key)
        check_value(value)
        async with self._connection() as db, db.transaction():
            if expect:
                version = await db.fetchval(
                    "UPDATE hpcc.entry SET value = $3, version = version + 1"
                    " WHERE space = $1 AND key = $2 AND version = $4 RETURNING version",
                    space, key, value, expect,
                )  # fmt: skip
            else:
                version = await db.fetchval(_PUT, space, key, value, expect)
            if version is None:
                raise ConflictError(f"{space}/{key} changed meanwhile: try again")
            await self._notify(db, ENTRY_TOPIC, space)
        return Entry(key, value, version)

    async def delete(self, space: str, key: str) -> bool:
        async with self._connection() as db, db.transaction():
            found = await db.fetchval(
                "DELETE FROM hpcc.entry WHERE space = $1 AND key = $2 RETURNING 1", space, key
            )
            if found:
                await self._notify(db, ENTRY_TOPIC, space)
        return bool(found)

    async def renew(self, leases: Sequence[WorkerLease]) -> frozenset[str]:
        for lease in leases:
            check_name(lease.worker_id)
            check_value(lease.facts or b"", MAX_FACTS_BYTES)
        # One statement may touch a row only once: of two leases of one worker the last counts.
        told = list({lease.worker_id: lease for lease in leases}.values())
        columns = (
            [x.worker_id for x in told], [x.generation for x in told], [x.since for x in told],
            [x.running for x in told], [x.queued for x in told], [x.seconds for x in told],
            [x.facts for x in told],
        )  # fmt: skip
        async with self._connection() as db:
            rows = await db.fetch(_RENEW, *columns)
        return frozenset(row["worker"] for row in rows)

    async def end_lease(self, worker_id: str, generation: int) -> None:
        async with self._connection() as db:
            await db.execute(
                "DELETE FROM hpcc.lease WHERE worker = $1 AND generation <= $2",
                worker_id, generation,
            )  # fmt: skip

    async def leases(self, known: Sequence[tuple[str, int, int]] = ()) -> tuple[WorkerLease, ...]:
        columns = ([k[0] for k in known], [k[1] for k in known], [k[2] for k in known])
        async with self._connection() as db:
            await db.execute(_FORGET)
            rows = await db.fetch(_LEASES, *columns)
        return tuple(
            WorkerLease(
                worker_id=worker, generation=generation, since=since, running=running,
                queued=queued, seconds=seconds,
            )
            for worker, generation, since, running, queued, seconds in rows
        )  # fmt: skip

    async def facts(self, worker_ids: Sequence[str]) -> Mapping[str, tuple[int, bytes]]:
        async with self._connection() as db:
            rows = await db.fetch(
                "SELECT worker, since, facts FROM hpcc.lease WHERE worker = ANY($1::text[])",
                list(worker_ids),
            )
        return {worker: (since, facts) for worker, since, facts in rows}

    async def note_anchors(self, anchors: Sequence[Anchor]) -> frozenset[str]:
        for anchor in anchors:
            check_name(anchor.worker_id)
        told = list({a.worker_id: a for a in anchors}.values())
        columns = (
            [a.worker_id for a in told], [a.count for a in told], [a.head for a in told],
            [a.at for a in told], [a.key for a in told], [a.signature for a in told],
        )  # fmt: skip
        async with self._connection() as db:
            rows = await db.fetch(_ANCHORS, *columns)
        return frozenset(row["worker"] for row in rows)

    async def anchor_or_none(self, worker_id: str) -> Anchor | None:
        async with self._connection() as db:
            row = await db.fetchrow(
                f"SELECT {_ANCHOR} FROM hpcc.anchor WHERE worker = $1",  # noqa: S608 - names below
                worker_id,
            )
        return None if row is None else _anchor(row)

    async def anchors(self) -> tuple[Anchor, ...]:
        async with self._connection() as db:
            rows = await db.fetch(
                f'SELECT {_ANCHOR} FROM hpcc.anchor ORDER BY worker COLLATE "C"'  # noqa: S608 - likewise
            )
        return tuple(map(_anchor, rows))

    async def open_session(self, ask: SessionAsk) -> tuple[int, tuple[SessionFloor, ...]]:
        check_name(ask.tenant, ask.principal)
        async with self._connection() as db, db.transaction():
            # Replicas take turns, so that two logins cannot both get the last place.
            await db.execute("SELECT pg_advisory_xact_lock(hashtextextended($1, 0))", ask.tenant)
            return await _open_session(db, ask)

    async def session_floors(self, now: float) -> tuple[SessionFloor, ...]:
        async with self._connection() as db:
            rows = await db.fetch(
                "SELECT tenant, principal, serial, until FROM hpcc.session_floor WHERE until > $1",
                now,
            )
        return tuple(SessionFloor(*row) for row in rows)

    async def lease_shares(
        self, asks: Sequence[LeasedShare], seconds: float, divide: Divide
    ) -> Mapping[ShareKey, LeasedShare]:
        check_asks(asks)
        async with self._connection() as db, db.transaction():
            await db.execute("SELECT pg_advisory_xact_lock($1)", _SHARES_LOCK)
            await db.execute(_BOUND_SHARES, MAX_SHARE_SECONDS)
            live = [
                LeasedShare(
                    worker_id=w, tenant=t, principal=p, wanted=wanted, granted=granted, held=held
                )
                for w, t, p, wanted, granted, held in await db.fetch(_LIVE_SHARES)
            ]
            shares, changes = deal(live, asks, divide)
            ended = [key for key, share in changes.items() if share is None]
            await db.execute(_END_SHARES, *([key[part] for key in ended] for part in range(3)))
            kept = [share for share in changes.values() if share is not None]
            columns = (
                [s.worker_id for s in kept], [s.tenant for s in kept], [s.principal for s in kept],
                [s.wanted for s in kept], [s.granted for s in kept], [s.held for s in kept],
            )  # fmt: skip
            await db.execute(_PUT_SHARES, *columns, min(seconds, MAX_SHARE_SECONDS))
        return shares

    async def tell(self, topic: str, text: str) -> None:
        check_news(topic, text)
        async with self._connection() as db:
            await self._notify(db, topic, text)

    async def watch(self) -> AsyncGenerator[News | Reread]:
        async with aclosing(self._fanout.watch()) as items:
            async for item in items:
                yield item

    async def _notify(self, db: Any, topic: str, text: str) -> None:  # noqa: ANN401 - asyncpg ships no types
        payload = json.dumps([self._origin, topic, text])
        await db.execute("SELECT pg_notify($1, $2)", CHANNEL, payload)

    @asynccontextmanager
    async def _connection(self) -> AsyncGenerator[Any]:
        with store_errors(self._config):
            async with asyncio.timeout(_OPERATION_SECONDS), self._pool.acquire() as connection:
                yield connection


_ANCHOR: Final = "worker, length, head, at, key, signature"


def _anchor(row: Any) -> Anchor:  # noqa: ANN401 - asyncpg ships no types
    worker, count, head, at, key, signature = row
    return Anchor(worker_id=worker, count=count, head=head, at=at, key=key, signature=signature)


async def _open_session(db: Any, ask: SessionAsk) -> tuple[int, tuple[SessionFloor, ...]]:  # noqa: ANN401 - asyncpg ships no types
    tenant = ask.tenant
    for table, column in (("session", "expires_at"), ("session_floor", "until")):
        await db.execute(
            f"DELETE FROM hpcc.{table} WHERE tenant = $1 AND {column} <= $2",  # noqa: S608 - names just above
            tenant, ask.now,
        )  # fmt: skip
    floors = dict[str, SessionFloor]()
    while True:
        rows = await db.fetch(
            "SELECT principal, count(*), min(serial) FROM hpcc.session WHERE tenant = $1"
            " GROUP BY principal",
            tenant,
        )
        room = {principal: (count, oldest) for principal, count, oldest in rows}
        if sum(count for count, _ in room.values()) < ask.most:
            break
        principal, oldest = victim(room, ask.principal)
        until = await db.fetchval(
            "DELETE FROM hpcc.session WHERE serial = $1 RETURNING expires_at", oldest
        )
        floor = await db.fetchrow(_FLOOR, tenant, principal, oldest + 1, until)
        floors[principal] = SessionFloor(*floor)
    serial = await db.fetchval(
        "INSERT INTO hpcc.session (tenant, principal, expires_at) VALUES ($1, $2, $3)"
        " RETURNING serial",
        tenant, ask.principal, ask.expires_at,
    )  # fmt: skip
    return serial, tuple(floors.values())


@asynccontextmanager
async def open_postgres(
    config: DatabaseConfig, clock: Clock
) -> AsyncGenerator[PostgresControlStore]:
    """Yield a store that connects on first use, and again after each interruption."""
    fanout = Fanout()
    pool = asyncpg.create_pool(
        **connect_arguments(config), min_size=0, max_size=_MAX_CONNECTIONS,
        max_inactive_connection_lifetime=60.0,
    )  # fmt: skip
    with store_errors(config):
        await pool
    listener = asyncio.Task(BroadcastListener(config, fanout, clock).run(), name="control listener")
    store = PostgresControlStore(config, pool, fanout, secrets.token_hex(8))
    try:
        yield store
    finally:
        listener.cancel()
        try:
            with suppress(asyncio.CancelledError):
                await listener
        finally:
            pool.terminate()
