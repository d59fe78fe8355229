"""What a closure is asked with and what it is made of."""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Final

from hpcc.compilers import Hazard
from hpcc.daemon._manifest import Absence, Part

# A file system's clock may lag behind the one we read by a tick (10 ms at HZ=100).
_TICK_NS: Final = 50_000_000
_SECOND_NS: Final = 1_000_000_000


class UncacheableError(Exception):
    """The compile is fine and its result must not be kept; `reason` is counted."""

    def __init__(self, reason: str) -> None:
        super().__init__(reason)
        self.reason = reason


@dataclass(frozen=True, slots=True)
class Closure:
    """Files with digests, names that must exist, names that must not.

    `existing` are files that were not read although some `__has_include` or include line, in a
    branch not taken, names them. `plain` are the devices of those that were seen to be files
    themselves, and no links. With a `part` the files end with its files, and the absences are its.
    """

    files: tuple[tuple[bytes, bytes], ...]
    present: tuple[bytes, ...]
    absences: tuple[Absence, ...]
    existing: tuple[bytes, ...] = ()
    plain: Mapping[bytes, int] = field(default_factory=dict)
    part: Part | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class ClosureRequest:
    """What to look at. Paths are absolute; `search` are all directories names are looked up in.

    `counts` limits which directories' absent names matter (a remote compile sees only the root).
    `allow_date` is true when SOURCE_DATE_EPOCH pins __DATE__ and __TIME__. `arguments` are those of
    the compiler, where macros are written, too. `data` are names of files that were read as they
    are (`.incbin`), `absent` paths where nothing may be. Hazards in `resolvable` do not refuse:
    `look_again` gets those that were found and returns more names of data, or raises. `doubts` are
    hazards known beforehand.
    """

    cwd: bytes
    source: bytes
    files: tuple[bytes, ...]
    search: tuple[bytes, ...]
    forced: tuple[bytes, ...]
    started_ns: int
    allow_date: bool
    arguments: tuple[bytes, ...] = ()
    data: tuple[bytes, ...] = ()
    absent: tuple[bytes, ...] = ()
    doubts: Hazard = Hazard.NONE
    resolvable: Hazard = Hazard.NONE
    look_again: Callable[[Hazard], tuple[bytes, ...]] = field(default=lambda _hazards: ())
    counts: Callable[[bytes], bool] = field(default=lambda _directory: True)


def absolute(cwd: bytes, path: bytes) -> bytes:
    """Join without resolving `..`, which a symbolic link would make wrong."""
    full = path if path.startswith(b"/") else cwd.rstrip(b"/") + b"/" + path
    while b"//" in full or b"/./" in full:
        full = full.replace(b"//", b"/").replace(b"/./", b"/")
    return full


def is_fresh(status: os.stat_result, started_ns: int) -> bool:
    """Tell whether a file may have changed since `started_ns`."""
    newest = max(status.st_mtime_ns, status.st_ctime_ns)
    # Whole seconds on both stamps: a file system that keeps no finer ones.
    is_coarse = status.st_mtime_ns % _SECOND_NS == 0 and status.st_ctime_ns % _SECOND_NS == 0
    return newest >= started_ns - (2 * _SECOND_NS if is_coarse else _TICK_NS)
