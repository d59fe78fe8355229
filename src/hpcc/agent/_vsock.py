"""The one connection of a guest whose channel is vsock."""

from __future__ import annotations

import asyncio
import socket
from typing import Final

_BACKLOG: Final = 1


def listen(port: int) -> socket.socket:
    """Listen for the host."""
    listener = socket.socket(socket.AF_VSOCK, socket.SOCK_STREAM)
    listener.bind((socket.VMADDR_CID_ANY, port))
    listener.listen(_BACKLOG)
    listener.settimeout(0)
    return listener


async def accept_from_host(listener: socket.socket) -> int:
    """Return the descriptor of the host's connection, non-blocking; closes the listener."""
    loop = asyncio.get_running_loop()
    with listener:
        while True:
            connection, (cid, _) = await loop.sock_accept(listener)
            if cid == socket.VMADDR_CID_HOST:
                return connection.detach()
            connection.close()
