"""The guests' C programs: in `guest/` of a source tree, beside the package in a wheel."""

from __future__ import annotations

from pathlib import Path
from typing import Final

import hpcc

_IN_A_WHEEL: Final = Path(hpcc.__file__).parent / "runtime" / "_guest"
_SOURCES: Final = Path(hpcc.__file__).parents[1]


def guest_program(name: str) -> Path:
    """Return the path of a program's source or binary in `guest/`, whether or not it exists.

    Only a source tree has `src/hpcc`. Beside the `site-packages` of an installed copy there may be
    a directory `guest` that anybody can write to, so it is never looked at.
    """
    packaged = _IN_A_WHEEL / name
    if _SOURCES.name != "src" or packaged.exists():
        return packaged
    return _SOURCES.parent / "guest" / name
