"""The protocol between a worker and a guest's warden: frames as bytes, without any I/O.

A frame is kind, exec number and body length (`<BII`), then the body: fixed fields, and at most one
string or blob that fills the rest. Nothing nests. The worker treats frames from the warden as
hostile: every deviation is one error, `IntegrityError` with reason `warden-protocol`.

Credit limits both directions of an exec. The warden sends at most `REPLIES_AHEAD` replies that the
worker has not processed (CREDIT returns one). The worker sends at most `CHUNKS_AHEAD` chunks that
the warden has not passed on (TAKEN returns one).
"""

from __future__ import annotations

import struct
from dataclasses import dataclass
from enum import IntEnum
from typing import Final, NamedTuple

from hpcc.core import MAX_PATH_BYTES, IntegrityError
from hpcc.wire.exec_frames import (
    CHUNK_BYTES,
    MAX_DETAIL_BYTES,
    MAX_HEADER_FRAME_BYTES,
    NEED_PER_FRAME,
)
from hpcc.wire.link import TOKEN_BYTES

WARDEN_PROTOCOL: Final = "warden-protocol"

# Worker to warden.
START: Final = 1
EXEC: Final = 2
CHUNK: Final = 3
FINISH: Final = 4
CANCEL: Final = 5
CREDIT: Final = 6
PING: Final = 7
# Warden to worker.
READY: Final = 16
NEED: Final = 17
STDIO: Final = 18
RESULT: Final = 19
OUTPUT: Final = 20
END: Final = 21
TAKEN: Final = 22
PONG: Final = 23
LOST: Final = 24

# At most 8 chunks of 256 KiB between a guest and a slow consumer, and 4 on the way to a guest.
REPLIES_AHEAD: Final = 8
CHUNKS_AHEAD: Final = 4
MAX_LOST_BYTES: Final = 256
DIGEST_BYTES: Final = 32

_HEADER: Final = struct.Struct("<BII")
HEADER_BYTES: Final = _HEADER.size
_START: Final = struct.Struct(f"<{TOKEN_BYTES}sII")
_CHUNK: Final = struct.Struct(f"<{DIGEST_BYTES}sB")
_BYTE: Final = struct.Struct("<B")
_RESULT: Final = struct.Struct("<IIi4dQ")
_OUTPUT: Final = struct.Struct("<BH")
_LAST: Final = 1
_IS_EXECUTABLE: Final = 2
_MORE: Final = 1

TO_WARDEN: Final = {
    START: _START.size,
    EXEC: MAX_HEADER_FRAME_BYTES,
    CHUNK: _CHUNK.size + CHUNK_BYTES,
    FINISH: 0,
    CANCEL: 0,
    CREDIT: 0,
    PING: 0,
}
TO_WORKER: Final = {
    READY: 0,
    NEED: _BYTE.size + NEED_PER_FRAME * DIGEST_BYTES,
    STDIO: _BYTE.size + CHUNK_BYTES,
    RESULT: _RESULT.size + MAX_DETAIL_BYTES,
    OUTPUT: _OUTPUT.size + MAX_PATH_BYTES + CHUNK_BYTES,
    END: 0,
    TAKEN: 0,
    PONG: 0,
    LOST: _BYTE.size + MAX_LOST_BYTES,
}
# Frames outside of any exec have number 0. All others have a number from 1 on.
_OF_NO_EXEC: Final = frozenset({START, PING, READY, PONG, LOST})


class LostCode(IntEnum):
    """Why a warden gives up its guest."""

    ENDED = 1  # the guest's stream ended, or it answered no ping
    BREACH = 2  # it broke the protocol
    FAILED = 3  # it answered an exec with an error
    HANDSHAKE = 4  # it never sent what only this guest can send


@dataclass(frozen=True, slots=True)
class NeedReply:
    """Blobs that the guest lacks, raw digests of 32 bytes."""

    digests: tuple[bytes, ...]
    more: bool


@dataclass(frozen=True, slots=True)
class StdioReply:
    """Bytes of a stream: 1 is stdout, 2 is stderr. Other numbers are invalid."""

    stream: int
    data: bytes


@dataclass(frozen=True, slots=True, kw_only=True)
class ResultReply:
    """agent.proto's Result, unchecked. Times are in seconds and may be NaN or infinite."""

    exit_code: int
    signal: int
    reason: int
    wall_seconds: float
    user_seconds: float
    system_seconds: float
    stage_seconds: float
    max_rss_bytes: int
    detail: str


