"""`hpcc worker drain` and `hpcc scheduler drain-worker`: take a worker out of work, and back."""

from __future__ import annotations

import argparse
import asyncio
import json
import logging
import secrets
from collections.abc import Awaitable, Callable
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Final

from hpcc.cli.base.operator import operator_name
from hpcc.cli.base.terminal import emit
from hpcc.cli.farm.control import add_config, scheduler_config
from hpcc.core import CallerError, InfrastructureError
from hpcc.obs.logs import log_to_stderr

if TYPE_CHECKING:
    from hpcc.ports import Clock
    from hpcc.scheduler.drains import DrainTable
    from hpcc.worker.base.config import WorkerConfig

# How long a worker has to obey a request on its machine, and its report to appear.
_ANSWER_SECONDS: Final = 15.0
_LOOK_SECONDS: Final = 0.5
# After the deadline guests end, rows are written, and a heartbeat tells the schedulers.
_LATE_SECONDS: Final = 60.0
_STORE_SECONDS: Final = 60.0
_DEADLINE_SECONDS: Final = 600.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Progress:
    """How far a worker is, as `--json` prints it.

    `state` is "" if it takes compiles, draining or drained; of an operator's order also unheard
    (the worker has not answered yet) and released (the order was withdrawn).
    """

    worker: str
    state: str
    compiles: int = 0
    waiting: int = 0
    seconds_left: float = 0.0
    by: str = ""
    reason: str = ""

    @property
    def work(self) -> tuple[str, int, int]:
        """What has to change for another line."""
        return self.state, self.compiles, self.waiting

    @property
    def text(self) -> str:
        """The sentence for a person."""
        if not self.state:
            return f"worker {self.worker} takes compiles"
        if self.state == "released":
            return f"no operator drains worker {self.worker} any more"
        why = f", by {self.by}" if self.by else ""
        why += f": {self.reason}" if self.reason else ""
        if self.state == "unheard":
            return f"worker {self.worker} gets no routes{why}; it has not answered yet"
        if self.state == "drained":
            return f"worker {self.worker} is drained{why}"
        left = f"{self.compiles} compile{'' if self.compiles == 1 else 's'} left"
        return f"worker {self.worker} drains{why}: {left}, at most {self.seconds_left:.0f} s"


