"""Files of one content that a compiler may or may not recognise as one file.

With `#pragma once` the compiler reads the second of them only if it takes them for two. So beside
their content their relation is an input: it is noted when a result is stored and compared at each
look-up. A touched file, a new hard link or a fresh clone can change it.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable
from typing import Final, NamedTuple

from hpcc.cache.base.fields import decode_fields, encode_fields
from hpcc.compilers.scan.twins import TwinRule
from hpcc.core import IntegrityError

_SECOND_NS: Final = 1_000_000_000


class Twins(NamedTuple):
    """Paths of one content. Those in one of `groups` are one file under `rule`, others are not.

    Under `TwinRule.PLACE` each group is a path alone, behind the text of its device and inode.
    """

    rule: TwinRule
    groups: tuple[tuple[bytes, ...], ...]

    @property
    def paths(self) -> tuple[bytes, ...]:
        start = 1 if self.rule is TwinRule.PLACE else 0
        return tuple(path for group in self.groups for path in group[start:])

    def renamed(self, rename: Callable[[bytes], bytes]) -> Twins:
        """Return the same relation of other paths."""
        if self.rule is TwinRule.PLACE:
            places = ((place, rename(path)) for place, path in self.groups)
            return Twins(self.rule, tuple(sorted(places, key=lambda group: group[1])))
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
    groups: dict[tuple[int, ...], list[bytes]] = {}
    for path in sorted(paths):
        groups.setdefault(_identity(rule, os.stat(path)), []).append(path)
    return Twins(rule, tuple(sorted(map(tuple, groups.values()))))


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
