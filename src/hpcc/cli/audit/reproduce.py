"""`hpcc audit reproduce`: runs the action of a row, or those of a build, again in guests."""

from __future__ import annotations

import argparse
import asyncio
import os
import sys
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Final

from hpcc.cli.audit import reproduce_build
from hpcc.cli.base.terminal import emit
from hpcc.config.paths import Paths
from hpcc.config.service_file import load_service_file
from hpcc.core import CallerError, ImageDigest, Isolation, NotFoundError

if TYPE_CHECKING:
    from hpcc.ports import AuditRow, Runtime
    from hpcc.worker.base.config import WorkerConfig
    from hpcc.worker.execute.reproduce import Reproduction

# 1 and 2 are the exit codes of every failed command.
EXIT_DIFFERENT: Final = 3
EXIT_EXPIRED: Final = 4
EXIT_UNAVAILABLE: Final = 5
_ROW_CHARS: Final = 12


def register(parser: argparse.ArgumentParser) -> None:
    """Add the arguments of `reproduce`."""
    what = parser.add_mutually_exclusive_group(required=True)
    what.add_argument("row", metavar="ROW", nargs="?", help="row id, or the start of one")
    what.add_argument("--build", metavar="ID", help="all rows of a build; the result is signed")
    reproduce_build.register(parser)
    parser.add_argument(
        "--config",
        type=Path,
        metavar="FILE",
        help="the worker's config file (default: that of `hpcc up`)",
    )


def run(args: argparse.Namespace) -> int:
    """Run the action again and return the exit code for its verdict.

    With --build, run the actions of its rows on this worker again, and write a signed statement of
    in-toto: which objects were made again byte for byte, in which guest, and which not and why.
    """
    from hpcc.audit.base.canonical import row_of
    from hpcc.audit.lookup.reader import TrailReader
    from hpcc.worker.base.config import WorkerConfig

    if args.scheduler_state is not None:
        raise CallerError("a scheduler's trail has no rows to reproduce")
    file = args.config or Paths.from_env(os.environ).state / "worker.json"
    if args.config is None and not file.exists():
        raise CallerError(
            "`hpcc up` has never run here: name the worker's config file with --config"
        )
    config = load_service_file(file.absolute(), WorkerConfig)
    trail = args.directory or config.audit
    if args.build is not None:
        return reproduce_build.run_build(args, trail, partial(_reproduce, config))
    row = row_of(TrailReader(trail).row(args.row))
    result = asyncio.run(_reproduce(config, row))
    return _say(row, result)


async def _reproduce(config: WorkerConfig, row: AuditRow) -> Reproduction:
    from hpcc.images.store import ImageStore
    from hpcc.ports import SystemClock
    from hpcc.runtime.assets.bundle import open_assets
    from hpcc.runtime.registry.pick import pick_runtime
    from hpcc.runtime.registry.table import backend_of
    from hpcc.worker.execute.reproduce import reproduce_row

    clock = SystemClock()
    store = ImageStore(config.images, clock)

    class Images:
        async def image(self, digest: ImageDigest) -> Path:
            found = await asyncio.to_thread(store.get, digest)
            if found is None:
                raise NotFoundError(f"image {digest} is no longer here", reason="no-image")
            return found.path

    async def choose(isolation: Isolation, state: Path) -> Runtime:
        assets = await open_assets(config.guest_assets, config.guest_bundle, _progress)
        return await pick_runtime(
            assets,
            accelerator="tcg" if isolation is Isolation.QEMU_TCG else "auto",
            state_dir=state,
            clock=clock,
            backend=backend_of(isolation) or "process",
            containerd=Path(config.containerd),
        )

    try:
        return await reproduce_row(
            config, row, choose_runtime=choose, images=Images(), progress=_progress
        )
    finally:
        await asyncio.to_thread(store.close)


def _progress(line: str) -> None:
    emit(f"hpcc: {line}", file=sys.stderr)


def _say(row: AuditRow, result: Reproduction) -> int:
    from hpcc.cli.audit.text import printable
    from hpcc.worker.execute.reproduce import MAX_NAMED, Verdict

    name = row.row_id[:_ROW_CHARS]
    for note in result.notes:
        emit(f"note: {note.name}: {printable(note.text)}")
    for finding in result.findings[:MAX_NAMED]:
        emit(f"{result.verdict.value}: {printable(finding.name)}: {printable(finding.text)}")
    if len(result.findings) > MAX_NAMED:
        emit(f"… and {len(result.findings) - MAX_NAMED} more")
    match result.verdict:
        case Verdict.REPRODUCED:
            same = f"{result.outputs} outputs are the same"
            emit(f"{name}: reproduced, {same}, under {row.isolation}")
            return 0
        case Verdict.DIFFERENT:
            emit(f"{name}: NOT reproduced: the outputs differ")
            return EXIT_DIFFERENT
        case Verdict.EXPIRED:
            emit(f"{name}: cannot be reproduced: the items above are no longer kept")
            return EXIT_EXPIRED
        case Verdict.UNAVAILABLE:
            emit(f"{name}: cannot be reproduced here: this machine now has another isolation")
            return EXIT_UNAVAILABLE
        case Verdict.NOT_COMPARABLE:
            emit(f"{name}: the row released no result, so there is nothing to compare with")
            return 2
