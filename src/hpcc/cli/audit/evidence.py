"""`hpcc attest`, `hpcc verify-evidence` and `hpcc audit coverage`: what a binary consists of.

Exit statuses: 0 proved, 3 checked and not proved, 4 evidence is missing, 5 evidence is damaged,
1 the command was called wrongly.
"""

from __future__ import annotations

import argparse
import functools
import os
import sys
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Final

from hpcc.cli.audit.maker_key import content_of, signer_of
from hpcc.cli.base.terminal import emit
from hpcc.config.paths import Paths
from hpcc.core import CallerError, IntegrityError, NotFoundError
from hpcc.obs.text import one_line, plain

if TYPE_CHECKING:
    from hpcc.evidence.collect import ReadTrail
    from hpcc.evidence.heads import HeldCheckpoint
    from hpcc.evidence.local_record import LocalCompile
    from hpcc.evidence.making import LinkClaim
    from hpcc.evidence.model import Making

EXIT_PROVED: Final = 0
EXIT_USAGE: Final = 1
EXIT_NOT_PROVED: Final = 3
EXIT_MISSING: Final = 4
EXIT_DAMAGED: Final = 5
# So many are named in a message.
_MOST_TENANTS: Final = 8


def register(subparsers: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    """Add `attest` and `verify-evidence`."""
    attest = subparsers.add_parser(
        "attest",
        help="write a file that proves where the objects of a binary came from",
        description=_attest.__doc__,
    )
    attest.add_argument("file", metavar="FILE", type=Path, help="a binary, library or object")
    attest.add_argument(
        "-o", "--output", type=Path, metavar="FILE.zip", help="default: FILE.evidence.zip"
    )
    attest.add_argument(
        "--key",
        type=Path,
        metavar="FILE",
        help="PEM of the Ed25519 key that signs (default: one of this user, made at the first use)",
    )
    attest.add_argument(
        "--tenant",
        metavar="NAME",
        help="write rows of this tenant only (needed where trails hold fitting rows of several)",
    )
    _add_trails(attest)
    _add_policy(attest)
    attest.set_defaults(handler=with_statuses(_attest))
    verify = subparsers.add_parser(
        "verify-evidence",
        help="check such a file, offline, with a key that you pinned",
        description=_verify.__doc__,
    )
    verify.add_argument("evidence", metavar="EVIDENCE", type=Path, help="what `hpcc attest` wrote")
    verify.add_argument("file", metavar="FILE", type=Path, help="the file that it is about")
    verify.add_argument(
        "--key",
        type=Path,
        metavar="PINNED",
        required=True,
        help="the maker's public key in PEM, or lines of keys, also of workers, as in keys.txt",
    )
    _add_policy(verify)
    verify.set_defaults(handler=with_statuses(_verify))


def register_coverage(commands: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    """Add `audit coverage`."""
    coverage = commands.add_parser(
        "coverage",
        help="show which objects of a binary, or of a build's links, came out of guests",
        description=_coverage.__doc__,
    )
    what = coverage.add_mutually_exclusive_group(required=True)
    what.add_argument(
        "target", metavar="BUILD|FILE", nargs="?", help="a binary or library, or else a build"
    )
    what.add_argument("--build", metavar="BUILD", help="a build's name, as `hpcc builds` lists it")
    _add_trails(coverage)
    _add_policy(coverage)
    coverage.set_defaults(handler=with_statuses(_coverage))


def _add_trails(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--trail",
        type=Path,
        action="append",
        metavar="DIR",
        help="a worker's audit trail, or a copy; give each worker's (default: that of `hpcc up`)",
    )
    parser.add_argument(
        "--heads", type=Path, metavar="FILE",
        help="heads that a scheduler holds: what `hpcc scheduler audit-history --json` prints",
    )  # fmt: skip


def _add_policy(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--require",
        choices=("guest",),
        default="guest",
        help="what each object must have come out of (the only choice and default: guest)",
    )
    parser.add_argument(
        "--isolation",
        action="append",
        default=[],
        metavar="LABEL",
        help="count only guests of this isolation (default: each with a separate kernel)",
    )


def with_statuses(
    run: Callable[[argparse.Namespace], int],
) -> Callable[[argparse.Namespace], int]:
    """Return a handler that ends with the statuses of evidence."""

    @functools.wraps(run)
    def handler(args: argparse.Namespace) -> int:
        try:
            return run(args)
        except (IntegrityError, NotFoundError, CallerError) as error:
            sys.stdout.flush()
            emit(f"hpcc: {plain(error)}", file=sys.stderr)
            if isinstance(error, IntegrityError):
                return EXIT_DAMAGED
            return EXIT_MISSING if isinstance(error, NotFoundError) else EXIT_USAGE

    return handler


def _attest(args: argparse.Namespace) -> int:
    """Find the signed row of each object, and write rows, proofs and statements into one file.

    Objects without a row are named in it, and the exit status is 3. Links are known if `links` is
    on in the section [cache] of hpcc.toml.
    """
    from hpcc.evidence.bundle import EvidenceContent, seal_evidence
    from hpcc.evidence.collect import proved_rows, read_trails, signed_trees
    from hpcc.evidence.forms.container import pack_files
    from hpcc.evidence.making import making_of, read_subject
    from hpcc.evidence.model import policy_of
    from hpcc.evidence.packages import packages_of
    from hpcc.evidence.proof import is_of_maker
    from hpcc.evidence.statement import time_text
    from hpcc.files.whole import Sync, write_whole
    from hpcc.ports import SystemClock

    policy = policy_of(args.isolation)
    making = making_of(read_subject(args.file), _links(), packages_of)
    trails = read_trails(_directories(args), [making], policy, args.tenant, _held(args))
    tenants = sorted(set[str]().union(*(trail.tenants for trail in trails)))
    if len(tenants) > 1:
        # A row shows a command, a directory and a person, and the file goes to strangers.
        names = one_line(", ".join(tenants[:_MOST_TENANTS]))
        raise CallerError(f"the rows are of several tenants: choose one with --tenant ({names})")
    rows, now = proved_rows(trails, making, policy), SystemClock().now()
    signer = signer_of(args.key)
    evidence = EvidenceContent(
        making=making, rows=rows, policy=policy, maker=signer.public,
        trees=signed_trees(trails, rows, signer.public, signer.sign, now), at=time_text(now),
    )  # fmt: skip
    status = _show(making, evidence.coverage(), trails, _local_compiles())
    if status == EXIT_MISSING:
        return status
    output: Path = args.output or args.file.with_name(f"{args.file.name}.evidence.zip")
    try:
        data = pack_files(seal_evidence(evidence, signer.sign))
    except ValueError as error:
        raise CallerError(f"{args.file}: {error}") from error
    write_whole(output, data, sync=Sync.CONTENT, mode=0o644)
    emit(
        f"{one_line(output)}: {len(rows)} rows of {len(evidence.trees)} workers, {len(data)} bytes;"
        f" check it with `hpcc verify-evidence … --key {one_line(signer.public_file)}`"
    )
    for tree in evidence.trees:
        if is_of_maker(tree.checkpoint):
            name = one_line(tree.worker)
            emit(f"  the head of {name} is yours; --heads FILE gives one that it signed")
    return status


def _verify(args: argparse.Namespace) -> int:
    """Check an evidence file against a file and pinned keys. No network is used.

    Everything in it is made again from the rows that workers signed, and compared.
    """
    from hpcc.cli.audit.evidence_text import coverage_lines, verdict_line
    from hpcc.evidence.forms.container import MAX_FILE_BYTES
    from hpcc.evidence.keys import MAX_KEYS_BYTES, parse_pinned
    from hpcc.evidence.making import read_subject
    from hpcc.evidence.model import policy_of
    from hpcc.evidence.verify import verify_evidence

    pinned = parse_pinned(content_of(args.key, MAX_KEYS_BYTES), str(args.key))
    policy = policy_of(args.isolation) if args.isolation else None
    data = content_of(args.evidence, MAX_FILE_BYTES)
    found = verify_evidence(data, read_subject(args.file), pinned, policy)
    evidence = found.evidence
    emit("\n".join(coverage_lines(evidence.making, found.coverage)))
    keys = "pinned" if found.workers_pinned else "as the maker names them"
    own, makers = len(evidence.trees) - len(found.makers_heads), len(found.makers_heads)
    counts = ((own, "of workers"), (makers, "of the maker"))
    heads = ", ".join(f"{count} {whose}" for count, whose in counts if count) or "none"
    emit(
        f"signatures {found.signatures} good   inclusion {len(evidence.rows)} good   heads {heads}"
        f"   keys of workers {keys}   made {evidence.at} by the maker's clock"
    )
    emit(verdict_line(evidence.making, found.coverage))
    return EXIT_PROVED if found.coverage.is_proved else EXIT_NOT_PROVED


def _coverage(args: argparse.Namespace) -> int:
    """Show for a file, or for each file that a build linked, where its objects came from.

    Nothing is rounded up: with one object that has no signed row of a guest the exit status is 3,
    with 4 it is not even known which objects there are.
    """
    from hpcc.evidence.collect import proved_rows, read_trails
    from hpcc.evidence.making import ReadSubject, making_of, read_subject
    from hpcc.evidence.model import coverage_of, policy_of
    from hpcc.evidence.packages import packages_of

    policy, links = policy_of(args.isolation), _links()
    target = args.target or ""
    if args.build is None and Path(target).exists():
        subjects = [read_subject(Path(target))]
    else:
        links, outputs = _links_of(args.build or target, is_exact=args.build is not None)
        subjects = [ReadSubject(Path(o.output).name, o.digest, None) for o in outputs]
    makings = [making_of(subject, links, packages_of) for subject in subjects]
    trails = read_trails(_directories(args), makings, policy, held=_held(args))
    status, local = EXIT_PROVED, _local_compiles()
    for making in makings:
        rows = proved_rows(trails, making, policy)
        status = max(status, _show(making, coverage_of(making, rows, policy), trails, local))
    return status


def _show(
    making: Making, coverage: object, trails: Iterable[ReadTrail], local: Mapping[str, LocalCompile]
) -> int:
    """Print a coverage and its verdict; return the exit status."""
    from hpcc.cli.audit.evidence_text import coverage_lines, verdict_line
    from hpcc.evidence.model import Coverage, Grade, PartSource

    assert isinstance(coverage, Coverage)
    emit("\n".join(coverage_lines(making, coverage, local)))
    for trail in trails:
        worker = one_line(trail.worker or "without a record")
        if trail.unsigned:
            emit(f"  {trail.unsigned} rows of {worker} are unsigned (format 1) and do not count")
        if trail.outside:
            emit(
                f"  {trail.outside} rows of {worker} are in no tree that is known here and do not"
                " count: give tree.head or --heads FILE"
            )
        if trail.first and not coverage.is_proved:
            emit(f"  the rows of {worker} before {trail.first} were removed by retention")
    emit(verdict_line(making, coverage))
    if coverage.is_proved:
        return EXIT_PROVED
    is_a_part = coverage.counts[PartSource.GUEST] or coverage.counts[PartSource.SERVED]
    if making.grade is Grade.WHOLE and not is_a_part:
        emit(
            "hpcc: no link of this file is recorded here, and no row has its digest: switch"
            " links on in [cache] of hpcc.toml, or attest it where it was linked",
            file=sys.stderr,
        )
        return EXIT_MISSING
    return EXIT_NOT_PROVED


def _directories(args: argparse.Namespace) -> list[Path]:
    given: list[Path] | None = args.trail
    return given or [Paths.from_env(os.environ).audit]


def _held(args: argparse.Namespace) -> dict[str, HeldCheckpoint]:
    from hpcc.evidence.heads import MAX_HEADS_BYTES, parse_held

    path: Path | None = args.heads
    return parse_held(content_of(path, MAX_HEADS_BYTES), str(path)) if path else {}


def _links() -> list[LinkClaim]:
    """Return the links that this user's daemon recorded, the last at the end."""
    from hpcc.cache.recorder.reading import recorded_links
    from hpcc.cli.audit.link_claims import claim_of

    _flush()
    found = recorded_links(os.fspath(Paths.from_env(os.environ).cache))
    return [claim_of(link) for link in found.links]


def _local_compiles() -> dict[str, LocalCompile]:
    """Return what this user's daemon signed about compiles here, by the digest of the object."""
    from hpcc.cache.claims.reading import read_local_records

    found = read_local_records(Paths.from_env(os.environ))
    if found.damaged:
        emit(
            f"hpcc: {found.damaged} files with records of local compiles are damaged, or signed by"
            " another key: what is in them counts as unknown",
            file=sys.stderr,
        )
    return found.compiles


def _links_of(name: str, *, is_exact: bool) -> tuple[list[LinkClaim], list[LinkClaim]]:
    """Return all recorded links, and the last link of each output of one build.

    Raises:
        NotFoundError: no such build is recorded, no link of it, or not all of its record.
    """
    from hpcc.cache.recorder.reading import RecordedLink, find_build
    from hpcc.cli.audit.link_claims import claim_of

    links = _links()
    build = find_build(os.fspath(Paths.from_env(os.environ).cache), name)
    if is_exact and name not in {build.build, "last"}:
        raise NotFoundError(f"no build {name!r} is recorded; {build.build!r} has a like name")
    if build.is_damaged:
        raise NotFoundError(f"the record of build {build.build!r} is damaged: links may be missing")
    emit(f"build {one_line(build.build)}")
    claims = [claim_of(RecordedLink(build.build, link)) for link in build.links]
    last = {claim.output: claim for claim in claims}
    if not last:
        raise NotFoundError(
            f"no link of build {build.build!r} is recorded: switch links on in [cache] of hpcc.toml"
        )
    return [*links, *last.values()], list(last.values())


def _flush() -> None:
    """Let a running daemon write the records that it has in memory."""
    import contextlib

    from hpcc.core import HpccError
    from hpcc.daemon.client import query

    with contextlib.suppress(HpccError, OSError):
        query(Paths.from_env(os.environ), "stats")
