"""The loop of the signer's process: reads a request, decides, makes the state durable, answers.

The worker has two connections. One brings what changes the state. The other brings heads for
heartbeats, so that a slow disk delays none. A request in another form ends the process: its worker
is broken, and starts another one from the state on the disk.
"""

from __future__ import annotations

import os
import socket
import threading
from collections.abc import Callable
from typing import Final

from hpcc.audit.base.trail_signer import SignerRefusedError, WantedName
from hpcc.audit.signer.ledger import Ledger, LedgerState, begun
from hpcc.audit.signer.messages import (
    MAX_REASON_BYTES,
    MessageKind,
    decode_end,
    decode_records,
    decode_wanted,
    message,
    read_message,
)
from hpcc.audit.signer.slots import encode_state

_READ_BYTES: Final = 1 << 20


def receiver(connection: socket.socket) -> Callable[[int], bytes]:
    """Return what reads exactly so many bytes from a connection.

    It raises EOFError at its end.
    """

    def receive(size: int) -> bytes:
        if not size:
            return b""
        first = connection.recv(min(size, _READ_BYTES))
        if len(first) == size:
            return first
        parts, rest = [first], size - len(first)
        while rest and parts[-1]:
            parts.append(connection.recv(min(rest, _READ_BYTES)))
            rest -= len(parts[-1])
        if rest:
            raise EOFError("the connection ended")
        return b"".join(parts)

    return receive


class Served:
    """Answers the requests of one worker. `store` makes the bytes of a state durable."""

    def __init__(
        self, ledger: Ledger, state: LedgerState | None, worker: str, store: Callable[[bytes], None]
    ) -> None:
        self._ledger, self._state, self._worker, self._store = ledger, state, worker, store

    def answer(self, kind: MessageKind, content: bytes) -> bytes:
        """Return the answer to a request that may change the state.

        Raises:
            SignerMessageError: it has another form.
        """
        try:
            return message(MessageKind.DONE, self._done(kind, content))
        except SignerRefusedError as error:
            return _refusal(MessageKind.REFUSED, str(error))
        except OSError as error:
            text = f"the state of the trail's signer is not durable: {error.strerror}"
            return _refusal(MessageKind.FAILED, text)

    def answer_head(self, kind: MessageKind, content: bytes) -> bytes:
        """Return the answer to a request for a head, which changes nothing."""
        if kind not in {MessageKind.HEAD, MessageKind.TREE}:
            return _refusal(
                MessageKind.REFUSED, f"a message of kind {kind.name} has another connection"
            )
        return self.answer(kind, content)

    def _done(self, kind: MessageKind, content: bytes) -> bytes:
        state = self._state
        if kind is MessageKind.STATE:
            known = encode_state(state, self._ledger.public_key) if state is not None else b""
            return self._ledger.public_key + known
        if kind is MessageKind.BEGIN:
            if state is not None:
                raise SignerRefusedError("this signer has begun its trail already")
            self._keep(begun(self._worker, decode_end(content)))
            return b""
        if kind is MessageKind.NAME:
            # The one text that says nothing of the trail.
            wanted = decode_wanted(kind, content)
            assert isinstance(wanted, WantedName)
            return self._ledger.sign(self._ledger.name_text(wanted))
        if state is None:
            raise SignerRefusedError("this signer has no trail yet")
        if kind is MessageKind.RECORDS:
            after, signatures = self._ledger.records(state, decode_records(content))
            if after is not state:
                self._keep(after)
            return b"".join(signatures)
        after, text = self._ledger.text(state, decode_wanted(kind, content))
        if after is not state:
            self._keep(after)
        return self._ledger.sign(text)

    def _keep(self, state: LedgerState) -> None:
        """Make a state durable before it counts. Only one connection brings what changes it."""
        self._store(encode_state(state, self._ledger.public_key))
        self._state = state


def _refusal(kind: MessageKind, text: str) -> bytes:
    return message(kind, text.encode("utf-8", "replace")[:MAX_REASON_BYTES])


def serve(control: socket.socket, heads: socket.socket, served: Served) -> None:
    """Answer until the worker hangs up on one of its connections, or a request has no form."""
    threading.Thread(
        target=_serve_heads, args=(heads, served.answer_head), name="heads", daemon=True
    ).start()
    _serve(control, served.answer)


def _serve_heads(connection: socket.socket, answer: Callable[[MessageKind, bytes], bytes]) -> None:
    try:
        _serve(connection, answer)
    finally:
        # The other connection may wait for a request: the worker must see that this one ended.
        os._exit(1)


def _serve(connection: socket.socket, answer: Callable[[MessageKind, bytes], bytes]) -> None:
    receive = receiver(connection)
    try:
        while True:
            connection.sendall(answer(*read_message(receive)))
    except (EOFError, ConnectionError):
        return
