"""What holds an event loop up: the CPU of each turn of a task, of each collection of garbage.

CPU and not wall time, so a busy machine changes little: what waits for a core costs nothing. Turns
of one task count under its name, so that periodic work has a separate line.
"""

from __future__ import annotations

import asyncio
import gc
import itertools
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any, Final

# A free one of the six tools of `sys.monitoring`; coverage and debuggers have others.
_TOOL: Final = 4


@dataclass(slots=True)
class Turns:
    """How often something ran, its CPU in total and of the longest turn, in seconds."""

    count: int = 0
    total: float = 0.0
    longest: float = 0.0

    def add(self, seconds: float) -> None:
        self.count += 1
        self.total += seconds
        self.longest = max(self.longest, seconds)


@dataclass(slots=True)
class LoopWatch:
    """What ran meanwhile, by the name of its task, and collections by generation."""

    turns: dict[str, Turns] = field(default_factory=dict)
    # Also those in other threads: they hold the interpreter's lock, so the loop waits as well.
    collections: dict[int, Turns] = field(default_factory=dict)

    def turn(self, name: str, seconds: float) -> None:
        self.turns.setdefault(name, Turns()).add(seconds)

    def longest(self) -> list[tuple[str, Turns]]:
        """Return what ran, that with the longest turn first."""
        return sorted(self.turns.items(), key=lambda item: -item[1].longest)


@contextmanager
def watched() -> Iterator[LoopWatch]:
    """Measure each callback of the running loop while the block runs."""
    watch, begun = LoopWatch(), threading.local()
    plain = asyncio.events.Handle._run  # noqa: SLF001 - asyncio has no other place for this

    def run(handle: asyncio.Handle) -> None:
        name, started = _name(handle), time.thread_time()
        try:
            plain(handle)
        finally:
            watch.turn(name, time.thread_time() - started)

    def collected(phase: str, info: dict[str, Any]) -> None:
        if phase == "start":
            begun.at = time.thread_time()
        elif (at := getattr(begun, "at", None)) is not None:
            turns = watch.collections.setdefault(info["generation"], Turns())
            turns.add(time.thread_time() - at)

    asyncio.events.Handle._run = run  # type: ignore[method-assign]  # noqa: SLF001 - for the block
    gc.callbacks.append(collected)
    try:
        yield watch
    finally:
        gc.callbacks.remove(collected)
        asyncio.events.Handle._run = plain  # type: ignore[method-assign]  # noqa: SLF001 - as before


def _name(handle: asyncio.Handle) -> str:
    callback = handle._callback  # noqa: SLF001 - likewise
    task = getattr(callback, "__self__", None)
    if not isinstance(task, asyncio.Task):
        return "other callbacks"
    # Python numbers the tasks that nobody has named.
    return "calls" if task.get_name().startswith("Task-") else str(task.get_name())


@contextmanager
def instructions() -> Iterator[list[int]]:
    """Count the bytecodes that Python executes meanwhile; the last number of the list is the count.

    The count is the same on every machine and under every load. What C code does is not in it.
    """
    counter, found, events = itertools.count(), list[int](), sys.monitoring.events

    def executed(code: object, offset: int) -> None:
        del code, offset
        next(counter)

    sys.monitoring.use_tool_id(_TOOL, "bench")
    sys.monitoring.register_callback(_TOOL, events.INSTRUCTION, executed)
    sys.monitoring.set_events(_TOOL, events.INSTRUCTION)
    try:
        yield found
    finally:
        sys.monitoring.set_events(_TOOL, 0)
        found.append(next(counter))
        sys.monitoring.free_tool_id(_TOOL)
