"""The lock of a trail: one process writes it."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Final

from hpcc.core import InfrastructureError
from hpcc.files import lock_now, open_file

_LOCK_NAME: Final = "lock"


def lock_trail(directory: Path) -> int:
    """Return the descriptor that holds the lock until it is closed. Makes the directory.

    Raises:
        InfrastructureError: another process has it, or it cannot be opened.
    """
    descriptor = -1
    try:
        directory.mkdir(parents=True, exist_ok=True, mode=0o700)
        descriptor = open_file(directory / _LOCK_NAME, os.O_RDWR | os.O_CREAT)
        lock_now(descriptor)
    except BlockingIOError as error:
        os.close(descriptor)
        raise InfrastructureError(
            f"another process writes the audit trail in {directory}: stop it, or give each its own"
            " directory",
            reason="audit-locked",
        ) from error
    except OSError as error:
        if descriptor >= 0:
            os.close(descriptor)
        raise InfrastructureError(
            f"cannot open the audit spool in {directory}: {error.strerror}", reason="audit"
        ) from error
    return descriptor
