"""Texts that no log may hold: secrets that tests give to services, command lines, paths, sources.

A test plants a text where hpcc reads it. After each test its captured logs are searched for all
texts that were planted so far, and so are the logs of the processes of a farm when it ends.
"""

from __future__ import annotations

import secrets
from collections import deque
from collections.abc import Iterable
from pathlib import Path
from typing import Final

# Enough for the farms of many tests; the oldest go first.
_MAX_PLANTED: Final = 512
# A short text may be in a log by chance.
_LEAST_CHARS: Final = 16
_planted: deque[str] = deque(maxlen=_MAX_PLANTED)


def plant(text: str) -> str:
    """Note a text that no log may hold; return it."""
    assert len(text) >= _LEAST_CHARS, "too short to be searched for"
    if text not in _planted:
        _planted.append(text)
    return text


def canary(what: str) -> str:
    """Plant a new text; `what` says in its name where it is given to hpcc."""
    return plant(f"canary-{what}-{secrets.token_hex(12)}")


def leaked(text: str, more: Iterable[str] = ()) -> list[str]:
    """Return what a log holds of the planted texts, and of some more."""
    return [one for one in (*_planted, *more) if one in text]


def check_logs(directory: Path, more: Iterable[str] = ()) -> None:
    """Check the files of logs below a directory."""
    wanted = tuple(more)
    for log in directory.rglob("*.log"):
        found = leaked(log.read_text(encoding="utf-8", errors="replace"), wanted)
        assert not found, f"{log.name} holds what no log may hold: {found}"
