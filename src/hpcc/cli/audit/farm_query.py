"""`hpcc audit query --database`: rows of all workers, found in PostgreSQL, proved in their trails.

The database only finds. A row is printed after it was read from its worker's trail and checked as
every row is, and if its hash is the one that the database has. At the end the command says what
that rests on: how much of each trail the database has.
"""

from __future__ import annotations

import argparse
import asyncio
import math
import sys
from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Final

from hpcc.cli.base.terminal import emit
from hpcc.core import CallerError, IntegrityError
from hpcc.obs.text import one_line

if TYPE_CHECKING:
    from hpcc.audit.base.canonical import Record
    from hpcc.audit.base.query import Query
    from hpcc.audit.lookup.reader import TrailReader
    from hpcc.control.database import DatabaseConfig
    from hpcc.scheduler.audit.finding import FoundRow, WorkerRecords

EXIT_MISSING: Final = 4
EXIT_DAMAGED: Final = 5
# So many workers are named whose rows are not shown.
_SHOWN: Final = 10
_ALL_TIMES: Final = -float(1 << 63)


def register(parser: argparse.ArgumentParser) -> None:
    """Add the options of a farm-wide query."""
    parser.add_argument(
        "--database", metavar="URL", default="",
        help="find rows of all workers in the scheduler's audit database; each is proved in its"
        " worker's trail",
    )  # fmt: skip
    parser.add_argument(
        "--database-password-file", type=Path, metavar="FILE", help="with --database, mode 0600"
    )
    parser.add_argument(
        "--trail", type=Path, action="append", default=[], metavar="DIR",
        help="with --database: a worker's trail, or a copy; give each worker's",
    )  # fmt: skip


@dataclass(slots=True)
class FarmRows:
    """Rows that were proved, and what is known of the others.

    `untold` counts matching rows by worker of which no trail was given; `retired` are rows that
    their trail does not have any more. `rests_on` are lines about each worker, and `is_complete`
    is false if the database lacks rows, or it is not known whether it does.
    """

    records: list[Record] = field(default_factory=list)
    has_more: bool = False
    untold: Counter[str] = field(default_factory=Counter)
    retired: list[FoundRow] = field(default_factory=list)
    unproved: int = 0
    rests_on: list[str] = field(default_factory=list)
    is_complete: bool = True


def farm_rows(args: argparse.Namespace, query: Query) -> FarmRows:
    """Find and prove rows, at most `query.limit`.

    Raises:
        IntegrityError: the database and a trail contradict each other, or a trail was changed.
        InfrastructureError: the database does not answer.
        CallerError: an option does not go with a database.
    """
    from hpcc.control.database import read_database_config

    if query.kind != "row":
        raise CallerError("--database finds rows: security events are in `hpcc audit query` of one")
    if args.directory is not None or args.scheduler_state is not None:
        raise CallerError("--database goes with --trail, not with the directory of one trail")
    if not args.trail:
        raise CallerError("--database only finds: name each worker's trail with --trail DIR")
    trails = _trails(args.trail, is_exhaustive=args.exhaustive)
    password = str(args.database_password_file) if args.database_password_file else ""
    config = read_database_config(args.database, password)
    return asyncio.run(_farm_rows(config, query, trails))


def _trails(directories: Iterable[Path], *, is_exhaustive: bool) -> dict[str, TrailReader]:
    from hpcc.audit.lookup.reader import TrailReader

    trails: dict[str, TrailReader] = {}
    for directory in directories:
        reader = TrailReader(directory, is_exhaustive=is_exhaustive)
        newest = _newest(reader)
        if newest is None:
            continue
        if newest.worker in trails:
            raise CallerError(f"two of the trails are of worker {newest.worker}: give each once")
        trails[newest.worker] = reader
    return trails


def _newest(reader: TrailReader) -> Record | None:
    """Return the last record of a trail; None if it has none."""
    from hpcc.audit.base.query import Query

    ends = [
        record
        for kind in ("row", "event")
        for record in reader.find(Query(kind=kind, since=_ALL_TIMES, limit=1))
    ]
    return max(ends, key=lambda record: record.sequence, default=None)


async def _farm_rows(
    config: DatabaseConfig, query: Query, trails: dict[str, TrailReader]
) -> FarmRows:
    from hpcc.audit.base.query import matches
    from hpcc.scheduler.audit.finding import open_finder

    found = FarmRows()
    async with open_finder(config) as finder:
        async for row in finder.rows(query):
            reader = trails.get(row.worker)
            if reader is None:
                found.untold[row.worker] += 1
                continue
            # The trails are local files, and this process does nothing else meanwhile.
            record = _proved(reader, row)
            if record is None:
                found.retired.append(row)
            elif matches(record, query):
                if len(found.records) == query.limit:
                    found.has_more = True
                    break
                found.records.append(record)
        known = await finder.workers()
    _rest(found, known, trails)
    for worker, reader in sorted(trails.items()):
        omitted = _omitted(found, query, reader)
        if omitted:
            found.is_complete = False
            found.rests_on.append(
                f"{one_line(worker)}: {omitted} matching rows of its trail are MISSING in the"
                " database: read them with --directory"
            )
    found.unproved = sum(reader.unproved for reader in trails.values())
    return found


