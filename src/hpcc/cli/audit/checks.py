"""`hpcc audit verify` and `reindex`: check a trail, and make its indexes again."""

from __future__ import annotations

import argparse
import os
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

from hpcc.cli.audit.filters import add_command, directory_of, naming_index, say_unproved
from hpcc.cli.base.terminal import emit
from hpcc.core import CallerError

if TYPE_CHECKING:
    from hpcc.audit.verify import Verified


def register(commands: Any) -> None:  # noqa: ANN401 - argparse has no public type for it
    """Add the two commands."""
    again = "make missing and changed indexes of the trail again, from the segments"
    add_command(commands, "reindex", again, _run_reindex)

    verify = add_command(commands, "verify", "check the hash chain of the whole trail", _run_verify)
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
        "--roots",
        action="store_true",
        help="only compare all records with the root that the worker signed at its last seal: no"
        " signature of a single record, no index, no anchor",
    )
    verify.add_argument(
        "--config",
        type=Path,
        metavar="FILE",
        help="with --scheduler: the worker's config file (default: that of `hpcc up`)",
    )


def _run_reindex(args: argparse.Namespace) -> int:
    from hpcc.audit.base.trail import require_trail
    from hpcc.audit.lookup.making import reindex

    directory = directory_of(args)
    require_trail(directory)
    require_own(directory)
    count = 0
    for outcome in reindex(directory):
        count += 1
        emit(f"the index of segment {outcome.first} {outcome.remade.value}")
    emit(f"{count} sealed segments; the open one has no index")
    return 0


@naming_index
def _run_verify(args: argparse.Namespace) -> int:
    from hpcc.audit.base.canonical import AuditDamagedError
    from hpcc.audit.lookup.sealed import IndexChangedError
    from hpcc.audit.verify import read_anchors, verify_trail

    directory = directory_of(args)
    if args.roots:
        if args.scheduler or args.anchors is not None:
            raise CallerError("--roots compares with no anchors: leave it away", reason="usage")
        return _say_roots(directory)
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
        verified = verify_trail(directory, anchors)
    except IndexChangedError:
        raise
    except AuditDamagedError as error:
        raise AuditDamagedError(f"this trail is NOT intact: {error}") from error
    _say_verified(verified, is_anchored=bool(anchors))
    return 0


def _say_roots(directory: Path) -> int:
    from hpcc.audit.base.canonical import AuditDamagedError
    from hpcc.audit.roots import check_roots

    try:
        roots = check_roots(directory)
    except AuditDamagedError as error:
        raise AuditDamagedError(f"this trail is NOT intact: {error}") from error
    emit(f"{roots.leaves} leaves have root {roots.root}")
    if roots.first:
        emit(f"the tree begins at record {roots.first}: those before it were not compared")
    if roots.removed:
        emit(f"{roots.removed} of the records were removed by retention: only hashes are left")
    if roots.behind:
        emit(f"{roots.behind} sealed records came after that root: the signature of each is good")
    emit(f"signed by key {roots.key}")
    emit("not checked: the signature of each record, records that are not sealed, indexes, anchors")
    return 0


def _say_verified(verified: Verified, *, is_anchored: bool) -> None:
    kept = verified.count - verified.first
    emit(f"{verified.count} records, unbroken; the last has hash {verified.head}")
    if verified.first:
        emit(f"{kept} of them are kept; retention removed those before {verified.first}")
    if verified.signed:
        emit(f"{verified.signed} records have their writer's signature")
    if verified.unsigned:
        emit(f"{verified.unsigned} unsigned rows (format 1), of an earlier version")
    say_unproved(verified.unproved)
    if verified.seals:
        emit(
            f"{verified.indexes} of {verified.segments} sealed segments have an index, which has"
            " what the segment has and is the one sealed"
        )
    for key in verified.keys:
        emit(f"signed by key {key}")
    if not is_anchored:
        emit("not compared with anchors: a missing end is not detected (--scheduler, --anchors)")
        return
    emit(f"{verified.anchors} anchors match, the newest of {verified.newest_anchor} records")
    if verified.older_anchors:
        emit(f"{verified.older_anchors} anchors belong to records that are no longer kept")


def require_own(directory: Path) -> None:
    """Check that this user owns a trail: its files must stay readable for the worker.

    Raises:
        CallerError: another user owns it.
    """
    if sys.platform != "win32" and directory.stat().st_uid != os.geteuid():
        raise CallerError(f"another user owns {directory}: run this as that user")
