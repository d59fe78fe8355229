"""Long lists of cases of which one run takes every n-th, and many runs take all.

The seed is HPCC_SEED, or the number of the day, so the runs of n days in a row cover the whole
list. The end of a run names the seed, and HPCC_SEED repeats it. HPCC_ALL_POINTS=1, which
`make soak` sets, takes all cases.
"""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from typing import Final

SEED_VARIABLE: Final = "HPCC_SEED"
ALL_VARIABLE: Final = "HPCC_ALL_POINTS"


def seed_of(environ: Mapping[str, str]) -> int:
    """Return the seed from the environment, else the number of today's day.

    Raises:
        ValueError: HPCC_SEED is not a number.
    """
    text = environ.get(SEED_VARIABLE, "")
    return int(text) if text else datetime.now(UTC).toordinal()


def stride_of(environ: Mapping[str, str], nth: int) -> tuple[int, int]:
    """Return the first index to take and the distance to the next one."""
    step = 1 if environ.get(ALL_VARIABLE) == "1" else nth
    return seed_of(environ) % step, step


def every_nth[T](items: Sequence[T], nth: int) -> Sequence[T]:
    """Return every n-th item, beginning where the seed says; at least one if there are any."""
    start, step = stride_of(os.environ, min(nth, max(1, len(items))))
    return items[start::step]
