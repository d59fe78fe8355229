"""The files of a trail: sealed segments, each with its seal, and the open segment.

The writer appends to `spool.hpcc`, the open segment. When it is large enough it is renamed to
`sealed-FIRST.hpcc` and gets a signed seal, `sealed-FIRST.seal`, that describes its content. A seal
stays when retention removes its segment. So the chain of seals leads from the first record to the
open segment. A seal has the digest of the segment's index, `sealed-FIRST.idx`. A seal that an
earlier version made has none.

A seal of format 3 is signed as a whole. Of one of an earlier format only the head is signed: who
writes the disk can change its size and its format, and so take the signatures off its records.
"""

from __future__ import annotations

import json
import os
import re
import secrets
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, BinaryIO, Final

from hpcc.audit.base.canonical import (
    GENESIS,
    AuditDamagedError,
    Record,
    canonical,
)
from hpcc.audit.base.heads import (
    MAX_COUNT,
    check_head,
    check_signature,
    head_message,
    head_of_table,
    head_text,
)
from hpcc.audit.base.index_statement import IndexStatement, statement_of, statement_table
from hpcc.audit.base.trail_signer import IndexDigest, TrailSigner, WantedSeal
from hpcc.files import NONBLOCK, access_of
from hpcc.files.whole import FaultPoint, Sync, whole_file
from hpcc.ports import SignedHead

SPOOL_NAME: Final = "spool.hpcc"
_SEALED: Final = re.compile(r"sealed-([0-9]{20})\.hpcc")
_SEALS: Final = re.compile(r"sealed-([0-9]{20})\.(?:hpcc|seal)")
MAX_SEAL_BYTES: Final = 4096
_SEAL_FIELDS: Final = frozenset({"first", "format", "previous", "signed", "size_bytes"})
# A seal of format 2 has the statement about its index, or null, and each later frame is signed.
_SEAL_FORMAT: Final = 1
_SIGNING_FORMAT: Final = 2
# A seal of format 3 is signed as a whole, under a separate domain: no signature of a head is one.
_WHOLE_FORMAT: Final = 3
_WHOLE_DOMAIN: Final = b"hpcc-audit-seal-3\0"
_WHOLE_FIELDS: Final = frozenset(
    {
        "at", "count", "first", "format", "head", "index", "key", "previous", "signature",
        "signed_from", "size_bytes", "worker",
    }
)  # fmt: skip


def open_trail_file(path: Path) -> BinaryIO:
    """Open a file of a trail for reading.

    Who writes the disk can put a pipe in its place, at which a reader would hang.

    Raises:
        FileNotFoundError: there is none.
        AuditDamagedError: it is not a regular file.
    """
    file = open(path, "rb", opener=_open_now)  # noqa: SIM115 - the caller closes it
    if not access_of(file.fileno()).is_regular:
        file.close()
        raise AuditDamagedError(f"{path.name} is not a regular file")
    return file


def _open_now(path: str, flags: int) -> int:
    return os.open(path, flags | NONBLOCK)


@dataclass(frozen=True, slots=True, kw_only=True)
class Seal:
    """The content of a segment: the records from `first` up to the signed head.

    `previous` is the hash of the record before `first`. In a seal of format 3 the signature in
    `signed` is the whole seal's, and each record from `signed_from` on is signed. It is None in an
    earlier seal.
    """

    first: int
    previous: str
    size_bytes: int
    signed: SignedHead
    index: IndexStatement | None = None
    # All frames after the segment are signed.
    is_signing: bool = False
    signed_from: int | None = None

    @property
    def end(self) -> int:
        """Return the sequence number after the last record of the segment."""
        return self.signed.count

    def is_of(self, statement: IndexStatement) -> bool:
        """Return whether a statement is about this segment, and by the key of this seal."""
        return (statement.worker, statement.first, statement.head, statement.key) == (
            self.signed.worker, self.first, self.signed.head, self.signed.key,
        )  # fmt: skip


@dataclass(frozen=True, slots=True)
class Placed:
    """A record, and the offset of its frame in the segment that begins with record `segment`."""

    segment: int
    place: int
    record: Record


def spool_path(directory: Path) -> Path:
    """Return the path of the open segment."""
    return directory / SPOOL_NAME


def segment_path(directory: Path, first: int) -> Path:
    """Return the path of the sealed segment that begins with record `first`."""
    return directory / f"sealed-{first:020d}.hpcc"


