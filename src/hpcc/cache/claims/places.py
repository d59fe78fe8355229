"""Where records of local compiles and their key are."""

from __future__ import annotations

from pathlib import Path
from typing import Final

from hpcc.cache.recorder.places import Limits
from hpcc.config.paths import Paths

DIRECTORY_NAME: Final = "locals"
# What stands for all builds in the names of the files: a file has compiles of several.
BOOK: Final = "local compiles"
LIMITS: Final = Limits(total_bytes=16 << 20)


def key_path(paths: Paths) -> Path:
    """Return the path of the key that signs records of local compiles."""
    return paths.state / "evidence" / "local.key"


def public_path(paths: Paths) -> Path:
    """Return the path of its public half, in PEM."""
    return paths.state / "evidence" / "local.key.pub"
