"""Files that hold secrets: mode 0600 from creation, and complete or absent."""

from __future__ import annotations

from pathlib import Path

from hpcc.core import InfrastructureError
from hpcc.files.whole import Sync, write_whole


def make_private_directory(path: Path) -> None:
    """Create a directory that only its owner can access, unless it exists.

    Raises:
        InfrastructureError: it cannot be created.
    """
    make_directory(path, mode=0o700)


def make_directory(path: Path, *, mode: int = 0o777) -> None:
    """Create a directory, unless it exists. The umask applies to `mode`.

    Raises:
        InfrastructureError: it cannot be created.
    """
    try:
        path.mkdir(mode=mode, parents=True, exist_ok=True)
    except OSError as error:
        raise InfrastructureError(
            f"cannot make the directory {path}: {error.strerror}", reason="directory"
        ) from error


def write_private_file(path: Path, data: bytes) -> None:
    """Replace `path` with a file that contains `data` and that only its owner can read.

    Raises:
        InfrastructureError: it cannot be written; the old content is unchanged.
    """
    try:
        write_whole(path, data, sync=Sync.CONTENT, makes_parent=True)
    except OSError as error:
        raise InfrastructureError(
            f"cannot write {path}: {error.strerror}", reason="private-file"
        ) from error
