"""How many examples a Hypothesis test tries: a fixed number, or many more in a soak.

`HPCC_HYPOTHESIS` chooses the profile that tests/conftest.py registers:

- `ci`, the default: the same examples in every run, so that a run is never red by chance.
- `soak`: random examples, `SOAK_FACTOR` times as many. `tools/fuzz.sh` and the nightly use it.

A profile cannot scale `@settings(max_examples=…)` of one test, so tests write `examples(…)` there.
"""

from __future__ import annotations

import os
from typing import Final

VARIABLE: Final = "HPCC_HYPOTHESIS"
PROFILES: Final = ("ci", "soak")
SOAK_FACTOR: Final = 10


def profile_name() -> str:
    """Return the profile that the environment asks for.

    Raises:
        ValueError: it names no profile.
    """
    name = os.environ.get(VARIABLE, PROFILES[0])
    if name not in PROFILES:
        raise ValueError(f"{VARIABLE}={name}: choose one of {', '.join(PROFILES)}")
    return name


def examples(count: int) -> int:
    """Return how many examples to try where a `ci` run tries `count`."""
    return count * SOAK_FACTOR if profile_name() == "soak" else count
