"""The daemon's process: `python -m hpcc.daemon`, started by `hpcc start` or by the launcher.

One main for every platform. It takes the right to listen from the platform (`unix_process`,
`windows_process`), builds the handler, and runs a `Daemon` around both.
"""

from __future__ import annotations

import contextlib
import gc
import logging
import os
import signal
import sys
from collections.abc import Callable, Sequence
from typing import Any, Final, Protocol

from hpcc.cache.base.api import CompileHandler, RemoteClient
from hpcc.config.owners import refuse_foreign_owner
from hpcc.config.paths import Paths
from hpcc.config.settings import Settings, load_settings
from hpcc.core import HpccError
from hpcc.daemon.front import Front
from hpcc.daemon.lifecycle import BACKOFF_NAME, Daemon, EndpointLock, LifecycleLimits
from hpcc.daemon.transport import Listener
from hpcc.obs.logs import ServiceLog
from hpcc.ports import Clock, SystemClock
from hpcc.wire import launcher as wire

# A request makes a few dozen objects and no cycles; with the default of 700 most runs free nothing.
_GC_THRESHOLD: Final = 50_000
# What a remote compile may take beyond its own limit: upload, dispatch, writing the outputs.
_REMOTE_MARGIN_SECONDS: Final = 60.0


class DaemonPlace[Handler: CompileHandler](Protocol):
    """The right to listen for this user's launchers, held until `leave`."""

    @property
    def endpoint_lock(self) -> EndpointLock: ...

    def engine_name(self, handler: Handler) -> str:
        """Return which replay engine answers hits, for `hpcc status`; `none` without replays."""
        ...

    def listener(self, handler: Handler, clock: Clock, begin_seconds: float) -> Listener:
        """Build the listener; called once.

        `begin_seconds` is how long a launcher is asked to wait for one answer.
        """
        ...

    def leave(self) -> None:
        """Release everything; for a daemon that was never built."""
        ...


class Process(Protocol):
    """What differs between platforms in how a daemon's process starts and reports."""

    def prepare(self, argv: Sequence[str] | None) -> None:
        """Read the command line and detach the process from its starter. No thread exists yet."""
        ...

    def take_place(self, paths: Paths, settings: Settings) -> DaemonPlace[Any]:
        """Take the right to listen. No thread exists yet.

        Raises:
            CallerError: a daemon runs already (reason `already-running`), or the place is not ours.
            InfrastructureError: the system refused a call.
        """
        ...

    def report_ready(self) -> None:
        """Tell the starter that launchers can connect."""
        ...

    def report_failure(self, error: HpccError) -> int:
        """Tell the starter why there is no daemon; returns the exit code."""
        ...


Parts = Callable[[Paths, Settings], tuple[CompileHandler, RemoteClient | None]]
"""Builds what is behind the front. On Unix the handler must be a `CacheHandler`."""


def run_daemon(
    argv: Sequence[str] | None = None,
    *,
    parts: Parts,
    build_id: str = wire.BUILD_ID,
    limits: LifecycleLimits | None = None,
) -> int:
    """Run one daemon until it is asked to stop; returns the exit code.

    `parts` builds what is behind the front, after the right to listen was taken.
    """
    process = _this_platform()
    process.prepare(argv)
    # The log never names what a build was doing.
    log = ServiceLog("daemon", "%(asctime)s %(levelname)s %(name)s %(message)s")
    log.begin(logging.INFO)
    try:
        paths = Paths.from_env(os.environ)
        refuse_foreign_owner(paths, os.environ)
        settings = load_settings(paths.config_file)
        log.configured(settings.daemon.log_format)
        daemon = open_daemon(
            process.take_place(paths, settings),
            lambda: parts(paths, settings),
            begin_seconds=settings.remote.timeout_seconds + _REMOTE_MARGIN_SECONDS,
            build_id=build_id,
            limits=limits,
        )
    except HpccError as error:
        return process.report_failure(error)
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, lambda *_: daemon.stop(now=True))
    if sys.platform != "win32":
        signal.signal(signal.SIGHUP, signal.SIG_IGN)
    gc.freeze()
    gc.set_threshold(_GC_THRESHOLD)

    def on_ready() -> None:
        # A launcher that waited too long for this start would leave the daemon alone for a while.
        with contextlib.suppress(OSError):
            (paths.run / BACKOFF_NAME).unlink(missing_ok=True)
        process.report_ready()

    daemon.serve(on_ready)
    return 0


def open_daemon[Handler: CompileHandler](
    place: DaemonPlace[Handler],
    make_parts: Callable[[], tuple[Handler, RemoteClient | None]],
    *,
    begin_seconds: float,
    build_id: str = wire.BUILD_ID,
    limits: LifecycleLimits | None = None,
) -> Daemon:
    """Build a daemon at a place that was taken.

    Raises:
        HpccError: what `make_parts` raises; the place is released then.
    """
    try:
        handler, remote = make_parts()
    except BaseException:
        place.leave()
        raise
    clock = SystemClock()

    def open_front(on_admin: Callable[[bytes], bytes], on_version: Callable[[], bool]) -> Front:
        return Front(
            place.listener(handler, clock, begin_seconds),
            handler,
            on_admin=on_admin,
            on_version=on_version,
            build_id=build_id,
        )

    return Daemon(
        place.endpoint_lock,
        handler,
        remote,
        open_front=open_front,
        engine=place.engine_name(handler),
        clock=clock,
        build_id=build_id,
        limits=limits,
    )


def _this_platform() -> Process:
    if sys.platform == "win32":
        from hpcc.daemon.windows_process import WindowsProcess

        return WindowsProcess()
    from hpcc.daemon.unix_process import UnixProcess

    return UnixProcess()
