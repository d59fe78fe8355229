"""The worker's side of its signer: starts the process, asks it, and starts it again if it ended.

A request for records is sent again to the next process, which has the state of the one before.
Heads are not: a heartbeat must not wait for a process that starts, and the next one asks again.
"""

from __future__ import annotations

import logging
import os
import signal
import socket
import sys
import threading
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path
from typing import Final

import hpcc
from hpcc.audit.base.canonical import AuditDamagedError
from hpcc.audit.base.frames import SIGNATURE_BYTES
from hpcc.audit.base.heads import KEY_BYTES, is_signed
from hpcc.audit.base.trail_signer import (
    SignerError,
    SignerRefusedError,
    TrailEnd,
    Wanted,
    WantedHead,
    WantedTree,
)
from hpcc.audit.signer.fields import SignerMessageError
from hpcc.audit.signer.ledger import LedgerState, extended, frames_from
from hpcc.audit.signer.messages import (
    MessageKind,
    encode_end,
    encode_records,
    encode_wanted,
    message,
    read_message,
)
from hpcc.audit.signer.place import OWN_UID, SAME_UID, prepare_place, signer_uid
from hpcc.audit.signer.served import receiver
from hpcc.audit.signer.slots import decode_state

_log: Final = logging.getLogger(__name__)
_PROGRAM: Final = Path(hpcc.__file__).parent / "audit" / "signer" / "__main__.py"
_CONTROL_FD: Final = 3
_HEADS_FD: Final = 4
_ERRORS_FD: Final = 2
# Of an answer. It waits for a disk; a start waits for the process before, which may still end.
_CONTROL_SECONDS: Final = 60.0
_HEADS_SECONDS: Final = 5.0
_MAX_ERROR_BYTES: Final = 2048


