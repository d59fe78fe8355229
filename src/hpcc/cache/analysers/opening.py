"""Builds the planner of a POSIX client: analysers, and all other compiles."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from hpcc.cache.analysers.plan import AnalyserPlanner
from hpcc.cache.base.files import FileMemo
from hpcc.cache.base.stamps import StampClock
from hpcc.cache.key.prepare import Prepared
from hpcc.cache.remote.native_meaning import NativeMeanings
from hpcc.cache.remote.plan import Planner
from hpcc.cache.remote.remote_closure import RemoteClosures
from hpcc.cache.root.ignored import Outgoing


def open_planner(
    directory: Path,
    memo: FileMemo,
    closures: RemoteClosures,
    search_path: Callable[[Prepared], tuple[bytes, ...]],
    outgoing: Outgoing,
    clock: StampClock,
) -> AnalyserPlanner:
    """Return the planner; the one of analysers passes on what is not for it.

    `directory` is the cache's, where the parts keep files that only guests read.
    """
    native = NativeMeanings(directory / "native")
    compiles = Planner(memo, search_path, closures, outgoing, clock, native)
    return AnalyserPlanner(compiles, memo, closures, search_path, outgoing)
