"""One way to connect, and one family of errors: every driver's error means "not now"."""

from __future__ import annotations

import ssl
from collections.abc import Generator
from contextlib import contextmanager
from typing import Any, Final

import asyncpg

from hpcc.control.database import DatabaseConfig
from hpcc.core import CallerError
from hpcc.ports import ControlStoreError

CONNECT_SECONDS: Final = 5.0
# Of one statement, here and at the server.
STATEMENT_SECONDS: Final = 5.0
_DRIVER_ERRORS: Final = (
    asyncpg.PostgresError,
    asyncpg.InterfaceError,
    # A connection that ended in the middle of the driver's own steps.
    asyncpg.InternalClientError,
    OSError,
    TimeoutError,
)


def connect_arguments(config: DatabaseConfig) -> dict[str, Any]:
    """Return everything explicitly: PGPASSWORD, ~/.pgpass and the like decide nothing."""
    context: ssl.SSLContext | bool = False
    if config.is_verified:
        try:
            context = ssl.create_default_context(cafile=config.root_certificate or None)
        except (OSError, ssl.SSLError) as error:
            raise CallerError(
                f"cannot read sslrootcert {config.root_certificate}", reason="database"
            ) from error
    hosts, ports = [h for h, _ in config.hosts], [p for _, p in config.hosts]
    return {
        "host": hosts,
        "port": ports,
        "user": config.user,
        "database": config.database,
        # An empty one is refused by servers that ask; None would look into ~/.pgpass.
        "password": config.password,
        "passfile": "/dev/null",
        "ssl": context,
        "timeout": CONNECT_SECONDS,
        "command_timeout": STATEMENT_SECONDS,
        # After a fail-over the old primary may still answer, and take no writes.
        "target_session_attrs": "primary",
        "server_settings": {
            "application_name": "hpcc-scheduler",
            "search_path": "pg_catalog",
            "statement_timeout": str(int(STATEMENT_SECONDS * 1000)),
            "lock_timeout": str(int(STATEMENT_SECONDS * 1000)),
            "idle_in_transaction_session_timeout": str(int(STATEMENT_SECONDS * 1000)),
        },
    }


async def connect(config: DatabaseConfig) -> Any:  # noqa: ANN401 - asyncpg ships no types
    """Open one connection; see `store_errors` for what fails."""
    return await asyncpg.connect(**connect_arguments(config))


@contextmanager
def store_errors(config: DatabaseConfig) -> Generator[None]:
    """Turn what the driver raises into `ControlStoreError`, with no word of values."""
    try:
        yield
    except _DRIVER_ERRORS as error:
        raise ControlStoreError(
            f"{config} does not answer: {_what(error)}", reason=ControlStoreError.default_reason
        ) from error


def _what(error: BaseException) -> str:
    """Return the kind of error; a server's own text could quote a row."""
    code = getattr(error, "sqlstate", None)
    return f"{type(error).__name__}{f' ({code})' if code else ''}"
