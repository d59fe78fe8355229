"""Notes which compiles write one output at the same time as other compiles or hits.

Problem: a compile's object is read after the compiler ended. If another compile, or a hit, wrote
the same file in between, that object would be stored under the key of the first, and later builds
would get it.

Rule: a compile whose output had a second writer is not stored.

The daemon sees its own compiles and hits. Its hit processes share `Marks` with it: the daemon
marks names that compiles write, and a hit of such a name marks the file. Without such a compile a
hit reads one byte for each of its outputs. Other programs that write the file are not seen.
"""

from __future__ import annotations

import itertools
import mmap
import os
import threading
from collections import Counter
from collections.abc import Callable, Iterable
from typing import Final

_SLOTS: Final = 4096  # a power of two
_TOKEN_BYTES: Final = 8


def _name(path: bytes) -> bytes:
    return path.rpartition(b"/")[2]


def _slot(text: bytes) -> int:
    # A fork keeps the seed of `hash`.
    return hash(text) % _SLOTS


class Marks:
    """Memory that a daemon and the processes forked from it share.

    Two names, or two files, may have one slot. Then a compile is not stored that could have been.
    """

    def __init__(self) -> None:
        memory = memoryview(mmap.mmap(-1, _SLOTS * (1 + _TOKEN_BYTES)))
        # 1 while a compile writes a file of such a name. Only the daemon writes here.
        self._compiles = memory[:_SLOTS]
        # The last hit that wrote such a file. A value never comes twice, so no mark is overlooked
        # because two processes write at once.
        self._written = memory[_SLOTS:].cast("Q")
        self._numbers = itertools.count(1)

    def expect(self, name: bytes, *, is_expected: bool) -> None:
        """Set whether compiles write a file of this name, or of another one with its slot."""
        self._compiles[_slot(name)] = is_expected

    def written(self, path: bytes) -> int:
        """Return what the last hit on this resolved path left, in any hit process."""
        return self._written[_slot(path)]

    def disturb(self, paths: Iterable[bytes]) -> None:
        """Note that a hit of this process writes these files now, if a compile may write one."""
        for path in paths:
            if self._compiles[_slot(_name(path))]:
                token = os.getpid() << 40 | next(self._numbers)
                self._written[_slot(os.path.realpath(path))] = token


class Writer:
    """One compile and the files that it writes."""

    __slots__ = ("_had_company", "_marks", "_seen", "_writing", "paths")

    def __init__(self, writing: Writing, paths: frozenset[bytes], marks: Marks | None) -> None:
        self._writing, self.paths, self._marks = writing, paths, marks
        self._had_company = False
        self._seen: dict[bytes, int] = {}

    @property
    def is_alone(self) -> bool:
        """Return False if another compile or a hit wrote one of its files since it began."""
        marks, seen = self._marks, self._seen.items()
        if marks is not None and any(marks.written(path) != value for path, value in seen):
            return False
        return not self._had_company

    def look(self) -> None:
        """Remember what hits have written before this compile; names are marked already."""
        if self._marks is not None:
            self._seen = {path: self._marks.written(path) for path in self.paths}

    def disturb(self) -> None:
        """Note a second writer."""
        self._had_company = True

    def end(self) -> None:
        """Note that it ended; idempotent."""
        self._writing.forget(self)


class Writing:
    """The compiles that run. Thread-safe.

    `real` returns one path for all that lead to one file. Parts of paths end in `/`.
    """

    def __init__(self, real: Callable[[bytes], bytes] = os.path.realpath) -> None:
        self._real, self._lock = real, threading.Lock()
        self._marks: Marks | None = None
        # By last component, so that a hit beside other compiles resolves no path.
        self._writers: dict[bytes, list[Writer]] = {}
        self._names: Counter[int] = Counter()  # names in `_writers` by slot

    def watch(self, marks: Marks) -> None:
        """Take into account what the hits of other processes write. Call it before any compile."""
        self._marks = marks

    def begin(self, paths: Iterable[bytes]) -> Writer:
        """Note a compile before it starts. The caller owes one call of the writer's `end`."""
        # Anybody may write to a device.
        real = map(self._real, paths)
        written = frozenset(path for path in real if not path.startswith(b"/dev/"))
        writer = Writer(self, written, self._marks)
        with self._lock:
            for path in writer.paths:
                others = self._others(_name(path))
                for other in others:
                    if path in other.paths:
                        other.disturb()
                        writer.disturb()
                others.append(writer)
            writer.look()
        return writer

    def forget(self, writer: Writer) -> None:
        """Forget a compile; idempotent."""
        with self._lock:
            for name in set(map(_name, writer.paths)) & self._writers.keys():
                left = [other for other in self._writers[name] if other is not writer]
                if left:
                    self._writers[name] = left
                    continue
                del self._writers[name]
                self._names[_slot(name)] -= 1
                self._expect(name)

    def _others(self, name: bytes) -> list[Writer]:
        others = self._writers.get(name)
        if others is None:
            others = self._writers[name] = []
            self._names[_slot(name)] += 1
            self._expect(name)
        return others

    def _expect(self, name: bytes) -> None:
        if self._marks is not None:
            self._marks.expect(name, is_expected=self._names[_slot(name)] > 0)

    def disturb_all(self) -> None:
        """Note that a hit, nobody knows which, wrote a file."""
        with self._lock:
            for writers in self._writers.values():
                for writer in writers:
                    writer.disturb()

    def disturb(self, paths: Iterable[bytes]) -> None:
        """Note that a hit of this process writes these files now."""
        if not self._writers:
            return
        for path in paths:
            name = _name(path)
            if name not in self._writers:
                continue
            real = self._real(path)
            with self._lock:
                for other in self._writers.get(name, ()):
                    if real in other.paths:
                        other.disturb()
