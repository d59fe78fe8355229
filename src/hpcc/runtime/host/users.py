"""Who runs a VMM and a warden: a uid of its own when the worker is root, else the worker's user."""

from __future__ import annotations

import os
import stat
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from hpcc.ports import GuestBootError

# VMM users when started by root: outside what any distribution or systemd allots.
_FIRST_UID: Final = 1_870_000_000
# With the wardens' they end below the containers' (_runc_spec).
_UIDS_FOR_EACH_WORKER: Final = 128
_MAX_PIDS: Final = 32_768
_NOBODY: Final = 65_534


class Leases:
    """Numbers below `count`: none is had twice at a time; the one given last comes back last."""

    def __init__(self, count: int) -> None:
        self._count, self._next = count, 0
        self._taken: set[int] = set()

    def take(self) -> int:
        """Return a number that is the caller's until it gives it back.

        Raises:
            GuestBootError: all are taken.
        """
        for step in range(self._count):
            number = (self._next + step) % self._count
            if number not in self._taken:
                self._next = number + 1
                self._taken.add(number)
                return number
        raise GuestBootError(f"no uid is left: {self._count} guests of this worker have one")

    def give_back(self, number: int) -> None:
        """Let another have it; not before the processes that had its uid have ended."""
        self._taken.discard(number)


# Of this process: its VMs of all runtimes, templates among them.
VMM_NUMBERS: Final = Leases(_UIDS_FOR_EACH_WORKER)


@dataclass(frozen=True, slots=True)
class VmmUser:
    """Who runs the VMM: an own uid when started by root, else the same user."""

    uid: int | None
    groups: tuple[int, ...]

    def options(self) -> dict[str, object]:
        if self.uid is None:
            return {}
        return {"user": self.uid, "group": self.uid, "extra_groups": list(self.groups)}


def vmm_user(number: int) -> VmmUser:
    """Return the user of this process's VMM `number`, one of `VMM_NUMBERS`."""
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
    """Return the uid of this process's warden `number`, counted from 1; None: the worker's own."""
    if os.geteuid() != 0:
        return None
    uid = _FIRST_UID + _MAX_PIDS * _UIDS_FOR_EACH_WORKER + _slot(number)
    return uid if _is_mapped(uid) else _NOBODY


def warden_label() -> str:
    """Say how wardens of this process are kept apart, for audit rows and `hpcc doctor`."""
    uid = warden_user(1)
    if uid is None:
        return "same-uid"
    return "shared-uid" if uid == _NOBODY else "own-uid"


def _slot(number: int) -> int:
    return (os.getpid() % _MAX_PIDS) * _UIDS_FOR_EACH_WORKER + number % _UIDS_FOR_EACH_WORKER


def _is_mapped(uid: int) -> bool:
    """Say whether this user namespace has the uid (a rootless container's may not)."""
    try:
        lines = Path("/proc/self/uid_map").read_text().splitlines()
        ranges = [[int(word) for word in line.split()] for line in lines]
    except (OSError, ValueError):
        return False
    return any(first <= uid < first + count for first, _, count in ranges)
