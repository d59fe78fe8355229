"""`hpcc audit`: who compiled what, where, and under which isolation."""

from __future__ import annotations

import argparse
import json
import os
import sys
from collections.abc import Callable, Iterable, Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import TYPE_CHECKING, Final

from hpcc.config import Paths
from hpcc.core import CallerError

if TYPE_CHECKING:
    from hpcc.audit import Record
    from hpcc.ports import AuditRow

_ID_CHARS: Final = 12
_DIGEST_CHARS: Final = 12
_UNITS: Final = {"s": 1, "m": 60, "h": 3600, "d": 86400}
# Field order of TSV: stable, new ones are added at the end.
_TSV_FIELDS: Final = (
    "row_id", "started_at", "duration_seconds", "tenant", "principal", "build_id",
    "action_digest", "image_digest", "input_root_digest", "argv_digest", "env_digest",
    "exit_code", "cache_status", "worker", "guest_id", "guest_execs_before", "reuse",
    "isolation", "warden", "kernel_digest", "vmm_digest", "agent_digest", "scheduler",
    "client_version", "reason", "working_directory", "argv", "injected_flags", "outputs",
    "vmm_version", "jailer_digest", "snapshot_digest",
)  # fmt: skip


def register(subparsers: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    """Add `audit` and its commands."""
    audit = subparsers.add_parser("audit", help="show the record of remote compiles")
    commands = audit.add_subparsers(title="commands", metavar="COMMAND", required=True)

    listing = _command(commands, "list", "the newest rows, one line each", _run_list)
    listing.add_argument("-n", "--limit", type=_count, default=20, help="how many (default 20)")
    listing.add_argument("--events", action="store_true", help="security events instead of rows")
    _since(listing)

    show = _command(commands, "show", "every field of one row", _run_show)
    show.add_argument("row", metavar="ROW", help="row id, or the start of one")

    export = _command(commands, "export", "all rows, oldest first, for other programs", _run_export)
    export.add_argument("--format", choices=("tsv", "jsonl"), default="jsonl")
    export.add_argument("--events", action="store_true", help="security events (jsonl only)")
    _since(export)

    _command(commands, "verify", "check the hash chain of the whole trail", _run_verify)


def _command(
    commands: argparse._SubParsersAction[argparse.ArgumentParser],
    name: str,
    help_text: str,
    handler: Callable[[argparse.Namespace], int],
) -> argparse.ArgumentParser:
    parser = commands.add_parser(name, help=help_text)
    parser.add_argument(
        "--directory", type=Path, help="the trail's directory (default: that of `hpcc up`)"
    )
    parser.set_defaults(handler=handler)
    return parser


def _since(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--since", metavar="WHEN", default="", help="30m, 12h, 7d, or a UTC time 2030-01-31[T12:00]"
    )


def _count(text: str) -> int:
    value = int(text) if text.isdecimal() else 0
    if not 0 < value <= 1_000_000:  # noqa: PLR2004 - a limit that fits any screen and most memories
        raise argparse.ArgumentTypeError("must be 1 to 1000000")
    return value


def _directory(args: argparse.Namespace) -> Path:
    given: Path | None = args.directory
    return given if given is not None else Paths.from_env(os.environ).audit


def since_seconds(text: str, now: datetime) -> float:
    """Read `--since`: an age or a UTC time, as seconds since the epoch.

    Raises:
        CallerError: it is neither.
    """
    if not text:
        return 0.0
    number, unit = text[:-1], text[-1]
    if unit in _UNITS and number.isascii() and number.isdigit() and len(number) < 7:  # noqa: PLR2004 - a million days is enough
        return (now - timedelta(seconds=int(number) * _UNITS[unit])).timestamp()
    try:
        at = datetime.fromisoformat(text)
    except ValueError as error:
        raise CallerError(f"--since {text!r}: write 30m, 12h, 7d or 2030-01-31T12:00") from error
    return (at if at.tzinfo else at.replace(tzinfo=UTC)).timestamp()


def _now() -> datetime:
    from hpcc.ports import SystemClock

    return datetime.fromtimestamp(SystemClock().now(), UTC)


def _run_list(args: argparse.Namespace) -> int:
    from hpcc.audit import Query, open_index, row_of

    kind = "event" if args.events else "row"
    query = Query(kind=kind, since=since_seconds(args.since, _now()), limit=args.limit)
    with open_index(_directory(args)) as index:
        records = list(index.find(query))
    if args.events:
        lines = [_EVENT_HEADER, *(_event_line(r) for r in records)]
    else:
        lines = [_HEADER, *(_line(row_of(r)) for r in records)]
    _table(lines)
    return 0


_HEADER: Final = (
    "ROW", "TIME (UTC)", "STATUS", "EXIT", "SECONDS", "ISOLATION", "REUSE", "PRINCIPAL", "ACTION",
    "IMAGE", "OUTPUT",
)  # fmt: skip
_EVENT_HEADER: Final = ("TIME (UTC)", "EVENT", "TENANT", "FIELDS")


def _line(row: AuditRow) -> tuple[str, ...]:
    return (
        row.row_id[:_ID_CHARS],
        _time(row.started_at),
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
    """The object, where there is one: a person looks for that, not for the depfile."""
    names = [path for path, _ in row.outputs]
    return next((n for n in names if n.endswith((".o", ".obj", ".lo"))), names[0] if names else "-")


def _event_line(record: Record) -> tuple[str, ...]:
    body = record.body
    fields = body["fields"]
    text = " ".join(f"{name}={value}" for name, value in fields) if isinstance(fields, list) else ""
    at = body["at"]
    assert isinstance(at, float)
    return (_time(at), str(body["name"]), str(body["tenant"]) or "-", text or "-")


def _time(seconds: float) -> str:
    return datetime.fromtimestamp(seconds, UTC).strftime("%Y-%m-%d %H:%M:%S")


def _table(lines: Iterable[tuple[str, ...]]) -> None:
    rows = [tuple(_printable(cell) for cell in line) for line in lines]
    widths = [max(len(row[i]) for row in rows) for i in range(len(rows[0]))]
    for row in rows:
        print("  ".join(c.ljust(w) for c, w in zip(row, widths, strict=True)).rstrip())


def _printable(text: str) -> str:
    """Names come from clients: nothing of them may steer a terminal."""
    return "".join(c if c.isprintable() else "?" for c in text)


def _run_show(args: argparse.Namespace) -> int:
    from hpcc.audit import open_index, row_of

    with open_index(_directory(args)) as index:
        record = index.row(args.row)
    row = row_of(record)
    for name in _TSV_FIELDS:
        value = getattr(row, name)
        if name == "started_at":
            value = f"{_time(value)}.{int(value * 1000) % 1000:03d} UTC"
        if name == "outputs":
            value = "".join(f"\n    {path}  {digest}" for path, digest in value) or "none"
        elif isinstance(value, tuple):
            value = " ".join(value) or "-"
        text = "\n".join(_printable(part) for part in str(value).split("\n"))
        print(f"{name + ':':<20}{text or '-'}".rstrip())
    print(f"{'record:':<20}number {record.sequence}, hash {record.hash}")
    return 0


def _run_export(args: argparse.Namespace) -> int:
    from hpcc.audit import Query, open_index, row_of

    if args.events and args.format == "tsv":
        raise CallerError("security events have no fixed columns: use --format jsonl")
    kind = "event" if args.events else "row"
    query = Query(kind=kind, since=since_seconds(args.since, _now()), limit=1 << 62)
    with open_index(_directory(args)) as index:
        records = index.find(query, oldest_first=True)
        lines = _jsonl(records) if args.format == "jsonl" else _tsv(row_of(r) for r in records)
        for line in lines:
            sys.stdout.write(line + "\n")
    return 0


def _jsonl(records: Iterable[Record]) -> Iterator[str]:
    for record in records:
        yield json.dumps(
            {**record.body, "sequence": record.sequence, "hash": record.hash}, sort_keys=True
        )


def _tsv(rows: Iterable[AuditRow]) -> Iterator[str]:
    yield "\t".join(_TSV_FIELDS)
    for row in rows:
        yield "\t".join(_cell(getattr(row, name)) for name in _TSV_FIELDS)


def _cell(value: object) -> str:
    """Lists are JSON; JSON also escapes what would break a line, a column or a terminal."""
    if isinstance(value, tuple):
        return json.dumps(value, separators=(",", ":"))
    text = str(value)
    return text if text.isprintable() and '"' not in text else json.dumps(text)


def _run_verify(args: argparse.Namespace) -> int:
    from hpcc.audit import verify_chain

    count, head = verify_chain(_directory(args))
    print(f"{count} records, unbroken; the last has hash {head}")
    return 0
