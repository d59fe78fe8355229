"""A disk that notes what was asked of it, as checks of a kept hit.

If a function of the disk gave an answer once, and every check holds now, it gives the same answer
now. So nobody has to list what the key of a compile depends on: what is asked is checked.
"""

from __future__ import annotations

import hashlib
from collections.abc import Hashable, Mapping, Sequence
from contextlib import AbstractContextManager

from hpcc.cache.base.tools import ProgramOutput
from hpcc.cache.remote.windows_root import Look
from hpcc.cache.windows.disk import CacheDisk, FileTimes
from hpcc.cache.windows.hit_bytes import (
    file_check,
    kind_check,
    listing_check,
    real_check,
    state_check,
)


class NotNotableError(Exception):
    """An answer that no check can state, so that the hit is not kept."""


class NotingDisk:
    """A `CacheDisk` for one question. `checks` are in the order of what was asked.

    Whether one of `outputs` is there is not noted, because the launcher looks at it before it
    writes: what it writes over is a plain file, never a directory.
    """

    def __init__(self, disk: CacheDisk, outputs: Sequence[str]) -> None:
        self._disk, self._outputs, self._checks = disk, outputs, dict[bytes, None]()
        self.encoding, self.languages = disk.encoding, disk.languages

    @property
    def checks(self) -> list[bytes]:
        """Each check once."""
        return list(self._checks)

    def note(self, check: bytes) -> None:
        """Add a check."""
        self._checks[check] = None

    def read(self, path: str, limit: int) -> bytes | None:
        """See `LocalMachine.read`."""
        data = self._disk.read(path, limit)
        if data is None:  # too long, or open for a writer that refuses readers
            raise NotNotableError
        self.note(file_check(path, len(data), hashlib.sha256(data).digest()))
        return data

    def times(self, path: str, *, is_at_rest: bool) -> FileTimes | None:
        """See `CacheDisk.times`."""
        times = self._disk.times(path, is_at_rest=False)
        if is_at_rest or times is None:
            raise NotNotableError
        self.note(state_check(path, times))
        return times

    def entries(self, directory: str) -> Mapping[str, bool] | None:
        """See `CacheDisk.entries`."""
        found = self._disk.entries(directory)
        if found is None:
            if self.is_directory(directory):
                raise NotNotableError  # it may not be read
            return None
        self.note(listing_check(directory, found))
        return found

    def is_directory(self, path: str) -> bool | None:
        """See `CacheDisk.is_directory`."""
        found = self._disk.is_directory(path)
        if path not in self._outputs:
            self.note(kind_check(path, is_directory=found))
        return found

    def real(self, path: str) -> str:
        """See `LocalMachine.real`."""
        found = self._disk.real(path)
        self.note(real_check(path, found))
        return found

    def look(self, path: str) -> Look | None:
        """See `CacheDisk.look`. A new owner gives the entry another time of change."""
        found = self._disk.look(path)
        if found is None:
            if self.is_directory(path) is not None:
                raise NotNotableError  # it may not be read
        elif found.is_link:  # a state is that of what the link leads to
            raise NotNotableError
        else:
            self.times(path, is_at_rest=False)
        return found

    # No hit runs a program or writes before its key is known.

    def run(self, argv: Sequence[bytes], env: Mapping[bytes, bytes], cwd: bytes) -> ProgramOutput:
        """Refuse."""
        raise NotNotableError

    def scratch(self) -> AbstractContextManager[str]:
        """Refuse."""
        raise NotNotableError

    def write(self, path: str, data: bytes) -> None:
        """Refuse."""
        raise NotNotableError

    def state(self, path: str) -> Hashable:
        """Refuse."""
        raise NotNotableError
