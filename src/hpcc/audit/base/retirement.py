"""The event `audit-retired`: which records retention removed."""

from __future__ import annotations

import re
from typing import Final

from hpcc.audit.base.canonical import Record
from hpcc.audit.base.heads import MAX_COUNT
from hpcc.ports import SecurityEvent

_COUNT: Final = re.compile(r"[0-9]{1,20}")


def retired_event(until: int, head: str, at: float) -> SecurityEvent:
    """Return the event that precedes the removal of the records before `until`, up to `head`."""
    fields = (("until", str(until)), ("head", head))
    return SecurityEvent(name="audit-retired", at=at, fields=fields)


def retired_until(record: Record) -> int:
    """Return the number below which retention removed the records; 0 if the record says nothing.

    The fields of a forged record may have any type.
    """
    if record.kind != "event" or record.body.get("name") != "audit-retired":
        return 0
    fields = record.body.get("fields")
    for pair in fields if isinstance(fields, list) else ():
        if isinstance(pair, list) and pair[:1] == ["until"] and _COUNT.fullmatch(str(pair[-1])):
            return min(int(pair[-1]), MAX_COUNT)
    return 0


def baseless(sequence: int) -> str:
    """Return the words about an event of retention that does not count."""
    return (
        f"record {sequence} says that it did, but it is not signed, and no seal or anchor covers"
        " it: it was put in. If an earlier version of hpcc (trails of format 1) wrote this trail,"
        " compare it with the scheduler's anchors"
    )
