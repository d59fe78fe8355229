"""Finds files of one content that the compiler may take for one file.

Without this, a header that the compiler opened, recognised and skipped would be in no list, and an
edit of it would go unnoticed.
"""

from __future__ import annotations

import os
import re
from collections.abc import Iterable, Mapping
from dataclasses import replace
from typing import Final, NamedTuple

from hpcc.cache.base.files import FileMemo
from hpcc.cache.base.twins import Twins, existing_directories, look_at_twins
from hpcc.cache.base.uncacheable import UncacheableError
from hpcc.cache.inputs.closure_types import Closure
from hpcc.compilers.scan.twins import TwinRule
from hpcc.core.reasons.uncacheable import UncacheableReason

_REGION: Final = b"__omp_offloading_"
_PLACE: Final = re.compile(re.escape(_REGION) + rb"([0-9a-f]+_[0-9a-f]+)_")
# The name of a static variable for targets holds only the inode.
_REFERENCE: Final = b"_decl_tgt_ref_ptr"


class FoundTwins(NamedTuple):
    """The relations to keep, and (path, digest) of the twins that the compiler did not read."""

    relations: tuple[Twins, ...] = ()
    unread: tuple[tuple[bytes, bytes], ...] = ()


def find_twins(
    memo: FileMemo,
    files: Iterable[tuple[bytes, bytes]],
    existing: Mapping[bytes, os.stat_result],
    rule: TwinRule | None,
    *,
    may_all_be_once: bool,
) -> FoundTwins:
    """Return the twins among the (path, SHA-256) files that were read and those that exist.

    `may_all_be_once`: a file may be read once without a word of it in its own text.

    Raises:
        UncacheableError: there are twins, and it is unknown how the compiler tells them apart.
    """
    read, unread = _of_one_content(memo, files, existing)
    relations: list[Twins] = []
    more: list[tuple[bytes, bytes]] = []
    for digest, paths in read.items():
        others = unread.get(digest, [])
        if len(paths) + len(others) == 1:
            continue
        if may_all_be_once or memo.may_be_read_once(paths[0], digest) is not False:
            more += [(path, digest) for path in others]
            paths = [*paths, *others]  # noqa: PLW2901 - completed
        elif rule is not TwinRule.INODE:
            continue  # Clang prints one name for both, whatever their text is
        if len(paths) > 1 and not _are_one(paths, rule):
            relations.append(_look(rule, paths))
    return FoundTwins(tuple(relations), tuple(more))


def _of_one_content(
    memo: FileMemo, files: Iterable[tuple[bytes, bytes]], existing: Mapping[bytes, os.stat_result]
) -> tuple[dict[bytes, list[bytes]], dict[bytes, list[bytes]]]:
    """Return by digest the files that were read, and those that only exist, if there may be two."""
    # Called for each compile that is stored; nearly all files have no twin.
    first: dict[bytes, bytes] = {}
    read: dict[bytes, list[bytes]] = {}
    for path, digest in files:
        other = first.setdefault(digest, path)
        if other is not path:
            read.setdefault(digest, [other]).append(path)
    unread: dict[bytes, list[bytes]] = {}
    for path, status in existing.items():
        found = memo.digest_at(path, status)
        if found is not None and found in first:
            paths = read.setdefault(found, [first[found]])
            if path not in paths:
                unread.setdefault(found, []).append(path)
    return read, unread


def _look(rule: TwinRule | None, paths: list[bytes]) -> Twins:
    if rule is None:
        raise UncacheableError(UncacheableReason.TWIN_HEADERS)
    try:
        return look_at_twins(rule, paths)
    except OSError as error:
        raise UncacheableError(UncacheableReason.INPUT_VANISHED) from error


def _are_one(paths: Iterable[bytes], rule: TwinRule | None) -> bool:
    """Tell whether these are names of one file that no link can lead elsewhere.

    A link in place of a directory before `..` can, later or in another checkout. A relation without
    a `rule` cannot be compared; there, results stay in their checkout.
    """
    if rule is not None and any(b"/../" in path for path in paths):
        return False
    real = {os.path.realpath(path) for path in paths}
    return len(real) == 1 and all(os.path.normpath(path) in real for path in paths)


def links_to(paths: tuple[bytes, ...]) -> tuple[Twins, ...]:
    """Make it an input where these names lead.

    Raises:
        UncacheableError: one of them vanished.
    """
    return (_look(TwinRule.LINK, list(paths)),) if paths else ()


def with_directories(closure: Closure, directories: Iterable[bytes]) -> Closure:
    """Make it an input which of these absolute search directories are one, or are missing."""
    paths = dict.fromkeys(d.rstrip(b"/") or b"/" for d in directories)
    relation = look_at_twins(TwinRule.DIRECTORY, paths)
    return replace(closure, twins=(*closure.twins, relation)) if paths else closure


def with_trees(closure: Closure, roots: Iterable[bytes]) -> Closure:
    """Make it an input what Clang finds below these absolute directories."""
    relation = look_at_twins(TwinRule.TREE, {root.rstrip(b"/") for root in roots})
    return replace(closure, twins=(*closure.twins, relation)) if relation.groups else closure


def paths_passed(closure: Closure) -> tuple[bytes, ...]:
    """Return the absolute paths whose ways must be the same as before the compile."""
    return (
        *(path for path, _ in closure.files),
        *closure.existing,
        *(absence.directory for absence in closure.absences),
        *existing_directories(closure.twins),
    )


def names_a_place(data: bytes) -> bool:
    """Tell whether an object holds the device and inode of a source, as Clang's OpenMP makes it.

    The name of a target region is made of them (clang, CGOpenMPRuntime.cpp), so that equal regions
    of two files do not clash.
    """
    return _REGION in data or _REFERENCE in data


def with_places(closure: Closure, data: bytes) -> Closure:
    """Make device and inode of the sources an input if the object `data` holds them.

    Raises:
        UncacheableError: it holds those of a file that is not among the inputs.
    """
    if not names_a_place(data):
        return closure
    wanted = {match[1] for match in _PLACE.finditer(data)}
    try:
        every = look_at_twins(TwinRule.PLACE, (path for path, _ in closure.files))
        if _REFERENCE not in data:  # else any of them
            paths = [path for place, path in every.groups if place in wanted]
            every = look_at_twins(TwinRule.PLACE, paths)
    except OSError as error:
        raise UncacheableError(UncacheableReason.INPUT_VANISHED) from error
    if not wanted <= {place for place, _ in every.groups}:
        raise UncacheableError(UncacheableReason.OPENMP_TARGET)
    return replace(closure, twins=(*closure.twins, every))
