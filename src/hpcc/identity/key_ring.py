"""The key ring that signs route tokens: all schedulers of a farm share it. Also its rotation.

A ring is one value and is replaced as a whole. Private parts are sealed (AES-256-GCM) with a key
that the ring's store never sees. The seal covers the key's name and the issuer, so a sealed key
cannot be put in another key's place.
"""

from __future__ import annotations

import base64
import binascii
import json
import os
import re
from dataclasses import dataclass, replace
from typing import Final

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from cryptography.hazmat.primitives.ciphers.aead import AESGCM
from cryptography.hazmat.primitives.kdf.hkdf import HKDF

from hpcc.core import CallerError, IntegrityError
from hpcc.identity.keys import key_id

MAX_KEYS: Final = 16
MIN_SEAL_BYTES: Final = 32
_NONCE_BYTES: Final = 12
_LOST: Final = "If it is lost: `hpcc scheduler reseal`"
_RAW_BYTES: Final = 32
_ISSUER: Final = re.compile(r"[\x21-\x7e]{1,128}")
_KID: Final = re.compile(r"[0-9a-f]{32}")
_MEMBERS: Final = frozenset({"kid", "public", "sealed", "not_before", "ends_at"})


class KeyRingError(IntegrityError):
    """The ring is damaged, another farm's, or sealed with another key."""

    default_reason = "key-ring"


@dataclass(frozen=True, slots=True, kw_only=True)
class RingKey:
    """One key. It signs from `not_before` until a newer key does, and is listed until `ends_at`.

    Times are seconds since the epoch; `ends_at` is None for a key that has no successor.
    """

    kid: str
    public: bytes
    sealed: bytes
    not_before: float
    ends_at: float | None = None


@dataclass(frozen=True, slots=True)
class KeyRing:
    """Keys in order of age, and the issuer whose tokens they sign."""

    issuer: str
    keys: tuple[RingKey, ...]

    def signing(self, now: float) -> RingKey:
        """Return the newest key that may sign; the first if all start in the future."""
        started = [k for k in self.keys if k.not_before <= now]
        return started[-1] if started else self.keys[0]

    def listed(self, now: float) -> tuple[RingKey, ...]:
        """Return the keys to trust. Future keys are included, so that all peers know them early."""
        return tuple(k for k in self.keys if k.ends_at is None or k.ends_at > now)

    def is_due(self, now: float, key_seconds: float) -> bool:
        """Return whether the newest key has signed for `key_seconds`."""
        return now >= self.keys[-1].not_before + key_seconds

    def rotated(
        self, key: RingKey, now: float, *, lifetime_seconds: float, is_revoking: bool = False
    ) -> KeyRing:
        """Return a ring with a new key. Older keys end with their tokens, or now if revoked.

        Raises:
            CallerError: too many keys are still in use.
        """
        ends_at = now if is_revoking else key.not_before + lifetime_seconds
        older = (
            replace(k, ends_at=ends_at if k.ends_at is None else min(k.ends_at, ends_at))
            for k in self.listed(now)
        )
        kept = tuple(k for k in older if k.ends_at is None or k.ends_at > now)
        if len(kept) >= MAX_KEYS:
            raise CallerError(
                f"{len(kept)} keys are still in use: wait until their tokens end",
                reason="too-many-keys",
            )
        return KeyRing(self.issuer, (*kept, key))

    def to_bytes(self) -> bytes:
        keys = [
            {
                "kid": k.kid,
                "public": base64.b64encode(k.public).decode(),
                "sealed": base64.b64encode(k.sealed).decode(),
                "not_before": k.not_before,
                "ends_at": k.ends_at,
            }
            for k in self.keys
        ]
        return json.dumps({"issuer": self.issuer, "keys": keys}, sort_keys=True).encode()

    @classmethod
    def parse(cls, raw: bytes) -> KeyRing:
        """Read a ring.

        Raises:
            KeyRingError: the bytes are not a valid ring.
        """
        try:
            table = json.loads(raw)
            keys = tuple(_key(k) for k in table["keys"])
            issuer = table["issuer"]
        except (ValueError, TypeError, KeyError, RecursionError, binascii.Error) as error:
            raise KeyRingError("the key ring in the control store is damaged") from error
        is_sane = isinstance(issuer, str) and _ISSUER.fullmatch(issuer) and len(keys) > 0
        if not is_sane or len(keys) > MAX_KEYS + 1:
            raise KeyRingError("the key ring in the control store is damaged")
        return cls(issuer, keys)


