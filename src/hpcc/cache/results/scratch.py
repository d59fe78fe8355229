"""Lends private files for compilers to write to, and reuses them.

Creating and deleting such a file for each compile costs more than writing it: before ext4 takes an
inode for a new file, it skips every inode that was deleted in the last minutes. So each deletion
makes the next files of a build more expensive, including those of the store.

Emptying a file that was just written waits for the disk: ext4 begins to write such a file when it
is closed (`auto_da_alloc`). So a file rests until some others were used, and is emptied then.
"""

from __future__ import annotations

import contextlib
import enum
import itertools
import os
import threading
from collections import deque
from collections.abc import Iterable
from typing import Final

# A dependency file is a few kilobytes; one of a thousand headers has 100 KB. `-j100` needs 10 MB.
_FULL_BYTES: Final = 16 << 20
_FULL_FILES: Final = 200
_RESTING: Final = 8
# Others may use up this much during a compile.
_LITTLE_BYTES: Final = 512 << 20


class DiskSpace(enum.Enum):
    """How much a compiler can write into private files.

    NONE: no compiler gets such a path, because it would complain to the user or fail. LITTLE: the
    space may end during the compile, so its messages are checked before the user sees them.
    """

    NONE = "none"
    LITTLE = "little"
    ENOUGH = "enough"


def without_complaints(stderr: bytes, paths: Iterable[bytes | None]) -> bytes:
    """Return a compiler's messages without those about private files.

    GNU as writes `a.s: Assembler messages:` before its first message.
    """
    ours = [path for path in paths if path is not None and path in stderr]
    if not ours:
        return stderr
    kept = [line for line in stderr.splitlines(keepends=True) if not any(p in line for p in ours)]
    is_alone = len(kept) == 1 and kept[0].rstrip().endswith(b": Assembler messages:")
    return b"" if is_alone else b"".join(kept)


class ScratchPaths:
    """Paths in one private directory, each lent to one compile at a time. Thread-safe."""

    def __init__(self, directory: bytes) -> None:
        self._directory = directory
        self._names = itertools.count()
        self._lock = threading.Lock()
        self._free: deque[bytes] = deque()
        self._lent: set[bytes] = set()
        os.makedirs(directory, mode=0o700, exist_ok=True)
        self._remove_left_overs()

    def room(self) -> DiskSpace:
        """Return how much room there is for private files now."""
        try:
            found = os.statvfs(self._directory)
        except OSError:
            return DiskSpace.NONE
        free = found.f_bavail * found.f_frsize
        has_files = not found.f_files or found.f_favail >= _FULL_FILES  # btrfs counts no files
        if free < _FULL_BYTES or not has_files:
            return DiskSpace.NONE
        return DiskSpace.LITTLE if free < _LITTLE_BYTES else DiskSpace.ENOUGH

    def take(self) -> bytes:
        """Return the path of a file that is empty or absent."""
        with self._lock:
            rested = self._free.popleft() if len(self._free) > _RESTING else None
        path = rested if rested is not None and _is_emptied(rested) else self._new()
        with self._lock:
            self._lent.add(path)
        return path

    def _new(self) -> bytes:
        return b"%s/%d-%d.d" % (self._directory, os.getpid(), next(self._names))

    def give_back(self, path: bytes, *, is_written: bool) -> None:
        """Take a path back for a later compile; idempotent.

        `is_written`: the writer has ended. Otherwise the file is deleted and its path is not
        reused, because a compiler may still write to it.
        """
        with self._lock:
            if path not in self._lent:
                return
            self._lent.remove(path)
        if not is_written:
            with contextlib.suppress(OSError):
                os.unlink(path)
            return
        with self._lock:
            self._free.append(path)

    def put_back(self, path: bytes) -> None:
        """Take back a path that was never passed to a compiler."""
        with self._lock:
            self._lent.remove(path)
            self._free.appendleft(path)

    def _remove_left_overs(self) -> None:
        """Delete files of daemons that have ended; a draining daemon still needs its files."""
        for name in os.listdir(self._directory):
            pid = name.partition(b"-")[0]
            if not pid.isdigit() or not os.path.exists(b"/proc/" + pid):
                with contextlib.suppress(OSError):
                    os.unlink(self._directory + b"/" + name)


def _is_emptied(path: bytes) -> bool:
    try:
        with contextlib.suppress(FileNotFoundError):
            os.truncate(path, 0)
    except OSError:
        return False
    return True
