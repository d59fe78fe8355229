"""Compiles that launchers did without the daemon's knowledge: nobody listened, or no answer came.

Each leaves one byte in a small file of the run directory (`enum fallback` in launcher/wire.h),
which is looked at when somebody asks for the counts. Beyond 64 KiB launchers leave no more.
"""

from __future__ import annotations

import contextlib
import functools
import operator
import os
import threading
from collections import Counter
from typing import Final

FALLBACKS_NAME: Final = "fallbacks"
MAX_FALLBACKS_BYTES: Final = 1 << 16
_PREFIX: Final = "launcher."
# Those that Windows has none of are of no use there: its directory is the user's own.
_NAMES: Final = ("O_RDONLY", "O_NOFOLLOW", "O_NONBLOCK", "O_CLOEXEC", "O_BINARY", "O_NOINHERIT")
_FLAGS: Final = functools.reduce(operator.or_, (getattr(os, name, 0) for name in _NAMES))
_REASONS: Final = {
    ord("n"): "no-daemon",
    ord("b"): "daemon-left-alone",
    ord("s"): "silent-daemon",
    ord("l"): "lost-daemon",
    ord("v"): "other-version",
    ord("r"): "long-request",
}


def read_fallbacks(run_directory: str) -> dict[str, int]:
    """Return the counts, `launcher.<reason>`; they stay where they are."""
    return _read(os.path.join(run_directory, FALLBACKS_NAME))


def take_fallbacks(run_directory: str) -> dict[str, int]:
    """Return the counts and forget them: each is returned once."""
    path = os.path.join(run_directory, FALLBACKS_NAME)
    aside = f"{path}.{os.getpid()}.{threading.get_ident()}"
    try:
        os.rename(path, aside)
    except OSError:
        return {}
    counts = _read(aside)
    with contextlib.suppress(OSError):
        os.unlink(aside)
    return counts


def _read(path: str) -> dict[str, int]:
    try:
        fd = os.open(path, _FLAGS)
        try:
            marks = os.read(fd, MAX_FALLBACKS_BYTES)
        finally:
            os.close(fd)
    except OSError:
        return {}
    counts = Counter(_REASONS.get(mark, "unknown") for mark in marks)
    return {_PREFIX + reason: count for reason, count in counts.items()}
