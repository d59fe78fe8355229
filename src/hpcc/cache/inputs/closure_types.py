"""The request for an include closure and its result."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field

from hpcc.cache.base.manifest import Absence, Part
from hpcc.cache.base.twins import Twins
from hpcc.compilers.scan.scan import Hazard
from hpcc.compilers.scan.twins import TwinRule


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
    compiled interfaces of modules among `files`.
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


@dataclass(frozen=True, slots=True, kw_only=True)
class ClosureRequest:
    """What to examine. Paths may be relative to `cwd`; `search` are all include directories.

    `counts` limits the directories whose absent names matter (a remote compile sees only the root).
    `allow_date` is true if SOURCE_DATE_EPOCH fixes __DATE__ and __TIME__. `arguments` are those of
    the compiler, `macros` their definitions. `data` are names of files that were read as data
    (`.incbin`), `absent` are paths that must not exist. Hazards in `resolvable` do not refuse the
    result: `look_again` gets those that were found and the files' paths, and returns more names of
    data or raises.
    `doubts` are hazards known beforehand. `started_ns` is in epoch nanoseconds. `texts` are further
    files that the compiler read, in which macros are looked up. `twin_rule` is the compiler's way
    to tell files of one content apart, None if it is unknown. `made_from` returns the files, by
    digest, from which the precompiled header with this path and digest was made, None if unknown;
    without it each precompiled header refuses the result, except for `output`, the absolute path of
    the one that this compile makes. `used` are those that flags name, `inner` are headers before
    the source beside which there is none.
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
    look_again: Callable[[Hazard, tuple[bytes, ...]], tuple[bytes, ...]] = field(
        default=lambda _hazards, _paths: ()
    )
    counts: Callable[[bytes], bool] = field(default=lambda _directory: True)
    made_from: Callable[[bytes, bytes], tuple[tuple[bytes, bytes], ...] | None] | None = None
    output: bytes = b""
    inner: tuple[bytes, ...] = ()
    used: tuple[bytes, ...] = ()
