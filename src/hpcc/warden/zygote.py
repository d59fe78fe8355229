"""Forks the wardens of a worker: it has imported everything they need and holds no secret.

It has one connection to its worker, SOCK_SEQPACKET. Each packet asks for one warden and carries
three descriptors: the guest's stream, the warden's end of its connection to the worker, and a line
(SOCK_SEQPACKET too). The line carries the warden's pid and later its wait status to the worker; if
the worker closes it, the warden is killed.
"""

from __future__ import annotations

import asyncio
import os
import select
import signal
import socket
from collections.abc import Awaitable, Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass
from typing import Final

from hpcc.warden.harden import harden
from hpcc.warden.sandbox import confine, die_with_parent, get_ids, keep_memory, keep_only, set_name
from hpcc.wire import warden as wire

type Work = Callable[[socket.socket, socket.socket], Awaitable[None]]

_EXIT_ERROR: Final = 70
_REQUEST_BYTES: Final = 64


@dataclass(frozen=True, slots=True)
class _Warden:
    pid: int
    pidfd: int
    line: socket.socket


def run(control: socket.socket, work: Work) -> None:
    """Fork wardens until the worker hangs up, then return: all wardens die with this process.

    `work` is what a warden does: `serve`, or in tests an attempt at something forbidden.
    """
    set_name("hpcc-zygote")
    _Zygote(control, work).run()


class _Zygote:
    def __init__(self, control: socket.socket, work: Work) -> None:
        self._control, self._work = control, work
        self._poll = select.poll()
        self._by_pidfd: dict[int, _Warden] = {}
        self._by_line: dict[int, _Warden] = {}

    def run(self) -> None:
        self._poll.register(self._control, select.POLLIN)
        while True:
            for fd, _ in self._poll.poll():
                if fd in self._by_pidfd:
                    self._bury(self._by_pidfd[fd])
                elif fd in self._by_line:
                    self._kill(self._by_line[fd])
                elif fd == self._control.fileno() and not self._take_request():
                    return

    def _take_request(self) -> bool:
        try:
            packet, fds, _, _ = socket.recv_fds(
                self._control, _REQUEST_BYTES, wire.REQUEST_DESCRIPTORS
            )
        except ConnectionError:
            packet, fds = b"", []
        if not packet:
            return False
        if len(fds) == wire.REQUEST_DESCRIPTORS:
            self._fork(wire.decode_spawn(packet), fds)
        else:
            for fd in fds:
                os.close(fd)
        return True

    def _fork(self, uid: int | None, fds: Sequence[int]) -> None:
        guest, worker, line = fds
        zygote, pid = os.getpid(), -1
        with suppress(OSError):  # no process left: the closed line shows it, and the others live on
            pid = os.fork()
        if pid == 0:
            _become_warden(self._work, guest, worker, uid, zygote)
        os.close(guest)
        os.close(worker)
        if pid < 0:
            os.close(line)
            return
        warden = _Warden(pid, os.pidfd_open(pid), socket.socket(fileno=line))
        self._by_pidfd[warden.pidfd] = self._by_line[line] = warden
        self._poll.register(warden.pidfd, select.POLLIN)
        self._poll.register(line, select.POLLIN)
        self._tell(warden, pid)

    def _bury(self, warden: _Warden) -> None:
        _, status = os.waitpid(warden.pid, 0)
        self._tell(warden, status)
        for fd, table in ((warden.pidfd, self._by_pidfd), (warden.line.fileno(), self._by_line)):
            with suppress(KeyError):  # a line that hung up is not polled any more
                self._poll.unregister(fd)
            table.pop(fd, None)
        os.close(warden.pidfd)
        warden.line.close()

    def _kill(self, warden: _Warden) -> None:
        self._poll.unregister(warden.line)
        # It may have ended; where root may not kill, it ends with its streams.
        with suppress(OSError):
            os.kill(warden.pid, signal.SIGKILL)

    @staticmethod
    def _tell(warden: _Warden, number: int) -> None:
        with suppress(OSError):
            warden.line.send(wire.encode_fate(number), socket.MSG_DONTWAIT | socket.MSG_NOSIGNAL)


def _become_warden(work: Work, guest: int, worker: int, uid: int | None, zygote: int) -> None:
    """Do a warden's work in this process, and exit with it."""
    try:
        set_name("hpcc-warden")
        loop = asyncio.new_event_loop()
        # The socket pair by which other threads would wake the loop: there are no threads.
        loop._close_self_pipe()  # type: ignore[attr-defined]  # noqa: SLF001 - no public way
        keep_only([guest, worker, loop._selector.fileno()])  # type: ignore[attr-defined]  # noqa: SLF001 - as above
        confine(uid=uid, parent_pid=zygote)
        streams = [socket.socket(fileno=fd) for fd in (guest, worker)]
        for stream in streams:
            stream.settimeout(0)
        loop.run_until_complete(work(*streams))
    except BaseException:  # noqa: BLE001 - nothing may be reported here: the wait status shows it
        os._exit(_EXIT_ERROR)
    os._exit(0)


def main(descriptor: int, worker_pid: int, helper: str = "", request: str = "") -> None:
    """Run as a worker's zygote, on an inherited socket.

    With a `helper`, wardens get their uids in a user namespace, for which it answers `request`.
    """
    from hpcc.warden.session import serve

    signal.signal(signal.SIGINT, signal.SIG_IGN)
    os.chdir("/")
    if helper:
        get_ids(helper, bytes.fromhex(request))
    die_with_parent(worker_pid)
    keep_memory()
    harden()
    run(socket.socket(fileno=descriptor), serve)
    # An orderly exit would import modules, which is not possible any more.
    os._exit(0)
