"""The daemon's client of the dispatcher process, which it starts at the first remote compile.

gRPC and its threads are in that process, so that the daemon stays small and can fork. Requests of
many threads share one socketpair; one reader thread delivers the answers.
"""

from __future__ import annotations

import itertools
import logging
import os
import socket
import subprocess
import sys
import threading
from collections.abc import Callable
from contextlib import suppress
from functools import partial
from typing import Final

from hpcc.config.farm import Farm
from hpcc.config.farm_session import FarmSession
from hpcc.config.paths import Paths
from hpcc.config.settings import Settings
from hpcc.core import (
    CallerError,
    RemoteFailure,
    RemoteOutcome,
    RemoteRequest,
    RunHere,
    SharedInputs,
)
from hpcc.core.build_summary import NO_DISPATCHER, BuildSummary
from hpcc.core.memo import BoundedMemo
from hpcc.core.reasons.fallback import FallbackReason
from hpcc.dispatch.farm_files import FarmFiles
from hpcc.dispatch.remote_frames import (
    LENGTH,
    MAX_FRAME_BYTES,
    UNKNOWN_INPUTS,
    FrameKind,
    decode_frame,
    encode_frame,
    encode_request,
    outcome_of,
)
from hpcc.obs.logs import LOG_FORMAT_VARIABLE

_log: Final = logging.getLogger(__name__)
# How soon a compile whose launcher is gone is cancelled; each check costs a wake-up.
_POLL_SECONDS: Final = 0.5
# The dispatcher enforces the deadline; this margin is for a dispatcher that hangs.
_SLACK_SECONDS: Final = 15.0
_STOP_SECONDS: Final = 5.0
# The dispatcher has less for a report.
_REPORT_SECONDS: Final = 30.0
_MAX_TOLD: Final = 4_096
# Without this limit every compile would start a dispatcher that dies at once.
_MAX_QUICK_DEATHS: Final = 5
# gRPC's event engine hands each event of a connection to a thread of a pool. For one call after the
# other, the older poller costs less: one thread polls and handles. A gRPC without it says so once.
GRPC_SWITCHES: Final = "-event_engine_client"
_LOST: Final = RemoteFailure(FallbackReason.DISPATCHER_LOST, "the dispatcher process ended")


class _Pending:
    """One request and its answer, for one thread that waits. `settle` is called at most once.

    The answer to a report is a word, all others are outcomes.

    A lock that the answer releases: an `Event` costs three locks and Python code on both sides.
    """

    __slots__ = ("_unanswered", "outcome")

    def __init__(self) -> None:
        self._unanswered = threading.Lock()
        self._unanswered.acquire()
        self.outcome: RemoteOutcome | str = _LOST

    def settle(self, outcome: RemoteOutcome | str) -> None:
        self.outcome = outcome
        self._unanswered.release()

    def wait(self, seconds: float) -> bool:
        """Wait for the answer; return whether it is there, after which it is not asked again."""
        return self._unanswered.acquire(timeout=seconds)


