"""The daemon's process on Windows, and what is behind its front. Not yet run there.

The daemon listens, answers, counts and ends in order. Compiles of cl and clang-cl go to the farm if
there is one; what it does not do, and all without one, is for the local cache
(`hpcc.cache.windows`). Others are left to the compiler, and counted.
"""

from __future__ import annotations

import logging
import os
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from functools import partial
from typing import Final

from hpcc.cache.base.api import (
    CompileHandler,
    CompileRequest,
    Done,
    Exec,
    Finish,
    RemoteClient,
    Run,
    RunReport,
)
from hpcc.cache.base.counters import COUNTERS_NAME, Counters
from hpcc.cache.base.times import CompileTimes, Phase, measured
from hpcc.cache.fallbacks import take_fallbacks
from hpcc.cache.farm import FarmCache
from hpcc.cache.key.marker import Marker
from hpcc.cache.recorder.compiles import FAILED, REFUSED
from hpcc.cache.remote.cl_client import cl_client
from hpcc.cache.remote.cl_plan import ClCompile, ClJob, ClPlan
from hpcc.cache.remote.windows_root import windows_marker, windows_root
from hpcc.cache.windows.disk import CacheDisk
from hpcc.cache.windows.local import WindowsCache
from hpcc.cache.windows.notes import FarmRecords
from hpcc.cache.windows.opening import open_windows_cache
from hpcc.cache.windows.system_disk import WindowsDisk, WindowsHitFiles
from hpcc.compilers.families import family_of
from hpcc.config.extras import missing_modules
from hpcc.config.paths import DIR_VARIABLE, Paths
from hpcc.config.settings import Settings
from hpcc.core import CallerError, HpccError, RunHere, WindowsPath, WindowsPathError
from hpcc.core.reasons.bypass import BypassReason
from hpcc.core.reasons.fallback import FallbackReason
from hpcc.daemon.pipe_listener import PIPE_LIMITS, LauncherPipeListener
from hpcc.daemon.pipe_lock import PipeLock
from hpcc.daemon.windows_client import EXIT_ALREADY_RUNNING
from hpcc.ports import Clock, SystemClock
from hpcc.store.private import PrivateStore
from hpcc.windows.files import directory_id, long_path
from hpcc.windows.library import Library, load_library
from hpcc.windows.users import is_raised, own_sid

_log: Final = logging.getLogger("hpcc.daemon.cl")
_EXIT_FAILED: Final = 1
# Why the farm's half leaves a command to the local cache, which may know it.
_OF_FARM: Final[Mapping[str, str]] = {
    BypassReason.MULTIPLE_SOURCES: FallbackReason.MULTIPLE_SOURCES,
    BypassReason.ODD_OUTPUT: FallbackReason.ODD_OUTPUT,
    BypassReason.PCH: FallbackReason.PCH,
    BypassReason.PDB: FallbackReason.PDB,
}
REASON: Final = "windows-host"
RAISED: Final = "elevated-daemon"


class LeftAlone:
    """A `CompileHandler` that leaves every compile to the compiler, and counts `bypass.REASON`."""

    def __init__(self, counters: Counters, run_directory: str, reason: str = REASON) -> None:
        self._counters, self._run_directory, self._reason = counters, run_directory, reason

    def begin(self, request: CompileRequest, is_cancelled: Callable[[], bool]) -> Done | Exec | Run:
        """See `CompileHandler.begin`."""
        del request, is_cancelled
        self._counters.add(f"bypass.{self._reason}")
        return Exec(self._reason)

    def finish(self, request: CompileRequest, run: Run, report: RunReport) -> Finish:
        """Return the compiler's output. Never called, because `begin` returns no `Run`."""
        del request, run
        return Finish(report.stdout, report.stderr)

    def abandon(self, request: CompileRequest, run: Run) -> None:
        """Do nothing: see `finish`."""

    def counters(self) -> dict[str, int]:
        """See `CompileHandler.counters`."""
        self._count_fallbacks()
        return self._counters.snapshot()

    def command(self, words: list[str]) -> dict[str, object]:
        """Refuse: see `CompileHandler.command`."""
        del words
        raise CallerError("this daemon has no such command", reason="malformed-frame")

    def close(self) -> None:
        """See `CompileHandler.close`."""
        self._count_fallbacks()
        self._counters.close()

    def _count_fallbacks(self) -> None:
        for name, count in take_fallbacks(self._run_directory).items():
            self._counters.add(name, count)


