"""Checks what a config file says of an admin port: its address, and tenants to name."""

from __future__ import annotations

import re
from typing import Final

from hpcc.core import CallerError, TenantId, check_port
from hpcc.obs.metrics.registry import MAX_TENANTS

_HOST: Final = re.compile(r"[A-Za-z0-9.:_-]{1,255}")
_PORT: Final = re.compile(r"[0-9]{1,5}")


def split_address(name: str, address: str) -> tuple[str, int]:
    """Return host and port of `HOST:PORT`, with IPv6 in brackets; port 0 lets the system choose.

    Raises:
        CallerError: it has another form. `name` is the setting that has it.
    """
    host, _, port = address.rpartition(":")
    is_bracketed = host.startswith("[") and host.endswith("]")
    host = host[1:-1] if is_bracketed else host
    is_address = bool(_HOST.fullmatch(host) and _PORT.fullmatch(port))
    if not is_address or (":" in host) != is_bracketed:
        raise CallerError(
            f"{name} must be HOST:PORT, such as 127.0.0.1:9464 or [::1]:9464", reason="config"
        )
    check_port(name, int(port))
    return host, int(port)


def check_admin(address: str, tenants: tuple[str, ...]) -> None:
    """Check the keys `admin` and `admin_tenants`; without an address there is no port.

    Raises:
        CallerError: an address or a tenant has another form, or there are too many tenants.
    """
    if address:
        split_address("admin", address)
    if len({TenantId(name) for name in tenants}) != len(tenants) or len(tenants) > MAX_TENANTS:
        raise CallerError(
            f"admin_tenants must be at most {MAX_TENANTS} tenants, each once", reason="config"
        )
