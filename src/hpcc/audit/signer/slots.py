"""Keeps the state of a signer: two files in turn, so that one of them is always whole.

A state has magic, number, size and SHA-256 before it. A write goes to the file that has the older
state and ends with `fdatasync`. A write that was cut leaves the other file, whose state is the one
before. Nothing that the cut one has was signed for anybody: a signature leaves after the write.
"""

from __future__ import annotations

import hashlib
import os
import struct
import time
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Final

from hpcc.audit.base.canonical import MAX_RECORD_BYTES
from hpcc.audit.base.frames import SIGNATURE_BYTES, framed
from hpcc.audit.signer.fields import (
    HASH,
    MAX_BYTES,
    NO_NUMBER,
    U8,
    U16,
    U32,
    U64,
    Fields,
    SignerMessageError,
    packed_peaks,
    peaks_of,
)
from hpcc.audit.signer.ledger import LedgerState, Point, SegmentStart, extended
from hpcc.audit.signer.messages import MAX_RECORDS, MAX_STATE_BYTES
from hpcc.core import InfrastructureError, IntegrityError
from hpcc.files import lock_now, open_file, sync_directory, sync_file
from hpcc.files.whole import FaultPoint, no_fault

_MAGIC: Final = b"hpccsig1"
# Magic, number of the state, size of the state, and the SHA-256 of number and state.
_HEADER: Final = struct.Struct(f">8sQI{HASH}s")
_NAMES: Final = ("state-0", "state-1")
# Most states fit: to write one takes no new block of the disk then.
_ROOM_BYTES: Final = 64 << 10
_MAX_NAME_BYTES: Final = 512
# The signer of a worker that was killed ends when it sees that, not at once.
_LOCK_SECONDS: Final = 5.0
_LOCK_PAUSE_SECONDS: Final = 0.02


class SignerStateError(IntegrityError):
    """The files of a signer are damaged, or another signer's."""

    default_reason = "audit-signer-state"


def encode_state(state: LedgerState, key: bytes) -> bytes:
    """Return the bytes of a state of the signer with a raw public key."""
    worker = state.worker.encode("utf-8", "surrogatepass")
    sealed = b"" if state.sealed is None else _packed_start(state.sealed)
    signed_from = NO_NUMBER if state.signed_from is None else state.signed_from
    base = state.base
    return b"".join((
        key, U16.pack(len(worker)), worker, U64.pack(state.tree_first), U64.pack(base.count),
        bytes.fromhex(base.head), U64.pack(base.written), packed_peaks(base.peaks),
        _packed_start(state.segment), U8.pack(bool(sealed)), sealed, U64.pack(signed_from),
        U16.pack(len(state.pending)), *(framed(*item) for item in state.pending),
    ))  # fmt: skip


def decode_state(data: bytes) -> tuple[LedgerState, bytes]:
    """Return a state and the raw public key of its signer.

    Raises:
        SignerMessageError: it has another form.
    """
    fields = Fields(data)
    key, size = fields.take(HASH), fields.number(U16)
    if size > _MAX_NAME_BYTES:
        raise SignerMessageError("the name of a worker is too long")
    try:
        worker = fields.take(size).decode("utf-8", "surrogatepass")
    except UnicodeDecodeError as error:
        raise SignerMessageError("the name of a worker is not UTF-8") from error
    tree_first, count, head = fields.count(), fields.count(), fields.take(HASH).hex()
    written = fields.count(MAX_BYTES)
    base = Point(count, head, peaks_of(fields, count - tree_first + 1), written)
    segment = _start_of(fields)
    has_sealed = fields.number(U8)
    if has_sealed > 1:
        raise SignerMessageError("a state has another form")
    sealed = _start_of(fields) if has_sealed else None
    signed_from = fields.count_or_none()
    number = fields.number(U16)
    if number > MAX_RECORDS:
        raise SignerMessageError(f"a group has {number} records")
    pending = tuple(_record_of(fields) for _ in range(number))
    fields.end()
    state = LedgerState(
        worker=worker, tree_first=tree_first, base=base, tip=extended(base, tree_first, pending),
        segment=segment, sealed=sealed, signed_from=signed_from, pending=pending,
    )  # fmt: skip
    return state, key


def _packed_start(start: SegmentStart) -> bytes:
    return U64.pack(start.first) + bytes.fromhex(start.previous) + U64.pack(start.begin)


