"""Whose a file is, and who else may open it."""

from __future__ import annotations

from typing import NamedTuple


class FileAccess(NamedTuple):
    """What an open file is: ordinary, this user's, closed to everyone else."""

    is_regular: bool
    is_own: bool
    is_private: bool
