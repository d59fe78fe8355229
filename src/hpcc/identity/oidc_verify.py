"""The whole decision whether an identity provider's token lets somebody in; does no I/O.

Sources: RFC 7519 and 8725 (JWT and its best practice), OpenID Connect Core 1.0 §3.1.3.7,
RFC 9068 (access tokens). The signature is checked by PyJWT; what is claimed is checked here, on
the clock that is passed in.
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
from hpcc.identity.oidc_keys import ALGORITHMS, MAX_KID_CHARS, ProviderKey
from hpcc.identity.token import MAX_PRINCIPAL_CHARS
from hpcc.ports import Clock

# Half of what gRPC metadata may hold; tokens of providers that list groups reach 4 KiB.
MAX_IDP_TOKEN_CHARS: Final = 6 << 10
MAX_CLOCK_SKEW_SECONDS: Final = 60.0
MAX_IDP_LIFETIME_SECONDS: Final = 24 * 3600.0
MAX_AUDIENCES: Final = 32
DEFAULT_ALGORITHMS: Final = ("RS256", "PS256", "ES256", "ES384", "EdDSA")
PrincipalClaim = Literal["sub", "email"]
# Not a logout token, a DPoP proof, a security event or a route token of ours.
_TYPES: Final = frozenset({"jwt", "at+jwt", "application/at+jwt"})
_PART: Final = re.compile(r"[A-Za-z0-9_-]+")


class IdpTokenError(PolicyError):
    """The provider's token does not let its holder in; `hpcc login` gets another."""

    default_reason = "idp-token"


@dataclass(frozen=True, slots=True, kw_only=True)
class IdentityPolicy:
    """Whose tokens a tenant takes.

    `client_ids`: the clients that may have asked for a token; empty for workload identities,
    whose providers name none. `claims`: names with the values of which one must be there, for
    providers that serve others than this tenant too.
    """

    issuer: str
    audience: str
    client_ids: tuple[str, ...] = ()
    claims: tuple[tuple[str, tuple[str, ...]], ...] = ()
    algorithms: tuple[str, ...] = DEFAULT_ALGORITHMS
    principal_claim: PrincipalClaim = "sub"


@dataclass(frozen=True, slots=True)
class IdpIdentity:
    """Who a token is about, and until when it is believed (seconds since the epoch)."""

    principal: str
    expires_at: float


@dataclass(frozen=True, slots=True)
class TokenHeader:
    """What a token says of its own signature; a key and nothing else is chosen by it."""

    algorithm: str
    kid: str | None


def read_header(token: str, policy: IdentityPolicy) -> TokenHeader:
    """Read and judge a header before any key is asked for.

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
    """Return who a token is about. `keys` are those of `policy.issuer` and of nobody else.

    Raises:
        IdpTokenError: anything is wrong; `reason` says what, the text holds no part of it.
    """
    header = read_header(token, policy)
    key = _key(header, keys)
    try:
        payload = jwt.PyJWS().decode(token, key, algorithms=[header.algorithm])
    except (jwt.PyJWTError, ValueError, TypeError) as error:
        raise IdpTokenError("token signature is wrong", reason="idp-token-signature") from error
    claims = _json_object(payload)
    # RFC 7800: whoever shows it must also show that they hold a key (mutual TLS, DPoP). Nobody is
    # asked for that here, and to let anybody in with such a token would undo what it is bound for.
    if "cnf" in claims:
        raise IdpTokenError(
            "token is bound to a key of its client: have the provider give unbound ones",
            reason="idp-token-bound",
        )
    _check_recipient(claims, policy)
    expires_at = _check_times(claims, clock.now())
    return IdpIdentity(_principal(claims, policy), expires_at)


def _key(header: TokenHeader, keys: Sequence[ProviderKey]) -> jwt.PyJWK:
    # By name first: anybody can send a token, and making 64 keys of numbers takes milliseconds.
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
    # `azp` in ID tokens, `client_id` in access tokens: neither may name a client we do not know.
    named = [claims[n] for n in ("azp", "client_id") if n in claims]
    if policy.client_ids and any(n not in policy.client_ids for n in named):
        raise IdpTokenError("token was given to another client", reason="idp-token-client")
    is_id_token = len(audiences) == 1 and policy.audience in policy.client_ids
    if policy.client_ids and not named and not is_id_token:
        raise IdpTokenError("token does not say to which client", reason="idp-token-client")
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
        raise IdpTokenError("token lives longer than a day", reason="idp-token-lifetime")
    if expires_at + MAX_CLOCK_SKEW_SECONDS <= now:
        raise IdpTokenError("token has expired: run `hpcc login`", reason="idp-token-expired")
    return expires_at + MAX_CLOCK_SKEW_SECONDS


def _time(claims: Mapping[str, object], name: str) -> float:
    value = claims.get(name)
    # bool is an int; NaN compares false with everything and would pass every check.
    if isinstance(value, bool) or not isinstance(value, int | float) or not 0 <= value < 1 << 53:
        raise IdpTokenError(f"token has no {name}", reason="idp-token-malformed")
    return float(value)


def _principal(claims: Mapping[str, object], policy: IdentityPolicy) -> str:
    value = claims.get(policy.principal_claim)
    if policy.principal_claim == "email" and claims.get("email_verified") is not True:
        raise IdpTokenError("the e-mail address is not verified", reason="idp-token-principal")
    # It is shown on terminals and compared by people: nothing invisible, nothing that reorders.
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
    """Read the claims of a token without believing them: for display and for renewing in time.

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
