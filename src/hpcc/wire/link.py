"""The link handshake: starts a clean HTTP/2 connection on a byte pipe without boundaries.

A virtio-serial port has no connections. Its first bytes may be left over from firmware, a boot
console or an older peer. So the host sends HELLO with a token that this guest was booted with, and
a fresh nonce. The guest skips everything before it and answers WELCOME with the same nonce. The
host skips everything before that. All later bytes belong to the session. A guest has one session,
and ends with it.

Before this the guest sends READY once, when it waits for HELLO. A guest that will become a snapshot
has booted far enough then. A host that starts a session skips it. Guests that were restored from
one snapshot share its token. The token tells the agent's stream from other bytes and is not a
secret. The nonce proves that an answer is from this guest and current.
"""

from __future__ import annotations

from typing import Final

from hpcc.core import IntegrityError

TOKEN_BYTES: Final = 32
NONCE_BYTES: Final = 16
READY: Final = b"=hpcc ready=\n"
_HELLO: Final = b"hpcc>"
_WELCOME: Final = b"<hpcc"
# Room for what firmware or an old session may leave in the pipe. More is an attack or a fault.
MAX_JUNK_BYTES: Final = 64 * 1024


class _Scanner:
    """Finds `mark` in a stream and then `tail_bytes` more; holds at most MAX_JUNK_BYTES."""

    def __init__(self, mark: bytes, tail_bytes: int) -> None:
        self._mark, self._tail_bytes = mark, tail_bytes
        self._buffer = b""
        self._skipped = 0

    def feed(self, data: bytes) -> tuple[bytes, bytes] | None:
        """Return (tail, rest) when both have arrived, else None."""
        self._buffer += data
        at = self._buffer.find(self._mark)
        if at < 0:
            keep = len(self._mark) - 1
            self._skipped += max(len(self._buffer) - keep, 0)
            self._buffer = self._buffer[-keep:]
            self._check(self._skipped)
            return None
        self._check(self._skipped + at)
        end = at + len(self._mark) + self._tail_bytes
        if len(self._buffer) < end:
            return None
        return self._buffer[end - self._tail_bytes : end], self._buffer[end:]

    def _check(self, junk_bytes: int) -> None:
        if junk_bytes > MAX_JUNK_BYTES:
            raise IntegrityError(
                f"more than {MAX_JUNK_BYTES} bytes before the handshake", reason="link-handshake"
            )


def _check_sizes(token: bytes, nonce: bytes) -> None:
    if len(token) != TOKEN_BYTES or len(nonce) != NONCE_BYTES:
        raise ValueError(f"token of {len(token)} and nonce of {len(nonce)} bytes")


class HostLink:
    """The host's side: send `hello`, then call `feed` until it returns the session's bytes."""

    def __init__(self, token: bytes, nonce: bytes) -> None:
        _check_sizes(token, nonce)
        self.hello: Final = _HELLO + token + nonce
        self._scanner = _Scanner(_WELCOME + token + nonce, 0)

    def feed(self, data: bytes) -> bytes | None:
        """Return the bytes after WELCOME, or None until it arrives.

        Raises:
            IntegrityError: too many bytes came before it.
        """
        found = self._scanner.feed(data)
        return None if found is None else found[1]


class GuestLink:
    """The guest's side: call `feed` until it returns the answer and the session's bytes.

    A guest without a token (None) accepts the token of the first HELLO. Its stream must be a
    connection that only its host can make, and it must accept only one.
    """

    def __init__(self, token: bytes | None) -> None:
        _check_sizes(bytes(TOKEN_BYTES) if token is None else token, bytes(NONCE_BYTES))
        self._known = token or b""
        tail_bytes = TOKEN_BYTES - len(self._known) + NONCE_BYTES
        self._scanner = _Scanner(_HELLO + self._known, tail_bytes)

    def feed(self, data: bytes) -> tuple[bytes, bytes] | None:
        """Return (WELCOME to send, bytes after HELLO), or None until HELLO arrives.

        Raises:
            IntegrityError: too many bytes came before it.
        """
        found = self._scanner.feed(data)
        return None if found is None else (_WELCOME + self._known + found[0], found[1])
