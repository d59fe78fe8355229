"""Collects the names that a compile looked for, or could have looked for, and did not find."""

from __future__ import annotations

import os
import stat
from collections.abc import Collection, Iterable, Mapping
from functools import lru_cache
from typing import Final

from hpcc.cache.base.files import FileMemo, Listing, is_one_file
from hpcc.cache.base.manifest import Absence
from hpcc.cache.base.uncacheable import UncacheableError, absolute, is_fresh
from hpcc.cache.inputs.closure_types import ClosureRequest
from hpcc.cache.inputs.header_groups import (
    GROUPS,
    IncludeNames,
    add_names_of,
    beyond,
    with_computed,
)
from hpcc.cache.inputs.include_names import (
    add_names,
    by_directory,
    frozen,
    joined,
    merged,
    names_of,
    parent_of,
)
from hpcc.compilers.invocation.precompiled import GCH_SUFFIX, PCH_SUFFIX
from hpcc.compilers.scan.scan import Scan
from hpcc.core.reasons.uncacheable import UncacheableReason

MAX_CANDIDATES: Final = 400_000
_MAX_SETS: Final = 1024


class Lookup:
    """Collects names by directory. One instance serves one compile; not thread-safe."""

    def __init__(self, memo: FileMemo, request: ClosureRequest, plain: dict[bytes, int]) -> None:
        self._memo, self._request, self._plain = memo, request, plain
        self._listings: dict[bytes, Listing | None] = {}
        # By directory, sets whose union is absent. In most directories all names are absent, so
        # they share these sets and their unions, and do not store a thousand names each.
        self._absent_files: dict[bytes, dict[frozenset[bytes], None]] = {}
        self._absent_directories: dict[bytes, dict[frozenset[bytes], None]] = {}
        self._closure: Mapping[bytes, Scan] = {}
        self._reached: set[bytes] = set()
        self._seen = 0
        self.present: dict[bytes, None] = {}
        self.existing: dict[bytes, os.stat_result] = {}
        self.data: dict[bytes, None] = {}
        # Where GCC may take a precompiled header in place of a header.
        self.precompiled: dict[bytes, None] = {}
        # Files of the closure to which no plain include line leads.
        self.unled: frozenset[bytes] = frozenset()

    def add_all(self, scans: dict[bytes, Scan], asked: Collection[tuple[bool, bytes]] = ()) -> None:
        """Look for all names in the sources, and for the names of `ClosureRequest.data`.

        `asked` are (is quoted, name) pairs that any of the sources may ask for.
        """
        self._closure = scans
        cwd, forced, data = self._request.cwd, self._request.forced, self._request.data
        chain = dict.fromkeys(absolute(cwd, d.rstrip(b"/") or b"/") for d in self._request.search)
        source = absolute(cwd, self._request.source)
        shared = GROUPS.find(source, scans)
        rest = {path: scan for path, scan in scans.items() if path not in shared.scans}
        # Clang looks for foo.h.pch beside a foo.h given with -include.
        inner = self._request.inner
        named = (*forced, *inner, *data, *(name + PCH_SUFFIX for name in forced))
        names: dict[bytes, set[bytes]] = {}
        own: dict[bytes, dict[bytes, set[bytes]]] = {cwd: {}}
        for groups in (names, own[cwd]):
            add_names(groups, named)
        questions = shared.questions | add_names_of(rest, names, own)
        if asked:
            homes = (*shared.homes, *map(parent_of, rest))
            questions |= _add_asked(asked, dict.fromkeys(homes), names, own)
        everywhere = beyond(frozen(names), shared.names)
        bases = shared.bases.union(*everywhere.values())
        # Nearly always only GCC's stdc-predef.h.
        candidates = (*shared.unnamed, *rest)
        unnamed = [p for p in candidates if p.rpartition(b"/")[2] not in bases and p != source]
        derived: dict[bytes, frozenset[bytes]] = {}
        if unnamed:
            homes = (*shared.homes, *map(parent_of, rest))
            derived = names_of(unnamed, (*chain, *homes))
            everywhere = IncludeNames(merged(everywhere, derived))
            for home in homes:
                own.setdefault(home, {})
        for directory in chain:
            self._look(directory, shared.names, questions)
            self._look(directory, everywhere, questions)
        for directory, quoted in shared.own.items():
            self._look(directory, quoted, questions)
        unnamed_names = IncludeNames(derived)
        for directory, others in own.items():
            beside = IncludeNames(merged(frozen(others), derived)) if others else unnamed_names
            self._look(directory, beside, questions)
        self._note_data(dict.fromkeys((cwd, *chain)), data)
        self._note_precompiled(b"", [absolute(cwd, name) for name in self._request.used])
        done = frozenset(unnamed)
        lost = [p for p in scans if p not in self._reached and p not in done and p != source]
        self.unled = done.union(lost)
        if lost:
            # No plain include line leads to them (`#include MACRO`).
            directories = dict.fromkeys((*chain, *shared.homes, *map(parent_of, rest)))
            every = IncludeNames(names_of(lost, directories))
            self._derive(every, beyond(every, shared.names, everywhere), directories, chain)
        # If one include is computed, the macro may also name a file that a plain line reaches. The
        # compiler looks for it beside the file with that line, and along the search path.
        computed = (*shared.computed, *with_computed(rest))
        if computed:
            directories = dict.fromkeys((*chain, *map(parent_of, computed)))
            self._derive(*shared.leading(tuple(directories)), directories, chain)
            every = IncludeNames(names_of((path for path in rest if path != source), directories))
            self._derive(every, beyond(every, shared.names, everywhere), directories, chain)

    def _derive(
        self,
        every: IncludeNames,
        new: IncludeNames,
        directories: Iterable[bytes],
        chain: Collection[bytes],
    ) -> None:
        """Look for names in these directories; in those of `chain` only for the new ones."""
        for directory in directories:
            self._look(directory, new if directory in chain else every, frozenset())

    def add_data(self, names: tuple[bytes, ...], scans: Mapping[bytes, tuple[bytes, Scan]]) -> None:
        """Look for files read as data: each file with such a name is an input."""
        cwd = self._request.cwd
        wanted: dict[bytes, set[bytes]] = {}
        chain = dict.fromkeys((cwd, *(absolute(cwd, d) for d in self._request.search)))
        for path, (_, scan) in scans.items():
            for is_quoted, name in scan.embeds:
                names = (*names, name)
                if is_quoted:
                    wanted.setdefault(path.rpartition(b"/")[0] or b"/", set()).add(name)
        for directory in chain:
            wanted.setdefault(directory, set()).update(names)
        for directory, here in wanted.items():
            self._look(directory, IncludeNames(by_directory(here)), frozenset())
            self._note_data((directory,), here)

    def _note_data(self, directories: Iterable[bytes], names: Collection[bytes]) -> None:
        for directory in directories if names else ():
            listing = self._listing(directory)
            for name in names:
                if listing is not None and b"/" not in name and listing.lacks(name):
                    continue
                path = absolute(directory, name)
                if os.path.lexists(path):
                    self.data[path] = None

    def add_absent(self, paths: tuple[bytes, ...]) -> None:
        """Record driver configuration files as absent.

        Raises:
            UncacheableError: one exists; its effect on the compile is unknown here.
        """
        for path in paths:
            if os.path.lexists(path):
                raise UncacheableError(UncacheableReason.CONFIG_FILE)
            names = IncludeNames({b"": frozenset({path.rpartition(b"/")[2]})})
            self._look(path.rpartition(b"/")[0] or b"/", names, frozenset())

    def _look(self, start: bytes, names: IncludeNames, questions: frozenset[bytes]) -> None:
        missing = self._missing_below(start, names)
        if missing is None:
            self._missing_directory(start, is_searched=True)
            names = IncludeNames({below: names[below] for below in names if below.startswith(b"/")})
            missing = frozenset()
        for below, bases in names.left(missing):
            if below.startswith(b"/"):
                directory = absolute(b"/", below)
            elif not below:
                directory = start
            else:
                directory = absolute(b"/", start + b"/" + below)
            if not self._request.counts(directory):
                continue
            self._seen += len(bases)
            if self._seen > MAX_CANDIDATES:
                raise UncacheableError(UncacheableReason.TOO_MANY_NAMES)
            listing = self._listing(directory)
            if listing is None:
                self._missing_directory(directory, is_searched=False)
            else:
                self._look_in(directory, listing, bases, below, questions)

    def _missing_below(self, start: bytes, names: IncludeNames) -> frozenset[bytes] | None:
        """Return and record the first path components of `names` that are missing in `start`.

        None if `start` itself is not a directory.
        """
        if not names or not self._request.counts(start):
            return frozenset()
        listing = self._listing(start)
        if listing is None:
            return None
        missing = listing.without(names.firsts)
        if missing:
            self._absent_directories.setdefault(start, {})[missing] = None
            self._absent_files.setdefault(start, {})[missing] = None
        return missing

    def _look_in(
        self,
        directory: bytes,
        listing: Listing,
        bases: frozenset[bytes],
        below: bytes,
        questions: frozenset[bytes],
    ) -> None:
        prefix = directory.rstrip(b"/") + b"/"
        precompiled = _precompiled(bases)
        if made := listing.listed(precompiled):
            self._note_precompiled(prefix, made)
            precompiled = _without(precompiled, made)
        # foo.h.gch may also be a directory of candidates; GCC accepts both.
        self._absent_directories.setdefault(directory, {})[precompiled] = None
        there = listing.listed(bases)
        if there:
            files: set[bytes] = set()
            for base in there:
                path = prefix + base
                if path in self._closure:
                    self._reached.add(path)
                elif not self._exists(path, is_question=joined(below, base) in questions):
                    continue
                files.add(base)
            bases = _without(bases, frozenset(files))
        absent = self._absent_files.setdefault(directory, {})
        absent[precompiled] = None
        absent[bases] = None

    def _note_precompiled(self, prefix: bytes, names: Iterable[bytes]) -> None:
        """Record precompiled headers, except for the one that this compile writes.

        Raises:
            UncacheableError: this compiler's are not cached, or one is a directory of candidates.
        """
        for path in (prefix + name for name in names):
            if is_one_file(path, self._request.output):
                continue
            if self._request.made_from is None or not os.path.isfile(path):
                raise UncacheableError(UncacheableReason.PCH, path)
            self.precompiled[path] = None

    def _exists(self, path: bytes, *, is_question: bool) -> bool:
        """Record a file that exists and was not read; it must be older than the compile.

        Returns False for a directory, which no compiler reads as a header.
        """
        try:
            status = os.lstat(path)
            is_link = stat.S_ISLNK(status.st_mode)
            if is_link:
                status = os.stat(path)
        except OSError:
            raise UncacheableError(UncacheableReason.INPUT_VANISHED) from None
        if stat.S_ISDIR(status.st_mode):
            # The link's target may become a file without a change to this directory.
            if is_link:
                raise UncacheableError(UncacheableReason.DIRECTORY_LINK)
            return False
        if path.endswith(PCH_SUFFIX):
            self._note_precompiled(b"", (path,))
        if is_fresh(status, self._request.started_ns):
            raise UncacheableError(UncacheableReason.MODIFIED_DURING_COMPILE)
        self.existing[path] = status
        if not is_link:
            self._plain[path] = status.st_dev
        if is_question:
            self.present[path] = None
        return True

    def _listing(self, directory: bytes) -> Listing | None:
        try:
            return self._listings[directory]
        except KeyError:
            # `-I.` names the working directory again, which is read anew after each object in it.
            name = directory.removesuffix(b"/.") or b"/"
            found = self._listings.get(name) or self._memo.listing(name)
            self._listings[directory] = self._listings[name] = found
            return found

    def _missing_directory(self, path: bytes, *, is_searched: bool) -> None:
        """Record the first component of a path that is not a directory.

        `is_searched`: the path is on the search path, where a file can be a header map.
        """
        while path:
            parent, _, base = path.rpartition(b"/")
            listing = self._listing(parent or b"/")
            if listing is not None:
                if base in listing.names and not listing.is_directory(base):
                    # The target of a link may become a directory without a change to this one.
                    if is_searched or os.path.islink(path):
                        raise UncacheableError(UncacheableReason.ODD_DIRECTORY)
                    # Such as `algorithm/string.hpp` where `algorithm` is a header: nothing is
                    # found below a file until a directory is there.
                    name = frozenset({base})
                    self._absent_directories.setdefault(parent or b"/", {})[name] = None
                    return
                self._note_missing(parent or b"/", base)
                return
            path = parent

    def _note_missing(self, directory: bytes, base: bytes) -> None:
        # Record both kinds: GCC warns of a file in place of a directory and fails on a link loop.
        name = frozenset({base})
        self._absent_directories.setdefault(directory, {})[name] = None
        self._absent_files.setdefault(directory, {})[name] = None

    def absences(self) -> tuple[Absence, ...]:
        """Return the absent names by directory, with its stat if it proves them."""
        result = []
        unions: dict[tuple[frozenset[bytes], ...], frozenset[bytes]] = {}

        def union(parts: Iterable[frozenset[bytes]]) -> frozenset[bytes]:
            key = tuple(parts)
            if key not in unions:
                unions[key] = frozenset().union(*key)
            return unions[key]

        for directory in dict.fromkeys((*self._absent_files, *self._absent_directories)):
            absence = Absence(
                directory,
                union(self._absent_files.get(directory, ())),
                union(self._absent_directories.get(directory, ())),
            )
            listing = self._listing(directory)
            if listing is not None and listing.is_quiet:
                absence.signature = listing.signature
            result.append(absence)
        return tuple(result)


def _add_asked(
    asked: Collection[tuple[bool, bytes]],
    homes: Iterable[bytes],
    names: dict[bytes, set[bytes]],
    own: dict[bytes, dict[bytes, set[bytes]]],
) -> frozenset[bytes]:
    """Add the names that any source may ask for through macros; return them."""
    every = tuple(name for _, name in asked)
    beside = tuple(name for is_quoted, name in asked if is_quoted)
    add_names(names, every)
    for home in homes if beside else ():
        add_names(own.setdefault(home, {}), beside)
    return frozenset(every)


# The names of a group of headers are looked up in many directories, for many compiles.
@lru_cache(maxsize=_MAX_SETS)
def _precompiled(bases: frozenset[bytes]) -> frozenset[bytes]:
    return frozenset([base + GCH_SUFFIX for base in bases])


@lru_cache(maxsize=_MAX_SETS)
def _without(bases: frozenset[bytes], files: frozenset[bytes]) -> frozenset[bytes]:
    return bases - files
