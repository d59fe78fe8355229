"""Builds the local cache of a Windows client and opens its store."""

from __future__ import annotations

import os
import time

from hpcc.cache.base.counters import Counters
from hpcc.cache.base.files import FileMemo
from hpcc.cache.results.records import make_records
from hpcc.cache.results.results import Results
from hpcc.cache.root.build_identity import Builds
from hpcc.cache.windows.disk import CacheDisk
from hpcc.cache.windows.kept_hits import HitFiles, KeptHits
from hpcc.cache.windows.local import WindowsCache
from hpcc.cache.windows.precompiled import PrecompiledRecords
from hpcc.cache.windows.sharing import FindMarker, WindowsSharing
from hpcc.config.paths import Paths
from hpcc.config.settings import Settings
from hpcc.core import WindowsPathError
from hpcc.ports import Clock
from hpcc.store.private import STORE_NAME, PrivateStore


def open_windows_cache(
    disk: CacheDisk,
    paths: Paths,
    settings: Settings,
    counters: Counters,
    clock: Clock,
    find_marker: FindMarker,
    home: str,
    files: HitFiles | None = None,
) -> tuple[WindowsCache, PrivateStore]:
    """Open the store, and return it with the cache whose results it keeps.

    `find_marker` and `home` are those of `WindowsSharing`. Without `files` no hit is kept for
    launchers.
    """
    limits = settings.cache
    store = PrivateStore(
        os.path.join(paths.cache, STORE_NAME),
        max_size_bytes=limits.max_size_bytes,
        max_entry_bytes=limits.max_entry_bytes,
        now=clock.now,
        count=counters.add,
    )
    counters.on_flush(store.flush)
    results = Results(store, FileMemo(time.time_ns), counters)

    def root_of(cwd: bytes) -> bytes:
        """Return what compiles of one build have in common, without a name of the build."""
        try:
            found = find_marker(disk, cwd)
        except WindowsPathError:
            return cwd
        return cwd if found is None else str(found[0]).encode()

    builds = Builds(counters.add, clock.monotonic, root_of)
    records = make_records(os.fspath(paths.cache), results, counters, builds)
    sharing = WindowsSharing(find_marker, home)
    made = PrecompiledRecords(disk, store)
    kept = KeptHits(disk, files, paths.run, counters, records, sharing, clock)
    kept.open()
    cache = WindowsCache(disk, results, counters, records, sharing, made, kept, limits)
    return cache, store
