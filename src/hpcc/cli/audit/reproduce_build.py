"""`hpcc audit reproduce --build`: runs the rows of a build again, and signs the result."""

from __future__ import annotations

import argparse
import asyncio
from collections import Counter
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import TYPE_CHECKING, Final

from hpcc.cli.audit.maker_key import signer_of
from hpcc.cli.base.terminal import emit
from hpcc.core import CallerError, HpccError, IntegrityError, NotFoundError
from hpcc.obs.text import one_line

if TYPE_CHECKING:
    from hpcc.audit.base.canonical import Record
    from hpcc.evidence.reproduction import TriedBuild, TriedRow
    from hpcc.ports import AuditRow
    from hpcc.worker.execute.reproduce import Reproduction

_MAX_ROWS: Final = 32_768
_SHOWN: Final = 20
_PERCENT: Final = 100.0
_OUTPUT: Final = Path("reproduction.dsse.json")

Again = Callable[["AuditRow"], Awaitable["Reproduction"]]


def register(parser: argparse.ArgumentParser) -> None:
    """Add the options that go with `--build`."""
    parser.add_argument(
        "--sample", type=_percent, default=_PERCENT, metavar="PERCENT",
        help="with --build: run only so many of its rows, which their hashes choose",
    )  # fmt: skip
    parser.add_argument(
        "--max-minutes", type=_minutes, default=None, metavar="N",
        help="with --build: begin no row after this time",
    )  # fmt: skip
    parser.add_argument(
        "--key", type=Path, metavar="FILE",
        help="with --build: PEM of the Ed25519 key that signs (default: that of `hpcc attest`)",
    )  # fmt: skip
    parser.add_argument(
        "--output", type=Path, default=_OUTPUT, metavar="FILE",
        help=f"with --build: the signed result (default: {_OUTPUT})",
    )  # fmt: skip


def _percent(text: str) -> float:
    try:
        value = float(text.removesuffix("%"))
    except ValueError:
        value = 0.0
    if not 0 < value <= _PERCENT:
        raise argparse.ArgumentTypeError("must be above 0 and at most 100")
    return value


def _minutes(text: str) -> int:
    value = int(text) if text.isdecimal() and len(text) < 6 else 0  # noqa: PLR2004 - two months
    if not value:
        raise argparse.ArgumentTypeError("must be a number of minutes above 0")
    return value


def run_build(args: argparse.Namespace, trail: Path, again: Again) -> int:
    """Run the rows of a build again, write the signed statement, and return the exit status."""
    from hpcc.audit.base.query import Query
    from hpcc.audit.lookup.reader import TrailReader
    from hpcc.evidence.forms.dsse import seal_statement
    from hpcc.evidence.keys import key_id_of
    from hpcc.evidence.reproduction import (
        TriedBuild,
        candidates_of,
        reproduction_statement,
        sample_of,
    )
    from hpcc.evidence.statement import time_text
    from hpcc.files.whole import Sync, write_whole
    from hpcc.ports import SystemClock

    query = Query(build_id=args.build, since=-float(1 << 63), limit=1 << 62)
    reader = TrailReader(trail)
    records = list(reader.find(query, oldest_first=True))
    candidates, others = candidates_of(records)
    if not candidates:
        raise NotFoundError(
            f"no row of build {args.build!r} in {trail} has outputs: see `hpcc audit query --build`"
        )
    if len(candidates) > _MAX_ROWS:
        raise CallerError(f"{len(candidates)} rows are more than one result may have: use --sample")
    signer = signer_of(args.key)  # before hours of work
    chosen = sample_of(candidates, args.sample)
    for record in chosen:
        reader.require_signature(record)  # the statement says that it is signed
    seconds = None if args.max_minutes is None else args.max_minutes * 60.0
    clock = SystemClock()
    until = None if seconds is None else clock.monotonic() + seconds
    rows = asyncio.run(_tried(chosen, again, lambda: until is None or clock.monotonic() < until))
    tried = TriedBuild(
        build=args.build, rows=tuple(rows), candidates=len(candidates), others=others,
        at=time_text(clock.now()),
    )  # fmt: skip
    statement = reproduction_statement(tried)
    envelope = seal_statement(statement, key_id_of(signer.public), signer.sign)
    write_whole(args.output, envelope + b"\n", sync=Sync.CONTENT, mode=0o644)
    return _say(tried, args.output)


async def _tried(
    chosen: list[Record], again: Again, has_time: Callable[[], bool]
) -> list[TriedRow]:
    found: list[TriedRow] = []
    for number, record in enumerate(chosen, 1):
        found.append(await _try_one(record, again, is_late=not has_time()))
        emit(f"{number}/{len(chosen)}  {found[-1].row.row_id[:12]}  {found[-1].verdict}")
    return found


async def _try_one(record: Record, again: Again, *, is_late: bool) -> TriedRow:
    """Run one row again. A failure is this row's, and the others go on."""
    from hpcc.audit.base.canonical import row_of
    from hpcc.evidence.reproduction import DAMAGED, NOT_TRIED, TriedRow

    if is_late:
        finding = ("time", "the limit of --max-minutes was reached")
        return TriedRow(record=record, verdict=NOT_TRIED, findings=(finding,))
    if not record.signature:
        finding = ("row", "it has no signature (format 1), so its outputs are not proved")
        return TriedRow(record=record, verdict=NOT_TRIED, findings=(finding,))
    try:
        result = await again(row_of(record))
    except IntegrityError as error:
        return TriedRow(record=record, verdict=DAMAGED, findings=((error.reason, str(error)),))
    except HpccError as error:
        return TriedRow(record=record, verdict=NOT_TRIED, findings=((error.reason, str(error)),))
    return TriedRow(
        record=record, verdict=result.verdict.value, made=result.made, boundary=result.boundary,
        findings=tuple((f.name, f.text) for f in result.findings),
        notes=tuple((n.name, n.text) for n in result.notes),
    )  # fmt: skip


def _say(tried: TriedBuild, output: Path) -> int:
    from hpcc.cli.audit.reproduce import EXIT_DIFFERENT, EXIT_EXPIRED, EXIT_UNAVAILABLE

    objects = [len(t.row.outputs) for t in tried.rows]
    same = sum(len(t.same) for t in tried.rows)
    boundaries = Counter(str(t.boundary.isolation) for t in tried.rows if t.boundary)
    others = [t for t in tried.rows if t.verdict != "reproduced"]
    for row in others[:_SHOWN]:
        names = ", ".join(path for path, _ in row.row.outputs if path not in row.same)
        why = "; ".join(f"{name}: {text}" for name, text in row.findings[:3])
        emit(f"{row.verdict}: {one_line(names)}: {one_line(why)}")
    if len(others) > _SHOWN:
        emit(f"… and {len(others) - _SHOWN} more rows")
    places = ", ".join(f"{count} under {label}" for label, count in sorted(boundaries.items()))
    emit(
        f"build {one_line(tried.build)}: {same} of {sum(objects)} objects of {len(tried.rows)} rows"
        f" were made again byte for byte ({places or 'none ran'});"
        f" {tried.candidates - len(tried.rows)} rows were not chosen"
    )
    emit(f"{tried.result}: the signed result is in {one_line(output)}")
    verdicts = tried.verdicts
    if tried.result == "FAILED":
        return EXIT_DIFFERENT
    if verdicts["expired"]:
        return EXIT_EXPIRED
    return EXIT_UNAVAILABLE if tried.result == "WARNED" else 0
