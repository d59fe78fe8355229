"""Runs the programs of the Windows self-test."""

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
    """Return a temporary directory. Windows may refuse to remove it while a process ends in it."""
    return tempfile.TemporaryDirectory(prefix="hpcc-self-test-", ignore_cleanup_errors=True)


def make_source(directory: Path) -> Path:
    """Create a directory with a source; returns its canonical path, without Windows short names."""
    directory.mkdir()
    (directory / "a.c").write_text(_SOURCE)
    return directory.resolve()


def read_file(path: Path) -> bytes:
    """Return a file's content; b"" if it does not exist."""
    return path.read_bytes() if path.exists() else b""


async def run_program(argv: Sequence[str], directory: Path) -> tuple[int, str]:
    """Run a program to its end; returns its exit status and its output as text."""
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
