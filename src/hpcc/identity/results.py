"""Signed results: a worker's signature over what an action gave, so that no store can change it."""

from __future__ import annotations

from dataclasses import replace

from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey, Ed25519PublicKey

from hpcc.core import CallerError, IntegrityError
from hpcc.identity.claims import good_claims
from hpcc.identity.keys import key_id
from hpcc.identity.result_keys import ResultKeys
from hpcc.ports import Clock
from hpcc.reapi.claims import ClaimScope, ResultClaim, claim_bytes
from hpcc.reapi.limits import ReapiError
from hpcc.reapi.result import ResultRecord, ResultSignature
from hpcc.reapi.signed import ResultScope, ResultTerms, check_terms, signed_bytes

_POSSESSION_TAG = b"hpcc-result-key-1"


class ResultError(IntegrityError):
    """A result without a valid signature of a trusted worker; treat it as absent."""

    default_reason = "result-signature"


class ResultSigner:
    """Signs results with a worker's result key, which is not the key of its TLS certificate."""

    def __init__(self, key: Ed25519PrivateKey, clock: Clock) -> None:
        self._key, self._clock = key, clock
        self.key_id = key_id(key.public_key())
        self.public: bytes = key.public_key().public_bytes(
            serialization.Encoding.Raw, serialization.PublicFormat.Raw
        )

    def use(self, other: ResultSigner) -> None:
        """Sign with another's key from now on. Called in the event loop, as `sign` is."""
        self._key, self.key_id, self.public = other._key, other.key_id, other.public

    def sign(self, record: ResultRecord, scope: ResultScope) -> ResultRecord:
        """Return the record with a signature at the current time."""
        unsigned = ResultSignature(self.key_id, round(self._clock.now() * 1000), b"")
        value = self._key.sign(signed_bytes(record, scope, unsigned))
        return replace(record, signature=replace(unsigned, value=value))

    def sign_claim(self, claim: ResultClaim, scope: ClaimScope) -> ResultClaim:
        """Return the claim with this key's id, and a signature at the current time."""
        dated = replace(claim, key_id=self.key_id, made_at_ms=round(self._clock.now() * 1000))
        return replace(dated, signature=self._key.sign(claim_bytes(dated, scope)))

    def possession(self, worker_id: str, certificate: bytes) -> bytes:
        """Return the proof that the worker with this TLS certificate holds the key."""
        return self._key.sign(_possession(worker_id, certificate))


def check_possession(public: bytes, proof: bytes, worker_id: str, certificate: bytes) -> str:
    """Return the id of a key after its worker has proved that it holds the key.

    Raises:
        CallerError: it is not an Ed25519 key, or the proof is not by it.
    """
    try:
        key = Ed25519PublicKey.from_public_bytes(public)
        key.verify(proof, _possession(worker_id, certificate))
    except (InvalidSignature, ValueError) as error:
        raise CallerError("the result key is not the worker's own", reason="result-key") from error
    return key_id(key)


def result_key_id(public: bytes) -> str:
    """Return the id of a key of 32 bytes that was checked before."""
    return key_id(Ed25519PublicKey.from_public_bytes(public))


def verify_result(
    record: ResultRecord, terms: ResultTerms, key: Ed25519PublicKey, *, now: float
) -> None:
    """Check a result's terms and signature with the key that the signature names. Does no I/O.

    Raises:
        ResultError: it does not match the terms, or was changed after it was signed.
    """
    signature = _named(record, terms, now)
    try:
        key.verify(signature.value, signed_bytes(record, terms.scope, signature))
    except InvalidSignature as error:
        raise ResultError("the result is not what its worker signed") from error


async def check_result(
    record: ResultRecord, terms: ResultTerms, keys: ResultKeys, *, now: float
) -> None:
    """Check a result with the key that the scheduler lists for the tenant.

    Raises:
        ResultError: see `verify_result`; or its key is not listed (reason `result-key`), or a claim
            of a shared result does not hold (`result-claims`).
        InfrastructureError: the key is not cached and the scheduler does not answer.
    """
    signature = _named(record, terms, now)
    key = await keys.key(terms.scope.tenant, signature.key_id)
    if key is None:
        raise ResultError("the result's key is not listed, or was revoked", reason="result-key")
    verify_result(record, terms, key, now=now)
    claims = record.evidence.claims if record.evidence else ()
    if claims:
        tenant, action = terms.scope.tenant, terms.scope.action
        scope = ClaimScope(tenant=tenant, action=action, image=terms.image)
        # Every claim must hold: a revoked key voids what rests on its claims.
        if len(await good_claims(claims, scope, keys)) != len(claims):
            raise ResultError("a claim of the shared result does not hold", reason="result-claims")


def _named(record: ResultRecord, terms: ResultTerms, now: float) -> ResultSignature:
    try:
        return check_terms(record, terms, now=now)
    except ReapiError as error:
        raise ResultError(str(error), reason=error.reason) from error


def _possession(worker_id: str, certificate: bytes) -> bytes:
    fields = (_POSSESSION_TAG, worker_id.encode(), certificate)
    return b"".join(len(f).to_bytes(4, "big") + f for f in fields)
