"""Signed heads: the end of a chain at a time, signed with the writer's key."""

from __future__ import annotations

import functools
import json
import math
import struct
from collections.abc import Sequence
from typing import Final

from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey, Ed25519PublicKey

from hpcc.audit.base.canonical import AuditDamagedError, canonical, signed_message
from hpcc.audit.base.trail_signer import TrailEnd, TrailSigner, Wanted, WantedHead, WantedName
from hpcc.ports import SignedHead

_DOMAIN: Final = b"hpcc-audit-head-1\0"
_HEAD_BYTES: Final = 32
KEY_BYTES: Final = 32
_SIGNATURE_BYTES: Final = 64
_MAX_WORKER_BYTES: Final = 128
MAX_COUNT: Final = (1 << 63) - 1
_FIELDS: Final = frozenset({"at", "count", "format", "head", "key", "signature", "worker"})
_FORMAT: Final = 1


def head_message(worker: str, count: int, head: str, at: float) -> bytes:
    """Return the bytes to sign: domain, worker behind its length, count, head, time.

    `head` is the hash of record `count` - 1 in hex; `at` is in seconds since the epoch.

    Raises:
        AuditDamagedError: a part is malformed or out of range.
    """
    name = worker.encode("utf-8", "replace")
    try:
        digest = bytes.fromhex(head)
    except ValueError as error:
        raise AuditDamagedError("a head is not a hash") from error
    if len(digest) != _HEAD_BYTES or head != digest.hex():
        raise AuditDamagedError("a head is not a hash")
    if not 0 < len(name) <= _MAX_WORKER_BYTES or not 0 <= count <= MAX_COUNT:
        raise AuditDamagedError("a head has no such worker or count")
    if not math.isfinite(at):
        raise AuditDamagedError("a head has no such time")
    return b"".join((_DOMAIN, struct.pack(">H", len(name)), name, struct.pack(">Q", count), digest,
                     struct.pack(">d", at)))  # fmt: skip


class HeadSigner:
    """Signs the trail of one worker with a key in this process: a `TrailSigner`."""

    # A record that the disk refused is forgotten, and its number given to another.
    remembers = False
    trouble = ""
    separation = "in-process"
    restarts = 0

    def __init__(self, worker: str, key: Ed25519PrivateKey) -> None:
        self.worker, self._key = worker, key
        self.public_key = key.public_key().public_bytes(
            serialization.Encoding.Raw, serialization.PublicFormat.Raw
        )

    def sign_message(self, message: bytes) -> bytes:
        """Return the signature of bytes that begin with a domain of the trail."""
        return self._key.sign(message)

    def open(self) -> None:
        """Do nothing: the key is here."""

    def close(self) -> None:
        """Do nothing."""

    def meet(self, end: TrailEnd) -> bytes:
        del end
        return b""

    def sign_records(self, records: Sequence[bytes]) -> list[bytes]:
        return [self.sign_message(signed_message(data)) for data in records]

    def sign_text(self, wanted: Wanted, text: bytes) -> bytes:
        del wanted
        return self.sign_message(text)

    def sign(self, count: int, head: str, at: float) -> SignedHead:
        """Return a signed head of the first `count` records."""
        return signed_head(self, count, head, at)


def signed_head(signer: TrailSigner, count: int, head: str, at: float) -> SignedHead:
    """Return a signed head of the first `count` records.

    Raises:
        SignerRefusedError: the chain never ended there.
        SignerError: the signer gives no answer.
    """
    wanted = WantedHead(count, at) if count else WantedName(at)
    signature = signer.sign_text(wanted, head_message(signer.worker, count, head, at))
    return SignedHead(
        worker=signer.worker, count=count, head=head, at=at, key=signer.public_key,
        signature=signature,
    )  # fmt: skip


def check_head(head: SignedHead, what: str = "a head") -> None:
    """Check a head's signature with `head.key`. The caller must check whose key that is.

    `what` names it in an error about its signature.

    Raises:
        AuditDamagedError: the head is malformed, or the signature is wrong.
    """
    message = head_message(head.worker, head.count, head.head, head.at)
    if len(head.key) != KEY_BYTES or len(head.signature) != _SIGNATURE_BYTES:
        raise AuditDamagedError("a head is not signed")
    check_signature(head.key, head.signature, message, what)


def check_signature(key: bytes, signature: bytes, message: bytes, what: str) -> None:
    """Check an Ed25519 signature with a raw public key. The caller must check whose key that is.

    Raises:
        AuditDamagedError: the key is none, or the signature is wrong.
    """
    if not is_signed(key, signature, message):
        raise AuditDamagedError(f"{what}: the signature is wrong")


def is_signed(key: bytes, signature: bytes, message: bytes) -> bool:
    """Return whether an Ed25519 signature by a raw public key is good."""
    try:
        _public_key(key).verify(signature, message)
    except (InvalidSignature, ValueError):
        return False
    return True


@functools.lru_cache(maxsize=64)
def _public_key(key: bytes) -> Ed25519PublicKey:
    return Ed25519PublicKey.from_public_bytes(key)


def head_text(head: SignedHead) -> bytes:
    """Return a head as one line of canonical JSON, without a newline."""
    return canonical(
        {
            "at": head.at, "count": head.count, "format": _FORMAT, "head": head.head,
            "key": head.key.hex(), "signature": head.signature.hex(), "worker": head.worker,
        }
    )  # fmt: skip


def head_of_text(data: bytes) -> SignedHead:
    """Parse a line that `head_text` wrote; the signature is not checked.

    Raises:
        AuditDamagedError: it has another form.
    """
    try:
        head = head_of_table(json.loads(data))
    except (ValueError, RecursionError) as error:
        raise AuditDamagedError("an anchor is not JSON") from error
    if not math.isfinite(head.at) or head_text(head) != data:
        raise AuditDamagedError("an anchor is not in canonical form")
    return head


def head_of_table(table: object) -> SignedHead:
    """Convert the decoded JSON of `head_text`; the signature is not checked.

    Raises:
        AuditDamagedError: it has other fields or types.
    """
    if not isinstance(table, dict) or set(table) != _FIELDS or table["format"] != _FORMAT:
        raise AuditDamagedError("an anchor has other fields")
    at, count = table["at"], table["count"]
    texts = [table[name] for name in ("worker", "head", "key", "signature")]
    if type(count) is not int or type(at) not in {int, float}:
        raise AuditDamagedError("an anchor has other fields")
    if not all(isinstance(t, str) for t in texts):
        raise AuditDamagedError("an anchor has other fields")
    try:
        return SignedHead(
            worker=texts[0], count=count, head=texts[1], at=float(at),
            key=bytes.fromhex(texts[2]), signature=bytes.fromhex(texts[3]),
        )  # fmt: skip
    except (ValueError, OverflowError) as error:
        raise AuditDamagedError("an anchor has other fields") from error
