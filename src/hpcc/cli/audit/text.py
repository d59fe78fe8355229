"""Prints rows and events: tables for people, TSV and JSON lines for programs."""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Final

from hpcc.cli.base.terminal import emit

if TYPE_CHECKING:
    from hpcc.audit.base.canonical import Record
    from hpcc.ports import AuditRow, SecurityEvent

_ID_CHARS: Final = 12
_DIGEST_CHARS: Final = 12
# A spreadsheet takes a cell that begins with one of these for a formula, in East Asia with the wide
# ones too. The apostrophe is here so that a reader may take one off from each text that has one.
_DISARMED: Final = tuple("=+-@\t\r\n\uff1d\uff0b\uff0d\uff20'")
# Field order of TSV: stable; new fields are added at the end.
TSV_FIELDS: Final = (
    "row_id", "started_at", "duration_seconds", "tenant", "principal", "build_id",
    "action_digest", "image_digest", "input_root_digest", "argv_digest", "env_digest",
    "exit_code", "cache_status", "worker", "guest_id", "guest_execs_before", "reuse",
    "isolation", "warden", "kernel_digest", "vmm_digest", "agent_digest", "scheduler",
    "client_version", "reason", "working_directory", "argv", "injected_flags", "outputs",
    "vmm_version", "jailer_digest", "snapshot_digest", "kernel_command_line", "vmm_jail", "sharing",
    "argv_omitted", "engine", "lease",
)  # fmt: skip


ROW_HEADER: Final = (
    "ROW", "TIME (UTC)", "STATUS", "EXIT", "SECONDS", "ISOLATION", "REUSE", "PRINCIPAL", "ACTION",
    "IMAGE", "OUTPUT",
)  # fmt: skip
EVENT_HEADER: Final = ("TIME (UTC)", "EVENT", "TENANT", "PEER", "REQUEST", "FIELDS")


def row_line(row: AuditRow) -> tuple[str, ...]:
    """Return the cells of one row, in the order of `ROW_HEADER`."""
    return (
        row.row_id[:_ID_CHARS],
        time_text(row.started_at),
        row.cache_status,
        str(row.exit_code) if not row.reason else row.reason,
        f"{row.duration_seconds:.3f}",
        row.isolation,
        row.reuse,
        row.principal,
        row.action_digest[:_DIGEST_CHARS],
        row.image_digest.removeprefix("sha256:")[:_DIGEST_CHARS],
        _main_output(row),
    )


def _main_output(row: AuditRow) -> str:
    """Return the object's path, else the first output; people look for the object."""
    names = [path for path, _ in row.outputs]
    return next((n for n in names if n.endswith((".o", ".obj", ".lo"))), names[0] if names else "-")


def event_line(event: SecurityEvent) -> tuple[str, ...]:
    """Return the cells of one event, in the order of `EVENT_HEADER`."""
    text = " ".join(f"{name}={value}" for name, value in event.fields)
    return (
        time_text(event.at), event.name, event.tenant or "-", event.peer or "-",
        event.request_id or "-", text or "-",
    )  # fmt: skip


def time_text(seconds: float) -> str:
    """Return a time in UTC, to the second; as a number where no calendar has it."""
    try:
        return datetime.fromtimestamp(seconds, UTC).strftime("%Y-%m-%d %H:%M:%S")
    except (ValueError, OverflowError, OSError):
        return f"{seconds:.0f} s"


def table(lines: Iterable[tuple[str, ...]]) -> None:
    """Print lines of cells as aligned columns; the first line is the header."""
    rows = [tuple(printable(cell) for cell in line) for line in lines]
    widths = [max(len(row[i]) for row in rows) for i in range(len(rows[0]))]
    for row in rows:
        emit("  ".join(c.ljust(w) for c, w in zip(row, widths, strict=True)).rstrip())


def printable(text: str) -> str:
    """Replace unprintable characters: a name from a client must not control a terminal."""
    return "".join(c if c.isprintable() else "?" for c in text)


def jsonl(records: Iterable[Record]) -> Iterator[str]:
    """Yield each record's body, sequence and hash as one line of JSON."""
    for record in records:
        yield json.dumps(
            {**record.body, "sequence": record.sequence, "hash": record.hash}, sort_keys=True
        )


def tsv(rows: Iterable[AuditRow]) -> Iterator[str]:
    """Yield a header and one line for each row, with the columns of `TSV_FIELDS`."""
    yield "\t".join(TSV_FIELDS)
    for row in rows:
        yield "\t".join(_cell(getattr(row, name)) for name in TSV_FIELDS)


def _cell(value: object) -> str:
    """Return lists and texts that could break a line, a column or a terminal as JSON.

    A text that a spreadsheet would execute has an apostrophe before it, quoted or not.
    """
    if isinstance(value, tuple):
        return json.dumps(value, separators=(",", ":"))
    text = str(value)
    if isinstance(value, str) and text.startswith(_DISARMED):
        text = f"'{text}"
    return text if text.isprintable() and '"' not in text else json.dumps(text)
