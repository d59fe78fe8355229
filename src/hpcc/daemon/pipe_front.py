"""The daemon's front door on Windows: launchers in, answers out, on a named pipe.

The same questions and answers as `front`'s, and the same handler behind them. A thread serves a
launcher from its request to its last answer, also while it runs a compiler: Windows has nothing
like epoll for pipes, and a build has as many launchers as the machine has processors. Nothing is
replayed here: every request is the handler's. Not yet run on Windows.
"""

from __future__ import annotations

import contextlib
import logging
import threading
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from typing import Final, Protocol

from hpcc.cache.base.api import CompileHandler, CompileRequest, Done, Exec, Run, RunReport
from hpcc.core import CallerError, HpccError
from hpcc.ports import Clock
from hpcc.wire import launcher as wire

_log: Final = logging.getLogger("hpcc.daemon.pipe")
# A request is nearly always shorter, and then one read has all of it.
_FIRST_READ_BYTES: Final = 64 << 10
_CHUNK_BYTES: Final = 1 << 20
# What a launcher sends for root and namespaces where there are none.
_NO_PLACE: Final = (0, 0)
_PAUSE_SECONDS: Final = 0.1


class Connection(Protocol):
    """One launcher, or a command that asks; see `hpcc.windows.PipeConnection`."""

    def receive(self, size: int, wait_ms: int | None) -> bytes: ...
    def send(self, data: bytes, wait_ms: int) -> None: ...
    def client(self) -> str: ...
    def is_gone(self) -> bool: ...
    def cancel(self) -> None: ...
    def close(self) -> None: ...


class Listener(Protocol):
    """Who comes; see `hpcc.windows.PipeListener`."""

    def accept(self) -> Connection | None: ...
    def close(self) -> None: ...


@dataclass(frozen=True, slots=True, kw_only=True)
class PipeLimits:
    """What one front allows itself."""

    # Each launcher has one from its request to its end; the last one only says that we are busy.
    threads: int = 256
    idle_threads: int = 4
    receive_ms: int = 10_000
    # The launcher gives up after 2 s, then 10 s, of silence.
    tick_seconds: float = 0.5
    # Longer than any remote compile may take: then WAIT stops and the launcher helps itself.
    begin_seconds: float = 900.0
    # An answer that nobody has read yet goes with the pipe: so long its reader has.
    linger_ms: int = 2000


class _Peer:
    """A connection, and whether its launcher waits for an answer."""

    def __init__(self, connection: Connection) -> None:
        self.connection = connection
        self.lock = threading.Lock()
        self.waits_since: float | None = None
        self.is_running = False


