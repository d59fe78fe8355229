"""The daemon's front: reads requests, lets the handler decide, and sends the answers.

One front serves every transport through `transport.Listener` and `transport.Connection`. On a Unix
socket `accept` answers replays before they come here, so that a hit seen before never enters this
module. It gives away every other connection, on the thread that accepted it.

A connection takes one of three ways:

- A question of a command (`ADMIN`) is passed to the daemon's lifecycle and answered.
- A request of another protocol or build is answered with our version. The lifecycle decides
  whether this daemon ends, so that a newer one can take over.
- A compile request is first checked for meaning: a launcher in another mount namespace, or whose
  working directory is another directory here, names other files than ours, and the files of one
  with another group belong to that. Such a launcher gets `Exec` (`other-mount-namespace`,
  `other-directory`, `other-group`). For the rest the handler
  answers `Done` (outputs are in place), `Exec` (compile without us) or `Run` (compile and report).

After `Run` the listener watches the connection until the report comes. Example: gcc with a miss.
The request arrives, `begin` returns `Run`, the launcher runs gcc for two seconds and reports, and
`finish` stores the object and returns what is still to be printed.

What must never happen:

- A run without an end. Each `Run` ends in exactly one `finish` or `abandon`, because the handler
  holds state for it.
- A build that fails because of us. Every fault here closes the connection or answers `Exec`, and
  the launcher then runs the compiler itself. Each is counted (`refused.`, `lost.`, `failed.`,
  `exec.`).
- A thread that blocks while no other accepts. It answers `daemon-busy` at once.

Tuples, bytes, blocking calls and threads: this is the hit path (docs/adr/0001-architecture.md).
"""

from __future__ import annotations

import contextlib
import logging
import threading
from collections import Counter
from collections.abc import Callable, Iterator
from functools import partial
from typing import Final

from hpcc.cache.base.api import (
    CompileHandler,
    CompileRequest,
    Done,
    Exec,
    Run,
    RunReport,
)
from hpcc.core import CallerError, HpccError
from hpcc.daemon.transport import Connection, Listener, receive_frame, receive_some
from hpcc.wire import launcher as wire
from hpcc.wire.launcher_version import encode_version

_log: Final = logging.getLogger("hpcc.daemon.front")


