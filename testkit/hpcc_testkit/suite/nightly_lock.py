"""Reads and writes `tests/nightly.lock`: the hash of each item at its last green nightly.

Sorted text, one item a line: the hash, a space, the test's node id. A file with one wrong line
counts as a file without any, because a merge conflict may have mixed two trees' hashes.
"""

from __future__ import annotations

import re
from collections.abc import Collection, Mapping
from typing import Final

_LINE: Final = re.compile(r"([0-9a-f]{16,64}) (\S.*)")


class LockError(ValueError):
    """A line of the lock file is wrong. The message names the line's number."""


def parse(text: str) -> dict[str, str]:
    """Return the hashes by node id.

    Raises:
        LockError: a line is not a hash and an id, or an id occurs twice.
    """
    known: dict[str, str] = {}
    # Split at line feeds only: an id may contain other characters that `splitlines` splits at.
    for number, line in enumerate(text.removesuffix("\n").split("\n") if text else [], start=1):
        match = _LINE.fullmatch(line)
        if match is None:
            raise LockError(f"line {number} is not a hash and a test's id: {line[:80]!r}")
        digest, node_id = match.groups()
        if node_id in known:
            raise LockError(f"line {number} names a test again: {node_id}")
        known[node_id] = digest
    return known


def render(known: Mapping[str, str]) -> str:
    """Return the file's text, sorted by node id so that diffs show what moved."""
    return "".join(f"{known[node_id]} {node_id}\n" for node_id in sorted(known))


def merge(
    known: Mapping[str, str], green: Mapping[str, str], existing: Collection[str]
) -> dict[str, str]:
    """Return `known` with the hashes of items that were green, without items that do not exist."""
    both = {**known, **green}
    return {node_id: both[node_id] for node_id in both if node_id in existing}