def seal_path(directory: Path, first: int) -> Path:
    """Return the path of the seal of the segment that begins with record `first`."""
    return directory / f"sealed-{first:020d}.seal"


def sealed_firsts(directory: Path) -> list[int]:
    """Return the first record numbers of the renamed segments that still exist, in order."""
    found = [_SEALED.fullmatch(p.name) for p in directory.iterdir()]
    return sorted(int(m[1]) for m in found if m)


def has_later(directory: Path, first: int) -> bool:
    """Return whether a segment or a seal exists that begins after record `first`."""
    found = (_SEALS.fullmatch(p.name) for p in directory.iterdir())
    return any(int(m[1]) > first for m in found if m)


def sign_seal(signer: TrailSigner, seal: Seal) -> Seal:
    """Return a seal of format 3 with the signer's name, key and signature.

    `seal` has the rest. What its head has of these does not count.

    Raises:
        SignerRefusedError: the signer did not sign what the segment has.
        SignerError: the signer gives no answer.
    """
    head = replace(seal.signed, worker=signer.worker, key=signer.public_key, signature=b"")
    unsigned = replace(seal, signed=head, is_signing=True)
    assert seal.signed_from is not None
    wanted = WantedSeal(
        first=seal.first, signed_from=seal.signed_from, at=seal.signed.at,
        index=_digest_or_none(seal.index),
    )  # fmt: skip
    signature = signer.sign_text(wanted, seal_message(unsigned))
    return replace(unsigned, signed=replace(head, signature=signature))


def _digest_or_none(index: IndexStatement | None) -> IndexDigest | None:
    if index is None:
        return None
    return IndexDigest(
        sha256=index.sha256, size_bytes=index.size_bytes, since=index.since, until=index.until
    )


def seal_message(seal: Seal) -> bytes:
    """Return the bytes that are signed of a seal of format 3."""
    table = _whole_table(seal)
    del table["signature"]
    return _WHOLE_DOMAIN + canonical(table)


def _whole_table(seal: Seal) -> dict[str, object]:
    signed = seal.signed
    return {
        "at": signed.at, "count": signed.count, "first": seal.first, "format": _WHOLE_FORMAT,
        "head": signed.head, "key": signed.key.hex(), "previous": seal.previous,
        "index": statement_table(seal.index) if seal.index is not None else None,
        "signature": signed.signature.hex(), "signed_from": seal.signed_from,
        "size_bytes": seal.size_bytes, "worker": signed.worker,
    }  # fmt: skip


def first_signed(seal: Seal, known: int | None) -> int | None:
    """Return the record from which on each one is signed, by a seal; None if there is none.

    `known` is what the seals before it gave.
    """
    if seal.signed_from is not None:
        return seal.signed_from
    return seal.end if seal.is_signing and known is None else known


def write_seal(directory: Path, seal: Seal, fault: FaultPoint) -> None:
    """Write a seal durably, whole or not at all. Only one of `sign_seal` has format 3.

    Raises:
        OSError: the seal is not durable.
    """
    table: dict[str, object]
    if seal.signed_from is not None:
        table = _whole_table(seal)
    else:
        table = {
            "first": seal.first, "format": _SEAL_FORMAT, "previous": seal.previous,
            "signed": json.loads(head_text(seal.signed)), "size_bytes": seal.size_bytes,
        }  # fmt: skip
        if seal.is_signing:
            index = statement_table(seal.index) if seal.index is not None else None
            table |= {"format": _SIGNING_FORMAT, "index": index}
    with whole_file(
        seal_path(directory, seal.first),
        sync=Sync.NAME,
        aside=directory / f".seal-{secrets.token_hex(8)}",
        fault=lambda step: fault(f"seal-{step}"),
    ) as file:
        file.write(canonical(table))


def seal_or_none(directory: Path, first: int, previous: str) -> Seal | None:
    """Return the seal of the segment that begins with record `first`, or None if there is none.

    Its signature is checked with the key that the seal names.

    Raises:
        AuditDamagedError: it is malformed, of another place in the chain, or wrongly signed.
    """
    data = seal_bytes_or_none(directory, first)
    if data is None:
        return None
    seal = parse_seal(data, first)
    if seal.first != first or seal.previous != previous or seal.end <= first:
        raise AuditDamagedError(f"the seal at record {first} is of another place")
    return seal


