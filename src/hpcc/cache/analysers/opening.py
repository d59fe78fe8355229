"""Builds the planner of a POSIX client: analysers, units that import, and all other compiles."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from hpcc.cache.analysers.plan import AnalyserPlanner
from hpcc.cache.base.files import FileMemo
from hpcc.cache.base.stamps import StampClock
from hpcc.cache.imports.plan import ImportPlanner
from hpcc.cache.imports.precompiled import PrecompiledPlanner
from hpcc.cache.key.prepare import Prepared
from hpcc.cache.remote.host_parity import HostParity
from hpcc.cache.remote.native_meaning import NativeMeanings
from hpcc.cache.remote.plan import Planner
from hpcc.cache.remote.remote_closure import RemoteClosures
from hpcc.cache.results.interfaces import Interfaces
from hpcc.cache.results.precompiled import PrecompiledHeaders
from hpcc.cache.root.ignored import Outgoing
from hpcc.store.private import PrivateStore


def open_planner(
    directory: Path,
    memo: FileMemo,
    store: PrivateStore,
    host: HostParity,
    closures: RemoteClosures,
    search_path: Callable[[Prepared], tuple[bytes, ...]],
    outgoing: Outgoing,
    clock: StampClock,
) -> AnalyserPlanner:
    """Return the planner; each part of it passes on what is not for it.

    `directory` is the cache's, where the parts keep files that only guests read.
    """
    interfaces, precompiled = Interfaces(store, memo), PrecompiledHeaders(store, memo)
    native = NativeMeanings(directory / "native")
    compiles = Planner(memo, search_path, closures, outgoing, clock, native)
    own = PrecompiledPlanner(compiles, memo, closures, precompiled, host, outgoing)
    importing = ImportPlanner(
        own, memo, closures, interfaces, host, outgoing, directory / "modules"
    )
    return AnalyserPlanner(
        importing, memo, closures, search_path, outgoing, directory / "databases"
    )
