"""Where the database is: a URL without a secret, and a password from a private file."""

from __future__ import annotations

import ipaddress
import os
import stat
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final
from urllib.parse import parse_qsl, unquote, urlsplit

from hpcc.core import CallerError

_MAX_PASSWORD_BYTES: Final = 4096
_MAX_URL_CHARS: Final = 2000
_PORT: Final = 5432
_VERIFIED: Final = "verify-full"
_OPTIONS: Final = ("host", "sslmode", "sslrootcert")


@dataclass(frozen=True, slots=True, kw_only=True)
class DatabaseConfig:
    """A database. `hosts` are names, addresses or directories of a socket, tried in order.

    `root_certificate` is a path. If it is empty, the system's roots are trusted.
    """

    hosts: tuple[tuple[str, int], ...]
    user: str
    database: str
    is_verified: bool
    root_certificate: str = ""
    password: str = field(default="", repr=False)

    def __str__(self) -> str:
        """Return the form for logs, without secrets."""
        hosts = ",".join(f"{host}:{port}" for host, port in self.hosts)
        return f"database {self.database!r} at {hosts}"


def read_database_config(url: str, password_file: str = "") -> DatabaseConfig:
    """Parse `postgresql://user@host[:port][,host…]/database?sslmode=verify-full&sslrootcert=FILE`.

    Raises:
        CallerError: another form, a password in it, or it would send one to an unverified server.
    """
    parts = urlsplit(url)
    if len(url) > _MAX_URL_CHARS or parts.scheme not in {"postgresql", "postgres"}:
        raise _error("database must be a URL: postgresql://user@host/database")
    account, _, where = parts.netloc.rpartition("@")
    if ":" in account:
        raise _error("the database URL holds a password: put it in a 0600 database_password_file")
    options = dict(parse_qsl(parts.query, keep_blank_values=True))
    for name in options:
        if name not in _OPTIONS:
            raise _error(f"database URL: unknown option {name[:40]!r} (of {', '.join(_OPTIONS)})")
    hosts = tuple(_host(h) for h in (where or options.get("host", "")).split(","))
    user, database = unquote(account), unquote(parts.path.lstrip("/"))
    if not user or not database:
        raise _error("the database URL must name a user and a database")
    is_verified = options.get("sslmode", "") == _VERIFIED
    if not is_verified and ("sslmode" in options or not all(_is_local(h) for h, _ in hosts)):
        raise _error(f"the database is on the network: its URL needs sslmode={_VERIFIED}")
    return DatabaseConfig(
        hosts=hosts,
        user=user,
        database=database,
        is_verified=is_verified,
        root_certificate=options.get("sslrootcert", ""),
        password=_password(Path(password_file)) if password_file else "",
    )


def _host(text: str) -> tuple[str, int]:
    if text.startswith("/"):
        return text, _PORT
    try:
        parts = urlsplit(f"//{text}")
        host, port = parts.hostname or "", parts.port or _PORT
    except ValueError as error:
        raise _error(f"not a host of a database: {text[:100]!r}") from error
    if not host:
        raise _error("the database URL names no host")
    return host, port


def _is_local(host: str) -> bool:
    if host.startswith("/") or host == "localhost":
        return True
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False


def _password(path: Path) -> str:
    try:
        descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK)
        with os.fdopen(descriptor, "rb") as file:
            status = os.fstat(descriptor)
            raw = file.read(_MAX_PASSWORD_BYTES + 1)
    except OSError as error:
        raise _error(f"cannot read {path}: {error.strerror}") from error
    if not stat.S_ISREG(status.st_mode) or status.st_mode & 0o077:
        raise _error(f"others can read {path}, the database's password: chmod 600 it")
    try:
        password = raw.decode().rstrip("\n")
    except UnicodeDecodeError as error:
        raise _error(f"{path} holds no password in UTF-8") from error
    if not password or len(raw) > _MAX_PASSWORD_BYTES:
        raise _error(f"{path} holds no password, or one that is too long")
    return password


def _error(text: str) -> CallerError:
    return CallerError(text, reason="database")
