"""Accepting launchers on a Unix socket: replays known requests, gives every other one away.

Threads block in accept(), and each serves a connection from request to answer, so that a hit costs
no hand-over between threads. The daemon and its hit processes both run an `Acceptor`. Named pipes
have no replays and no such class.

This is the hit path. Per hit it makes two calls of the native engine, each without Python's lock:
one accepts, checks the peer's user and reads the request; one checks the plan's stats, writes the
outputs and sends the answer. Between them is one lookup in a dict by the bytes of the request,
without the facts about its build.
There is no `Connection` and no socket object: a hit is served on the number of its descriptor.

What must never happen: a WAIT frame inside an answer (`Waits.lock`), a thread that blocks when no
other thread accepts (`is_busy`), or a descriptor that is closed twice (after `_serve` has answered
or given it away, its number may belong to another connection).
"""

from __future__ import annotations

import contextlib
import errno
import logging
import os
import socket
import threading
from collections.abc import Callable
from typing import Final

from hpcc.cache.replay.engine import Outcome
from hpcc.cache.replay.replay import Replay, Replays
from hpcc.daemon.accept_threads import AcceptThreads, Waits
from hpcc.daemon.transport import FrontLimits
from hpcc.daemon.unix_connection import send_all
from hpcc.ports import Clock
from hpcc.wire import launcher as wire

_log: Final = logging.getLogger("hpcc.daemon.accept")
_ANSWERED: Final = frozenset({Outcome.DONE, Outcome.UNSENT})
_PAUSE_SECONDS: Final = 0.1

OnOther = Callable[[socket.socket, bytes, bool], None]
"""Gets a connection that no replay answered, the bytes read so far, and whether no thread is left
to accept, in which case it must not block. It owns the connection."""


class Acceptor:
    """Serves one listening socket until it is closed. Thread-safe."""

    def __init__(
        self,
        listener: socket.socket,
        replays: Replays,
        *,
        clock: Clock,
        limits: FrontLimits,
    ) -> None:
        self._listener, self._replays, self._clock = listener, replays, clock
        self._limits = limits
        self._on_other: OnOther
        self._count: Callable[[str], None]
        self._uid = os.getuid()
        self._is_closed = False
        self._threads = AcceptThreads(self._run, most=limits.threads, idle=limits.idle_threads)
        # By descriptor. A descriptor stays open until its entry is removed.
        self.waits = Waits(
            _send_wait,
            clock,
            tick_seconds=limits.tick_seconds,
            most_seconds=limits.begin_seconds,
        )

    # ---- life ----

    def start(self, on_other: OnOther, count: Callable[[str], None]) -> None:
        """Begin to serve, on threads of this object. `count` increments a counter."""
        self._on_other, self._count = on_other, count
        self.waits.start()
        self._threads.start()

    def close(self) -> None:
        """Stop accepting; requests under way continue."""
        self._is_closed = True
        with contextlib.suppress(OSError):  # it is closed already
            self._listener.shutdown(socket.SHUT_RDWR)  # wakes the threads in accept()
        self._listener.close()

    def adopt(self, connection: socket.socket, data: bytes, done: Callable[[], None]) -> None:
        """Serve a connection that a hit process accepted, then call `done`."""
        number = connection.detach()

        def serve(is_busy: bool) -> None:
            self._serve(number, data, is_busy)
            done()

        self._threads.run_apart(serve)

    # ---- threads ----

    def _run(self) -> bool:
        # OSError: the listener was closed before this thread came to dup it.
        with contextlib.suppress(OSError), self._listener.dup() as own:
            # A duplicate per thread: its number stays this socket's while the thread uses it.
            return self._run_on(self._replays.engine.receiver(own, self._uid))
        return False

    def _run_on(self, receive: Callable[[], tuple[int, bytes]]) -> bool:
        """Serve until the listener closes; True if the thread ends because there are enough."""
        become_busy, become_idle = self._threads.become_busy, self._threads.become_idle
        while not self._has_closed():
            try:
                number, data = receive()
            except OSError as error:
                if error.errno == errno.EINVAL:
                    break  # shut down by us or, in a hit process, by the daemon
                self._note_refusal(error)
                continue
            is_busy = become_busy()
            self._serve(number, data, is_busy)
            if not become_idle():
                return True
        return False

    def _has_closed(self) -> bool:
        return self._is_closed

    def _note_refusal(self, error: OSError) -> None:
        if isinstance(error, PermissionError):
            self._count("refused.foreign-user")
        elif not self._has_closed():
            # EMFILE and similar errors: without a pause this would spin.
            _log.warning("accept: %s", error)
            threading.Event().wait(_PAUSE_SECONDS)

    # ---- one connection ----

    def _serve(self, number: int, data: bytes, is_busy: bool) -> None:
        """Answer on a descriptor, or give it away. Afterwards the number must not be used."""
        try:
            key, facts = wire.split_request(data)
            replay = self._replays.find(key)
            if replay is not None and self._replay(number, replay, facts):
                return
        except Exception:  # noqa: BLE001 - a thread's root: logged, and the front may still answer
            _log.exception("a replay failed")
        self._on_other(_connection_of(number), data, is_busy)

    def _replay(self, number: int, replay: Replay, facts: bytes) -> bool:
        """Repeat the stored answer. False if it does not hold any more; then nothing was sent.

        A hit uses no socket object: that would be two more system calls and would double the
        Python code of this method.
        """
        now = self._clock.monotonic()
        if now >= replay.renew_at:
            return False
        waits, disturb = self.waits, self._replays.disturb
        disturb(replay.outputs)
        with waits.lock:
            waits.since[number] = now
        try:
            outcome = self._replays.engine.replay(replay.prepared, number)
        finally:
            # See `Waits`. The engine sends its answer in one piece or not at all.
            with waits.lock:
                del waits.since[number]
            disturb(replay.outputs)
        if outcome not in _ANSWERED:
            return False
        self._note(replay, outcome, facts, now)
        if replay.is_answered_apart and outcome == Outcome.DONE:
            self._answer_apart(number, replay.answer)
        else:
            os.close(number)
        return True

    def _answer_apart(self, number: int, answer: bytes) -> None:
        # OSError: the launcher is gone; its outputs are in place.
        with contextlib.suppress(OSError), _connection_of(number) as connection:
            send_all(connection, answer, self._limits.receive_seconds)

    def _note(self, replay: Replay, outcome: int, facts: bytes, began: float) -> None:
        if outcome == Outcome.UNSENT:
            self._count("lost.launcher")
            return
        self._count("requests")
        self._count("replayed")
        try:
            replay.on_hit(facts, self._clock.now(), self._clock.monotonic() - began)
        except Exception:  # noqa: BLE001 - the answer was sent; only its note is lost
            _log.exception("a replayed hit could not be recorded")


def _connection_of(number: int) -> socket.socket:
    return socket.socket(socket.AF_UNIX, socket.SOCK_STREAM, fileno=number)


def _send_wait(number: int) -> None:
    connection = _connection_of(number)
    try:
        connection.send(wire.WAIT_FRAME, socket.MSG_DONTWAIT | socket.MSG_NOSIGNAL)
    finally:
        connection.detach()
