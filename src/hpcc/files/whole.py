"""Files that are complete or absent: written aside, synced as requested, renamed.

A reader sees the old file or the new one, never a part. After an error the old file still exists
and nothing is left aside. Only a crash of this process can leave the file aside.
"""

from __future__ import annotations

import enum
import os
import secrets
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import BinaryIO

from hpcc.files import open_file, sync_directory

# Called before each step: "open", "write", "sync", "rename", "directory-sync". Tests make it raise
# OSError to see what remains on the disk.
FaultPoint = Callable[[str], None]


class Sync(enum.Enum):
    """What is certain to be on the disk when the call returns, even after a power failure."""

    # The old file, the new one, or on some file systems an empty one. For data that can be remade.
    NONE = enum.auto()
    # The old file or the new one, never an empty one.
    CONTENT = enum.auto()
    # The new file.
    NAME = enum.auto()


def no_fault(step: str) -> None:
    """Do nothing: the fault point in production."""
    del step


@contextmanager
def whole_file(
    path: Path,
    *,
    sync: Sync,
    mode: int = 0o600,
    aside: Path | None = None,
    makes_parent: bool = False,
    keeps_existing: bool = False,
    fault: FaultPoint = no_fault,
) -> Iterator[BinaryIO]:
    """Yield a file opened for writing that replaces `path` when the block ends.

    Args:
        path: the file to replace or create.
        sync: how durable the result is.
        mode: the permissions of the file, less the umask.
        aside: where to write, in the directory of `path`. An existing file there is removed first.
            Default: a hidden random name. A fixed name needs a lock or a single writer.
        makes_parent: create a missing directory of `path`, with mode 0700.
        keeps_existing: if a file exists at `path` by then, keep it and drop this one.
        fault: called before each step.

    Raises:
        OSError: it cannot be written; the old file is unchanged.
    """
    if aside is None:
        aside = path.with_name(f".{path.name}.{secrets.token_hex(8)}")
    else:
        aside.unlink(missing_ok=True)
    fault("open")
    # Outside the block that removes it: another writer's file is not this call's to remove.
    descriptor = _create(aside, mode, makes_parent=makes_parent)
    try:
        with os.fdopen(descriptor, "wb") as file:
            fault("write")
            yield file
            file.flush()
            if sync is not Sync.NONE:
                fault("sync")
                os.fsync(file.fileno())
        fault("rename")
        if keeps_existing:
            with suppress(FileExistsError):
                os.link(aside, path)
            aside.unlink()
        else:
            aside.replace(path)
        if sync is Sync.NAME:
            fault("directory-sync")
            sync_directory(path.parent)
    except BaseException:
        with suppress(OSError):
            aside.unlink(missing_ok=True)
        raise


def write_whole(
    path: Path,
    data: bytes,
    *,
    sync: Sync,
    mode: int = 0o600,
    aside: Path | None = None,
    makes_parent: bool = False,
) -> None:
    """Write `data` to `path`, completely or not at all; see `whole_file`.

    Raises:
        OSError: it cannot be written; the old file is unchanged.
    """
    with whole_file(path, sync=sync, mode=mode, aside=aside, makes_parent=makes_parent) as file:
        file.write(data)


def _create(path: Path, mode: int, *, makes_parent: bool) -> int:
    flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL
    try:
        return open_file(path, flags, mode)
    except FileNotFoundError:
        if not makes_parent:
            raise
        path.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
        return open_file(path, flags, mode)
