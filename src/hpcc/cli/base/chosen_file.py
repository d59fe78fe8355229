"""Files whose place the user chooses: a report, a trace, an export."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import BinaryIO

from hpcc.core import CallerError
from hpcc.files.whole import Sync, whole_file


@contextmanager
def chosen_file(path: Path, *, sync: Sync = Sync.NONE, mode: int = 0o600) -> Iterator[BinaryIO]:
    """Yield a file that replaces `path` when the block ends; until then the old one is there.

    Raises:
        CallerError: it cannot be written, or something is there that is not a plain file.
    """
    try:
        # Nor is a link followed: in a directory of others it would lead to any file of the caller.
        if path.is_symlink() or (path.exists() and not path.is_file()):
            raise CallerError(f"{path} is not a plain file", reason="output")
        with whole_file(path, sync=sync, mode=mode) as file:
            yield file
    except OSError as error:
        why = error.strerror or error
        raise CallerError(f"cannot write {path}: {why}", reason="output") from error
