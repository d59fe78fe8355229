"""The daemon's process: `python -m hpcc.daemon`, started by `hpcc start` or by the launcher."""

from __future__ import annotations

import argparse
import gc
import logging
import os
import resource
import signal
import socket
import sys
import threading
from collections.abc import Callable, Sequence
from typing import Final

from hpcc.cache.base.api import RemoteClient
from hpcc.cache.replay.engine import open_engine
from hpcc.cache.replay.handler import CacheHandler
from hpcc.cache.replay.replay import Replays
from hpcc.config.paths import Paths
from hpcc.config.settings import Settings, load_settings
from hpcc.core import HpccError
from hpcc.daemon.accept import AcceptLimits, Acceptor
from hpcc.daemon.door import Door
from hpcc.daemon.front import Front, FrontLimits
from hpcc.daemon.hit_processes import Helpers, fork_helpers
from hpcc.daemon.lifecycle import Daemon, LifecycleLimits
from hpcc.daemon.spawn import READY
from hpcc.ports import SystemClock
from hpcc.wire import launcher as wire

_log: Final = logging.getLogger("hpcc.daemon")

# A request makes a few dozen objects and no cycles; the default of 700 collects for nothing.
_GC_THRESHOLD: Final = 50_000
# What a remote compile may take beyond its own limit: upload, dispatch, writing the outputs.
_REMOTE_MARGIN_SECONDS: Final = 60.0
_EXIT_FAILED: Final = 1
# A replay takes far less than this, unless its file system hangs.
_STOP_POLLS: Final = 100
_STOP_POLL_SECONDS: Final = 0.02
# Launchers with a compiler running hold a descriptor each; 1024 is a common soft limit.
_DESCRIPTORS: Final = 8192

Parts = Callable[[Paths, Settings], tuple[CacheHandler, RemoteClient | None]]


def run_daemon(
    argv: Sequence[str] | None = None,
    *,
    parts: Parts,
    build_id: str = wire.BUILD_ID,
    limits: LifecycleLimits | None = None,
) -> int:
    """Run one daemon until it is told to stop; `parts` builds what is behind its front."""
    parser = argparse.ArgumentParser(prog="python -m hpcc.daemon")
    parser.add_argument("--ready-fd", type=int, default=-1, metavar="N")
    args = parser.parse_args(argv)
    if args.ready_fd >= 0 and os.fork():
        # The second fork: a session leader could get a terminal back. Before any thread exists.
        os._exit(0)
    os.chdir("/")
    os.umask(0o077)
    _raise_descriptor_limit()
    # Not in the file's every line: what a build was doing is nobody's business.
    logging.basicConfig(format="%(asctime)s %(levelname)s %(name)s %(message)s", level="INFO")
    try:
        daemon = _build(parts, build_id, limits, args.ready_fd)
    except HpccError as error:
        _answer(args.ready_fd, error.reason if error.reason == "already-running" else str(error))
        return _EXIT_FAILED
    signal.signal(signal.SIGTERM, lambda *_: daemon.stop(now=True))
    signal.signal(signal.SIGINT, lambda *_: daemon.stop(now=True))
    signal.signal(signal.SIGHUP, signal.SIG_IGN)
    gc.freeze()
    gc.set_threshold(_GC_THRESHOLD)
    daemon.serve(lambda: _answer(args.ready_fd, READY.decode()))
    return 0


def _raise_descriptor_limit() -> None:
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    wanted = _DESCRIPTORS if hard == resource.RLIM_INFINITY else min(hard, _DESCRIPTORS)
    if soft != resource.RLIM_INFINITY and soft < wanted:
        resource.setrlimit(resource.RLIMIT_NOFILE, (wanted, hard))


def _build(parts: Parts, build_id: str, limits: LifecycleLimits | None, ready_fd: int) -> Daemon:
    paths = Paths.from_env(os.environ)
    settings = load_settings(paths.config_file)
    door = Door.open(paths)
    # Before anything that has threads.
    helpers = _fork_helpers(door, settings.daemon.processes - 1, ready_fd)
    try:
        handler, remote = parts(paths, settings)
    except BaseException:
        door.leave()
        helpers.close()
        raise
    begin_seconds = settings.remote.timeout_seconds + _REMOTE_MARGIN_SECONDS
    clock = SystemClock()

    def open_front(on_admin: Callable[[bytes], bytes], on_version: Callable[[], bool]) -> _Helped:
        front = Front(
            door.listener,
            handler,
            clock=clock,
            on_admin=on_admin,
            on_version=on_version,
            limits=FrontLimits(begin_seconds=begin_seconds),
            build_id=build_id,
        )
        return _Helped(front, helpers)

    return Daemon(
        door,
        handler,
        remote,
        open_front=open_front,
        engine=handler.replays.engine.name,
        clock=clock,
        build_id=build_id,
        limits=limits,
    )


class _Helped:
    """A front and the processes that answer hits beside it."""

    def __init__(self, front: Front, helpers: Helpers) -> None:
        self._front, self._helpers = front, helpers
        self.close_door, self.cancel = front.close_door, front.cancel
        self.in_flight, self.snapshot = front.in_flight, front.snapshot
        self.end = helpers.close

    @property
    def helpers(self) -> list[int]:
        return self._helpers.pids

    def start(self) -> None:
        self._front.start()
        self._helpers.start(self._front.adopt, self._front.count_replayed)


def _fork_helpers(door: Door, count: int, ready_fd: int) -> Helpers:
    """Start what answers hits beside us; the Python twin has no plans that could be handed on."""
    engine = open_engine()
    if count < 1 or engine.name != "native":
        return Helpers({})

    def close_copies() -> None:
        door.close_copies()
        if ready_fd >= 0:
            os.close(ready_fd)

    return fork_helpers(count, door.listener, engine, _serve_replays, close_copies)


def _serve_replays(
    listener: socket.socket, replays: Replays, give_away: Callable[[socket.socket, bytes], None]
) -> Callable[[], None]:
    """Run the accepting half of a front, for a helper."""
    limits = AcceptLimits()
    acceptor = Acceptor(
        listener,
        replays,
        clock=SystemClock(),
        limits=limits,
        on_other=lambda connection, data, _is_busy: give_away(connection, data),
        count=lambda _name: None,
    )

    def watch() -> None:
        pause = threading.Event()
        while not pause.wait(limits.tick_seconds):
            acceptor.send_waits()

    threading.Thread(target=watch, name="hpcc-watch", daemon=True).start()
    acceptor.start()

    def stop() -> None:
        acceptor.close()
        pause = threading.Event()
        for _ in range(_STOP_POLLS):
            if not acceptor.waiting_count():
                return
            pause.wait(_STOP_POLL_SECONDS)

    return stop


def _answer(ready_fd: int, text: str) -> None:
    if ready_fd < 0:
        sys.stderr.write(text + "\n")
        return
    try:
        os.write(ready_fd, text.encode())
        os.close(ready_fd)
    except OSError as error:
        _log.warning("nobody waits for our start: %s", error)
