"""The guests' C programs: in `guest/` of a source tree, beside the package in a wheel."""

from __future__ import annotations

from pathlib import Path
from typing import Final

import hpcc

_IN_A_WHEEL: Final = Path(hpcc.__file__).parent / "runtime" / "_guest"
_IN_A_SOURCE_TREE: Final = Path(hpcc.__file__).parents[2] / "guest"


def guest_program(name: str) -> Path:
    """Return the path of a program's source or binary in `guest/`, whether or not it exists."""
    packaged = _IN_A_WHEEL / name
    source = _IN_A_SOURCE_TREE / name
    return source if source.exists() and not packaged.exists() else packaged
