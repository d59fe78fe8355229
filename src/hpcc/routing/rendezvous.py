"""Rendezvous hashing: all who know the same names choose the same one for a key.

Each name gets a weight by a hash of name and key, and the highest weight wins ("highest random
weight", Thaler and Ravishankar, 1998). When a name joins or leaves n others, one key in n + 1
moves, and no other.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable


def rendezvous(key: str, names: Iterable[str]) -> str:
    """Return the name at which `key` meets; "" if there are no names. Their order is irrelevant."""
    return max(names, key=lambda name: (_weight(key, name), name), default="")


def _weight(key: str, name: str) -> bytes:
    return hashlib.sha256(f"{name}\0{key}".encode()).digest()
