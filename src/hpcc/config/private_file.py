"""Files that hold secrets: 0600 from their first byte, whole or not at all."""

from __future__ import annotations

from pathlib import Path

from hpcc.core import InfrastructureError
from hpcc.files.whole import Sync, write_whole


def make_private_directory(path: Path) -> None:
    """Make a directory that only its owner can look into, unless it is there.

    Raises:
        InfrastructureError: it cannot be made.
    """
    make_directory(path, mode=0o700)


def make_directory(path: Path, *, mode: int = 0o777) -> None:
    """Make a directory, unless it is there; the umask takes its part of `mode`.

    Raises:
        InfrastructureError: it cannot be made.
    """
    try:
        path.mkdir(mode=mode, parents=True, exist_ok=True)
    except OSError as error:
        raise InfrastructureError(
            f"cannot make the directory {path}: {error.strerror}", reason="directory"
        ) from error


def write_private_file(path: Path, data: bytes) -> None:
    """Replace `path` by a file with `data` that only its owner can read.

    Raises:
        InfrastructureError: it cannot be written; what was there before still is.
    """
    try:
        write_whole(path, data, sync=Sync.CONTENT, makes_parent=True)
    except OSError as error:
        raise InfrastructureError(
            f"cannot write {path}: {error.strerror}", reason="private-file"
        ) from error