def _omitted(found: FarmRows, query: Query, reader: TrailReader) -> int:
    """Return how many matching rows of a trail the database did not name.

    If it named more than were asked for, only the rows that are newer than the last count.
    """
    from hpcc.audit.base.canonical import row_of

    known = {record.hash for record in found.records}
    since = query.since
    if found.has_more:
        times = [row_of(record).started_at for record in found.records]
        since = math.nextafter(min(times), math.inf)
    whole = replace(query, since=since, limit=1 << 62)
    return sum(record.hash not in known for record in reader.find(whole))


def _proved(reader: TrailReader, row: FoundRow) -> Record | None:
    """Return the row as its worker's trail has it, proved; None if retention removed it.

    Raises:
        IntegrityError: the trail has another row, or none, under this number.
    """
    from hpcc.audit.base.query import Query

    # A column has the time in microseconds, and one that was out of range is not usable.
    near = Query(row_id=row.row_id, since=row.at - 1, until=row.at + 1, limit=2)
    anywhere = replace(near, since=_ALL_TIMES, until=None)
    record = next(
        (
            record
            for query in (near, anywhere)
            for record in reader.find(query)
            if record.sequence == row.sequence
        ),
        None,
    )
    if record is None:
        newest = _newest(reader)
        if newest is not None and _begins_after(reader, row.sequence):
            return None
        raise IntegrityError(
            f"the database has row {one_line(row.row_id[:80])} as record {row.sequence} of"
            f" {one_line(row.worker)}, and its trail does not have it: the database was changed, or"
            " the copy of the trail is older",
            reason="audit-damaged",
        )
    if record.hash != row.hash or record.worker != row.worker:
        raise IntegrityError(
            f"record {row.sequence} of {one_line(row.worker)} is another one in the database than"
            " in the worker's trail: the database was changed",
            reason="audit-damaged",
        )
    return record


def _begins_after(reader: TrailReader, sequence: int) -> bool:
    """Return whether retention removed the record with this number from a trail."""
    from hpcc.audit.base.query import Query

    begins = [
        record.sequence
        for kind in ("row", "event")
        for record in reader.find(Query(kind=kind, since=_ALL_TIMES, limit=1), oldest_first=True)
    ]
    return bool(begins) and sequence < min(begins)


def _rest(
    found: FarmRows, known: list[WorkerRecords] | None, trails: dict[str, TrailReader]
) -> None:
    """Say how much of each trail the database has."""
    if known is None:
        found.is_complete = False
        found.rests_on.append(
            "this role sees rows of its tenants only, so rows that the database lacks cannot be"
            " counted: ask as hpcc_audit_auditor"
        )
        return
    counts = {one.worker: one for one in known}
    for worker, reader in sorted(trails.items()):
        newest = _newest(reader)
        assert newest is not None  # of `_trails`
        one, end = counts.get(worker), newest.sequence + 1
        if one is None:
            found.is_complete = False
            found.rests_on.append(
                f"{one_line(worker)}: the database has no record, its trail {end}"
            )
            continue
        missing, behind = one.last - one.first + 1 - one.count, end - one.last - 1
        words = f"{one_line(worker)}: complete from record {one.first} to {one.last}"
        if missing > 0:
            words = f"{one_line(worker)}: {missing} records are MISSING in the database"
        if behind > 0:
            words += f"; its trail has {behind} later ones"
        found.is_complete = found.is_complete and missing <= 0 and behind <= 0
        found.rests_on.append(words)
    for worker in sorted(set(counts) - set(trails)):
        found.rests_on.append(f"{one_line(worker)}: not proved, since no --trail is of it")


def say_rest(found: FarmRows) -> int:
    """Say on stderr what the answer rests on; return the exit status."""
    for line in found.rests_on:
        emit(f"hpcc: {line}", file=sys.stderr)
    for worker, count in sorted(found.untold.items())[:_SHOWN]:
        emit(
            f"hpcc: {count} rows of {one_line(worker)} are not shown: give its trail",
            file=sys.stderr,
        )
    if found.retired:
        emit(
            f"hpcc: {len(found.retired)} rows are not shown: their trail does not have them any"
            " more, since retention removed them",
            file=sys.stderr,
        )
    is_whole = found.is_complete and not found.untold and not found.retired
    return 0 if is_whole else EXIT_MISSING
