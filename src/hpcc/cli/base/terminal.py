"""Prints for a terminal what may hold text from files, images and services."""

from __future__ import annotations

from typing import TextIO

from hpcc.obs.text import plain


def emit(*parts: object, end: str = "\n", file: TextIO | None = None, flush: bool = False) -> None:
    """Print `plain` texts, as `print` does. Each command of hpcc prints with this function."""
    print(*map(plain, parts), end=end, file=file, flush=flush)
