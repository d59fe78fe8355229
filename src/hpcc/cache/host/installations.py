"""Finds the installations of GCC and libc++ that Clang can choose from.

Clang looks for them below some roots and names only what exists. One that appears later can change
what it chooses, so what is below the roots is a part of its identity.
"""

from __future__ import annotations

import os
import posixpath
import re
from typing import Final

from hpcc.cache.base.files import FileMemo
from hpcc.cache.base.trees import look_at_tree
from hpcc.cache.host.evidence import directories_in

_CANDIDATE: Final = re.compile(rb"^Found candidate GCC installation: (/.*)$", re.MULTILINE)
_INSTALLED: Final = re.compile(rb"^InstalledDir: (/.*)$", re.MULTILINE)


def candidates(memo: FileMemo, about: bytes) -> tuple[tuple[bytes, frozenset[bytes]], ...] | None:
    """Return the directories in which Clang found GCC installations, with their listings.

    `about` is its answer to `-v`. None if a directory cannot be read.
    """
    listings = []
    for parent in {m[1].rpartition(b"/")[0] for m in _CANDIDATE.finditer(about)}:
        names = directories_in(memo, parent)
        if names is None:
            return None
        listings.append((parent, names))
    return tuple(listings)


def trees_searched(compiler: bytes, about: bytes) -> tuple[tuple[bytes, bytes], ...]:
    """Return where Clang looks for installations without a flag for it, with digests."""
    places = [posixpath.dirname(os.path.realpath(compiler)), *_INSTALLED.findall(about)]
    roots = dict.fromkeys((b"/", *(posixpath.dirname(place) for place in places)))
    return tuple((root, look_at_tree(root).digest) for root in roots)
