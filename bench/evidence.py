"""What evidence costs, in docs/performance.md: a row, `verify`, queries, evidence files.

Prints a table. CPU is that of the process, so a loaded machine makes figures only a little larger.
A figure that misses its goal ends nothing.

  evidence.py --rows 1000000          a trail of a million rows is made first: ten minutes
  evidence.py --quick                 some thousand rows: does everything work?
"""

from __future__ import annotations

import argparse
import asyncio
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from itertools import batched, chain
from pathlib import Path

from _audit_rows import WORKER, Rows
from _farm_rows import Figure
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from hpcc.audit.base.query import Query
from hpcc.audit.base.segments import seals
from hpcc.audit.log import SpoolAuditLog, open_audit_log
from hpcc.audit.lookup.reader import TrailReader
from hpcc.audit.roots import check_roots
from hpcc.audit.signer.process import SignerProcess
from hpcc.audit.verify import verify_trail
from hpcc.evidence.making import read_subject
from hpcc.evidence.verify import verify_evidence
from hpcc.ports import AuditRow, SystemClock
from hpcc_testkit.evidence.made import digest_of, library, made_evidence, pinned

KEY = Ed25519PrivateKey.from_private_bytes(bytes(range(32)))
_GROUP = 250
_FOUND = 100


@dataclass(slots=True)
class Spent:
    """CPU seconds of the process."""

    seconds: float = 0.0


@contextmanager
def cpu() -> Iterator[Spent]:
    """Measure the block."""
    spent, begin = Spent(), time.process_time()
    yield spent
    spent.seconds = time.process_time() - begin


async def make(directory: Path, rows: Iterator[AuditRow], *, at_once: int) -> tuple[float, float]:
    """Write a trail and pack it; return the CPU of all rows, and that of packing."""
    async with open_audit_log(directory, worker=WORKER, key=KEY, clock=SystemClock()) as log:
        with cpu() as writing:
            await write(log, rows, at_once)
            await log.seal()
        with cpu() as packing:
            await log.pack_old()
    return writing.seconds, packing.seconds


async def write(log: SpoolAuditLog, rows: Iterator[AuditRow], at_once: int) -> None:
    """Append rows, so many at a time."""
    for group in batched(rows, at_once, strict=False):
        if len(group) == 1:
            await log.append(group[0])
        else:
            await asyncio.gather(*map(log.append, group))


def sizes(directory: Path, count: int) -> tuple[float, float, float]:
    """Return the bytes of a row: in its segment with the seal, in its index, in the tree."""
    parts = [0, 0, 0]
    for path in directory.iterdir():
        kind = {".hpcc": 0, ".seal": 0, ".idx": 1}.get(path.suffix)
        kind = 2 if path.name.startswith("tree") else kind
        if kind is not None and path.name != "spool.hpcc":
            parts[kind] += path.stat().st_size
    return parts[0] / count, parts[1] / count, parts[2] / count


def size_figures(base: Path, count: int) -> Iterator[Figure]:
    """Measure rows of several builds."""
    for what, hits, depfiles in (
        ("each row an execution, one output", 0.0, False),
        ("half of the rows hits, one output", 0.5, False),
        ("80 % of the rows hits, one output", 0.8, False),
        ("each row an execution, object and depfile", 0.0, True),
        ("half of the rows hits, object and depfile", 0.5, True),
    ):
        directory = base / f"sizes-{hits}-{depfiles}"
        rows = Rows(7, hits=hits, depfiles=depfiles).some(count)
        asyncio.run(make(directory, rows, at_once=_GROUP))
        row, index, tree = sizes(directory, count)
        yield Figure(f"sealed row: {what}", row, "bytes", 200)
        yield Figure("the same with its index", row + index, "bytes", 550)
        yield Figure("beside: its leaf", tree, "bytes")


