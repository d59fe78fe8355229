"""Limits of what a peer may send, and the error that every parser here raises."""

from __future__ import annotations

from typing import Final

from hpcc.core import CallerError

# A directory of 10,000 headers with 40-character names takes about 1.2 MiB.
MAX_DIRECTORY_BYTES: Final = 4 << 20
MAX_DIRECTORIES: Final = 20_000
MAX_TREE_DEPTH: Final = 64
# Limits of a whole tree: the bytes of its directories, each counted once, and of its files' paths
# from the root. A real project with 100,000 files has about 15 MB of each.
MAX_TREE_BYTES: Final = 64 << 20
MAX_TREE_PATH_BYTES: Final = 32 << 20
MAX_COMMAND_BYTES: Final = 4 << 20
MAX_ACTION_BYTES: Final = 16 << 10
MAX_RESULT_BYTES: Final = 16 << 20
MAX_ENV: Final = 1024
MAX_PROPERTIES: Final = 32


class ReapiError(CallerError):
    """Bytes are not a valid REAPI message, or break a limit of hpcc."""

    default_reason = "bad-reapi-message"
