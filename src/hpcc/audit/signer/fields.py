"""Numbers and hashes one after the other, as messages and the signer's state have them."""

from __future__ import annotations

import struct
from typing import Final

from hpcc.audit.base.heads import MAX_COUNT
from hpcc.audit.base.trail_signer import TrailEnd
from hpcc.core import IntegrityError

U8: Final = struct.Struct(">B")
U16: Final = struct.Struct(">H")
U32: Final = struct.Struct(">I")
U64: Final = struct.Struct(">Q")
HASH: Final = 32
# In place of a number: there is none.
NO_NUMBER: Final = (1 << 64) - 1
# The frames of a trail: more bytes than a disk has.
MAX_BYTES: Final = 1 << 62


class SignerMessageError(IntegrityError):
    """A message or the state of a signer has another form."""

    default_reason = "audit-signer-message"


class Fields:
    """Reads bytes from their begin; what is missing is an error."""

    def __init__(self, data: bytes) -> None:
        self._data, self._at = data, 0

    @property
    def left(self) -> int:
        """Return how many bytes are not read yet."""
        return len(self._data) - self._at

    def take(self, size: int) -> bytes:
        """Return the next bytes.

        Raises:
            SignerMessageError: there are fewer.
        """
        if size > self.left:
            raise SignerMessageError("a message or state is cut")
        self._at += size
        return self._data[self._at - size : self._at]

    def number(self, form: struct.Struct) -> int:
        """Return the next number; see `take`."""
        return int(form.unpack(self.take(form.size))[0])

    def count(self, most: int = MAX_COUNT) -> int:
        """Return the next number of 8 bytes.

        Raises:
            SignerMessageError: it is above `most`.
        """
        found = self.number(U64)
        if found > most:
            raise SignerMessageError("a number is too large")
        return found

    def count_or_none(self) -> int | None:
        """Return the next number of 8 bytes, None in place of one; see `count`."""
        found = self.number(U64)
        if found == NO_NUMBER:
            return None
        if found > MAX_COUNT:
            raise SignerMessageError("a number is too large")
        return found

    def end(self) -> None:
        """Check that all is read.

        Raises:
            SignerMessageError: something follows.
        """
        if self.left:
            raise SignerMessageError("a message or state has bytes behind its end")


def packed_peaks(peaks: tuple[bytes, ...]) -> bytes:
    """Return the peaks of a tree behind their number."""
    return b"".join((U8.pack(len(peaks)), *peaks))


def peaks_of(fields: Fields, size: int) -> tuple[bytes, ...]:
    """Read the peaks of a tree with `size` leaves.

    Raises:
        SignerMessageError: a tree of this size has another number of peaks.
    """
    count = fields.number(U8)
    if size < 1 or count != size.bit_count():
        raise SignerMessageError("a tree of this size has another number of peaks")
    return tuple(fields.take(HASH) for _ in range(count))


def packed_end(end: TrailEnd) -> bytes:
    """Return the end of a trail as bytes."""
    signed_from = NO_NUMBER if end.signed_from is None else end.signed_from
    return b"".join((
        U64.pack(end.count), bytes.fromhex(end.head), U64.pack(end.tree_first),
        packed_peaks(end.peaks), U64.pack(end.first), bytes.fromhex(end.previous),
        U64.pack(end.size_bytes), U64.pack(signed_from),
    ))  # fmt: skip


def end_of(fields: Fields) -> TrailEnd:
    """Read the end of a trail.

    Raises:
        SignerMessageError: it contradicts itself.
    """
    count, head, tree_first = fields.count(), fields.take(HASH).hex(), fields.count()
    peaks = peaks_of(fields, count - tree_first + 1)
    end = TrailEnd(
        count=count, head=head, tree_first=tree_first, peaks=peaks, first=fields.count(),
        previous=fields.take(HASH).hex(), size_bytes=fields.count(MAX_BYTES),
        signed_from=fields.count_or_none(),
    )  # fmt: skip
    is_empty = end.first == count
    if end.first > count or is_empty != (not end.size_bytes) or (end.signed_from or 0) > count:
        raise SignerMessageError("the end of a trail contradicts itself")
    return end
