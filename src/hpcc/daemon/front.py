"""The daemon's front door: launchers in, answers out, on a Unix socket.

What is not a replay (`accept`) comes here, on the thread that accepted it. A connection whose
launcher is running a compiler holds no thread: it is parked with the watcher, which also sends WAIT
for answers that take long.

Tuples, bytes, blocking sockets and threads: this is the hit path (docs/adr/0001-architecture.md).
"""

from __future__ import annotations

import contextlib
import logging
import select
import socket
import threading
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import Final

from hpcc.cache.base.api import CompileRequest, Done, Exec, Finish, Run, RunReport
from hpcc.cache.replay.handler import CacheHandler
from hpcc.cache.replay.replay import Replay
from hpcc.core import CallerError, HpccError
from hpcc.daemon.accept import AcceptLimits, Acceptor
from hpcc.daemon.front_io import (
    is_gone,
    mount_ids,
    receive_frame,
    send_frame,
    stat_id,
)
from hpcc.ports import Clock
from hpcc.wire import launcher as wire

_log: Final = logging.getLogger("hpcc.daemon.front")


@dataclass(frozen=True, slots=True, kw_only=True)
class FrontLimits(AcceptLimits):
    """What one front allows itself."""

    # Launchers with a compiler running hold a descriptor each and nothing else.
    parked: int = 768
    finishers: int = 4


@dataclass(slots=True)
class _Parked:
    request: CompileRequest
    run: Run