def _key(row: dict[str, object]) -> RingKey:
    if set(row) != _MEMBERS:
        raise ValueError("members")
    kid, not_before, ends_at = row["kid"], row["not_before"], row["ends_at"]
    public = base64.b64decode(str(row["public"]), validate=True)
    if not isinstance(kid, str) or not _KID.fullmatch(kid) or len(public) != _RAW_BYTES:
        raise ValueError("kid")
    if not isinstance(not_before, int | float) or not isinstance(ends_at, int | float | None):
        raise TypeError("times")
    sealed = base64.b64decode(str(row["sealed"]), validate=True)
    return RingKey(
        kid=kid, public=public, sealed=sealed, not_before=not_before, ends_at=ends_at
    )  # fmt: skip


class Sealer:
    """Seals private keys with a key derived from the secret of a mounted file."""

    def __init__(self, secret: bytes) -> None:
        """Derive the key.

        Raises:
            CallerError: the secret is too short.
        """
        if len(secret.strip()) < MIN_SEAL_BYTES:
            raise CallerError(
                f"the sealing key must have at least {MIN_SEAL_BYTES} bytes: openssl rand -hex 32",
                reason="sealing-key",
            )
        key = HKDF(hashes.SHA256(), 32, None, b"hpcc key ring v1").derive(secret.strip())
        self._aead = AESGCM(key)

    def new_key(self, issuer: str, not_before: float) -> RingKey:
        """Return a new sealed key for the ring of `issuer`."""
        private = Ed25519PrivateKey.generate()
        kid = key_id(private.public_key())
        return RingKey(
            kid=kid,
            public=private.public_key().public_bytes_raw(),
            sealed=self.sealed_key(issuer, kid, private),
            not_before=not_before,
        )

    def sealed_key(self, issuer: str, kid: str, private: Ed25519PrivateKey) -> bytes:
        """Return the sealed private part of a key of the ring of `issuer`."""
        nonce = os.urandom(_NONCE_BYTES)
        return nonce + self._aead.encrypt(nonce, private.private_bytes_raw(), _bound(issuer, kid))

    def seal(self, purpose: bytes, raw: bytes) -> bytes:
        """Seal a secret. Only `unseal` with the same purpose opens it."""
        nonce = os.urandom(_NONCE_BYTES)
        return nonce + self._aead.encrypt(nonce, raw, b"purpose|" + purpose)

    def unseal(self, purpose: bytes, sealed: bytes) -> bytes:
        """Return the secret that was sealed for this purpose.

        Raises:
            KeyRingError: it was sealed with another key or for another purpose, or changed since.
        """
        nonce, rest = sealed[:_NONCE_BYTES], sealed[_NONCE_BYTES:]
        try:
            return self._aead.decrypt(nonce, rest, b"purpose|" + purpose)
        except (InvalidTag, ValueError) as error:
            raise KeyRingError(
                "a secret of the farm was sealed with another key, or changed since: give this"
                f" scheduler the sealing key of the others. {_LOST}"
            ) from error

    def open(self, issuer: str, key: RingKey) -> Ed25519PrivateKey:
        """Return the private part of a key of the ring.

        Raises:
            KeyRingError: it was sealed with another key, or does not match the public part.
        """
        nonce, sealed = key.sealed[:_NONCE_BYTES], key.sealed[_NONCE_BYTES:]
        try:
            raw = self._aead.decrypt(nonce, sealed, _bound(issuer, key.kid))
            private = Ed25519PrivateKey.from_private_bytes(raw)
        except (InvalidTag, ValueError) as error:
            raise KeyRingError(
                "the signing keys were sealed with another key, or changed since: give this"
                f" scheduler the sealing key of the others. {_LOST}"
            ) from error
        public = private.public_key()
        if public.public_bytes_raw() != key.public or key_id(public) != key.kid:
            raise KeyRingError("a public key of the ring is not its private key's")
        return private


def resealed(ring: KeyRing, old: Sealer, new: Sealer) -> KeyRing:
    """Return the same keys, sealed with another key; those that `new` opens stay as they are.

    Raises:
        KeyRingError: neither opens a key.
    """

    def sealed(key: RingKey) -> RingKey:
        try:
            new.open(ring.issuer, key)
        except KeyRingError:
            private = old.open(ring.issuer, key)
            return replace(key, sealed=new.sealed_key(ring.issuer, key.kid, private))
        return key

    return replace(ring, keys=tuple(map(sealed, ring.keys)))


def derive_secret(private: Ed25519PrivateKey, purpose: str) -> bytes:
    """Return 32 secret bytes derived from a key. They reveal nothing about the key."""
    raw = private.private_bytes(
        serialization.Encoding.Raw, serialization.PrivateFormat.Raw, serialization.NoEncryption()
    )
    return HKDF(hashes.SHA256(), 32, None, f"hpcc {purpose}".encode()).derive(raw)


def _bound(issuer: str, kid: str) -> bytes:
    return f"{issuer}|{kid}".encode()
