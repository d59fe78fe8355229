"""Reads records of local compiles; each statement counts only under this user's key."""

from __future__ import annotations

import os
from typing import Final, NamedTuple

from hpcc.cache.claims.places import DIRECTORY_NAME, public_path
from hpcc.cache.recorder.places import find_parts
from hpcc.config.paths import Paths
from hpcc.core import IntegrityError
from hpcc.evidence.keys import MAX_KEYS_BYTES, parse_pinned
from hpcc.evidence.local_record import LocalCompile, read_local_line

# A file is closed when it is full, after the statement that filled it.
_MAX_READ: Final = 16 << 20


class LocalRecords(NamedTuple):
    """Compiles by the digest of their object, the last of each; and how many files are damaged."""

    compiles: dict[str, LocalCompile]
    damaged: int


def read_local_records(paths: Paths) -> LocalRecords:
    """Return what this user's daemon recorded; nothing without a key.

    A file with anything else than good statements of this key counts as damaged, from there on.

    Raises:
        CallerError: the public key is none.
    """
    compiles: dict[str, LocalCompile] = {}
    data = _content(os.fspath(public_path(paths)), MAX_KEYS_BYTES)
    if not data:
        return LocalRecords(compiles, 0)
    (key,) = parse_pinned(data, os.fspath(public_path(paths))).makers[:1]
    directory, damaged = os.path.join(paths.cache, DIRECTORY_NAME), 0
    for part in find_parts(directory):
        content = _content(os.path.join(directory, part.name), _MAX_READ)
        try:
            for line in content.splitlines():
                compiles |= {one.digest: one for one in read_local_line(line, key)}
        except IntegrityError:
            damaged += 1
    return LocalRecords(compiles, damaged)


def _content(path: str, most: int) -> bytes:
    """Return a file's bytes, at most so many; empty if it cannot be opened."""
    try:
        fd = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC)
    except OSError:
        return b""
    with open(fd, "rb") as file:
        return file.read(most)
