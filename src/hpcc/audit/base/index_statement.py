"""The signed statement about a segment's index: its digest, size and the times of its records.

A new seal contains it. A segment whose seal is older, or whose index had to be made by another
version of SQLite, has it in a file beside the seal.
"""

from __future__ import annotations

import hashlib
import json
import math
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Final

from hpcc.audit.base.canonical import AuditDamagedError, canonical
from hpcc.audit.base.heads import check_signature
from hpcc.audit.base.trail_signer import IndexDigest, TrailSigner, WantedIndex

if TYPE_CHECKING:
    from hpcc.audit.base.query import Query

_DOMAIN: Final = b"hpcc-audit-index-1\0"
_FORMAT: Final = 1
_FIELDS: Final = frozenset(
    {
        "first", "format", "head", "key", "sha256", "signature", "since", "size_bytes", "until",
        "worker",
    }
)  # fmt: skip
# An index is in memory while it answers. It takes about 160 bytes a record.
MAX_INDEX_BYTES: Final = 512 << 20
_DIGEST_CHARS: Final = 64


@dataclass(frozen=True, slots=True, kw_only=True)
class IndexStatement:
    """An index file of `size_bytes` with hash `sha256` (hex) has each record of a segment.

    The segment begins with record `first` and ends with the record of hash `head`. No record is
    older than `since` or newer than `until`, in seconds since the epoch.
    """

    worker: str
    first: int
    head: str
    sha256: str
    size_bytes: int
    since: float
    until: float
    key: bytes
    signature: bytes

    def overlaps(self, query: Query) -> bool:
        """Return whether a record of the segment can lie in the query's time."""
        return self.until >= query.since and (query.until is None or self.since < query.until)

    def names(self, data: bytes) -> bool:
        """Return whether these are the bytes of the index."""
        return len(data) == self.size_bytes and hashlib.sha256(data).hexdigest() == self.sha256


@dataclass(frozen=True, slots=True, kw_only=True)
class IndexFacts:
    """The bytes of an index, and the times of the oldest and the newest record in it."""

    data: bytes
    since: float
    until: float


def sign_index(
    signer: TrailSigner, first: int, head: str, facts: IndexFacts, seal: bytes = b""
) -> IndexStatement:
    """Return the signed statement about an index.

    `seal` is the seal of the segment, as it is on the disk; empty for the open segment.

    Raises:
        SignerRefusedError: it is not a segment of this signer.
        SignerError: the signer gives no answer.
    """
    digest = IndexDigest(
        sha256=hashlib.sha256(facts.data).hexdigest(), size_bytes=len(facts.data),
        since=facts.since, until=facts.until,
    )  # fmt: skip
    unsigned = unsigned_index(signer.worker, signer.public_key, first, head, digest)
    wanted = WantedIndex(first=first, index=digest, seal=seal)
    return replace(unsigned, signature=signer.sign_text(wanted, index_message(unsigned)))


def unsigned_index(
    worker: str, key: bytes, first: int, head: str, digest: IndexDigest
) -> IndexStatement:
    """Return the statement about an index, without a signature."""
    return IndexStatement(
        worker=worker, first=first, head=head, sha256=digest.sha256, size_bytes=digest.size_bytes,
        since=digest.since, until=digest.until, key=key, signature=b"",
    )  # fmt: skip


def index_message(statement: IndexStatement) -> bytes:
    """Return the bytes that are signed of a statement."""
    table = statement_table(statement)
    del table["signature"]
    return _DOMAIN + canonical(table)


def statement_table(statement: IndexStatement) -> dict[str, object]:
    """Return a statement as JSON's types."""
    return {
        "first": statement.first, "format": _FORMAT, "head": statement.head,
        "key": statement.key.hex(), "sha256": statement.sha256,
        "signature": statement.signature.hex(), "since": statement.since,
        "size_bytes": statement.size_bytes, "until": statement.until, "worker": statement.worker,
    }  # fmt: skip


def statement_of(table: object) -> IndexStatement:
    """Convert decoded JSON and check the signature with the key that it names.

    Raises:
        AuditDamagedError: it has another form, or the signature is wrong.
    """
    wrong = AuditDamagedError("the statement about an index has another form")
    if not isinstance(table, dict) or set(table) != _FIELDS or table["format"] != _FORMAT:
        raise wrong
    texts = [table[n] for n in ("worker", "head", "sha256", "key", "signature")]
    numbers = [table["first"], table["size_bytes"]]
    times = [table["since"], table["until"]]
    if not (
        all(isinstance(t, str) for t in texts)
        and all(type(n) is int and n >= 0 for n in numbers)
        and all(type(t) is float and math.isfinite(t) for t in times)
        and len(texts[2]) == _DIGEST_CHARS
        and numbers[1] <= MAX_INDEX_BYTES
    ):
        raise wrong
    try:
        key, signature = bytes.fromhex(texts[3]), bytes.fromhex(texts[4])
    except ValueError as error:
        raise wrong from error
    statement = IndexStatement(
        worker=texts[0], first=numbers[0], head=texts[1], sha256=texts[2], size_bytes=numbers[1],
        since=times[0], until=times[1], key=key, signature=signature,
    )  # fmt: skip
    check_signature(key, signature, index_message(statement), "the statement about an index")
    return statement


def parse_statement(data: bytes) -> IndexStatement:
    """Parse the file that holds a statement beside a seal, and check its signature.

    Raises:
        AuditDamagedError: it is not one.
    """
    try:
        table = json.loads(data)
    except (ValueError, RecursionError) as error:
        raise AuditDamagedError("the statement about an index is not JSON") from error
    return statement_of(table)


def index_path(directory: Path, first: int) -> Path:
    """Return the path of the index of the segment that begins with record `first`."""
    return directory / f"sealed-{first:020d}.idx"


def statement_path(directory: Path, first: int) -> Path:
    """Return the path of the statement that a seal does not contain."""
    return directory / f"sealed-{first:020d}.idxseal"
