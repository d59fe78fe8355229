"""The only way to connect, and one family of errors: every driver error means "not now"."""

from __future__ import annotations

import ssl
from collections.abc import Generator
from contextlib import contextmanager
from typing import Any, Final

import asyncpg

from hpcc.control.database import DatabaseConfig
from hpcc.core import CallerError
from hpcc.obs.faults import connection_fault
from hpcc.ports import ControlStoreError

CONNECT_SECONDS: Final = 5.0
# For one statement, on this side and at the server.
STATEMENT_SECONDS: Final = 5.0
_REMEDY: Final = (
    ": sslrootcert must be its CA's certificate, and the URL must name the host that it is for"
)
_DRIVER_ERRORS: Final = (
    asyncpg.PostgresError,
    asyncpg.InterfaceError,
    # The connection ended during the driver's internal steps.
    asyncpg.InternalClientError,
    OSError,
    TimeoutError,
)


def connect_arguments(config: DatabaseConfig) -> dict[str, Any]:
    """Return all arguments explicitly: PGPASSWORD, ~/.pgpass and the like have no effect."""
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
        # Servers that ask refuse an empty password. None would make the driver read ~/.pgpass.
        "password": config.password,
        "passfile": "/dev/null",
        "ssl": context,
        "timeout": CONNECT_SECONDS,
        "command_timeout": STATEMENT_SECONDS,
        # After a fail-over the old primary may still answer, but accepts no writes.
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
    """Return a new connection; see `store_errors` for its errors."""
    return await asyncpg.connect(**connect_arguments(config))


@contextmanager
def store_errors(config: DatabaseConfig) -> Generator[None]:
    """Turn the driver's exceptions into `ControlStoreError` without any stored values."""
    try:
        yield
    except _DRIVER_ERRORS as error:
        raise ControlStoreError(
            f"{config} does not answer: {_what(error)}", reason=ControlStoreError.default_reason
        ) from error


def _what(error: BaseException) -> str:
    """Return what went wrong. A server's own text could quote a row, so only its code is shown."""
    code = getattr(error, "sqlstate", None)
    if not code and (fault := connection_fault(error)):
        is_foreign = isinstance(error, ssl.SSLCertVerificationError)
        return f"{fault}{_REMEDY if is_foreign else ''}"
    return f"{type(error).__name__}{f' ({code})' if code else ''}"
