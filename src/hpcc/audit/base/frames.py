"""Frames: how records lie in a segment, unsigned (format 1) or each with its writer's signature.

A frame is a length in 4 bytes (big-endian), a record's bytes, in format 2 a signature of 64 bytes,
and a newline. The highest byte of the length is the format less one. It was always zero, so an
earlier version refuses a signed frame and does not misread it.

The signature is that of DSSE over the record's bytes, so an envelope of it can be made at any time.
"""

from __future__ import annotations

import struct
from collections.abc import Iterator
from typing import BinaryIO, Final, NamedTuple

from hpcc.audit.base.canonical import (
    MAX_RECORD_BYTES,
    AuditDamagedError,
    Record,
    decode_record,
    signed_message,
)
from hpcc.audit.base.heads import is_signed

LENGTH: Final = struct.Struct(">I")
SIGNATURE_BYTES: Final = 64
_SIGNED: Final = 1 << 24
_END: Final = b"\n"


class SegmentFrame(NamedTuple):
    """A frame as it was read: the offset after it, the record's bytes, the signature or nothing."""

    after: int
    data: bytes
    signature: bytes


def is_signed_by(record: Record, key: bytes) -> bool:
    """Return whether the signature in a record's frame is good under a raw public key."""
    return is_signed(key, record.signature, signed_message(record.data))


def frame_of(record: Record) -> bytes:
    """Return a record's frame, of format 2 if it has a signature."""
    return framed(record.data, record.signature)


def framed(data: bytes, signature: bytes) -> bytes:
    """Return the frame of a record's bytes, of format 2 if there is a signature."""
    length = len(data) + len(signature)
    return LENGTH.pack(length | (_SIGNED if signature else 0)) + data + signature + _END


def frame_bytes(record: Record) -> int:
    """Return the size of a record's frame."""
    return LENGTH.size + len(record.data) + len(record.signature) + len(_END)


def read_frames(file: BinaryIO) -> Iterator[SegmentFrame]:
    """Yield frames from the file's position.

    The iteration ends without an error at an incomplete last frame.

    Raises:
        AuditDamagedError: another frame is malformed.
    """
    offset = file.tell()
    while True:
        head = file.read(LENGTH.size)
        if len(head) < LENGTH.size:
            return
        (announced,) = LENGTH.unpack(head)
        signature_bytes = SIGNATURE_BYTES if announced & _SIGNED else 0
        length = announced & ~_SIGNED
        if not signature_bytes <= length <= MAX_RECORD_BYTES + signature_bytes:
            raise AuditDamagedError(f"impossible length at byte {offset}")
        data = file.read(length + 1)
        if len(data) < length + 1:
            return
        if data[-1:] != _END:
            raise AuditDamagedError(f"frame without an end at byte {offset}")
        offset += LENGTH.size + length + 1
        end = length - signature_bytes
        yield SegmentFrame(offset, data[:end], data[end:length])


def read_placed(file: BinaryIO, *, sequence: int, head: str) -> Iterator[tuple[int, Record]]:
    """Yield (offset of the frame, record) from the file's position, and check the chain.

    `sequence` and `head` are the number of the first record and the hash of the one before.
    Signatures are not checked.

    Raises:
        AuditDamagedError: the chain is broken.
    """
    place = file.tell()
    for frame in read_frames(file):
        record = decode_record(frame.data, frame.signature)
        if record.sequence != sequence or record.previous != head:
            raise AuditDamagedError(f"the chain is broken at record {sequence}")
        yield place, record
        place, sequence, head = frame.after, sequence + 1, record.hash
