"""Reads the kernel's record of the peer of a Unix socket."""

from __future__ import annotations

import socket
import struct
from typing import Final

# struct ucred of SO_PEERCRED: pid, uid, gid (unix(7)).
_UCRED: Final = struct.Struct("3i")


def peer_credentials(connection: socket.socket) -> tuple[int, int]:
    """Return pid and uid of the process that connected, from the kernel."""
    raw = connection.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, _UCRED.size)
    pid, uid, _ = _UCRED.unpack(raw)
    return pid, uid


def peer_uid(connection: socket.socket) -> int:
    """Return the uid of the process that connected, from the kernel."""
    return peer_credentials(connection)[1]
