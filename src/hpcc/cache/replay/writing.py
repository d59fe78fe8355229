"""Notes which compiles of this process write one output at the same time.

Problem: a compile's object is read after the compiler ended. If another compile, or a hit, wrote
the same file in between, that object would be stored under the key of the first, and later builds
would get it.

Rule: who had company is not stored. What other processes write is not seen here.
"""

from __future__ import annotations

import os
import threading
from collections.abc import Iterable


class Writer:
    """One compile and the files that it writes. `is_alone` until another one writes one of them."""

    __slots__ = ("_writing", "is_alone", "paths")

    def __init__(self, writing: Writing, paths: frozenset[bytes]) -> None:
        self._writing, self.paths, self.is_alone = writing, paths, True

    def end(self) -> None:
        """Note that it ended; idempotent."""
        self._writing.forget(self)


class Writing:
    """The compiles that run. Thread-safe."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        # By last component, so that a hit beside other compiles resolves no path.
        self._writers: dict[bytes, list[Writer]] = {}

    def begin(self, paths: Iterable[bytes]) -> Writer:
        """Note a compile before it starts. The caller owes one call of the writer's `end`."""
        # Anybody may write to a device.
        real = map(os.path.realpath, paths)
        writer = Writer(self, frozenset(path for path in real if not path.startswith(b"/dev/")))
        with self._lock:
            for path in writer.paths:
                others = self._writers.setdefault(path.rpartition(b"/")[2], [])
                for other in others:
                    if path in other.paths:
                        other.is_alone = writer.is_alone = False
                others.append(writer)
        return writer

    def forget(self, writer: Writer) -> None:
        """Forget a compile; idempotent."""
        with self._lock:
            for path in writer.paths:
                name = path.rpartition(b"/")[2]
                left = [other for other in self._writers.get(name, ()) if other is not writer]
                if left:
                    self._writers[name] = left
                else:
                    self._writers.pop(name, None)

    def disturb(self, paths: Iterable[bytes]) -> None:
        """Note that a hit writes these files now."""
        if not self._writers:
            return
        for path in paths:
            name = path.rpartition(b"/")[2]
            if name not in self._writers:
                continue
            real = os.path.realpath(path)
            with self._lock:
                for other in self._writers.get(name, ()):
                    if real in other.paths:
                        other.is_alone = False
