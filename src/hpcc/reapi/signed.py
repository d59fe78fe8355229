"""What a worker signs: every field of a result in one canonical form (docs/spec/results.md)."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from typing import Final

from hpcc.core import Digest, GuestReuse, ImageDigest, Isolation, TenantId
from hpcc.reapi.limits import ReapiError
from hpcc.reapi.result import ResultRecord, ResultSignature

# Raise the number with any change of the form: a signature over one never fits another.
RESULT_TAG: Final = b"hpcc-result-1"
# Clocks of a worker and of who reads its results may differ by this much.
MAX_RESULT_SKEW_SECONDS: Final = 300.0
_LENGTH_BYTES: Final = 4
_NUMBER_BYTES: Final = 8


@dataclass(frozen=True, slots=True, kw_only=True)
class ResultScope:
    """What a result answers. Whoever checks one brings this along and takes none of it from there.

    `principal` counts only where guests serve one principal each: it is who may be given what
    such a guest made.
    """

    tenant: TenantId
    action: Digest
    principal: str


@dataclass(frozen=True, slots=True, kw_only=True)
class ResultTerms:
    """Which results of an action are good for somebody: `scope`, and the tenant's rules."""

    scope: ResultScope
    image: ImageDigest
    minimum_isolation: Isolation
    reuse: GuestReuse


def signed_bytes(record: ResultRecord, scope: ResultScope, signature: ResultSignature) -> bytes:
    """Return what is signed: fields in a fixed order, each behind its length.

    `inline` is not in it, being checked against the outputs' digests, nor is the signature's value.
    """
    principal = scope.principal if record.reuse is GuestReuse.PRINCIPAL else ""
    fields = [
        RESULT_TAG,
        *(
            text.encode()
            for text in (
                scope.tenant.value,
                str(scope.action),
                principal,
                record.image,
                record.isolation.value,
                record.reuse.value,
                record.guest_id,
                record.worker,
                record.kernel_digest,
                record.agent_digest,
                record.lineage_digest,
                record.reason,
                signature.key_id,
            )
        ),
        *(
            number.to_bytes(_NUMBER_BYTES, "big", signed=True)
            for number in (
                record.guest_execs_before,
                record.exit_code,
                _milliseconds(record.queued_at),
                _milliseconds(record.started_at),
                _milliseconds(record.completed_at),
                signature.signed_at_ms,
                len(record.outputs),
            )
        ),
        hashlib.sha256(record.stdout).digest(),
        hashlib.sha256(record.stderr).digest(),
    ]
    for output in sorted(record.outputs, key=lambda o: o.path.encode()):
        fields += [output.path.encode(), str(output.digest).encode(), b"x" * output.is_executable]
    return b"".join(len(f).to_bytes(_LENGTH_BYTES, "big") + f for f in fields)


def check_terms(record: ResultRecord, terms: ResultTerms, *, now: float) -> ResultSignature:
    """Hold what a result says of itself against the terms; its signature is still to be checked.

    Raises:
        ReapiError: it is not signed, of another image, a class that the tenant does not accept, or
            the future.
    """
    signature = record.signature
    if signature is None:
        raise ReapiError("the result is not signed", reason="result-unsigned")
    if record.image != terms.image.value:
        raise ReapiError("the result is of another image", reason="result-image")
    if record.isolation.rank < terms.minimum_isolation.rank:
        raise ReapiError("the result ran under weaker isolation", reason="result-isolation")
    if record.reuse.stricter(terms.reuse) is not record.reuse:
        raise ReapiError(
            "the result's guest served more people than allowed", reason="result-reuse"
        )
    if signature.signed_at_ms / 1000 > now + MAX_RESULT_SKEW_SECONDS:
        raise ReapiError(
            "the result is signed in the future: this machine's clock, or the worker's, is wrong",
            reason="result-time",
        )
    return signature


def _milliseconds(seconds: float) -> int:
    return round(seconds * 1000)
