"""`hpcc audit`: who compiled what, where, and under which isolation."""

from __future__ import annotations

import argparse
import os
import sys
from dataclasses import replace
from itertools import chain
from pathlib import Path
from typing import TYPE_CHECKING

from hpcc.cli.audit import checks, evidence, farm_query, hold
from hpcc.cli.audit import reproduce as _audit_reproduce
from hpcc.cli.audit import sources as _sources
from hpcc.cli.audit.filters import (
    BUILD_HELP,
    add_command,
    add_exhaustive,
    add_filters,
    add_kind,
    add_limit,
    add_times,
    directory_of,
    naming_index,
    query_of,
    say_unproved,
    since_seconds,
    utc_now,
)
from hpcc.cli.base.terminal import emit
from hpcc.config.paths import Paths
from hpcc.core import CallerError, IntegrityError
from hpcc.obs.text import plain

if TYPE_CHECKING:
    from hpcc.audit.base.canonical import Record
    from hpcc.audit.base.query import Query
    from hpcc.worker.base.config import WorkerConfig


def register(subparsers: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    """Add `audit` and its commands, `attest` and `verify-evidence`."""
    audit = subparsers.add_parser("audit", help="show the record of remote compiles")
    commands = audit.add_subparsers(title="commands", metavar="COMMAND", required=True)

    listing = add_command(commands, "list", "list the newest rows, one line each", _run_query)
    add_limit(listing, 20)
    listing.add_argument("--build", dest="build_id", default="", metavar="ID", help=BUILD_HELP)
    add_kind(listing)
    add_times(listing)

    query = add_command(commands, "query", "list rows or events that match all filters", _run_query)
    add_limit(query, 100)
    add_filters(query)
    farm_query.register(query)
    query.add_argument("--format", choices=("table", "tsv", "jsonl"), default="table")

    show = add_command(commands, "show", "print every field of one row", _run_show)
    show.add_argument("row", metavar="ROW", help="row id, or the start of one")
    for reading in (listing, query, show):
        add_exhaustive(reading)

    again = "run a row's action again in a guest, and compare the outputs"
    reproduce = add_command(commands, "reproduce", again, _audit_reproduce.run)
    _audit_reproduce.register(reproduce)

    files = "list the files that a row's compile had, or compare them with a checkout"
    _sources.register(add_command(commands, "sources", files))

    export = add_command(
        commands, "export", "export all rows, oldest first, for other programs", _run_export
    )
    export.add_argument("--format", choices=("tsv", "jsonl", "parquet"), default="jsonl")
    export.add_argument(
        "--output", type=Path, metavar="FILE", help="the file to write, needed for parquet"
    )
    add_filters(export)
    add_exhaustive(export)

    differing = "list actions whose executions gave different outputs, and in which sections"
    determinism = add_command(commands, "determinism", differing, _run_determinism)
    add_limit(determinism, 20)
    determinism.add_argument(
        "--config",
        type=Path,
        metavar="FILE",
        help="config file of the worker whose trail and objects are read (default: `hpcc up`'s)",
    )
    add_times(determinism)

    checks.register(commands)
    hold.register(commands)
    evidence.register_coverage(commands)
    evidence.register(subparsers)


@naming_index
def _run_query(args: argparse.Namespace) -> int:
    from hpcc.audit.lookup.reader import TrailReader

    # One more than is shown, to know whether there are more.
    query = query_of(args, args.limit + 1)
    if getattr(args, "database", ""):
        return _farm_query(args)
    reader = TrailReader(directory_of(args), is_exhaustive=args.exhaustive)
    found = list(reader.find(query))
    records = found[: args.limit]
    _emit_records(records, query, getattr(args, "format", "table"))
    if len(found) > args.limit:
        emit(f"… and more; use -n to show more than {args.limit}", file=sys.stderr)
    say_unproved(reader.unproved)
    return 0


def _farm_query(args: argparse.Namespace) -> int:
    from hpcc.audit.lookup.sealed import IndexChangedError

    query = query_of(args, args.limit)
    try:
        found = farm_query.farm_rows(args, query)
    except IntegrityError as error:
        if isinstance(error, IndexChangedError):
            raise
        emit(f"hpcc: {plain(error)}", file=sys.stderr)
        return farm_query.EXIT_DAMAGED
    _emit_records(found.records, query, args.format)
    if found.has_more:
        emit(f"… and more; use -n to show more than {args.limit}", file=sys.stderr)
    say_unproved(found.unproved)
    return farm_query.say_rest(found)


def _emit_records(records: list[Record], query: Query, form: str) -> None:
    from hpcc.audit.base.canonical import event_of, row_of
    from hpcc.cli.audit import text

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


@naming_index
def _run_show(args: argparse.Namespace) -> int:
    from hpcc.audit.base.canonical import row_of
    from hpcc.audit.lookup.reader import TrailReader
    from hpcc.cli.audit.text import TSV_FIELDS, printable, time_text

    reader = TrailReader(directory_of(args), is_exhaustive=args.exhaustive)
    record = reader.row(args.row)
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
    emit(f"{'signature:':<22}{record.signature.hex() or 'unsigned row (format 1)'}")
    say_unproved(reader.unproved)
    return 0


@naming_index
def _run_export(args: argparse.Namespace) -> int:
    from hpcc.audit.base.canonical import row_of
    from hpcc.audit.lookup.reader import TrailReader
    from hpcc.cli.audit import text

    query = query_of(args, 1 << 62)
    if query.kind == "event" and args.format != "jsonl":
        raise CallerError("security events have no fixed columns: use --format jsonl")
    if (args.format == "parquet") != (args.output is not None):
        raise CallerError("--format parquet needs --output FILE; the other formats write to stdout")
    reader = TrailReader(directory_of(args), is_exhaustive=args.exhaustive)
    records = reader.find(query, oldest_first=True)
    if args.format == "parquet":
        from hpcc.cli.audit.parquet import write_parquet

        count = write_parquet(args.output, records)
        emit(f"{count} rows in {args.output}")
        say_unproved(reader.unproved)
        return 0
    lines = text.jsonl(records) if args.format == "jsonl" else text.tsv(row_of(r) for r in records)
    for line in lines:
        sys.stdout.write(line + "\n")
    say_unproved(reader.unproved)
    return 0


def _run_determinism(args: argparse.Namespace) -> int:
    from hpcc.audit.base.canonical import event_of, row_of
    from hpcc.audit.base.query import Query
    from hpcc.audit.lookup.reader import TrailReader
    from hpcc.cli.audit.determinism import DISAGREEMENT, EXECUTIONS, show, show_suspects
    from hpcc.cli.audit.differing import HeldOutputs

    config, now = _worker_or_none(args), utc_now()
    directory = config.audit if config and args.directory is None else directory_of(args)
    rows = Query(
        kind="row",
        since=since_seconds(args.since, now),
        until=since_seconds(args.until, now, "--until") if args.until else None,
        limit=1 << 62,
    )
    events = replace(rows, kind="event", name=DISAGREEMENT)
    reader = TrailReader(directory)
    found = [reader.find(replace(rows, cache_status=s), oldest_first=True) for s in EXECUTIONS]
    held = HeldOutputs(config.store) if config else None
    show(map(row_of, chain(*found)), args.limit, held)
    show_suspects(map(event_of, reader.find(events, oldest_first=True)), args.limit)
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
