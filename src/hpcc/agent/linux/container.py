"""Starts the agent in a container: one connection to the host, one session, then the end."""

from __future__ import annotations

import asyncio
import os
import signal
import socket
import sys
from dataclasses import replace
from typing import Final

from grpclib.server import Server

from hpcc.agent.base.greeter import Greeter
from hpcc.agent.base.service import Agent
from hpcc.agent.linux.cgroup import enable_controllers
from hpcc.agent.linux.machine import LinuxConfig, LinuxMachine
from hpcc.agent.linux.port import PortTransport
from hpcc.wire.container import (
    CONTAINER_LINK,
    CONTAINER_MEMORY_VARIABLE,
    CONTAINER_PIDS_VARIABLE,
    CONTAINER_TOKEN_VARIABLE,
)
from hpcc.wire.link import GuestLink

# For the agent, and for page cache of the image, which is charged to the container.
_RESERVED_BYTES: Final = 64 << 20
_MIN_MEMORY_BYTES: Final = 32 << 20
_PID_1: Final = 1


def connect(path: str) -> int:
    """Return the descriptor of the connection to the host, non-blocking.

    Raises:
        OSError: the host does not listen.
    """
    link = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    link.connect(path)
    link.settimeout(0)
    return link.detach()


def _config() -> LinuxConfig:
    total_bytes = int(os.environ[CONTAINER_MEMORY_VARIABLE])
    return LinuxConfig(
        blob_budget_bytes=total_bytes // 4,
        max_memory_bytes=max(total_bytes - _RESERVED_BYTES, _MIN_MEMORY_BYTES),
        max_pids=int(os.environ[CONTAINER_PIDS_VARIABLE]),
        has_own_kernel=False,
    )


async def serve_in_container() -> None:
    """Serve the one session of this container."""
    config = _config()
    compiles = enable_controllers(config.cgroup_root, config.max_memory_bytes)
    server = Server([Agent(LinuxMachine(replace(config, cgroup_root=compiles)))])
    link = GuestLink(os.environ[CONTAINER_TOKEN_VARIABLE].encode())
    # grpclib offers no public way to serve a transport that is not a socket; 0.4.x is pinned.
    greeter = Greeter(link, server._protocol_factory)  # noqa: SLF001 - as above
    transport = PortTransport(asyncio.get_running_loop(), connect(CONTAINER_LINK), greeter)
    error = await transport.ended
    sys.stderr.write(f"hpcc-agent: session over: {error}\n")


def main_in_container() -> None:
    """Serve until the session is over, then end the container, even if the worker was killed."""
    os.umask(0o022)
    try:
        asyncio.run(serve_in_container())
    finally:
        os.kill(_PID_1, signal.SIGTERM)
