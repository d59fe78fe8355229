"""The program that the guest contract runs: static, so it works in an otherwise empty image."""

from __future__ import annotations

import shutil
import subprocess
from pathlib import Path
from typing import Final

_SOURCE: Final = Path(__file__).with_suffix(".c")


def build_program(directory: Path) -> Path:
    """Compile the program; returns its path."""
    compiler = shutil.which("musl-gcc") or shutil.which("cc") or "cc"
    target = directory / "probe"
    subprocess.run(
        [compiler, "-static", "-Os", "-s", "-w", "-o", str(target), str(_SOURCE)], check=True
    )
    return target


def build_scratch_image(directory: Path) -> Path:
    """Make an image that holds the program as /probe and nothing else."""
    root = directory / "root"
    root.mkdir()
    shutil.copy(build_program(directory), root / "probe")
    image = directory / "scratch.erofs"
    subprocess.run(
        ["mkfs.erofs", "--quiet", "-T0", "--all-root", str(image), str(root)],
        check=True,
    )
    return image
