"""What the command line asks of a trail."""

from __future__ import annotations

import os
from collections.abc import Generator
from contextlib import contextmanager
from pathlib import Path

from hpcc.audit.index import AuditIndex
from hpcc.audit.verify import require_trail


@contextmanager
def open_index(directory: Path) -> Generator[AuditIndex]:
    """Give the index, filled up to the end of the spool.

    Raises:
        NotFoundError: nothing was recorded here yet.
        AuditDamagedError: the trail was changed.
    """
    require_trail(directory)
    # An auditor may have a copy that cannot be changed.
    index = AuditIndex(directory, is_kept=os.access(directory, os.W_OK))
    try:
        index.catch_up(directory)
        yield index
    finally:
        index.close()
