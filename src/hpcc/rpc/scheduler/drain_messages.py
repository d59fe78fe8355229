"""Converts what heartbeats say about draining between message and value."""

from __future__ import annotations

import math
from typing import Final

from hpcc._proto import scheduler_pb2 as pb
from hpcc.rpc.scheduler.api import (
    MAX_BY_CHARS,
    MAX_DRAIN_SECONDS,
    MAX_WHY_CHARS,
    DrainOrder,
    DrainState,
)

_STATES: Final = {
    DrainState.NONE: pb.DRAIN_STATE_UNSPECIFIED,
    DrainState.DRAINING: pb.DRAIN_STATE_DRAINING,
    DrainState.DRAINED: pb.DRAIN_STATE_DRAINED,
}


def order_message(order: DrainOrder | None) -> pb.DrainOrder | None:
    """Build the message of an order; None if there is no order."""
    if order is None:
        return None
    return pb.DrainOrder(seconds=order.seconds, by=order.by, reason=order.reason)


def order_of(answer: pb.HeartbeatResponse) -> DrainOrder | None:
    """Parse the order in an answer. What is out of range is replaced by the nearest bound."""
    if not answer.HasField("drain"):
        return None
    said = answer.drain
    return DrainOrder(
        seconds=seconds_of(said.seconds),
        by=label(said.by, MAX_BY_CHARS),
        reason=label(said.reason, MAX_WHY_CHARS),
    )


def state_number(state: DrainState) -> pb.DrainState:
    """Return the number of a state."""
    return _STATES[state]


def state_of(number: int) -> DrainState:
    """Return the state of a number. A state of a later version is one without compiles."""
    found = next((state for state, n in _STATES.items() if n == number), None)
    return DrainState.DRAINING if found is None else found


def seconds_of(seconds: float) -> float:
    """Return a time between 0 and the longest drain; 0 for an infinite or undefined one."""
    return min(max(seconds, 0.0), MAX_DRAIN_SECONDS) if math.isfinite(seconds) else 0.0


def label(text: str, most: int) -> str:
    """Return the printable characters of a text, at most so many."""
    return "".join(c for c in text[:most] if c.isprintable())