async def row_costs(
    directory: Path, rows: list[AuditRow], at_once: int, key: Ed25519PrivateKey | Path = KEY
) -> list[float]:
    """Return the CPU of a row in milliseconds, for each twentieth of the rows, the least first.

    That of the signer's process is in it, if `key` is a path.
    """
    found = []
    async with open_audit_log(directory, worker=WORKER, key=key, clock=SystemClock()) as log:
        pid = log.signer.pid if isinstance(log.signer, SignerProcess) else 0
        for group in batched(rows, max(len(rows) // 20, 1), strict=False):
            begin = cpu_of(pid)
            with cpu() as spent:
                await write(log, iter(group), at_once)
            found.append((spent.seconds + cpu_of(pid) - begin) / len(group) * 1e3)
    return sorted(found)


def cpu_of(pid: int) -> float:
    """Return the CPU seconds of another process, as clock_getcpuclockid(3) names its clock."""
    return time.clock_gettime((~pid << 3) | 2) if pid else 0.0


def row_figures(base: Path, count: int) -> Iterator[Figure]:
    """Measure the CPU of a row, and of its part of packing."""
    rows = list(Rows(5).some(count))
    for what, at_once, has_signer in (
        ("one writer", 1, False), (f"{_GROUP} writers", _GROUP, False),
        ("one writer, with the signer", 1, True), (f"{_GROUP} writers, with it", _GROUP, True),
    ):  # fmt: skip
        directory = base / f"rows-{at_once}-{has_signer}"
        key = directory / "keys" / "audit-signing.key" if has_signer else KEY
        costs = asyncio.run(row_costs(directory / "trail", rows, at_once, key))
        yield Figure(f"a row, {what}: median", costs[len(costs) // 2], "ms of CPU", 0.25)
        yield Figure("the same, the quickest twentieth of the rows", costs[0], "ms of CPU")
    _, packing = asyncio.run(make(base / "packing", iter(rows), at_once=_GROUP))
    yield Figure("beside, in the background: packed", packing / count * 1e3, "ms of CPU")


def evidence_figure(base: Path, count: int) -> Figure:
    """Measure the check of an evidence file about a library."""
    members = {f"unit_{n}.o": b"object %d" % n for n in range(count)}
    file = base / "lib.a"
    file.write_bytes(library(members))
    outputs = [((name, digest_of(data)),) for name, data in members.items()]
    plain = Rows(9, hits=0.0).some(count)
    rows = (replace(row, outputs=out) for row, out in zip(plain, outputs, strict=True))
    asyncio.run(make(base / "evidence", rows, at_once=_GROUP))
    made, subject = made_evidence(file, [base / "evidence"]), read_subject(file)
    with cpu() as spent:
        verified = verify_evidence(made.data, subject, pinned())
    assert len(verified.evidence.rows) == count
    what = f"evidence file of {count} objects: verify ({verified.signatures} signatures)"
    return Figure(what, spent.seconds, "s of CPU", 0.2)


def reading_figures(directory: Path, count: int) -> Iterator[Figure]:
    """Measure commands on a trail."""
    with cpu() as spent:
        checked = check_roots(directory)
    assert checked.leaves >= count
    yield Figure("verify --roots", count / spent.seconds, "rows/s", 100_000, is_least=True)
    everything = {"since": -1e9, "limit": _FOUND}
    found = next(iter(TrailReader(directory).find(Query(since=-1e9, limit=1)))).body
    for what, query in (
        ("the newest 100", Query(**everything)),
        ("100 of one build", Query(build_id=str(found["build_id"]), **everything)),
        ("100 of one guest", Query(guest_id=str(found["guest_id"]), **everything)),
        ("100 in 100 blocks, of a million rows", Query(exit_code=1, **everything)),
        ("100 that begin with two digits", Query(action_digest="7a", **everything)),
    ):
        with cpu() as spent:
            rows = list(TrailReader(directory).find(query))
        yield Figure(f"query: {what} ({len(rows)} proved)", spent.seconds, "s of CPU", 0.5)


def verify_figure(base: Path, count: int) -> Figure:
    """Measure `verify` with every signature."""
    directory = base / "verify"
    asyncio.run(make(directory, Rows(3).some(count), at_once=_GROUP))
    with cpu() as spent:
        verified = verify_trail(directory)
    assert verified.signed >= count
    return Figure("verify, each signature", count / spent.seconds, "rows/s", 7000, is_least=True)


def main() -> int:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0] if __doc__ else None)
    parser.add_argument("--quick", action="store_true")
    parser.add_argument("--rows", type=int, default=1_000_000, help="of the trail for the queries")
    parser.add_argument("--trail", type=Path, help="where that trail is kept or was made before")
    args = parser.parse_args()
    small, large = (2000, 4000) if args.quick else (20_000, args.rows)
    with tempfile.TemporaryDirectory() as name:
        base = Path(name)
        trail = args.trail or base / "large"
        if not trail.exists():
            asyncio.run(make(trail, Rows(1).some(large), at_once=_GROUP))
        count = max(seal.end for seal in seals(trail))
        for figure in chain(
            size_figures(base, small), row_figures(base, small // 4), [verify_figure(base, small)],
            [evidence_figure(base, 100 if args.quick else 500)], reading_figures(trail, count),
        ):  # fmt: skip
            print(figure.line(), flush=True)
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
