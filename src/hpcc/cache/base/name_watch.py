"""Notices that a name appears in a directory, or vanishes from it, while a program runs.

Problem: a program reads a file if it exists, and does not tell. That the file is absent before and
after the run does not show that it was absent in between: it can be made, read and removed again.
The times of its directory would show that, but they also change for each other file.

Means: inotify(7), asked before the run. The kernel then queues the names of all entries that come
and go. It sees every change on a local file system. Where it cannot be asked, nobody vouches.
"""

from __future__ import annotations

import contextlib
import ctypes
import os
import struct
import sys
from collections.abc import Iterable
from typing import Final

# <sys/inotify.h>
_CREATE, _DELETE, _MOVED_FROM, _MOVED_TO = 0x100, 0x200, 0x40, 0x80
_DELETE_SELF, _MOVE_SELF = 0x400, 0x800
_ONLY_DIRECTORY: Final = 0x01000000
_MASK: Final = (
    _CREATE | _DELETE | _MOVED_FROM | _MOVED_TO | _DELETE_SELF | _MOVE_SELF | _ONLY_DIRECTORY
)
_OF_ONE_ENTRY: Final = _CREATE | _DELETE | _MOVED_FROM | _MOVED_TO
_EVENT: Final = struct.Struct("iIII")
_CHUNK: Final = 1 << 16
# A project is seldom deeper, and each costs a system call before the run.
MAX_DIRECTORIES: Final = 64


class NameWatch:
    """Watches some directories from its construction to `close`, which is idempotent."""

    def __init__(self, directories: Iterable[bytes]) -> None:
        self._watched: dict[int, list[bytes]] = {}
        self._fd = -1
        if sys.platform != "linux":
            return
        libc = ctypes.CDLL(None, use_errno=True)
        self._fd = libc.inotify_init1(os.O_CLOEXEC | os.O_NONBLOCK)
        if self._fd < 0:
            return
        for directory in tuple(dict.fromkeys(directories))[:MAX_DIRECTORIES]:
            number = libc.inotify_add_watch(self._fd, directory, _MASK)
            if number >= 0:
                self._watched.setdefault(number, []).append(directory)

    def close(self) -> None:
        """Stop watching."""
        fd, self._fd = self._fd, -1
        if fd >= 0:
            os.close(fd)

    def quiet(self, names: frozenset[bytes]) -> frozenset[bytes]:
        """Return the watched directories in which none of these names came or went so far.

        Call it once: it takes the events out of the queue.
        """
        if self._fd < 0:
            return frozenset()
        data = bytearray()
        with contextlib.suppress(BlockingIOError):
            while chunk := os.read(self._fd, _CHUNK):
                data += chunk
        return _quiet(bytes(data), names, self._watched)


def _quiet(
    events: bytes, names: frozenset[bytes], watched: dict[int, list[bytes]]
) -> frozenset[bytes]:
    disturbed: set[int] = set()
    at = 0
    while at + _EVENT.size <= len(events):
        number, mask, _, length = _EVENT.unpack_from(events, at)
        at += _EVENT.size
        name = events[at : at + length].rstrip(b"\0")
        at += length
        if number not in watched:
            return frozenset()  # events were lost
        if not mask & _OF_ONE_ENTRY or name in names:
            disturbed.add(number)
    return frozenset(d for n, found in watched.items() if n not in disturbed for d in found)
