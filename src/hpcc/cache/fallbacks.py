"""Counts compiles that launchers ran without the daemon, because it was absent or did not answer.

For each, the launcher appends one byte to a small file in the run directory (`enum fallback` in
launcher/wire.h). The file is read when the counts are requested. Launchers stop at 64 KiB.
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
# Windows does not define some of them and does not need them: the directory is the user's own.
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
    """Return the counts by name, `launcher.<reason>`, and leave the file as it is."""
    return _read(os.path.join(run_directory, FALLBACKS_NAME))


def take_fallbacks(run_directory: str) -> dict[str, int]:
    """Return the counts by name and remove the file, so that each is returned once."""
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