class Front:
    """Serves one listening socket until it is told to stop.

    `on_admin` answers status questions; `on_version` is asked what to do about a launcher of
    another build and returns whether this daemon goes away.
    """

    def __init__(
        self,
        listener: socket.socket,
        handler: CacheHandler,
        *,
        clock: Clock,
        on_admin: Callable[[bytes], bytes],
        on_version: Callable[[], bool],
        limits: FrontLimits | None = None,
        build_id: str = wire.BUILD_ID,
    ) -> None:
        self._listener, self._handler, self._clock = listener, handler, clock
        self._replays = handler.replays
        self._on_admin, self._on_version = on_admin, on_version
        self._limits = limits or FrontLimits()
        self._build_id, self._build_id_bytes = build_id, build_id.encode()
        self._root_id, self._mount_ids = stat_id(b"/"), mount_ids()
        self._lock = threading.Lock()
        self._is_cancelled = False
        self._parked: dict[int, tuple[socket.socket, _Parked]] = {}
        self._finishing = 0
        self._counts: Counter[str] = Counter()
        self._epoll = select.epoll()
        self._threads = [threading.Thread(target=self._watch, name="hpcc-watch", daemon=True)]
        for _ in range(self._limits.finishers):
            thread = threading.Thread(target=self._finish_all, name="hpcc-finish", daemon=True)
            self._threads.append(thread)
        self._acceptor = Acceptor(
            listener,
            handler.replays,
            clock=clock,
            limits=self._limits,
            on_other=self._serve_connection,
            count=self._count,
        )

    # ---- life ----

    def start(self) -> None:
        """Begin to serve, on threads of its own."""
        for thread in self._threads:
            thread.start()
        self._acceptor.start()

    def close_door(self) -> None:
        """Accept nobody any more; what is under way goes on."""
        self._acceptor.close()

    def adopt(
        self, connection: socket.socket, data: bytes, done: Callable[[Replay | None], None]
    ) -> None:
        """Serve a connection that a helper gave away; `done` gets what it may replay next time."""
        self._acceptor.adopt(connection, data, lambda: done(self._replays.find(data)))

    def count_replayed(self) -> None:
        """Count a request that a helper answered."""
        self._count("requests")
        self._count("replayed")

    def cancel(self) -> None:
        """Tell everything under way that nobody waits for it."""
        self._is_cancelled = True
        with self._lock:
            for connection, _ in list(self._parked.values()):
                _shut(connection)

    def in_flight(self) -> tuple[int, int]:
        """Return how many compiles wait for an answer, and how many run at their launcher."""
        with self._lock:
            return self._acceptor.waiting_count(), len(self._parked) + self._finishing

    def snapshot(self) -> dict[str, int]:
        """Return what the front counted; what reached the handler is counted there."""
        with self._lock:
            return dict(self._counts)

    def _count(self, name: str) -> None:
        with self._lock:
            self._counts[name] += 1

    # ---- one connection ----

    def _serve_connection(self, connection: socket.socket, data: bytes, is_busy: bool) -> None:
        is_parked = False
        try:
            kind, body = receive_frame(connection, self._limits.receive_seconds, data)
            if kind == wire.REQUEST:
                is_parked = self._compile(connection, body, is_busy)
            elif kind == wire.ADMIN:
                reply = wire.frame(wire.ADMIN_REPLY, self._on_admin(body))
                send_frame(connection, reply, self._limits.receive_seconds)
            else:
                self._count("refused.malformed-frame")
        except CallerError as error:
            self._count(f"refused.{error.reason}")
            _log.warning("refused: %s", error)
        except OSError:
            self._count("lost.launcher")
        except Exception:  # noqa: BLE001 - a thread's root: logged, and the launcher helps itself
            self._count("failed.internal-error")
            _log.exception("a connection failed")
        finally:
            if not is_parked:
                connection.close()

    def _compile(self, connection: socket.socket, body: bytes, is_busy: bool) -> bool:
        """Answer one request; returns whether the connection was parked."""
        # Checked before the rest: another protocol's request has another shape.
        if wire.request_protocol(body) != wire.PROTOCOL_VERSION:
            return self._refuse_version(connection)
        sent = wire.decode_request(body)
        if sent.build_id != self._build_id_bytes:
            return self._refuse_version(connection)
        reason = self._reason_not_ours(sent, is_busy)
        if reason:
            self._count(f"exec.{reason}")
            return self._answer_exec(connection, reason)
        request = CompileRequest(
            sent.argv,
            sent.compiler,
            sent.cwd,
            dict(sent.env),
            sent.umask,
            sent.stderr_is_tty,
            wire.frame(wire.REQUEST, body),
        )
        answer = self._begin(connection, request)
        if type(answer) is Done:
            return self._answer_done(connection, answer)
        if type(answer) is Exec:
            return self._answer_exec(connection, answer.reason)
        assert type(answer) is Run
        return self._answer_run(connection, request, answer)

    def _reason_not_ours(self, sent: wire.LauncherRequest, is_busy: bool) -> str:
        if sent.mount_id not in self._mount_ids or sent.root_id != self._root_id:
            return "other-mount-namespace"
        try:
            if stat_id(sent.cwd) != sent.cwd_id:
                return "other-directory"
        except OSError:
            return "other-directory"
        if is_busy or len(self._parked) >= self._limits.parked:
            return "daemon-busy"
        return ""

    def _begin(self, connection: socket.socket, request: CompileRequest) -> Done | Exec | Run:
        self._count("requests")
        try:
            with self._acceptor.waiting(connection):
                return self._handler.begin(request, partial(self._is_abandoned, connection))
        except Exception:  # noqa: BLE001 - the compile goes on without us; the log has the fault
            _log.exception("begin failed")
            self._count("exec.internal-error")
            return Exec("internal-error")

    def _is_abandoned(self, connection: socket.socket) -> bool:
        return self._is_cancelled or is_gone(connection)

    def _refuse_version(self, connection: socket.socket) -> bool:
        self._count("refused.other-version")
        is_leaving = self._on_version()
        answer = wire.encode_version(self._build_id, is_draining=is_leaving)
        send_frame(connection, answer, self._limits.receive_seconds)
        return False

    def _answer_done(self, connection: socket.socket, done: Done) -> bool:
        frame = wire.encode_done(wire.LauncherDone(done.exit_code, done.stdout, done.stderr))
        send_frame(connection, frame, self._limits.receive_seconds)
        return False

    def _answer_exec(self, connection: socket.socket, reason: str) -> bool:
        send_frame(connection, wire.encode_exec(reason), self._limits.receive_seconds)
        return False

    def _answer_run(self, connection: socket.socket, request: CompileRequest, run: Run) -> bool:
        number = connection.fileno()
        try:
            frame = wire.encode_run(
                wire.LauncherRun(run.argv, run.filter_headers, run.is_tentative)
            )
            # Before the answer: its report may come at once.
            with self._lock:
                self._parked[number] = (connection, _Parked(request, run))
            send_frame(connection, frame, self._limits.receive_seconds)
            self._epoll.register(number, select.EPOLLIN | select.EPOLLONESHOT)
        except BaseException:
            with self._lock:
                self._parked.pop(number, None)
            self._abandon(request, run)
            raise
        return True

    # ---- parked connections ----

    def _watch(self) -> None:
        pause = threading.Event()
        while not pause.wait(self._limits.tick_seconds):
            if self._acceptor.waiting_count():
                self._acceptor.send_waits()

    def _finish_all(self) -> None:
        """Wait for reports and serve each, with nobody in between: a hand-over costs a wake-up."""
        while True:
            for number, _ in self._epoll.poll(maxevents=1):
                with self._lock:
                    entry = self._parked.pop(number, None)
                    if entry is None:
                        continue
                    self._finishing += 1
                self._finish(*entry)  # which closes it, and so takes it out of the set

    def _finish(self, connection: socket.socket, parked: _Parked) -> None:
        request, run = parked.request, parked.run
        is_reported = False
        try:
            report = self._receive_report(connection)
            is_reported = True
            with self._acceptor.waiting(connection):
                finish = self._handler.finish(request, run, report)
            self._answer_finish(connection, finish)
        except (HpccError, OSError) as error:
            # A launcher that was killed says nothing; that is no event.
            if isinstance(error, CallerError):
                self._count(f"refused.{error.reason}")
            if not is_reported:
                self._abandon(request, run)
        except Exception:  # noqa: BLE001 - a thread's root: logged, and the launcher helps itself
            self._count("failed.internal-error")
            _log.exception("finish failed")
        finally:
            connection.close()
            with self._lock:
                self._finishing -= 1

    def _receive_report(self, connection: socket.socket) -> RunReport:
        kind, body = receive_frame(connection, self._limits.receive_seconds)
        if kind != wire.REPORT:
            raise CallerError("launcher frame: not a report", reason="malformed-frame")
        return RunReport(*wire.decode_report(body))

    def _answer_finish(self, connection: socket.socket, finish: Finish) -> None:
        frame = wire.encode_finish(finish.stdout, finish.stderr)
        send_frame(connection, frame, self._limits.receive_seconds)

    def _abandon(self, request: CompileRequest, run: Run) -> None:
        self._count("lost.launcher")
        try:
            self._handler.abandon(request, run)
        except Exception:  # noqa: BLE001 - nobody is there to tell; the log has the fault
            _log.exception("abandon failed")


def _shut(connection: socket.socket) -> None:
    with contextlib.suppress(OSError):  # it is gone already
        connection.shutdown(socket.SHUT_RDWR)
