"""Decides whether an identity provider's token admits its holder. Does no I/O.

A tenant's users and jobs log in with tokens that a provider outside the farm signs. Such a provider
may be shared: it also signs tokens for other services, other clients and other purposes. A valid
signature is therefore not enough.

The checks run in this order, and the first that fails raises `IdpTokenError` with its reason:

1. Size and form: at most `MAX_IDP_TOKEN_CHARS`, three base64url parts.
2. Header: a known `typ`, no `crit`, and an algorithm that the tenant accepts. Only the algorithm
   and the key name (`kid`) are used from the unverified token, and only to select a key. A `jwk`,
   `jku` or `x5c` member has no effect.
3. Key and signature: exactly one key of the tenant's issuer must fit. PyJWT checks the signature.
4. Binding: a token with `cnf` is refused, because this service does not check the binding.
5. Recipient: `iss`, `aud`, then the client (`azp`, `client_id`), then the claims of the policy.
6. Time: not yet valid, a lifetime over one day, or expired, on the clock that is passed in.
7. Principal: `sub`, or `email` if the provider has verified it. It must be printable.

Example: a caller shows a token with `iss` of the tenant's provider and `aud` of this farm, but
`azp` names a chat service. The provider issued it to that service, which could use it here in the
user's place. A policy with other `client_ids` refuses it in step 5, with `idp-token-client`.

What must never happen: a claim is used before the signature was checked; a token chooses its
algorithm outside of the tenant's list (`none`, or HMAC with a public key as the secret); keys of
one issuer verify tokens of another; an error text contains a part of the token.

Sources: RFC 7519 and 8725 (JWT and its best practice), OpenID Connect Core 1.0 §3.1.3.7,
RFC 9068 (access tokens).
"""

from __future__ import annotations

import base64
import binascii
import json
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Final, Literal

import jwt

from hpcc.core import PolicyError
from hpcc.identity.oidc.keys import ALGORITHMS, MAX_KID_CHARS, ProviderKey
from hpcc.identity.token import MAX_PRINCIPAL_CHARS
from hpcc.ports import Clock

# Half of what gRPC metadata may hold. Tokens of providers that list groups reach 4 KiB.
MAX_IDP_TOKEN_CHARS: Final = 6 << 10
MAX_CLOCK_SKEW_SECONDS: Final = 60.0
MAX_IDP_LIFETIME_SECONDS: Final = 24 * 3600.0
MAX_AUDIENCES: Final = 32
DEFAULT_ALGORITHMS: Final = ("RS256", "PS256", "ES256", "ES384", "EdDSA")
PrincipalClaim = Literal["sub", "email"]
# Excludes logout tokens, DPoP proofs, security events and hpcc's route tokens.
_TYPES: Final = frozenset({"jwt", "at+jwt", "application/at+jwt"})
_PART: Final = re.compile(r"[A-Za-z0-9_-]+")


class IdpTokenError(PolicyError):
    """The provider's token does not admit its holder; `hpcc login` gets a new one."""

    default_reason = "idp-token"


@dataclass(frozen=True, slots=True, kw_only=True)
class IdentityPolicy:
    """Which tokens a tenant accepts.

    `client_ids`: the clients that may have requested the token; empty for workload identities,
    whose providers name no client. `claims`: claim names, each with accepted values, of which the
    token must have one. They are for providers that serve more than this tenant.
    """

    issuer: str
    audience: str
    client_ids: tuple[str, ...] = ()
    claims: tuple[tuple[str, tuple[str, ...]], ...] = ()
    algorithms: tuple[str, ...] = DEFAULT_ALGORITHMS
    principal_claim: PrincipalClaim = "sub"


@dataclass(frozen=True, slots=True)
class IdpIdentity:
    """The principal of a token, and until when it is accepted (seconds since the epoch)."""

    principal: str
    expires_at: float


@dataclass(frozen=True, slots=True)
class TokenHeader:
    """What a token claims about its signature. It only selects a key."""

    algorithm: str
    kid: str | None


