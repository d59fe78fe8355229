"""Writes files that are whole or absent: write a temporary file, sync it, rename it.

A compile on a farm writes and reads a dozen small files. So these are calls on descriptors and
texts: `Path` and file objects cost more than the calls.
"""

from __future__ import annotations

import errno
import os
import secrets
from contextlib import suppress
from typing import Final

from hpcc.core import InfrastructureError
from hpcc.files import open_file
from hpcc.files.whole import FaultPoint, no_fault

ASIDE_PREFIX: Final = ".aside-"
_FULL: Final = frozenset({errno.ENOSPC, errno.EDQUOT, errno.EFBIG})
_PIECE_BYTES: Final = 256 << 10


def write_file(path: str, data: bytes, *, sync: bool, fault: FaultPoint = no_fault) -> None:
    """Write `data` to `path`, whole or not at all; an error leaves no temporary file.

    A missing directory of `path` is created. `sync` makes the content survive a power cut.

    Raises:
        InfrastructureError: reason `disk-full` or `store`.
    """
    directory = os.path.dirname(path)
    aside = f"{directory}/{ASIDE_PREFIX}{secrets.token_hex(8)}"
    try:
        fault("open")
        descriptor = _create(aside, directory)
        try:
            try:
                fault("write")
                view = memoryview(data)
                while view:
                    view = view[os.write(descriptor, view) :]
                if sync:
                    fault("sync")
                    os.fsync(descriptor)
            finally:
                os.close(descriptor)
            fault("rename")
            os.replace(aside, path)
        except BaseException:
            with suppress(OSError):
                os.unlink(aside)
            raise
    except OSError as error:
        raise store_error(error, "write") from error


def _create(path: str, directory: str) -> int:
    flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL
    try:
        return open_file(path, flags)
    except FileNotFoundError:
        os.makedirs(directory, mode=0o700, exist_ok=True)
        return open_file(path, flags)


def read_file_or_none(path: str, limit: int, *, fault: FaultPoint = no_fault) -> bytes | None:
    """Return the bytes of a file, or None if it is absent.

    At most `limit` + 1 bytes are read: a longer answer shows that the file is over the limit.

    Raises:
        InfrastructureError: the file cannot be read.
    """
    try:
        fault("read")
        descriptor = open_file(path, os.O_RDONLY)
        try:
            return _read(descriptor, limit + 1)
        finally:
            os.close(descriptor)
    except FileNotFoundError:
        return None
    except OSError as error:
        raise store_error(error, "read") from error


def _read(descriptor: int, most: int) -> bytes:
    first = os.read(descriptor, min(most, _PIECE_BYTES))
    pieces, left = [first], most - len(first)
    while left and (piece := os.read(descriptor, min(left, _PIECE_BYTES))):
        pieces.append(piece)
        left -= len(piece)
    return b"".join(pieces)


def store_error(error: OSError, what: str) -> InfrastructureError:
    """Convert an operating system error. The text contains no path, which may name a tenant."""
    if error.errno in _FULL:
        return InfrastructureError("the store's disk is full", reason="disk-full")
    return InfrastructureError(f"store cannot {what}: {error.strerror}", reason="store")
