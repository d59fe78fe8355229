"""`verify --roots`: compares all records with the root that the worker signed, and nothing else.

Problem: `verify` checks the signature of each record, a hundred microseconds each. An auditor who
did that yesterday wants to know today that nothing has changed, also of millions of rows.

Rule: the leaves are computed from the segments, and their root is that of the head in `tree.head`,
which the worker signed at its last seal. So each byte of a record and its signature is as it was
then. Of records that retention removed only hashes are left, in the files `tree-0`, `tree-1` ….
A copy can have sealed segments that came after its head: of these each signature is checked.

What must never happen: success although a sealed record was changed, removed or put in.
What is not checked: the signature of each record below the head and their chain, the indexes, why
retention removed records, anchors, and records that are not sealed. `verify` does these.
"""

from __future__ import annotations

import hashlib
import os
from collections.abc import Iterable, Iterator
from contextlib import suppress
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import Final

from hpcc.audit.base.canonical import GENESIS, AuditDamagedError
from hpcc.audit.base.frames import is_signed_by
from hpcc.audit.base.packed import open_segment, signed_bytes_of
from hpcc.audit.base.segments import Seal, open_trail_file, seals, segment_path, spool_path
from hpcc.audit.base.trail import require_trail, walk_segment
from hpcc.audit.tree.head import MAX_CHECKPOINT_BYTES, TreeHead, read_tree_head, start_leaf
from hpcc.audit.tree.kept import KeptHashes
from hpcc.audit.tree.merkle import TreeRange
from hpcc.core import NotFoundError

_HEAD: Final = "tree.head"


@dataclass(frozen=True, slots=True, kw_only=True)
class Roots:
    """The head that was compared: `leaves` with root `root`, signed by `key` (both in hex).

    `removed` of the leaves are of records that retention removed, and are only hashes here. The
    tree begins with record `first`; an earlier version wrote those before. `behind` sealed records
    came after the head, and the signature of each was checked.
    """

    leaves: int
    root: str
    key: str
    first: int
    removed: int
    behind: int


def check_roots(directory: Path) -> Roots:
    """Compute the leaves of a trail and compare their root with the head at the last seal.

    Raises:
        NotFoundError: nothing was recorded in `directory` yet, or nothing is sealed, or it lacks
            the hashes of removed records.
        AuditDamagedError: the records are not those of the head.
    """
    require_trail(directory)
    # Before the seals: a running worker, or one that fills a bucket, adds some.
    found = _read_head(directory)
    sealed = list(seals(directory))
    if not sealed:
        raise NotFoundError(f"no segment of {directory} is sealed yet: use `hpcc audit verify`")
    signed = sealed[-1].signed
    if len({(seal.signed.key, seal.signed.worker) for seal in sealed}) > 1:
        raise AuditDamagedError("the seals are of several keys or workers")
    head = _head(directory / _HEAD, found, signed.worker, signed.key)
    tree, removed = _sealed_tree(directory, sealed, head)
    if tree.size < head.size:  # a crash came between the head and its seal
        renamed = segment_path(directory, sealed[-1].end)
        # Without either the end is missing, and the root is another one.
        with suppress(FileNotFoundError):
            last = renamed if renamed.exists() else spool_path(directory)
            _add(tree, _leaves(last), head.size)
    if tree.size != head.size or tree.root() != head.root:
        raise AuditDamagedError(
            f"{directory}: the records are not those of the head that the worker signed in {_HEAD}:"
            " `hpcc audit verify` says where"
        )
    behind = sum(_check_signed(directory, seal) for seal in sealed if seal.end > head.count)
    return Roots(
        leaves=head.size, root=head.root.hex(), key=signed.key.hex(), first=head.first,
        removed=removed, behind=behind,
    )  # fmt: skip


def _sealed_tree(directory: Path, sealed: list[Seal], head: TreeHead) -> tuple[TreeRange, int]:
    """Return the tree of the sealed records below a head, and how many of them are only hashes."""
    tree, removed = TreeRange(), 0
    tree.append(start_leaf(head.first, _before(sealed, head.first)))
    for seal in sealed:
        if seal.end <= head.first or seal.end > head.count:
            continue
        path, count = segment_path(directory, seal.first), seal.end - seal.first
        try:
            found = _leaves(path, seal.size_bytes)
            added = _add(tree, islice(found, count), head.size)
            # Also behind the head: the last segment must not have a record that no seal covers.
            has_more = next(found, None) is not None
        except FileNotFoundError as error:
            if tree.size != removed + 1:
                raise AuditDamagedError(f"{path} is missing, and earlier ones are not") from error
            removed += count
            tree = KeptHashes(directory, removed + 1).border()
            continue
        if has_more or added != count:
            raise AuditDamagedError(f"{path}: it has more or fewer records than its seal")
    return tree, removed


def _check_signed(directory: Path, seal: Seal) -> int:
    """Check each record of a segment that a head does not cover; return how many it has."""
    path, count = segment_path(directory, seal.first), 0
    try:
        for placed in walk_segment(directory, seal):
            count += 1
            if not is_signed_by(placed.record, seal.signed.key):
                raise AuditDamagedError(
                    f"{path}: record {placed.record.sequence} has a wrong signature"
                )
    except FileNotFoundError as error:
        raise AuditDamagedError(
            f"{path} is missing, and {_HEAD} is older: copy {_HEAD} again"
        ) from error
    return count


def _read_head(directory: Path) -> bytes:
    path = directory / _HEAD
    try:
        with open_trail_file(path) as file:
            return file.read(MAX_CHECKPOINT_BYTES + 1)
    except FileNotFoundError as error:
        raise AuditDamagedError(
            f"{path} is missing: copy it as well. A bucket that only an earlier version of hpcc"
            " filled does not have it: compare what you copied with `hpcc audit verify`"
        ) from error


def _head(path: Path, found: bytes, worker: str, key: bytes) -> TreeHead:
    try:
        return read_tree_head(worker, found, key)
    except AuditDamagedError as error:
        raise AuditDamagedError(f"{path}: {error}") from error


def _before(sealed: list[Seal], first: int) -> str:
    """Return the hash of the record before the one that is the second leaf."""
    if not first:
        return GENESIS
    found = [seal.signed.head for seal in sealed if seal.end == first]
    if not found:
        raise AuditDamagedError(f"the tree begins at record {first}, and no segment ends there")
    return found[0]


def _leaves(path: Path, size: int | None = None) -> Iterator[bytes]:
    """Yield the leaves of a segment, whose frames have `size` bytes if it is sealed."""
    sha256 = hashlib.sha256
    with open_segment(path) as file:
        if size is not None and file.seek(0, os.SEEK_END) != size:
            raise AuditDamagedError(f"{path}: the segment has another size than its seal")
        file.seek(0)
        try:
            for data, signature in signed_bytes_of(file):
                yield sha256(b"\0" + data + signature).digest()
        except AuditDamagedError as error:
            raise AuditDamagedError(f"{path}: {error}") from error


def _add(tree: TreeRange, leaves: Iterable[bytes], most: int) -> int:
    """Add leaves up to a size of the tree; return how many."""
    before, append = tree.size, tree.append
    for leaf in leaves:
        if tree.size == most:
            break
        append(leaf)
    return tree.size - before