def read_header(token: str, policy: IdentityPolicy) -> TokenHeader:
    """Return the checked header. Call this before any key is fetched.

    Raises:
        IdpTokenError: too long, malformed, or an algorithm or type that is not accepted.
    """
    if len(token) > MAX_IDP_TOKEN_CHARS:
        raise IdpTokenError("token is too long", reason="idp-token-oversized")
    parts = token.split(".")
    if len(parts) != 3 or not all(_PART.fullmatch(p) for p in parts):  # noqa: PLR2004 - header, body, signature
        raise IdpTokenError("not a signed JWT", reason="idp-token-malformed")
    header = _object(parts[0])
    kind = header.get("typ", "JWT")
    if "crit" in header or not isinstance(kind, str) or kind.lower() not in _TYPES:
        raise IdpTokenError("a JWT of another kind", reason="idp-token-type")
    algorithm, kid = header.get("alg"), header.get("kid")
    if algorithm not in policy.algorithms or algorithm not in ALGORITHMS:
        raise IdpTokenError(
            "token is signed with an algorithm that this tenant does not accept",
            reason="idp-token-algorithm",
        )
    if kid is not None and (not isinstance(kid, str) or len(kid) > MAX_KID_CHARS):
        raise IdpTokenError("not a signed JWT", reason="idp-token-malformed")
    return TokenHeader(str(algorithm), kid)


def verify_idp_token(
    token: str, policy: IdentityPolicy, keys: Sequence[ProviderKey], clock: Clock
) -> IdpIdentity:
    """Return the principal of a token. `keys` must be the keys of `policy.issuer` and no others.

    Raises:
        IdpTokenError: a check failed; `reason` names it, and the text holds no part of the token.
    """
    claims, expires_at = verified_claims(token, policy, keys, clock)
    return IdpIdentity(_principal(claims, policy), expires_at)


def verified_claims(
    token: str, policy: IdentityPolicy, keys: Sequence[ProviderKey], clock: Clock
) -> tuple[Mapping[str, object], float]:
    """Return all claims of a token, and until when it is accepted. Its principal is not checked.

    Raises:
        IdpTokenError: as `verify_idp_token`.
    """
    header = read_header(token, policy)
    key = _key(header, keys)
    try:
        payload = jwt.PyJWS().decode(token, key, algorithms=[header.algorithm])
    except (jwt.PyJWTError, ValueError, TypeError) as error:
        raise IdpTokenError("token signature is wrong", reason="idp-token-signature") from error
    claims = _json_object(payload)
    # RFC 7800: the holder must also prove that they hold a key (mutual TLS, DPoP). This service
    # does not ask for that proof, and accepting the token without it would defeat the binding.
    if "cnf" in claims:
        raise IdpTokenError(
            "token is bound to a key of its client: configure the provider to issue unbound tokens",
            reason="idp-token-bound",
        )
    _check_recipient(claims, policy)
    return claims, _check_times(claims, clock.now())


def _key(header: TokenHeader, keys: Sequence[ProviderKey]) -> jwt.PyJWK:
    # Select by name first: anybody can send a token, and parsing 64 keys takes milliseconds.
    named = [k for k in keys if header.kid is None or k.kid == header.kid]
    fitting = [made for k in named if (made := k.for_algorithm(header.algorithm)) is not None]
    if len(fitting) != 1:
        raise IdpTokenError(
            "token is signed by no key of this tenant's identity provider",
            reason="idp-token-unknown-key",
        )
    return fitting[0]


