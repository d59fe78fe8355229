"""`hpcc farm status`: what the farm's schedulers show to you."""

from __future__ import annotations

import argparse
import asyncio
import json
import os
from typing import TYPE_CHECKING

from hpcc.cli.base.columns import columns
from hpcc.cli.base.terminal import emit
from hpcc.cli.farm.builds import register as register_builds
from hpcc.cli.farm.objects import register as register_objects
from hpcc.config.paths import Paths

if TYPE_CHECKING:
    from hpcc.rpc.scheduler.farm_picture import FarmPicture
    from hpcc.rpc.scheduler.observe import WorkerStatus


def register(subparsers: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    """Add the command group of this module."""
    farm = subparsers.add_parser("farm", help="show the farm that you are logged in to")
    actions = farm.add_subparsers(title="actions", metavar="ACTION", required=True)
    status = actions.add_parser(
        "status",
        help="show schedulers, workers and tenants of the farm",
        description=_status.__doc__,
    )
    status.add_argument(
        "--json", action="store_true", help="print one JSON document (docs/spec/farm-status.md)"
    )
    status.set_defaults(handler=_status)
    register_builds(actions)
    register_objects(actions)


def _status(args: argparse.Namespace) -> int:
    """Show the farm as its schedulers know it.

    You see your own tenant, and whether the farm has room; operators see everything. The exit
    status is 0 if all is well, 1 if something failed, and 2 if nobody serves.
    """
    from hpcc.rpc.scheduler.farm_picture import EXIT_CODES

    picture = asyncio.run(_picture())
    if args.json:
        emit(json.dumps(picture.document(), indent=1, sort_keys=True))
    else:
        for line in lines_of(picture):
            emit(line)
    return EXIT_CODES[picture.health]


async def _picture() -> FarmPicture:
    from hpcc.cli.base.farm_observer import FarmObserver
    from hpcc.ports import SystemClock

    async with FarmObserver(Paths.from_env(os.environ), SystemClock()) as observer:
        return await observer.picture()


def lines_of(picture: FarmPicture) -> list[str]:
    """Return the picture for a terminal."""
    document = picture.document()
    workers = document["workers"]
    lines = [f"farm: {picture.health}"]
    for scheduler in document["schedulers"]:
        state = f"version {scheduler['version']}" if scheduler["answers"] else "no answer"
        lines.append(f"  scheduler {scheduler['address']}: {state}")
    lines.append(f"  workers: {workers['live']} live, {workers['stale']} silent")
    if workers["draining"]:
        lines[-1] += f", {workers['draining']} draining"
    if picture.is_operator:
        lines[-1] += (
            f"; {workers['running']} of {workers['capacity']} places busy,"
            f" {workers['queued']} compiles wait"
        )
    elif picture.statuses:
        lines[-1] += "; there is room" if picture.has_room else "; every place is busy"
    if picture.workers:
        head = ("worker", "state", "busy", "wait", "images", "lost", "isolation", "address")
        rows = [
            (
                w.worker_id,
                _state(w),
                f"{w.running}/{w.capacity}",
                str(w.queued),
                str(w.images),
                f"{w.lost_guests:g}",
                w.isolation,
                w.endpoint,
            )
            for w in picture.workers
        ]
        lines += ["", *columns([head, *rows])]
    if picture.tenants:
        head_of_tenants = ("tenant", "daemons", "granted", "wanted", "people")
        cells = [
            (t.tenant, str(t.daemons), str(t.granted), str(t.wanted), str(t.principals))
            for t in picture.tenants
        ]
        lines += ["", *columns([head_of_tenants, *cells])]
    for finding in picture.warnings:
        lines += ["", f"{finding.code}: {finding.text}", f"  {finding.remedy}"]
    return lines


def _state(worker: WorkerStatus) -> str:
    if worker.drain == "draining" and worker.drain_seconds:
        return f"draining, {worker.drain_seconds:.0f} s"
    return worker.drain or ("silent" if worker.is_stale else "live")