class OnDisk(LeftAlone):
    """A `CompileHandler` that keeps the results of cl and clang-cl on this machine."""

    def __init__(
        self, counters: Counters, run_directory: str, cache: WindowsCache, store: PrivateStore
    ) -> None:
        super().__init__(counters, run_directory)
        self._cache, self._store = cache, store
        self._records, self._builds = cache.records, cache.records.builds

    def begin(self, request: CompileRequest, is_cancelled: Callable[[], bool]) -> Done | Exec | Run:
        """See `CompileHandler.begin`."""
        facts, cwd, times = request.facts, request.cwd, CompileTimes()
        request = request._replace(build=self._builds.begin(facts, cwd), times=times)
        answer: Done | Exec | Run | None = None
        try:
            answer = self._begin(request, is_cancelled)
        finally:
            if isinstance(answer, Run):
                times.begin(Phase.COMPILE)
            else:
                self._builds.end(facts, cwd)
        return answer

    def _begin(
        self, request: CompileRequest, is_cancelled: Callable[[], bool]
    ) -> Done | Exec | Run:
        return self._cache.begin(request, is_cancelled)

    def finish(self, request: CompileRequest, run: Run, report: RunReport) -> Finish:
        """See `CompileHandler.finish`."""
        self._builds.end(request.facts, request.cwd)
        return self._cache.finish(run, report)

    def abandon(self, request: CompileRequest, run: Run) -> None:
        """See `CompileHandler.abandon`."""
        self._builds.end(request.facts, request.cwd)
        self._cache.abandon(run)

    def counters(self) -> dict[str, int]:
        """See `CompileHandler.counters`."""
        self._cache.flush()  # a caller that reads the counts may read the records next
        sizes = {
            "store.size_bytes": self._store.size_bytes,
            "store.entries": self._store.entries,
        }
        return {**super().counters(), **sizes}

    def close(self) -> None:
        """See `CompileHandler.close`."""
        self._cache.end_kept_hits()
        self._cache.flush()
        super().close()


class OnFarm(OnDisk):
    """A `CompileHandler` that compiles cl and clang-cl on the farm, if there is one.

    `find_root` returns the project's root of a working directory, or raises WindowsPathError.
    `resolve` returns the path of a program without links and 8.3 names before its last part: CMake
    writes such names, and an image has the compiler under its long one.
    """

    def __init__(
        self,
        counters: Counters,
        run_directory: str,
        cache: WindowsCache,
        store: PrivateStore,
        *,
        farm: FarmCache[ClCompile, ClJob, ClPlan],
        has_farm: Callable[[], bool],
        find_root: Callable[[bytes], WindowsPath],
        resolve: Callable[[str], str],
    ) -> None:
        super().__init__(counters, run_directory, cache, store)
        self._farm, self._has_farm, self._find_root = farm, has_farm, find_root
        self._resolve = resolve

    def _begin(
        self, request: CompileRequest, is_cancelled: Callable[[], bool]
    ) -> Done | Exec | Run:
        if not self._has_farm():
            return super()._begin(request, is_cancelled)
        # A launcher that answers by itself asks neither the farm's image nor the tenant's policy.
        self._cache.end_kept_hits()
        with measured(request.times, Phase.FARM, drops_empty=True):
            answer = self._ask_farm(request, is_cancelled)
        if not isinstance(answer, Done):
            return self._begin_here(request, answer, is_cancelled)
        if answer.exit_code:
            fallback = self._records.fallback()
            self._records.ended(request, REFUSED if fallback else FAILED, fallback)
        return answer

    def _begin_here(
        self, request: CompileRequest, left: Exec | None, is_cancelled: Callable[[], bool]
    ) -> Done | Exec | Run:
        """Begin a compile that the farm has left; it counts a `FallbackReason` itself."""
        why = "" if left is None else _OF_FARM.get(left.reason, "")
        if why:
            self._records.fell_back(why)
        answer = self._cache.begin(request, is_cancelled)
        if why and not isinstance(answer, Exec):  # else it counts as a bypass
            self._counters.add(f"fallback.{why}")
        return answer

    def _ask_farm(
        self, request: CompileRequest, is_cancelled: Callable[[], bool]
    ) -> Done | Exec | None:
        """Return the farm's answer; one with status 0 is recorded."""
        if not family_of(request.compiler, request.argv[1:]).has_windows_farm:
            return None
        try:
            root = self._find_root(request.cwd)
            program = self._resolve(request.compiler.decode("utf-8", "surrogateescape"))
            compiler = program.encode("utf-8", "surrogateescape")
            argv = (compiler, *request.argv[1:])
            request = request._replace(compiler=compiler, argv=argv)
            answer = self._farm.begin(ClCompile(request, root), is_cancelled)
        except WindowsPathError as error:
            return self._farm.fall_back(error.reason, "the working directory cannot be sent")
        except Exception:  # noqa: BLE001 - a fault in hpcc on the way to the farm: the local half still works
            _log.exception("the remote half failed")
            return self._farm.fall_back(
                FallbackReason.INTERNAL_ERROR, "hpcc failed: see the daemon's log"
            )
        assert not isinstance(answer, RunHere), "no request of this client permits one"
        return answer


