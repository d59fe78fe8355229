"""What a closure is asked with and what it is made of."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field

from hpcc.cache.base.manifest import Absence, Part
from hpcc.compilers.scan.scan import Hazard


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
