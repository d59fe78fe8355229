"""Addresses of services as an operator writes them: TLS, or loopback."""

from __future__ import annotations

import ipaddress
from typing import Final
from urllib.parse import urlsplit

from hpcc.core._errors import CallerError

_LOOPBACK_NAMES: Final = frozenset({"localhost"})


def check_endpoint(endpoint: str, *, secure: str, plain: str) -> bool:
    """Say whether the endpoint is reached without TLS, which only loopback may be.

    Raises:
        CallerError: it is no URL of the two schemes, holds a password, or is plain elsewhere.
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
    if parts.scheme == plain and not _is_loopback(host):
        raise CallerError(
            f"endpoint must be {secure}://…: without TLS only loopback is used", reason="config"
        )
    return parts.scheme == plain


def _is_loopback(host: str) -> bool:
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host in _LOOPBACK_NAMES
