"""The index of a sealed segment on disk: written once, and read only if it is the sealed one."""

from __future__ import annotations

import secrets
from contextlib import suppress
from pathlib import Path
from typing import Final

from hpcc.audit.base.canonical import AuditDamagedError, canonical
from hpcc.audit.base.index_statement import (
    MAX_INDEX_BYTES,
    IndexStatement,
    index_path,
    parse_statement,
    statement_path,
    statement_table,
)
from hpcc.audit.base.segments import Seal, open_trail_file, seal_path, segment_path
from hpcc.audit.lookup.index import SegmentIndex
from hpcc.files.whole import FaultPoint, Sync, no_fault, whole_file

_MAX_STATEMENT_BYTES: Final = 4096


class IndexChangedError(AuditDamagedError):
    """The index of a segment is not the one that was sealed. The segment itself may be intact."""

    default_reason = "audit-index-changed"


def changed(directory: Path, first: int, why: str = "") -> IndexChangedError:
    """Return the error that names a segment and the remedy."""
    what = f" ({why})" if why else ""
    return IndexChangedError(
        f"the index of segment {first} ({index_path(directory, first)}) is not the one that was"
        f" sealed{what}: rebuild it with `hpcc audit reindex`, or read the segments themselves"
        " with --exhaustive"
    )


def statements_of(directory: Path, seal: Seal) -> list[IndexStatement]:
    """Return the signed statements about a segment's index: at most the file's and the seal's.

    Raises:
        IndexChangedError: the file is not the statement of the segment's worker.
    """
    found = [seal.index] if seal.index is not None else []
    late = late_statement_or_none(directory, seal)
    return [late, *found] if late is not None else found


def late_statement_or_none(directory: Path, seal: Seal) -> IndexStatement | None:
    """Return the statement beside the seal, or None if there is none.

    Raises:
        IndexChangedError: it is another one.
    """
    try:
        with open_trail_file(statement_path(directory, seal.first)) as file:
            statement = parse_statement(file.read(_MAX_STATEMENT_BYTES))
    except FileNotFoundError:
        return None
    except (AuditDamagedError, OSError) as error:
        raise changed(directory, seal.first, str(error)) from error
    if not seal.is_of(statement):
        raise changed(directory, seal.first, "its statement is of another segment or key")
    return statement


def read_index_or_none(
    directory: Path, seal: Seal, statements: list[IndexStatement]
) -> SegmentIndex | None:
    """Open the index of a segment; None if there is none, or no statement about one.

    Raises:
        IndexChangedError: it is not the one that was sealed.
    """
    if not statements:
        return None
    try:
        with open_trail_file(index_path(directory, seal.first)) as file:
            data = file.read(max(s.size_bytes for s in statements) + 1)
    except FileNotFoundError:
        return None
    except (AuditDamagedError, OSError) as error:
        raise changed(directory, seal.first, str(error)) from error
    if not any(statement.names(data) for statement in statements):
        raise changed(directory, seal.first)
    try:
        return SegmentIndex(data)
    except AuditDamagedError as error:
        raise changed(directory, seal.first, str(error)) from error


def write_index(directory: Path, first: int, data: bytes, fault: FaultPoint = no_fault) -> None:
    """Write an index durably, whole or not at all.

    Raises:
        OSError: it is not durable.
    """
    if len(data) > MAX_INDEX_BYTES:
        raise OSError("the index of a segment is too large")
    with whole_file(
        index_path(directory, first),
        sync=Sync.CONTENT,
        aside=directory / f".index-{secrets.token_hex(8)}",
        fault=lambda step: fault(f"index-{step}"),
    ) as file:
        file.write(data)


def write_statement(directory: Path, statement: IndexStatement) -> None:
    """Write a statement beside the seal durably, whole or not at all.

    Raises:
        OSError: it is not durable.
    """
    with whole_file(
        statement_path(directory, statement.first),
        sync=Sync.NAME,
        aside=directory / f".index-{secrets.token_hex(8)}",
    ) as file:
        file.write(canonical(statement_table(statement)))


def remove_index(directory: Path, first: int) -> None:
    """Remove the index of a segment and the statement beside the seal, if they exist.

    Raises:
        OSError: not both are removed.
    """
    for path in (index_path(directory, first), statement_path(directory, first)):
        path.unlink(missing_ok=True)


def bytes_on_disk(directory: Path, first: int) -> int:
    """Return how many bytes a segment takes, with its seal, index and statement."""
    total = 0
    for path in (segment_path, seal_path, index_path, statement_path):
        with suppress(FileNotFoundError):
            total += path(directory, first).stat().st_size
    return total
