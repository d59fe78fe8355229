"""The zygote survives whatever happens to the warden of one guest."""

from __future__ import annotations

import errno
import os
import socket

import pytest

from hpcc.warden import zygote as _zygote
from hpcc.warden.session import serve
from hpcc.wire import warden as wire


def test_a_fork_that_fails_costs_one_guest(monkeypatch: pytest.MonkeyPatch) -> None:
    def no_process_left() -> int:
        raise OSError(errno.EAGAIN, "no more processes")

    monkeypatch.setattr(os, "fork", no_process_left)
    control, ours = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    line, zygotes_line = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    guest, guests_end = socket.socketpair()
    worker, wardens_end = socket.socketpair()
    with control, line, guest, worker:
        fds = [guests_end.fileno(), wardens_end.fileno(), zygotes_line.fileno()]
        socket.send_fds(ours, [wire.encode_spawn(None)], fds)
        for end in (ours, zygotes_line, guests_end, wardens_end):
            end.close()
        _zygote._Zygote(control, serve).run()
        for end in (line, guest, worker):
            assert end.recv(1) == b""


def test_a_request_without_its_descriptors_is_let_go() -> None:
    control, ours = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    kept, sent = socket.socketpair()
    with control, kept:
        socket.send_fds(ours, [wire.encode_spawn(None)], [sent.fileno()])
        sent.close()
        ours.close()
        _zygote._Zygote(control, serve).run()
        assert kept.recv(1) == b""


def test_a_warden_that_may_not_be_killed_does_not_end_the_others(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    def may_not(pid: int, number: int) -> None:
        raise PermissionError(errno.EPERM, "not permitted")

    monkeypatch.setattr(os, "kill", may_not)
    control, ours = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    line, zygotes_line = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    with control, ours, line, zygotes_line:
        zygote = _zygote._Zygote(control, serve)
        zygote._poll.register(zygotes_line)
        zygote._kill(_zygote._Warden(1, -1, zygotes_line))
