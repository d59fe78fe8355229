"""Finds the event of a log record by its sentence."""

from __future__ import annotations

from functools import cache
from typing import TYPE_CHECKING, Final, NamedTuple

from hpcc.core import HpccError
from hpcc.obs.events.client import CLIENT
from hpcc.obs.events.scheduler import SCHEDULER
from hpcc.obs.events.shared import SHARED
from hpcc.obs.events.worker import WORKER

if TYPE_CHECKING:
    import logging

LIBRARY: Final = "library"
"""The event of a sentence that is not hpcc's; the logger's name tells whose it is."""

# The keys that every line may have, which no argument may be called.
RESERVED: Final = frozenset(
    {"time", "severity", "service", "event", "logger", "message", "exception"}
)
# Readers keep numbers as doubles.
_MAX_NUMBER: Final = 1 << 53
GROUPS: Final = {
    "Every service": SHARED,
    "Scheduler and gateway": SCHEDULER,
    "Worker": WORKER,
    "Daemon and dispatcher": CLIENT,
}


class Event(NamedTuple):
    """One kind of a log line: its stable name, its sentence, and what the arguments are."""

    name: str
    sentence: str
    fields: tuple[str, ...]


@cache
def events() -> dict[str, Event]:
    """Return all events by their sentence."""
    return {
        sentence: Event(name, sentence, tuple(words))
        for group in GROUPS.values()
        for name, sentence, *words in group
    }


def event_of(record: logging.LogRecord) -> tuple[str, dict[str, object]]:
    """Return the name of a record's event, and its arguments by their names.

    Numbers stay numbers. An error also gives `reason`, its stable word, if it has one.
    """
    found = events().get(record.msg) if isinstance(record.msg, str) else None
    if found is None:
        return LIBRARY, {}
    arguments = record.args if isinstance(record.args, tuple) else ()
    values: dict[str, object] = {}
    for word, value in zip(found.fields, arguments, strict=False):
        values[word] = value if _is_number(value) else str(value)
        if isinstance(value, HpccError):
            values.setdefault("reason", value.reason)
    return found.name, values


def _is_number(value: object) -> bool:
    """Return whether JSON, and every reader of it, has this number."""
    return isinstance(value, int | float) and abs(value) < _MAX_NUMBER  # also false for nan