class SignerProcess:
    """The signer of one trail: a `TrailSigner` whose `open` starts the process."""

    remembers = True

    def __init__(self, key_path: Path, worker: str, *, program: Path = _PROGRAM) -> None:
        self.worker, self.public_key = worker, b""
        self._key_path, self._program = key_path, program
        self._uid = signer_uid()
        # How often the process was started again.
        self.restarts = 0
        # Whether it got its first state from this trail.
        self.has_begun = False
        self._trouble = self._refusal = ""
        self._pid, self._errors, self._starts = 0, -1, 0
        self._is_closed = True
        self._life = threading.RLock()
        self._control, self._heads = _Line(_CONTROL_SECONDS), _Line(_HEADS_SECONDS)

    @property
    def separation(self) -> str:
        """Return how the process is kept apart from this one: `own-uid` or `same-uid`."""
        return SAME_UID if self._uid is None else OWN_UID

    @property
    def trouble(self) -> str:
        """Return why nothing can be signed now; "" if it can."""
        return self._refusal or self._trouble

    @property
    def pid(self) -> int:
        """Return the id of the process; 0 while there is none."""
        return self._pid

    def open(self) -> None:
        """Move the key to its place and start the process.

        Raises:
            CallerError: the files are not what they should be.
            InfrastructureError: they cannot be written, or the process does not start.
        """
        with self._life:
            self._is_closed = False
            self._directory = prepare_place(self._key_path, self._uid)
            self._start()

    def _start(self) -> None:
        """Start the process and wait until it answers.

        Raises:
            SignerError: it does not.
        """
        (control, control_end), (heads, heads_end) = socket.socketpair(), socket.socketpair()
        self._errors, errors_end = os.pipe2(os.O_CLOEXEC | os.O_NONBLOCK)
        arguments = [
            sys.executable, "-I", str(self._program), str(_CONTROL_FD), str(_HEADS_FD),
            str(self._directory.absolute()), self.worker,
        ]  # fmt: skip
        if self._uid is not None:
            arguments.append(str(self._uid))
        with control_end, heads_end:
            # High numbers first: a copy must not close another one's source.
            ends = [os.dup(end.fileno()) for end in (control_end, heads_end)]
            ends = [_above(end) for end in ends]
            try:
                # An empty environment, in a new session: Ctrl-C goes to the worker only.
                self._pid = os.posix_spawn(
                    sys.executable,
                    arguments,
                    {},
                    file_actions=[
                        (os.POSIX_SPAWN_OPEN, 0, os.devnull, os.O_RDWR, 0),
                        (os.POSIX_SPAWN_DUP2, 0, 1),
                        (os.POSIX_SPAWN_DUP2, errors_end, _ERRORS_FD),
                        (os.POSIX_SPAWN_DUP2, ends[0], _CONTROL_FD),
                        (os.POSIX_SPAWN_DUP2, ends[1], _HEADS_FD),
                    ],
                    setsid=True,
                )
            finally:
                for end in (*ends, errors_end):
                    os.close(end)
        self._control.connect(control)
        self._starts += 1
        try:
            key = self._ask(self._control, MessageKind.STATE)[:KEY_BYTES]
            self._require_same(key)
        except BaseException:
            heads.close()
            self._end()
            raise
        # Not before: a heartbeat does not wait for a process that starts.
        self._heads.connect(heads)
        self.public_key, self._trouble = key, ""

    def _require_same(self, key: bytes) -> None:
        if self.public_key not in {b"", key}:
            self._refusal = "the signer has another key than before"
            raise SignerError(self._refusal)

    def _ask(self, line: _Line, kind: MessageKind, content: bytes = b"") -> bytes:
        """Return the content of an answer.

        Raises:
            SignerError: the process ended, is silent or says something else, or cannot write.
            SignerRefusedError: it refuses.
        """
        seen = self._starts
        if not line.is_up:
            why = self._trouble or "it starts"
            raise SignerError(f"the process that signs the trail: {why}")
        try:
            answer, said = line.ask(message(kind, content))
        except (OSError, EOFError, SignerMessageError) as error:
            self._lost(seen, error)
            raise SignerError(f"the process that signs the trail: {self._trouble}") from error
        if answer is MessageKind.DONE:
            return said
        text = said.decode("utf-8", "replace")
        if answer is MessageKind.REFUSED:
            raise SignerRefusedError(f"the signer of the trail refuses: {text}")
        raise SignerError(text)

    def _lost(self, seen: int, error: Exception) -> None:
        """End the process that gave no answer, unless another one was started meanwhile."""
        why = "it does not answer" if isinstance(error, TimeoutError) else "it ended"
        # Another thread that has the lock ends or starts it: a heartbeat must not wait for that.
        if not self._life.acquire(blocking=False):
            return
        try:
            if self._starts == seen and self._pid:
                self._end()
                self._trouble = f"{why}{self._last_words()}"
                _log.error("the signer of the trail is lost: %s", self._trouble)
        finally:
            self._life.release()

    def _last_words(self) -> str:
        try:
            said = os.read(self._errors, _MAX_ERROR_BYTES).decode("utf-8", "replace").strip()
        except OSError:
            return ""
        lines = said.splitlines()
        return f": {lines[-1]}" if lines else ""

    def _end(self) -> None:
        """End the process, if there is one."""
        self._control.hang_up()
        self._heads.hang_up()
        if self._pid:
            with suppress(ProcessLookupError, ChildProcessError, PermissionError):
                os.kill(self._pid, signal.SIGKILL)
            with suppress(ChildProcessError):
                os.waitpid(self._pid, 0)
            self._pid = 0

    def revive(self) -> bool:
        """Start the process again if it ended; return whether it was started. Blocks.

        Raises:
            SignerError: it does not start.
        """
        with self._life:
            if self._is_closed or (self._pid and self._control.is_up and not self._has_ended()):
                return False
            self._end()
            self._trouble = self._trouble or "it ended"
            self._close_errors()
            prepare_place(self._key_path, self._uid)
            self._start()
            self.restarts += 1
            _log.warning("the signer of the trail was started again: %d times", self.restarts)
            return True

    def _has_ended(self) -> bool:
        """Return whether the process ended, without taking its status."""
        try:
            return os.waitid(os.P_PID, self._pid, os.WEXITED | os.WNOHANG | os.WNOWAIT) is not None
        except ChildProcessError:
            return True

    def meet(self, end: TrailEnd) -> bytes:
        said = self._ask(self._control, MessageKind.STATE)[KEY_BYTES:]
        if not said:
            self._ask(self._control, MessageKind.BEGIN, encode_end(end))
            self.has_begun = True
            return b""
        try:
            state, _ = decode_state(said)
        except SignerMessageError as error:
            raise SignerError(f"the signer of the trail has no such state: {error}") from error
        _compare(end, state, self._directory)
        return frames_from(state, end.count)

    def sign_records(self, records: Sequence[bytes]) -> list[bytes]:
        content = encode_records(records)
        try:
            seen = self._starts
            try:
                said = self._ask(self._control, MessageKind.RECORDS, content)
            except SignerError:
                # The next process has the state of this one, and signs the same bytes again. The
                # watch may have started it meanwhile.
                if not self.revive() and self._starts == seen:
                    raise
                said = self._ask(self._control, MessageKind.RECORDS, content)
        except SignerRefusedError as error:
            # Nothing can be written after that: no other bytes will have this number.
            self._refusal = str(error)
            raise
        if len(said) != SIGNATURE_BYTES * len(records):
            raise SignerError("the signer of the trail gave no signatures")
        return [said[i : i + SIGNATURE_BYTES] for i in range(0, len(said), SIGNATURE_BYTES)]

    def sign_text(self, wanted: Wanted, text: bytes) -> bytes:
        is_head = isinstance(wanted, WantedHead | WantedTree)
        line = self._heads if is_head else self._control
        signature = self._ask(line, *encode_wanted(wanted))
        if not is_signed(self.public_key, signature, text):
            raise SignerRefusedError("the signer signed a text that is not this trail's")
        return signature

    def close(self) -> None:
        """End the process. Its state stays."""
        with self._life:
            self._is_closed = True
            self._end()
            self._close_errors()

    def _close_errors(self) -> None:
        if self._errors >= 0:
            os.close(self._errors)
            self._errors = -1


