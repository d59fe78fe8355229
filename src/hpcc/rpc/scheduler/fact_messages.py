"""Converts what a worker says of its machine between message and value."""

from __future__ import annotations

import math
from typing import Final

from hpcc._proto import scheduler_pb2 as pb
from hpcc.rpc.scheduler.api import WorkerFacts
from hpcc.rpc.scheduler.drain_messages import label

MAX_VERSION_CHARS: Final = 64
# A century, and more than a machine survives.
_MAX_SECONDS: Final = 3.2e9
_MAX_LOAD: Final = 10_000.0
# An exbibyte: JSON readers hold such a number exactly enough for a share.
MAX_BYTES: Final = 1 << 60


def facts_message(facts: WorkerFacts) -> pb.WorkerFacts:
    """Build the message."""
    return pb.WorkerFacts(
        version=facts.version, up_seconds=facts.up_seconds, load=facts.load,
        store_bytes=facts.store_bytes, store_limit_bytes=facts.store_limit_bytes,
        wait_p95_seconds=facts.wait_p95_seconds, waits=facts.waits,
    )  # fmt: skip


def facts_of(said: pb.WorkerFacts) -> WorkerFacts:
    """Return the value of a message. What is out of range is replaced by the nearest bound."""
    return WorkerFacts(
        version=label(said.version, MAX_VERSION_CHARS),
        up_seconds=bounded(said.up_seconds, _MAX_SECONDS),
        load=bounded(said.load, _MAX_LOAD),
        store_bytes=min(said.store_bytes, MAX_BYTES),
        store_limit_bytes=min(said.store_limit_bytes, MAX_BYTES),
        wait_p95_seconds=bounded(said.wait_p95_seconds),
        waits=said.waits,
    )


def bounded(value: float, most: float = _MAX_SECONDS) -> float:
    """Return a number between 0 and a bound; 0 for an infinite or undefined one."""
    return min(max(value, 0.0), most) if math.isfinite(value) else 0.0
