"""The Clang 22 that `tools/bootstrap.sh clang-22` unpacks for the tests.

Every program of it ends in `-22`, so its directory can stand last on each `PATH`. Its tests are
for the nightly: they ask again what tests of every run ask of Clang 19.
"""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any, Final

import pytest

NEWEST_MAJOR: Final = 22
_ROOM: Final = Path(
    os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache",
    "hpcc-tests",
    f"clang-{NEWEST_MAJOR}",
)


def newest_programs() -> str:
    """Return the directory of its programs, which need not exist."""
    return str(_ROOM / "usr/bin")


def with_newest(path: str) -> str:
    """Return a search path with that directory behind the others, if it exists."""
    own = newest_programs()
    parts = path.split(":")
    return ":".join((*parts, own)) if own not in parts and Path(own).is_dir() else path


def newest(name: str, *values: object) -> Any:  # noqa: ANN401 - ParameterSet has no public name
    """Return a parameter for the nightly: a program of Clang 22, and further values.

    It is skipped where the program is missing, but in CI only if the distribution lacks it.
    """
    marks = [pytest.mark.nightly]
    is_excused = os.environ.get("CI") != "true" or (_ROOM / "not-packaged").exists()
    if is_excused and not Path(newest_programs(), name).exists():
        marks.append(pytest.mark.skip(reason=f"no clang-{NEWEST_MAJOR} here"))
    return pytest.param(name, *values, marks=marks)
