"""Makes the indexes that are missing, from a full read of each segment against its seal."""

from __future__ import annotations

import enum
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass
from itertools import batched
from pathlib import Path
from typing import Final

from hpcc.audit.base.canonical import Record
from hpcc.audit.base.index_statement import (
    MAX_INDEX_BYTES,
    IndexFacts,
    IndexStatement,
    index_path,
    sign_index,
    statement_path,
)
from hpcc.audit.base.segments import Seal, seal_bytes_or_none, seals, segment_path
from hpcc.audit.base.trail import walk_segment
from hpcc.audit.base.trail_signer import TrailSigner
from hpcc.audit.lookup.index import IndexBuilder
from hpcc.audit.lookup.sealed import (
    IndexChangedError,
    read_index_or_none,
    remove_index,
    statements_of,
    write_index,
    write_statement,
)

# Records that are added at once. A group of the largest ones takes some memory for a moment.
_GROUP: Final = 64


class Remade(enum.Enum):
    """What became of the index of one segment."""

    UNCHANGED = "is the one that was sealed"
    MADE = "was made again, and is the one that was sealed"
    SIGNED = "was made and signed"
    # Without the worker's key: no signed statement names the bytes that this program makes.
    REMOVED = "was removed: commands read the segment until the worker has made and signed another"
    TOO_LARGE = "would be too large: commands read the segment"
    ABSENT = "does not exist: commands read the segment until the worker has made and signed one"


@dataclass(frozen=True, slots=True)
class Reindexed:
    """What was done with the index of the segment that begins with record `first`."""

    first: int
    remade: Remade


def reindex(directory: Path, signer: TrailSigner | None = None) -> Iterator[Reindexed]:
    """Make each missing or changed index of a trail again, and yield what was done.

    With `signer`, the worker's, an index that no statement names gets a new one.

    Raises:
        AuditDamagedError: a segment is not the one that was sealed. Its index is left as it is.
        OSError: a file cannot be written.
    """
    for seal in seals(directory):
        if segment_path(directory, seal.first).exists():
            yield Reindexed(seal.first, reindex_segment(directory, seal, signer))


def lacks_index(directory: Path, seal: Seal) -> bool:
    """Return whether a segment has no index, or no statement about one. Nothing is compared."""
    has_statement = seal.index is not None or statement_path(directory, seal.first).exists()
    return not has_statement or not index_path(directory, seal.first).exists()


def reindex_segment(directory: Path, seal: Seal, signer: TrailSigner | None) -> Remade:
    """Make the index of one segment again, unless it is the sealed one.

    Raises:
        AuditDamagedError: the segment is not the one that was sealed.
        FileNotFoundError: retention removed the segment.
        OSError: a file cannot be written.
        InfrastructureError: the database failed.
    """
    statements = _good_statements(directory, seal)
    with suppress(IndexChangedError):
        index = read_index_or_none(directory, seal, statements)
        if index is not None:
            index.close()
            return Remade.UNCHANGED
    existed = index_path(directory, seal.first).exists()
    facts = _read(directory, seal)
    if len(facts.data) > MAX_INDEX_BYTES:
        remove_index(directory, seal.first)
        return Remade.TOO_LARGE
    if any(statement.names(facts.data) for statement in statements):
        write_index(directory, seal.first, facts.data)
        return Remade.MADE
    if signer is None or signer.public_key != seal.signed.key:
        remove_index(directory, seal.first)
        return Remade.REMOVED if existed else Remade.ABSENT
    # The index last: commands refuse an index that no statement names.
    remove_index(directory, seal.first)
    said = seal_bytes_or_none(directory, seal.first) or b""
    write_statement(directory, sign_index(signer, seal.first, seal.signed.head, facts, said))
    write_index(directory, seal.first, facts.data)
    if not segment_path(directory, seal.first).exists():
        remove_index(directory, seal.first)
    return Remade.SIGNED


def _good_statements(directory: Path, seal: Seal) -> list[IndexStatement]:
    """Return the statements about a segment's index; a wrong one beside the seal is removed."""
    with suppress(IndexChangedError):
        return statements_of(directory, seal)
    statement_path(directory, seal.first).unlink(missing_ok=True)
    return [seal.index] if seal.index is not None else []


def _read(directory: Path, seal: Seal) -> IndexFacts:
    """Read a segment to its sealed end, and return its index.

    Raises:
        AuditDamagedError: it is not the sealed one.
        FileNotFoundError: retention removed it.
    """
    builder = IndexBuilder()
    try:
        for group in batched(_placed(directory, seal), _GROUP):
            builder.add(group)
        return builder.facts()
    finally:
        builder.close()


def _placed(directory: Path, seal: Seal) -> Iterator[tuple[int, Record]]:
    return ((item.place, item.record) for item in walk_segment(directory, seal))
