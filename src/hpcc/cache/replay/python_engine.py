"""native/replay.c in Python: gives the same answers where the library could not be built."""

from __future__ import annotations

import os
import select
import socket
import stat
from collections.abc import Callable

from hpcc.cache.base.files import signature_of
from hpcc.cache.base.outputs import place
from hpcc.cache.base.peer import peer_uid
from hpcc.cache.replay.engine import (
    FIRST_BYTES_SECONDS,
    REQUEST_BUFFER_BYTES,
    Check,
    CheckKind,
    Outcome,
    Plan,
    check_fits,
)


class PythonEngine:
    """The `Engine` in Python."""

    name = "python"

    def prepare(self, plan: Plan) -> Plan:
        """See `Engine.prepare`."""
        check_fits(plan)
        return plan

    def replay(self, prepared: object, connection: int) -> int:
        """See `Engine.replay`."""
        assert isinstance(prepared, Plan)
        if not all(map(holds, prepared.checks)):
            return Outcome.CHANGED
        if not place(prepared.outputs, source=prepared.source, mode=prepared.mode):
            return Outcome.NOT_OURS
        if connection < 0:
            return Outcome.DONE
        return _send(connection, prepared.answer)

    def receiver(self, listener: socket.socket, uid: int) -> Callable[[], tuple[int, bytes]]:
        """See `Engine.receiver`."""

        def receive() -> tuple[int, bytes]:
            connection, _ = listener.accept()
            if peer_uid(connection) != uid:
                connection.close()
                raise PermissionError("a peer of another user")
            data = _first_bytes(connection)
            return connection.detach(), data

        return receive


def holds(check: Check) -> bool:
    """Tell whether a check holds: one stat; for LACKS maybe one for each name as well."""
    if check.kind is CheckKind.LACKS:
        return _lacks(check)
    try:
        if check.kind is CheckKind.ABSENT:
            os.lstat(check.path)
            return False
        status = os.stat(check.path)
    except (FileNotFoundError, NotADirectoryError):
        return check.kind is CheckKind.ABSENT
    except OSError:
        return False
    match check.kind:
        case CheckKind.STATE:
            return signature_of(status) == check.values
        case CheckKind.PLACE:
            return (status.st_dev, status.st_ino, status.st_mode, status.st_uid) == check.values
        case _:
            return not stat.S_ISDIR(status.st_mode)


def _lacks(check: Check) -> bool:
    try:
        status = os.stat(check.path)
    except OSError:
        return False
    # A file in the directory's place fails the check, even if its signature is the recorded one.
    if not stat.S_ISDIR(status.st_mode):
        return False
    if signature_of(status) == check.values:
        return True
    # One by one, which also covers names that a file system finds but does not list.
    return all(holds(Check(CheckKind.ABSENT, check.path + b"/" + name)) for name in check.names)


def _send(connection: int, answer: bytes) -> int:
    borrowed = socket.socket(fileno=connection)
    try:
        sent = borrowed.send(answer, socket.MSG_DONTWAIT | socket.MSG_NOSIGNAL)
    except OSError:
        sent = -1
    finally:
        borrowed.detach()
    return Outcome.DONE if sent == len(answer) else Outcome.UNSENT


def _first_bytes(connection: socket.socket) -> bytes:
    poll = select.poll()
    poll.register(connection, select.POLLIN)
    if not poll.poll(FIRST_BYTES_SECONDS * 1000):
        return b""
    try:
        return connection.recv(REQUEST_BUFFER_BYTES, socket.MSG_DONTWAIT)
    except OSError:
        return b""
