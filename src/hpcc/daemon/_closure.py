"""From the files a compiler says it read to a set of inputs that is safe to look up by.

The compiler names what it found; the include lines of those files say what it looked for, and so
which names must stay absent. Every directory of the search path counts, whatever its rank: that is
a superset which needs no knowledge of how a compiler orders and prunes its path.
"""

from __future__ import annotations

import contextlib
import os
import stat
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field, replace
from typing import Final

from hpcc.compilers import HAZARD_REASONS, Hazard, Scan, may_be_read_once, scan_arguments
from hpcc.daemon._files import MAX_SOURCE_BYTES, FileMemo, Listing
from hpcc.daemon._manifest import Absence

# A file system's clock may lag behind the one we read by a tick (10 ms at HZ=100).
_TICK_NS: Final = 50_000_000
_SECOND_NS: Final = 1_000_000_000
MAX_FILES: Final = 50_000
MAX_CANDIDATES: Final = 400_000


class UncacheableError(Exception):
    """The compile is fine and its result must not be kept; `reason` is counted."""

    def __init__(self, reason: str) -> None:
        super().__init__(reason)
        self.reason = reason


@dataclass(frozen=True, slots=True)
class Closure:
    """Files with digests, names that must exist, names that must not.

    `existing` are files that were not read although some `__has_include` or include line, in a
    branch not taken, names them.
    """

    files: tuple[tuple[bytes, bytes], ...]
    present: tuple[bytes, ...]
    absences: tuple[Absence, ...]
    existing: tuple[bytes, ...] = ()


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


def find_closure(memo: FileMemo, request: ClosureRequest) -> Closure:
    """Check every file and work out the absent names.

    Raises:
        UncacheableError: something in the closure makes the result one that cannot be kept.
    """
    paths = tuple(dict.fromkeys(absolute(request.cwd, p) for p in request.files))
    if len(paths) > MAX_FILES:
        raise UncacheableError("too-many-files")
    in_arguments = scan_arguments(request.arguments)
    _refuse_hazards(in_arguments, request)
    scans = _with_alias_uses(memo, {path: _examine(memo, path, request) for path in paths}, request)
    doubts = request.doubts | in_arguments.hazards
    for _, scan in scans.values():
        if scan.hazards is not Hazard.NONE:  # as nearly always: combining flags costs a microsecond
            doubts |= scan.hazards
    lookup = _Lookup(memo, request)
    lookup.add_all({path: scan for path, (_, scan) in scans.items()})
    lookup.add_absent(request.absent)
    files = {path: digest for path, (digest, _) in scans.items()}
    names = request.data
    if doubts & request.resolvable:
        names += request.look_again(doubts & request.resolvable)
        if not unchanged_since(paths, request.started_ns):
            raise UncacheableError("modified-during-compile")
    if names or Hazard.EMBED in doubts:
        lookup.add_data(names, scans)
        for path in lookup.data:
            files.setdefault(path, _digest_of_data(memo, path, request))
    found = tuple(files.items())
    _refuse_twins(memo, found, tuple(lookup.existing))
    return Closure(found, tuple(lookup.present), lookup.absences(), tuple(lookup.existing))


def _examine(memo: FileMemo, path: bytes, request: ClosureRequest) -> tuple[bytes, Scan]:
    found = memo.examine(path)
    if found is None:
        _check_quiet(path, request)
        raise UncacheableError("input-vanished")
    digest, scan, status = found
    # A stat from after it was read: what is quiet then has been so since the compile began.
    if is_fresh(status, request.started_ns):
        raise UncacheableError("modified-during-compile")
    _refuse_hazards(scan, request)
    return digest, scan


def _with_alias_uses(
    memo: FileMemo, scans: dict[bytes, tuple[bytes, Scan]], request: ClosureRequest
) -> dict[bytes, tuple[bytes, Scan]]:
    """Add what is asked through macros for `__has_include`, which any of the files may use."""
    aliases = tuple(sorted({name for _, scan in scans.values() for name in scan.aliases}))
    if not aliases:
        return scans
    found = {}
    for path, (digest, scan) in scans.items():
        uses = memo.alias_uses(path, digest, aliases)
        if uses is None:
            raise UncacheableError("modified-during-compile")
        _refuse_hazards(uses, request)
        if uses.questions:
            scan = replace(scan, questions=(*scan.questions, *uses.questions))  # noqa: PLW2901 - the same file's, completed
        found[path] = (digest, scan)
    return found


def _digest_of_data(memo: FileMemo, path: bytes, request: ClosureRequest) -> bytes:
    digest = memo.digest(path)
    _check_quiet(path, request)
    if digest is None:
        raise UncacheableError("input-vanished")
    return digest


def _check_quiet(path: bytes, request: ClosureRequest) -> None:
    try:
        status = os.stat(path)
    except OSError as error:
        raise UncacheableError("input-vanished") from error
    if not stat.S_ISREG(status.st_mode):
        raise UncacheableError("special-input")
    if is_fresh(status, request.started_ns):
        raise UncacheableError("modified-during-compile")


