"""Defines the replay engine, the hit path's two blocking calls, and the plan that it carries out.

`Native` (native/replay.c) runs both calls without the GIL. `PythonEngine` does the same in Python
where no library could be built. tests/contract/test_replay_contract.py holds both to the same
answers.
"""

from __future__ import annotations

import enum
import logging
import os
import socket
from collections.abc import Callable
from typing import Final, NamedTuple, Protocol

from hpcc.cache.base.outputs import OutputFile

_log: Final = logging.getLogger("hpcc.daemon.engine")
# One atomic message on a socket; the front sends longer answers itself.
MAX_ANSWER_BYTES: Final = 4096
MAX_OUTPUTS: Final = 64
# Nearly all requests are shorter, so that one read is enough.
REQUEST_BUFFER_BYTES: Final = 64 << 10
# A request usually follows its connection at once; the front's general path waits longer.
FIRST_BYTES_SECONDS: Final = 0.05
DISABLE_VARIABLE: Final = "HPCC_NATIVE"
_MAX_NAME_BYTES: Final = 255
_PATH_BYTES: Final = frozenset(b"/\0")


class Outcome(enum.IntEnum):
    """What `Engine.replay` did; the values are native/replay.h's."""

    DONE = 0  # outputs in place, answer sent
    CHANGED = 1  # a check failed; nothing was written
    NOT_OURS = 2  # an output must not be written; those touched were removed
    MALFORMED = 3
    UNSENT = 4  # outputs in place, but the answer could not be sent


class CheckKind(enum.IntEnum):
    """The kinds of check; the values are native/replay.h's."""

    STATE = 1  # stat gives this `Signature`
    ABSENT = 2  # the name does not exist, not even as a dangling link
    PRESENT = 3  # the name exists and does not lead to a directory
    PLACE = 4  # stat gives this device, inode, mode and owner
    LACKS = 5  # the directory has this `Signature`, if any, or each of `names` is absent from it


class Check(NamedTuple):
    """One condition of an answer. `path` is absolute; `CheckKind` says what `values` hold.

    `names` are only for LACKS; `is_listed_name` is true for each.
    """

    kind: CheckKind
    path: bytes
    values: tuple[int, ...] = ()
    names: tuple[bytes, ...] = ()


class Plan(NamedTuple):
    """A hit to repeat: if all `checks` hold, write `outputs` in order and send `answer`.

    New files get `mode`. `source` is device and inode of a file that no output may overwrite.
    """

    checks: tuple[Check, ...]
    outputs: tuple[OutputFile, ...]
    mode: int
    source: tuple[int, int]
    answer: bytes


class Engine(Protocol):
    """Carries out plans and accepts requests. Thread-safe and stateless."""

    @property
    def name(self) -> str:
        """The engine's name, for `hpcc doctor`."""
        ...

    def prepare(self, plan: Plan) -> object:
        """Convert a plan to the form that `replay` takes.

        Raises:
            ValueError: see `check_fits`.
        """
        ...

    def replay(self, prepared: object, connection: int) -> int:
        """Carry out a plan and return an `Outcome`'s value.

        `connection` is the descriptor that gets the answer, -1 to send none.
        """
        ...

    def receiver(self, listener: socket.socket, uid: int) -> Callable[[], tuple[int, bytes]]:
        """Return a function for one thread that accepts a peer and reads its first bytes.

        The function returns the connection's descriptor and the bytes that have arrived, maybe
        none. `listener` belongs to the thread and must stay open while it calls.

        Raises (the function):
            PermissionError: the peer has another uid; its connection is closed.
            OSError: accept failed.
        """
        ...


def check_fits(plan: Plan) -> None:
    """Check a plan against the limits of every engine.

    Raises:
        ValueError: the plan exceeds a limit, or contains an invalid name.
    """
    if len(plan.outputs) > MAX_OUTPUTS or len(plan.answer) > MAX_ANSWER_BYTES:
        raise ValueError("too much for one plan")
    paths = [*(c.path for c in plan.checks), *(o.path for o in plan.outputs)]
    if any(b"\0" in path for path in paths):
        raise ValueError("a name with NUL")
    if not all(is_listed_name(name) for check in plan.checks for name in check.names):
        raise ValueError("a name that no directory lists")


def is_listed_name(name: bytes) -> bool:
    """Tell whether this is one path component that a listing shows with the same bytes.

    Only ASCII qualifies: some file systems treat other names as equal that differ in their bytes.
    """
    return name.isascii() and 0 < len(name) <= _MAX_NAME_BYTES and not _PATH_BYTES & {*name}


def open_engine() -> Engine:
    """Return the native engine, or the Python one without a library or with HPCC_NATIVE=0."""
    from hpcc.cache.replay.native import load_native  # late: ctypes is for the daemon only
    from hpcc.cache.replay.python_engine import PythonEngine

    problem = why_not_native()
    if problem is None:
        return load_native()
    _log.warning("hits are slower, the native library is not used: %s", problem)
    return PythonEngine()


def why_not_native() -> str | None:
    """Return why the native library cannot be used, None if it can."""
    from hpcc.cache.replay.native import load_native

    if os.environ.get(DISABLE_VARIABLE) == "0":
        return f"{DISABLE_VARIABLE}=0"
    try:
        load_native()
    except OSError as error:
        return str(error)
    return None
