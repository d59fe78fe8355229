"""The daemon's life: one per user, found by its socket or pipe, and leaving neither behind."""

from __future__ import annotations

import json
import logging
import os
import threading
from collections.abc import Callable
from dataclasses import dataclass
from typing import Final, Protocol

from hpcc import __version__
from hpcc.cache.base.api import CompileHandler, RemoteClient
from hpcc.core import CallerError, HpccError, InfrastructureError
from hpcc.daemon.front import Front
from hpcc.ports import Clock
from hpcc.wire import launcher as wire

_log: Final = logging.getLogger("hpcc.daemon")

BACKOFF_NAME: Final = "backoff"


@dataclass(frozen=True, slots=True, kw_only=True)
class LifecycleLimits:
    """Time limits of one daemon's life."""

    # A younger daemon is not replaced by another build's launcher. Otherwise two builds used side
    # by side would replace each other's daemon all the time.
    min_age_seconds: float = 10.0
    # A remote compile may take this long. A new daemon already serves later launchers.
    drain_seconds: float = 900.0
    # `stop --now`: launchers compile by themselves once their connection is gone.
    stop_seconds: float = 5.0
    poll_seconds: float = 0.05
    # Some machines clean /tmp: a daemon whose socket is gone must end.
    check_seconds: float = 15.0


class EndpointLock(Protocol):
    """The right to be this user's daemon, and the name under which launchers find it."""

    @property
    def path(self) -> str:
        """Return the name: the path of a socket or the name of a pipe."""
        ...

    def is_reachable(self) -> bool:
        """Report whether the name still leads to this daemon."""
        ...

    def leave(self) -> None:
        """Release the name, so that another daemon can take it. May be called again."""
        ...


OpenFront = Callable[[Callable[[bytes], bytes], Callable[[], bool]], Front]
"""Builds a front from `on_admin` and `on_version`; see `Front`."""


class Daemon:
    """One running daemon: door, front, handler and client of a farm."""

    def __init__(
        self,
        endpoint_lock: EndpointLock,
        handler: CompileHandler,
        remote: RemoteClient | None,
        *,
        open_front: OpenFront,
        engine: str,
        clock: Clock,
        build_id: str = wire.BUILD_ID,
        limits: LifecycleLimits | None = None,
    ) -> None:
        self._endpoint_lock, self._handler, self._remote, self._clock = (
            endpoint_lock,
            handler,
            remote,
            clock,
        )
        self._build_id, self._limits = build_id, limits or LifecycleLimits()
        self._engine = engine
        self._started = clock.monotonic()
        self._stopping = threading.Event()
        self._hurry = threading.Event()
        self._front = open_front(self._on_admin, self._on_version)

    def serve(self, on_ready: Callable[[], None]) -> None:
        """Serve until `stop`, then until nothing is under way; releases everything.

        `on_ready` is called once launchers can connect.
        """
        self._front.start()
        on_ready()
        try:
            while not self._stopping.wait(self._limits.check_seconds):
                if not self._endpoint_lock.is_reachable():
                    _log.warning("the socket was removed: the daemon stops")
                    break
            self._drain()
        finally:
            self._endpoint_lock.leave()
            self._front.close_door()
            self._front.end()
            self._handler.close()
            if self._remote is not None:
                self._remote.close()

    def stop(self, *, now: bool) -> None:
        """Make `serve` end; with `now` it cancels what is under way instead of waiting."""
        if now:
            self._hurry.set()
        self._stopping.set()

    def _drain(self) -> None:
        self._stopping.set()
        self._endpoint_lock.leave()
        self._front.close_door()
        deadline = self._clock.monotonic() + self._limits.drain_seconds
        while not self._front.is_idle() and self._clock.monotonic() < deadline:
            if self._hurry.wait(self._limits.poll_seconds):
                break
        self._front.cancel()
        deadline = self._clock.monotonic() + self._limits.stop_seconds
        pause = threading.Event()
        while not self._front.is_idle() and self._clock.monotonic() < deadline:
            pause.wait(self._limits.poll_seconds)

    def _on_version(self) -> bool:
        if self._clock.monotonic() - self._started < self._limits.min_age_seconds:
            return False
        # Before the answer: the launcher that gets it starts the next daemon.
        self._endpoint_lock.leave()
        self.stop(now=False)
        return True

    def _on_admin(self, body: bytes) -> bytes:
        match body:
            case b"status":
                answer = self._status()
            case b"stats":
                answer = self._stats()
            case b"stop" | b"stop-now":
                answer = {"pid": os.getpid()}
                self._endpoint_lock.leave()
                self.stop(now=body == b"stop-now")
            case _ if body.startswith(b"pack\0"):
                answer = self._command(body)
            case _:
                raise CallerError("unknown command to the daemon", reason="malformed-frame")
        return json.dumps(answer).encode()

    def _command(self, body: bytes) -> dict[str, object]:
        """Let the handler answer; what it refuses is an answer with `refusal`."""
        try:
            return self._handler.command(os.fsdecode(body).split("\0")[1:])
        except HpccError as error:
            return {"refusal": str(error)}

    def _status(self) -> dict[str, object]:
        waiting, running = self._front.in_flight()
        farm = self._farm()
        return {
            "pid": os.getpid(),
            "socket": self._endpoint_lock.path,
            "version": __version__,
            "build_id": self._build_id,
            "engine": self._engine,
            "helpers": self._front.helpers,
            "uptime_seconds": self._clock.monotonic() - self._started,
            "waiting": waiting,
            "running": running,
            "is_stopping": self._stopping.is_set(),
            "farm": farm,
        }

    def _farm(self) -> dict[str, str] | None:
        try:
            farm = self._remote.farm() if self._remote is not None else None
        except (CallerError, InfrastructureError) as error:
            return {"error": str(error)}
        if farm is None:
            return None
        # Never the secret.
        return {
            "scheduler": farm.scheduler,
            "tenant": farm.tenant,
            "image": farm.image,
            "isolation": farm.isolation,
        }

    def _stats(self) -> dict[str, object]:
        return {
            "counters": self._handler.counters(),
            "front": self._front.snapshot(),
            "pid": os.getpid(),
            "uptime_seconds": self._clock.monotonic() - self._started,
        }
