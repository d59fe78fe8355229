"""Files that are whole or absent: write aside, sync, rename."""

from __future__ import annotations

import errno
import os
import secrets
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Final

from hpcc.core import InfrastructureError
from hpcc.files import open_file

ASIDE_PREFIX: Final = ".aside-"
_FULL: Final = frozenset({errno.ENOSPC, errno.EDQUOT, errno.EFBIG})

# Called before each step ("open", "write", "fsync", "rename", "read"); a test makes it raise.
FaultPoint = Callable[[str], None]


def no_fault(step: str) -> None:
    """Do nothing: the fault point of the product."""
    del step


def write_file(path: Path, data: bytes, *, sync: bool, fault: FaultPoint = no_fault) -> None:
    """Put `data` at `path`, whole or not at all; nothing stays aside on an error.

    Raises:
        InfrastructureError: reason `disk-full` or `store`.
    """
    aside = path.with_name(f"{ASIDE_PREFIX}{secrets.token_hex(8)}")
    try:
        fault("open")
        descriptor = _create(aside)
        with os.fdopen(descriptor, "wb") as file:
            fault("write")
            file.write(data)
            file.flush()
            if sync:
                fault("fsync")
                os.fsync(descriptor)
        fault("rename")
        aside.replace(path)
    except OSError as error:
        raise store_error(error, "write") from error
    finally:
        with suppress(OSError):
            aside.unlink(missing_ok=True)


def _create(path: Path) -> int:
    flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL
    try:
        return open_file(path, flags)
    except FileNotFoundError:
        path.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
        return open_file(path, flags)


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
