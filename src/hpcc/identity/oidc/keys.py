"""An identity provider's public keys: what they may verify, and when to refresh."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final

import jwt
from cryptography.hazmat.primitives.asymmetric import ec, ed25519, rsa

from hpcc.core import HpccError, IntegrityError
from hpcc.identity.oidc.http import ProviderError, ProviderHttp
from hpcc.identity.oidc.provider import discover
from hpcc.ports import Clock

MAX_JWKS_BYTES: Final = 256 << 10
MAX_KEYS: Final = 64
MAX_KID_CHARS: Final = 256
MIN_RSA_BITS: Final = 2048
# The time to verify grows at least with the square of the bits.
MAX_RSA_BITS: Final = 8192
# Public key signatures only: anybody can sign with "none", any reader of the key set with HS*.
ALGORITHMS: Final = (
    "RS256", "RS384", "RS512", "PS256", "PS384", "PS512", "ES256", "ES384", "ES512", "EdDSA",
)  # fmt: skip
_CURVES: Final[Mapping[str, str]] = {
    "ES256": "secp256r1", "ES384": "secp384r1", "ES512": "secp521r1",
}  # fmt: skip


@dataclass(frozen=True, slots=True)
class ProviderKey:
    """A key and the one algorithm family that it fits; `kid` may be empty."""

    kid: str
    jwk: Mapping[str, object]

    def for_algorithm(self, algorithm: str) -> jwt.PyJWK | None:
        """Return the key to verify this algorithm with; None if the key does not fit it."""
        if algorithm not in ALGORITHMS or self.jwk.get("alg", algorithm) != algorithm:
            return None
        try:
            key = jwt.PyJWK(dict(self.jwk), algorithm)
        except (jwt.PyJWTError, ValueError, TypeError, AttributeError):
            return None
        return key if _fits(key.key, algorithm) else None


def _fits(key: object, algorithm: str) -> bool:
    if algorithm[:2] in {"RS", "PS"}:
        return isinstance(key, rsa.RSAPublicKey) and MIN_RSA_BITS <= key.key_size <= MAX_RSA_BITS
    if algorithm == "EdDSA":
        return isinstance(key, ed25519.Ed25519PublicKey)
    return isinstance(key, ec.EllipticCurvePublicKey) and key.curve.name == _CURVES[algorithm]


def parse_keys(body: Mapping[str, object]) -> tuple[ProviderKey, ...]:
    """Return the keys of a JWK set (RFC 7517); keys that cannot sign tokens are left out.

    Raises:
        IntegrityError: not a key set, or too many keys.
    """
    listed = body.get("keys")
    if not isinstance(listed, list) or len(listed) > MAX_KEYS:
        raise IntegrityError(
            f"the identity provider's key set is malformed, or has more than {MAX_KEYS} keys",
            reason="idp-keys",
        )
    found: list[ProviderKey] = []
    for jwk in listed:
        if isinstance(jwk, dict) and _is_usable(jwk):
            # Only public members: a provider may leak a private key into the set.
            public = {
                n: v for n, v in jwk.items() if n in {"kty", "n", "e", "crv", "x", "y", "alg"}
            }
            found.append(ProviderKey(str(jwk.get("kid", "")), public))
    return tuple(found)


def _is_usable(jwk: Mapping[str, object]) -> bool:
    kid, operations = jwk.get("kid", ""), jwk.get("key_ops", ["verify"])
    kind = jwk.get("kty")
    return (
        isinstance(kind, str)
        and kind in {"RSA", "EC", "OKP"}
        and jwk.get("use", "sig") == "sig"
        and isinstance(operations, list)
        and "verify" in operations
        and isinstance(kid, str)
        and len(kid) <= MAX_KID_CHARS
    )


@dataclass(frozen=True, slots=True, kw_only=True)
class KeyCacheLimits:
    """Limits in seconds. Keys are requested when they are old, or a token names an unknown key."""

    # Withdrawn keys are trusted no longer than this.
    fresh_seconds: float = 3600.0
    # While the provider is down, users with valid tokens keep access for this long.
    stale_seconds: float = 6 * 3600.0
    # A flood of tokens with invented key names causes one request in this time.
    refresh_every_seconds: float = 30.0
    retry_seconds: float = 5.0
    # Callers that wait for the provider, each inside a call to the scheduler. A provider that
    # stalls on purpose must leave calls for other tenants.
    max_waiting: int = 128


class KeyCache:
    """The keys of one issuer. Concurrent callers share one request."""

    def __init__(
        self, issuer: str, http: ProviderHttp, clock: Clock, limits: KeyCacheLimits | None = None
    ) -> None:
        self._issuer, self._http, self._clock = issuer, http, clock
        self._limits = limits or KeyCacheLimits()
        self._asking: asyncio.Task[None] | None = None
        self._waiting = 0
        self._keys: tuple[ProviderKey, ...] = ()
        self._fetched_at = self._tried_at = float("-inf")
        self._failure: HpccError | None = None

    async def keys(self, kid: str | None) -> tuple[ProviderKey, ...]:
        """Return the keys; they are requested again if they are old or lack `kid`.

        Raises:
            ProviderError, IntegrityError: no usable keys, or too many callers wait.
        """
        asking = self._asking
        if asking is None and self._must_ask(kid):
            asking = self._asking = asyncio.Task(self._ask(), name="provider keys")
        elif asking is not None and self._knows(kid) and not self._is_stale():
            # A provider that stalls delays only the caller that started the request.
            return self._keys
        if asking is not None:
            await self._wait(asking)
        if self._is_stale():
            raise self._failure or ProviderError("the identity provider's keys are too old")
        return self._keys

    async def _wait(self, asking: asyncio.Task[None]) -> None:
        if self._waiting >= self._limits.max_waiting:
            raise ProviderError("too many callers wait for the identity provider's keys")
        self._waiting += 1
        try:
            # A cancelled caller must not cancel the request that others wait for.
            await asyncio.shield(asking)
        finally:
            self._waiting -= 1

    def _knows(self, kid: str | None) -> bool:
        return kid is None or any(k.kid == kid for k in self._keys)

    def _is_stale(self) -> bool:
        return self._clock.monotonic() - self._fetched_at > self._limits.stale_seconds

    def _must_ask(self, kid: str | None) -> bool:
        now, limits = self._clock.monotonic(), self._limits
        if now - self._fetched_at > limits.fresh_seconds:
            return now - self._tried_at >= limits.retry_seconds
        return not self._knows(kid) and now - self._tried_at >= limits.refresh_every_seconds

    async def _ask(self) -> None:
        try:
            provider = await discover(self._http, self._issuer)
            answer = await self._http.get(
                provider.jwks_uri, max_bytes=MAX_JWKS_BYTES, issuer=self._issuer
            )
            self._keys = parse_keys(answer.body)
        except HpccError as error:
            self._failure = error
        else:
            self._fetched_at, self._failure = self._clock.monotonic(), None
        finally:
            # Set at the end: callers that waited use this answer and start no further request.
            self._tried_at, self._asking = self._clock.monotonic(), None
