"""The hit path's two blocking calls, and what a replay is made of.

`Native` (native/replay.c) makes each without Python's lock; `Twin` is the same in Python, for where
no library could be built. tests/contract/test_replay_contract.py holds both to the same answers.
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
# One message on a socket, into which no other thread's can fall; longer answers are sent apart.
MAX_ANSWER_BYTES: Final = 4096
MAX_OUTPUTS: Final = 64
# A request is nearly always shorter, and then one read has all of it.
REQUEST_BUFFER_BYTES: Final = 64 << 10
# A request follows its connection at once; for a slower one the front waits, with all its care.
FIRST_BYTES_SECONDS: Final = 0.05
DISABLE_VARIABLE: Final = "HPCC_NATIVE"
_MAX_NAME_BYTES: Final = 255
_PATH_BYTES: Final = frozenset(b"/\0")


class Outcome(enum.IntEnum):
    """What `Engine.replay` did; the values are native/replay.h's."""

    DONE = 0  # outputs in place, answer sent
    CHANGED = 1  # something is not as it was; nothing was touched
    NOT_OURS = 2  # an output cannot be written; none that was touched is left
    MALFORMED = 3
    UNSENT = 4  # outputs in place, and the launcher did not take the answer


class CheckKind(enum.IntEnum):
    """What a check asks of a name; the values are native/replay.h's."""

    STATE = 1  # stat gives this `Signature`
    ABSENT = 2  # nothing has this name, not even a dangling link
    PRESENT = 3  # the name leads to something that is no directory
    PLACE = 4  # stat gives this device, inode, mode and owner
    LACKS = 5  # the directory has this `Signature`, if any, or each of `names` is absent from it


class Check(NamedTuple):
    """One thing an answer rests on. `path` is absolute, `values` as its kind says.

    `names` are for LACKS alone, each as `is_listed_name` wants it.
    """

    kind: CheckKind
    path: bytes
    values: tuple[int, ...] = ()
    names: tuple[bytes, ...] = ()


class Plan(NamedTuple):
    """A hit to be repeated: if all `checks` hold, write `outputs` in order and send `answer`.

    `mode` is that of new files; `source` is device and inode of the file no output may be.
    """

    checks: tuple[Check, ...]
    outputs: tuple[OutputFile, ...]
    mode: int
    source: tuple[int, int]
    answer: bytes


class Engine(Protocol):
    """Thread-safe and without state."""

    @property
    def name(self) -> str:
        """Say which one it is, for `hpcc doctor`."""
        ...

    def prepare(self, plan: Plan) -> object:
        """Bring a plan into the form that `replay` takes.

        Raises:
            ValueError: see `check_fits`.
        """
        ...

    def replay(self, prepared: object, connection: int) -> int:
        """Do what a plan says; -1 for no connection. Returns an `Outcome`'s value."""
        ...

    def receiver(self, listener: socket.socket, uid: int) -> Callable[[], tuple[int, bytes]]:
        """Return a call for one thread: accept a peer of this user and read what it sent at once.

        `listener` is the thread's own and stays open while it calls.

        It gives the descriptor and the bytes so far, maybe none.

        Raises (the call):
            PermissionError: a peer of another user, turned away.
            OSError: accept failed.
        """
        ...


def check_fits(plan: Plan) -> None:
    """Refuse what no engine takes.

    Raises:
        ValueError: more than a plan may hold, or a name that no file can have.
    """
    if len(plan.outputs) > MAX_OUTPUTS or len(plan.answer) > MAX_ANSWER_BYTES:
        raise ValueError("too much for one plan")
    paths = [*(c.path for c in plan.checks), *(o.path for o in plan.outputs)]
    if any(b"\0" in path for path in paths):
        raise ValueError("a name with NUL")
    if not all(is_listed_name(name) for check in plan.checks for name in check.names):
        raise ValueError("a name that no directory lists")


def is_listed_name(name: bytes) -> bool:
    """Tell whether this is one name, and one that a reader of a directory knows when it sees it.

    Beyond ASCII some file systems hold names for equal that differ in their bytes.
    """
    return name.isascii() and 0 < len(name) <= _MAX_NAME_BYTES and not _PATH_BYTES & {*name}


def open_engine() -> Engine:
    """Return the native engine, or its twin where there is none (and with HPCC_NATIVE=0)."""
    from hpcc.cache.replay.native import load_native  # late: ctypes is for the daemon only
    from hpcc.cache.replay.python_engine import Twin

    problem = why_not_native()
    if problem is None:
        return load_native()
    _log.warning("hits are slower, the native library is not used: %s", problem)
    return Twin()


def why_not_native() -> str | None:
    """Return why the native library cannot be used; None when it can."""
    from hpcc.cache.replay.native import load_native

    if os.environ.get(DISABLE_VARIABLE) == "0":
        return f"{DISABLE_VARIABLE}=0"
    try:
        load_native()
    except OSError as error:
        return str(error)
    return None
