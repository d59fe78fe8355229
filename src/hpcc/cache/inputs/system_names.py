"""Finds the names that the host's system headers look up when a project includes some of them.

The image has its own system headers, and the host's are never sent. But a system header may include
a name that the project has as well (`stdlib.h` in a directory of replacements, a `*_config.h`), and
such a file must be in the tree. So the host's headers are read, but only for the names in them:
hosts with equal system headers find equal names. If image and host differ, see ADR 23.
"""

from __future__ import annotations

import os
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Final

from hpcc.cache.base.files import FileMemo, Signature, signature_of
from hpcc.cache.inputs.questions import uses
from hpcc.compilers.scan.includes import Includes, scan_definitions, scan_includes
from hpcc.compilers.scan.questions import NOTHING_ASKED, Definitions, Questions, merged
from hpcc.core.memo import BoundedMemo

# Packages replace headers by renaming, which changes the directory. The names found here are only
# added to others, so that a delay of a second is harmless.
_TRUST_SECONDS: Final = 2.0
_MAX_NAMES: Final = 20_000
_MAX_READ: Final = 20_000
_MAX_WORLDS: Final = 64
_Asked = tuple[frozenset[bytes], frozenset[bytes], Questions]
_NOTHING: Final[_Asked] = (frozenset(), frozenset(), NOTHING_ASKED)


@dataclass(slots=True)
class _World:
    """One system search path, and the results found along it."""

    checked_at: float
    directories: dict[bytes, Signature | None] = field(default_factory=dict)
    places: dict[bytes, tuple[bytes, ...]] = field(default_factory=dict)
    read: dict[bytes, Includes] = field(default_factory=dict)
    reached: BoundedMemo[bytes, _Asked] = field(default_factory=lambda: BoundedMemo(_MAX_NAMES))
    # Each with the number of headers that had been read at that time.
    definitions: dict[frozenset[bytes], tuple[int, Definitions]] = field(default_factory=dict)
    uses: dict[tuple[frozenset[bytes], frozenset[bytes]], tuple[int, Questions]] = field(
        default_factory=dict
    )


class SystemNames:
    """Answers from memory while no directory of system headers changes. Thread-safe."""

    def __init__(self, memo: FileMemo, monotonic: Callable[[], float]) -> None:
        self._memo, self._monotonic = memo, monotonic
        self._worlds: BoundedMemo[tuple[bytes, ...], _World] = BoundedMemo(_MAX_WORLDS)

    def asked_by(self, names: frozenset[bytes], directories: tuple[bytes, ...]) -> _Asked:
        """Return all names that the reached headers look up.

        Also macros used in place of names, and questions through macros.
        """
        world = self._world(directories)
        found: set[bytes] = set()
        macros: set[bytes] = set()
        asked = NOTHING_ASKED
        for name in names:
            known = world.reached.get(name)
            if known is None:
                known = world.reached[name] = _reached(name, directories, world, self._memo)
            if known is not _NOTHING:
                found |= known[0]
                macros |= known[1]
                asked |= known[2]
        return frozenset(found), frozenset(macros), asked

    def definitions(self, macros: frozenset[bytes], directories: tuple[bytes, ...]) -> Definitions:
        """Return all definitions of these macros in the headers that were read so far."""
        world = self._world(directories)
        count, known = world.definitions.get(macros, (-1, Definitions()))
        paths = tuple(world.read)
        if count == len(paths):
            return known
        known = merged(_definitions(path, macros, self._memo) for path in paths)
        world.definitions[macros] = len(paths), known
        return known

    def uses(
        self,
        synonyms: frozenset[bytes],
        aliases: frozenset[bytes],
        directories: tuple[bytes, ...],
    ) -> Questions:
        """Return what the headers that were read so far ask through these macros."""
        world = self._world(directories)
        count, known = world.uses.get((synonyms, aliases), (-1, NOTHING_ASKED))
        paths = tuple(world.read)
        if count == len(paths):
            return known
        known = NOTHING_ASKED
        for path in paths:
            digest = self._memo.digest(path)
            if digest is not None:
                known |= uses(self._memo, path, digest, synonyms, aliases) or NOTHING_ASKED
        world.uses[synonyms, aliases] = len(paths), known
        return known

    def _world(self, directories: tuple[bytes, ...]) -> _World:
        now = self._monotonic()
        world = self._worlds.get(directories)
        if world is not None:
            if now - world.checked_at < _TRUST_SECONDS:
                return world
            if all(_signature(d) == seen for d, seen in tuple(world.directories.items())):
                world.checked_at = now
                return world
        world = self._worlds[directories] = _World(now)
        return world


def _reached(name: bytes, directories: tuple[bytes, ...], world: _World, memo: FileMemo) -> _Asked:
    """Follow one name from header to header, in every directory at once."""
    todo = list(_places(name, directories, world))
    if not todo:
        return _NOTHING
    seen = {name}
    files: set[bytes] = set()
    macros: set[bytes] = set()
    questions = NOTHING_ASKED
    while todo:
        path = todo.pop()
        if path in files or len(files) >= _MAX_READ:
            continue
        files.add(path)
        includes = _includes(path, world, memo)
        macros |= includes.computed
        home = path.rpartition(b"/")[0]
        for quoted in includes.quoted:
            todo.extend(_in_directory(home, quoted, world))
        asked = {asked for _, asked in includes.asked.names}
        if includes.asked.in_macros:
            questions |= includes.asked.without_names()
        for new in (includes.quoted | includes.angled | asked) - seen:
            seen.add(new)
            todo.extend(_places(new, directories, world))
    return frozenset(seen), frozenset(macros), questions


def _places(name: bytes, directories: tuple[bytes, ...], world: _World) -> tuple[bytes, ...]:
    known = world.places.get(name)
    if known is None:
        if name.startswith(b"/"):
            known = (name,) if os.path.isfile(name) else ()
        else:
            known = tuple(p for d in directories for p in _in_directory(d, name, world))
        world.places[name] = known
    return known


def _in_directory(directory: bytes, name: bytes, world: _World) -> tuple[bytes, ...]:
    path = os.path.normpath(directory + b"/" + name)
    parent = path.rpartition(b"/")[0]
    if parent not in world.directories:
        # Taken before the look: a header that appears later changes the stat.
        world.directories[parent] = _signature(parent)
    if world.directories[parent] is None:
        return ()
    return (path,) if os.path.isfile(path) else ()


def _signature(directory: bytes) -> Signature | None:
    try:
        return signature_of(os.stat(directory))
    except OSError:
        return None


def _definitions(path: bytes, macros: frozenset[bytes], memo: FileMemo) -> Definitions:
    digest = memo.digest(path)
    if digest is None:
        return Definitions()
    question = ("definitions", macros)
    found = memo.derived(path, digest, question, lambda data: scan_definitions(data, macros))
    return found if found is not None else Definitions()


def _includes(path: bytes, world: _World, memo: FileMemo) -> Includes:
    known = world.read.get(path)
    if known is None:
        digest = memo.digest(path)
        found = None if digest is None else memo.derived(path, digest, "includes", scan_includes)
        known = world.read[path] = found if found is not None else Includes()
    return known
