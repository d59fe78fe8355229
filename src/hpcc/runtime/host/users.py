"""The users of VMMs and wardens.

Each has a separate uid if the worker is root or has a helper (ADR 69), else the worker's user.
"""

from __future__ import annotations

import os
import stat
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from hpcc.ports import GuestBootError
from hpcc.wire.helper import FIRST_ID, MapRequest, encode_request

# The path of the helper's socket. A worker of root needs no helper.
HELPER_VARIABLE: Final = "HPCC_HELPER"
# Together with the wardens' uids they end below the containers' (`runc.spec`).
_UIDS_FOR_EACH_WORKER: Final = 128
_MAX_PIDS: Final = 32_768
_FIRST_WARDEN: Final = FIRST_ID + _MAX_PIDS * _UIDS_FOR_EACH_WORKER
_NOBODY: Final = 65_534


class Leases:
    """Numbers below `count`, each leased to at most one holder at a time.

    A number that was returned last is reused last.
    """

    def __init__(self, count: int, *, first: int = 0) -> None:
        self._count, self._next = count, first
        self._taken: set[int] = set()

    def take(self) -> int:
        """Return a number that belongs to the caller until `give_back`.

        Raises:
            GuestBootError: every number is taken.
        """
        for step in range(self._count):
            number = (self._next + step) % self._count
            if number not in self._taken:
                self._next = number + 1
                self._taken.add(number)
                return number
        raise GuestBootError(f"no uid is left: {self._count} guests of this worker use one each")

    def give_back(self, number: int) -> None:
        """Return a number. Call it only after the processes with its uid have ended."""
        self._taken.discard(number)


# For all VMs of this process, of every runtime, including templates.
VMM_NUMBERS: Final = Leases(_UIDS_FOR_EACH_WORKER)


@dataclass(frozen=True, slots=True)
class Maps:
    """The helper's socket, and the packet that a process in a new user namespace sends there."""

    socket: str
    request: bytes


@dataclass(frozen=True, slots=True)
class VmmUser:
    """The user of a VMM: a separate uid, or None for the worker's user.

    `maps` is how a process of the worker gets this uid, if it is not root.
    """

    uid: int | None
    groups: tuple[int, ...]
    maps: Maps | None = None

    def options(self) -> dict[str, object]:
        """Return the arguments for `asyncio.create_subprocess_exec`."""
        if self.uid is None or self.maps is not None:
            return {}
        return {"user": self.uid, "group": self.uid, "extra_groups": list(self.groups)}


def vmm_user(number: int) -> VmmUser:
    """Return the user of this process's VMM `number`, a number from `VMM_NUMBERS`."""
    uid, socket = FIRST_ID + _slot(number), helper_socket()
    if os.geteuid() != 0 and not socket:
        return VmmUser(None, ())
    groups: tuple[int, ...] = ()
    with suppress(OSError):
        status = Path("/dev/kvm").stat()
        if status.st_mode & stat.S_IRGRP and status.st_mode & stat.S_IWGRP and status.st_gid:
            groups = (status.st_gid,)
    if socket:
        # The helper maps only groups of the worker.
        groups = tuple(g for g in groups if g in os.getgroups() and g != os.getegid())
        return VmmUser(uid, groups, Maps(socket, encode_request(MapRequest(uid, 1))))
    return VmmUser(uid if _is_mapped(uid) else _NOBODY, groups)


def warden_user(number: int) -> int | None:
    """Return the uid of this process's warden `number`, counted from 1; None: the worker's uid."""
    has_helper = bool(helper_socket())
    if os.geteuid() != 0 and not has_helper:
        return None
    uid = _FIRST_WARDEN + _slot(number)
    return uid if has_helper or _is_mapped(uid) else _NOBODY


def warden_maps() -> Maps | None:
    """Return how this process's zygote gets the uids of all wardens; None: not by a helper."""
    socket = helper_socket()
    if not socket:
        return None
    return Maps(socket, encode_request(MapRequest(_FIRST_WARDEN + _slot(0), _UIDS_FOR_EACH_WORKER)))


def helper_socket() -> str:
    """Return where the helper is; "" if this process is root or has no helper."""
    return "" if os.geteuid() == 0 else os.environ.get(HELPER_VARIABLE, "")


def warden_label() -> str:
    """Return how this process's wardens are separated, for audit rows and `hpcc doctor`."""
    uid = warden_user(1)
    if uid is None:
        return "same-uid"
    return "shared-uid" if uid == _NOBODY else "own-uid"


def _slot(number: int) -> int:
    return (os.getpid() % _MAX_PIDS) * _UIDS_FOR_EACH_WORKER + number % _UIDS_FOR_EACH_WORKER


def _is_mapped(uid: int) -> bool:
    """Return whether this user namespace has the uid (a rootless container's may lack it)."""
    try:
        lines = Path("/proc/self/uid_map").read_text().splitlines()
        ranges = [[int(word) for word in line.split()] for line in lines]
    except (OSError, ValueError):
        return False
    return any(first <= uid < first + count for first, _, count in ranges)
