"""The daemon's process on Windows: `python -m hpcc.daemon`. Not yet run there.

It listens, answers, counts and ends in order. It keeps no results: the local cache rests on what
a POSIX `stat` says of files, and what stands for that on Windows is not proved (docs/windows.md).
So each compile is left to the compiler, and counted.
"""

from __future__ import annotations

import logging
import os
import signal
import sys
import time
from collections.abc import Callable, Sequence
from typing import Final

from hpcc.config import DIR_VARIABLE, Paths, Settings, load_settings
from hpcc.core import HpccError
from hpcc.daemon._api import CompileHandler, CompileRequest, Exec, Finish, Run, RunReport
from hpcc.daemon._counters import COUNTERS_NAME, Counters
from hpcc.daemon._fallbacks import take_fallbacks
from hpcc.daemon._lifecycle import Daemon, LifecycleLimits
from hpcc.daemon._pipe_front import PipeFront
from hpcc.daemon._windows_client import EXIT_ALREADY_RUNNING
from hpcc.daemon._windows_door import PipeDoor
from hpcc.ports import SystemClock
from hpcc.windows import Library, directory_id, load_library
from hpcc.wire import launcher as wire

_EXIT_FAILED: Final = 1
REASON: Final = "windows-host"


class LeftAlone:
    """A `CompileHandler` that has every compile run as it is, and counts it."""

    def __init__(self, counters: Counters, run_directory: str) -> None:
        self._counters, self._run_directory = counters, run_directory

    def begin(self, request: CompileRequest, is_cancelled: Callable[[], bool]) -> Exec:
        """See `CompileHandler.begin`."""
        del request, is_cancelled
        self._counters.add(f"bypass.{REASON}")
        return Exec(REASON)

    def finish(self, request: CompileRequest, run: Run, report: RunReport) -> Finish:
        """Show what the compiler said: no `Run` is ever given."""
        del request, run
        return Finish(report.stdout, report.stderr)

    def abandon(self, request: CompileRequest, run: Run) -> None:
        """Forget nothing: see `finish`."""

    def counters(self) -> dict[str, int]:
        """See `CompileHandler.counters`."""
        self._count_fallbacks()
        return self._counters.snapshot()

    def close(self) -> None:
        """See `CompileHandler.close`."""
        self._count_fallbacks()
        self._counters.close()

    def _count_fallbacks(self) -> None:
        for name, count in take_fallbacks(self._run_directory).items():
            self._counters.add(name, count)


Parts = Callable[[Paths, Settings], CompileHandler]


def product_parts(paths: Paths, _settings: Settings) -> CompileHandler:
    """Build what is behind the pipe of a real daemon."""
    counters = Counters(os.path.join(paths.cache, COUNTERS_NAME), now=time.time)
    return LeftAlone(counters, os.fspath(paths.run))


def run_daemon(
    argv: Sequence[str] | None = None,
    *,
    parts: Parts = product_parts,
    build_id: str = wire.BUILD_ID,
    limits: LifecycleLimits | None = None,
) -> int:
    """Run one daemon until it is told to stop."""
    del argv  # it takes none here
    logging.basicConfig(format="%(asctime)s %(levelname)s %(name)s %(message)s", level="INFO")
    try:
        paths = Paths.from_env(os.environ)
        daemon = open_daemon(
            load_library(),
            paths,
            lambda: parts(paths, load_settings(paths.config_file)),
            hpcc_dir=os.environ.get(DIR_VARIABLE, ""),
            build_id=build_id,
            limits=limits,
        )
    except HpccError as error:
        sys.stderr.write(f"{error}\n")
        return EXIT_ALREADY_RUNNING if error.reason == "already-running" else _EXIT_FAILED
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, lambda *_: daemon.stop(now=True))
    daemon.serve(lambda: None)
    return 0


def open_daemon(
    library: Library,
    paths: Paths,
    make_handler: Callable[[], CompileHandler],
    *,
    hpcc_dir: str,
    build_id: str = wire.BUILD_ID,
    limits: LifecycleLimits | None = None,
) -> Daemon:
    """Take the pipe and build a daemon around it, with a handler that is made only then.

    Raises:
        HpccError: see `PipeDoor.open`; or what `make_handler` raises.
    """
    door = PipeDoor.open(library, paths, hpcc_dir)
    try:
        handler = make_handler()
    except BaseException:
        door.leave()
        raise
    clock = SystemClock()

    def open_front(on_admin: Callable[[bytes], bytes], on_version: Callable[[], bool]) -> PipeFront:
        return PipeFront(
            door.listener,
            handler,
            owner=door.owner,
            directory_id=lambda path: directory_id(library, path),
            clock=clock,
            on_admin=on_admin,
            on_version=on_version,
            build_id=build_id,
        )

    return Daemon(
        door,
        handler,
        None,
        open_front=open_front,
        engine="none",
        clock=clock,
        build_id=build_id,
        limits=limits,
    )