def _start_of(fields: Fields) -> SegmentStart:
    return SegmentStart(fields.count(), fields.take(HASH).hex(), fields.count(MAX_BYTES))


def _record_of(fields: Fields) -> tuple[bytes, bytes]:
    # The highest byte says that the frame is signed (`hpcc.audit.base.frames`).
    length = fields.number(U32) - (1 << 24)
    if not SIGNATURE_BYTES < length <= MAX_RECORD_BYTES + SIGNATURE_BYTES:
        raise SignerMessageError("a record is too large")
    data, signature = fields.take(length - SIGNATURE_BYTES), fields.take(SIGNATURE_BYTES)
    if fields.take(1) != b"\n":
        raise SignerMessageError("a frame has no end")
    return data, signature


class StateSlots:
    """The files of one signer, which holds their lock until `close`."""

    def __init__(
        self,
        directory: Path,
        fault: FaultPoint = no_fault,
        sleep: Callable[[float], None] = time.sleep,  # noqa: TID251 - a process without a loop
    ) -> None:
        """Open or make the files.

        Raises:
            InfrastructureError: another signer has them.
            OSError: they cannot be opened.
        """
        self._fault, self._number = fault, 0
        self._files = [open_file(directory / n, os.O_RDWR | os.O_CREAT) for n in _NAMES]
        try:
            self._take_lock(directory, sleep)
            for file in self._files:
                if os.fstat(file).st_size < _ROOM_BYTES:
                    # Not a hole: a full disk must not refuse a state that replaces another.
                    with suppress(OSError):
                        os.posix_fallocate(file, 0, _ROOM_BYTES)
            sync_directory(directory)
        except BaseException:
            self.close()
            raise

    def _take_lock(self, directory: Path, sleep: Callable[[float], None]) -> None:
        rest = _LOCK_SECONDS
        while True:
            try:
                lock_now(self._files[0])
            except BlockingIOError as error:
                if rest <= 0:
                    raise InfrastructureError(
                        f"another process signs with the key in {directory}: end it",
                        reason="audit-locked",
                    ) from error
                sleep(_LOCK_PAUSE_SECONDS)
                rest -= _LOCK_PAUSE_SECONDS
            else:
                return

    def load(self) -> bytes | None:
        """Return the newest whole state; None if there was none.

        Raises:
            SignerStateError: there was one, and neither file is whole.
            OSError: they cannot be read.
        """
        found = [_read(file) for file in self._files]
        whole = [item for item in found if isinstance(item, tuple)]
        if not whole:
            if any(item is None for item in found):
                raise SignerStateError(
                    "the state of the signer is damaged: docs/operate.md says how to go on"
                )
            return None
        self._number, data = max(whole)
        return data

    def store(self, data: bytes) -> None:
        """Make a state durable.

        Raises:
            OSError: it is not. The one before counts.
        """
        number = self._number + 1
        file = self._files[number % len(self._files)]
        header = _HEADER.pack(_MAGIC, number, len(data), _digest(number, data))
        try:
            view = memoryview(header + data)
            at = 0
            while at < len(view):
                self._fault("signer-write")
                at += os.pwrite(file, view[at:], at)
            self._fault("signer-sync")
            sync_file(file)
        except OSError:
            # What is there may be whole, and must not count at the next start.
            with suppress(OSError):
                os.pwrite(file, bytes(_HEADER.size), 0)
                sync_file(file)
            raise
        self._number = number

    def close(self) -> None:
        """Close the files, and with them the lock."""
        for file in self._files:
            os.close(file)
        self._files = []


def _digest(number: int, data: bytes) -> bytes:
    return hashlib.sha256(U64.pack(number) + data).digest()


def _read(file: int) -> tuple[int, bytes] | bool | None:
    """Return number and state; False: there is no state yet, None: it is damaged."""
    header = os.pread(file, _HEADER.size, 0)
    if not any(header):
        return False
    if len(header) < _HEADER.size:
        return None
    magic, number, size, digest = _HEADER.unpack(header)
    if magic != _MAGIC or size > MAX_STATE_BYTES:
        return None
    data = _read_all(file, size)
    return (number, data) if _digest(number, data) == digest else None


def _read_all(file: int, size: int) -> bytes:
    parts, at = [], 0
    while at < size:
        part = os.pread(file, size - at, _HEADER.size + at)
        if not part:
            break
        parts.append(part)
        at += len(part)
    return b"".join(parts)
