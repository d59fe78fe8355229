"""Which files of a project a compile may read: a superset, from texts and directories only.

It is a pure function of the search path in argv and of the files under the root, so two clients
with equal sources get equal sets. Every directory of the path counts for every name, whatever its
rank. A file found in any of them is part of the set and is read in turn. So the result does not
depend on how a compiler orders, prunes or skips its path (`-iquote`, `-idirafter`,
`#include_next`, shadowed system headers). The compiler in the guest decides that, and has all
candidates.
"""

from __future__ import annotations

import posixpath
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from typing import Final

from hpcc.compilers.scan.includes import argument_definitions
from hpcc.compilers.scan.questions import (
    MAX_CHAIN,
    NOTHING_ASKED,
    Definitions,
    Questions,
    definition_lines,
    merged,
    read_questions,
    read_uses,
    settle_questions,
)
from hpcc.compilers.scan.source_texts import SourceTree
from hpcc.core.reasons.closure import ClosureReason

MAX_REACHED: Final = 50_000
MAX_LOOKED_FOR: Final = 400_000

# In a guest a name that leads out of the root through `..` leads to `/` or `/src`.
_OF_AN_IMAGE: Final = frozenset(
    b"bin boot dev etc home lib lib32 lib64 media mnt opt proc root run sbin srv src sys tmp usr"
    b" var hpcc-project hpcc-installed".split()
)

Groups = Mapping[bytes, frozenset[bytes]]
"""Names by what stands before their last slash."""


class UnscannableError(Exception):
    """The text does not determine the closure: ask the compiler. `reason` is counted.

    `is_final`: do not send it to a guest at all, whatever the compiler reports.
    """

    def __init__(self, reason: str, *, is_final: bool = False) -> None:
        super().__init__(reason)
        self.reason, self.is_final = reason, is_final


@dataclass(frozen=True, slots=True, kw_only=True)
class Search:
    """The part of a command that determines where names are looked up.

    `chain` are the path's directories except for those of the image, normal and absolute. A file in
    one that is neither under `root` nor `is_installed` makes the closure unknown. `macros` are the
    values of `-D`. `is_system` returns whether a path belongs to the image's own headers.
    """

    root: bytes
    cwd: bytes
    chain: tuple[bytes, ...]
    forced: tuple[bytes, ...]
    macros: tuple[bytes, ...]
    is_system: Callable[[bytes], bool]
    is_installed: Callable[[bytes], bool] = lambda _path: False


@dataclass(frozen=True, slots=True)
class IncludeClosure:
    """The result. `files` are absolute, in the order in which they were found.

    `absent` are names by directory that must stay absent. `precompiled` are names that must not
    become directories either. `passed` are directories that a `..` traverses, so they must exist.
    `is_bound`: the set depends on text beyond the files' own directives (macros). `components` are
    the directories in the names that were looked for.
    """

    files: tuple[bytes, ...]
    absent: Mapping[bytes, frozenset[bytes]]
    absent_directories: Mapping[bytes, frozenset[bytes]]
    passed: frozenset[bytes]
    is_bound: bool
    components: frozenset[bytes] = frozenset()


def include_closure(starts: Iterable[bytes], search: Search, tree: SourceTree) -> IncludeClosure:
    """Return every file that a compile of `starts` may read.

    Raises:
        UnscannableError: the text does not determine it, or a file must stay on this machine.
    """
    walk = _Walk(search, tree)
    for path in starts:
        walk.add(path)
    walk.look_for_forced()
    while walk.step():
        pass
    return IncludeClosure(
        tuple(walk.files),
        {d: frozenset(n) for d, n in walk.absent.items()},
        {d: frozenset(n) for d, n in walk.absent_directories.items()},
        frozenset(path for path in walk.passed if tree.names(path) is not None),
        walk.is_bound,
        walk.components,
    )


