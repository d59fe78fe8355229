"""When a writer began to sign its records: an event of the chain, and a file beside the key.

The event is in the chain, so each later seal and anchor covers it. The file is where an attacker of
the trail's disk is not. Who takes the signatures off a trail has to take the event away as well.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from hpcc import __version__
from hpcc.audit.base.canonical import Record
from hpcc.files.whole import Sync, write_whole
from hpcc.ports import SecurityEvent

SIGNING_EVENT: Final = "audit-signing"
_MARK: Final = re.compile(r"records are signed from number ([0-9]{1,19}) on, since hpcc (\S{1,40})")
_MAX_MARK_BYTES: Final = 200


@dataclass(frozen=True, slots=True)
class SigningMark:
    """What the file beside the key says; `first` is None before the event is in the chain."""

    first: int | None = None
    version: str = ""


def is_signing_event(record: Record) -> bool:
    """Return whether a record is the event: it and all later ones are signed."""
    return record.kind == "event" and record.body.get("name") == SIGNING_EVENT


def signing_event(at: float, first: int) -> SecurityEvent:
    """Return the event that becomes record `first`; those before it may have no signatures."""
    fields = (("first", str(first)), ("version", __version__))
    return SecurityEvent(name=SIGNING_EVENT, at=at, fields=fields)


def mark_or_none(path: Path | None) -> SigningMark | None:
    """Read the file beside the key; None if there is none.

    A file of other content counts as well: it was made for this purpose only.

    Raises:
        OSError: it cannot be read.
    """
    if path is None:
        return None
    try:
        with path.open("rb") as file:
            text = file.read(_MAX_MARK_BYTES).decode("ascii", "replace")
    except FileNotFoundError:
        return None
    found = _MARK.fullmatch(text.strip())
    return SigningMark(int(found[1]), found[2]) if found else SigningMark()


def begin_mark(path: Path | None) -> None:
    """Make the file, before the first signed record, unless there is one.

    Raises:
        OSError: it is not durable.
    """
    if path is not None and not path.exists():
        write_whole(path, b"each frame is signed\n", sync=Sync.NAME)


def finish_mark(path: Path | None, first: int) -> None:
    """Note in the file which record is the event.

    Raises:
        OSError: it is not durable.
    """
    if path is not None:
        text = f"records are signed from number {first} on, since hpcc {__version__}\n"
        write_whole(path, text.encode(), sync=Sync.NAME)
