"""Headers that many compiles read together, with the names in their include lines.

The units of a project read mostly the same headers. What follows from the text of these headers
alone is worked out once for such a group, and a compile adds what its other files bring. All of it
is pure: a group knows which scans it was made from, and never looks at the disk.
"""

from __future__ import annotations

import threading
from collections.abc import Iterable, Mapping
from types import MappingProxyType
from typing import Final

from hpcc.cache.inputs.include_names import add_names, frozen, names_of, parent_of
from hpcc.compilers.scan.scan import Hazard, Scan
from hpcc.core.memo import BoundedMemo

# Fewer headers are not worth a group; so many more must a better group have.
_FEWEST: Final = 32
_BETTER_BY: Final = 16
_MAX_GROUPS: Final = 16
_MAX_RECENT: Final = 4
_MAX_SEARCHES: Final = 16
_MAX_LEFT: Final = 256


class IncludeNames(dict[bytes, frozenset[bytes]]):
    """IncludeNames by the part before the last slash. It must not be changed once it was asked."""

    __slots__ = ("_firsts", "_left")

    def __init__(self, names: Mapping[bytes, frozenset[bytes]] = MappingProxyType({})) -> None:
        super().__init__(names)
        self._firsts: frozenset[bytes] | None = None
        self._left: BoundedMemo[frozenset[bytes], tuple[tuple[bytes, frozenset[bytes]], ...]]
        self._left = BoundedMemo(_MAX_LEFT)

    @property
    def firsts(self) -> frozenset[bytes]:
        """The first path components of the relative names that have several."""
        if self._firsts is None:
            found = (n.partition(b"/")[0] for n in self if n and not n.startswith(b"/"))
            self._firsts = frozenset(found)
        return self._firsts

    def left(self, missing: frozenset[bytes]) -> tuple[tuple[bytes, frozenset[bytes]], ...]:
        """Return the names that do not begin with one of these directories, by what is before."""
        known = self._left.get(missing)
        if known is None:
            known = self._left[missing] = tuple(
                (below, bases)
                for below, bases in self.items()
                if below.startswith(b"/") or below.partition(b"/")[0] not in missing
            )
        return known


class HeaderGroup:
    """What the include lines of some files name; see `Lookup.add_all`.

    `names` are those that count in all directories, `own` those that count beside a file, by its
    directory. `questions` are names of `__has_include`, `unnamed` the files that no line of the
    group names, `computed` those with `#include MACRO`.
    """

    __slots__ = (
        "_leading",
        "bases",
        "computed",
        "homes",
        "names",
        "own",
        "questions",
        "scans",
        "unnamed",
    )

    def __init__(self, scans: Mapping[bytes, Scan]) -> None:
        self.scans = dict(scans)
        names: dict[bytes, set[bytes]] = {}
        own: dict[bytes, dict[bytes, set[bytes]]] = {}
        self.questions = add_names_of(scans, names, own)
        self.names = IncludeNames(frozen(names))
        self.own = {home: IncludeNames(frozen(groups)) for home, groups in own.items()}
        self.bases = frozenset[bytes]().union(*self.names.values())
        self.homes = tuple(dict.fromkeys(map(parent_of, scans)))
        self.unnamed = tuple(p for p in scans if p.rpartition(b"/")[2] not in self.bases)
        self.computed = with_computed(scans)
        self._leading: BoundedMemo[tuple[bytes, ...], tuple[IncludeNames, IncludeNames]] = (
            BoundedMemo(_MAX_SEARCHES)
        )

    def leading(self, directories: tuple[bytes, ...]) -> tuple[IncludeNames, IncludeNames]:
        """Return all names that lead from a directory to one of the files, and the new of them."""
        known = self._leading.get(directories)
        if known is None:
            every = IncludeNames(names_of(self.scans, directories))
            known = self._leading[directories] = every, beyond(every, self.names)
        return known


def add_names_of(
    scans: Mapping[bytes, Scan],
    names: dict[bytes, set[bytes]],
    own: dict[bytes, dict[bytes, set[bytes]]],
) -> frozenset[bytes]:
    """Add the names in sources to those for all directories and those beside; return questions."""
    questions: set[bytes] = set()
    for path, scan in scans.items():
        if scan.quoted:
            add_names(names, scan.quoted)
            add_names(own.setdefault(parent_of(path), {}), scan.quoted)
        if scan.angled:
            add_names(names, scan.angled)
        for is_quoted, name in scan.asked.names:
            questions.add(name)
            add_names(names, (name,))
            if is_quoted:
                add_names(own.setdefault(parent_of(path), {}), (name,))
    return frozenset(questions)


def with_computed(scans: Mapping[bytes, Scan]) -> tuple[bytes, ...]:
    """Return the files with a computed include."""
    return tuple(
        path
        for path, scan in scans.items()
        if scan.hazards is not Hazard.NONE and Hazard.COMPUTED_INCLUDE in scan.hazards
    )


def beyond(
    names: Mapping[bytes, frozenset[bytes]], *known: Mapping[bytes, frozenset[bytes]]
) -> IncludeNames:
    """Return those of the names that are in none of the others."""
    found = IncludeNames()
    for below, bases in names.items():
        for other in known:
            if below in other:
                bases = bases - other[below]  # noqa: PLW2901 - what is left of them
        if bases:
            found[below] = bases
    return found


class HeaderGroups:
    """Remembers groups, and finds the one that fits a compile. Thread-safe."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._groups: list[HeaderGroup] = []  # the most recently used first
        self._recent: list[tuple[bytes, Mapping[bytes, Scan]]] = []

    def find(self, source: bytes, scans: Mapping[bytes, Scan]) -> HeaderGroup:
        """Return a group of which all files are among these, with these scans, without the source.

        Without one, an empty group. What this compile has in common with a recent one may
        become a group.
        """
        with self._lock:
            groups, recent = tuple(self._groups), tuple(self._recent)
        best = EMPTY
        for group in groups:
            is_larger = len(best.scans) < len(group.scans) <= len(scans)
            if is_larger and source not in group.scans and group.scans.items() <= scans.items():
                best = group
        if len(scans) - len(best.scans) > _BETTER_BY:
            best = _common(best, source, scans, recent)
        with self._lock:
            if best is not EMPTY:
                self._groups = [best, *(g for g in self._groups if g is not best)][:_MAX_GROUPS]
            self._recent = [(source, scans), *self._recent][:_MAX_RECENT]
        return best


def _common(
    best: HeaderGroup,
    source: bytes,
    scans: Mapping[bytes, Scan],
    recent: Iterable[tuple[bytes, Mapping[bytes, Scan]]],
) -> HeaderGroup:
    """Return a new group of the most files in common with a recent compile, if it is better."""
    least = max(_FEWEST, len(best.scans) + _BETTER_BY)
    if len(scans) <= least:
        return best
    paths, other_source, other = max(
        ((scans.keys() & other.keys(), other_source, other) for other_source, other in recent),
        key=lambda common: len(common[0]),
        default=(set[bytes](), b"", {}),
    )
    paths -= {source, other_source}
    common = {path: scans[path] for path in paths if scans[path] is other[path]}
    return best if len(common) < least else HeaderGroup(common)


EMPTY: Final = HeaderGroup({})
GROUPS: Final = HeaderGroups()
