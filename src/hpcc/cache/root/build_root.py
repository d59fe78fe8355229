"""The root by which compiles without a named build are grouped; see `build_identity`."""

from __future__ import annotations

import os
import posixpath

from hpcc.cache.base.levels import levels_above
from hpcc.cache.key.marker import search_marker
from hpcc.cache.root.build_data import NAMES as BUILD_DATA
from hpcc.cache.root.project_root import CONTROLS


def build_root(cwd: bytes, home: bytes) -> bytes:
    """Return the directory whose compiles are one build: a project's root, found from `cwd` only.

    In this order: a marker's root, the nearest directory under version control, the nearest with
    build data of CMake, else `cwd`. The owner does not matter, unlike in `project_root`: no file is
    sent because of this.
    """
    marker = search_marker(cwd, home).marker
    if marker is not None:
        return marker.root
    levels = tuple(levels_above(cwd, home))
    for names in (tuple(way.encode() for way in CONTROLS), BUILD_DATA):
        for directory in levels:
            if directory != home and _has_any(directory, names):
                return directory
    return cwd


def _has_any(directory: bytes, names: tuple[bytes, ...]) -> bool:
    return any(os.path.lexists(posixpath.join(directory, name)) for name in names)
