"""Packages of this tree, built by its tools from one wheel."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final

ROOT: Final = Path(__file__).resolve().parents[3]
EPOCH: Final = 1_800_000_000
SMALL: Final = ("hpcc", "hpcc-scheduler", "hpcc-gateway", "hpcc-worker")
"""The packages without libraries; the others contain 200 MB."""
ALL: Final = ("hpcc-client", "hpcc-farm", *SMALL)


@dataclass(frozen=True, slots=True)
class Builder:
    """Builds packages of the tree at `root`."""

    wheel: Path
    root: Path = ROOT

    def build(self, out: Path, kind: str, names: Sequence[str], *, revision: int = 1) -> list[Path]:
        """Build the named packages of one kind into `out`; return their files in this order."""
        words = [word for name in names for word in ("--package", name)]
        env = {**os.environ, "PYTHONPATH": str(ROOT / "tools"), "PYTHONDONTWRITEBYTECODE": "1"}
        done = subprocess.run(
            [
                sys.executable, "-m", "packages", "build", "--root", self.root, "--wheel",
                self.wheel, "--out", out, "--kind", kind, *words, "--revision", str(revision),
                "--epoch", str(EPOCH),
            ],
            env=env, capture_output=True, text=True, timeout=600, check=False,
        )  # fmt: skip
        assert done.returncode == 0, done.stdout + done.stderr
        full = f"{self.wheel.name.split('-')[1]}-{revision}"
        mark = f"_{full}_*.deb" if kind == "deb" else f"-{full}.*.rpm"
        return [next(out.glob(f"{name}{mark}")) for name in names]

    def with_file(self, directory: Path, name: str, content: str) -> Builder:
        """Return a builder of a tree in which one file differs."""
        for part in ("CHANGELOG.md", "LICENSE", "pyproject.toml", "requirements.lock"):
            shutil.copy(self.root / part, directory / part)
        for part in ("deploy", "docs/man", "tools/release"):
            shutil.copytree(self.root / part, directory / part)
        (directory / name).write_text(content)
        return Builder(self.wheel, directory)


def built_wheel(directory: Path) -> Path:
    """Build the wheel of this tree."""
    command = [sys.executable, "-m", "hatchling", "build", "-t", "wheel", "-d", str(directory)]
    subprocess.run(command, cwd=ROOT, check=True, capture_output=True, timeout=600)
    return next(directory.glob("*.whl"))