class _Link:
    """One dispatcher process, our end of the pair, and the requests that wait for it."""

    def __init__(self, argv: list[str], env: dict[str, str]) -> None:
        ours, theirs = socket.socketpair()
        with theirs:
            self.process = subprocess.Popen(
                [*argv, str(theirs.fileno())],
                pass_fds=(theirs.fileno(),),
                stdin=subprocess.DEVNULL,
                stdout=subprocess.DEVNULL,
                env=env,
                cwd="/",
                start_new_session=True,
            )
        self._socket = ours
        self._send_lock = threading.Lock()
        self._lock = threading.Lock()
        self._pending: dict[int, _Pending] = {}
        self._told: BoundedMemo[bytes, None] = BoundedMemo(_MAX_TOLD)
        self.is_dead = False
        self.answered = 0
        self._reader = threading.Thread(target=self._read, name="hpcc-remote", daemon=True)
        self._reader.start()

    def is_news(self, shared: SharedInputs | None) -> bool:
        """Report whether the process lacks these inputs, and note that it gets them now."""
        if shared is None or shared.name in self._told:
            return False
        self._told[shared.name] = None
        return True

    def ask(self, request_id: int, frame: bytes) -> _Pending:
        pending = _Pending()
        with self._lock:
            if self.is_dead:
                pending.settle(_LOST)
                return pending
            self._pending[request_id] = pending
        self.send(frame)
        return pending

    def send(self, frame: bytes) -> None:
        with self._send_lock:
            try:
                self._socket.sendall(frame)
            except OSError:
                self._die()

    def ended(self, request_id: int, is_compiled: bool) -> None:
        """Report the end of a compile that the process sent to this machine."""
        head = {"is_compiled": is_compiled}
        self.send(encode_frame(FrameKind.ENDED, request_id, head))

    def forget(self, request_id: int) -> None:
        with self._lock:
            self._pending.pop(request_id, None)

    def close(self) -> None:
        """End the process: shut our end of the pair, wait, then kill it."""
        with suppress(OSError):
            self._socket.shutdown(socket.SHUT_RDWR)
        try:
            self.process.wait(_STOP_SECONDS)
        except subprocess.TimeoutExpired:
            self.process.kill()
            self.process.wait()
        self._reader.join(_STOP_SECONDS)
        self._socket.close()

    def _read(self) -> None:
        try:
            while True:
                (length,) = LENGTH.unpack(self._exactly(LENGTH.size))
                if length > MAX_FRAME_BYTES:
                    break
                frame = decode_frame(self._exactly(length))
                with self._lock:
                    pending = self._pending.pop(frame.request_id, None)
                if pending is not None:
                    self.answered += 1
                    is_report = frame.kind is FrameKind.REPORTED
                    pending.settle(str(frame.head["reason"]) if is_report else outcome_of(frame))
        except (OSError, CallerError, EOFError, KeyError) as error:
            _log.info("dispatcher: %s", error)
        finally:
            self._die()

    def _exactly(self, size: int) -> bytes:
        data = bytearray(size)
        view = memoryview(data)
        while view:
            count = self._socket.recv_into(view)
            if not count:
                raise EOFError("the dispatcher closed its end")
            view = view[count:]
        return bytes(data)

    def _die(self) -> None:
        with self._lock:
            self.is_dead = True
            pending, self._pending = list(self._pending.values()), {}
        for waiting in pending:
            waiting.settle(_LOST)
        with suppress(OSError):
            self._socket.shutdown(socket.SHUT_RDWR)
        # Reaps the process, which ends by itself once its pair is shut.
        with suppress(subprocess.TimeoutExpired):
            self.process.wait(_STOP_SECONDS)


