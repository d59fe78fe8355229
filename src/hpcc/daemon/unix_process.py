"""The daemon's process on Unix: its detachment, its socket, and the hit processes beside it."""

from __future__ import annotations

import argparse
import logging
import os
import resource
import sys
from collections.abc import Sequence
from typing import Final

from hpcc.cache.replay.engine import open_engine
from hpcc.cache.replay.handler import CacheHandler
from hpcc.config.paths import Paths
from hpcc.config.settings import Settings
from hpcc.core import HpccError
from hpcc.daemon.hit_processes import Helpers, fork_helpers
from hpcc.daemon.socket_lock import SocketLock
from hpcc.daemon.spawn import READY
from hpcc.daemon.transport import FrontLimits
from hpcc.daemon.unix_listener import UnixListener, serve_replays
from hpcc.ports import Clock

_log: Final = logging.getLogger("hpcc.daemon")

# Each launcher with a compiler running holds a descriptor; 1024 is a common soft limit.
_DESCRIPTORS: Final = 8192
_EXIT_FAILED: Final = 1


class UnixPlace:
    """The locked socket and its hit processes. `daemon.main.Place` has the contract."""

    def __init__(self, endpoint_lock: SocketLock, helpers: Helpers) -> None:
        self.endpoint_lock, self._helpers = endpoint_lock, helpers

    def engine_name(self, handler: CacheHandler) -> str:
        """Return the name of the replay engine: `native` or its Python equivalent's."""
        return handler.replays.engine.name

    def listener(self, handler: CacheHandler, clock: Clock, begin_seconds: float) -> UnixListener:
        """Build the listener on the socket."""
        if self._helpers.marks is not None:
            handler.replays.writing.watch(self._helpers.marks)
        return UnixListener(
            self.endpoint_lock.listener,
            handler.replays,
            clock=clock,
            limits=FrontLimits(begin_seconds=begin_seconds),
            helpers=self._helpers,
        )

    def leave(self) -> None:
        """Remove the socket and end the hit processes."""
        self.endpoint_lock.leave()
        self._helpers.close()


class UnixProcess:
    """A daemon's process on Unix. `daemon.main.Process` has the contract."""

    def __init__(self) -> None:
        self._ready_fd = -1

    def prepare(self, argv: Sequence[str] | None) -> None:
        """Detach: second fork, `/` as working directory, umask 077, many descriptors."""
        parser = argparse.ArgumentParser(prog="python -m hpcc.daemon")
        parser.add_argument("--ready-fd", type=int, default=-1, metavar="N")
        self._ready_fd = parser.parse_args(argv).ready_fd
        if self._ready_fd >= 0 and os.fork():
            # The second fork: a session leader could get a terminal back. No thread exists yet.
            os._exit(0)
        os.chdir("/")
        os.umask(0o077)
        _raise_descriptor_limit()

    def take_place(self, paths: Paths, settings: Settings) -> UnixPlace:
        """Bind the socket and fork the hit processes; see `Process.take_place`."""
        endpoint_lock = SocketLock.open(paths)
        return UnixPlace(
            endpoint_lock, self._fork_helpers(endpoint_lock, settings.daemon.processes - 1)
        )

    def report_ready(self) -> None:
        """Write `ready` to the starter's pipe."""
        self._answer(READY.decode())

    def report_failure(self, error: HpccError) -> int:
        """Write the reason to the starter's pipe; returns 1."""
        self._answer(error.reason if error.reason == "already-running" else str(error))
        return _EXIT_FAILED

    def _fork_helpers(self, endpoint_lock: SocketLock, count: int) -> Helpers:
        """Fork the hit processes. The Python engine has no plans that another process can use."""
        engine = open_engine()
        if count < 1 or engine.name != "native":
            return Helpers({})

        def close_copies() -> None:
            endpoint_lock.close_copies()
            if self._ready_fd >= 0:
                os.close(self._ready_fd)

        return fork_helpers(count, endpoint_lock.listener, engine, serve_replays, close_copies)

    def _answer(self, text: str) -> None:
        if self._ready_fd < 0:
            sys.stderr.write(text + "\n")
            return
        try:
            os.write(self._ready_fd, text.encode())
            os.close(self._ready_fd)
        except OSError as error:
            _log.warning("no process waits for the daemon's start: %s", error)


def _raise_descriptor_limit() -> None:
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    wanted = _DESCRIPTORS if hard == resource.RLIM_INFINITY else min(hard, _DESCRIPTORS)
    if soft != resource.RLIM_INFINITY and soft < wanted:
        resource.setrlimit(resource.RLIMIT_NOFILE, (wanted, hard))
