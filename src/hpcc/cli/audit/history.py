"""`hpcc scheduler audit-history`: the heads of workers' trails, and those that were changed."""

from __future__ import annotations

import argparse
import asyncio
import json
import logging
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from hpcc.cli.audit.text import printable, time_text
from hpcc.cli.base.operator import operator_name
from hpcc.cli.base.terminal import emit
from hpcc.core import CallerError
from hpcc.obs.logs import log_to_stderr

if TYPE_CHECKING:
    from hpcc.ports import ControlStore
    from hpcc.scheduler.audit.heads import ChangedHistory, HeldHead

_STORE_SECONDS: Final = 60.0
# A worker whose history was changed waits for an operator.
_EXIT_CHANGED: Final = 3
_MAX_REASON: Final = 200


def register(actions: argparse._SubParsersAction[Any]) -> None:
    """Add the action below `hpcc scheduler`."""
    history = actions.add_parser(
        "audit-history",
        help="show the heads of workers' audit trails, and which trails were changed",
        description=_history.__doc__,
    )
    history.add_argument("worker", nargs="?", default="", metavar="NAME", help="only this worker")
    # A separate name, so that the default does not overwrite `hpcc scheduler --config FILE`.
    history.add_argument(
        "--config", dest="control_config", type=Path, metavar="FILE",
        help="the scheduler's config file",
    )  # fmt: skip
    history.add_argument(
        "--acknowledge", action="store_true",
        help="accept the changed trail of NAME: both heads are kept, and it gets work again",
    )  # fmt: skip
    history.add_argument("--reason", default="", metavar="TEXT", help="with --acknowledge: why")
    history.add_argument(
        "--json", action="store_true", help="print the signed heads, one JSON object per line"
    )
    history.set_defaults(handler=_history)


def _history(args: argparse.Namespace) -> int:
    """Show the newest head that schedulers hold of each worker's trail.

    A worker whose trail does not contain the head that it had gets no work until an operator
    acknowledges it here. The exit status is 3 while there is one.
    """
    path = args.control_config or getattr(args, "config", None)
    if path is None:
        raise CallerError("--config FILE is missing", reason="usage")
    if args.acknowledge and (not args.worker or not args.reason.strip()):
        raise CallerError("--acknowledge needs NAME and --reason TEXT", reason="usage")
    log_to_stderr(logging.ERROR)
    return asyncio.run(_run(args, Path(path).absolute()))


async def _run(args: argparse.Namespace, config: Path) -> int:
    from hpcc.config.service_file import load_service_file
    from hpcc.ports import SystemClock
    from hpcc.scheduler.base.config import SchedulerConfig
    from hpcc.scheduler.base.control_store import open_control

    read, clock = load_service_file(config, SchedulerConfig), SystemClock()
    async with open_control(read, clock, is_waiting=False) as (store, _):
        async with asyncio.timeout(_STORE_SECONDS):
            if args.acknowledge:
                return await _acknowledge(
                    store, args.worker, args.reason[:_MAX_REASON], clock.now()
                )
            return await _show(store, args)


async def _acknowledge(store: ControlStore, worker: str, reason: str, now: float) -> int:
    from hpcc.scheduler.audit.histories import acknowledge
    from hpcc.scheduler.drains import release

    changed = await acknowledge(store, worker, by=operator_name(), reason=reason, now=now)
    await release(store, worker)
    emit(f"the changed trail of worker {worker} is acknowledged; it gets work again")
    if changed.new is not None:
        emit(f"its head is now that of {changed.new.head.count} records; both heads are kept")
    return 0


async def _show(store: ControlStore, args: argparse.Namespace) -> int:
    from hpcc.scheduler.audit.histories import changed_histories, forks_of, held_heads

    changed = [c for c in await changed_histories(store) if args.worker in {"", c.worker}]
    held = [h for h in await held_heads(store) if args.worker in {"", h.head.worker}]
    if args.json:
        for head in held:
            emit(json.dumps({"worker": head.head.worker, **head.table()}, sort_keys=True))
        for one in changed:
            emit(json.dumps(one.table(), sort_keys=True))
        for fork in await forks_of(store, args.worker) if args.worker else ():
            emit(printable(fork.decode(errors="replace")))
    else:
        _say(held, changed)
    return _EXIT_CHANGED if changed else 0


def _say(held: list[HeldHead], changed: list[ChangedHistory]) -> None:
    if not held:
        emit("no worker has sent a head of its trail yet")
    for one in held:
        head = one.head
        emit(f"{head.worker}: {head.count} records at {time_text(head.at)}, {_root(one)}")
    for fork in changed:
        emit()
        emit(f"{fork.worker}: CHANGED, found {time_text(fork.at)}: {printable(fork.why)}")
        for what, side in (("held", fork.held), ("sent", fork.new)):
            if side is not None:
                at = time_text(side.head.at)
                emit(f"  {what}: {side.head.count} records at {at}, {_root(side)}")
        emit("  it gets no work. docs/runbook.md has the steps; then")
        emit(f"  hpcc scheduler audit-history {fork.worker} --acknowledge --reason TEXT")


def _root(one: HeldHead) -> str:
    return f"root {one.head.root.hex()}, key {one.key.hex()[:16]}"
