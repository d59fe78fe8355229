"""Opens a trail's index for the command line."""

from __future__ import annotations

import os
import stat
import sys
from collections.abc import Generator
from contextlib import closing, contextmanager
from pathlib import Path
from typing import Final

from hpcc.audit.index import INDEX_NAME, AuditIndex
from hpcc.audit.verify import require_trail

# What SQLite opens, makes or removes beside a database.
_INDEX_FILES: Final = tuple(f"{INDEX_NAME}{end}" for end in ("", "-wal", "-shm", "-journal"))


@contextmanager
def open_index(directory: Path) -> Generator[AuditIndex]:
    """Open the index, filled up to the end of the spool.

    Raises:
        NotFoundError: nothing was recorded in `directory` yet.
        AuditDamagedError: the trail was changed.
    """
    require_trail(directory)
    index = AuditIndex(directory, is_kept=_may_keep(directory))
    try:
        index.catch_up(directory)
        yield index
    finally:
        index.close()


@contextmanager
def own_index_or_none(directory: Path) -> Generator[AuditIndex | None]:
    """Open the index as it is; None if `open_index` would use none that exists.

    Raises:
        InfrastructureError: it is not an index.
    """
    if not (directory / INDEX_NAME).is_file() or not _may_keep(directory):
        yield None
        return
    with closing(AuditIndex(directory)) as index:
        yield index


def _may_keep(directory: Path) -> bool:
    """Return whether to use and fill the index beside the trail; else a temporary one is made.

    An auditor may have a read-only copy. Root may read the trail of a worker that has other rights
    and could be in a tenant's hands: SQLite follows links and writes where they lead.
    """
    if not os.access(directory, os.W_OK):
        return False
    if sys.platform != "win32":
        status = directory.stat()
        if status.st_uid != os.geteuid() or status.st_mode & 0o022:
            return False
    return all(_is_plain(directory / name) for name in _INDEX_FILES)


def _is_plain(path: Path) -> bool:
    """Return whether nothing is there, or a regular file without a second name."""
    try:
        status = path.lstat()
    except FileNotFoundError:
        return True
    return stat.S_ISREG(status.st_mode) and status.st_nlink == 1