def plain_directory(
    path: bytes, is_link: Callable[[bytes], bool], passed: set[bytes] | None = None
) -> bytes:
    """Return an absolute path without `.` and `..`; directories that a `..` leaves go to `passed`.

    Raises:
        UnscannableError: a `..` follows a link, which leads elsewhere in the guest.
    """
    if b"/." not in path and b"//" not in path:
        return path.rstrip(b"/") or b"/"
    parts: list[bytes] = []
    for part in path.split(b"/"):
        if part == b"..":
            left = b"/" + b"/".join(parts)
            if is_link(left):
                raise UnscannableError(ClosureReason.SYMLINK_AND_DOTS)
            if passed is not None:
                passed.add(left)
            if parts:
                parts.pop()
        elif part not in {b"", b"."}:
            parts.append(part)
    return b"/" + b"/".join(parts)


class _Walk:
    """One search in waves: read all new files, then look up all new names together."""

    def __init__(self, search: Search, tree: SourceTree) -> None:
        self._search, self._tree = search, tree
        self._prefix = search.root.rstrip(b"/") + b"/"
        self.files: dict[bytes, None] = {}
        self.absent: dict[bytes, set[bytes]] = {}
        self.absent_directories: dict[bytes, set[bytes]] = {}
        self.passed: set[bytes] = set()
        self._unread: list[bytes] = []
        self._names: set[bytes] = set()
        self._new_names: set[bytes] = set()
        self._own: dict[bytes, set[bytes]] = {}
        self._asked: set[bytes] = set()
        self._followed: set[bytes] = set()
        self._computed: set[bytes] = set()
        self._system_computed: set[bytes] = set()
        self._questions = read_questions(definition_lines(search.macros))
        self._system_questions = NOTHING_ASKED
        self._settled: tuple[object, ...] = ()
        self._looked = 0

    def add(self, path: bytes) -> None:
        """Add a file; the next wave reads it."""
        if path not in self.files:
            if len(self.files) >= MAX_REACHED:
                raise UnscannableError(ClosureReason.TOO_MANY_FILES)
            self.files[path] = None
            self._unread.append(path)

    def look_for_forced(self) -> None:
        """Look for `-include` files and Clang's `.pch` beside them: at their path, or as others."""
        for name in (n for forced in self._search.forced for n in (forced, forced + b".pch")):
            if name.startswith(b"/") and not self._search.is_system(posixpath.normpath(name)):
                home, _, base = name.rpartition(b"/")
                place = plain_directory(home, self._tree.is_link, self.passed)
                self._look(place, {b"": frozenset((base,))})
            else:
                self._want(name, self._search.cwd)

    @property
    def is_bound(self) -> bool:
        """See `IncludeClosure`."""
        asked = self._questions.in_macros or self._system_questions.in_macros
        return bool(self._computed or self._system_computed) or asked

    @property
    def components(self) -> frozenset[bytes]:
        """See `IncludeClosure`."""
        return frozenset(part for name in self._names for part in name.split(b"/")[:-1])

    def step(self) -> bool:
        """Do one wave; return False when nothing is left to do."""
        unread, self._unread = self._unread, []
        for path in unread:
            self._read(path)
        if self._new_names or self._own:
            self._look_for_new()
            return True
        return bool(self._unread) or self._ask_further()

    def _read(self, path: bytes) -> None:
        if (found := self._tree.includes(path)).is_opaque:
            raise UnscannableError(ClosureReason.COMPUTED_INCLUDE)
        home = path.rpartition(b"/")[0] or b"/"
        for name in found.quoted:
            self._want(name, home)
        for name in found.angled - self._names:
            self._want(name)
        for is_quoted, name in found.asked.names:
            self._asked.add(name)
            self._want(name, home if is_quoted else None)
        self._computed |= found.computed
        if found.asked.in_macros:
            self._questions |= found.asked.without_names()

    def _want(self, name: bytes, home: bytes | None = None) -> None:
        if name.startswith(b"/") and not self._search.is_system(posixpath.normpath(name)):
            # In the guest the project has another path.
            raise UnscannableError(ClosureReason.ABSOLUTE_INCLUDE, is_final=name in self._asked)
        if home is not None:
            self._own.setdefault(home, set()).add(name)
        if name not in self._names:
            self._names.add(name)
            self._new_names.add(name)

    def _look_for_new(self) -> None:
        (new, self._new_names), (own, self._own) = (self._new_names, set()), (self._own, {})
        if new:
            groups = _grouped(new)
            for directory in self._search.chain:
                self._look(directory, groups)
        for directory, names in own.items():
            if directory not in self._search.chain:
                self._look(directory, _grouped(names))

    def _look(self, start: bytes, groups: Groups) -> None:
        if (here := self._tree.names(start)) is None:
            self._missing(start, is_searched=True)
            return
        lacking = {
            first for below in groups if below and (first := below.partition(b"/")[0]) not in here
        } - {b".", b".."}  # fmt: skip
        if lacking:
            self.absent.setdefault(start, set()).update(lacking)
            self.absent_directories.setdefault(start, set()).update(lacking)
        for below, bases in groups.items():
            if not below:
                self._look_in(start, here, bases, below)
            elif below.partition(b"/")[0] not in lacking:
                left = set[bytes]()
                directory = plain_directory(start + b"/" + below, self._tree.is_link, left)
                self._check_way(start, directory, below, left)
                self.passed |= left
                found = self._tree.names(directory)
                if found is None:
                    self._missing(directory, is_searched=False)
                else:
                    self._look_in(directory, found, bases, below)

    def _look_in(
        self, directory: bytes, here: frozenset[bytes], bases: frozenset[bytes], below: bytes
    ) -> None:
        self._looked += len(bases)
        if self._looked > MAX_LOOKED_FOR:
            raise UnscannableError(ClosureReason.TOO_MANY_NAMES)
        prefix = directory.rstrip(b"/") + b"/"
        there = [base for base in bases & here if self._tree.is_file(prefix + base)]
        if not here.isdisjoint(precompiled := {base + b".gch" for base in bases}):
            raise UnscannableError(ClosureReason.PCH)
        if not (prefix.startswith(self._prefix) or self._search.is_installed(directory)):
            for base in there:
                name = below + b"/" + base if below else base
                raise UnscannableError(ClosureReason.OUTSIDE_ROOT, is_final=name in self._asked)
            self.absent.setdefault(directory, set()).update(bases, precompiled)
            self.absent_directories.setdefault(directory, set()).update(precompiled)
            return
        for base in there:
            if base.endswith(b".pch"):
                raise UnscannableError(ClosureReason.PCH)
            self.add(prefix + base)
        self.absent.setdefault(directory, set()).update(bases.difference(there), precompiled)
        self.absent_directories.setdefault(directory, set()).update(precompiled)

    def _check_way(self, start: bytes, directory: bytes, below: bytes, left: set[bytes]) -> None:
        """Refuse ways from the root to an image's directories, or back by the root's name here."""
        begins, ends = ((d + b"/").startswith(self._prefix) for d in (start, directory))
        if ends and (not begins or self._search.root in left):
            raise UnscannableError(ClosureReason.OUTSIDE_ROOT, is_final=True)
        if begins and not ends and not _OF_AN_IMAGE.isdisjoint(below.split(b"/")):
            raise UnscannableError(ClosureReason.OUTSIDE_ROOT)

    def _missing(self, path: bytes, *, is_searched: bool) -> None:
        """Record the first component that is not a directory; a searched file is a header map."""
        while path.strip(b"/"):
            parent, _, base = path.rpartition(b"/")
            if (names := self._tree.names(parent or b"/")) is not None:
                is_file = base in names and self._tree.is_file(path)
                if is_file and (is_searched or self._tree.is_link(path)):  # links change elsewhere
                    raise UnscannableError(ClosureReason.ODD_DIRECTORY)
                self.absent.setdefault(parent, set()).update(() if is_file else (base,))
                self.absent_directories.setdefault(parent, set()).add(base)
                return
            path = parent

    def _ask_further(self) -> bool:
        """Follow what needs all files and names: aliases, macros, and the system's headers."""
        state = (len(self.files), len(self._names), len(self._computed))
        if state == self._settled:
            return False
        self._settled = state
        # The names that system headers look up were already followed to their end.
        names, macros, asked = self._tree.system(frozenset(self._names - self._followed))
        self._system_computed |= macros
        self._system_questions |= asked
        self._followed |= self._names | names
        for name in names - self._names:
            self._want(name)
        self._ask_through_macros()
        self._resolve_macros()
        return True

    def _ask_through_macros(self) -> None:
        """Look for the names that `__has_include` asks for through macros.

        What only the system's headers ask may stay unknown: the image answers it.
        """
        both = self._questions | self._system_questions
        if not both.in_macros:
            return
        names, is_opaque = settle_questions(both, self._uses, self._all_definitions)
        if is_opaque:
            more, is_opaque = settle_questions(
                self._questions, self._own_uses, self._all_definitions
            )
            names |= more
            if is_opaque:
                raise UnscannableError(ClosureReason.COMPUTED_INCLUDE)
        for is_quoted, name in names:
            self._asked.add(name)
            self._want_everywhere(name, is_quoted=is_quoted)

    def _uses(self, synonyms: frozenset[bytes], aliases: frozenset[bytes]) -> Questions:
        system = self._tree.system_uses(synonyms, aliases)
        return self._own_uses(synonyms, aliases) | system

    def _own_uses(self, synonyms: frozenset[bytes], aliases: frozenset[bytes]) -> Questions:
        found = read_uses(definition_lines(self._search.macros), synonyms, aliases)
        for path in self.files:
            found |= self._tree.uses(path, synonyms, aliases)
        return found

    def _all_definitions(self, names: frozenset[bytes]) -> Definitions:
        return merged(self._definitions(names))

    def _resolve_macros(self) -> None:
        """Look for the names that a macro in place of a name may stand for.

        A macro that no text defines cannot give a name. Its directive is in a branch that is never
        compiled, or it is an error in the guest too.
        """
        done, wanted = frozenset[bytes](), frozenset(self._computed | self._system_computed)
        for _ in range(MAX_CHAIN):
            if not wanted:
                return
            more: set[bytes] = set()
            for found in self._definitions(wanted):
                # A macro that only the system's headers use may be defined only by them.
                if found.is_opaque and not found.defined <= self._system_computed:
                    raise UnscannableError(ClosureReason.COMPUTED_INCLUDE)
                more |= found.macros
                for is_quoted, name in found.names:
                    self._want_everywhere(name, is_quoted=is_quoted)
            done |= wanted
            wanted = frozenset(more - done)
        raise UnscannableError(ClosureReason.COMPUTED_INCLUDE)

    def _definitions(self, names: frozenset[bytes]) -> Iterable[Definitions]:
        yield argument_definitions(self._search.macros, names)
        yield self._tree.system_definitions(names)
        for path in self.files:
            yield self._tree.definitions(path, names)

    def _want_everywhere(self, name: bytes, *, is_quoted: bool) -> None:
        """Look for a name from all files, because any file may use the macro."""
        homes = {path.rpartition(b"/")[0] or b"/" for path in self.files} if is_quoted else ()
        self._want(name)
        for home in homes:
            self._want(name, home)


def _grouped(names: Iterable[bytes]) -> dict[bytes, frozenset[bytes]]:
    groups: dict[bytes, set[bytes]] = {}
    for name in names:
        if not name.startswith(b"/"):  # an absolute name is the system's, and so the image's
            below, _, base = name.rpartition(b"/")
            groups.setdefault(below, set()).add(base)
    return {below: frozenset(bases) for below, bases in groups.items()}
