"""Hyper-V sockets: how a host connects to the agent in a utility VM. Not yet run on Windows.

asyncio's proactor cannot connect or accept sockets of this family (CPython `windows_events.py` and
`_overlapped`), but it can use connected ones. So a thread connects.
"""

from __future__ import annotations

import asyncio
import socket
import uuid
from collections.abc import Callable
from typing import Any, Final

from hpcc.core import InfrastructureError
from hpcc.runtime.host.threads import in_thread

# Refused, no route, no answer: the guest is still booting (go-winio, canRedial).
RETRIED: Final = frozenset({10061, 10051, 10060})
_CONNECT_MS: Final = 2000
_PAUSE_SECONDS: Final = 0.1

type Address = tuple[str, str]
type NewSocket = Callable[[], socket.socket]


def hyperv_socket() -> socket.socket:
    """Return a socket whose attempts to connect end after two seconds.

    Raises:
        InfrastructureError: this Python has no Hyper-V sockets, so it does not run on Windows.
    """
    # Only Windows builds have these constants, from Python 3.12 on.
    names: dict[str, Any] = vars(socket)
    family, protocol = names.get("AF_HYPERV"), names.get("HV_PROTOCOL_RAW")
    option = names.get("HVSOCKET_CONNECT_TIMEOUT")
    if family is None or protocol is None or option is None:
        raise InfrastructureError("no Hyper-V sockets here: not Windows", reason="not-windows")
    # Windows refuses protocol 0 (WSAEPROTOTYPE).
    made = socket.socket(family, socket.SOCK_STREAM, protocol)
    try:
        made.setsockopt(protocol, option, _CONNECT_MS)
    except BaseException:
        made.close()
        raise
    return made


def address_of(vm_id: uuid.UUID, service_id: uuid.UUID) -> Address:
    """Return the address of a VM's service as Python's sockets write it: two GUID strings."""
    return str(vm_id), str(service_id)


async def dial(
    address: Address, *, timeout_seconds: float, new_socket: NewSocket = hyperv_socket
) -> socket.socket:
    """Return a non-blocking socket connected to the agent; retries while the guest boots.

    An agent accepts only one connection, so the caller never dials a guest twice. A cancel closes
    the socket and waits, two seconds at most, until the thread has left its connect.

    Raises:
        InfrastructureError: no connection in time, or another error.
    """
    last = "never refused"
    try:
        async with asyncio.timeout(timeout_seconds):
            while True:
                try:
                    return await _connect(new_socket(), address)
                except OSError as error:
                    if _code(error) not in RETRIED:
                        raise InfrastructureError(
                            f"the guest's agent cannot be dialled: {error}", reason="dial"
                        ) from error
                    last = str(error)
                await asyncio.sleep(_PAUSE_SECONDS)
    except TimeoutError as error:
        raise InfrastructureError(
            f"no agent answered in {timeout_seconds:.0f} s: {last}", reason="dial-timeout"
        ) from error


async def _connect(made: socket.socket, address: Address) -> socket.socket:
    try:
        await in_thread(lambda: made.connect(address), made.close)
        made.settimeout(0)
    except BaseException:
        made.close()
        raise
    return made


def _code(error: OSError) -> int | None:
    """Return the error's Windows number, or its errno."""
    code: int | None = getattr(error, "winerror", None)
    return code or error.errno
