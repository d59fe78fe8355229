"""Who owns a file, and who else may open it."""

from __future__ import annotations

from typing import NamedTuple


class FileAccess(NamedTuple):
    """Whether an open file is an ordinary file, this user's, and closed to everyone else."""

    is_regular: bool
    is_own: bool
    is_private: bool
