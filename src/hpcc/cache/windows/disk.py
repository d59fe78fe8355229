"""The seam to files on Windows: `CacheDisk`, and what it tells. Paths begin with a drive.

A `stat` proves less there than on Linux. NTFS writes the time of a change when the last handle is
closed, and any program may set it. So no look-up trusts times: it reads each input. Times count
only when a result is stored, for files that no process has open for writing.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final, NamedTuple, Protocol

from hpcc.cache.base.stamps import is_in_window
from hpcc.cache.remote.cl_host import LocalMachine
from hpcc.cache.remote.windows_root import Look

MAX_INPUT_BYTES: Final = 256 << 20
_SECOND_NS: Final = 1_000_000_000


class FileTimes(NamedTuple):
    """Times in nanoseconds since the epoch, size, and the file's identity.

    `changed_ns` is the time of any change, 0 where the file system keeps none. `links` counts the
    names of the file. `is_plain`: a file, no link, and not read-only.
    """

    written_ns: int
    changed_ns: int
    size: int
    identity: tuple[int, int]
    links: int
    is_plain: bool

    def may_have_changed_since(self, started_ns: int) -> bool:
        """Tell whether the file may have changed since a time of this machine's clock."""
        if not self.changed_ns:
            return True  # FAT: a copied file keeps its old time, and nothing shows the copy
        return is_in_window(_Stamps(self.written_ns, self.changed_ns), started_ns)  # type: ignore[arg-type]  # the two times are all that it reads


class _Stamps(NamedTuple):
    st_mtime_ns: int
    st_ctime_ns: int


class CacheDisk(LocalMachine, Protocol):
    """Files of the machine, beside `LocalMachine`.

    `languages` are the machine's code pages and its language: cl reads sources and writes messages
    by them where no flag decides.
    """

    languages: bytes

    def times(self, path: str, *, is_at_rest: bool) -> FileTimes | None:
        """Return a file's or directory's times; links are followed. None if it is missing.

        `is_at_rest`: also None if a process has it open for writing.
        """
        ...

    def entries(self, directory: str) -> Mapping[str, bool] | None:
        """Return the names in a directory, and which are directories; None if it is not one."""
        ...

    def is_directory(self, path: str) -> bool | None:
        """Tell whether a path is a directory; None if it is missing."""
        ...

    def look(self, path: str) -> Look | None:
        """Return one entry, whose link is not followed; None if it is missing or unreadable."""
        ...