class DispatcherClient:
    """A `RemoteClient` over a dispatcher process that it starts at the first compile."""

    def __init__(self, paths: Paths, settings: Settings) -> None:
        self._settings = settings
        self._files = FarmFiles(paths, settings)
        self._lock = threading.Lock()
        self._link: _Link | None = None
        self._quick_deaths = 0
        self._is_closed = False
        self._numbers = itertools.count(1)
        self._before_close: list[Callable[[], None]] = []

    def farm(self) -> Farm | None:
        """See `RemoteClient.farm`."""
        return self._files.farm()

    def session(self) -> FarmSession | None:
        """See `RemoteClient.session`."""
        return self._files.session()

    def compile(self, request: RemoteRequest, is_cancelled: Callable[[], bool]) -> RemoteOutcome:
        """See `RemoteClient.compile`."""
        try:
            link = self._ready_link()
            shared = request.shared
            outcome = self._ask(link, request, is_cancelled, link.is_news(shared))
            if shared and isinstance(outcome, RemoteFailure) and outcome.reason == UNKNOWN_INPUTS:
                # It has dropped them, or another compile's frame with them is still on the way.
                outcome = self._ask(link, request, is_cancelled, True)
        except CallerError as error:
            return RemoteFailure(error.reason, str(error))
        except OSError as error:
            return RemoteFailure(
                FallbackReason.DISPATCHER_START, f"cannot start the dispatcher: {error}"
            )
        return outcome

    def _ask(
        self,
        link: _Link,
        request: RemoteRequest,
        is_cancelled: Callable[[], bool],
        with_shared: bool,
    ) -> RemoteOutcome:
        number = next(self._numbers)
        frame = encode_request(number, request, with_shared=with_shared)
        pending = link.ask(number, frame)
        rounds = (self._settings.remote.timeout_seconds + _SLACK_SECONDS) / _POLL_SECONDS
        for _ in range(int(rounds)):
            if pending.wait(_POLL_SECONDS):
                assert not isinstance(pending.outcome, str)  # that is for reports
                if isinstance(pending.outcome, RunHere):
                    return RunHere(partial(link.ended, number))
                return pending.outcome
            if is_cancelled():
                link.forget(number)
                link.send(encode_frame(FrameKind.CANCEL, number, {}))
                return RemoteFailure(FallbackReason.CANCELLED, "the compile was cancelled")
        link.forget(number)
        link.send(encode_frame(FrameKind.CANCEL, number, {}))
        return RemoteFailure(
            FallbackReason.DISPATCHER_TIMEOUT, "the dispatcher did not answer in time"
        )

    def can_report(self) -> bool:
        """See `TakesBuilds.can_report`."""
        link = self._link
        return link is not None and not link.is_dead

    def report(self, summary: BuildSummary) -> str:
        """See `TakesBuilds.report`."""
        with self._lock:
            link = self._link
        if link is None or link.is_dead:
            return NO_DISPATCHER
        number = next(self._numbers)
        pending = link.ask(number, encode_frame(FrameKind.REPORT, number, summary.table()))
        if not pending.wait(_REPORT_SECONDS):
            link.forget(number)
            link.send(encode_frame(FrameKind.CANCEL, number, {}))
            return "deadline"
        return pending.outcome if isinstance(pending.outcome, str) else NO_DISPATCHER

    def before_close(self, callback: Callable[[], None]) -> None:
        """See `TakesBuilds.before_close`."""
        self._before_close.append(callback)

    def close(self) -> None:
        """End the dispatcher; later compiles fail with `dispatcher-closed`."""
        for callback in self._before_close:
            callback()
        with self._lock:
            self._is_closed = True
            link, self._link = self._link, None
        if link is not None:
            link.close()

    def _ready_link(self) -> _Link:
        with self._lock:
            if self._is_closed:
                raise CallerError("the daemon is closing", reason=FallbackReason.DISPATCHER_CLOSED)
            if self._link is not None and not self._link.is_dead:
                return self._link
            if self._link is not None:
                self._quick_deaths = 0 if self._link.answered else self._quick_deaths + 1
                self._link.close()
                self._link = None
            if self._quick_deaths >= _MAX_QUICK_DEATHS:
                raise CallerError(
                    "the dispatcher keeps dying: see the daemon's log", reason="dispatcher-broken"
                )
            self._link = _Link(self._argv(), _dispatcher_env(self._settings))
            return self._link

    def _argv(self) -> list[str]:
        return [
            sys.executable,
            "-m",
            "hpcc.dispatch.main",
            str(self._files.path),
            str(self._settings.remote.timeout_seconds),
            self._settings.remote.parity,
            self._settings.remote.sharing,
        ]


def _dispatcher_env(settings: Settings) -> dict[str, str]:
    """Return what Python and the locale need, without a shell's proxies and gRPC switches."""
    kept = ("PATH", "HOME", "LANG", "LC_ALL", "PYTHONPATH", "PYTHONHOME", "VIRTUAL_ENV")
    return {
        **{name: os.environ[name] for name in kept if name in os.environ},
        "GRPC_EXPERIMENTS": GRPC_SWITCHES,
        LOG_FORMAT_VARIABLE: settings.daemon.log_format,
    }


def start_remote(paths: Paths, settings: Settings) -> DispatcherClient:
    """Return the daemon's client; nothing is started before the first compile."""
    return DispatcherClient(paths, settings)
