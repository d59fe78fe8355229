"""`hpcc scheduler result-keys`, and `rotate-`, `retire-` and `revoke-result-key`."""

from __future__ import annotations

import argparse
import asyncio
import logging
from collections.abc import Awaitable, Callable
from datetime import UTC, datetime
from typing import TYPE_CHECKING

from hpcc.cli.base.terminal import emit
from hpcc.cli.farm.control import add_config, scheduler_config
from hpcc.core import CallerError
from hpcc.obs.logs import log_to_stderr

if TYPE_CHECKING:
    from hpcc.scheduler.result_keys import ListedKey, ResultKeyTable

_TIMEOUT_SECONDS = 60.0
_ID_CHARS = 32


def register(actions: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    """Add the four actions below `hpcc scheduler`."""
    listing = actions.add_parser(
        "result-keys",
        help="list the keys that sign results",
        description=_list.__doc__,
    )
    listing.set_defaults(handler=_list)
    rotate = actions.add_parser(
        "rotate-result-key",
        help="let workers sign with new keys",
        description=_rotate.__doc__,
    )
    rotate.set_defaults(handler=_rotate)
    which = rotate.add_mutually_exclusive_group(required=True)
    which.add_argument("key_id", metavar="KID", nargs="?", help="the key of one worker")
    which.add_argument("--all", action="store_true", help="the newest key of each worker")
    retire = actions.add_parser(
        "retire-result-key",
        help="make the results of a replaced key misses, permanently",
        description=_retire.__doc__,
    )
    retire.set_defaults(handler=_retire)
    revoke = actions.add_parser(
        "revoke-result-key",
        help="make a worker's signed results misses, permanently",
        description=_revoke.__doc__,
    )
    revoke.set_defaults(handler=_revoke)
    for parser in (retire, revoke):
        parser.add_argument(
            "key_id", metavar="KID", help="32 hex digits, as `result-keys` lists them"
        )
    for parser in (listing, rotate, retire, revoke):
        add_config(parser)


def _list(args: argparse.Namespace) -> int:
    """List each key with its worker, its state, and when it was first and last used.

    A `good` key signs, an `announced` one will sign soon, and an `old` one has been replaced: its
    results are valid until it is retired or has expired. Results of `expired`, `retired` and
    `revoked` keys are misses. A star marks a key that its worker was ordered to replace.
    """

    async def listed(table: ResultKeyTable) -> list[tuple[str, ListedKey, str]]:
        keys = await table.all()
        newest = table.newest()
        return [
            (kid, key, _state(key, is_good=is_good, is_newest=key in newest))
            for kid, (key, is_good) in keys.items()
        ]

    emit(f"{'KEY':32}  {'STATE':10}  {'FIRST':10}  {'LAST':10}  WORKER")
    for kid, key, state in _with_table(args, listed):
        emit(f"{kid}  {state:10}  {_day(key.first_at)}  {_day(key.last_at)}  {key.worker}")
    return 0


def _state(key: ListedKey, *, is_good: bool, is_newest: bool) -> str:
    if key.revoked_at:
        return "retired" if key.is_retired else "revoked"
    if not is_good:
        return "expired"
    if not is_newest:
        return "old"
    return ("announced" if key.is_announced else "good") + ("*" if key.replace_at else "")


def _rotate(args: argparse.Namespace) -> int:
    """Order workers to sign with new keys; nothing is interrupted, and no result is lost.

    A worker makes the new key within half a minute, and the schedulers list it as `announced`. A
    minute later it signs, and its file takes the old key's place. Results of the old key stay
    valid until it is retired or has expired.
    """

    async def ordered(table: ResultKeyTable) -> list[tuple[str, ListedKey]]:
        kids = [_checked(args.key_id)] if not args.all else []
        if args.all:
            keys = await table.all()
            newest = table.newest()
            kids = [k for k, (key, _) in keys.items() if key in newest and not key.is_announced]
        return [(kid, await table.order(kid)) for kid in kids]

    for kid, key in _with_table(args, ordered):
        emit(f"worker {key.worker} will replace key {kid}")
    return 0


def _retire(args: argparse.Namespace) -> int:
    """Retire a key that its worker has replaced; its results are misses within about 75 seconds.

    Without this command they become misses when the key expires. This cannot be undone.
    """
    kid = _checked(args.key_id)
    key = _with_table(args, lambda table: table.revoke(kid, is_retiring=True))
    emit(f"key {kid} of worker {key.worker} is retired since {_day(key.revoked_at)}")
    return 0


def _revoke(args: argparse.Namespace) -> int:
    """Revoke the key of a worker that is no longer trusted.

    Its results are misses within about 75 seconds. The worker is dropped and cannot register
    again with that key. This cannot be undone: to trust the machine again, remove
    result-signing.key from the worker's keys directory; the worker then creates a new key.
    """
    kid = _checked(args.key_id)

    async def revoked(table: ResultKeyTable) -> tuple[ListedKey, list[str]]:
        key = await table.revoke(kid)
        keys = await table.all()
        others = [k for k, (x, is_good) in keys.items() if is_good and x.worker == key.worker]
        return key, others

    key, others = _with_table(args, revoked)
    emit(f"key {kid} of worker {key.worker} is revoked since {_day(key.revoked_at)}")
    for other in others:
        emit(f"key {other} of this worker is still valid: revoke it, too, if the worker is bad")
    return 0


def _checked(text: object) -> str:
    kid = str(text)
    if len(kid) != _ID_CHARS or not all(c in "0123456789abcdef" for c in kid):
        raise CallerError("a key id has 32 hex digits: `hpcc scheduler result-keys` lists them")
    return kid


def _with_table[T](args: argparse.Namespace, use: Callable[[ResultKeyTable], Awaitable[T]]) -> T:
    from hpcc.ports import SystemClock
    from hpcc.scheduler.base.control_store import open_control
    from hpcc.scheduler.result_keys import result_key_table

    log_to_stderr(logging.WARNING)
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
