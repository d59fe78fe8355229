"""The messages between a trail's writer and its signer: one request, one answer.

A message is the length of its content in 4 bytes (big-endian), its kind in one, and the content. A
length above what its kind may have is refused before anything is allocated.
"""

from __future__ import annotations

import enum
import math
import struct
from collections.abc import Callable, Sequence
from typing import Final

from hpcc.audit.base.canonical import MAX_RECORD_BYTES
from hpcc.audit.base.heads import MAX_COUNT
from hpcc.audit.base.index_statement import MAX_INDEX_BYTES
from hpcc.audit.base.segments import MAX_SEAL_BYTES
from hpcc.audit.base.trail_signer import (
    IndexDigest,
    TrailEnd,
    Wanted,
    WantedHead,
    WantedIndex,
    WantedName,
    WantedSeal,
    WantedTree,
)
from hpcc.audit.signer.fields import (
    HASH,
    U16,
    U32,
    U64,
    Fields,
    SignerMessageError,
    end_of,
    packed_end,
)

HEADER: Final = struct.Struct(">IB")
# Of one exchange: the writer makes no larger group (`hpcc.audit.log`).
MAX_RECORDS: Final = 256
# A group ends with the record that makes it larger than 1 MiB.
MAX_GROUP_BYTES: Final = MAX_RECORD_BYTES + (2 << 20)
# The records of a group with their signatures, and the rest of the state.
MAX_STATE_BYTES: Final = MAX_GROUP_BYTES + (1 << 16)
MAX_REASON_BYTES: Final = 1024
_SMALL_BYTES: Final = 16 << 10
_F64: Final = struct.Struct(">d")


class MessageKind(enum.IntEnum):
    """What a message is."""

    STATE = 1
    BEGIN = 2
    RECORDS = 3
    HEAD = 4
    TREE = 5
    SEAL = 6
    INDEX = 7
    NAME = 8
    # The answers.
    DONE = 64
    REFUSED = 65
    FAILED = 66


_LIMITS: Final = {MessageKind.RECORDS: MAX_GROUP_BYTES, MessageKind.DONE: MAX_STATE_BYTES}


def message(kind: MessageKind, content: bytes = b"") -> bytes:
    """Return a message's bytes."""
    return HEADER.pack(len(content), kind) + content


def read_message(receive: Callable[[int], bytes]) -> tuple[MessageKind, bytes]:
    """Read a message; `receive` returns exactly so many bytes.

    Raises:
        SignerMessageError: there is no such kind, or it is too long.
    """
    length, number = HEADER.unpack(receive(HEADER.size))
    try:
        kind = MessageKind(number)
    except ValueError as error:
        raise SignerMessageError(f"there is no message of kind {number}") from error
    if length > _LIMITS.get(kind, _SMALL_BYTES):
        raise SignerMessageError(f"a message of kind {kind.name} has {length} bytes")
    return kind, receive(length)


def encode_records(records: Sequence[bytes]) -> bytes:
    """Return the content of a request for the signatures of records."""
    lengths = struct.pack(f">H{len(records)}I", len(records), *map(len, records))
    return b"".join((lengths, *records))


def decode_records(content: bytes) -> list[bytes]:
    """Return the records of a request.

    Raises:
        SignerMessageError: it has another form, or too many or too large records.
    """
    fields = Fields(content)
    count = fields.number(U16)
    if not 0 < count <= MAX_RECORDS:
        raise SignerMessageError(f"a group has {count} records")
    lengths = [fields.number(U32) for _ in range(count)]
    if max(lengths) > MAX_RECORD_BYTES:
        raise SignerMessageError("a record is too large")
    records = [fields.take(length) for length in lengths]
    fields.end()
    return records


def encode_wanted(wanted: Wanted) -> tuple[MessageKind, bytes]:
    """Return kind and content of a request for another signature."""
    match wanted:
        case WantedHead():
            return MessageKind.HEAD, U64.pack(wanted.count) + _F64.pack(wanted.at)
        case WantedTree():
            return MessageKind.TREE, U64.pack(wanted.count) + _F64.pack(wanted.at)
        case WantedSeal():
            start = U64.pack(wanted.first) + U64.pack(wanted.signed_from) + _F64.pack(wanted.at)
            return MessageKind.SEAL, start + (_packed_index(wanted.index) if wanted.index else b"")
        case WantedIndex():
            start = U64.pack(wanted.first) + _packed_index(wanted.index)
            return MessageKind.INDEX, start + wanted.seal
        case WantedName():
            return MessageKind.NAME, _F64.pack(wanted.at)


def decode_wanted(kind: MessageKind, content: bytes) -> Wanted:
    """Return what a request wants to have signed.

    Raises:
        SignerMessageError: it has another form, or a part is out of range.
    """
    fields = Fields(content)
    wanted: Wanted
    match kind:
        case MessageKind.HEAD:
            wanted = WantedHead(_count(fields), _time(fields))
        case MessageKind.TREE:
            wanted = WantedTree(_count(fields), _time(fields))
        case MessageKind.SEAL:
            first, signed_from, at = _count(fields), _count(fields), _time(fields)
            index = _index(fields) if fields.left else None
            wanted = WantedSeal(first=first, signed_from=signed_from, at=at, index=index)
        case MessageKind.INDEX:
            first, digest = _count(fields), _index(fields)
            if fields.left > MAX_SEAL_BYTES:
                raise SignerMessageError("a seal is too long")
            seal = fields.take(fields.left)
            wanted = WantedIndex(first=first, index=digest, seal=seal)
        case MessageKind.NAME:
            wanted = WantedName(_time(fields))
        case _:
            raise SignerMessageError(f"a message of kind {kind.name} asks for no signature")
    fields.end()
    return wanted


def encode_end(end: TrailEnd) -> bytes:
    """Return the content of a request to begin a trail."""
    return packed_end(end)


def decode_end(content: bytes) -> TrailEnd:
    """Return where a trail ends with which a signer begins.

    Raises:
        SignerMessageError: it has another form, or contradicts itself.
    """
    fields = Fields(content)
    end = end_of(fields)
    fields.end()
    return end


def _packed_index(index: IndexDigest) -> bytes:
    return b"".join((
        bytes.fromhex(index.sha256), U64.pack(index.size_bytes), _F64.pack(index.since),
        _F64.pack(index.until),
    ))  # fmt: skip


def _index(fields: Fields) -> IndexDigest:
    digest = IndexDigest(
        sha256=fields.take(HASH).hex(), size_bytes=fields.number(U64), since=_time(fields),
        until=_time(fields),
    )  # fmt: skip
    if digest.size_bytes > MAX_INDEX_BYTES:
        raise SignerMessageError("an index is too large")
    return digest


def _count(fields: Fields) -> int:
    count = fields.number(U64)
    if count > MAX_COUNT:
        raise SignerMessageError("a number is too large")
    return count


def _time(fields: Fields) -> float:
    (at,) = _F64.unpack(fields.take(_F64.size))
    if not math.isfinite(at):
        raise SignerMessageError("a time is not a number")
    return float(at)