@dataclass(frozen=True, slots=True)
class OutputReply:
    """agent.proto's OutputChunk, unchecked."""

    path: str
    data: bytes
    is_executable: bool
    last: bool


type Reply = NeedReply | StdioReply | ResultReply | OutputReply


# On the worker's connection to the zygote: a uid (the last value means the current one), together
# with the guest's stream, the warden's end of its connection, and the pipe for its fate.
REQUEST_DESCRIPTORS: Final = 3
_SAME_UID: Final = (1 << 32) - 1
_SPAWN: Final = struct.Struct("<I")
# A pid, then a wait status.
_FATE: Final = struct.Struct("<i")


class Start(NamedTuple):
    """A warden's first frame: its guest's token, and the settings for pings."""

    token: bytes
    keepalive_ms: int
    keepalive_timeout_ms: int


def _malformed(what: str) -> IntegrityError:
    return IntegrityError(f"warden frame: {what}", reason=WARDEN_PROTOCOL)


def encode_spawn(uid: int | None) -> bytes:
    """Return the request for a warden; None: with the zygote's own uid."""
    return _SPAWN.pack(_SAME_UID if uid is None else uid)


def decode_spawn(packet: bytes) -> int | None:
    """Return the uid in a request for a warden.

    Raises:
        IntegrityError: the packet has any other form.
    """
    if len(packet) != _SPAWN.size:
        raise _malformed("a request for a warden of a wrong length")
    (uid,) = _SPAWN.unpack(packet)
    return None if uid == _SAME_UID else int(uid)


def encode_fate(number: int) -> bytes:
    """Return the zygote's message about a warden: its pid, later its wait status."""
    return _FATE.pack(number)


def decode_fate(packet: bytes) -> int:
    """Return the number in a message about a warden.

    Raises:
        IntegrityError: the packet has any other form.
    """
    if len(packet) != _FATE.size:
        raise _malformed("a fate of a wrong length")
    return int(_FATE.unpack(packet)[0])


def head(kind: int, number: int, length: int) -> bytes:
    """Return the header of a frame whose body is sent separately.

    Raises:
        IntegrityError: the body is longer than its kind may be.
    """
    limit = TO_WARDEN.get(kind, TO_WORKER.get(kind, -1))
    if length > limit:
        raise _malformed(f"{length} bytes are too many for kind {kind}")
    return _HEADER.pack(kind, number, length)


def frame(kind: int, number: int = 0, body: bytes = b"") -> bytes:
    """Return a frame: a header, then the body.

    Raises:
        IntegrityError: the body is longer than its kind may be.
    """
    return head(kind, number, len(body)) + body


def parse_head(data: bytes, limits: dict[int, int]) -> tuple[int, int, int]:
    """Return kind, exec number and body length; `limits` is TO_WARDEN or TO_WORKER.

    Raises:
        IntegrityError: unknown kind in this direction, or an impossible number or length.
    """
    if len(data) != HEADER_BYTES:
        raise _malformed("cut off in its header")
    kind, number, length = _HEADER.unpack(data)
    limit = limits.get(kind)
    if limit is None:
        raise _malformed(f"unknown kind {kind}")
    if length > limit:
        raise _malformed(f"{length} bytes are too many for kind {kind}")
    if (number == 0) != (kind in _OF_NO_EXEC):
        raise _malformed(f"kind {kind} of exec {number}")
    return kind, number, length


def encode_start(start: Start) -> bytes:
    """Return the body of START."""
    return _START.pack(*start)


def decode_start(body: bytes) -> Start:
    """Return the content of START.

    Raises:
        IntegrityError: the body has any other form.
    """
    if len(body) != _START.size:
        raise _malformed("START of a wrong length")
    return Start(*_START.unpack(body))


def chunk_prefix(digest: bytes, *, last: bool) -> bytes:
    """Return the bytes that precede the data in the body of CHUNK."""
    return _CHUNK.pack(digest, _LAST * last)


def decode_chunk(body: bytes) -> tuple[bytes, bytes, bool]:
    """Return digest, data and whether it is the blob's last chunk.

    Raises:
        IntegrityError: the body has any other form.
    """
    if len(body) < _CHUNK.size:
        raise _malformed("CHUNK is cut off")
    digest, flags = _CHUNK.unpack_from(body)
    return digest, body[_CHUNK.size :], _flag(flags, _LAST)


