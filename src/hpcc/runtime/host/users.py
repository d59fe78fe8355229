"""The users of VMMs and wardens: a separate uid if the worker is root, else the worker's user."""

from __future__ import annotations

import os
import stat
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from hpcc.ports import GuestBootError

# Uids of VMMs if the worker is root: outside the ranges of distributions and systemd.
_FIRST_UID: Final = 1_870_000_000
# Together with the wardens' uids they end below the containers' (`runc.spec`).
_UIDS_FOR_EACH_WORKER: Final = 128
_MAX_PIDS: Final = 32_768
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
class VmmUser:
    """The user of a VMM: a separate uid if the worker is root, else None for the worker's user."""

    uid: int | None
    groups: tuple[int, ...]

    def options(self) -> dict[str, object]:
        """Return the arguments for `asyncio.create_subprocess_exec`."""
        if self.uid is None:
            return {}
        return {"user": self.uid, "group": self.uid, "extra_groups": list(self.groups)}


def vmm_user(number: int) -> VmmUser:
    """Return the user of this process's VMM `number`, a number from `VMM_NUMBERS`."""
    if os.geteuid() != 0:
        return VmmUser(None, ())
    uid = _FIRST_UID + _slot(number)
    groups: tuple[int, ...] = ()
    with suppress(OSError):
        status = Path("/dev/kvm").stat()
        if status.st_mode & stat.S_IRGRP and status.st_mode & stat.S_IWGRP and status.st_gid:
            groups = (status.st_gid,)
    return VmmUser(uid if _is_mapped(uid) else _NOBODY, groups)


def warden_user(number: int) -> int | None:
    """Return the uid of this process's warden `number`, counted from 1; None: the worker's uid."""
    if os.geteuid() != 0:
        return None
    uid = _FIRST_UID + _MAX_PIDS * _UIDS_FOR_EACH_WORKER + _slot(number)
    return uid if _is_mapped(uid) else _NOBODY


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
