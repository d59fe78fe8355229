"""Which names the host's own headers look up, once a project names some of them.

The image has its own system headers, and the host's never travel. But a system header may include
a name that the project has too (`stdlib.h` in a directory of replacements, a `*_config.h`), and
such a file must be in the tree. So the host's headers are read for the names in them, nothing else:
on hosts with equal system headers equal names are found. Where image and host differ, see ADR 23.
"""

from __future__ import annotations

import os
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Final

from hpcc.cache.base.files import FileMemo, Signature, signature_of
from hpcc.compilers.scan.includes import Definitions, Includes, scan_definitions, scan_includes
from hpcc.core.memo import BoundedMemo

# Headers of packages are replaced by renaming, which changes their directory. What is found here
# only adds names, so that a second's delay is harmless.
_TRUST_SECONDS: Final = 2.0
_MAX_NAMES: Final = 20_000
_MAX_READ: Final = 20_000
_MAX_WORLDS: Final = 64
_Asked = tuple[frozenset[bytes], frozenset[bytes]]
_NOTHING: Final[_Asked] = (frozenset(), frozenset())


@dataclass(slots=True)
class _World:
    """One search path of the system and what was found along it."""

    checked_at: float
    directories: dict[bytes, Signature | None] = field(default_factory=dict)
    places: dict[bytes, tuple[bytes, ...]] = field(default_factory=dict)
    read: dict[bytes, Includes] = field(default_factory=dict)
    reached: BoundedMemo[bytes, _Asked] = field(default_factory=lambda: BoundedMemo(_MAX_NAMES))
    # With the number of headers that had been read then.
    definitions: dict[frozenset[bytes], tuple[int, Definitions]] = field(default_factory=dict)


class SystemNames:
    """Answers from memory as long as no directory of the system's headers changed. Thread-safe."""

    def __init__(self, memo: FileMemo, monotonic: Callable[[], float]) -> None:
        self._memo, self._monotonic = memo, monotonic
        self._worlds: BoundedMemo[tuple[bytes, ...], _World] = BoundedMemo(_MAX_WORLDS)

    def asked_by(self, names: frozenset[bytes], directories: tuple[bytes, ...]) -> _Asked:
        """Return all names, and macros in place of names, that the headers reached look up."""
        world = self._world(directories)
        found: set[bytes] = set()
        macros: set[bytes] = set()
        for name in names:
            known = world.reached.get(name)
            if known is None:
                known = world.reached[name] = _reached(name, directories, world, self._memo)
            if known is not _NOTHING:
                found |= known[0]
                macros |= known[1]
        return frozenset(found), frozenset(macros)

    def definitions(self, macros: frozenset[bytes], directories: tuple[bytes, ...]) -> Definitions:
        """Return what any header read so far defines these macros as."""
        world = self._world(directories)
        count, known = world.definitions.get(macros, (-1, Definitions()))
        paths = tuple(world.read)
        if count == len(paths):
            return known
        every = [_definitions(path, macros, self._memo) for path in paths]
        known = Definitions(
            frozenset().union(*(d.names for d in every)),
            frozenset().union(*(d.macros for d in every)),
            frozenset().union(*(d.defined for d in every)),
            any(d.is_opaque for d in every),
        )
        world.definitions[macros] = len(paths), known
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
        asked = {asked for _, asked in includes.questions}
        for new in (includes.quoted | includes.angled | asked) - seen:
            seen.add(new)
            todo.extend(_places(new, directories, world))
    return frozenset(seen), frozenset(macros)


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
        # Before it is looked at: a header that comes later changes it.
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
