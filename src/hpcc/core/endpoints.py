"""Addresses of services in an operator's configuration: TLS, or loopback."""

from __future__ import annotations

import ipaddress
import re
from typing import Final, NamedTuple
from urllib.parse import urlsplit

from hpcc.core.errors import CallerError

MAX_PORT: Final = 65_535
_LOOPBACK_NAMES: Final = frozenset({"localhost"})
# IANA's port of OTLP over HTTP; a collector with TLS and no port in its address is behind 443.
_OTLP_PORT: Final = 4318
_HTTPS_PORT: Final = 443
_OTLP: Final = re.compile(r"(https?)://([A-Za-z0-9.:\[\]_-]{1,300})(/[A-Za-z0-9._~/-]{0,300})?")
_SIGNALS: Final = ("/v1/traces", "/v1/logs", "/v1/metrics")


class OtlpAddress(NamedTuple):
    """Where a collector is. `path` is in front of `/v1/traces` and `/v1/logs`."""

    is_plain: bool
    host: str
    port: int
    path: str


def otlp_address(url: str) -> OtlpAddress:
    """Return the collector that a setting names.

    Raises:
        CallerError: it is not `https://HOST[:PORT][/PATH]`, or `http` and not loopback.
    """
    match = _OTLP.fullmatch(url)
    try:
        parts = urlsplit(url)
        host, port = parts.hostname or "", parts.port
    except ValueError:
        host, port = "", None
    if match is None or not host or port == 0:
        raise CallerError(
            "otlp must be https://HOST[:PORT][/PATH], without a password or a query;"
            " secrets go into otlp_headers_file",
            reason="config",
        )
    is_plain, path = match[1] == "http", (match[3] or "").rstrip("/")
    if is_plain and not is_loopback(host):
        raise CallerError(
            "otlp must be https://…: without TLS only loopback is used", reason="config"
        )
    if path.endswith(_SIGNALS):
        raise CallerError(
            "otlp is the address without /v1/traces or /v1/logs, which hpcc adds", reason="config"
        )
    return OtlpAddress(is_plain, host, port or (_OTLP_PORT if is_plain else _HTTPS_PORT), path)


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
