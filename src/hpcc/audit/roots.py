"""`verify --roots`: compares all records with the root that the worker signed, and nothing else.

Problem: `verify` checks the signature of each record, a hundred microseconds each. An auditor who
did that yesterday wants to know today that nothing has changed, also of millions of rows.

Rule: the leaves are computed from the segments, and their root is that of the head in `tree.head`,
which the worker signed at its last seal. So each byte of a record and its signature is as it was
then. The hashes of records that retention removed are those of the file `tree-0`.

What must never happen: success although a record below the head was changed, removed or put in.
What is not checked: the signature of each record, the chain, the indexes, what retention removed
and why, anchors, and the records after the head. `verify` does these.
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
from hpcc.audit.base.packed import open_segment, signed_bytes_of
from hpcc.audit.base.segments import Seal, open_trail_file, seals, segment_path, spool_path
from hpcc.audit.base.trail import require_trail
from hpcc.audit.tree.head import MAX_CHECKPOINT_BYTES, TreeHead, read_tree_head, start_leaf
from hpcc.audit.tree.merkle import HASH_BYTES, TreeRange
from hpcc.core import NotFoundError

_HEAD: Final = "tree.head"


@dataclass(frozen=True, slots=True, kw_only=True)
class Roots:
    """The head that was compared: `leaves` with root `root`, signed by `key` (both in hex).

    `removed` of the leaves are of records that retention removed, and are only hashes here. The
    tree begins with record `first`; an earlier version wrote those before.
    """

    leaves: int
    root: str
    key: str
    first: int
    removed: int


def check_roots(directory: Path) -> Roots:
    """Compute the leaves of a trail and compare their root with the head at the last seal.

    Raises:
        NotFoundError: nothing was recorded in `directory` yet, or nothing is sealed.
        AuditDamagedError: the records are not those of the head.
    """
    require_trail(directory)
    sealed = list(seals(directory))
    if not sealed:
        raise NotFoundError(f"no segment of {directory} is sealed yet: use `hpcc audit verify`")
    signed = sealed[-1].signed
    if len({(seal.signed.key, seal.signed.worker) for seal in sealed}) > 1:
        raise AuditDamagedError("the seals are of several keys or workers")
    head = _head(directory, signed.worker, signed.key)
    if head.count < signed.count:
        raise AuditDamagedError(f"{directory / _HEAD} is older than the last seal")
    tree, removed = TreeRange(), 0
    tree.append(start_leaf(head.first, _before(sealed, head.first)))
    for seal in sealed:
        if seal.end <= head.first:
            continue
        before, count, has_more = tree.size, seal.end - seal.first, False
        try:
            found = _leaves(segment_path(directory, seal.first), seal.size_bytes)
            _add(tree, islice(found, count), head.size)
            # Also behind the head: the last segment must not have a record that no seal covers.
            has_more = next(found, None) is not None
        except FileNotFoundError:
            _add(tree, _kept_hashes(directory, tree.size, count), head.size)
            removed += count
        if has_more or tree.size - before != count:
            raise AuditDamagedError(
                f"{segment_path(directory, seal.first)}: it has more or fewer records than its seal"
            )
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
    return Roots(
        leaves=head.size, root=head.root.hex(), key=signed.key.hex(), first=head.first,
        removed=removed,
    )  # fmt: skip


def _head(directory: Path, worker: str, key: bytes) -> TreeHead:
    path = directory / _HEAD
    try:
        with open_trail_file(path) as file:
            return read_tree_head(worker, file.read(MAX_CHECKPOINT_BYTES + 1), key)
    except FileNotFoundError as error:
        raise AuditDamagedError(
            f"{path} is missing, and there are seals. A bucket has no copy of this file: compare"
            " what you copied from one with `hpcc audit verify`"
        ) from error
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


def _kept_hashes(directory: Path, index: int, count: int) -> Iterator[bytes]:
    path = directory / "tree-0"
    with open_trail_file(path) as file:
        file.seek(index * HASH_BYTES, os.SEEK_SET)
        for _ in range(count):
            leaf = file.read(HASH_BYTES)
            if len(leaf) != HASH_BYTES:
                raise AuditDamagedError(f"{path} lacks the hashes of removed records")
            yield leaf


def _add(tree: TreeRange, leaves: Iterable[bytes], most: int) -> None:
    append = tree.append
    for leaf in leaves:
        if tree.size == most:
            return
        append(leaf)
