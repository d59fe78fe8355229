"""A hostile agent for a real guest: honest until a compile names an attack.

It replaces `hpcc.agent` on an agent drive. An exec whose arguments contain `-DHPCC_ATTACK_x_y=1`
gets the attack `x-y`; every other exec gets the answer that there is no such program.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import suppress
from typing import Final

from hpcc._proto import agent_pb2 as pb
from hpcc.wire.exec_frames import PORT_NAME
from hpcc.wire.link import READY
from hpcc_testkit.hostile import peer as raw
from hpcc_testkit.hostile.exec import EXEC, Asked, need, result
from hpcc_testkit.hostile.peer import GoneError, Peer

MARK: Final = "-DHPCC_ATTACK_"
_PORTS: Final = "/sys/class/virtio-ports"
_NO_SUCH_PROGRAM: Final = 127


def attack_flag(name: str) -> str:
    """Return the argument that makes a compile request an attack."""
    return f"{MARK}{name.replace('-', '_')}=1"


def attack_of(argv: Iterator[str]) -> str:
    """Return the attack that a compile requests, or ""."""
    found = (w.removeprefix(MARK).partition("=")[0] for w in argv if w.startswith(MARK))
    return next(found, "").replace("_", "-")


class _Agent(Peer):
    """A peer that can look at the next request before it handles it."""

    def __init__(self, fd: int) -> None:
        super().__init__(fd)
        self._read_ahead: tuple[int, pb.ClientFrame] | None = None

        self._is_settled = False

    def _fill(self) -> None:
        # A port reports its end while no host is connected: before a session, and while a snapshot
        # is taken.
        while not self._is_settled:
            try:
                return super()._fill()
            except GoneError:
                self.pause(0.01)
        return super()._fill()

    def settle(self) -> None:
        """Settle once, because windows can only grow."""
        if not self._is_settled:
            self._is_settled = True
            super().settle()

    def look(self) -> tuple[int, pb.ClientFrame]:
        """Return the next request without consuming it."""
        self._read_ahead = super().request()
        return self._read_ahead

    def request(self) -> tuple[int, pb.ClientFrame]:
        found, self._read_ahead = self._read_ahead, None
        return found or super().request()


def _serve(agent: _Agent) -> None:
    agent.send(READY)
    agent.welcome()
    agent.settle()
    while True:
        stream, request = agent.look()
        if name := attack_of(iter(request.header.argv)):
            EXEC[name].play(agent)
            return
        agent.request()
        agent.send(raw.headers(stream))
        status = result(reason=pb.Result.REASON_NO_SUCH_PROGRAM, exit_code=_NO_SUCH_PROGRAM)
        to = Asked(agent, stream, request.header)
        to.say(need())
        agent.wait_end(stream)
        to.say(status).end()


def _find_port() -> str:
    for name in sorted(os.listdir(_PORTS)):
        with open(f"{_PORTS}/{name}/name") as file:
            if file.read().strip() == PORT_NAME:
                return f"/dev/{name}"
    raise SystemExit(f"no virtio port named {PORT_NAME}")


def main() -> None:
    """Serve until the session ends; PID 1 then shuts the machine down."""
    fd = os.open(_find_port(), os.O_RDWR | os.O_CLOEXEC)
    with suppress(GoneError):
        _serve(_Agent(fd))
