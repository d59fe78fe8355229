"""Files of one content that a compiler may or may not recognise as one file.

With `#pragma once` the compiler reads the second of them only if it takes them for two. So beside
their content their relation is an input: it is noted when a result is stored and compared at each
look-up. A touched file, a new hard link or a fresh clone can change it.

Search directories have such a relation, too. Compilers search a directory once, under its first
name, so a link in place of a directory changes what `#include_next` finds. GCC warns about a file
in place of a directory.
"""

from __future__ import annotations

import os
import stat
from collections.abc import Callable, Iterable
from typing import Final, NamedTuple

from hpcc.cache.base.fields import decode_fields, encode_fields
from hpcc.cache.base.real_names import RealNames
from hpcc.cache.base.trees import look_at_tree
from hpcc.compilers.scan.twins import TwinRule
from hpcc.core import IntegrityError

_SECOND_NS: Final = 1_000_000_000
_NAMED_GROUPS: Final = frozenset({TwinRule.PLACE, TwinRule.TREE, TwinRule.DIRECTORY, TwinRule.LINK})
# The names of a link and its file are names of one file.
_OF_NO_TWO_FILES: Final = frozenset({TwinRule.TREE, TwinRule.DIRECTORY, TwinRule.LINK})
_IS_DIRECTORY: Final = b"directory"
_IS_MISSING: Final = b"missing"
_IS_FILE: Final = b"file"
_IS_CLOSED: Final = b"closed"  # a header below it cannot be opened, which is an error


class Twins(NamedTuple):
    """Paths of one content. Those in one of `groups` are one file under `rule`, others are not.

    Under `TwinRule.PLACE` each group is a path alone, behind the text of its device and inode,
    under `TwinRule.TREE` behind a digest, under `TwinRule.LINK` behind its real name. Under
    `TwinRule.DIRECTORY` each group begins with a text: what is in the directory's place.
    """

    rule: TwinRule
    groups: tuple[tuple[bytes, ...], ...]

    @property
    def paths(self) -> tuple[bytes, ...]:
        start = 1 if self.rule in _NAMED_GROUPS else 0
        return tuple(path for group in self.groups for path in group[start:])

    def renamed(self, rename: Callable[[bytes], bytes]) -> Twins:
        """Return the same relation of other paths."""
        if self.rule in {TwinRule.PLACE, TwinRule.TREE}:
            places = ((place, rename(path)) for place, path in self.groups)
            return Twins(self.rule, tuple(sorted(places, key=lambda group: group[1])))
        if self.rule is TwinRule.LINK:
            links = ((rename(real), rename(path)) for real, path in self.groups)
            return Twins(self.rule, tuple(sorted(links, key=lambda group: group[1])))
        if self.rule is TwinRule.DIRECTORY:
            named = ((*group[:1], *sorted(map(rename, group[1:]))) for group in self.groups)
            return Twins(self.rule, tuple(sorted(named)))
        groups = (tuple(sorted(map(rename, group))) for group in self.groups)
        return Twins(self.rule, tuple(sorted(groups)))

    def holds(self) -> bool:
        """Tell whether the paths are related now as they were; one `stat` for each."""
        try:
            return look_at_twins(self.rule, self.paths) == self
        except OSError:
            return False


def look_at_twins(rule: TwinRule, paths: Iterable[bytes]) -> Twins:
    """Return how these paths are related now; equal relations give equal values.

    Raises:
        OSError: one of them is missing.
    """
    if rule is TwinRule.PLACE:
        return Twins(rule, tuple((_place(os.stat(path)), path) for path in sorted(paths)))
    if rule is TwinRule.DIRECTORY:
        return _look_at_directories(paths)
    if rule is TwinRule.TREE:
        return Twins(rule, tuple((look_at_tree(path).digest, path) for path in sorted(paths)))
    if rule is TwinRule.LINK:
        names = RealNames()
        return Twins(rule, tuple((names.of_existing(path), path) for path in sorted(paths)))
    groups: dict[tuple[int, ...], list[bytes]] = {}
    for path in sorted(paths):
        groups.setdefault(_identity(rule, os.stat(path)), []).append(path)
    return Twins(rule, tuple(sorted(map(tuple, groups.values()))))


def are_one_file_everywhere(twins: Twins) -> bool:
    """Tell whether these are names of one file wherever the tree is, because no link is in them."""
    return are_one_file(twins) and all(
        os.path.realpath(path) == os.path.normpath(path) for path in twins.paths
    )


