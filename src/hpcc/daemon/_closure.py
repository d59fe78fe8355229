"""From the files a compiler says it read to a set of inputs that is safe to look up by.

The compiler names what it found; the include lines of those files say what it looked for, and so
which names must stay absent. Every directory of the search path counts, whatever its rank: that is
a superset which needs no knowledge of how a compiler orders and prunes its path.
"""

from __future__ import annotations

import os
import stat
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from typing import Final

from hpcc.compilers import HAZARD_REASONS, Hazard, Scan
from hpcc.daemon._files import FileMemo, Listing
from hpcc.daemon._manifest import Absence

# A file system's clock may lag behind the one we read by a tick (10 ms at HZ=100).
_TICK_NS: Final = 50_000_000
_SECOND_NS: Final = 1_000_000_000
MAX_FILES: Final = 50_000
MAX_CANDIDATES: Final = 400_000
_PCH_SUFFIXES: Final = (b".gch", b".pch")


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
    `allow_date` is true when SOURCE_DATE_EPOCH pins __DATE__ and __TIME__.
    """

    cwd: bytes
    source: bytes
    files: tuple[bytes, ...]
    search: tuple[bytes, ...]
    forced: tuple[bytes, ...]
    started_ns: int
    allow_date: bool
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
    scans = {path: _examine(memo, path, request) for path in paths}
    lookup = _Lookup(memo, request)
    lookup.add_all({path: scan for path, (_, scan) in scans.items()})
    files = tuple((path, digest) for path, (digest, _) in scans.items())
    return Closure(files, tuple(lookup.present), lookup.absences(), tuple(lookup.existing))


def _examine(memo: FileMemo, path: bytes, request: ClosureRequest) -> tuple[bytes, Scan]:
    try:
        status = os.stat(path)
    except OSError as error:
        raise UncacheableError("input-vanished") from error
    if not stat.S_ISREG(status.st_mode):
        raise UncacheableError("special-input")
    if is_fresh(status, request.started_ns):
        raise UncacheableError("modified-during-compile")
    found = memo.scan(path)
    if found is None:
        raise UncacheableError("input-vanished")
    hazards = found[1].hazards
    for hazard, reason in HAZARD_REASONS.items():
        if hazard in hazards and not (hazard is Hazard.DATE_OR_TIME and request.allow_date):
            raise UncacheableError(reason)
    return found


class _Lookup:
    """Collects every name that was, or could have been, looked for."""

    def __init__(self, memo: FileMemo, request: ClosureRequest) -> None:
        self._memo, self._request = memo, request
        self._listings: dict[bytes, Listing | None] = {}
        self._absent_files: dict[bytes, set[bytes]] = {}
        self._absent_directories: dict[bytes, set[bytes]] = {}
        self._closure: frozenset[bytes] = frozenset()
        self._reached: set[bytes] = set()
        self._seen = 0
        self.present: dict[bytes, None] = {}
        self.existing: dict[bytes, None] = {}

    def add_all(self, scans: dict[bytes, Scan]) -> None:
        self._closure = frozenset(scans)
        cwd = self._request.cwd
        chain = tuple(
            dict.fromkeys(absolute(cwd, d.rstrip(b"/") or b"/") for d in self._request.search)
        )
        names: dict[bytes, None] = {}
        questions: dict[bytes, None] = {}
        own: dict[tuple[bytes, bytes], bool] = {}
        for path, scan in scans.items():
            directory = path.rpartition(b"/")[0] or b"/"
            names.update(dict.fromkeys(scan.quoted))
            names.update(dict.fromkeys(scan.angled))
            own.update({(directory, name): False for name in scan.quoted})
            for is_quoted, name in scan.questions:
                questions[name] = None
                if is_quoted:
                    own[directory, name] = True
        for name in self._request.forced:
            names[name] = None
            own[cwd, name] = False
        for (directory, name), is_question in own.items():
            self._candidate(directory, name, is_question=is_question or name in questions)
        for name in dict.fromkeys((*names, *questions)):
            for directory in chain:
                self._candidate(directory, name, is_question=name in questions)
        self._add_unexplained(scans, chain)

    def _add_unexplained(self, scans: dict[bytes, Scan], chain: tuple[bytes, ...]) -> None:
        """Derive names of files no readable include line leads to (`#include MACRO`)."""
        source = absolute(self._request.cwd, self._request.source)
        directories = dict.fromkeys((*chain, *(p.rpartition(b"/")[0] for p in scans)))
        for path in [p for p in scans if p not in self._reached and p != source]:
            for prefix in directories:
                if path.startswith(prefix + b"/"):
                    name = path[len(prefix) + 1 :]
                    for directory in directories:
                        self._candidate(directory, name, is_question=False)

    def _candidate(self, directory: bytes, name: bytes, *, is_question: bool) -> None:
        self._seen += 1
        if self._seen > MAX_CANDIDATES:
            raise UncacheableError("too-many-names")
        if name.startswith(b"/"):
            directory, name = b"", name[1:]
        path = absolute(b"/", directory + b"/" + name)
        if path in self._closure:
            self._reached.add(path)
        if not self._request.counts(directory or b"/"):
            return
        parent, _, base = path.rpartition(b"/")
        listing = self._listing(parent or b"/")
        if listing is None:
            self._missing_directory(parent)
            return
        absent = self._absent_files.setdefault(parent or b"/", set())
        self._no_precompiled(parent, base, listing, absent)
        if base not in listing.files:
            absent.add(base)
        elif path not in self._closure:
            self._exists(path, parent, is_question=is_question)

    def _no_precompiled(
        self, parent: bytes, base: bytes, listing: Listing, absent: set[bytes]
    ) -> None:
        for suffix in _PCH_SUFFIXES:
            name = base + suffix
            if name in listing.files or name in listing.directories:
                raise UncacheableError("pch")
            absent.add(name)
        # GCC takes a directory foo.h.gch full of candidates too.
        self._absent_directories.setdefault(parent or b"/", set()).add(base + b".gch")

    def _exists(self, path: bytes, parent: bytes, *, is_question: bool) -> None:
        """Handle a file that is there and was not read: it must not be new."""
        try:
            status = os.stat(path)
        except OSError:
            self._absent_files.setdefault(parent, set()).discard(path.rpartition(b"/")[2])
            raise UncacheableError("input-vanished") from None
        if is_fresh(status, self._request.started_ns):
            raise UncacheableError("modified-during-compile")
        self.existing[path] = None
        if is_question:
            self.present[path] = None

    def _listing(self, directory: bytes) -> Listing | None:
        if directory not in self._listings:
            self._listings[directory] = self._memo.listing(directory)
        return self._listings[directory]

    def _missing_directory(self, path: bytes) -> None:
        while path:
            parent, _, base = path.rpartition(b"/")
            if self._listing(parent or b"/") is not None:
                self._absent_directories.setdefault(parent or b"/", set()).add(base)
                return
            path = parent

    def absences(self) -> tuple[Absence, ...]:
        """Return the absent names by directory, with the directory's stat where it may answer."""
        result = []
        for directory in dict.fromkeys((*self._absent_files, *self._absent_directories)):
            absence = Absence(
                directory,
                frozenset(self._absent_files.get(directory, ())),
                frozenset(self._absent_directories.get(directory, ())),
            )
            listing = self._listing(directory)
            if listing is not None and listing.is_quiet:
                absence.signature = listing.signature
            result.append(absence)
        return tuple(result)


def unchanged_since(paths: Iterable[bytes], started_ns: int) -> bool:
    """Tell whether none of these files may have changed since."""
    try:
        return not any(is_fresh(os.stat(path), started_ns) for path in paths)
    except OSError:
        return False