def _check_recipient(claims: Mapping[str, object], policy: IdentityPolicy) -> None:
    if claims.get("iss") != policy.issuer:
        raise IdpTokenError("token is of another issuer", reason="idp-token-issuer")
    audience = claims.get("aud")
    audiences = audience if isinstance(audience, list) else [audience]
    if len(audiences) > MAX_AUDIENCES or policy.audience not in audiences:
        raise IdpTokenError("token is for another service", reason="idp-token-audience")
    # `azp` in ID tokens, `client_id` in access tokens: both may only name known clients.
    named = [claims[n] for n in ("azp", "client_id") if n in claims]
    if policy.client_ids and any(n not in policy.client_ids for n in named):
        raise IdpTokenError("token was issued to another client", reason="idp-token-client")
    is_id_token = len(audiences) == 1 and policy.audience in policy.client_ids
    if policy.client_ids and not named and not is_id_token:
        raise IdpTokenError("token does not name its client", reason="idp-token-client")
    for name, wanted in policy.claims:
        value = claims.get(name)
        if not any(v in wanted for v in (value if isinstance(value, list) else [value])):
            raise IdpTokenError(f"token has another {name}", reason="idp-token-claim")


def _check_times(claims: Mapping[str, object], now: float) -> float:
    expires_at, issued_at = _time(claims, "exp"), _time(claims, "iat")
    not_before = _time(claims, "nbf") if "nbf" in claims else issued_at
    if max(issued_at, not_before) > now + MAX_CLOCK_SKEW_SECONDS:
        raise IdpTokenError("token is not valid yet", reason="idp-token-not-yet")
    if expires_at - issued_at > MAX_IDP_LIFETIME_SECONDS:
        raise IdpTokenError("token is valid for more than a day", reason="idp-token-lifetime")
    if expires_at + MAX_CLOCK_SKEW_SECONDS <= now:
        raise IdpTokenError("token has expired: run `hpcc login`", reason="idp-token-expired")
    return expires_at + MAX_CLOCK_SKEW_SECONDS


def _time(claims: Mapping[str, object], name: str) -> float:
    value = claims.get(name)
    # bool is an int. NaN compares false with everything and would pass every check.
    if isinstance(value, bool) or not isinstance(value, int | float) or not 0 <= value < 1 << 53:
        raise IdpTokenError(f"token has no {name}", reason="idp-token-malformed")
    return float(value)


def _principal(claims: Mapping[str, object], policy: IdentityPolicy) -> str:
    value = claims.get(policy.principal_claim)
    if policy.principal_claim == "email" and claims.get("email_verified") is not True:
        raise IdpTokenError("the e-mail address is not verified", reason="idp-token-principal")
    # Terminals show it and people compare it: no invisible and no reordering characters.
    if (
        not isinstance(value, str)
        or not 0 < len(value) <= MAX_PRINCIPAL_CHARS
        or not value.isprintable()
        or value != value.strip()
    ):
        raise IdpTokenError(
            f"token names nobody: `{policy.principal_claim}` must be 1 to {MAX_PRINCIPAL_CHARS}"
            " printable characters",
            reason="idp-token-principal",
        )
    return value


def peek_claims(token: str) -> Mapping[str, object]:
    """Return the unverified claims of a token, for display and to schedule its renewal only.

    Raises:
        IdpTokenError: not a JWT.
    """
    parts = token.split(".")
    if len(token) > MAX_IDP_TOKEN_CHARS or len(parts) != 3:  # noqa: PLR2004 - header, body, signature
        raise IdpTokenError("not a signed JWT", reason="idp-token-malformed")
    return _object(parts[1])


def _object(part: str) -> Mapping[str, object]:
    try:
        return _json_object(base64.urlsafe_b64decode(part + "=" * (-len(part) % 4)))
    except (binascii.Error, ValueError) as error:
        raise IdpTokenError("not a signed JWT", reason="idp-token-malformed") from error


def _json_object(raw: bytes) -> Mapping[str, object]:
    try:
        value = json.loads(raw)
    except (ValueError, RecursionError) as error:
        raise IdpTokenError("not a signed JWT", reason="idp-token-malformed") from error
    if not isinstance(value, dict):
        raise IdpTokenError("not a signed JWT", reason="idp-token-malformed")
    return value
