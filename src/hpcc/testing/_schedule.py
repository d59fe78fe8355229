"""How tests are dealt to several pytest processes (`-n 2`): what must not meet stays in one."""

from __future__ import annotations

import zlib
from typing import Final

from xdist.scheduler import LoadScopeScheduling

# Guests share images, assets and one emulated machine, and use most of a processor each.
_GUESTS: Final = ("tests/vm/", "tests/e2e/", "tests/chaos/")
# Hundreds of cases that know nothing of each other: dealt in pieces. (Not the scenarios of trust:
# those of one process share one round.)
_LARGE: Final = ("test_grammar_rows.py", "test_share_flag_sets.py")
_PIECES: Final = 8


class Schedule(LoadScopeScheduling):  # type: ignore[misc]  # xdist has no types
    """A file's tests run in one process, in order; the largest share is dealt first."""

    def _split_scope(self, nodeid: str) -> str:
        path = nodeid.partition("::")[0]
        if path.startswith(_GUESTS):
            return "guests"
        if path.endswith(_LARGE):
            return f"{path} {zlib.crc32(nodeid.encode()) % _PIECES}"
        return path
