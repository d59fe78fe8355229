"""The nvcc that `tools/bootstrap.sh nvcc` fetches for the tests."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Final

import pytest

NVCC_VERSION: Final = "13.0.88"


def toolkit() -> Path:
    """Return the directory of the toolkit.

    Skips the test where it is missing, and fails it in CI.
    """
    base = os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache"
    path = Path(base, "hpcc-tests", f"nvcc-{NVCC_VERSION}", "cuda")
    if not (path / "bin" / "nvcc").exists():
        text = "no nvcc: run tools/bootstrap.sh nvcc"
        if os.environ.get("CI") == "true":
            pytest.fail(text)
        pytest.skip(text)
    return path


def linked_toolkit(directory: Path) -> Path:
    """Make a toolkit of links to the other's files, with a profile that can be edited."""
    real = toolkit()
    (directory / "bin").mkdir(parents=True)
    for name in ("nvvm", "include", "lib", "lib64"):
        (directory / name).symlink_to(real / name)
    for path in (real / "bin").iterdir():
        if path.name == "nvcc.profile":
            (directory / "bin" / path.name).write_bytes(path.read_bytes())
        else:
            (directory / "bin" / path.name).symlink_to(path)
    return directory
