"""Which files of a project a compile may read: a superset, found from text and directories alone.

A pure function of the search path in argv and of what lies under the root: two clients with equal
sources get equal sets. Every directory of the path counts for every name, whatever its rank, and a
file at any of these places is part of the set and read in turn. So nothing rests on how a compiler
orders, prunes or skips its path (`-iquote`, `-idirafter`, `#include_next`, system headers that are
shadowed); the compiler in the guest decides that, with all candidates before it.
"""

from __future__ import annotations

import posixpath
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from typing import Final, Protocol

from hpcc.compilers.scan.includes import Definitions, Includes, argument_definitions
from hpcc.core.reasons.closure import ClosureReason

MAX_REACHED: Final = 50_000
MAX_LOOKED_FOR: Final = 400_000
# `#define A B`, `#define B "name.h"`: nobody goes further by hand.
_MAX_CHAIN: Final = 16

Groups = Mapping[bytes, frozenset[bytes]]
"""Names by what stands before their last slash."""


class UnscannableError(Exception):
    """The text does not tell the closure: the compiler must be asked. `reason` is counted.

    `is_final`: it must not go to a guest at all, whatever the compiler says it reads.
    """

    def __init__(self, reason: str, *, is_final: bool = False) -> None:
        super().__init__(reason)
        self.reason, self.is_final = reason, is_final


class SourceTree(Protocol):
    """What the walk asks of the world. Paths are absolute. May raise `UnscannableError`."""

    def includes(self, path: bytes) -> Includes:
        """Read a file's text."""
        ...

    def definitions(self, path: bytes, names: frozenset[bytes]) -> Definitions:
        """Read what a file defines these macros as."""
        ...

    def system_definitions(self, names: frozenset[bytes]) -> Definitions:
        """Read what the system's headers define these macros as."""
        ...

    def uses(self, path: bytes, aliases: tuple[bytes, ...]) -> frozenset[tuple[bool, bytes]]:
        """Read what a file asks `__has_include` through these macros."""
        ...

    def names(self, directory: bytes) -> frozenset[bytes] | None:
        """List a directory; None when there is none."""
        ...

    def is_file(self, path: bytes) -> bool:
        """Tell a file from a directory."""
        ...

    def is_link(self, path: bytes) -> bool:
        """Tell whether the last name of a directory's path is a link."""
        ...

    def system(self, names: frozenset[bytes]) -> tuple[frozenset[bytes], frozenset[bytes]]:
        """Return names and macros that system headers, reached by these names, look up in turn."""
        ...


@dataclass(frozen=True, slots=True, kw_only=True)
class Search:
    """The part of a command that decides where names are looked for.

    `chain` are the directories of the path that lie under `root`, normal and absolute. `macros` are
    the values of `-D`. `is_system` tells a path of the image's own headers.
    """

    root: bytes
    cwd: bytes
    chain: tuple[bytes, ...]
    forced: tuple[bytes, ...]
    macros: tuple[bytes, ...]
    is_system: Callable[[bytes], bool]


@dataclass(frozen=True, slots=True)
class IncludeClosure:
    """`files` are absolute, in the order in which they were found.

    `absent` are names by directory that must stay absent, `precompiled` those that must not become
    directories either. `passed` are directories that a `..` goes through, so that they must exist.
    `is_bound`: the set rests on more of the files' text than their own directives (macros).
    """

    files: tuple[bytes, ...]
    absent: Mapping[bytes, frozenset[bytes]]
    absent_directories: Mapping[bytes, frozenset[bytes]]
    passed: frozenset[bytes]
    is_bound: bool


