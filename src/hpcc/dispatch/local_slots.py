"""Which compiles run on this machine because all places of the farm are taken.

A compile waits in `LaneQueue` only while every worker in use is full. `Overflow` gives it a local
slot if all of these hold (docs/adr/0055-local-slots.md):

- its request permits it, and for "exact" each route accepts `local/none`;
- it has waited for a moment, and a pending request for more routes was answered;
- a processor of this machine is idle;
- by what was measured, it ends sooner here than on the farm.

The last one in the queue gains most, so it is taken first. The first one has the next place of the
farm in any case.

Example: a worker of one place runs a second at each compile, and three compiles wait. The third one
would end after four seconds. Here it ends after one.
"""

from __future__ import annotations

import asyncio
import os
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from hpcc.core import Isolation, LocalSlots, RunHere
from hpcc.dispatch.routes import Lane, RouteBook
from hpcc.ports import Clock

# How long a compile waits at least, and how often the rest is looked at.
PATIENCE_SECONDS: Final = 0.25
# A scheduler that has not answered by then is not waited for.
_MAX_ASK_SECONDS: Final = 2.0
# Half of what was measured counts no more after this time.
_WINDOW_SECONDS: Final = 20.0
# What a compile took here says nothing about the compiles of a later build.
_FORGET_SECONDS: Final = 60.0
_WEIGHT: Final = 0.3
_LOAD: Final = Path("/proc/loadavg")

type Place = asyncio.Future[Lane | RunHere | None]


class RunHereError(Exception):
    """A compile that waited for a place on the farm gets one on this machine."""

    def __init__(self, outcome: RunHere) -> None:
        super().__init__("compile here")
        self.outcome = outcome


def running() -> int:
    """Return how many threads of this machine run or want to, without the calling one.

    Where that is unknown, as on other systems than Linux, it is more than any machine can run.
    """
    try:
        runnable = int(_LOAD.read_text(encoding="ascii").split()[3].partition("/")[0])
    except (OSError, ValueError, IndexError):
        return 1 << 20
    return max(runnable - 1, 0)


class Mean:
    """A mean in which later values weigh more; None before the first."""

    def __init__(self) -> None:
        self.value: float | None = None
        self.noted_at = 0.0

    def note(self, value: float, now: float) -> None:
        """Add a value."""
        known = self.value
        self.value = value if known is None else known + _WEIGHT * (value - known)
        self.noted_at = now


class Slots:
    """This machine's processors, as far as compiles of one daemon use them.

    One is left to the user, who works here, unless it is the only one.
    """

    def __init__(
        self,
        clock: Clock,
        *,
        busy: Callable[[], int] | None = None,
        processors: int | None = None,
    ) -> None:
        """For tests: `busy` in place of `running`, `processors` for those of the machine."""
        self._clock, self._busy = clock, busy or running
        usable = getattr(os, "sched_getaffinity", None)
        everywhere = processors or os.cpu_count() or 1
        ours = processors or (len(usable(0)) if usable else everywhere)
        self._everywhere, self._ours = max(everywhere - 1, 1), max(ours - 1, 1)
        self.under_way = 0
        self._took = Mean()

    @property
    def free(self) -> int:
        """How many compiles more may begin here."""
        # A compile that was sent here may not run yet, and one that waits for a disk does not.
        busy = max(self._busy(), self.under_way)
        return min(self._ours - self.under_way, self._everywhere - busy)

    @property
    def took_seconds(self) -> float | None:
        """How long compiles took here lately; None if there was none."""
        took = self._took
        is_fresh = self._clock.monotonic() - took.noted_at < _FORGET_SECONDS
        return took.value if is_fresh else None

    def take(self) -> RunHere:
        """Reserve a processor until the compile has ended."""
        began, is_open = self._clock.monotonic(), True
        self.under_way += 1

        def end(is_compiled: bool) -> None:  # noqa: FBT001 - see `RunHere`
            nonlocal is_open
            if not is_open:
                return
            is_open = False
            self.under_way -= 1
            if is_compiled:
                now = self._clock.monotonic()
                self._took.note(now - began, now)

        return RunHere(end)


@dataclass(slots=True)
class Chance:
    """What the request of a compile says: whether it may run here. `since` is when it waits."""

    slots: Slots
    is_exact: bool
    since: float = 0.0

    def is_accepted(self, book: RouteBook) -> bool:
        """Report whether all routes accept a result that nothing isolated, if that matters."""
        weakest = Isolation.LOCAL_NONE.rank
        return not self.is_exact or all(
            lane.route.minimum_isolation.rank <= weakest for lane in book.lanes
        )


def chance(slots: Slots, permitted: LocalSlots) -> Chance | None:
    """Return the chance of a compile with this permission; None for "off"."""
    return None if permitted == "off" else Chance(slots, is_exact=permitted == "exact")


class Overflow:
    """Those in a queue for the farm that may run here instead."""

    def __init__(self, clock: Clock, is_asking: Callable[[], bool]) -> None:
        """`is_asking` tells whether a request for more routes is pending."""
        self._clock, self._is_asking = clock, is_asking
        self._chances: dict[Place, Chance] = {}
        # Since when compiles wait, and how many places became free since then.
        self._began, self._left = 0.0, 0.0
        self._run = Mean()

    def __bool__(self) -> bool:
        """Whether anybody waits who may run here."""
        return bool(self._chances)

    def join(self, place: Place, chance: Chance) -> None:
        """Note that a compile waits; what ends its wait also ends the note."""
        chance.since = self._clock.monotonic()
        if not self._chances:
            self._began, self._left = chance.since, 0.0
        self._chances[place] = chance
        place.add_done_callback(lambda done: self._chances.pop(done, None))

    def left(self) -> None:
        """Note that a worker's place became free."""
        self._left += 1

    def ran(self, seconds: float) -> None:
        """Note how long a compile ran at a worker."""
        self._run.note(seconds, self._clock.monotonic())

    def give(self, waiting: Sequence[Place], book: RouteBook) -> list[Place]:
        """Give local slots to some of those who wait; return these, which are settled now."""
        now = self._clock.monotonic()
        if book.opens(now):  # there will be room at once
            return []
        patience = _MAX_ASK_SECONDS if self._is_asking() else PATIENCE_SECONDS
        before = max(book.in_flight - book.limits, 0)
        given: list[Place] = []
        free: int | None = None  # those that were taken a moment ago do not run yet
        for position in range(len(waiting), 0, -1):
            place = waiting[position - 1]
            chance = self._chances.get(place)
            if chance is None or place.done() or now - chance.since < patience:
                continue
            if not chance.is_accepted(book):
                continue
            slots = chance.slots
            free = slots.free if free is None else free - 1
            if free <= 0 or not self._is_sooner_here(slots, position + before, now):
                break
            place.set_result(slots.take())
            given.append(place)
        return given

    def _is_sooner_here(self, slots: Slots, position: int, now: float) -> bool:
        """Compare the expected ends. Nothing is known of a farm that finished no compile yet."""
        elapsed = now - self._began
        if elapsed > _WINDOW_SECONDS:
            self._began, self._left = now - elapsed / 2, self._left / 2
        if not self._left or elapsed <= 0:
            return True
        run = self._run.value or 0.0
        here = slots.took_seconds
        return (run if here is None else here) < position * elapsed / self._left + run
