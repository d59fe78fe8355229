"""Entries of the action cache: a signed result, and the lineage that later audit rows repeat.

Others may be able to write to a store, so an entry is trusted only as far as its signature reaches.
"""

from __future__ import annotations

import hashlib
import json
from dataclasses import asdict
from typing import Final

from hpcc.core import Digest, Isolation
from hpcc.identity.result_keys import ResultKeys
from hpcc.identity.results import check_result
from hpcc.reapi.limits import ReapiError
from hpcc.reapi.result import ResultRecord, parse_result
from hpcc.reapi.signed import ResultTerms
from hpcc.worker.base.domain import TrustDomain
from hpcc.worker.base.rows import Lineage
from hpcc.worker.stores.claims import is_claims
from hpcc.worker.stores.near_actions import is_near

_HEAD_BYTES: Final = 4
_MAX_HEAD_BYTES: Final = 4 << 20


def lineage_digest(lineage: Lineage) -> str:
    """Return the digest ("sha256:…") by which a signed result names its lineage."""
    return _digest(_head(lineage))


def pack_entry(lineage: Lineage, result: bytes) -> bytes:
    """Encode an entry: 4 bytes of length (big-endian), the lineage as JSON, then the result."""
    head = _head(lineage)
    return len(head).to_bytes(_HEAD_BYTES, "big") + head + result


def unpack_entry(entry: bytes) -> tuple[Lineage, ResultRecord]:
    """Decode an entry without checking the result's signature. The bytes are hostile.

    Raises:
        ReapiError: the form is wrong, or the lineage is not the one that the result names.
    """
    size = int.from_bytes(entry[:_HEAD_BYTES], "big")
    if size > _MAX_HEAD_BYTES:
        raise ReapiError("the entry has another form", reason="result-form")
    head = entry[_HEAD_BYTES : _HEAD_BYTES + size]
    try:
        lineage = Lineage.of(json.loads(head))
    except (ValueError, TypeError, AttributeError, RecursionError) as error:
        raise ReapiError("the entry has another form", reason="result-form") from error
    record = parse_result(entry[_HEAD_BYTES + size :])
    if record.lineage_digest != _digest(head):
        raise ReapiError("the entry's origin differs from the signed one", reason="result-lineage")
    return lineage, record


def outputs_of(entry: bytes) -> tuple[Digest, ...]:
    """Return the digests of the outputs that an entry refers to; claims and lists have none.

    Raises:
        ReapiError: see `unpack_entry`.
    """
    if is_claims(entry) or is_near(entry):
        return ()
    _, record = unpack_entry(entry)
    return tuple(output.digest for output in record.outputs)


async def open_entry(
    entry: bytes, domain: TrustDomain, terms: ResultTerms, keys: ResultKeys, *, now: float
) -> tuple[Lineage, ResultRecord]:
    """Return lineage and result if a worker of this farm signed them for these terms and class.

    `now` is seconds since the epoch.

    Raises:
        ReapiError, ResultError: the entry is anything else; `reason` says what.
        InfrastructureError: the signing key is not known here, and no scheduler answers.
    """
    lineage, record = unpack_entry(entry)
    if (record.isolation, record.reuse) != (domain.isolation, domain.reuse):
        raise ReapiError("the result is of another class", reason="result-class")
    if record.evidence is not None:
        raise ReapiError("a shared result is not a principal's own", reason="result-class")
    await _check(record, terms, keys, now=now)
    return lineage, record


async def open_shared(
    entry: bytes, isolation: Isolation, terms: ResultTerms, keys: ResultKeys, *, now: float
) -> tuple[Lineage, ResultRecord]:
    """Return lineage and result if they serve the tenant of the terms, by the result's evidence.

    Raises:
        ReapiError, ResultError: the entry is anything else; `reason` says what.
        InfrastructureError: a signing key is not known here, and no scheduler answers.
    """
    lineage, record = unpack_entry(entry)
    if record.isolation is not isolation or record.evidence is None:
        raise ReapiError("the result is of another class", reason="result-class")
    await _check(record, terms, keys, now=now)
    return lineage, record


async def _check(record: ResultRecord, terms: ResultTerms, keys: ResultKeys, *, now: float) -> None:
    await check_result(record, terms, keys, now=now)
    if record.exit_code or record.reason:
        # A failed compile can be signed (its caller received it), but workers never cache it.
        raise ReapiError("a failed compile is not a hit", reason="result-failed")


def _head(lineage: Lineage) -> bytes:
    table = asdict(lineage)
    if not lineage.argv_omitted:
        del table["argv_omitted"]  # as older workers wrote it, and read it
    return json.dumps(table, sort_keys=True).encode()


def _digest(head: bytes) -> str:
    return f"sha256:{hashlib.sha256(head).hexdigest()}"
