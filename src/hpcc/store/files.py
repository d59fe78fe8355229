"""Writes files that are whole or absent: write a temporary file, sync it, rename it."""

from __future__ import annotations

import errno
import os
import secrets
from pathlib import Path
from typing import Final

from hpcc.core import InfrastructureError
from hpcc.files import open_file
from hpcc.files.whole import FaultPoint, Sync, no_fault, whole_file

ASIDE_PREFIX: Final = ".aside-"
_FULL: Final = frozenset({errno.ENOSPC, errno.EDQUOT, errno.EFBIG})


def write_file(path: Path, data: bytes, *, sync: bool, fault: FaultPoint = no_fault) -> None:
    """Write `data` to `path`, whole or not at all; an error leaves no temporary file.

    Parent directories are created. `sync` makes the content survive a power cut.

    Raises:
        InfrastructureError: reason `disk-full` or `store`.
    """
    try:
        with whole_file(
            path,
            sync=Sync.CONTENT if sync else Sync.NONE,
            aside=path.with_name(f"{ASIDE_PREFIX}{secrets.token_hex(8)}"),
            makes_parent=True,
            fault=fault,
        ) as file:
            file.write(data)
    except OSError as error:
        raise store_error(error, "write") from error


def read_file_or_none(path: Path, limit: int, *, fault: FaultPoint = no_fault) -> bytes | None:
    """Return the bytes of a file, or None if it is absent.

    At most `limit` + 1 bytes are read: a longer answer shows that the file is over the limit.

    Raises:
        InfrastructureError: the file cannot be read.
    """
    try:
        fault("read")
        descriptor = open_file(path, os.O_RDONLY)
        with os.fdopen(descriptor, "rb") as file:
            return file.read(limit + 1)
    except FileNotFoundError:
        return None
    except OSError as error:
        raise store_error(error, "read") from error


def store_error(error: OSError, what: str) -> InfrastructureError:
    """Convert an operating system error. The text contains no path, which may name a tenant."""
    if error.errno in _FULL:
        return InfrastructureError("the store's disk is full", reason="disk-full")
    return InfrastructureError(f"store cannot {what}: {error.strerror}", reason="store")
