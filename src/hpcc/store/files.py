"""Files that are whole or absent: write aside, sync, rename."""

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
    """Put `data` at `path`, whole or not at all; nothing stays aside on an error.

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
    """Return the bytes; None when absent. One byte over `limit` is read, so that it shows.

    Raises:
        InfrastructureError: the store does not work.
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
    """Map an operating system error; the text holds no path, which may name a tenant."""
    if error.errno in _FULL:
        return InfrastructureError("the store's disk is full", reason="disk-full")
    return InfrastructureError(f"store cannot {what}: {error.strerror}", reason="store")