def _refuse_hazards(scan: Scan, request: ClosureRequest) -> None:
    if scan.hazards is Hazard.NONE:
        return
    hazards = scan.hazards & ~request.resolvable
    if request.allow_date:
        hazards &= ~Hazard.DATE_OR_TIME
    if hazards:
        for hazard, reason in HAZARD_REASONS.items():
            if hazard in hazards:
                raise UncacheableError(reason)


def _refuse_twins(
    memo: FileMemo, files: tuple[tuple[bytes, bytes], ...], existing: tuple[bytes, ...]
) -> None:
    """Refuse `#pragma once` in two files of one content.

    GCC takes them for one file when their times are equal too, Clang when they are one inode; the
    second is then opened, skipped and named nowhere, so that nothing would watch it.
    """
    read = {digest: path for path, digest in files}
    paths = [path for path, digest in files if read[digest] != path]
    paths += [path for path in existing if memo.digest(path) in read]
    for path in paths:
        digest = memo.digest(path)
        first = read.get(digest or b"")
        if first is None or os.path.realpath(first) != os.path.realpath(path) or _has_link(path):
            with contextlib.suppress(OSError), open(path, "rb") as file:
                if may_be_read_once(file.read(MAX_SOURCE_BYTES)):
                    raise UncacheableError("twin-headers")


def _has_link(path: bytes) -> bool:
    return os.path.realpath(path) != os.path.normpath(path)