def have_places(twins: Iterable[Twins]) -> bool:
    """Tell whether device and inode of a file are among these relations."""
    return any(t.rule is TwinRule.PLACE for t in twins)


def related_files(twins: Iterable[Twins]) -> frozenset[bytes] | None:
    """Return the files of these relations, without search directories; None if all files are."""
    if have_places(twins := tuple(twins)):
        return None
    of_two = (t for t in twins if t.rule not in _OF_NO_TWO_FILES and not are_one_file(t))
    return frozenset(path for t in of_two for path in t.paths)


def are_one_file(twins: Twins) -> bool:
    """Tell whether these are names of one file, as long as no directory before a `..` is a link.

    An edit changes the file under all of them.
    """
    return len(twins.groups) == 1 and len(set(map(os.path.normpath, twins.paths))) == 1


def links_of(twins: Iterable[Twins]) -> tuple[bytes, ...]:
    """Return the names behind a link of which the real name counts."""
    return tuple(path for t in twins if t.rule is TwinRule.LINK for path in t.paths)


def trees_of(twins: Iterable[Twins]) -> tuple[bytes, ...]:
    """Return the directories below which Clang looks for installations."""
    return tuple(path for t in twins if t.rule is TwinRule.TREE for path in t.paths)


def existing_directories(twins: Iterable[Twins]) -> tuple[bytes, ...]:
    """Return the search directories of these relations that are directories."""
    return _directories(twins, lambda kind: kind == _IS_DIRECTORY)


def missing_directories(twins: Iterable[Twins]) -> tuple[bytes, ...]:
    """Return the search directories of these relations that do not exist."""
    return _directories(twins, lambda kind: kind == _IS_MISSING)


def odd_directories(twins: Iterable[Twins]) -> tuple[bytes, ...]:
    """Return the other ones: files, closed directories and loops of links."""
    return _directories(twins, lambda kind: kind not in {_IS_DIRECTORY, _IS_MISSING})


def _directories(twins: Iterable[Twins], is_wanted: Callable[[bytes], bool]) -> tuple[bytes, ...]:
    groups = (group for t in twins if t.rule is TwinRule.DIRECTORY for group in t.groups if group)
    return tuple(path for group in groups if is_wanted(group[0]) for path in group[1:])


def _look_at_directories(paths: Iterable[bytes]) -> Twins:
    groups: dict[tuple[bytes, int, int], list[bytes]] = {}
    for path in sorted(paths):
        place = _place_of_directory(path)
        groups.setdefault(place, [place[0]]).append(path)
    return Twins(TwinRule.DIRECTORY, tuple(sorted(map(tuple, groups.values()))))


def _place_of_directory(path: bytes) -> tuple[bytes, int, int]:
    """Return what is at a directory's path, with its device and inode if it is a directory."""
    try:
        status = os.stat(path)
    except FileNotFoundError:
        return _IS_MISSING, 0, 0
    except OSError as error:
        return b"errno %d" % (error.errno or 0), 0, 0
    if not stat.S_ISDIR(status.st_mode):
        return _IS_FILE, 0, 0
    if not os.access(path, os.X_OK):
        return _IS_CLOSED, 0, 0
    return _IS_DIRECTORY, status.st_dev, status.st_ino


def _place(status: os.stat_result) -> bytes:
    return b"%x_%x" % (status.st_dev, status.st_ino)


def _identity(rule: TwinRule, status: os.stat_result) -> tuple[int, ...]:
    if rule is TwinRule.SECOND:
        return (status.st_mtime_ns // _SECOND_NS,)
    return (status.st_dev, status.st_ino)


def encode_twins(twins: Iterable[Twins]) -> bytes:
    """Encode relations in their order."""
    return encode_fields(
        encode_fields([t.rule.value, *map(encode_fields, t.groups)]) for t in twins
    )


def decode_twins(data: bytes) -> tuple[Twins, ...]:
    """Decode what `encode_twins` wrote.

    Raises:
        IntegrityError: the bytes are not relations.
    """
    found = []
    for field in decode_fields(data):
        rule, *groups = decode_fields(field) or [b""]
        try:
            found.append(Twins(TwinRule(rule), tuple(tuple(decode_fields(g)) for g in groups)))
        except ValueError as error:
            raise IntegrityError("not a relation of files", reason="bad-record") from error
    return tuple(found)
