"""Distributes tests to several pytest processes (`-n 2`); tests that must not overlap share one.

`Schedule` is the xdist scheduler; tests/conftest.py installs it.
"""

from __future__ import annotations

import zlib
from collections import Counter
from collections.abc import Sequence
from typing import Final

from xdist.scheduler import LoadScopeScheduling

# Each guest uses most of a processor, so guests run in two shares and not in one per file. The
# shares may run side by side: images and assets are made under locks, each `Machine` has a private
# directory, and only `tests/vm` starts the emulated machine.
_GUESTS: Final = ("tests/e2e/", "tests/vm/")
# Hundreds of independent cases, distributed in pieces. (Not the trust scenarios, because those of
# one process share one round.)
_LARGE: Final = ("test_grammar_rows.py", "test_share_flag_sets.py")
_PIECES: Final = 8
# Each case runs a separate pytest.
_MUTATION: Final = "tests/mutation/"


class Schedule(LoadScopeScheduling):  # type: ignore[misc]  # xdist has no types
    """A file's tests run in one process, in order."""

    def _split_scope(self, nodeid: str) -> str:
        return _share(nodeid)


def dealt(nodeids: Sequence[str]) -> list[int]:
    """Return the order in which tests are distributed, as indices.

    The shares that take longest start first, so that no process runs one of them at the end while
    the others are idle.
    """
    shares = [_share(n) for n in nodeids]
    sizes = Counter(shares)

    def rank(index: int) -> tuple[bool, bool, int, str]:
        share = shares[index]
        is_slow = share.startswith(_MUTATION)
        return share not in _GUESTS, not is_slow, -sizes[share], share

    return sorted(range(len(shares)), key=rank)


def _share(nodeid: str) -> str:
    path = nodeid.partition("::")[0]
    for share in _GUESTS:
        if path.startswith(share):
            return share
    if path.endswith(_LARGE):
        return f"{path} {zlib.crc32(nodeid.encode()) % _PIECES}"
    return path