class _Lookup:
    """Collects every name that was, or could have been, looked for, directory by directory."""

    def __init__(self, memo: FileMemo, request: ClosureRequest) -> None:
        self._memo, self._request = memo, request
        self._listings: dict[bytes, Listing | None] = {}
        # By directory, sets whose union is absent. Most directories lack everything, so that they
        # share these sets, and unions of them, instead of having each its own thousand names.
        self._absent_files: dict[bytes, dict[frozenset[bytes], None]] = {}
        self._absent_directories: dict[bytes, dict[frozenset[bytes], None]] = {}
        self._precompiled: dict[frozenset[bytes], frozenset[bytes]] = {}
        self._lacking: dict[tuple[bytes, bytes], bool] = {}
        self._closure: frozenset[bytes] = frozenset()
        self._reached: set[bytes] = set()
        self._seen = 0
        self.present: dict[bytes, None] = {}
        self.existing: dict[bytes, None] = {}
        self.data: dict[bytes, None] = {}

    def add_all(self, scans: dict[bytes, Scan]) -> None:
        self._closure = frozenset(scans)
        cwd, forced = self._request.cwd, self._request.forced
        chain = dict.fromkeys(absolute(cwd, d.rstrip(b"/") or b"/") for d in self._request.search)
        names: set[bytes] = set(forced)
        questions: set[bytes] = set()
        # Clang looks for foo.h.pch beside a foo.h given with -include.
        precompiled = {name + b".pch" for name in forced}
        own: dict[bytes, set[bytes]] = {cwd: {*forced, *precompiled}}
        for path, scan in scans.items():
            names.update(scan.quoted, scan.angled)
            quoted = set(scan.quoted)
            for is_quoted, name in scan.questions:
                questions.add(name)
                if is_quoted:
                    quoted.add(name)
            if quoted:
                own.setdefault(path.rpartition(b"/")[0] or b"/", set()).update(quoted)
        names |= precompiled
        everywhere = _by_directory(names | questions)
        for directory in chain:
            self._look(directory, everywhere, questions)
        for directory, quoted in own.items():
            self._look(directory, _by_directory(quoted), questions)
        self._add_unexplained(scans, tuple(chain))

    def _add_unexplained(self, scans: dict[bytes, Scan], chain: tuple[bytes, ...]) -> None:
        """Derive names of files no readable include line leads to (`#include MACRO`)."""
        source = absolute(self._request.cwd, self._request.source)
        # Where one name is a macro's, a file that a plain line reaches may have that name as well.
        found = {id(s.hazards): s.hazards for s in scans.values()}.values()
        is_plain = not any(Hazard.COMPUTED_INCLUDE in hazards for hazards in found)
        reached = self._reached if is_plain else frozenset()
        directories = dict.fromkeys((*chain, *(p.rpartition(b"/")[0] for p in scans)))
        names = {
            path[len(prefix) + 1 :]
            for path in scans
            if path not in reached and path != source
            for prefix in directories
            if path.startswith(prefix + b"/")
        }
        grouped = _by_directory(names)
        for directory in directories:
            self._look(directory, grouped, set())

    def add_data(self, names: tuple[bytes, ...], scans: Mapping[bytes, tuple[bytes, Scan]]) -> None:
        """Look for files read as data: whatever has such a name is an input, wherever it is."""
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
            self._look(directory, _by_directory(here), set())
            paths = (absolute(directory, name) for name in here)
            self.data.update((path, None) for path in paths if os.path.lexists(path))

    def add_absent(self, paths: tuple[bytes, ...]) -> None:
        """Watch names beside the driver: nobody knows here what a file there would do."""
        for path in paths:
            if os.path.lexists(path):
                raise UncacheableError("config-file")
            names = {b"": frozenset({path.rpartition(b"/")[2]})}
            self._look(path.rpartition(b"/")[0] or b"/", names, set())

    def _look(
        self, start: bytes, names: dict[bytes, frozenset[bytes]], questions: set[bytes]
    ) -> None:
        for below, bases in names.items():
            if below.startswith(b"/"):
                directory = absolute(b"/", below)
            elif not below:
                directory = start
            elif self._lacks(start, below.partition(b"/")[0]):
                continue
            else:
                directory = absolute(b"/", start + b"/" + below)
            if not self._request.counts(directory):
                continue
            self._seen += len(bases)
            if self._seen > MAX_CANDIDATES:
                raise UncacheableError("too-many-names")
            listing = self._listing(directory)
            if listing is None:
                self._missing_directory(directory)
            else:
                self._look_in(directory, listing, bases, below, questions)

    def _lacks(self, start: bytes, first: bytes) -> bool:
        """Tell, and note, that there is no `first` in a directory, and so nothing below it."""
        known = self._lacking.get((start, first))
        if known is None:
            known = self._lacking[start, first] = self._is_absent(start, first)
            if known:
                self._note_missing(start, first)
        return known

    def _is_absent(self, start: bytes, first: bytes) -> bool:
        listing = self._listing(start) if self._request.counts(start) else None
        if listing is None or first in listing.directories or first in listing.files:
            return False
        # `.` and `..` are in no listing, and a directory that minds no case has more names than it.
        return not os.path.lexists(start + b"/" + first)

    def _look_in(
        self,
        directory: bytes,
        listing: Listing,
        bases: frozenset[bytes],
        below: bytes,
        questions: set[bytes],
    ) -> None:
        precompiled = self._precompiled.get(bases)
        if precompiled is None:
            precompiled = frozenset(base + b".gch" for base in bases)
            self._precompiled[bases] = precompiled
        # GCC takes a directory foo.h.gch full of candidates, too.
        if not (
            precompiled.isdisjoint(listing.files) and precompiled.isdisjoint(listing.directories)
        ):
            raise UncacheableError("pch")
        self._absent_directories.setdefault(directory, {})[precompiled] = None
        for base in bases & listing.directories:
            # What a link leads to may become a file, and this directory would not change.
            if os.path.islink(directory + b"/" + base):
                raise UncacheableError("directory-link")
        there = bases & listing.files
        absent = self._absent_files.setdefault(directory, {})
        absent[precompiled] = None
        absent[bases - there if there else bases] = None
        prefix = directory.rstrip(b"/") + b"/"
        for base in there:
            path = prefix + base
            if path in self._closure:
                self._reached.add(path)
            else:
                name = below + b"/" + base if below else base
                self._exists(path, is_question=name in questions)

    def _exists(self, path: bytes, *, is_question: bool) -> None:
        """Handle a file that is there and was not read: it must not be new."""
        if path.endswith(b".pch"):
            raise UncacheableError("pch")
        try:
            status = os.stat(path)
        except OSError:
            raise UncacheableError("input-vanished") from None
        if is_fresh(status, self._request.started_ns):
            raise UncacheableError("modified-during-compile")
        self.existing[path] = None
        if is_question:
            self.present[path] = None

    def _listing(self, directory: bytes) -> Listing | None:
        try:
            return self._listings[directory]
        except KeyError:
            found = self._listings[directory] = self._memo.listing(directory)
            return found

    def _missing_directory(self, path: bytes) -> None:
        while path:
            parent, _, base = path.rpartition(b"/")
            listing = self._listing(parent or b"/")
            if listing is not None:
                if base in listing.files:
                    # A link that may lead somewhere one day, or a header map.
                    raise UncacheableError("odd-directory")
                self._note_missing(parent or b"/", base)
                return
            path = parent

    def _note_missing(self, directory: bytes, base: bytes) -> None:
        # GCC warns of a file in place of a directory and fails on a link that loops.
        name = frozenset({base})
        self._absent_directories.setdefault(directory, {})[name] = None
        self._absent_files.setdefault(directory, {})[name] = None

    def absences(self) -> tuple[Absence, ...]:
        """Return the absent names by directory, with the directory's stat where it may answer."""
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


def _by_directory(names: Iterable[bytes]) -> dict[bytes, frozenset[bytes]]:
    """Group include names by the part before the last slash."""
    grouped: dict[bytes, set[bytes]] = {}
    for name in names:
        below, _, base = name.rpartition(b"/")
        if not below and name.startswith(b"/"):
            below = b"/"
        grouped.setdefault(below, set()).add(base)
    return {below: frozenset(bases) for below, bases in grouped.items()}


def unchanged_since(paths: Iterable[bytes], started_ns: int) -> bool:
    """Tell whether none of these files may have changed since."""
    try:
        return not any(is_fresh(os.stat(path), started_ns) for path in paths)
    except OSError:
        return False
