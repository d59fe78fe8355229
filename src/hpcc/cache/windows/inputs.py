"""From the files that cl or clang-cl listed to the state of files in which the result holds.

As `inputs.closure` does elsewhere: every file read, by content; every name of an include line or of
`__has_include` that a directory of the search could have had earlier, as absent; files that exist
there and were not read, as existing. cl looks for quoted names beside each including file, so the
directory of every file read counts for every name.

What must never happen: a result is stored under inputs that it was not made from. So each file must
be older than the compile by the two times that NTFS keeps, and no process may have it open for
writing. What no list shows is settled by the preprocessor's output, or refuses the result.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from typing import Final, NamedTuple

from hpcc.cache.base.manifest import Absence
from hpcc.cache.base.uncacheable import UncacheableError
from hpcc.cache.windows.border import leaves
from hpcc.cache.windows.disk import MAX_INPUT_BYTES, CacheDisk, FileTimes
from hpcc.cache.windows.root_text import names, names_beginning
from hpcc.cache.windows.sharing import WindowsShare
from hpcc.cache.windows.state import Inputs, Names, State
from hpcc.compilers.scan.assembler import has_asm_word
from hpcc.compilers.scan.questions import Questions
from hpcc.compilers.scan.scan import (
    HAZARD_REASONS,
    RESOLVABLE,
    Hazard,
    Scan,
    may_be_read_once,
    scan_source,
)
from hpcc.compilers.scan.text import joined
from hpcc.compilers.scan.windows_names import (
    UnclearNameError,
    candidate,
    key_of,
    names_below,
    parent,
    wide_key,
)
from hpcc.core import WindowsPath
from hpcc.core.memo import BoundedMemo
from hpcc.core.reasons.uncacheable import UncacheableReason

MAX_FILES: Final = 50_000
MAX_CANDIDATES: Final = 400_000
_MAX_REMEMBERED: Final = 50_000
# One name in include lines stands for another; a type library becomes two headers.
_ALIAS: Final = re.compile(rb"\binclude_alias\b|#[ \t]*import\b")
# cl looks for the interface of an imported module in the working directory, and lists it nowhere.
_MODULE: Final = re.compile(
    rb"(?:^|\*/|[;}])\s*(?:export\s+)?(?:import\b\s*[\w<\":]|module\b\s*[\w;:])", re.MULTILINE
)


@dataclass(frozen=True, slots=True, kw_only=True)
class CompileFiles:
    """What a compile read and where it looked.

    `files` are what the compiler listed, with the source first; `data` are read and not scanned.
    `search` are the directories of the search path. `forced` are names of `/FI`. `in_arguments` is
    the scan of the command line. `names_before` are wide keys in the directories of source and
    outputs before the compile. `settle` gets the doubts that the preprocessor's output may settle;
    it raises if it does not. `share` tells how the result may be shared.
    """

    cwd: WindowsPath
    files: tuple[WindowsPath, ...]
    search: tuple[WindowsPath, ...]
    forced: tuple[bytes, ...]
    in_arguments: Scan
    started_ns: int
    names_before: Mapping[bytes, frozenset[bytes]]
    settle: Callable[[Hazard], None]
    share: WindowsShare | None = None
    data: tuple[WindowsPath, ...] = ()


class _Text(NamedTuple):
    """What is known of one content."""

    scan: Scan
    is_once: bool
    has_asm: bool
    has_alias: bool
    has_module: bool


class _File(NamedTuple):
    """One file that was read."""

    path: WindowsPath
    times: FileTimes
    digest: bytes
    text: _Text


class Texts:
    """What was found in texts, by their digests. Thread-safe: a race only scans twice."""

    def __init__(self) -> None:
        self._known: BoundedMemo[bytes, _Text] = BoundedMemo(_MAX_REMEMBERED)

    def of(self, digest: bytes, data: bytes) -> _Text:
        """Return what is in a text."""
        known = self._known.get(digest)
        if known is None:
            known = self._known[digest] = _Text(
                scan_source(data),
                is_once=may_be_read_once(data),
                has_asm=b"asm" in data and has_asm_word(data),
                has_alias=_ALIAS.search(data) is not None,
                has_module=_MODULE.search(joined(data)) is not None,
            )
        return known


def find_inputs(disk: CacheDisk, texts: Texts, compiled: CompileFiles) -> Inputs:
    """Check every file, and return the state in which the result is the right one.

    Raises:
        UncacheableError: a file changed or leaves a doubt; the result must not be stored.
    """
    paths = {key_of(path): path for path in reversed(compiled.files)}
    if len(paths) > MAX_FILES:
        raise UncacheableError(UncacheableReason.TOO_MANY_FILES)
    _check_spellings(disk, compiled.files, paths)
    files: dict[str, _File] = {}
    share, names_root, has_pieces = compiled.share, False, False
    for key, path in reversed(paths.items()):
        times, digest, data = _read(disk, path, compiled.started_ns)
        files[key] = _File(path, times, digest, texts.of(digest, data))
        if share is not None:
            names_root |= names(data, share.root)
            has_pieces |= names_beginning(data, share.root)
    found = [file.text for file in files.values()]
    doubts = _doubts([*(text.scan for text in found), compiled.in_arguments])
    if any(text.has_alias for text in found):
        raise UncacheableError(UncacheableReason.UNCLEAR_NAME)
    if any(text.has_module for text in found):
        raise UncacheableError(UncacheableReason.MODULES)
    if any(text.has_asm for text in found):
        doubts |= Hazard.OPAQUE_ASSEMBLY
    once = _content_read_once(files, doubts)
    search = _Search(disk, compiled, files, once)
    search.look_everywhere()
    if doubts & RESOLVABLE:
        compiled.settle(doubts & RESOLVABLE)
        for file in files.values():  # the preprocessor read them a moment ago
            if disk.times(str(file.path), is_at_rest=False) != file.times:
                raise UncacheableError(UncacheableReason.MODIFIED_DURING_COMPILE)
    absences = search.absences()
    _check_directories(disk, compiled, absences, asks=any(text.scan.asked.count for text in found))
    read = [(file.path, file.digest) for file in files.values()]
    read += [(path, _read(disk, path, compiled.started_ns)[1]) for path in compiled.data]
    return Inputs(
        tuple((str(path).encode(), digest) for path, digest in read),
        tuple(sorted(search.present)),
        absences,
        names_root=names_root,
        has_pieces=has_pieces and Hazard.COMPUTED_INCLUDE in doubts,
        leads_out=search.leads_out,
    )


def _check_directories(
    disk: CacheDisk, compiled: CompileFiles, absences: Iterable[Absence], *, asks: bool
) -> None:
    """Check that no name vanished while the compiler ran.

    The compiler's list shows which header an include line found. It does not show what
    `__has_include` found. A directory that changed tells nothing; for those in which builds write
    objects, their names from before the compile are compared.

    Raises:
        UncacheableError: one vanished, or may have.
    """
    for absence in absences:
        times = disk.times(absence.directory.decode(), is_at_rest=False)
        if times is not None and not times.may_have_changed_since(compiled.started_ns):
            continue
        before = compiled.names_before.get(absence.directory)
        absent = absence.files | absence.directories
        if (asks and before is None) or (before is not None and not absent.isdisjoint(before)):
            raise UncacheableError(UncacheableReason.MODIFIED_DURING_COMPILE, absence.directory)


def _check_spellings(
    disk: CacheDisk, files: Iterable[WindowsPath], paths: Mapping[str, WindowsPath]
) -> None:
    """Check that names which differ only in capitals are one file, also where capitals count.

    Raises:
        UncacheableError: two of them are not.
    """
    for path in dict.fromkeys(files):
        first = paths[key_of(path)]
        if path != first:
            one, other = (disk.times(str(p), is_at_rest=False) for p in (first, path))
            if one is None or other is None or one.identity != other.identity:
                raise UncacheableError(UncacheableReason.UNCLEAR_NAME, str(path).encode())


def _read(disk: CacheDisk, path: WindowsPath, started_ns: int) -> tuple[FileTimes, bytes, bytes]:
    name = str(path)
    before = disk.times(name, is_at_rest=True)
    if before is None and disk.times(name, is_at_rest=False) is None:
        raise UncacheableError(UncacheableReason.INPUT_VANISHED, name.encode())
    data = disk.read(name, MAX_INPUT_BYTES)
    after = disk.times(name, is_at_rest=False)
    if (
        data is None
        or before is None
        or after != before
        or after.may_have_changed_since(started_ns)
    ):
        raise UncacheableError(UncacheableReason.MODIFIED_DURING_COMPILE, name.encode())
    return before, hashlib.sha256(data).digest(), data


def _doubts(scans: Iterable[Scan]) -> Hazard:
    """Return the hazards that may be settled.

    Raises:
        UncacheableError: one that may not, or a question whose name a macro decides.
    """
    doubts, questions = Hazard.NONE, Questions()
    for scan in scans:
        doubts |= scan.hazards
        questions |= scan.asked
        if scan.embeds:
            doubts |= Hazard.OPAQUE_EMBED
    for hazard, reason in HAZARD_REASONS.items():
        if hazard in doubts & ~(RESOLVABLE & ~Hazard.EMBED):
            raise UncacheableError(reason)
    if questions.is_opaque or questions.in_macros:
        raise UncacheableError(UncacheableReason.HAS_INCLUDE)
    return doubts


def _content_read_once(files: Mapping[str, _File], doubts: Hazard) -> frozenset[bytes]:
    """Return the contents that are read once, of which a second file may be skipped unseen.

    Raises:
        UncacheableError: two of the files have such a content.
    """
    is_any = Hazard.READ_ONCE in doubts
    seen: set[bytes] = set()
    for file in files.values():
        if is_any or file.text.is_once:
            if file.digest in seen:
                raise UncacheableError(UncacheableReason.TWIN_HEADERS)
            seen.add(file.digest)
    return frozenset(seen)


class _Search:
    """Looks for every name in every directory where the compiler could have found it."""

    def __init__(
        self,
        disk: CacheDisk,
        compiled: CompileFiles,
        files: Mapping[str, _File],
        once: frozenset[bytes],
    ) -> None:
        self._disk, self._compiled, self._files, self._once = disk, compiled, files, once
        self._state = State(disk)
        self._absent: dict[str, tuple[set[bytes], set[bytes]]] = {}
        self._seen: set[tuple[str, str]] = set()
        self.present: set[bytes] = set()
        self.leads_out = False

    def look_everywhere(self) -> None:
        """Look for the names of all texts.

        Raises:
            UncacheableError: it is not certain what one of them means.
        """
        paths = [file.path for file in self._files.values()]
        homes = {key_of(parent(path)): parent(path) for path in (*paths, _beside(self._compiled))}
        search = {key_of(directory): directory for directory in self._compiled.search}
        for directory in search.values():
            if self._disk.is_directory(str(directory)) is False:  # a header map renames headers
                raise UncacheableError(UncacheableReason.SEARCH_PATH, str(directory).encode())
        every = {**homes, **search}
        quoted, names = set(self._compiled.forced), set[bytes]()
        for scan in (self._compiled.in_arguments, *(f.text.scan for f in self._files.values())):
            quoted.update(scan.quoted, (name for is_quoted, name in scan.asked.names if is_quoted))
            names.update(scan.angled, (name for _, name in scan.asked.names))
        for path in paths:  # also behind a macro
            quoted |= names_below(path, every.values())
        names |= quoted
        if len(quoted) * len(homes) + len(names) * len(search) > MAX_CANDIDATES:
            raise UncacheableError(UncacheableReason.TOO_MANY_NAMES)
        self._look_for(quoted, homes.values())
        self._look_for(names, search.values())
        for name in self._compiled.forced:
            self._look_for_precompiled(name)

    def _look_for_precompiled(self, forced: bytes) -> None:
        """Check that clang-cl finds no precompiled header for a `/FI`; it takes one unasked."""
        for name in (forced + b".pch", forced + b".gch"):
            path = candidate(name, self._compiled.cwd)
            if path is None:
                continue
            home, base = parent(path), wide_key(path.components[-1])
            names = self._state.names(str(home))
            if names is None:
                self._note_missing(home)
                continue
            if base in names:
                raise UncacheableError(UncacheableReason.PCH, str(path).encode())
            for absent in self._note(home):  # a directory counts, too
                absent.add(base.encode())

    def _look_for(self, names: Iterable[bytes], directories: Iterable[WindowsPath]) -> None:
        names = tuple(names)
        for directory in directories:
            for name in names:
                try:
                    self._look(directory, name)
                except UnclearNameError as error:
                    raise UncacheableError(UncacheableReason.UNCLEAR_NAME, name) from error

    def absences(self) -> tuple[Absence, ...]:
        """Return the absent names by directory."""
        return tuple(
            Absence(directory.encode(), frozenset(files), frozenset(directories))
            for directory, (files, directories) in sorted(self._absent.items())
            if files or directories
        )

    def _look(self, directory: WindowsPath, name: bytes) -> None:
        path = candidate(name, directory)
        if path is None or not path.components:
            return
        share = self._compiled.share
        if share is not None and _is_odd(name):
            is_in, is_of_drive = share.is_below(path), name[:1] in {b"/", b"\\"}
            is_out = share.is_below(directory) is not is_in or (is_in and is_of_drive)
            self.leads_out |= is_out or leaves(name.decode(), share.root, directory)
        home, base = parent(path), path.components[-1]
        if (key_of(home), base) in self._seen:
            return
        self._seen.add((key_of(home), base))
        names = self._state.names(str(home))
        if names is None:
            self._note_missing(home)
            return
        self._look_in(home, base, names)

    def _look_in(self, home: WindowsPath, base: str, names: Names) -> None:
        there = [name for name, is_directory in names.get(wide_key(base), ()) if not is_directory]
        if not there:
            self._note(home)[0].add(wide_key(base).encode())
            return
        path = WindowsPath(home.drive, (*home.components, base))
        if key_of(path) in self._files:
            return
        # Two names that only this key takes for one, or that only a case-sensitive directory has.
        if len(there) > 1 or self._disk.is_directory(str(path)) is not False:
            raise UnclearNameError
        times = self._disk.times(str(path), is_at_rest=False)
        if times is None or times.may_have_changed_since(self._compiled.started_ns):
            raise UncacheableError(UncacheableReason.MODIFIED_DURING_COMPILE, str(path).encode())
        if self._once and self._state.digest(str(path).encode()) in self._once:
            raise UncacheableError(UncacheableReason.TWIN_HEADERS, str(path).encode())
        self.present.add(str(path).encode())

    def _note_missing(self, directory: WindowsPath) -> None:
        """Record the first part of a path that is not a directory."""
        home, base = directory, ""
        while self._state.names(str(home)) is None:
            if not home.components:
                raise UnclearNameError  # a drive that is not there may come
            home, base = parent(home), home.components[-1]
        names = self._state.names(str(home)) or {}
        if any(is_directory for _, is_directory in names.get(wide_key(base), ())):
            raise UnclearNameError  # a directory that cannot be read
        self._note(home)[1].add(wide_key(base).encode())

    def _note(self, home: WindowsPath) -> tuple[set[bytes], set[bytes]]:
        return self._absent.setdefault(str(home), (set(), set()))


def _is_odd(name: bytes) -> bool:
    """Tell whether a name may lead elsewhere than below the directory of its search."""
    return b".." in name or b":" in name or name[:1] in {b"/", b"\\"}


def _beside(compiled: CompileFiles) -> WindowsPath:
    """Return a path in the working directory, where names of `/FI` are looked for first."""
    return WindowsPath(compiled.cwd.drive, (*compiled.cwd.components, "x"))
