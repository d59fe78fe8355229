"""The answers of `/livez` and `/readyz`: plain lines, for probes and for people with curl."""

from __future__ import annotations

from typing import Final
from urllib.parse import parse_qsl

from hpcc.obs.health.health import Conditions

# The event loop has answered within this time: the service lives.
LIVE_SECONDS: Final = 10.0
OK: Final = 200
UNAVAILABLE: Final = 503
_MAX_FIELDS: Final = 32


def live_page(silent_seconds: float) -> tuple[int, str]:
    """Return status and text for a service whose event loop ran so long ago."""
    if silent_seconds <= LIVE_SECONDS:
        return OK, "live\n"
    return UNAVAILABLE, f"event-loop: it has not run for {silent_seconds:.0f} s\n"


def ready_page(conditions: Conditions | None, query: str) -> tuple[int, str]:
    """Return status and text. None: the service's event loop did not answer.

    `exclude=NAME` leaves a condition out of the status, `verbose` shows those that hold, too.
    """
    if conditions is None:
        return UNAVAILABLE, "event-loop: it did not answer in time\n"
    try:
        asked = parse_qsl(query, keep_blank_values=True, max_num_fields=_MAX_FIELDS)
    except ValueError:
        return UNAVAILABLE, "the query has too many fields\n"
    excluded = {value for name, value in asked if name == "exclude"}
    failed = conditions.failed(excluded)
    lines = [f"{c.name}: {c.reason}" for c in failed]
    if any(name == "verbose" for name, _ in asked):
        notes = dict.fromkeys(excluded, " (excluded)")
        lines = [f"{c.name}: {c.reason or 'ok'}{notes.get(c.name, '')}" for c in conditions.all]
    elif not lines:
        lines = ["ready"]
    return (UNAVAILABLE if failed else OK), "\n".join(lines) + "\n"
