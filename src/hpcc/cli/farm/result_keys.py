"""`hpcc scheduler result-keys` and `revoke-result-key`: the keys whose results are accepted."""

from __future__ import annotations

import argparse
import asyncio
import logging
from collections.abc import Awaitable, Callable
from datetime import UTC, datetime
from typing import TYPE_CHECKING

from hpcc.cli.farm.control import add_config, scheduler_config
from hpcc.core import CallerError

if TYPE_CHECKING:
    from hpcc.scheduler.result_keys import ResultKeyTable

_TIMEOUT_SECONDS = 60.0
_ID_CHARS = 32


def register(actions: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    """Add both actions below `hpcc scheduler`."""
    listing = actions.add_parser(
        "result-keys",
        help="list the keys that sign results",
        description=_list.__doc__,
    )
    listing.set_defaults(handler=_list)
    revoke = actions.add_parser(
        "revoke-result-key",
        help="make a worker's signed results misses, permanently",
        description=_revoke.__doc__,
    )
    revoke.add_argument("key_id", metavar="KID", help="32 hex digits, as `result-keys` lists them")
    revoke.set_defaults(handler=_revoke)
    for parser in (listing, revoke):
        add_config(parser)


def _list(args: argparse.Namespace) -> int:
    """List each key with its worker, its state, and when it was first and last used."""
    keys = _with_table(args, lambda table: table.all())
    print(f"{'KEY':32}  {'STATE':8}  {'FIRST':10}  {'LAST':10}  WORKER")
    for kid, (key, is_good) in keys.items():
        state = "revoked" if key.revoked_at else "good" if is_good else "expired"
        print(f"{kid}  {state:8}  {_day(key.first_at)}  {_day(key.last_at)}  {key.worker}")
    return 0


def _revoke(args: argparse.Namespace) -> int:
    """Revoke the key of a worker that is no longer trusted.

    Its results are misses within about 75 seconds. The worker is dropped and cannot register
    again with that key. This cannot be undone: to trust the machine again, remove
    result-signing.key from the worker's keys directory; the worker then creates a new key.
    """
    kid = str(args.key_id)
    if len(kid) != _ID_CHARS or not all(c in "0123456789abcdef" for c in kid):
        raise CallerError("a key id has 32 hex digits: `hpcc scheduler result-keys` lists them")
    key = _with_table(args, lambda table: table.revoke(kid))
    print(f"key {kid} of worker {key.worker} is revoked since {_day(key.revoked_at)}")
    return 0


def _with_table[T](args: argparse.Namespace, use: Callable[[ResultKeyTable], Awaitable[T]]) -> T:
    from hpcc.ports import SystemClock
    from hpcc.scheduler.result_keys import result_key_table
    from hpcc.scheduler.serve import open_control

    logging.basicConfig(level=logging.WARNING)
    config, clock = scheduler_config(args), SystemClock()

    async def used() -> T:
        async with (
            asyncio.timeout(_TIMEOUT_SECONDS),
            open_control(config, clock, is_waiting=False) as (store, _),
        ):
            return await use(result_key_table(config, store, clock))

    return asyncio.run(used())


def _day(seconds: float) -> str:
    return datetime.fromtimestamp(seconds, UTC).strftime("%Y-%m-%d")