def encode_reply(reply: Reply) -> tuple[int, tuple[bytes, ...]]:
    """Return the kind and the body, in pieces, of a guest's reply.

    Raises:
        IntegrityError: it is larger than a guest's reply may be.
    """
    try:
        kind, pieces = _encode_reply(reply)
    except (struct.error, UnicodeEncodeError) as error:
        raise _malformed("a reply that fits no frame") from error
    if sum(map(len, pieces)) > TO_WORKER[kind]:
        raise _malformed("a reply that is too large")
    return kind, pieces


def _encode_reply(reply: Reply) -> tuple[int, tuple[bytes, ...]]:
    match reply:
        case NeedReply(digests, more):
            if any(len(d) != DIGEST_BYTES for d in digests):
                raise _malformed("a digest of a wrong length")
            return NEED, (_BYTE.pack(_MORE * more), *digests)
        case StdioReply(stream, data):
            return STDIO, (_BYTE.pack(stream), data)
        case OutputReply(path, data, is_executable, last):
            name = path.encode()
            if len(name) > MAX_PATH_BYTES or len(data) > CHUNK_BYTES:
                raise _malformed("a path or a piece that is too long")
            flags = _LAST * last | _IS_EXECUTABLE * is_executable
            return OUTPUT, (_OUTPUT.pack(flags, len(name)), name, data)
        case ResultReply():
            fixed = _RESULT.pack(
                reply.exit_code,
                reply.signal,
                reply.reason,
                reply.wall_seconds,
                reply.user_seconds,
                reply.system_seconds,
                reply.stage_seconds,
                reply.max_rss_bytes,
            )
            return RESULT, (fixed, reply.detail.encode())


def decode_reply(kind: int, body: bytes) -> Reply:
    """Return the reply in a body of NEED, STDIO, RESULT or OUTPUT.

    Raises:
        IntegrityError: the body has any other form.
    """
    if kind == STDIO and len(body) >= _BYTE.size:
        return StdioReply(body[0], body[1:])
    if kind == OUTPUT and len(body) >= _OUTPUT.size:
        return _decode_output(body)
    if kind == NEED and len(body) % DIGEST_BYTES == _BYTE.size:
        starts = range(_BYTE.size, len(body), DIGEST_BYTES)
        return NeedReply(
            tuple(body[at : at + DIGEST_BYTES] for at in starts), _flag(body[0], _MORE)
        )
    if kind == RESULT and len(body) >= _RESULT.size:
        return _decode_result(body)
    raise _malformed(f"kind {kind} is not a reply, or it is cut off")


def _decode_output(body: bytes) -> OutputReply:
    flags, length = _OUTPUT.unpack_from(body)
    end = _OUTPUT.size + length
    if flags & ~(_LAST | _IS_EXECUTABLE) or length > MAX_PATH_BYTES or end > len(body):
        raise _malformed("OUTPUT with wrong flags or lengths")
    data = body[end:]
    if len(data) > CHUNK_BYTES:
        raise _malformed("OUTPUT that is too large")
    name = _text(body[_OUTPUT.size : end])
    return OutputReply(name, data, bool(flags & _IS_EXECUTABLE), bool(flags & _LAST))


def _decode_result(body: bytes) -> ResultReply:
    exit_code, signal, reason, wall, user, system, stage, rss = _RESULT.unpack_from(body)
    return ResultReply(
        exit_code=exit_code,
        signal=signal,
        reason=reason,
        wall_seconds=wall,
        user_seconds=user,
        system_seconds=system,
        stage_seconds=stage,
        max_rss_bytes=rss,
        detail=_text(body[_RESULT.size :]),
    )


def encode_lost(code: LostCode, text: str) -> bytes:
    """Return the body of LOST; a long text is truncated."""
    raw = text.encode("utf-8", "replace")[:MAX_LOST_BYTES]
    return _BYTE.pack(code) + raw


def decode_lost(body: bytes) -> tuple[LostCode, str]:
    """Return code and text. The text is hostile. It is made printable and is only for logs.

    Raises:
        IntegrityError: the body has any other form.
    """
    try:
        code = LostCode(body[0])
    except (IndexError, ValueError):
        raise _malformed("LOST without a known code") from None
    text = body[1:].decode("utf-8", "replace")
    return code, "".join(c if c.isprintable() else "?" for c in text)


def _flag(value: int, known: int) -> bool:
    if value & ~known:
        raise _malformed("an unknown flag")
    return bool(value)


def _text(raw: bytes) -> str:
    try:
        return raw.decode()
    except UnicodeDecodeError as error:
        raise _malformed("not UTF-8") from error
