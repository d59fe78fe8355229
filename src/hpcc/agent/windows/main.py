"""Starts the agent on Windows: `hpcc-agent.exe serve --port N` or `--stdio`, from app.pyz.

It accepts one connection, none of the container's own programs', and ends with it. The tests run it
under Wine over a socket of another family; not yet tested on Windows over a Hyper-V socket.
"""

from __future__ import annotations

import argparse
import asyncio
import os
import secrets
import shutil
import socket
import sys
from collections.abc import Awaitable, Callable, Sequence
from contextlib import closing
from typing import Any, Final

from grpclib.server import Server

from hpcc.agent.base.greeter import Greeter
from hpcc.agent.base.machine import Machine
from hpcc.agent.base.service import Agent
from hpcc.agent.base.stream_pair import StreamPair
from hpcc.agent.windows.loop import new_loop
from hpcc.agent.windows.machine import WindowsAgentConfig, WindowsMachine
from hpcc.agent.windows.native import make_private_directory, make_shared_directory, memory_bytes
from hpcc.wire.link import GuestLink

# The service id of a vsock port among Hyper-V sockets; hpcc.runtime has the same.
_SERVICE: Final = "{:08x}-facb-11e6-bd58-64006a7986d3"
_DIRECTORY: Final = "C:\\.hpcc-work"
_MAX_PORT: Final = 0x7FFF_FFFF
# Hyper-V's names for the peers of a listener (hvsocket.h). By Microsoft's documents a container's
# parent is the utility VM, and by go-winio's the host. So anyone may connect, and programs of the
# same partition (LOOPBACK) are refused. Where this account may not listen for anyone, it listens
# for the parent.
_PEERS: Final = ("HV_GUID_WILDCARD", "HV_GUID_PARENT")
_LOOPBACK: Final = "e0e16197-dd56-4a10-9195-5ee7a155a838"
_BACKLOG: Final = 1
_MAX_REFUSED: Final = 16
_RESERVED_BYTES: Final = 512 << 20
_MIN_MEMORY_BYTES: Final = 128 << 20
# On the scratch disk, which has 20 GB unless the worker sets another size.
_BLOB_BUDGET_BYTES: Final = 2 << 30
_MAX_PROCESSES: Final = 256

type Accept = Callable[[], Awaitable[socket.socket]]


def listen(port: int) -> socket.socket:
    """Listen on a Hyper-V socket, for anyone or else for the parent partition.

    Raises:
        OSError: this account may not bind it.
        SystemExit: this Python has no Hyper-V sockets.
    """
    # These constants exist only in Windows builds, Python 3.12 and later.
    names: dict[str, Any] = vars(socket)
    if not {"AF_HYPERV", "HV_PROTOCOL_RAW", *_PEERS} <= names.keys():
        raise SystemExit("hpcc-agent: this Python has no Hyper-V sockets")
    anyone, parent = (names[name] for name in _PEERS)
    try:
        return _listen(names, anyone, port)
    except OSError:
        return _listen(names, parent, port)


def _listen(names: dict[str, Any], peer: str, port: int) -> socket.socket:
    listener = socket.socket(names["AF_HYPERV"], socket.SOCK_STREAM, names["HV_PROTOCOL_RAW"])
    try:
        listener.bind((peer, _SERVICE.format(port)))
        listener.listen(_BACKLOG)
    except BaseException:
        listener.close()
        raise
    return listener


def take_host(listener: socket.socket) -> socket.socket:
    """Accept the host's connection and close the listener, since there is only one. Blocks.

    Raises:
        OSError: the host did not connect.
    """
    with closing(listener):
        for _ in range(_MAX_REFUSED):
            connection, peer = listener.accept()
            # Programs of this container are refused, in case they may bind and connect.
            if str(peer[0]).strip("{}").lower() != _LOOPBACK:
                return connection
            connection.close()
    raise ConnectionError("connections of the container's own programs, and none of the host's")


