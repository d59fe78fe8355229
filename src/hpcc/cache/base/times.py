"""When the parts of one compile began and ended, for the record of its build.

All moments are nanoseconds of the monotonic clock. Parts nest: planning and calling the farm are
inside the attempt on the farm. A part that has not ended yet ends with its compile. A replayed hit
has no parts, so this costs nothing on the hit path.
"""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import contextmanager
from enum import StrEnum
from typing import Final

# A compile that is planned twice and waits for another one has ten.
MAX_PARTS: Final = 24


class Phase(StrEnum):
    """A part of one compile, in the order in which they occur.

    `QUEUE` and `GUEST` are what a worker says, moved into the call that brought the answer.
    """

    CLASSIFY = "classify"
    LOOK_UP = "look-up"
    WAIT = "wait"
    FARM = "farm"
    PLAN = "plan"
    CALL = "call"
    QUEUE = "queue"
    GUEST = "guest"
    PLACE = "place"
    COMPILE = "compile"
    STORE = "store"


class CompileTimes:
    """The parts of one compile. One thread at a time adds to it."""

    __slots__ = ("_parts", "began_ns")

    def __init__(self) -> None:
        self.began_ns = time.monotonic_ns()
        self._parts: list[tuple[Phase, int, int]] = []

    def elapsed_ns(self) -> int:
        """Return the time since the compile began."""
        return time.monotonic_ns() - self.began_ns

    def add(self, phase: Phase, began_ns: int, ended_ns: int) -> None:
        """Add a part; an end of 0 means that it has not ended. Beyond `MAX_PARTS` do nothing."""
        if len(self._parts) < MAX_PARTS:
            self._parts.append((phase, began_ns, ended_ns))

    def begin(self, phase: Phase) -> None:
        """Begin a part that `end` ends."""
        self.add(phase, time.monotonic_ns(), 0)

    def end(self, phase: Phase) -> None:
        """End the part of this phase that began last and has not ended; else do nothing."""
        for number in range(len(self._parts) - 1, -1, -1):
            found, began_ns, ended_ns = self._parts[number]
            if found is phase and not ended_ns:
                self._parts[number] = phase, began_ns, time.monotonic_ns()
                return

    def drop_empty(self, phase: Phase) -> None:
        """Remove the last part if it is of this phase: nothing was done in it."""
        if self._parts and self._parts[-1][0] is phase:
            del self._parts[-1]

    def parts(self, took_ns: int) -> list[tuple[Phase, int, int]]:
        """Return phase, offset and duration of each part, within a compile of this duration."""
        found = []
        for phase, began_ns, ended_ns in tuple(self._parts):
            start = min(max(began_ns - self.began_ns, 0), took_ns)
            end = took_ns if not ended_ns else min(max(ended_ns - self.began_ns, start), took_ns)
            found.append((phase, start, end - start))
        return found


@contextmanager
def measured(
    times: CompileTimes | None, phase: Phase, *, drops_empty: bool = False
) -> Iterator[None]:
    """Add what the block takes as one part; without `times` only run the block.

    With `drops_empty` a part counts only if another one is inside it.
    """
    if times is None:
        yield
        return
    times.begin(phase)
    try:
        yield
    finally:
        times.end(phase)
        if drops_empty:
            times.drop_empty(phase)
