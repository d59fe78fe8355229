"""Where a stored result must not be put, because a compile would read or write a file twice."""

from __future__ import annotations

import os
from collections.abc import Iterable

from hpcc.cache.key.prepare import Prepared


def overwrites(prepared: Prepared, files: Iterable[tuple[bytes, bytes]]) -> bool:
    """Tell whether an output is one of the inputs, or two outputs are one file."""
    places: set[tuple[int, int] | bytes] = set()
    for path in prepared.outputs:
        try:
            status = os.stat(path)
            place: tuple[int, int] | bytes = (status.st_dev, status.st_ino)
        except OSError:
            place = os.path.realpath(path)
        if place in places:
            return True
        places.add(place)
    names = {os.path.realpath(path) for path in prepared.outputs}
    bases = {name.rpartition(b"/")[2] for name in names}
    for path, _ in files:
        if path.rpartition(b"/")[2] in bases and os.path.realpath(path) in names:
            return True
    return False
