"""Private files that compilers write for us, used again and again.

Made and deleted for each compile, such a file costs more than all that is written into it: ext4
looks past every inode that was deleted within the last minutes before it takes one for a new file,
and so each deletion makes the next files of a build dearer, those of the store as well.
"""

from __future__ import annotations

import contextlib
import itertools
import os
import threading


class ScratchPaths:
    """Paths in one directory of ours, each lent to one compile at a time. Thread-safe."""

    def __init__(self, directory: bytes) -> None:
        self._directory = directory
        self._names = itertools.count()
        self._lock = threading.Lock()
        self._free: list[bytes] = []
        self._lent: set[bytes] = set()
        os.makedirs(directory, mode=0o700, exist_ok=True)
        self._remove_left_overs()

    def take(self) -> bytes:
        """Return the path of a file that is empty or absent."""
        with self._lock:
            if self._free:
                path = self._free.pop()
            else:
                path = b"%s/%d-%d.d" % (self._directory, os.getpid(), next(self._names))
            self._lent.add(path)
        return path

    def give_back(self, path: bytes, *, is_written: bool) -> None:
        """Empty the file for the next compile; idempotent.

        Unless `is_written`, which says that its writer has ended: then it is deleted, and the path
        is not used again, as somebody may still write there.
        """
        with self._lock:
            if path not in self._lent:
                return
            self._lent.remove(path)
        if not is_written:
            with contextlib.suppress(OSError):
                os.unlink(path)
            return
        try:
            with contextlib.suppress(FileNotFoundError):
                os.truncate(path, 0)
        except OSError:
            return
        with self._lock:
            self._free.append(path)

    def put_back(self, path: bytes) -> None:
        """Take back a path that no compiler was told of."""
        with self._lock:
            self._lent.remove(path)
            self._free.append(path)

    def _remove_left_overs(self) -> None:
        """Delete files of daemons that are gone; one that drains still needs its own."""
        for name in os.listdir(self._directory):
            pid = name.partition(b"-")[0]
            if not pid.isdigit() or not os.path.exists(b"/proc/" + pid):
                with contextlib.suppress(OSError):
                    os.unlink(self._directory + b"/" + name)
