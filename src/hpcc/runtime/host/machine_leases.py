"""Numbers that no two workers of one machine hold at the same time, such as ranges of uids.

A holder locks a file, and the kernel unlocks it when the holder ends in any way. A holder that was
killed may leave a guest behind, so its file keeps a mark: a marked number is given out again only
when nothing uses it. Workers in different mount namespaces do not see each other's files.
"""

from __future__ import annotations

import fcntl
import os
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Final

from hpcc.runtime.host.users import Leases

_MARK: Final = b"1"
_UID_LINE: Final = "Uid:"


class MachineLeases(Leases):
    """`Leases` for all processes that use `directory`; `is_used` tells whether a guest is left."""

    def __init__(
        self, count: int, directory: Path, is_used: Callable[[int], bool], *, first: int = 0
    ) -> None:
        super().__init__(count, first=first)
        self._directory, self._is_used = directory, is_used
        self._files: dict[int, int] = {}

    def take(self) -> int:
        """Return a number that belongs to the caller until `give_back`; see `Leases.take`."""
        others: list[int] = []
        try:
            while not self._lock(number := super().take()):
                others.append(number)
            return number
        finally:
            for other in others:
                super().give_back(other)

    def give_back(self, number: int) -> None:
        """Return a number. Call it only after the processes with its uid have ended."""
        file = self._files.pop(number, None)
        if file is not None:
            with suppress(OSError):
                os.ftruncate(file, 0)
            os.close(file)
        super().give_back(number)

    def _lock(self, number: int) -> bool:
        """Lock a number's file; False if it is another's. Without a directory nobody is asked."""
        try:
            self._directory.mkdir(parents=True, exist_ok=True, mode=0o700)
            flags = os.O_RDWR | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW
            file = os.open(self._directory / str(number), flags, 0o600)
        except OSError:
            return True
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            is_free = not (os.pread(file, 1, 0) and self._is_used(number))
            if is_free:
                os.pwrite(file, _MARK, 0)
        except BlockingIOError:
            is_free = False
        except OSError:  # a full disk, or a file system without locks
            is_free = True
        if is_free:
            self._files[number] = file
        else:
            os.close(file)
        return is_free


def are_uids_used(first: int, count: int) -> bool:
    """Return whether a process has one of the uids from `first` on. It reads all of /proc."""
    wanted = range(first, first + count)
    for entry in Path("/proc").iterdir():
        if entry.name.isdigit():
            with suppress(OSError, ValueError):  # it has ended
                lines = (entry / "status").read_text().splitlines()
                words = next(line for line in lines if line.startswith(_UID_LINE)).split()[1:]
                if any(int(word) in wanted for word in words):
                    return True
    return False
