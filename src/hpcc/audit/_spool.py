"""The spool: the trail itself, an append-only file of length-prefixed canonical records.

Frame: 4 bytes length (big endian), record, newline. The newline makes the file readable and
ends a frame visibly. Only the last frame of a file can be torn, by a crash in mid-write.
"""

from __future__ import annotations

import fcntl
import os
import struct
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from typing import BinaryIO, Final

from hpcc.audit._canonical import (
    GENESIS,
    MAX_RECORD_BYTES,
    AuditDamagedError,
    Record,
    decode_record,
)
from hpcc.core import InfrastructureError

_LENGTH: Final = struct.Struct(">I")
SPOOL_NAME: Final = "spool.hpcc"


def spool_path(directory: Path) -> Path:
    return directory / SPOOL_NAME


def frame_of(record: Record) -> bytes:
    return _LENGTH.pack(len(record.data)) + record.data + b"\n"


def read_frames(file: BinaryIO) -> Iterator[tuple[int, bytes]]:
    """Yield (offset after the frame, record bytes); ends silently at a torn last frame.

    Raises:
        AuditDamagedError: a frame that is not the torn tail is broken.
    """
    offset = file.tell()
    while True:
        head = file.read(_LENGTH.size)
        if len(head) < _LENGTH.size:
            return
        (length,) = _LENGTH.unpack(head)
        if length > MAX_RECORD_BYTES:
            raise AuditDamagedError(f"impossible length at byte {offset}")
        data = file.read(length + 1)
        if len(data) < length + 1:
            return
        if data[-1:] != b"\n":
            raise AuditDamagedError(f"frame without an end at byte {offset}")
        offset += _LENGTH.size + length + 1
        yield offset, data[:-1]


def read_placed(
    file: BinaryIO, *, sequence: int = 0, head: str = GENESIS
) -> Iterator[tuple[int, Record]]:
    """Yield (offset of its frame, record) from the file's position, checking the chain.

    Raises:
        AuditDamagedError: the chain is broken.
    """
    place = file.tell()
    for after, data in read_frames(file):
        record = decode_record(data)
        if record.sequence != sequence or record.previous != head:
            raise AuditDamagedError(f"the chain is broken at record {sequence}")
        yield place, record
        place, sequence, head = after, sequence + 1, record.hash


class Spool:
    """The file opened for appending by its one writer."""

    def __init__(self, directory: Path) -> None:
        """Open it, check the whole chain and cut a torn tail.

        Raises:
            AuditDamagedError: more than the tail is broken.
            InfrastructureError: it cannot be opened.
        """
        try:
            directory.mkdir(parents=True, exist_ok=True, mode=0o700)
            path = spool_path(directory)
            flags = os.O_RDWR | os.O_CREAT | os.O_APPEND | os.O_CLOEXEC | os.O_NOFOLLOW
            self._file = os.fdopen(os.open(path, flags, 0o600), "r+b", buffering=0)
            fcntl.flock(self._file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            self._file.close()
            raise InfrastructureError(
                "another worker writes this audit trail: stop it, or give each its own directory",
                reason="audit-locked",
            ) from error
        except OSError as error:
            raise InfrastructureError(
                f"cannot open the audit spool: {error.strerror}", reason="audit"
            ) from error
        self.count, self.head = 0, GENESIS
        self.size_bytes = 0
        self.torn_bytes = 0
        self._recover(path)

    def _recover(self, path: Path) -> None:
        with path.open("rb") as file:
            try:
                for _, record in read_placed(file):
                    self.count, self.head = record.sequence + 1, record.hash
                    self.size_bytes += _LENGTH.size + len(record.data) + 1
            except AuditDamagedError:
                # A power cut may leave a grown file whose new blocks were never written.
                file.seek(self.size_bytes)
                if any(file.read(MAX_RECORD_BYTES)):
                    self._file.close()
                    raise
        actual = os.fstat(self._file.fileno()).st_size
        if actual > self.size_bytes:
            self.torn_bytes = actual - self.size_bytes
            os.ftruncate(self._file.fileno(), self.size_bytes)
            os.fsync(self._file.fileno())

    def append(self, frames: bytes) -> None:
        """Write whole frames and sync; on an error nothing of them stays.

        Raises:
            OSError: they are not durable.
        """
        descriptor = self._file.fileno()
        try:
            view = memoryview(frames)
            while view:
                view = view[os.write(descriptor, view) :]
            os.fdatasync(descriptor)
        except OSError:
            with suppress(OSError):
                os.ftruncate(descriptor, self.size_bytes)
            raise
        self.size_bytes += len(frames)

    def close(self) -> None:
        self._file.close()
