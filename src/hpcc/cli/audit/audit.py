"""`hpcc audit`: who compiled what, where, and under which isolation."""

from __future__ import annotations

import argparse
import os
import sys
from collections.abc import Callable
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from itertools import chain
from pathlib import Path
from typing import TYPE_CHECKING, Final

from hpcc.cli.audit import reproduce as _audit_reproduce
from hpcc.cli.base.terminal import emit
from hpcc.config.paths import Paths
from hpcc.core import CallerError

if TYPE_CHECKING:
    from hpcc.audit.index import Query
    from hpcc.audit.verify import Verified
    from hpcc.worker.base.config import WorkerConfig

_UNITS: Final = {"s": 1, "m": 60, "h": 3600, "d": 86400}
_STATUSES: Final = ("executed", "hit", "joined", "abandoned", "verify", "explain", "pack")
_BUILD_HELP: Final = "the build that the client named: `hpcc explain` prints it"
# Options of `query` and `export`: name, field of `Query`, help.
_FILTERS: Final = (
    ("tenant", "tenant", "rows and events of this tenant"),
    ("principal", "principal", "the principal who asked"),
    ("build", "build_id", _BUILD_HELP),
    ("action", "action_digest", "action digest, or the start of one"),
    ("image", "image_digest", "image digest, or the start of one"),
    ("guest", "guest_id", "guest id, or the start of one"),
    ("worker", "worker", "the worker that wrote the record"),
    ("isolation", "isolation", "isolation label: firecracker/kvm, qemu/tcg, …"),
    ("reuse", "reuse", "exec, principal or tenant"),
    ("status", "cache_status", "executed, hit, joined, abandoned, verify, explain or pack"),
    ("reason", "reason", "why no result was released"),
    ("event", "name", "security events of this name (implies --events)"),
    ("peer", "peer", "security events caused from this address, or the start of one"),
    ("request", "request_id", "the security event of this call"),
)


