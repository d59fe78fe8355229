"""Hostile guests as processes, forked from one server; each gets its end of a socket pair.

`HostileServer.start` starts a guest. `python -m hpcc_testkit.hostile.server` is the server process;
it serves the socket on its standard input.
"""

from __future__ import annotations

import mmap
import os
import signal
import socket
import subprocess
import sys
from collections.abc import Callable
from functools import partial
from typing import Final

from hpcc_testkit.hostile.exec import AFTER, EXEC, HONEST
from hpcc_testkit.hostile.link import IDLE, LINK
from hpcc_testkit.hostile.peer import Peer

_TABLES: Final = {"link": LINK, "idle": IDLE, "exec": EXEC, "after": AFTER, "honest": HONEST}
_COUNTER_BYTES: Final = 8
_NAME_BYTES: Final = 256
_PID_BYTES: Final = 4


class HostileGuest:
    """One guest process. `kill` it as a worker kills a VM."""

    def __init__(self, server: socket.socket, pid: int, counter: mmap.mmap) -> None:
        self._server, self.pid, self._counter = server, pid, counter
        self.is_killed = False

    @property
    def sent_bytes(self) -> int:
        """Return the bytes that the host has read so far; exact after `kill`."""
        return int.from_bytes(self._counter[:_COUNTER_BYTES], "little")

    def kill(self) -> None:
        """Kill the process and wait until it is gone."""
        if not self.is_killed:
            self._server.sendall(f"kill {self.pid}".encode())
            self._server.recv(_PID_BYTES)
            self.is_killed = True


class HostileServer:
    """Starts hostile guests."""

    def __init__(self) -> None:
        self._socket, theirs = socket.socketpair(type=socket.SOCK_SEQPACKET)
        with theirs:
            self._process = subprocess.Popen(
                [sys.executable, "-m", __spec__.name], stdin=theirs.fileno()
            )

    def start(self, stage: str, name: str) -> tuple[HostileGuest, socket.socket]:
        """Start a guest with this attack; return it and the host's end of its stream."""
        host, guest = socket.socketpair()
        counter_fd = os.memfd_create("sent")
        os.truncate(counter_fd, mmap.PAGESIZE)
        counter = mmap.mmap(counter_fd, mmap.PAGESIZE)
        with guest:
            request = f"{stage} {name}".encode()
            socket.send_fds(self._socket, [request], [guest.fileno(), counter_fd])
            os.close(counter_fd)
            pid = int.from_bytes(self._socket.recv(_PID_BYTES), "little")
        return HostileGuest(self._socket, pid, counter), host

    def stop(self) -> None:
        self._socket.close()
        self._process.wait(timeout=10)


def _child(stage: str, name: str, fd: int, counter_fd: int) -> None:
    with mmap.mmap(counter_fd, mmap.PAGESIZE) as counter:

        def note(sent: int) -> None:
            counter[:_COUNTER_BYTES] = sent.to_bytes(_COUNTER_BYTES, "little")

        peer = Peer(fd, note)
        if stage != "link":
            peer.welcome()
        _TABLES[stage][name].play(peer)


def _forked(work: Callable[[], None]) -> int:
    pid = os.fork()
    if pid:
        return pid
    status = 1
    try:
        work()
        status = 0
    finally:
        os._exit(status)


def main() -> None:
    """Serve until the other end is closed, then kill all guests."""
    server = socket.socket(fileno=os.dup(0))
    alive: set[int] = set()
    while True:
        request, fds, _, _ = socket.recv_fds(server, _NAME_BYTES, 2)
        if not request:
            break
        stage, _, name = request.decode().partition(" ")
        if stage == "kill":
            pid = int(name)
            os.kill(pid, signal.SIGKILL)
            os.waitpid(pid, 0)
            alive.discard(pid)
        else:
            guest_fd, counter_fd = fds
            pid = _forked(partial(_child, stage, name, guest_fd, counter_fd))
            alive.add(pid)
        for fd in fds:
            os.close(fd)
        server.sendall(pid.to_bytes(_PID_BYTES, "little"))
    for pid in alive:
        os.kill(pid, signal.SIGKILL)


if __name__ == "__main__":
    main()
