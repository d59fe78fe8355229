"""The PostgreSQL tables. Only `hpcc scheduler migrate` creates and changes them.

The role of a scheduler has rights on rows only, so an attacker in a replica cannot change tables.
"""

from __future__ import annotations

import re
from typing import Any, Final

import asyncpg

from hpcc.control.connect import connect, store_errors
from hpcc.control.database import DatabaseConfig
from hpcc.core import CallerError

# One step per version. A released step is never changed; a new one is appended.
# A step that older schedulers cannot work with raises the number in `_OLDEST`.
_STEPS: Final = (
    """
    CREATE TABLE hpcc.entry (
        space text, key text, value bytea NOT NULL, version bigint NOT NULL,
        PRIMARY KEY (space, key));
    CREATE TABLE hpcc.lease (
        worker text PRIMARY KEY, generation bigint NOT NULL, since bigint NOT NULL,
        running integer NOT NULL, queued integer NOT NULL, expires_at timestamptz NOT NULL,
        facts bytea NOT NULL);
    CREATE TABLE hpcc.anchor (
        worker text PRIMARY KEY, length bigint NOT NULL, head text NOT NULL,
        at double precision NOT NULL, key bytea NOT NULL, signature bytea NOT NULL);
    CREATE TABLE hpcc.session (
        serial bigint PRIMARY KEY GENERATED ALWAYS AS IDENTITY, tenant text NOT NULL,
        principal text NOT NULL, expires_at double precision NOT NULL);
    CREATE INDEX session_of ON hpcc.session (tenant, principal, serial);
    CREATE TABLE hpcc.session_floor (
        tenant text, principal text, serial bigint NOT NULL, until double precision NOT NULL,
        PRIMARY KEY (tenant, principal));
    """,
    """
    CREATE TABLE hpcc.share (
        worker text, tenant text, principal text, wanted integer NOT NULL,
        granted integer NOT NULL, held integer NOT NULL, expires_at timestamptz NOT NULL,
        PRIMARY KEY (worker, tenant, principal));
    """,
)
SCHEMA_VERSION: Final = len(_STEPS)
# The oldest code version that can work with the result of all steps.
_OLDEST: Final = 1
_ROLE: Final = re.compile(r"[a-z_][a-z0-9_-]{0,62}")
# Lock for transactions that change the schema; an arbitrary number for hpcc.
_LOCK: Final = 0x68706363


async def migrate(config: DatabaseConfig, *, role: str = "") -> tuple[int, int]:
    """Migrate the schema to this version; return the version before and after.

    `role` gets exactly the rights that a scheduler needs.

    Raises:
        CallerError: the role is not a plain name, or a newer hpcc wrote the schema.
        ControlStoreError: the database does not answer, or refuses.
    """
    if role and not _ROLE.fullmatch(role):
        raise CallerError("the role must be a plain name: a-z, 0-9, _ and -", reason="database")
    with store_errors(config):
        connection = await connect(config)
        try:
            async with connection.transaction():
                return await _migrate(connection, role)
        finally:
            await connection.close()


async def _migrate(connection: Any, role: str) -> tuple[int, int]:  # noqa: ANN401 - asyncpg ships no types
    await connection.execute("SELECT pg_advisory_xact_lock($1)", _LOCK)
    if await connection.fetchval("SELECT to_regclass('hpcc.schema_version')") is None:
        await connection.execute(
            "CREATE SCHEMA IF NOT EXISTS hpcc; REVOKE ALL ON SCHEMA hpcc FROM PUBLIC;"
            " CREATE TABLE hpcc.schema_version (version integer NOT NULL, oldest integer NOT NULL);"
            " INSERT INTO hpcc.schema_version VALUES (0, 0)"
        )
    before = await connection.fetchval("SELECT version FROM hpcc.schema_version")
    if before > SCHEMA_VERSION:
        raise _too_new()
    for step in _STEPS[before:]:
        await connection.execute(step)
    await connection.execute(
        "UPDATE hpcc.schema_version SET version = $1, oldest = $2", SCHEMA_VERSION, _OLDEST
    )
    if role:
        await connection.execute(
            f'GRANT USAGE ON SCHEMA hpcc TO "{role}";'
            f' GRANT SELECT ON hpcc.schema_version TO "{role}";'
            " GRANT SELECT, INSERT, UPDATE, DELETE ON hpcc.entry, hpcc.lease, hpcc.anchor,"
            f' hpcc.session, hpcc.session_floor, hpcc.share TO "{role}"'
        )
    return before, SCHEMA_VERSION


async def check_schema(connection: Any) -> None:  # noqa: ANN401 - asyncpg ships no types
    """Check that this code can work with the database.

    Raises:
        CallerError: no schema, an older one, or a much newer one.
    """
    try:
        row = await connection.fetchrow("SELECT version, oldest FROM hpcc.schema_version")
    except (asyncpg.UndefinedTableError, asyncpg.InvalidSchemaNameError) as error:
        raise _no_schema() from error
    except asyncpg.InsufficientPrivilegeError as error:
        raise CallerError(
            "the database role may not read hpcc's tables: run `hpcc scheduler migrate` as their"
            " owner, with --grant and this role",
            reason="control-schema",
        ) from error
    if row is None or row["version"] < SCHEMA_VERSION:
        raise _no_schema()
    if row["oldest"] > SCHEMA_VERSION:
        raise _too_new()


def _no_schema() -> CallerError:
    return CallerError(
        "the database lacks tables of this version: run `hpcc scheduler migrate`",
        reason="control-schema",
    )


def _too_new() -> CallerError:
    return CallerError(
        "a newer hpcc made the database's tables: install it here too", reason="control-schema"
    )
