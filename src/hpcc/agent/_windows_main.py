"""The agent's start on Windows: `hpcc-agent.exe serve --port N` runs this from app.pyz.

It takes one connection, from the container's host alone, and ends with it. Not yet run on Windows
over a Hyper-V socket; the tests run it under Wine over one of another family.
"""

from __future__ import annotations

import argparse
import asyncio
import os
import socket
import sys
from collections.abc import Awaitable, Callable, Sequence
from contextlib import closing
from typing import Any, Final

from grpclib.server import Server

from hpcc.agent._greeter import Greeter
from hpcc.agent._machine import Machine
from hpcc.agent._service import Agent
from hpcc.agent._windows import WindowsConfig, WindowsMachine
from hpcc.agent._windows_loop import new_loop
from hpcc.agent._windows_native import make_shared_directory, memory_bytes
from hpcc.wire import GuestLink

# The service of a vsock port among those of Hyper-V sockets; hpcc.runtime has the same.
_SERVICE: Final = "{:08x}-facb-11e6-bd58-64006a7986d3"
_MAX_PORT: Final = 0x7FFF_FFFF
# Hyper-V's names for who may connect (hvsocket.h): the partition above, or with a table of
# services that says who, anyone. Programs of the same container are LOOPBACK.
_PEERS: Final = {"parent": "HV_GUID_PARENT", "any": "HV_GUID_WILDCARD"}
_LOOPBACK: Final = "e0e16197-dd56-4a10-9195-5ee7a155a838"
_BACKLOG: Final = 1
_MAX_REFUSED: Final = 16
_RESERVED_BYTES: Final = 512 << 20
_MIN_MEMORY_BYTES: Final = 128 << 20
# On the scratch disk, of 20 GB unless the worker asks for another.
_BLOB_BUDGET_BYTES: Final = 2 << 30
_MAX_PROCESSES: Final = 256

type Accept = Callable[[], Awaitable[socket.socket]]


def listen(port: int, peers: str) -> socket.socket:
    """Listen on a Hyper-V socket for those that `peers` names.

    Raises:
        OSError: this account may not bind it.
        SystemExit: this Python has no Hyper-V sockets.
    """
    # Constants of Windows builds alone, Python 3.12 and later.
    names: dict[str, Any] = vars(socket)
    if not {"AF_HYPERV", "HV_PROTOCOL_RAW", _PEERS[peers]} <= names.keys():
        raise SystemExit("hpcc-agent: this Python has no Hyper-V sockets")
    family, protocol = names["AF_HYPERV"], names["HV_PROTOCOL_RAW"]
    listener = socket.socket(family, socket.SOCK_STREAM, protocol)
    try:
        listener.bind((names[_PEERS[peers]], _SERVICE.format(port)))
        listener.listen(_BACKLOG)
    except BaseException:
        listener.close()
        raise
    return listener


def take_host(listener: socket.socket) -> socket.socket:
    """Return the host's connection and close the listener: there is no other. Blocks.

    Raises:
        OSError: there is none to be had.
    """
    with closing(listener):
        for _ in range(_MAX_REFUSED):
            connection, peer = listener.accept()
            # Programs of this very container are refused, whoever may bind and connect.
            if str(peer[0]).strip("{}").lower() != _LOOPBACK:
                return connection
            connection.close()
    raise ConnectionError("connections of the container's own programs, and none of the host's")


async def serve(accept: Accept, machine: Machine) -> None:
    """Serve the one session of this guest, until its stream ends."""
    loop = asyncio.get_running_loop()
    server = Server([Agent(machine)])
    over: asyncio.Future[BaseException | None] = loop.create_future()

    def end(error: BaseException | None) -> None:
        if not over.done():
            over.set_result(error)

    def session() -> asyncio.Protocol:
        # grpclib offers no public way to serve a stream after a handshake; 0.4.x is pinned.
        protocol: asyncio.Protocol = server._protocol_factory()  # noqa: SLF001 - as above
        lost = protocol.connection_lost

        def connection_lost(error: Exception | None) -> None:
            lost(error)
            end(error)

        protocol.connection_lost = connection_lost  # type: ignore[method-assign, assignment]  # to hear it, too
        return protocol

    connection = await accept()
    connection.settimeout(0)
    # The first to come says which token it is: the listener is closed, and nothing has run yet.
    greeter = Greeter(GuestLink(None), session, on_lost=end)
    await loop.connect_accepted_socket(lambda: greeter, connection)
    error = await over
    _log(f"session over: {error}")


def _machine() -> Machine:
    most = memory_bytes() - _RESERVED_BYTES
    config = WindowsConfig(
        # app.pyz lies beside the stub.
        stub=(os.path.join(os.path.dirname(os.path.abspath(sys.argv[0])), "hpcc-agent.exe"),),
        variables=dict(os.environ),
        make_directory=make_shared_directory,
        blob_budget_bytes=_BLOB_BUDGET_BYTES,
        max_memory_bytes=max(most, _MIN_MEMORY_BYTES),
        max_pids=_MAX_PROCESSES,
    )
    return WindowsMachine(config)


def _arguments(argv: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="hpcc-agent serve")
    parser.add_argument("--port", type=int, required=True, help="vsock port to listen on")
    parser.add_argument("--peers", choices=sorted(_PEERS), default="parent")
    arguments = parser.parse_args(argv)
    if not 0 < arguments.port <= _MAX_PORT:
        parser.error(f"not a vsock port: {arguments.port}")
    return arguments


def _log(text: str) -> None:
    sys.stderr.write(f"hpcc-agent: {text}\n")


def main_on_windows(argv: Sequence[str] | None = None) -> None:
    """Run until the session is over; the stub, and with it the container, ends then."""
    arguments = _arguments(argv)
    try:
        listener = listen(arguments.port, arguments.peers)
    except OSError as error:
        raise SystemExit(f"hpcc-agent: the socket cannot be bound: {error}") from error
    _log("listening")
    with asyncio.Runner(loop_factory=new_loop) as runner:
        runner.run(serve(lambda: asyncio.to_thread(take_host, listener), _machine()))
