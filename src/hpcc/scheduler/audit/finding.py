"""Finds rows of all workers in the audit database. It only finds: nothing that it says is proved.

A caller reads each row from its worker's trail before it prints any of it, and compares the hash.
"""

from __future__ import annotations

from collections.abc import AsyncGenerator, AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any, Final

import asyncpg

from hpcc.audit.base.query import Query, text_of
from hpcc.control.connect import connect_arguments
from hpcc.control.database import DatabaseConfig
from hpcc.core import IntegrityError
from hpcc.scheduler.audit.database import LAST_TIME, column_text, sink_errors

_PAGE: Final = 1000
_STATEMENT_SECONDS: Final = 60.0
# Fields of a query that are columns; what it also asks for is decided on the proved record.
_EQUAL: Final = ("worker", "tenant", "principal", "build_id", "cache_status", "isolation")
_STARTS: Final = ("row_id", "action_digest", "image_digest", "guest_id")
_HASH_CHARS: Final = 64


@dataclass(frozen=True, slots=True)
class FoundRow:
    """Where a row should be, and the hash that it should have; `at` is about when it began."""

    worker: str
    sequence: int
    row_id: str
    hash: str
    at: float


@dataclass(frozen=True, slots=True)
class WorkerRecords:
    """How many records of a worker the database has, and the numbers of the first and last one."""

    worker: str
    count: int
    first: int
    last: int


class AuditFinder:
    """A connection that finds rows, the newest first."""

    def __init__(self, connection: Any, config: DatabaseConfig) -> None:  # noqa: ANN401 - asyncpg ships no types
        self._connection, self._config = connection, config

    async def rows(self, query: Query) -> AsyncIterator[FoundRow]:
        """Yield the rows whose columns match.

        Raises:
            InfrastructureError: the database does not answer.
            IntegrityError: it answers with something other than a row.
        """
        where, values = _conditions(query)
        after, last = "", list[object]()
        while True:
            sql = (
                "SELECT worker, sequence, row_id, hash, at FROM hpcc_audit.record"  # noqa: S608 - names of columns; values are bound
                f" WHERE {' AND '.join(where)}{after}"
                f" ORDER BY at DESC, worker DESC, sequence DESC LIMIT {_PAGE}"
            )
            with sink_errors(self._config):
                page = await self._connection.fetch(sql, *values, *last)
            for row in page:
                yield _found(row)
            if len(page) < _PAGE:
                return
            n = len(values)
            after = f" AND (at, worker, sequence) < (${n + 1}, ${n + 2}, ${n + 3})"
            last = [page[-1]["at"], page[-1]["worker"], page[-1]["sequence"]]

    async def workers(self) -> list[WorkerRecords] | None:
        """Return what the database has of each worker; None if this role may not see everything.

        Raises:
            InfrastructureError: the database does not answer.
        """
        with sink_errors(self._config):
            sees_all = await self._connection.fetchval(
                "SELECT pg_has_role(current_user, 'hpcc_audit_auditor', 'MEMBER')"
            )
            if not sees_all:
                return None
            rows = await self._connection.fetch(
                "SELECT worker, count(*) AS count, min(sequence) AS first, max(sequence) AS last"
                " FROM hpcc_audit.record GROUP BY worker ORDER BY worker"
            )
        return [WorkerRecords(r["worker"], r["count"], r["first"], r["last"]) for r in rows]


@asynccontextmanager
async def open_finder(config: DatabaseConfig) -> AsyncGenerator[AuditFinder]:
    """Connect as a reader or an auditor; the connection ends with the block.

    Raises:
        InfrastructureError: the database does not answer.
        CallerError: its certificate authority cannot be read.
    """
    arguments = connect_arguments(config)
    arguments["command_timeout"] = _STATEMENT_SECONDS
    settings = arguments["server_settings"]
    settings["application_name"] = "hpcc-audit"
    settings["statement_timeout"] = str(int(_STATEMENT_SECONDS * 1000))
    settings["default_transaction_read_only"] = "on"
    with sink_errors(config):
        connection = await asyncpg.connect(**arguments)
    try:
        yield AuditFinder(connection, config)
    finally:
        connection.terminate()


def _conditions(query: Query) -> tuple[list[str], list[object]]:
    where, values = ["kind = 'row'"], list[object]()

    def add(condition: str, value: object) -> None:
        values.append(value)
        where.append(condition.format(f"${len(values)}"))

    for name in _EQUAL:
        if value := getattr(query, name):
            add(f"{name} = {{}}", column_text(value))
    for name in _STARTS:
        if value := getattr(query, name):
            add(f"starts_with({name}, {{}})", column_text(value))
    if query.exit_code is not None:
        add("exit_code = {}", query.exit_code)
    # A time outside of what the columns have was cut there, and a fraction was rounded.
    if query.since > 1:
        add("at >= to_timestamp({})", min(query.since, LAST_TIME) - 1)
    if query.until is not None and query.until < LAST_TIME:
        add("at < to_timestamp({})", query.until + 1)
    return where, values


def _found(row: Any) -> FoundRow:  # noqa: ANN401 - asyncpg ships no types
    worker, sequence, row_id, name, at = (
        row["worker"], row["sequence"], row["row_id"], row["hash"], row["at"],
    )  # fmt: skip
    is_right = (
        isinstance(worker, str) and isinstance(sequence, int) and sequence >= 0
        and isinstance(row_id, str) and isinstance(name, str) and len(name) == _HASH_CHARS
        and isinstance(at, datetime)
    )  # fmt: skip
    if not is_right:
        raise IntegrityError(
            "the audit database has a row of another form: was its schema changed?",
            reason="audit-damaged",
        )
    return FoundRow(text_of(worker), sequence, row_id, name, at.astimezone(UTC).timestamp())
