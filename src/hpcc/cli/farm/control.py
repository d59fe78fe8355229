"""`hpcc scheduler migrate` and `rotate-key`: manual changes of the control store."""

from __future__ import annotations

import argparse
import asyncio
import logging
from pathlib import Path
from typing import TYPE_CHECKING

from hpcc.cli.base.terminal import emit
from hpcc.core import CallerError, InfrastructureError
from hpcc.obs.logs import log_to_stderr

if TYPE_CHECKING:
    from hpcc.scheduler.base.config import SchedulerConfig


def register(actions: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    """Add both actions below `hpcc scheduler`."""
    migrate = actions.add_parser(
        "migrate",
        help="create or update the database's tables",
        description=_migrate.__doc__,
    )
    migrate.add_argument("--grant", default="", metavar="ROLE", help="the schedulers' role")
    migrate.set_defaults(handler=_migrate)
    rotate = actions.add_parser(
        "rotate-key",
        help="sign route tokens with a new key",
        description=_rotate.__doc__,
    )
    rotate.add_argument(
        "--revoke", action="store_true", help="end the old keys and everything they signed at once"
    )
    rotate.set_defaults(handler=_rotate)
    for parser in (migrate, rotate):
        add_config(parser)


def add_config(parser: argparse.ArgumentParser) -> None:
    """Add `--config` to an action; `scheduler_config` reads it."""
    # A separate name, so that the default does not overwrite `hpcc scheduler --config FILE`.
    parser.add_argument(
        "--config",
        dest="control_config",
        type=Path,
        metavar="FILE",
        help="the scheduler's config file",
    )


def _migrate(args: argparse.Namespace) -> int:
    """Create or update the tables in the config file's database, as the role that owns them."""
    from hpcc.control.database import read_database_config
    from hpcc.control.schema import migrate

    config = scheduler_config(args)
    if not config.database:
        raise CallerError("the config file names no database", reason="database")
    database = read_database_config(config.database, config.database_password_file)
    before, after = asyncio.run(migrate(database, role=args.grant))
    emit(f"{database}: version {before} -> {after}" if before != after else f"{database}: current")
    if args.grant:
        emit(f"role {args.grant}: may read and write rows, but change no table")
    return 0


def _rotate(args: argparse.Namespace) -> int:
    """Add a signing key; schedulers and workers learn it before it signs.

    With --revoke the new key signs at once and all others end: clients ask for sessions and
    routes again, and running compiles fall back to the local compiler.
    """
    log_to_stderr(logging.WARNING)
    kid, seconds = asyncio.run(_rotated(scheduler_config(args), is_revoking=args.revoke))
    emit(f"key {kid} signs {f'in {seconds:.0f} s' if seconds else 'now'}")
    return 0


async def _rotated(config: SchedulerConfig, *, is_revoking: bool) -> tuple[str, float]:
    from hpcc.ports import ConflictError, SystemClock
    from hpcc.scheduler.base.control_store import open_control
    from hpcc.scheduler.base.signing import ANNOUNCE_SECONDS

    seconds = 0.0 if is_revoking else ANNOUNCE_SECONDS
    async with (
        asyncio.timeout(60),
        open_control(config, SystemClock(), is_waiting=False) as (_, keys),
    ):
        for _ in range(5):
            try:
                return await keys.rotate(announce_seconds=seconds, is_revoking=is_revoking), seconds
            except ConflictError:
                await keys.load()
    raise InfrastructureError("the key ring keeps changing: try again", reason="conflict")


def scheduler_config(args: argparse.Namespace) -> SchedulerConfig:
    """Read the scheduler's config file that a command names.

    Raises:
        CallerError: the command names no file, or the file is invalid.
    """
    from hpcc.config.service_file import load_service_file
    from hpcc.scheduler.base.config import SchedulerConfig

    path = args.control_config or getattr(args, "config", None)
    if path is None:
        raise CallerError("--config FILE is missing", reason="usage")
    return load_service_file(Path(path).absolute(), SchedulerConfig)