class Front:
    """Serves one listener until `close_door`.

    `on_admin` answers a status question; it may raise CallerError. `on_version` decides what to do
    about a launcher of another build and returns whether this daemon ends.
    """

    def __init__(
        self,
        listener: Listener,
        handler: CompileHandler,
        *,
        on_admin: Callable[[bytes], bytes],
        on_version: Callable[[], bool],
        build_id: str = wire.BUILD_ID,
    ) -> None:
        self._listener, self._handler = listener, handler
        self._waits, self._is_windows = listener.waits, listener.is_windows
        self._on_admin, self._on_version = on_admin, on_version
        self._build_id, self._build_id_bytes = build_id, build_id.encode()
        self._receive_seconds = listener.limits.receive_seconds
        self._lock = threading.Lock()
        self._is_cancelled = False
        # Launchers that run a compiler, by number, until their report is here.
        self._running: dict[int, Connection] = {}
        self._finishing = 0
        # Answers to commands and to other builds, which the launcher or command waits for.
        self._answering = 0
        self._counts: Counter[str] = Counter()

    # ---- life ----

    @property
    def helpers(self) -> list[int]:
        """Return the pids of further processes that answer hits."""
        return self._listener.helpers

    def start(self) -> None:
        """Begin to serve, on threads of the listener."""
        self._listener.start(self._serve_connection, self._count)

    def close_door(self) -> None:
        """Stop accepting; what is under way continues."""
        self._listener.close()

    def cancel(self) -> None:
        """Cancel what is under way: compiles of the handler, and waits for reports."""
        self._is_cancelled = True
        with self._lock:
            for connection in self._running.values():
                connection.cancel()

    def end(self) -> None:
        """Release what the listener holds; call it when nothing is under way."""
        self._listener.end()

    def in_flight(self) -> tuple[int, int]:
        """Return how many compiles wait for an answer, and how many run at their launcher."""
        with self._lock:
            return self._waits.count(), len(self._running) + self._finishing

    def is_idle(self) -> bool:
        """Tell whether nobody waits for an answer: `in_flight` is (0, 0), no command is open."""
        with self._lock:
            is_answering = self._answering > 0
        return not is_answering and not any(self.in_flight())

    def snapshot(self) -> dict[str, int]:
        """Return the front's counters; the handler counts what reached it."""
        with self._lock:
            return dict(self._counts)

    def _count(self, name: str) -> None:
        with self._lock:
            self._counts[name] += 1

    # ---- one connection ----

    def _serve_connection(self, connection: Connection, data: bytes, is_busy: bool) -> None:
        is_parked = False
        try:
            is_parked = self._answer(connection, data, is_busy)
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

    def _answer(self, connection: Connection, data: bytes, is_busy: bool) -> bool:
        """Read one frame and answer it; returns whether the connection was parked."""
        data = data or receive_some(connection, self._receive_seconds)
        if not connection.is_ours():  # before the first byte is looked at
            self._count("refused.foreign-user")
            return False
        kind, body = receive_frame(connection, self._receive_seconds, data)
        if kind == wire.REQUEST:
            return self._compile(connection, body, is_busy)
        if kind == wire.ADMIN:
            with self._an_answer():
                answer = wire.frame(wire.ADMIN_REPLY, self._on_admin(body))
                return self._send_last(connection, answer)
        self._count("refused.malformed-frame")
        return False

    def _compile(self, connection: Connection, body: bytes, is_busy: bool) -> bool:
        """Answer one request; returns whether the connection was parked."""
        # Checked before the rest: another protocol's request has another shape.
        if wire.request_protocol(body) != wire.PROTOCOL_VERSION:
            return self._refuse_version(connection)
        sent = wire.decode_request(body, is_windows=self._is_windows)
        if sent.build_id != self._build_id_bytes:
            return self._refuse_version(connection)
        reason = self._reason_not_ours(sent, is_busy)
        if reason:
            self._count(f"exec.{reason}")
            return self._send_last(connection, wire.encode_exec(reason))
        request = CompileRequest(
            sent.argv,
            sent.compiler,
            sent.cwd,
            dict(sent.env),
            sent.umask,
            sent.stderr_is_tty,
            wire.split_request(wire.frame(wire.REQUEST, body))[0],
            sent.facts,
        )
        match self._begin(connection, request):
            case Done(exit_code, stdout, stderr):
                done = wire.LauncherDone(exit_code, stdout, stderr)
                return self._send_last(connection, wire.encode_done(done))
            case Exec(reason):
                return self._send_last(connection, wire.encode_exec(reason))
            case run:
                return self._answer_run(connection, request, run)

    def _reason_not_ours(self, sent: wire.LauncherRequest, is_busy: bool) -> str:
        reason = self._listener.reason_not_ours(sent)
        if not reason and (is_busy or len(self._running) >= self._listener.limits.parked):
            return "daemon-busy"
        return reason

    def _begin(self, connection: Connection, request: CompileRequest) -> Done | Exec | Run:
        self._count("requests")
        try:
            with self._waits.waiting(connection.number):
                return self._handler.begin(request, partial(self._is_abandoned, connection))
        except Exception:  # noqa: BLE001 - the launcher compiles without us; the log has the fault
            _log.exception("begin failed")
            self._count("exec.internal-error")
            return Exec("internal-error")

    def _is_abandoned(self, connection: Connection) -> bool:
        return self._is_cancelled or connection.is_gone()

    def _refuse_version(self, connection: Connection) -> bool:
        self._count("refused.other-version")
        with self._an_answer():
            is_leaving = self._on_version()
            return self._send_last(
                connection, encode_version(self._build_id, is_draining=is_leaving)
            )

    @contextlib.contextmanager
    def _an_answer(self) -> Iterator[None]:
        """Count an answer that may end this daemon: it ends after the answer was sent."""
        with self._lock:
            self._answering += 1
        try:
            yield
        finally:
            with self._lock:
                self._answering -= 1

    def _send_last(self, connection: Connection, frame: bytes) -> bool:
        """Send the last answer; returns False: the connection is not parked."""
        connection.send_last(frame, self._receive_seconds)
        return False

    # ---- runs ----

    def _answer_run(self, connection: Connection, request: CompileRequest, run: Run) -> bool:
        """Tell the launcher to run a compiler, and park the connection until its report."""
        try:
            order = wire.LauncherRun(run.argv, run.filter_headers, run.is_tentative)
            frame = wire.encode_run(order, is_windows=self._is_windows)
            # Before it is sent: the report may come at once.
            with self._lock:
                self._running[connection.number] = connection
            connection.send(frame, self._receive_seconds)
            self._listener.park(connection, partial(self._finish, connection, request, run))
        except BaseException:
            with self._lock:
                self._running.pop(connection.number, None)
            self._abandon(request, run)
            raise
        return True

    def _finish(self, connection: Connection, request: CompileRequest, run: Run) -> None:
        """Receive a launcher's report, store the result, answer, and close. Raises nothing."""
        is_reported = False
        try:
            report = self._receive_report(connection)
            is_reported = True
            with self._lock:
                del self._running[connection.number]
                self._finishing += 1
            with self._waits.waiting(connection.number):
                finish = self._handler.finish(request, run, report)
            self._send_last(connection, wire.encode_finish(finish.stdout, finish.stderr))
        except (HpccError, OSError) as error:
            # A launcher that was killed sends nothing; that is not an event.
            if isinstance(error, CallerError):
                self._count(f"refused.{error.reason}")
            if not is_reported:
                self._abandon(request, run)
        except Exception:  # noqa: BLE001 - a thread's root: logged, and the launcher helps itself
            self._count("failed.internal-error")
            _log.exception("finish failed")
            if not is_reported:
                self._abandon(request, run)
        finally:
            # The order matters: after close() the number may be another connection's.
            with self._lock:
                if is_reported:
                    self._finishing -= 1
                else:
                    self._running.pop(connection.number, None)
            connection.close()

    def _receive_report(self, connection: Connection) -> RunReport:
        # Waits as long as the compiler runs: the launcher's end, its report or `cancel` ends this.
        data = receive_some(connection, None)
        kind, body = receive_frame(connection, self._receive_seconds, data)
        if kind != wire.REPORT:
            raise CallerError("launcher frame: not a report", reason="malformed-frame")
        return RunReport(*wire.decode_report(body))

    def _abandon(self, request: CompileRequest, run: Run) -> None:
        self._count("lost.launcher")
        try:
            self._handler.abandon(request, run)
        except Exception:  # noqa: BLE001 - nobody waits for an answer; the log has the fault
            _log.exception("abandon failed")