def register_worker(actions: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    """Add `drain` below `hpcc worker`."""
    drain = actions.add_parser(
        "drain", help="take no more compiles, and let those that run finish",
        description=_drain.__doc__,
    )  # fmt: skip
    # A separate name, so that the default does not overwrite `hpcc worker --config FILE`.
    drain.add_argument(
        "--config", dest="worker_config", type=Path, metavar="FILE", help="the worker's config file"
    )
    _add_options(drain)
    drain.set_defaults(handler=_drain)


def register_scheduler(actions: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    """Add `drain-worker` below `hpcc scheduler`."""
    drain = actions.add_parser(
        "drain-worker", help="give a worker no more compiles, wherever it is",
        description=_drain_worker.__doc__,
    )  # fmt: skip
    drain.add_argument("worker", metavar="NAME", help="the worker's id")
    add_config(drain)
    _add_options(drain)
    drain.set_defaults(handler=_drain_worker)


def _add_options(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--wait", action="store_true", help="return when nothing is left")
    parser.add_argument(
        "--deadline", type=float, metavar="SECONDS",
        help="end what still runs after this time (default: drain_seconds, 600)",
    )  # fmt: skip
    parser.add_argument("--reason", default="", metavar="TEXT", help="shown to other operators")
    parser.add_argument("--undo", action="store_true", help="take compiles again")
    parser.add_argument("--json", action="store_true", help="print one JSON object per line")


def _drain(args: argparse.Namespace) -> int:
    """Let the worker of this machine take no compiles; those that run finish.

    It holds until --undo, or until the worker's process ends: a machine that has rebooted takes
    compiles again. Run it as the worker's user, or as root. With --wait it fails if the worker is
    restarted before it is drained.
    """
    from hpcc.config.service_file import load_service_file
    from hpcc.worker.base.config import WorkerConfig

    path = args.worker_config or getattr(args, "config", None)
    if path is None:
        raise CallerError("--config FILE is missing", reason="usage")
    config = load_service_file(Path(path).absolute(), WorkerConfig)
    return asyncio.run(_drained_here(args, config))


async def _drained_here(args: argparse.Namespace, config: WorkerConfig) -> int:
    from hpcc.ports import SystemClock
    from hpcc.rpc.scheduler.api import MAX_DRAIN_SECONDS
    from hpcc.worker.base.drain_file import (
        DrainReport,
        DrainRequest,
        become_owner,
        report_or_none,
        write_request,
    )

    clock = SystemClock()
    seconds = _seconds(args, min(config.drain_seconds, MAX_DRAIN_SECONDS))
    request = DrainRequest(
        request=secrets.token_hex(8), is_wanted=not args.undo, seconds=seconds,
        by=operator_name(), reason=args.reason,
    )  # fmt: skip
    become_owner(config.state)
    write_request(config.state, request)

    def shown(report: DrainReport) -> Progress:
        return Progress(
            worker=config.worker_id, state=report.state, compiles=report.running,
            waiting=report.queued, seconds_left=_left(clock, report.ends_at),
            by=report.by, reason=report.reason,
        )  # fmt: skip

    async def look() -> Progress | None:
        report = report_or_none(config.state)
        # Another process, which was asked for nothing: it may drain for an operator meanwhile.
        return shown(report) if report is not None and report.obeyed else None

    patience = clock.monotonic() + _ANSWER_SECONDS
    while (first := report_or_none(config.state)) is None or first.obeyed != request.request:
        if clock.monotonic() >= patience:
            raise InfrastructureError(
                f"worker {config.worker_id} does not answer: `systemctl status hpcc-worker` says"
                " whether it runs",
                reason="drain",
            )
        await asyncio.sleep(_LOOK_SECONDS)
    return await _follow(args, clock, shown(first), look)


def _drain_worker(args: argparse.Namespace) -> int:
    """Let no scheduler route to a worker, and order it to take no compiles; those that run finish.

    The order is in the control store: it holds at every scheduler, and over restarts of the worker
    and of schedulers, until --undo.
    """
    log_to_stderr(logging.ERROR)
    return asyncio.run(_drained_there(args))


async def _drained_there(args: argparse.Namespace) -> int:
    from hpcc.ports import SystemClock
    from hpcc.scheduler.base.control_store import open_control
    from hpcc.scheduler.drains import DrainTable

    config, clock = scheduler_config(args), SystemClock()
    seconds = _seconds(args, _DEADLINE_SECONDS)
    async with open_control(config, clock, is_waiting=False) as (store, _):
        table = DrainTable(store, clock)
        if args.undo:
            async with asyncio.timeout(_STORE_SECONDS):
                await table.withdraw(args.worker)
            _show(args, Progress(worker=args.worker, state="released"))
            return 0
        return await _ordered(args, clock, table, seconds)


async def _ordered(
    args: argparse.Namespace, clock: Clock, table: DrainTable, seconds: float
) -> int:
    async with asyncio.timeout(_STORE_SECONDS):
        mark = await table.order(args.worker, seconds, by=operator_name(), reason=args.reason)

    async def look() -> Progress:
        said = await table.progress_or_none(args.worker, mark)
        return Progress(
            worker=args.worker, state=said.state.value if said is not None else "unheard",
            compiles=said.running if said is not None else 0,
            waiting=said.queued if said is not None else 0,
            seconds_left=_left(clock, mark.ends_at), by=mark.by, reason=mark.reason,
        )  # fmt: skip

    return await _follow(args, clock, await look(), look)


async def _follow(
    args: argparse.Namespace,
    clock: Clock,
    first: Progress,
    look: Callable[[], Awaitable[Progress | None]],
) -> int:
    """Print the progress, with `--wait` until nothing is left.

    `look` returns None if the process that drained is gone, and its report with it.

    Raises:
        InfrastructureError: something is left long after the deadline, or the drain did not last.
    """
    _show(args, first)
    if args.undo or not args.wait:
        return 0
    now, patience = first, clock.monotonic() + first.seconds_left + _LATE_SECONDS
    while now.state != "drained":
        if clock.monotonic() >= patience:
            raise InfrastructureError(f"{now.text}, and it is late", reason="drain")
        await asyncio.sleep(_LOOK_SECONDS)
        found = await look()
        # A worker that ends in order leaves its report. Its next process removes that.
        if found is None:
            raise InfrastructureError(
                f"worker {now.worker} was restarted, which ended this drain. Run the command again",
                reason="drain",
            )
        if not found.state:
            raise InfrastructureError(
                f"worker {now.worker} takes compiles again: somebody ended this drain with --undo",
                reason="drain",
            )
        if found.work != now.work:
            _show(args, found)
        now = found
    return 0


def _show(args: argparse.Namespace, progress: Progress) -> None:
    text = json.dumps(asdict(progress), sort_keys=True) if args.json else progress.text
    emit(text, flush=True)


def _seconds(args: argparse.Namespace, default: float) -> float:
    from hpcc.rpc.scheduler.api import MAX_DRAIN_SECONDS

    seconds = default if args.deadline is None else float(args.deadline)
    if not 0 <= seconds <= MAX_DRAIN_SECONDS:
        raise CallerError(
            f"--deadline must be 0 to {MAX_DRAIN_SECONDS:.0f} seconds", reason="usage"
        )
    return seconds


def _left(clock: Clock, ends_at: float) -> float:
    return round(max(ends_at - clock.now(), 0.0), 1)
