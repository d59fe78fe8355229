"""Starts the agent in a virtual machine: finds the channel, serves one session, ends."""

from __future__ import annotations

import asyncio
import os
import resource
import sys
from collections.abc import Callable
from dataclasses import replace
from typing import Final

from grpclib.server import Server

from hpcc.agent.base.greeter import Greeter
from hpcc.agent.base.service import Agent
from hpcc.agent.linux.cgroup import enable_controllers
from hpcc.agent.linux.machine import LinuxConfig, LinuxMachine
from hpcc.agent.linux.port import PortTransport
from hpcc.agent.linux.vsock import listen, session_of_host
from hpcc.wire.exec_frames import PORT_NAME, TOKEN_PARAMETER, VSOCK_PARAMETER
from hpcc.wire.link import GuestLink

_PORTS: Final = "/sys/class/virtio-ports"
# For kernel, agent and page tables; a compile may not use it.
_RESERVED_BYTES: Final = 96 << 20
_MIN_MEMORY_BYTES: Final = 32 << 20


def find_port(directory: str = _PORTS) -> str:
    """Return the device of the agent's port; its number depends on the machine model."""
    for name in sorted(os.listdir(directory)):
        with open(f"{directory}/{name}/name") as file:
            if file.read().strip() == PORT_NAME:
                return f"/dev/{name}"
    raise SystemExit(f"no virtio port named {PORT_NAME}")


def find_token(command_line: str) -> bytes:
    """Return the link token from the kernel command line."""
    token = _parameter(command_line, TOKEN_PARAMETER)
    if token is None:
        raise SystemExit(f"no {TOKEN_PARAMETER} on the kernel command line")
    return token.encode()


def find_vsock_port(command_line: str) -> int | None:
    """Return the vsock port to listen on; None if the channel is a virtio port."""
    port = _parameter(command_line, VSOCK_PARAMETER)
    return None if port is None else int(port)


def _parameter(command_line: str, wanted: str) -> str | None:
    for word in command_line.split():
        name, _, value = word.partition("=")
        if name == wanted:
            return value
    return None


def _config() -> LinuxConfig:
    with open("/proc/meminfo") as file:
        total_bytes = int(file.readline().split()[1]) << 10
    return LinuxConfig(
        # With the copies that running execs stage, cached blobs stay below the tmpfs limit (70 %).
        blob_budget_bytes=total_bytes // 4,
        max_memory_bytes=max(total_bytes - _RESERVED_BYTES, _MIN_MEMORY_BYTES),
        max_pids=resource.getrlimit(resource.RLIMIT_NPROC)[1],
    )


def _command_line() -> str:
    with open("/proc/cmdline") as file:
        return file.read()


def _survive_out_of_memory() -> None:
    with open("/proc/self/oom_score_adj", "w") as file:
        file.write("-1000")


async def serve() -> None:
    """Serve the one session of this boot."""
    config = _config()
    compiles = enable_controllers(config.cgroup_root, config.max_memory_bytes)
    server = Server([Agent(LinuxMachine(replace(config, cgroup_root=compiles)))])
    command_line = _command_line()
    token = find_token(command_line)

    def greet(on_session: Callable[[asyncio.Transport], object] = lambda _: None) -> Greeter:
        # grpclib offers no public way to serve a transport that is not a socket; 0.4.x is pinned.
        session = server._protocol_factory  # noqa: SLF001 - as above
        return Greeter(GuestLink(token), session, on_session)

    port = find_vsock_port(command_line)
    if port is None:
        fd = os.open(find_port(), os.O_RDWR | os.O_NONBLOCK | os.O_CLOEXEC)
        transport = PortTransport(asyncio.get_running_loop(), fd, greet())
        _log("waiting for the host")
    else:
        listener = listen(port)
        _log("listening")
        transport = await session_of_host(listener, greet)
    error = await transport.ended
    _log(f"session over: {error}")


def _log(text: str) -> None:
    sys.stderr.write(f"hpcc-agent: {text}\n")


def main() -> None:
    """Serve until the session is over; PID 1 then ends the machine."""
    os.umask(0o022)
    _survive_out_of_memory()
    asyncio.run(serve())
