"""Keys and tokens of a made-up identity provider.

`mint` signs `claims` with a `MintKey`; `policy` is a tenant's matching identity policy.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Final

import jwt
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import ec, ed25519, rsa

from hpcc.identity.oidc.verify import IdentityPolicy

ISSUER: Final = "https://login.acme.example"
AUDIENCE: Final = "hpcc"
NOW: Final = 1_800_000_000.0


class FixedClock:
    """A clock that a test sets; `sleep` advances only this clock."""

    def __init__(self, now: float = NOW) -> None:
        self.time = now
        self.slept: list[float] = []

    def now(self) -> float:
        return self.time

    def monotonic(self) -> float:
        return self.time

    async def sleep(self, seconds: float) -> None:
        self.slept.append(seconds)
        self.time += seconds


@dataclass(frozen=True, slots=True)
class MintKey:
    """A signing key; `algorithm` is its default signature algorithm."""

    kid: str
    algorithm: str = "ES256"
    # Any, because the three kinds of private key have no common base class with `sign`.
    private: Any = field(default=None, repr=False)

    @classmethod
    def make(cls, kid: str, algorithm: str = "ES256", *, rsa_bits: int = 2048) -> MintKey:
        private: Any
        if algorithm == "EdDSA":
            private = ed25519.Ed25519PrivateKey.generate()
        elif algorithm.startswith("ES"):
            private = ec.generate_private_key(
                ec.SECP384R1() if algorithm == "ES384" else ec.SECP256R1()
            )
        else:
            private = rsa.generate_private_key(public_exponent=65537, key_size=rsa_bits)
        return cls(kid, algorithm, private)

    def jwk(self, **changes: object) -> dict[str, object]:
        """Return the public key as a key set holds it; None leaves a member out."""
        written = jwt.get_algorithm_by_name(self.algorithm).to_jwk(self.private.public_key())
        jwk = {**json.loads(str(written)), "kid": self.kid, "use": "sig", **changes}
        jwk.pop("key_ops", None)
        return {n: v for n, v in jwk.items() if v is not None}

    @property
    def public_pem(self) -> bytes:
        pem: bytes = self.private.public_key().public_bytes(
            serialization.Encoding.PEM, serialization.PublicFormat.SubjectPublicKeyInfo
        )
        return pem


def claims(**changes: object) -> dict[str, object]:
    """Return the claims of a good access token; None leaves one out."""
    good: dict[str, object] = {
        "iss": ISSUER,
        "aud": AUDIENCE,
        "sub": "ann",
        "client_id": "hpcc-cli",
        "iat": int(NOW) - 10,
        "exp": int(NOW) + 300,
        **changes,
    }
    return {n: v for n, v in good.items() if v is not None}


def mint(key: MintKey, body: Mapping[str, object] | None = None, **header: object) -> str:
    """Sign a token; a header member that is None is left out."""
    members = {n: v for n, v in {"kid": key.kid, **header}.items() if v is not None}
    return jwt.PyJWS().encode(
        json.dumps(claims() if body is None else body).encode(),
        key.private,
        algorithm=key.algorithm,
        headers=members,
    )


def policy(**changes: object) -> IdentityPolicy:
    """Return the identity policy of tenant acme."""
    values: dict[str, object] = {
        "issuer": ISSUER,
        "audience": AUDIENCE,
        "client_ids": ("hpcc-cli", "hpcc-ci"),
        **changes,
    }
    return IdentityPolicy(**values)  # type: ignore[arg-type]  # built by name just above