def take_streams() -> tuple[int, int]:
    """Take over standard input and output; what is printed goes to standard error from now on."""
    source, target = os.dup(0), os.dup(1)
    os.dup2(2, 1)
    if os.name == "nt":
        # Only in Windows builds.
        import msvcrt

        set_mode: Any = vars(msvcrt)["setmode"]
        for descriptor in (source, target):
            set_mode(descriptor, vars(os)["O_BINARY"])
    return source, target


async def serve(accept: Accept, machine: Machine) -> None:
    """Serve the one session of this guest, until its stream ends."""

    async def connect(greeter: Greeter) -> None:
        connection = await accept()
        connection.settimeout(0)
        loop = asyncio.get_running_loop()
        await loop.connect_accepted_socket(lambda: greeter, connection)

    await _serve(connect, machine)


async def serve_streams(source: int, target: int, machine: Machine) -> None:
    """Serve one session on two descriptors, until the source ends."""

    async def connect(greeter: Greeter) -> None:
        StreamPair(asyncio.get_running_loop(), source, target, greeter)

    await _serve(connect, machine)


async def _serve(connect: Callable[[Greeter], Awaitable[None]], machine: Machine) -> None:
    server = Server([Agent(machine)])
    loop = asyncio.get_running_loop()
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

        protocol.connection_lost = connection_lost  # type: ignore[method-assign, assignment]  # to see the end
        return protocol

    # The first peer sets the token: there is only one peer, and no program has run yet.
    await connect(Greeter(GuestLink(None), session, on_lost=end))
    error = await over
    _log(f"session over: {error}")


def _machine(directory: str = _DIRECTORY) -> Machine:
    most = memory_bytes() - _RESERVED_BYTES
    config = WindowsAgentConfig(
        # app.pyz is in the stub's directory.
        stub=(os.path.join(os.path.dirname(os.path.abspath(sys.argv[0])), "hpcc-agent.exe"),),
        variables=dict(os.environ),
        directory=directory,
        make_shared=make_shared_directory,
        make_private=make_private_directory,
        blob_budget_bytes=_BLOB_BUDGET_BYTES,
        max_memory_bytes=max(most, _MIN_MEMORY_BYTES),
        max_pids=_MAX_PROCESSES,
    )
    return WindowsMachine(config)


def _arguments(argv: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="hpcc-agent serve")
    where = parser.add_mutually_exclusive_group(required=True)
    where.add_argument("--port", type=int, help="vsock port to listen on")
    where.add_argument("--stdio", action="store_true", help="speak on standard input and output")
    arguments = parser.parse_args(argv)
    if not arguments.stdio and not 0 < arguments.port <= _MAX_PORT:
        parser.error(f"not a vsock port: {arguments.port}")
    return arguments


def _log(text: str) -> None:
    sys.stderr.write(f"hpcc-agent: {text}\n")


def _main_on_streams() -> None:
    # Agents come and go in one container, so each makes a directory with a fresh name.
    directory = f"{_DIRECTORY}-{secrets.token_hex(8)}"
    try:
        with asyncio.Runner(loop_factory=new_loop) as runner:
            runner.run(serve_streams(*take_streams(), _machine(directory)))
    finally:
        shutil.rmtree(directory, ignore_errors=True)


def main_on_windows(argv: Sequence[str] | None = None) -> None:
    """Serve until the session is over; the stub, and with it the container, ends then."""
    arguments = _arguments(argv)
    if arguments.stdio:
        _main_on_streams()
        return
    try:
        listener = listen(arguments.port)
    except OSError as error:
        raise SystemExit(f"hpcc-agent: the socket cannot be bound: {error}") from error
    _log("listening")
    with asyncio.Runner(loop_factory=new_loop) as runner:
        runner.run(serve(lambda: asyncio.to_thread(take_host, listener), _machine()))