class PipeFront:
    """Serves one pipe until it is told to stop.

    `owner` is the user whose launchers are served. `directory_id` tells what a launcher must have
    seen as its working directory; drives may be another session's. `on_admin` and `on_version`:
    see `Front`.
    """

    def __init__(
        self,
        listener: Listener,
        handler: CompileHandler,
        *,
        owner: str,
        directory_id: Callable[[str], tuple[int, int]],
        clock: Clock,
        on_admin: Callable[[bytes], bytes],
        on_version: Callable[[], bool],
        limits: PipeLimits | None = None,
        build_id: str = wire.BUILD_ID,
    ) -> None:
        self._listener, self._handler, self._clock = listener, handler, clock
        self._owner, self._directory_id = owner, directory_id
        self._on_admin, self._on_version = on_admin, on_version
        self._limits = limits or PipeLimits()
        self._build_id = build_id
        self._lock = threading.Lock()
        self._peers: set[_Peer] = set()
        self._threads = self._idle = 0
        self._is_cancelled = False
        self._ended = threading.Event()
        self._counts: Counter[str] = Counter()

    # ---- life ----

    @property
    def helpers(self) -> list[int]:
        """Return no processes: see `ServingFront`."""
        return []

    def start(self) -> None:
        """Begin to serve, on threads of its own."""
        threading.Thread(target=self._watch, name="hpcc-watch", daemon=True).start()
        with self._lock:
            for _ in range(self._limits.idle_threads):
                self._add_thread()

    def close_door(self) -> None:
        """Accept nobody any more; what is under way goes on."""
        self._listener.close()

    def cancel(self) -> None:
        """Tell everything under way that nobody waits for it."""
        self._is_cancelled = True
        with self._lock:
            peers = list(self._peers)
        for peer in peers:
            peer.connection.cancel()

    def end(self) -> None:
        """Send no more signs of life; nothing is under way then."""
        self._ended.set()

    def in_flight(self) -> tuple[int, int]:
        """Return how many compiles wait for an answer, and how many run at their launcher."""
        with self._lock:
            waiting = sum(1 for peer in self._peers if peer.waits_since is not None)
            return waiting, sum(1 for peer in self._peers if peer.is_running)

    def snapshot(self) -> dict[str, int]:
        """Return what the front counted; what reached the handler is counted there."""
        with self._lock:
            return dict(self._counts)

    def _count(self, name: str) -> None:
        with self._lock:
            self._counts[name] += 1

    # ---- threads ----

    def _add_thread(self) -> None:
        self._threads += 1
        self._idle += 1
        threading.Thread(target=self._run, name="hpcc-front", daemon=True).start()

    def _run(self) -> None:
        while True:
            try:
                connection = self._listener.accept()
            except HpccError as error:
                _log.warning("accept: %s", error)  # too many handles: without a pause this spins
                threading.Event().wait(_PAUSE_SECONDS)
                continue
            is_busy = self._become_busy()
            if connection is None:
                return
            self._serve(connection, is_busy)
            if not self._become_idle():
                return

    def _become_busy(self) -> bool:
        """Leave accept(); true if nobody else may come there."""
        with self._lock:
            self._idle -= 1
            if self._idle:
                return False
            if self._threads >= self._limits.threads:
                return True
            self._add_thread()
            return False

    def _become_idle(self) -> bool:
        with self._lock:
            if self._idle >= 2 * self._limits.idle_threads:
                self._threads -= 1
                return False
            self._idle += 1
            return True

    # ---- one connection ----

    def _serve(self, connection: Connection, is_busy: bool) -> None:
        peer = _Peer(connection)
        with self._lock:
            self._peers.add(peer)
        try:
            self._answer(peer, is_busy)
        except CallerError as error:
            self._count(f"refused.{error.reason}")
            _log.warning("refused: %s", error)
        except (HpccError, OSError):
            self._count("lost.launcher")
        except Exception:  # noqa: BLE001 - a thread's root: logged, and the launcher helps itself
            self._count("failed.internal-error")
            _log.exception("a connection failed")
        finally:
            with self._lock:
                self._peers.discard(peer)
            connection.close()

    def _answer(self, peer: _Peer, is_busy: bool) -> None:
        data = self._receive(peer.connection)
        # Known only now: what is read first shows who wrote it. Nothing was looked at yet.
        if peer.connection.client() != self._owner:
            self._count("refused.foreign-user")
            return
        kind, body = self._frame(peer.connection, data)
        if kind == wire.REQUEST:
            self._compile(peer, body, is_busy)
        elif kind == wire.ADMIN:
            self._send_last(peer, wire.frame(wire.ADMIN_REPLY, self._on_admin(body)))
        else:
            self._count("refused.malformed-frame")

    def _compile(self, peer: _Peer, body: bytes, is_busy: bool) -> None:
        # Checked before the rest: another protocol's request has another shape.
        if wire.request_protocol(body) != wire.PROTOCOL_VERSION:
            return self._refuse_version(peer)
        sent = wire.decode_request(body, is_windows=True)
        if sent.build_id != self._build_id.encode():
            return self._refuse_version(peer)
        reason = "daemon-busy" if is_busy else self._reason_not_ours(sent)
        if reason:
            self._count(f"exec.{reason}")
            return self._send_last(peer, wire.encode_exec(reason))
        request = CompileRequest(
            sent.argv, sent.compiler, sent.cwd, dict(sent.env), sent.umask, sent.stderr_is_tty
        )
        match self._begin(peer, request):
            case Done(exit_code, stdout, stderr):
                answer = wire.encode_done(wire.LauncherDone(exit_code, stdout, stderr))
                return self._send_last(peer, answer)
            case Exec(reason):
                return self._send_last(peer, wire.encode_exec(reason))
            case run:
                return self._run_there(peer, request, run)

    def _reason_not_ours(self, sent: wire.LauncherRequest) -> str:
        if sent.mount_id != _NO_PLACE or sent.root_id != _NO_PLACE:
            return "other-mount-namespace"
        try:
            # Letters of drives are a session's own: the same path may be another directory.
            is_same = self._directory_id(sent.cwd.decode()) == sent.cwd_id
        except (HpccError, ValueError):
            is_same = False
        return "" if is_same else "other-directory"

    def _begin(self, peer: _Peer, request: CompileRequest) -> Done | Exec | Run:
        self._count("requests")
        try:
            with self._waiting(peer):
                return self._handler.begin(request, partial(self._is_abandoned, peer))
        except Exception:  # noqa: BLE001 - the compile goes on without us; the log has the fault
            _log.exception("begin failed")
            self._count("exec.internal-error")
            return Exec("internal-error")

    def _is_abandoned(self, peer: _Peer) -> bool:
        return self._is_cancelled or peer.connection.is_gone()

    def _refuse_version(self, peer: _Peer) -> None:
        self._count("refused.other-version")
        is_leaving = self._on_version()
        self._send_last(peer, wire.encode_version(self._build_id, is_draining=is_leaving))

    def _run_there(self, peer: _Peer, request: CompileRequest, run: Run) -> None:
        """Have the launcher run a compiler, and take its report."""
        peer.is_running = True
        try:
            order = wire.LauncherRun(run.argv, run.filter_headers, run.is_tentative)
            peer.connection.send(wire.encode_run(order, is_windows=True), self._limits.receive_ms)
            report = self._receive_report(peer)
        except (HpccError, OSError):
            self._abandon(request, run)
            raise
        peer.is_running = False
        with self._waiting(peer):
            finish = self._handler.finish(request, run, report)
        self._send_last(peer, wire.encode_finish(finish.stdout, finish.stderr))

    def _receive_report(self, peer: _Peer) -> RunReport:
        # As long as the compiler takes: its end, the launcher's or our own ends this.
        data = peer.connection.receive(_FIRST_READ_BYTES, None)
        if not data:
            raise ConnectionResetError("the launcher is gone")
        kind, body = self._frame(peer.connection, data)
        if kind != wire.REPORT:
            raise CallerError("launcher frame: not a report", reason="malformed-frame")
        return RunReport(*wire.decode_report(body))

    def _abandon(self, request: CompileRequest, run: Run) -> None:
        try:
            self._handler.abandon(request, run)
        except Exception:  # noqa: BLE001 - nobody is there to tell; the log has the fault
            _log.exception("abandon failed")

    # ---- frames ----

    def _receive(self, connection: Connection) -> bytes:
        data = connection.receive(_FIRST_READ_BYTES, self._limits.receive_ms)
        if not data:
            raise ConnectionResetError("the peer closed")
        return data

    def _frame(self, connection: Connection, data: bytes) -> tuple[int, bytes]:
        """Read one frame, of which `data` is here; nothing may follow until it is answered."""
        deadline = self._clock.monotonic() + self._limits.receive_ms / 1000
        buffer = bytearray(data)
        end = wire.HEADER_BYTES
        kind = -1
        while True:
            if kind < 0 and len(buffer) >= wire.HEADER_BYTES:
                kind, length = wire.parse_header(buffer)
                end += length
            if kind >= 0 and len(buffer) >= end:
                break
            left_ms = int((deadline - self._clock.monotonic()) * 1000)
            more = connection.receive(min(end - len(buffer), _CHUNK_BYTES), max(left_ms, 0))
            if not more:
                raise ConnectionResetError("the peer closed")
            buffer += more
        if len(buffer) > end:
            raise CallerError("launcher frame: bytes after its end", reason="malformed-frame")
        return kind, bytes(buffer[wire.HEADER_BYTES :])

    def _send_last(self, peer: _Peer, frame: bytes) -> None:
        """Answer for the last time, and stay until that is read."""
        peer.connection.send(frame, self._limits.receive_ms)
        with contextlib.suppress(OSError):
            peer.connection.receive(1, self._limits.linger_ms)

    # ---- signs of life ----

    @contextmanager
    def _waiting(self, peer: _Peer) -> Iterator[None]:
        with peer.lock:
            peer.waits_since = self._clock.monotonic()
        try:
            yield
        finally:
            # Under its lock, as WAIT is sent: that never lands inside an answer.
            with peer.lock:
                peer.waits_since = None

    def _watch(self) -> None:
        while not self._ended.wait(self._limits.tick_seconds):
            with self._lock:
                peers = [peer for peer in self._peers if peer.waits_since is not None]
            for peer in peers:
                self._send_wait(peer)

    def _send_wait(self, peer: _Peer) -> None:
        """Tell one launcher that we live: it waits longer than a tick and no longer than we may."""
        limits = self._limits
        with peer.lock:
            if peer.waits_since is None:
                return
            age = self._clock.monotonic() - peer.waits_since
            if limits.tick_seconds / 2 <= age <= limits.begin_seconds:
                # Gone, or not reading: whoever answers finds out.
                with contextlib.suppress(OSError):
                    peer.connection.send(wire.WAIT_FRAME, 0)