def seal_bytes_or_none(directory: Path, first: int) -> bytes | None:
    """Return a seal as it is on the disk, at most a byte more than one can have."""
    try:
        with open_trail_file(seal_path(directory, first)) as file:
            return file.read(MAX_SEAL_BYTES + 1)
    except FileNotFoundError:
        return None


def parse_seal(data: bytes, first: int) -> Seal:
    """Convert a seal and check its signature with the key that it names; its place is not checked.

    Raises:
        AuditDamagedError: it has another form, or is wrongly signed.
    """
    try:
        table = json.loads(data) if len(data) <= MAX_SEAL_BYTES else None
    except (ValueError, RecursionError) as error:
        raise AuditDamagedError(f"the seal at record {first} is not JSON") from error
    if isinstance(table, dict) and table.get("format") == _WHOLE_FORMAT:
        seal = _whole_seal(table, data, first)
    else:
        seal = _earlier_seal(table, first)
    if seal.index is not None and not seal.is_of(seal.index):
        raise AuditDamagedError(f"the seal at record {first} has a statement of another segment")
    return seal


def _whole_seal(table: dict[str, Any], data: bytes, first: int) -> Seal:
    """Convert a seal of format 3, and check its signature with the key that it names."""
    wrong = AuditDamagedError(f"the seal at record {first} has another form")
    if set(table) != _WHOLE_FIELDS:
        raise wrong
    numbers = [table[n] for n in ("first", "count", "size_bytes", "signed_from")]
    texts = [table[n] for n in ("worker", "head", "key", "previous", "signature")]
    if not all(type(n) is int and 0 <= n <= MAX_COUNT for n in numbers):
        raise wrong
    if not all(isinstance(t, str) for t in texts) or type(table["at"]) is not float:
        raise wrong
    try:
        key, signature = bytes.fromhex(table["key"]), bytes.fromhex(table["signature"])
    except ValueError as error:
        raise wrong from error
    index = table["index"]
    seal = Seal(
        first=table["first"], previous=table["previous"], size_bytes=table["size_bytes"],
        signed=SignedHead(
            worker=table["worker"], count=table["count"], head=table["head"], at=table["at"],
            key=key, signature=signature,
        ),
        index=statement_of(index) if index is not None else None,
        is_signing=True, signed_from=table["signed_from"],
    )  # fmt: skip
    # For the bounds of its parts; what is signed is the whole seal. Another spelling is refused.
    head_message(seal.signed.worker, seal.end, seal.signed.head, seal.signed.at)
    if canonical(_whole_table(seal)) != data:
        raise wrong
    check_signature(key, signature, seal_message(seal), f"the seal at record {first}")
    return seal


def _earlier_seal(table: object, first: int) -> Seal:
    """Convert a seal of format 1 or 2, and check its head with the key that it names."""
    is_signing = isinstance(table, dict) and table.get("format") == _SIGNING_FORMAT
    if (
        not isinstance(table, dict)
        or set(table) != (_SEAL_FIELDS | {"index"} if is_signing else _SEAL_FIELDS)
        or table["format"] not in (_SEAL_FORMAT, _SIGNING_FORMAT)
        or type(table["first"]) is not int
        or type(table["size_bytes"]) is not int
        or not isinstance(table["previous"], str)
    ):
        raise AuditDamagedError(f"the seal at record {first} has another form")
    signed = head_of_table(table["signed"])
    check_head(signed, f"the seal at record {first}")
    index = table.get("index")
    return Seal(
        first=table["first"], previous=table["previous"], size_bytes=table["size_bytes"],
        signed=signed, index=statement_of(index) if index is not None else None,
        is_signing=is_signing,
    )  # fmt: skip


def seals(directory: Path) -> Iterator[Seal]:
    """Yield the seals in order, from the first record on.

    Raises:
        AuditDamagedError: a seal is damaged, of another place in the chain, or of an earlier format
            than the one before.
    """
    first, previous = 0, GENESIS
    signed_from: int | None = None
    while (seal := seal_or_none(directory, first, previous)) is not None:
        if signed_from not in (None, seal.signed_from):
            raise AuditDamagedError(
                f"the seal at record {first} does not say that each record from {signed_from} on is"
                " signed, and the one before it does: it was changed"
            )
        signed_from = seal.signed_from
        yield seal
        first, previous = seal.end, seal.signed.head
