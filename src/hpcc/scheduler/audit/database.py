"""Writes audit records to PostgreSQL, in a role that can only insert."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncGenerator, Generator, Sequence
from contextlib import asynccontextmanager, contextmanager
from typing import Any, Final

import asyncpg

from hpcc.audit.base.canonical import Record
from hpcc.control.connect import connect_arguments
from hpcc.control.database import DatabaseConfig
from hpcc.core import InfrastructureError, IntegrityError
from hpcc.obs.faults import connection_fault
from hpcc.ports import Clock
from hpcc.rpc.scheduler.audit_api import AuditPlace
from hpcc.scheduler.audit.schema import COLUMNS, DAMAGED, GAP, INSERT

_log: Final = logging.getLogger(__name__)
_CONNECTIONS: Final = 4
# Each month's partition is made in the month before.
_PARTITION_SECONDS: Final = 86_400.0
_PARTITION_RETRY_SECONDS: Final = 600.0
# For a batch of 500 rows on a busy disk; the worker waits 30 s.
_STATEMENT_SECONDS: Final = 20.0
_ACQUIRE_SECONDS: Final = 5.0
_TEXTS: Final = (
    "tenant", "principal", "build_id", "row_id", "action_digest", "image_digest", "cache_status",
    "isolation", "guest_id",
)  # fmt: skip
# 9999-12-31. PostgreSQL's timestamps reach the year 294276; a later clock is broken anyway.
LAST_TIME: Final = 253_402_300_799.0


class PostgresAuditSink:
    """`AuditSink` in PostgreSQL. Use `open_audit_sink` to make one."""

    def __init__(self, config: DatabaseConfig, clock: Clock) -> None:
        self._config, self._clock = config, clock
        self._partitions_due = float("-inf")
        # Any: asyncpg ships no types.
        self._pool: Any = None
        self._lock = asyncio.Lock()

    async def place(self, worker: str) -> AuditPlace:
        with sink_errors(self._config):
            async with (await self._ready()).acquire(timeout=_ACQUIRE_SECONDS) as connection:
                return await _place(connection, worker)

    async def append(self, worker: str, records: Sequence[Record]) -> AuditPlace:
        rows = [_columns(record) for record in records]
        await self._make_partitions()
        with sink_errors(self._config):
            async with (await self._ready()).acquire(timeout=_ACQUIRE_SECONDS) as connection:
                async with connection.transaction():
                    await connection.executemany(INSERT, rows)
                return await _place(connection, worker)

    async def _ready(self) -> Any:  # noqa: ANN401 - see __init__
        """Connect at the first use, so that a scheduler serves while the database is down."""
        async with self._lock:
            if self._pool is None:
                arguments = connect_arguments(self._config)
                arguments["command_timeout"] = _STATEMENT_SECONDS
                settings = arguments["server_settings"]
                settings["statement_timeout"] = str(int(_STATEMENT_SECONDS * 1000))
                pool = await asyncpg.create_pool(min_size=0, max_size=_CONNECTIONS, **arguments)
                self._pool = pool
        return self._pool

    async def _make_partitions(self) -> None:
        """Make the partitions of this month and the next, once a day; a failure loses no records.

        Records go to the default partition then. Once that holds some of a month, the month gets no
        separate partition any more.
        """
        now = self._clock.monotonic()
        if now < self._partitions_due:
            return
        self._partitions_due = now + _PARTITION_RETRY_SECONDS
        try:
            with sink_errors(self._config):
                await (await self._ready()).execute("SELECT hpcc_audit.make_partitions()")
        except InfrastructureError as error:
            _log.warning("no partitions are made for audit records: %s", error)
        else:
            self._partitions_due = now + _PARTITION_SECONDS

    def close(self) -> None:
        if self._pool is not None:
            self._pool.terminate()


@asynccontextmanager
async def open_audit_sink(
    config: DatabaseConfig, clock: Clock
) -> AsyncGenerator[PostgresAuditSink]:
    """Yield the sink; its connections end with the block."""
    sink = PostgresAuditSink(config, clock)
    try:
        yield sink
    finally:
        sink.close()


async def _place(connection: Any, worker: str) -> AuditPlace:  # noqa: ANN401 - as above
    following = await connection.fetchval("SELECT hpcc_audit.next_of($1)", worker)
    return AuditPlace(following or 0, following is None)


def _columns(record: Record) -> tuple[object, ...]:
    body = record.body
    is_row = record.kind == "row"
    at = body["started_at"] if is_row else body["at"]
    assert isinstance(at, float)
    values = (
        record.worker, record.sequence, record.kind, min(max(at, 0.0), LAST_TIME),
        *(column_text(body.get(name, "")) for name in _TEXTS),
        _integer(body["exit_code"]) if is_row else None, column_text(body.get("name", "")),
        record.hash, record.previous, record.data,
    )  # fmt: skip
    assert len(values) == len(COLUMNS)
    return values


def column_text(value: object) -> str:
    """Return a text without what PostgreSQL's type cannot hold; `data` keeps the original."""
    plain = str(value).replace("\0", "\N{REPLACEMENT CHARACTER}")
    return plain.encode("utf-8", "replace").decode()


def _integer(value: object) -> int:
    assert isinstance(value, int)
    return min(max(value, -(1 << 63)), (1 << 63) - 1)


@contextmanager
def sink_errors(config: DatabaseConfig) -> Generator[None]:
    """Map the driver's errors to ours; no message quotes a value."""
    try:
        yield
    except asyncpg.PostgresError as error:
        state = getattr(error, "sqlstate", "") or ""
        if state == GAP:
            raise IntegrityError("audit records are missing", reason="audit-gap") from error
        if state == DAMAGED:
            raise IntegrityError(
                "the records do not continue what is kept", reason="audit-damaged"
            ) from error
        raise _away(config, f"{type(error).__name__} ({state})") from error
    except (asyncpg.InterfaceError, OSError, TimeoutError) as error:
        raise _away(config, connection_fault(error) or type(error).__name__) from error


def _away(config: DatabaseConfig, what: str) -> InfrastructureError:
    return InfrastructureError(f"audit {config} does not answer: {what}", reason="audit-sink")
