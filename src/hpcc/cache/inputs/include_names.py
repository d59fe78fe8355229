"""Groups names from include lines by the part before the last slash. Pure: never reads the disk.

All names of a group are looked up with one listing of a directory.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from functools import lru_cache
from typing import Final

# As many tuples of names; most files of a project are in many closures.
_MAX_REMEMBERED: Final = 20_000


def names_of(paths: Iterable[bytes], directories: Iterable[bytes]) -> dict[bytes, frozenset[bytes]]:
    """Return, grouped, every name by which one of the paths is found from a directory."""
    bases: dict[bytes, set[bytes]] = {}
    for path in paths:
        home, _, base = path.rpartition(b"/")
        bases.setdefault(home or b"/", set()).add(base)
    named: dict[bytes, set[bytes]] = {}
    prefixes = {directory: directory.rstrip(b"/") + b"/" for directory in directories}
    for home, names in bases.items():
        for directory, prefix in prefixes.items():
            if home == directory:
                named.setdefault(b"", set()).update(names)
            elif home.startswith(prefix):
                named.setdefault(home[len(prefix) :], set()).update(names)
    return {below: frozenset(names) for below, names in named.items()}


def merged(
    one: dict[bytes, frozenset[bytes]], other: Mapping[bytes, frozenset[bytes]]
) -> dict[bytes, frozenset[bytes]]:
    """Add the groups of `other` to `one`; changes and returns `one`."""
    for below, names in other.items():
        one[below] = one.get(below, frozenset()) | names
    return one


def parent_of(path: bytes) -> bytes:
    """Return the directory of an absolute path, "/" at the top."""
    return path.rpartition(b"/")[0] or b"/"


def joined(below: bytes, base: bytes) -> bytes:
    """Return an include name from its directory part, which may be empty, and its last part."""
    return below + b"/" + base if below else base


def by_directory(names: Iterable[bytes]) -> dict[bytes, frozenset[bytes]]:
    """Group include names by the part before the last slash."""
    grouped: dict[bytes, set[bytes]] = {}
    for name in names:
        below, _, base = name.rpartition(b"/")
        if not below and name.startswith(b"/"):
            below = b"/"
        grouped.setdefault(below, set()).add(base)
    return {below: frozenset(bases) for below, bases in grouped.items()}


def add_names(groups: dict[bytes, set[bytes]], names: tuple[bytes, ...]) -> None:
    """Add the include names of one file to `groups`, as `by_directory` groups them."""
    for below, bases in _groups_of(names):
        groups.setdefault(below, set()).update(bases)


def frozen(groups: Mapping[bytes, set[bytes]]) -> dict[bytes, frozenset[bytes]]:
    """Return the groups for a look-up."""
    return {below: frozenset(bases) for below, bases in groups.items()}


@lru_cache(maxsize=_MAX_REMEMBERED)
def _groups_of(names: tuple[bytes, ...]) -> tuple[tuple[bytes, frozenset[bytes]], ...]:
    return tuple(by_directory(names).items())
