"""Speaks to the service manager that started this process: sd_notify(3), without a library.

The protocol is one datagram of `KEY=value` lines to the socket that NOTIFY_SOCKET names. A name
that begins with `@` is in Linux' abstract namespace. The variables are taken out of the environment
before anything is started: a compiler, a guest's VMM or a helper that had them could say that the
service is ready, or keep a hanging one alive.
"""

from __future__ import annotations

import logging
import os
import socket
import sys
from collections.abc import MutableMapping
from typing import Final

_log: Final = logging.getLogger(__name__)
_SOCKET: Final = "NOTIFY_SOCKET"
_WATCHDOG: Final = ("WATCHDOG_USEC", "WATCHDOG_PID")
_MICROSECONDS: Final = 1_000_000
_MAX_DIGITS: Final = 18
# unix(7): the name of a socket, with its final zero.
_MAX_ADDRESS_BYTES: Final = 107


class ServiceManager:
    """Sends datagrams. A manager that does not read costs nothing: the datagram is dropped."""

    def __init__(self, address: str, watchdog_seconds: float = 0.0) -> None:
        """`watchdog_seconds`: the manager ends a service that is silent for so long; 0: never."""
        self.watchdog_seconds = watchdog_seconds
        self._address = f"\0{address[1:]}" if address.startswith("@") else address
        self._has_failed = False

    @classmethod
    def taken_from(cls, environment: MutableMapping[str, str]) -> ServiceManager | None:
        """Return the manager that an environment names, and remove it there; None without one."""
        address = environment.pop(_SOCKET, "")
        usec, pid = (environment.pop(name, "") for name in _WATCHDOG)
        if not address or sys.platform == "win32":
            return None
        is_socket = address[0] in "/@" and 1 < len(os.fsencode(address)) <= _MAX_ADDRESS_BYTES
        if not is_socket:
            _log.warning(
                "%s is neither a path nor an abstract name: the service manager gets no messages",
                _SOCKET,
            )
            return None
        # Set for one process: a child that inherited the variable is not watched.
        is_ours = pid in {"", str(os.getpid())}
        return cls(address, _number(usec) / _MICROSECONDS if is_ours else 0.0)

    def send(self, *lines: str) -> bool:
        """Send `KEY=value` lines as one datagram; return whether the manager has it."""
        if sys.platform == "win32":
            return False
        data = "\n".join(lines).encode("utf-8", "replace")
        try:
            with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as sender:
                # A manager with a full queue must not stop the event loop.
                sender.settimeout(0.0)
                sender.sendto(data, self._address)
        except OSError as error:
            if not self._has_failed:
                _log.warning("the service manager cannot be told: %s", error)
            self._has_failed = True
            return False
        self._has_failed = False
        return True


def extended(seconds: float) -> str:
    """Return the line that asks for so much more time to start or to end."""
    return f"EXTEND_TIMEOUT_USEC={int(seconds * _MICROSECONDS)}"


def _number(text: str) -> int:
    is_number = text.isascii() and text.isdecimal() and len(text) <= _MAX_DIGITS
    return int(text) if is_number else 0
