"""`hpcc scheduler reseal`: another sealing key, also where the old one is lost."""

from __future__ import annotations

import argparse
import asyncio
import logging
import secrets
from pathlib import Path
from typing import TYPE_CHECKING

from hpcc.cli.base.terminal import emit
from hpcc.cli.farm.control import add_config, scheduler_config
from hpcc.obs.logs import log_to_stderr

if TYPE_CHECKING:
    from hpcc.scheduler.base.config import SchedulerConfig
    from hpcc.scheduler.resealing import SealedState

_TIMEOUT_SECONDS = 60.0


def register(actions: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    """Add the action below `hpcc scheduler`."""
    parser = actions.add_parser(
        "reseal",
        help="check or change the key that seals the farm's secrets",
        description=_reseal.__doc__,
    )
    how = parser.add_mutually_exclusive_group()
    how.add_argument(
        "--old-key", type=Path, metavar="FILE", help="the key until now: nothing is lost"
    )
    how.add_argument(
        "--lost", action="store_true", help="the key until now is lost: make new secrets"
    )
    add_config(parser)
    parser.set_defaults(handler=_reseal)


def _reseal(args: argparse.Namespace) -> int:
    """Say whether the sealing key of the config file opens the farm's secrets, and change that.

    Without an option nothing is changed, and the exit status is 1 if a secret cannot be opened.
    With --old-key the secrets are sealed with the key of the config file instead. With --lost
    those that cannot be opened are made anew. Stop all schedulers first. The command may be
    repeated after an interruption.
    """
    log_to_stderr(logging.WARNING)
    before, after = asyncio.run(_done(scheduler_config(args), args.old_key, is_lost=args.lost))
    if not before.opens:
        emit("the control store holds no secrets yet")
    for name, is_open in before.opens:
        emit(f"{name}: {'this key opens them' if is_open else 'sealed with another key'}")
    if not before.lost:
        return 0
    if args.old_key is not None:
        emit("sealed with this key now: start the schedulers, nothing else is necessary")
    elif args.lost:
        _print_lost(before, "are new: start the schedulers. This was lost:")
    else:
        _print_lost(before, "cannot be opened. With --lost this is lost:")
    return 1 if after.lost else 0


def _print_lost(state: SealedState, what: str) -> None:
    from hpcc.scheduler.resealing import TENANTS, TOKEN_KEYS, WORKER_CA

    emit(f"{' and '.join(state.lost)} {what}")
    if TOKEN_KEYS in state.lost:
        emit("- logins end: daemons log in again by themselves")
    if WORKER_CA in state.lost:
        emit("- workers' certificates: enrol each worker again, and restart it")
        for name in state.workers:
            emit(f"  hpcc scheduler enrol-token --name {name}")
    if TENANTS in state.lost:
        emit("- the tenants table: nobody can log in until you apply it: hpcc tenants apply FILE")
    emit("Kept: results and their keys, revocations, the audit trail, anchors.")


async def _done(
    config: SchedulerConfig, old_key: Path | None, *, is_lost: bool
) -> tuple[SealedState, SealedState]:
    from hpcc.identity.key_ring import Sealer
    from hpcc.identity.keys import read_secret_file
    from hpcc.ports import SystemClock
    from hpcc.scheduler.base.control_store import open_store, read_seal
    from hpcc.scheduler.resealing import replace_lost, reseal, sealed_state

    is_changing = is_lost or old_key is not None
    if is_changing or config.sealing_file.exists():
        sealer = Sealer(read_seal(config))
    else:
        sealer = Sealer(secrets.token_hex(32).encode())  # opens nothing, and is not kept
    clock = SystemClock()
    async with asyncio.timeout(_TIMEOUT_SECONDS), open_store(config, clock) as (store, check):
        await check()
        before = await sealed_state(store, sealer)
        if before.lost and old_key is not None:
            await reseal(store, Sealer(read_secret_file(old_key)), sealer)
        elif before.lost and is_lost:
            await replace_lost(store, sealer, clock)
        return before, await sealed_state(store, sealer)
