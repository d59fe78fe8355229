"""A security event as a log record.

What a rule can want is an attribute. hpcc's own facts and an event's fields have different
prefixes, so no field hides who reports, or of whom. Values come from peers: each is one line
without credentials, and each has a limit.
"""

from __future__ import annotations

import os
import re
import socket
from typing import Final

from hpcc import __version__
from hpcc.obs.otlp.messages import Attributes, LogRecord, log_record
from hpcc.obs.secrets import hide_secrets
from hpcc.obs.text import one_line
from hpcc.ports import SecurityEvent

MAX_RECORD_BYTES: Final = 8192
_MAX_VALUE_BYTES: Final = 512
# What times, name, text and the attribute that tells of a cut take at most.
_RESERVED_BYTES: Final = 700
# What an attribute takes besides its name and its value.
_FRAME_BYTES: Final = 16
_NAME: Final = re.compile(r"[A-Za-z0-9_.-]{1,64}")
_EVENT: Final = re.compile(r"[A-Za-z0-9_.-]{1,32}")
_UNNAMED: Final = "security-event"
_US: Final = 1_000_000
_MAX_NS: Final = (1 << 63) - 1


def service_resource(service: str, source: str) -> Attributes:
    """Return who reports: `service` is `worker`, `source` the worker's name."""
    found: list[tuple[str, str | int]] = [
        ("service.namespace", "hpcc"),
        ("service.name", f"hpcc-{service}"),
        ("service.version", __version__),
        ("host.name", one_line(socket.gethostname())),
        ("process.pid", os.getpid()),
    ]
    if source:
        found.append(("service.instance.id", source))
    return tuple(found)


def record_of(event: SecurityEvent, now: float, *, dropped: int = 0) -> bytes:
    """Return an encoded record of at most `MAX_RECORD_BYTES`.

    `dropped` is how many events before this one were not sent.
    """
    name = event.name if _EVENT.fullmatch(event.name) else _UNNAMED
    found: list[tuple[str, str | int]] = []
    size = _RESERVED_BYTES
    if dropped:
        found.append(("hpcc.dropped_before", dropped))
    own = (("tenant", event.tenant), ("peer", event.peer), ("request_id", event.request_id))
    given = [(f"hpcc.{key}", value) for key, value in own]
    given += [(f"hpcc.field.{key}", value) for key, value in event.fields if _NAME.fullmatch(key)]
    taken: set[str] = set()
    for key, value in given:
        if not value or key in taken:
            continue
        taken.add(key)
        shown = _value(value)
        size += len(key) + len(shown.encode()) + _FRAME_BYTES
        if size > MAX_RECORD_BYTES:
            found.append(("hpcc.cut", 1))
            break
        found.append((key, shown))
    encoded = log_record(
        LogRecord(
            at_ns=_ns(event.at), observed_ns=_ns(now), event=name, body=f"security event {name}",
            attributes=found,
        )
    )  # fmt: skip
    assert len(encoded) <= MAX_RECORD_BYTES
    return encoded


def _ns(seconds: float) -> int:
    """Return nanoseconds, rounded to microseconds, which a float can hold."""
    return min(max(round(seconds * _US), 0) * 1000, _MAX_NS)


def _value(text: str) -> str:
    """Return a value in one line, short, and without what UTF-8 cannot hold."""
    shown = one_line(hide_secrets(text[: 2 * _MAX_VALUE_BYTES])).encode("utf-8", "replace")
    return shown[:_MAX_VALUE_BYTES].decode(errors="ignore")