class _Line:
    """One connection to the process, for one request at a time."""

    def __init__(self, seconds: float) -> None:
        self._seconds, self._lock = seconds, threading.Lock()
        self._socket: socket.socket | None = None

    @property
    def is_up(self) -> bool:
        """Return whether there is a process behind it, as far as is known."""
        return self._socket is not None

    def connect(self, connection: socket.socket) -> None:
        """Use a connection from now on."""
        connection.settimeout(self._seconds)
        self._socket = connection

    def ask(self, request: bytes) -> tuple[MessageKind, bytes]:
        """Send a request and return the answer.

        Raises:
            OSError: the process is gone or silent.
            EOFError: it is gone.
            SignerMessageError: it says something else.
        """
        with self._lock:
            connection = self._socket
            if connection is None:
                raise EOFError("there is no process")
            try:
                connection.sendall(request)
                return read_message(receiver(connection))
            except BaseException:
                # An answer that comes late must not be taken for that of the next request.
                self._drop(connection)
                raise

    def hang_up(self) -> None:
        """Close the connection; idempotent."""
        if self._socket is not None:
            self._drop(self._socket)

    def _drop(self, connection: socket.socket) -> None:
        """Close a connection, also if there is another one meanwhile."""
        with suppress(OSError):
            connection.shutdown(socket.SHUT_RDWR)
        connection.close()
        if self._socket is connection:
            self._socket = None


def _above(descriptor: int) -> int:
    """Return a copy of a descriptor above those that the process gets, and close the given one."""
    import fcntl  # not on Windows, where no signer is started

    copy = fcntl.fcntl(descriptor, fcntl.F_DUPFD_CLOEXEC, 16)
    os.close(descriptor)
    return int(copy)


def _compare(end: TrailEnd, state: LedgerState, directory: Path) -> None:
    """Check that a trail is the one that was signed; its last group may be missing.

    Raises:
        AuditDamagedError: it is another one.
    """
    remedy = "Keep a copy of both directories as evidence; docs/operate.md says how to go on"
    base, tip = state.base, state.tip
    if end.count > tip.count:
        raise AuditDamagedError(
            f"the trail has {end.count} records, and the signer in {directory} signed {tip.count}:"
            f" its files are of an earlier time, or the trail is another one. {remedy}"
        )
    if end.count < base.count:
        raise AuditDamagedError(
            f"the end of the trail is missing: it has {end.count} records, and the signer in"
            f" {directory} signed {tip.count}. {remedy}"
        )
    written = state.pending[: end.count - base.count]
    there = extended(base, state.tree_first, written)
    if (end.head, end.peaks, end.tree_first) != (there.head, there.peaks, state.tree_first):
        raise AuditDamagedError(
            f"the records of the trail are not those of the signer in {directory}. {remedy}"
        )
