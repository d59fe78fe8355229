"""What a worker signs: every field of a result in one canonical form (docs/spec/results.md).

Problem: results lie in action caches on disks and in shared buckets, and pass through gateways. A
party that can write there must not be able to make a result, change one, or present one as the
answer to another question.

Rule: the worker signs the bytes that `signed_bytes` returns. They contain

- the question: tenant, action digest and, where guests serve one principal each, the principal;
- the answer: exit code, SHA-256 of stdout and stderr, and path, digest and mode of each output;
- how it was made: image, isolation, guest reuse, guest, worker, kernel, agent, lineage, times;
- the id of the signing key and the time of the signature.

Each field stands behind its length, so that different fields cannot give the same bytes. A tag
with the number of the form comes first. Inlined contents are not signed: they are checked against
the outputs' digests.

A result that may serve the whole tenant has a second form with another tag: the principal is
empty, and class, audit row and claims of its evidence are signed too.

A reader checks in two steps. `check_terms` compares what the record states about itself with the
tenant's rules. Then the reader verifies the signature over `signed_bytes` with a key that the
scheduler lists. The reader supplies tenant, action and principal itself.

Example: somebody copies the signed result of action A to the name of action B in a bucket. A
reader of B builds the bytes with B, the signature does not match them, and the result is a miss.

What must never happen: a reader takes a part of the question from the result, or a decision uses
a field of a result that is outside the signed bytes.
"""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from typing import Final

from hpcc.core import (
    PRIVATE_ONLY,
    Digest,
    GuestReuse,
    ImageDigest,
    Isolation,
    SharingPolicy,
    TenantId,
)
from hpcc.reapi.agreement import check_sharing
from hpcc.reapi.claims import encode_claims
from hpcc.reapi.limits import ReapiError
from hpcc.reapi.result import ResultRecord, ResultSignature, SharingEvidence

# Raise the number with any change of the form, so that no signature is valid for two forms.
RESULT_TAG: Final = b"hpcc-result-1"
SHARED_RESULT_TAG: Final = b"hpcc-result-2"
# The clocks of a worker and of a reader of its results may differ by this much.
MAX_RESULT_SKEW_SECONDS: Final = 300.0
_LENGTH_BYTES: Final = 4
_NUMBER_BYTES: Final = 8


@dataclass(frozen=True, slots=True, kw_only=True)
class ResultScope:
    """The question that a result answers. A reader supplies it and takes none of it from a result.

    `principal` is signed only where guests serve one principal each: only that principal may get
    what such a guest made.
    """

    tenant: TenantId
    action: Digest
    principal: str


@dataclass(frozen=True, slots=True, kw_only=True)
class ResultTerms:
    """The results that a reader accepts: those that answer `scope` under the tenant's rules.

    `sharing` is what it accepts of results that were not made for the principal of `scope`.
    """

    scope: ResultScope
    image: ImageDigest
    minimum_isolation: Isolation
    reuse: GuestReuse
    sharing: SharingPolicy = PRIVATE_ONLY


def signed_bytes(record: ResultRecord, scope: ResultScope, signature: ResultSignature) -> bytes:
    """Return the bytes to sign: all fields in a fixed order, each behind its length.

    They contain key id and time of `signature`, not its value; and not `record.inline`.
    """
    evidence = record.evidence
    is_private = record.reuse is GuestReuse.PRINCIPAL and evidence is None
    principal = scope.principal if is_private else ""
    fields = [
        *([RESULT_TAG] if evidence is None else _evidence_fields(evidence)),
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


def _evidence_fields(evidence: SharingEvidence) -> list[bytes]:
    claims = hashlib.sha256(encode_claims(evidence.claims)).digest()
    return [SHARED_RESULT_TAG, evidence.sharing.value.encode(), evidence.row.encode(), claims]


def check_terms(record: ResultRecord, terms: ResultTerms, *, now: float) -> ResultSignature:
    """Compare a result's statements with the terms; return its signature, still unchecked.

    `now` is in seconds since the epoch.

    Raises:
        ReapiError: the result is not signed, is of another image, ran under weaker isolation or
            guest reuse than the tenant accepts, lacks the evidence to serve others, or is signed
            in the future.
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
    check_sharing(record, terms.sharing)
    if signature.signed_at_ms / 1000 > now + MAX_RESULT_SKEW_SECONDS:
        raise ReapiError(
            "the result is signed in the future: this machine's clock, or the worker's, is wrong",
            reason="result-time",
        )
    return signature


def _milliseconds(seconds: float) -> int:
    return round(seconds * 1000)
