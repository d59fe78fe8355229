"""Opens a trail's index for the command line."""

from __future__ import annotations

import os
from collections.abc import Generator
from contextlib import contextmanager
from pathlib import Path

from hpcc.audit.index import AuditIndex
from hpcc.audit.verify import require_trail


@contextmanager
def open_index(directory: Path) -> Generator[AuditIndex]:
    """Open the index, filled up to the end of the spool.

    Raises:
        NotFoundError: nothing was recorded in `directory` yet.
        AuditDamagedError: the trail was changed.
    """
    require_trail(directory)
    # An auditor may have a read-only copy.
    index = AuditIndex(directory, is_kept=os.access(directory, os.W_OK))
    try:
        index.catch_up(directory)
        yield index
    finally:
        index.close()