def product_parts(paths: Paths, settings: Settings) -> tuple[CompileHandler, RemoteClient | None]:
    """Build what is behind the front of a real daemon."""
    counters = Counters(os.path.join(paths.cache, COUNTERS_NAME), now=time.time)
    run_directory = os.fspath(paths.run)
    library = load_library()
    if is_raised(library):
        # An elevated daemon would start programs and write files for launchers with fewer rights.
        return LeftAlone(counters, run_directory, RAISED), None
    disk = WindowsDisk(library)
    home, owner = os.environ.get("USERPROFILE", ""), own_sid(library)

    def marker(asked: CacheDisk, cwd: bytes) -> tuple[WindowsPath, Marker] | None:
        return windows_marker(asked, asked.look, cwd, home=home, owner=owner)

    cache, store = open_windows_cache(
        disk, paths, settings, counters, SystemClock(), marker, home, WindowsHitFiles(library)
    )
    if not settings.remote.is_enabled or missing_modules("client"):
        return OnDisk(counters, run_directory, cache, store), None
    from hpcc.dispatch.remote_inside import InsideClient  # late: gRPC is in the extra hpcc[client]

    remote = InsideClient(paths, settings)
    client = cl_client(disk, FarmRecords(cache.records), cache.image_results)
    farm = FarmCache(remote, client, counters, settings.remote, time.monotonic)
    find_root = partial(windows_root, disk, disk.look, home=home, owner=owner)
    handler = OnFarm(
        counters,
        run_directory,
        cache,
        store,
        farm=farm,
        has_farm=partial(_has_farm, remote),
        find_root=find_root,
        resolve=partial(_resolved, library),
    )
    return handler, remote


def _resolved(library: Library, program: str) -> str:
    home, _, name = long_path(library, program).rpartition("\\")
    return os.path.join(os.path.realpath(home), name)


def _has_farm(remote: RemoteClient) -> bool:
    return remote.farm() is not None


class WindowsPlace:
    """The locked pipe. `daemon.main.Place` has the contract."""

    def __init__(self, library: Library, endpoint_lock: PipeLock) -> None:
        self._library, self.endpoint_lock = library, endpoint_lock

    def engine_name(self, handler: CompileHandler) -> str:
        """Return `launcher`: it answers hits seen before by itself; `none` without a cache."""
        return "launcher" if isinstance(handler, OnDisk) else "none"

    def listener(
        self, handler: CompileHandler, clock: Clock, begin_seconds: float
    ) -> LauncherPipeListener:
        """Build the listener on the pipe."""
        del handler
        return LauncherPipeListener(
            self.endpoint_lock.listener,
            owner=self.endpoint_lock.owner,
            directory_id=partial(directory_id, self._library),
            clock=clock,
            limits=replace(PIPE_LIMITS, begin_seconds=begin_seconds),
        )

    def leave(self) -> None:
        """Release the pipe and its lock."""
        self.endpoint_lock.leave()


class WindowsProcess:
    """A daemon's process on Windows. `daemon.main.Process` has the contract."""

    def prepare(self, argv: Sequence[str] | None) -> None:
        """Remove gRPC's switches and proxies of a user's shell from the environment.

        On Unix the dispatcher's process does not inherit them. Here it is this process.
        """
        del argv  # no options
        for name in list(os.environ):
            if name.upper().startswith("GRPC_") or name.upper().endswith("_PROXY"):
                del os.environ[name]

    def take_place(self, paths: Paths, settings: Settings) -> WindowsPlace:
        """Take the lock and make the pipe; see `Process.take_place`."""
        del settings
        library = load_library()
        endpoint_lock = PipeLock.open(library, paths, os.environ.get(DIR_VARIABLE, ""))
        return WindowsPlace(library, endpoint_lock)

    def report_ready(self) -> None:
        """Do nothing: the starter asks the pipe."""

    def report_failure(self, error: HpccError) -> int:
        """Write the reason to the log; the exit code tells the starter of a second daemon."""
        sys.stderr.write(f"{error}\n")
        return EXIT_ALREADY_RUNNING if error.reason == "already-running" else _EXIT_FAILED
