"""What the Windows self-test runs programs with."""

from __future__ import annotations

import asyncio
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Final

_SOURCE: Final = (
    "#include <stddef.h>\nconst char *where = __FILE__;\nint main(void) { return 0; }\n"
)


def new_directory() -> tempfile.TemporaryDirectory[str]:
    """Return a directory to work in; Windows does not remove one that a process still ends in."""
    return tempfile.TemporaryDirectory(prefix="hpcc-self-test-", ignore_cleanup_errors=True)


def make_source(directory: Path) -> Path:
    """Make a directory with a source in it; returns its one name, a short one on no system."""
    directory.mkdir()
    (directory / "a.c").write_text(_SOURCE)
    return directory.resolve()


def read_file(path: Path) -> bytes:
    """Return what a file holds; nothing where there is none."""
    return path.read_bytes() if path.exists() else b""


async def run_program(argv: Sequence[str], directory: Path) -> tuple[int, str]:
    """Run a program to its end and return its status and what it wrote."""
    process = await asyncio.create_subprocess_exec(
        *argv, cwd=directory, stdin=asyncio.subprocess.DEVNULL,
        stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.STDOUT,
    )  # fmt: skip
    try:
        out, _ = await process.communicate()
    finally:
        if process.returncode is None:
            process.kill()
            await process.communicate()
    return process.returncode or 0, out.decode("utf-8", "replace").strip()
