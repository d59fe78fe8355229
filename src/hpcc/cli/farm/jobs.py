"""`hpcc jobs`: how many compiles at once are worth starting."""

from __future__ import annotations

import argparse
import asyncio
import os
import sys
from typing import TYPE_CHECKING, Final

from hpcc.cli.base.terminal import emit
from hpcc.config.extras import require_extra
from hpcc.config.paths import Paths
from hpcc.core import HpccError

if TYPE_CHECKING:
    from hpcc.config.farm import Farm

# A build waits for the answer.
_SECONDS: Final = 10.0


def register(subparsers: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    """Add the command of this module."""
    jobs = subparsers.add_parser(
        "jobs",
        help="print how many compiles at once the farm takes: make -j$(hpcc jobs)",
        description=_jobs.__doc__,
    )
    jobs.set_defaults(handler=_jobs)


def _jobs(_args: argparse.Namespace) -> int:
    """Print how many compiles at once the farm takes of you now.

    Without a farm, and if it does not answer, that is the number of this machine's processors. The
    answer is always a number, so that `make -j$(hpcc jobs)` works.
    """
    number = 0
    try:
        farm = _farm_or_none()
        if farm is not None:
            require_extra("client", "a farm")
            number = asyncio.run(_granted(farm))
    except (HpccError, OSError, TimeoutError) as error:
        why = str(error) or "no answer in time"
        emit(f"hpcc: the number of this machine's processors: {why}", file=sys.stderr)
    emit(number or _processors())
    return 0


def _farm_or_none() -> Farm | None:
    """Return the farm that the daemon would use; None also for an engine, which says no number."""
    from hpcc.config.settings import load_settings
    from hpcc.dispatch.farm_files import FarmFiles

    if os.environ.get("HPCC_DISABLE"):
        return None
    paths = Paths.from_env(os.environ)
    farm = FarmFiles(paths, load_settings(paths.config_file)).farm()
    return None if farm is None or farm.engine else farm


def _processors() -> int:
    """Return how many processors this process may use."""
    usable = getattr(os, "sched_getaffinity", None)
    return len(usable(0)) if usable is not None else os.cpu_count() or 1


async def _granted(farm: Farm) -> int:
    """Ask the scheduler; 0 if it grants no numbers, as earlier versions do not.

    Raises:
        HpccError: no scheduler answers, or it refuses us.
        TimeoutError: it does not answer in time.
    """
    from hpcc import __version__
    from hpcc.dispatch.farm import connect_farm
    from hpcc.ports import SystemClock

    async with (
        asyncio.timeout(_SECONDS),
        connect_farm(farm, SystemClock(), __version__) as connection,
    ):
        return await connection.granted()
