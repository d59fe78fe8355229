"""Addresses of services in an operator's configuration: TLS, or loopback."""

from __future__ import annotations

import ipaddress
from typing import Final
from urllib.parse import urlsplit

from hpcc.core.errors import CallerError

MAX_PORT: Final = 65_535
_LOOPBACK_NAMES: Final = frozenset({"localhost"})


def check_endpoint(endpoint: str, *, secure: str, plain: str) -> bool:
    """Return whether the endpoint is reached without TLS, which is only allowed on loopback.

    Raises:
        CallerError: not a URL of the two schemes, a password in it, or plain and not loopback.
    """
    try:
        parts = urlsplit(endpoint)
        host, port = parts.hostname or "", parts.port
    except ValueError:
        host, port = "", None
    if (
        not host
        or port == 0
        or parts.scheme not in {secure, plain}
        or parts.username
        or parts.query
    ):
        raise CallerError(f"endpoint must be {secure}://HOST[:PORT]", reason="config")
    if parts.scheme == plain and not is_loopback(host):
        raise CallerError(
            f"endpoint must be {secure}://…: without TLS only loopback is used", reason="config"
        )
    return parts.scheme == plain


def check_port(name: str, port: int) -> None:
    """Check a port to listen on; 0 lets the system choose.

    Raises:
        CallerError: there is no such port. (gRPC would take it modulo 65,536.)
    """
    if not 0 <= port <= MAX_PORT:
        raise CallerError(f"{name} must be 0 to {MAX_PORT}, not {port}", reason="config")


def is_loopback(host: str) -> bool:
    """Return whether a host name (without port) can only be this machine."""
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host in _LOOPBACK_NAMES
