"""The request for an include closure and its result."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import NamedTuple

from hpcc.cache.base.manifest import Absence, Part
from hpcc.cache.base.twins import Twins
from hpcc.compilers.scan.scan import Hazard
from hpcc.compilers.scan.twins import TwinRule


class MadeOf(NamedTuple):
    """What a precompiled header was made of: files with their SHA-256 digests.

    `macros` are those of the command line, as in `ClosureRequest`. `is_reproduced` tells whether
    the preprocessor, which leaves out the precompiled header, reads the same text in its place now.
    """

    files: tuple[tuple[bytes, bytes], ...]
    macros: tuple[bytes, ...]
    is_reproduced: Callable[[], bool]


MadeFrom = Callable[[bytes, bytes], MadeOf | None]
"""Returns what a precompiled header with this path and SHA-256 was made of; None if unknown."""
Check = Callable[[], None]
LookAgain = Callable[[Hazard, tuple[bytes, ...], Check], tuple[bytes, ...]]


@dataclass(frozen=True, slots=True)
class Closure:
    """Files with SHA-256 digests, names that must exist, names that must be absent.

    `existing` are files that were not read, although a `__has_include` or an include line in an
    inactive branch names them. `hazards` are those of all files, also where they were settled;
    `has_absolute`: a file includes an absolute name. `plain` maps paths that are files, not links,
    to their device. With a `part`, `files` end with its files, and `absences` are those of the
    part. `twins` are files of one content whose relation counts. `data` are those of the files that
    may have been read as data (`.incbin`, `#embed`). `precompiled` are those that are precompiled
    headers; then the files from which these were made are among `files`, too. `interfaces` are the
    compiled interfaces of modules among `files`. `names_data`: a text names a file to be read as
    data, which need not exist.
    """

    files: tuple[tuple[bytes, bytes], ...]
    present: tuple[bytes, ...]
    absences: tuple[Absence, ...]
    existing: tuple[bytes, ...] = ()
    plain: Mapping[bytes, int] = field(default_factory=dict)
    part: Part | None = None
    hazards: Hazard = Hazard.NONE
    has_absolute: bool = False
    twins: tuple[Twins, ...] = ()
    data: frozenset[bytes] = frozenset()
    precompiled: tuple[bytes, ...] = ()
    interfaces: tuple[bytes, ...] = ()
    names_data: bool = False

    @property
    def binary(self) -> tuple[bytes, ...]:
        """Those of the files that a compile wrote: no scan finds names in them."""
        return (*self.precompiled, *self.interfaces)


@dataclass(frozen=True, slots=True, kw_only=True)
class ClosureRequest:
    """What to examine. Paths may be relative to `cwd`; `search` are all include directories.

    `counts` limits the directories whose absent names matter (a remote compile sees only the root).
    `allow_date` is true if SOURCE_DATE_EPOCH fixes __DATE__ and __TIME__. `arguments` are those of
    the compiler, `macros` their definitions. `data` are names of files that were read as data
    (`.incbin`), `absent` are paths that must not exist. Hazards in `resolvable` do not refuse the
    result: `look_again` gets those that were found, the files' paths, and a check to call before it
    asks the preprocessor. It returns more names of data or raises. `asks_preprocessor`: `files`
    come from there.
    `doubts` are hazards known beforehand. `started_ns` is in epoch nanoseconds. `texts` are further
    files that the compiler read, in which macros are looked up. `twin_rule` is the compiler's way
    to tell files of one content apart, None if it is unknown. Without `made_from` each precompiled
    header refuses the result, except for `output`, the absolute path of the one that this compile
    makes. `used` are those that flags name, `inner` are headers before the source beside which
    there is none.
    """

    cwd: bytes
    source: bytes
    files: tuple[bytes, ...]
    search: tuple[bytes, ...]
    forced: tuple[bytes, ...]
    started_ns: int
    allow_date: bool
    arguments: tuple[bytes, ...] = ()
    macros: tuple[bytes, ...] = ()
    texts: tuple[bytes, ...] = ()
    data: tuple[bytes, ...] = ()
    absent: tuple[bytes, ...] = ()
    twin_rule: TwinRule | None = None
    doubts: Hazard = Hazard.NONE
    resolvable: Hazard = Hazard.NONE
    look_again: LookAgain = field(default=lambda _hazards, _paths, _check: ())
    asks_preprocessor: bool = False
    counts: Callable[[bytes], bool] = field(default=lambda _directory: True)
    made_from: MadeFrom | None = None
    output: bytes = b""
    inner: tuple[bytes, ...] = ()
    used: tuple[bytes, ...] = ()