def include_closure(starts: Iterable[bytes], search: Search, tree: SourceTree) -> IncludeClosure:
    """Find everything that a compile of `starts` may read.

    Raises:
        UnscannableError: the text does not tell, or something must stay on this machine.
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
    )


def plain_directory(
    path: bytes, is_link: Callable[[bytes], bool], passed: set[bytes] | None = None
) -> bytes:
    """Take `.` and `..` out of an absolute path; what a `..` leaves goes into `passed`.

    Raises:
        UnscannableError: a `..` follows a link, which means another place in the guest.
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
    """One search in waves: all new files are read, then all new names are looked for at once."""

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
        self._aliases: set[bytes] = set()
        self._settled: tuple[object, ...] = ()
        self._looked = 0

    def add(self, path: bytes) -> None:
        """Take a file; it is read in the next wave."""
        if path not in self.files:
            if len(self.files) >= MAX_REACHED:
                raise UnscannableError(ClosureReason.TOO_MANY_FILES)
            self.files[path] = None
            self._unread.append(path)

    def look_for_forced(self) -> None:
        """Look for `-include` files, and for Clang's `.pch` beside them, in cwd and on the path."""
        for name in self._search.forced:
            self._want(name, self._search.cwd)
            self._want(name + b".pch", self._search.cwd)

    @property
    def is_bound(self) -> bool:
        """See `IncludeClosure`."""
        return bool(self._computed or self._system_computed or self._aliases)

    def step(self) -> bool:
        """Do one wave; False when nothing is left to do."""
        unread, self._unread = self._unread, []
        for path in unread:
            self._read(path)
        if self._new_names or self._own:
            self._look_for_new()
            return True
        return bool(self._unread) or self._ask_further()

    def _read(self, path: bytes) -> None:
        found = self._tree.includes(path)
        if found.is_opaque:
            raise UnscannableError(ClosureReason.COMPUTED_INCLUDE)
        home = path.rpartition(b"/")[0] or b"/"
        for name in found.quoted:
            self._want(name, home)
        for name in found.angled - self._names:
            self._want(name)
        for is_quoted, name in found.questions:
            self._ask(is_quoted, name, home)
        self._computed |= found.computed
        self._aliases.update(found.aliases)

    def _ask(self, is_quoted: bool, name: bytes, home: bytes) -> None:  # noqa: FBT001 - as `Scan.questions` has it
        self._asked.add(name)
        self._want(name, home if is_quoted else None)

    def _want(self, name: bytes, home: bytes | None = None) -> None:
        if name.startswith(b"/") and not self._search.is_system(posixpath.normpath(name)):
            # The guest has the project under another name.
            raise UnscannableError(ClosureReason.ABSOLUTE_INCLUDE, is_final=name in self._asked)
        if home is not None:
            self._own.setdefault(home, set()).add(name)
        if name not in self._names:
            self._names.add(name)
            self._new_names.add(name)

    def _look_for_new(self) -> None:
        new, self._new_names = self._new_names, set()
        own, self._own = self._own, {}
        if new:
            groups = _grouped(new)
            for directory in self._search.chain:
                self._look(directory, groups)
        for directory, names in own.items():
            if directory not in self._search.chain:
                self._look(directory, _grouped(names))

    def _look(self, start: bytes, groups: Groups) -> None:
        here = self._tree.names(start)
        if here is None:
            self._missing(start)
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
                directory = plain_directory(start + b"/" + below, self._tree.is_link, self.passed)
                found = self._tree.names(directory)
                if found is None:
                    self._missing(directory)
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
        if not prefix.startswith(self._prefix):
            for base in there:
                is_asked = (below + b"/" + base if below else base) in self._asked
                raise UnscannableError(ClosureReason.OUTSIDE_ROOT, is_final=is_asked)
            return
        if not here.isdisjoint(precompiled := {base + b".gch" for base in bases}):
            raise UnscannableError(ClosureReason.PCH)
        for base in there:
            if base.endswith(b".pch"):
                raise UnscannableError(ClosureReason.PCH)
            self.add(prefix + base)
        self.absent.setdefault(directory, set()).update(bases.difference(there), precompiled)
        self.absent_directories.setdefault(directory, set()).update(precompiled)

    def _missing(self, path: bytes) -> None:
        """Note the first name on the way to a directory that is not there."""
        while path.startswith(self._prefix):
            parent, _, base = path.rpartition(b"/")
            names = self._tree.names(parent or b"/")
            if names is not None:
                if base in names and self._tree.is_file(path):
                    raise UnscannableError(
                        ClosureReason.ODD_DIRECTORY
                    )  # a header map, or a link of some day
                self.absent.setdefault(parent, set()).add(base)
                self.absent_directories.setdefault(parent, set()).add(base)
                return
            path = parent

    def _ask_further(self) -> bool:
        """What needs all files and names: aliases, macros, and the system's own headers."""
        state = (len(self.files), len(self._names), len(self._computed))
        if state == self._settled:
            return False
        self._settled = state
        # What the system's headers look up was followed to its end.
        names, macros = self._tree.system(frozenset(self._names - self._followed))
        self._system_computed |= macros
        self._followed |= self._names | names
        for name in names - self._names:
            self._want(name)
        self._ask_aliases()
        self._resolve_macros()
        return True

    def _ask_aliases(self) -> None:
        aliases = tuple(sorted(self._aliases))
        for path in self.files if aliases else ():
            home = path.rpartition(b"/")[0] or b"/"
            for is_quoted, name in self._tree.uses(path, aliases):
                self._ask(is_quoted, name, home)

    def _resolve_macros(self) -> None:
        """Look for what a macro in place of a name may stand for.

        One that no text defines is no name: its directive is in a branch that nobody takes, or it
        is an error, in the guest as here.
        """
        done: frozenset[bytes] = frozenset()
        wanted = frozenset(self._computed | self._system_computed)
        for _ in range(_MAX_CHAIN):
            if not wanted:
                return
            more: set[bytes] = set()
            for found in self._definitions(wanted):
                # Whatever only the system's headers use may be theirs alone.
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
        """Any file may have the directive that the macro is for."""
        homes = {path.rpartition(b"/")[0] or b"/" for path in self.files} if is_quoted else ()
        self._want(name)
        for home in homes:
            self._want(name, home)


def _grouped(names: Iterable[bytes]) -> dict[bytes, frozenset[bytes]]:
    groups: dict[bytes, set[bytes]] = {}
    for name in names:
        if not name.startswith(b"/"):  # the system's, and so the image's
            below, _, base = name.rpartition(b"/")
            groups.setdefault(below, set()).add(base)
    return {below: frozenset(bases) for below, bases in groups.items()}
