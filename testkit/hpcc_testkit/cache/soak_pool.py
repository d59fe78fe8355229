"""The compilers and generated programs that the soak draws from.

`find_compilers` and `generate_programs` fill a `Pool`.
"""

from __future__ import annotations

import shutil
import subprocess
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True, slots=True)
class Pool:
    """The pool of the soak's trees: compilers of this machine and generated programs."""

    c: tuple[str, ...]
    cxx: tuple[str, ...]
    programs: tuple[str, ...]


def find_compilers(names: Sequence[str]) -> tuple[str, ...]:
    """Return the names that are on this machine's PATH."""
    return tuple(name for name in names if shutil.which(name))


def generate_programs(directory: Path, *, seed: int, count: int) -> tuple[str, ...]:
    """Generate small C programs with csmith; returns () if csmith is not installed."""
    if not shutil.which("csmith"):
        return ()
    directory.mkdir(parents=True, exist_ok=True)
    limits = ["--max-funcs", "2", "--max-block-size", "2", "--max-expr-complexity", "3"]
    programs = []
    for number in range(count):
        ended = subprocess.run(
            ["csmith", "--seed", str(seed % 10**6 + number), *limits],
            cwd=directory,  # it leaves a platform.info behind
            capture_output=True,
            text=True,
            check=True,
            timeout=60,
        )
        programs.append(ended.stdout)
    return tuple(programs)
