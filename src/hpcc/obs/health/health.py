"""The conditions of a service, and what they say now.

Two kinds of failures differ in what a load balancer must do. A *fault* stops the service: calls
fail, so another instance should get them. A *degradation* does not: a scheduler that lost the
control store still routes from memory, and all schedulers lose it in the same moment, so a load
balancer that dropped them all would make an outage of it. `/readyz` counts both; load balancers
count only faults.
"""

from __future__ import annotations

import asyncio
import enum
import logging
from collections.abc import Callable, Collection
from contextlib import suppress
from dataclasses import dataclass
from typing import Final

from hpcc.obs.text import one_line

_log: Final = logging.getLogger(__name__)
# The condition that is the life of the service itself.
SERVICE: Final = "service"
_MAX_REASON_CHARS: Final = 300
_MAX_LINE_CHARS: Final = 1_000

# Returns why the condition fails, in one line; "" if it holds. Answers from memory.
type Reason = Callable[[], str]


class ServicePhase(enum.Enum):
    """What a service does as a whole."""

    STARTING = "starts"
    SERVING = "serves"
    STOPPING = "ends"


@dataclass(frozen=True, slots=True)
class Condition:
    """One condition: `reason` is why it fails, "" if it holds. `is_fault`: calls fail then."""

    name: str
    reason: str
    is_fault: bool


@dataclass(frozen=True, slots=True)
class Conditions:
    """All conditions of a service at one moment."""

    all: tuple[Condition, ...]

    @property
    def is_serving(self) -> bool:
        """Whether calls are answered."""
        return not any(c.reason and c.is_fault for c in self.all)

    def failed(self, besides: Collection[str] = ()) -> tuple[Condition, ...]:
        """Return the conditions that fail, without those named in `besides`."""
        return tuple(c for c in self.all if c.reason and c.name not in besides)


class Health:
    """What a service says of itself. Belongs to the thread of the service's event loop."""

    def __init__(self) -> None:
        self.phase = ServicePhase.STARTING
        # What a person reads while all is well, such as how many places are busy.
        self.summary: Callable[[], str] = lambda: ""
        # How long an orderly end may take beyond what the service manager gives to each; 0: no
        # longer. A worker's running compiles finish meanwhile.
        self.end_seconds = 0.0
        self._step = ""
        self._conditions: dict[str, tuple[Reason, bool]] = {}
        self._changed = asyncio.Event()

    def add(self, name: str, reason: Reason, *, is_fault: bool = True) -> None:
        """Add a condition. `name` is an API: lower case with hyphens."""
        assert name != SERVICE and name not in self._conditions, name  # noqa: PT018 - one rule
        self._conditions[name] = (reason, is_fault)

    def starting(self, step: str) -> None:
        """Note a step of the start."""
        self._step = _bounded(step)
        self._changed.set()

    def serving(self) -> None:
        """Note that the service has started. One that ends does not serve again."""
        if self.phase is ServicePhase.STARTING:
            self.phase, self._step = ServicePhase.SERVING, ""
            self._changed.set()

    def stopping(self) -> None:
        """Note that the service ends, by request or because it failed: it finishes what it began.

        The service manager then limits how long that may take.
        """
        self.phase, self._step = ServicePhase.STOPPING, ""
        self._changed.set()

    def conditions(self) -> Conditions:
        """Return what holds now, the service itself first."""
        is_up = self.phase is ServicePhase.SERVING
        own = "" if is_up else f"it {self.phase.value}" + (f": {self._step}" if self._step else "")
        found = [Condition(SERVICE, own, is_fault=True)]
        for name, (reason, is_fault) in self._conditions.items():
            found.append(Condition(name, _read(name, reason), is_fault))
        return Conditions(tuple(found))

    def line(self) -> str:
        """Return one line for a person: what the service does, and what is wrong."""
        conditions, summary = self.conditions(), _read("summary", self.summary)
        if self.phase is ServicePhase.STARTING:
            return f"starts: {self._step}" if self._step else "starts"
        words = [summary] if summary else []
        if self.phase is ServicePhase.STOPPING:
            return "; ".join(["ends: running work finishes", *words])
        failed = [f"{c.name}: {c.reason}" for c in conditions.failed()]
        head = [] if conditions.is_serving else ["not ready"]
        return "; ".join([*head, *failed, *words])[:_MAX_LINE_CHARS] or "serves"

    async def wait_changed(self, seconds: float) -> None:
        """Wait until the phase or its step changes, at most so long."""
        with suppress(TimeoutError):
            async with asyncio.timeout(seconds):
                await self._changed.wait()
        self._changed.clear()


def _read(name: str, reason: Reason) -> str:
    try:
        return _bounded(reason())
    except Exception:  # noqa: BLE001 - whatever a condition gets wrong must not end the service
        _log.exception("%s cannot be read", name)
        return "it cannot be read: see the log"


def _bounded(text: str) -> str:
    return one_line(text)[:_MAX_REASON_CHARS]