def register(subparsers: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    """Add `audit` and its commands."""
    audit = subparsers.add_parser("audit", help="show the record of remote compiles")
    commands = audit.add_subparsers(title="commands", metavar="COMMAND", required=True)

    listing = _command(commands, "list", "list the newest rows, one line each", _run_query)
    _limit(listing, 20)
    listing.add_argument("--build", dest="build_id", default="", metavar="ID", help=_BUILD_HELP)
    _kind(listing)
    _times(listing)

    query = _command(commands, "query", "list rows or events that match all filters", _run_query)
    _limit(query, 100)
    _filters(query)
    query.add_argument("--format", choices=("table", "tsv", "jsonl"), default="table")

    show = _command(commands, "show", "print every field of one row", _run_show)
    show.add_argument("row", metavar="ROW", help="row id, or the start of one")

    again = "run a row's action again in a guest, and compare the outputs"
    reproduce = _command(commands, "reproduce", again, _audit_reproduce.run)
    _audit_reproduce.register(reproduce)

    export = _command(
        commands, "export", "export all rows, oldest first, for other programs", _run_export
    )
    export.add_argument("--format", choices=("tsv", "jsonl", "parquet"), default="jsonl")
    export.add_argument(
        "--output", type=Path, metavar="FILE", help="the file to write, needed for parquet"
    )
    _filters(export)

    differing = "list actions whose executions gave different outputs, and in which sections"
    determinism = _command(commands, "determinism", differing, _run_determinism)
    _limit(determinism, 20)
    determinism.add_argument(
        "--config",
        type=Path,
        metavar="FILE",
        help="config file of the worker whose trail and objects are read (default: `hpcc up`'s)",
    )
    _times(determinism)

    verify = _command(commands, "verify", "check the hash chain of the whole trail", _run_verify)
    verify.add_argument(
        "--anchors",
        type=Path,
        metavar="FILE",
        help="output of `hpcc scheduler anchors`; with it a missing end is detected, too",
    )
    verify.add_argument(
        "--worker",
        default="",
        help="use the anchors of this worker, if the file has several workers'",
    )
    verify.add_argument(
        "--scheduler",
        action="store_true",
        help="fetch the worker's anchors from its schedulers, with the worker's certificate",
    )
    verify.add_argument(
        "--config",
        type=Path,
        metavar="FILE",
        help="with --scheduler: the worker's config file (default: that of `hpcc up`)",
    )


def _command(
    commands: argparse._SubParsersAction[argparse.ArgumentParser],
    name: str,
    help_text: str,
    handler: Callable[[argparse.Namespace], int],
) -> argparse.ArgumentParser:
    parser = commands.add_parser(name, help=help_text)
    where = parser.add_mutually_exclusive_group()
    where.add_argument(
        "--directory", type=Path, help="the trail's directory (default: that of `hpcc up`)"
    )
    where.add_argument(
        "--scheduler-state",
        type=Path,
        metavar="DIR",
        help="the security events of the scheduler with this state directory",
    )
    parser.set_defaults(handler=handler)
    return parser


def _filters(parser: argparse.ArgumentParser) -> None:
    for option, field, text in _FILTERS:
        parser.add_argument(
            f"--{option}",
            dest=field,
            default="",
            metavar="X",
            # An unknown status would match no row and look like an empty trail.
            type=_status if option == "status" else str,
            help=text,
        )
    parser.add_argument(
        "--exit-code", type=int, default=None, metavar="N", help="the compiler's exit code"
    )
    _kind(parser)
    _times(parser)


def _status(text: str) -> str:
    if text and text not in _STATUSES:
        raise argparse.ArgumentTypeError(f"must be one of {', '.join(_STATUSES)}")
    return text


def _kind(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--events", action="store_true", help="security events instead of rows")


def _times(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--since", metavar="WHEN", default="", help="30m, 12h, 7d, or a UTC time 2030-01-31[T12:00]"
    )
    parser.add_argument(
        "--until", metavar="WHEN", default="", help="as --since; the time itself is excluded"
    )


def _limit(parser: argparse.ArgumentParser, default: int) -> None:
    parser.add_argument(
        "-n", "--limit", type=_count, default=default, help=f"number of records (default {default})"
    )


def _count(text: str) -> int:
    value = int(text) if text.isdecimal() else 0
    if not 0 < value <= 1_000_000:  # noqa: PLR2004 - a limit that fits any screen and most memories
        raise argparse.ArgumentTypeError("must be 1 to 1000000")
    return value


def _directory(args: argparse.Namespace) -> Path:
    if args.scheduler_state is not None:
        state: Path = args.scheduler_state
        return state / "events"
    given: Path | None = args.directory
    return given if given is not None else Paths.from_env(os.environ).audit


def _query(args: argparse.Namespace, limit: int) -> Query:
    from hpcc.audit.index import Query

    chosen = {field: getattr(args, field, "") for _, field, _ in _FILTERS}
    # A scheduler's trail contains only events.
    is_events = args.events or bool(chosen["name"]) or args.scheduler_state is not None
    now = _now()
    return Query(
        kind="event" if is_events else "row",
        since=since_seconds(args.since, now),
        until=since_seconds(args.until, now, "--until") if args.until else None,
        exit_code=getattr(args, "exit_code", None),
        limit=limit,
        **chosen,
    )


def since_seconds(text: str, now: datetime, option: str = "--since") -> float:
    """Parse `--since` or `--until`, an age or a UTC time; return seconds since the epoch.

    Raises:
        CallerError: the text is neither.
    """
    if not text:
        return 0.0
    number, unit = text[:-1], text[-1]
    if unit in _UNITS and number.isascii() and number.isdigit() and len(number) < 7:  # noqa: PLR2004 - a million days is enough
        try:
            return (now - timedelta(seconds=int(number) * _UNITS[unit])).timestamp()
        except OverflowError:
            return 0.0
    try:
        at = datetime.fromisoformat(text)
    except ValueError as error:
        raise CallerError(f"{option} {text!r}: write 30m, 12h, 7d or 2030-01-31T12:00") from error
    return (at if at.tzinfo else at.replace(tzinfo=UTC)).timestamp()


def _now() -> datetime:
    from hpcc.ports import SystemClock

    return datetime.fromtimestamp(SystemClock().now(), UTC)


def _run_query(args: argparse.Namespace) -> int:
    from hpcc.audit.canonical import event_of, row_of
    from hpcc.audit.reader import open_index
    from hpcc.cli.audit import text

    # One more than is shown, to know whether there are more.
    query = _query(args, args.limit + 1)
    with open_index(_directory(args)) as index:
        found = list(index.find(query))
    records, form = found[: args.limit], getattr(args, "format", "table")
    if query.kind == "event" and form == "tsv":
        raise CallerError("security events have no fixed columns: use --format jsonl")
    if form == "jsonl":
        emit("\n".join(text.jsonl(records)), end="\n" if records else "")
    elif form == "tsv":
        emit("\n".join(text.tsv(row_of(r) for r in records)))
    elif query.kind == "event":
        text.table([text.EVENT_HEADER, *(text.event_line(event_of(r)) for r in records)])
    else:
        text.table([text.ROW_HEADER, *(text.row_line(row_of(r)) for r in records)])
    if len(found) > args.limit:
        emit(f"… and more; use -n to show more than {args.limit}", file=sys.stderr)
    return 0


def _run_show(args: argparse.Namespace) -> int:
    from hpcc.audit.canonical import row_of
    from hpcc.audit.reader import open_index
    from hpcc.cli.audit.text import TSV_FIELDS, printable, time_text

    with open_index(_directory(args)) as index:
        record = index.row(args.row)
    row = row_of(record)
    for name in TSV_FIELDS:
        value = getattr(row, name)
        if name == "started_at":
            value = f"{time_text(value)}.{int(value * 1000) % 1000:03d} UTC"
        if name == "outputs":
            # Only these line ends: one in a name or an argument would begin another field.
            text = "".join(f"\n    {printable(p)}  {printable(d)}" for p, d in value) or "none"
        else:
            text = printable(" ".join(value) if isinstance(value, tuple) else str(value))
        emit(f"{name + ':':<22}{text or '-'}".rstrip())
    emit(f"{'record:':<22}number {record.sequence}, hash {record.hash}")
    return 0


def _run_export(args: argparse.Namespace) -> int:
    from hpcc.audit.canonical import row_of
    from hpcc.audit.reader import open_index
    from hpcc.cli.audit import text

    query = _query(args, 1 << 62)
    if query.kind == "event" and args.format != "jsonl":
        raise CallerError("security events have no fixed columns: use --format jsonl")
    if (args.format == "parquet") != (args.output is not None):
        raise CallerError("--format parquet needs --output FILE; the other formats write to stdout")
    with open_index(_directory(args)) as index:
        records = index.find(query, oldest_first=True)
        if args.format == "parquet":
            from hpcc.cli.audit.parquet import write_parquet

            count = write_parquet(args.output, records)
            emit(f"{count} rows in {args.output}")
            return 0
        lines = (
            text.jsonl(records) if args.format == "jsonl" else text.tsv(row_of(r) for r in records)
        )
        for line in lines:
            sys.stdout.write(line + "\n")
    return 0


def _run_determinism(args: argparse.Namespace) -> int:
    from hpcc.audit.canonical import event_of, row_of
    from hpcc.audit.index import Query
    from hpcc.audit.reader import open_index
    from hpcc.cli.audit.determinism import DISAGREEMENT, EXECUTIONS, show, show_suspects
    from hpcc.cli.audit.differing import HeldOutputs

    config, now = _worker_or_none(args), _now()
    directory = config.audit if config and args.directory is None else _directory(args)
    rows = Query(
        kind="row",
        since=since_seconds(args.since, now),
        until=since_seconds(args.until, now, "--until") if args.until else None,
        limit=1 << 62,
    )
    events = replace(rows, kind="event", name=DISAGREEMENT)
    with open_index(directory) as index:
        found = [index.find(replace(rows, cache_status=s), oldest_first=True) for s in EXECUTIONS]
        held = HeldOutputs(config.store) if config else None
        show(map(row_of, chain(*found)), args.limit, held)
        show_suspects(map(event_of, index.find(events, oldest_first=True)), args.limit)
    return 0


def _worker_or_none(args: argparse.Namespace) -> WorkerConfig | None:
    """Return the worker that `--config` names, else that of `hpcc up` if its trail is read."""
    from hpcc.config.service_file import load_service_file
    from hpcc.worker.base.config import WorkerConfig

    if args.config is not None and args.scheduler_state is not None:
        raise CallerError("a scheduler's trail has no compiles: --config does not go with it")
    file = args.config or Paths.from_env(os.environ).state / "worker.json"
    is_other = args.directory is not None or args.scheduler_state is not None
    if args.config is None and (is_other or not file.exists()):
        return None
    return load_service_file(file.absolute(), WorkerConfig)


def _run_verify(args: argparse.Namespace) -> int:
    from hpcc.audit.canonical import AuditDamagedError
    from hpcc.audit.reader import own_index_or_none
    from hpcc.audit.verify import read_anchors, verify_trail

    directory = _directory(args)
    anchors = read_anchors(args.anchors, args.worker) if args.anchors is not None else []
    if args.scheduler:
        from hpcc.cli.audit.anchors import ask_scheduler

        if args.scheduler_state is not None:
            raise CallerError("there are no anchors for a scheduler's own trail")
        config, asked = ask_scheduler(args.config)
        anchors += asked
        directory = args.directory or config.audit
    elif args.config is not None:
        raise CallerError("--config needs --scheduler", reason="usage")
    try:
        with own_index_or_none(directory) as index:
            verified = verify_trail(directory, anchors, index)
    except AuditDamagedError as error:
        raise AuditDamagedError(f"this trail is NOT intact: {error}") from error
    _say_verified(verified, is_anchored=bool(anchors))
    return 0


def _say_verified(verified: Verified, *, is_anchored: bool) -> None:
    kept = verified.count - verified.first
    emit(f"{verified.count} records, unbroken; the last has hash {verified.head}")
    if verified.first:
        emit(f"{kept} of them are kept; retention removed those before {verified.first}")
    for key in verified.keys:
        emit(f"signed by key {key}")
    if not is_anchored:
        emit("not compared with anchors: a missing end is not detected (--scheduler, --anchors)")
        return
    emit(f"{verified.anchors} anchors match, the newest of {verified.newest_anchor} records")
    if verified.older_anchors:
        emit(f"{verified.older_anchors} anchors belong to records that are no longer kept")
