"""Claims: what workers sign about single executions, so that results can be compared.

Problem: a result that a guest of one principal made may be anything that this principal's code
wanted. If guests of several principals gave the same bytes, they would all have to be in league.
Workers find that out by claims, which lie in stores that others may be able to write.

Rule: a claim says that an execution of an action gave a result. The worker signs the bytes that
`claim_bytes` returns. They contain

- the question: tenant, action digest and image, which a reader supplies and never takes from the
  claim. So a claim about another action, tenant or image has no valid signature here;
- the answer: the digest of exit code, stdout, stderr and outputs
  (`hpcc.reapi.agreement.result_digest`);
- the voter, as a pseudonym of the epoch that the claim names;
- how it was made: guest, execs before, whether another exec ran beside it, isolation, reuse class,
  snapshot; and the id of its audit row;
- the id of the signing key and the time.

Encoded claims are hostile: their number, each field's length and form are checked.

What must never happen: a decision uses a field outside of the signed bytes.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Final

from hpcc.core import Digest, GuestReuse, ImageDigest, Isolation, TenantId
from hpcc.reapi.limits import ReapiError

# Raise the number with any change of the form.
CLAIM_TAG: Final = b"hpcc-claim-1"
_SET_TAG: Final = b"hpcc-claims-1"
# Of one action. More would not be read: an agreement needs at most `MAX_AGREE`.
MAX_CLAIMS: Final = 16
MAX_CLAIM_BYTES: Final = 1 << 10
MAX_CLAIMS_BYTES: Final = MAX_CLAIMS * (MAX_CLAIM_BYTES + 2) + len(_SET_TAG)
_LENGTH_BYTES: Final = 2
_SIGNATURE_BYTES: Final = 64
_HEX_64: Final = re.compile(r"[0-9a-f]{64}")
_HEX_32: Final = re.compile(r"[0-9a-f]{32}")
_EPOCH: Final = re.compile(r"[A-Za-z0-9._-]{1,64}")
_TEXT: Final = re.compile(r"[\x20-\x7e]{0,128}")
_NUMBER: Final = re.compile(r"0|[1-9][0-9]{0,15}")
_FIELDS: Final = 13


@dataclass(frozen=True, slots=True, kw_only=True)
class ClaimScope:
    """The question that a claim answers. A reader supplies it."""

    tenant: TenantId
    action: Digest
    image: ImageDigest


@dataclass(frozen=True, slots=True, kw_only=True)
class Voter:
    """Who votes: a pseudonym that is the same person, or the same machines, within its epoch."""

    pseudonym: str
    epoch: str

    def __post_init__(self) -> None:
        """Reject what the scheduler does not make.

        Raises:
            ReapiError: a part is malformed.
        """
        if not _HEX_32.fullmatch(self.pseudonym) or not _EPOCH.fullmatch(self.epoch):
            raise ReapiError("not a voter", reason="claim-form")

    @property
    def text(self) -> str:
        return f"{self.epoch}:{self.pseudonym}"

    @classmethod
    def parse(cls, text: str) -> Voter:
        """Read `text`.

        Raises:
            ReapiError: it is anything else.
        """
        epoch, _, pseudonym = text.partition(":")
        return cls(pseudonym=pseudonym, epoch=epoch)


@dataclass(frozen=True, slots=True, kw_only=True)
class ResultClaim:
    """One execution's result, in the words of its worker. `result` is a `result_digest`.

    `is_overlapped`: another exec ran in the guest meanwhile. `row` is the id of the audit row.
    """

    result: str
    voter: Voter
    guest_id: str
    execs_before: int
    is_overlapped: bool
    isolation: Isolation
    reuse: GuestReuse
    snapshot: str
    row: str
    made_at_ms: int
    key_id: str
    signature: bytes = b""

    def __post_init__(self) -> None:
        """Reject fields that no worker writes.

        Raises:
            ReapiError: a field is malformed.
        """
        is_good = (
            _HEX_64.fullmatch(self.result)
            and _TEXT.fullmatch(self.guest_id)
            and _TEXT.fullmatch(self.snapshot)
            and _HEX_32.fullmatch(self.row)
            and _HEX_32.fullmatch(self.key_id)
            and _NUMBER.fullmatch(str(self.execs_before))
            and _NUMBER.fullmatch(str(self.made_at_ms))
            and len(self.signature) in {0, _SIGNATURE_BYTES}
        )
        if not is_good:
            raise ReapiError("not a claim", reason="claim-form")


def claim_bytes(claim: ResultClaim, scope: ClaimScope) -> bytes:
    """Return the bytes to sign: scope and all fields but the signature, behind their lengths."""
    question = (scope.tenant.value, str(scope.action), scope.image.value)
    return _joined([CLAIM_TAG, *(text.encode() for text in question), *_fields(claim)[:-1]])


def encode_claims(claims: Iterable[ResultClaim]) -> bytes:
    """Encode signed claims in their order; the same claims always give the same bytes."""
    return _SET_TAG + _joined([_joined(_fields(claim)) for claim in claims])


def parse_claims(data: bytes) -> tuple[ResultClaim, ...]:
    """Parse what `encode_claims` returned. No signature is checked here.

    Raises:
        ReapiError: the bytes are anything else, or too many.
    """
    if len(data) > MAX_CLAIMS_BYTES or not data.startswith(_SET_TAG):
        raise ReapiError("not claims", reason="claim-form")
    parts = _split(data[len(_SET_TAG) :], MAX_CLAIMS, MAX_CLAIM_BYTES)
    return tuple(_parse(part) for part in parts)


def _fields(claim: ResultClaim) -> list[bytes]:
    texts = (
        claim.result,
        claim.voter.pseudonym,
        claim.voter.epoch,
        claim.guest_id,
        str(claim.execs_before),
        "overlapped" if claim.is_overlapped else "",
        claim.isolation.value,
        claim.reuse.value,
        claim.snapshot,
        claim.row,
        str(claim.made_at_ms),
        claim.key_id,
    )
    return [*(text.encode() for text in texts), claim.signature]


def _parse(data: bytes) -> ResultClaim:
    fields = _split(data, _FIELDS, MAX_CLAIM_BYTES)
    if len(fields) != _FIELDS:
        raise ReapiError("not a claim", reason="claim-form")
    signature = fields.pop()
    try:
        result, pseudonym, epoch, guest, before, overlapped, isolation, reuse, *rest = (
            field.decode("ascii") for field in fields
        )
        snapshot, row, made, key = rest
        claim = ResultClaim(
            result=result,
            voter=Voter(pseudonym=pseudonym, epoch=epoch),
            guest_id=guest,
            execs_before=_number(before),
            is_overlapped=overlapped == "overlapped",
            isolation=Isolation(isolation),
            reuse=GuestReuse(reuse),
            snapshot=snapshot,
            row=row,
            made_at_ms=_number(made),
            key_id=key,
            signature=signature,
        )
    except ValueError as error:
        raise ReapiError("not a claim", reason="claim-form") from error
    # One spelling for each claim, and no claim without a signature.
    if not signature or _joined(_fields(claim)) != data:
        raise ReapiError("not a claim", reason="claim-form")
    return claim


def _number(text: str) -> int:
    if not _NUMBER.fullmatch(text):
        raise ValueError("not a number")
    return int(text)


def _joined(parts: Iterable[bytes]) -> bytes:
    return b"".join(len(part).to_bytes(_LENGTH_BYTES, "big") + part for part in parts)


def _split(data: bytes, most: int, most_bytes: int) -> list[bytes]:
    parts, at = list[bytes](), 0
    while at < len(data):
        size = int.from_bytes(data[at : at + _LENGTH_BYTES], "big")
        start, at = at + _LENGTH_BYTES, at + _LENGTH_BYTES + size
        if len(parts) >= most or size > most_bytes or at > len(data):
            raise ReapiError("not claims", reason="claim-form")
        parts.append(data[start:at])
    return parts
