"""Route tokens: the scheduler's signed statement that a principal may use one worker for one image.

The compact form is a JWS (RFC 7515, RFC 8037) with one fixed header shape. hpcc has its own parser
because the risk of such tokens lies in their options. This parser accepts one algorithm, rejects
`crit`, `jwk`, `jku` and `x5c`, and rejects unknown members.
"""

from __future__ import annotations

import base64
import binascii
import json
import re
from collections.abc import Mapping
from dataclasses import asdict, dataclass, fields
from typing import Final, cast

from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey, Ed25519PublicKey

from hpcc.core import (
    MAX_VERIFY_SECONDS,
    CallerError,
    GuestReuse,
    ImageDigest,
    Isolation,
    PolicyError,
    SharingPolicy,
    TenantId,
)
from hpcc.core.memo import LruMemo
from hpcc.ports import Clock

MAX_TOKEN_CHARS: Final = 2048
# About 4 KiB each. A principal with a build under way has one.
_MAX_SIGNED: Final = 1024
MAX_LIFETIME_SECONDS: Final = 600.0
# Clocks of scheduler and worker may differ by this much.
MAX_SKEW_SECONDS: Final = 30.0
MAX_PRINCIPAL_CHARS: Final = 128
_ALG: Final = "EdDSA"
_TYP: Final = "hpcc-route+jwt"
_BASE64URL: Final = re.compile(r"[A-Za-z0-9_-]+")
_PLAIN: Final = re.compile(r"[\x21-\x7e]{1,128}")
_KEY: Final = re.compile(r"(?:[0-9a-f]{64})?")
_VOTER: Final = re.compile(r"[A-Za-z0-9._-]{1,64}:[0-9a-f]{32}")
_PRINCIPAL: Final = re.compile(r"[^\x00-\x1f\x7f]{1,128}")


class TokenError(PolicyError):
    """The token is not valid at this time or worker; ask the scheduler for another route."""

    default_reason = "token"


@dataclass(frozen=True, slots=True, kw_only=True)
class RouteQuotas:
    """What a tenant may use of one worker; 0 means no limit. Bytes count uncompressed blobs."""

    concurrent_execs: int = 0
    upload_bytes: int = 0
    upload_window_seconds: int = 3600
    cache_bytes: int = 0


@dataclass(frozen=True, slots=True, kw_only=True)
class RouteShare:
    """What one principal may use of one worker, of a tenant's quotas; 0 means no limit.

    A principal with several routes has a share on each worker. The shares sum up to the quotas.
    """

    in_flight: int = 0
    upload_bytes: int = 0


@dataclass(frozen=True, slots=True, kw_only=True)
class RouteSharing:
    """What the tenant accepts of colleagues' results, and the caller as a voter.

    `voter` is an epoch and a pseudonym (`hpcc.reapi.claims.Voter`). `verify_seconds` is how long an
    idle worker may execute private results of the tenant again, in each hour.
    """

    policy: SharingPolicy
    voter: str
    # Only workers that know it get another value than 0.
    verify_seconds: int = 0


@dataclass(frozen=True, slots=True, kw_only=True)
class RouteClaims:
    """What a token grants. Times are seconds since the epoch, UTC.

    `audience` is the key id of the only worker that may accept it. `rights` is a subset of "cache"
    (CAS and action cache reads, uploads) and "execute".
    """

    issuer: str
    subject: str
    tenant: TenantId
    audience: str
    image: ImageDigest
    minimum_isolation: Isolation
    generation: int
    rights: frozenset[str]
    # The tenant's policy. A stricter worker keeps its setting; this default leaves it the choice.
    guest_reuse: GuestReuse = GuestReuse.TENANT
    quotas: RouteQuotas = RouteQuotas()
    # None where the principal has one route. Only workers that know this claim get it.
    share: RouteShare | None = None
    # Whether a compile needs a place that the worker has leased for this principal.
    leased: bool = False
    # None where results serve their principal only. Only workers that know this claim get it.
    sharing: RouteSharing | None = None
    # The raw Ed25519 key that the user of the token must hold; empty for a bearer token.
    client_key: bytes = b""
    not_before: float
    expires_at: float
    token_id: str
    client_version: str = ""


class TokenSigner:
    """Signs claims with one Ed25519 key."""

    def __init__(self, key: Ed25519PrivateKey, *, kid: str) -> None:
        self._key = key
        self._header = _encode(_json({"alg": _ALG, "kid": kid, "typ": _TYP}))

    def sign(self, claims: RouteClaims) -> str:
        body: dict[str, object] = {
            "aud": claims.audience,
            "cv": claims.client_version,
            "exp": claims.expires_at,
            "gen": claims.generation,
            "img": claims.image.value,
            "iso": claims.minimum_isolation.value,
            "iss": claims.issuer,
            "jti": claims.token_id,
            "key": claims.client_key.hex(),
            "nbf": claims.not_before,
            "quotas": asdict(claims.quotas),
            "reuse": claims.guest_reuse.value,
            "rights": sorted(claims.rights),
            "sub": claims.subject,
            "tenant": claims.tenant.value,
        }
        if claims.share is not None:
            body["share"] = asdict(claims.share)
        if claims.leased:
            body["leased"] = True
        if claims.sharing is not None:
            shared = claims.sharing
            seconds = [shared.verify_seconds] if shared.verify_seconds else []
            body["sharing"] = [shared.policy.text, shared.voter, *seconds]
        signed = f"{self._header}.{_encode(_json(body))}"
        return f"{signed}.{_encode(self._key.sign(signed.encode()))}"


class TokenVerifier:
    """Decides whether a token is valid at one worker. Does no I/O."""

    def __init__(
        self, *, keys: Mapping[str, Ed25519PublicKey], issuer: str, audience: str, clock: Clock
    ) -> None:
        self._keys, self._issuer = dict(keys), issuer
        self._audience, self._clock = audience, clock
        # The claims of tokens with a good signature, which each call of a build shows again.
        self._signed: LruMemo[str, RouteClaims] = LruMemo(_MAX_SIGNED)

    def verify(self, token: str) -> RouteClaims:
        """Return the claims of a token that is valid at this worker now.

        Raises:
            TokenError: a check failed; `reason` names it, and the text holds no part of the token.
        """
        if len(token) > MAX_TOKEN_CHARS:
            raise TokenError("token is too long", reason="token-oversized")
        claims = self._signed.use(token)
        if claims is None:
            claims = self._signed[token] = self._signed_claims(token)
        self._check(claims)
        return claims

    def _signed_claims(self, token: str) -> RouteClaims:
        parts = token.split(".")
        if len(parts) != 3:  # noqa: PLR2004 - header, body, signature
            raise TokenError("token is malformed", reason="token-malformed")
        key = self._key_of(_object(parts[0]))
        try:
            key.verify(_decode(parts[2]), f"{parts[0]}.{parts[1]}".encode())
        except InvalidSignature as error:
            raise TokenError("token signature is wrong", reason="token-signature") from error
        return _claims(_object(parts[1]))

    def _key_of(self, header: Mapping[str, object]) -> Ed25519PublicKey:
        if set(header) != {"alg", "kid", "typ"}:
            raise TokenError("token header has other members", reason="token-malformed")
        # Checked before any key is read: a token never chooses how it is verified.
        if header["alg"] != _ALG or header["typ"] != _TYP:
            raise TokenError("token algorithm or type is not hpcc's", reason="token-algorithm")
        kid = header["kid"]
        key = self._keys.get(kid) if isinstance(kid, str) else None
        if key is None:
            raise TokenError("token is signed by an unknown key", reason="token-unknown-key")
        return key

    def _check(self, claims: RouteClaims) -> None:
        now = self._clock.now()
        if claims.issuer != self._issuer:
            raise TokenError("token is of another scheduler", reason="token-issuer")
        if claims.audience != self._audience:
            raise TokenError("token is for another worker", reason="token-audience")
        if claims.expires_at - claims.not_before > MAX_LIFETIME_SECONDS + MAX_SKEW_SECONDS:
            raise TokenError("token is valid for too long", reason="token-lifetime")
        if now < claims.not_before - MAX_SKEW_SECONDS:
            raise TokenError("token is not valid yet", reason="token-not-yet")
        if now >= claims.expires_at:
            raise TokenError("token has expired", reason="token-expired")


def _json(value: Mapping[str, object]) -> bytes:
    return json.dumps(value, sort_keys=True, separators=(",", ":")).encode()


def _encode(data: bytes) -> str:
    return base64.urlsafe_b64encode(data).rstrip(b"=").decode()


def _decode(text: str) -> bytes:
    if not _BASE64URL.fullmatch(text):
        raise TokenError("token is malformed", reason="token-malformed")
    try:
        data = base64.urlsafe_b64decode(text + "=" * (-len(text) % 4))
    except (binascii.Error, ValueError) as error:
        raise TokenError("token is malformed", reason="token-malformed") from error
    # Stray low bits would allow several spellings of one signature.
    if _encode(data) != text:
        raise TokenError("token is malformed", reason="token-malformed")
    return data


def _object(part: str) -> Mapping[str, object]:
    try:
        value = json.loads(_decode(part))
    except (ValueError, RecursionError) as error:
        raise TokenError("token is malformed", reason="token-malformed") from error
    if not isinstance(value, dict):
        raise TokenError("token is malformed", reason="token-malformed")
    return value


_TYPES: Final[Mapping[str, type]] = {
    "aud": str, "cv": str, "exp": float, "gen": int, "img": str, "iso": str, "iss": str,
    "jti": str, "key": str, "nbf": float, "quotas": dict, "reuse": str, "rights": list, "sub": str,
    "tenant": str,
}  # fmt: skip
# Claims that only workers get that know them.
_OPTIONAL: Final = ("share", "leased", "sharing")


def _claims(body: Mapping[str, object]) -> RouteClaims:
    share, leased, sharing = body.get("share"), body.get("leased"), body.get("sharing")
    body = {n: v for n, v in body.items() if n not in _OPTIONAL or v is None}
    if leased is not None and leased is not True:
        raise TokenError("token claims are malformed", reason="token-malformed")
    if set(body) != set(_TYPES) or any(type(body[n]) is not t for n, t in _TYPES.items()):
        raise TokenError("token claims are malformed", reason="token-malformed")
    text = {n: v for n, v in body.items() if isinstance(v, str)}
    rights = cast("list[object]", body["rights"])
    if (
        not all(_PLAIN.fullmatch(text[n]) for n in ("aud", "iss", "jti"))
        or not _PRINCIPAL.fullmatch(text["sub"])
        or not _KEY.fullmatch(text["key"])
        or not all(isinstance(r, str) and r in {"cache", "execute"} for r in rights)
    ):
        raise TokenError("token claims are malformed", reason="token-malformed")
    try:
        return RouteClaims(
            issuer=text["iss"],
            subject=text["sub"],
            tenant=TenantId(text["tenant"]),
            audience=text["aud"],
            image=ImageDigest(text["img"]),
            minimum_isolation=Isolation(text["iso"]),
            generation=cast("int", body["gen"]),
            rights=frozenset(cast("list[str]", rights)),
            guest_reuse=GuestReuse(text["reuse"]),
            client_key=bytes.fromhex(text["key"]),
            quotas=_numbers(RouteQuotas, body["quotas"]),
            share=None if share is None else _numbers(RouteShare, share),
            leased=leased is True,
            sharing=None if sharing is None else _sharing(sharing),
            not_before=cast("float", body["nbf"]),
            expires_at=cast("float", body["exp"]),
            token_id=text["jti"],
            client_version=text["cv"],
        )
    except (CallerError, ValueError) as error:
        raise TokenError("token claims are malformed", reason="token-malformed") from error


def _sharing(body: object) -> RouteSharing:
    if not isinstance(body, list) or [type(v) for v in body[:2]] != [str, str]:
        raise TokenError("token claims are malformed", reason="token-malformed")
    policy, voter = cast("list[str]", body[:2])
    seconds = body[2] if len(body) > 2 else 0  # noqa: PLR2004 - the third is optional
    is_good = type(seconds) is int and 0 <= seconds <= MAX_VERIFY_SECONDS
    if not _VOTER.fullmatch(voter) or not is_good or len(body) > 3:  # noqa: PLR2004 - as above
        raise TokenError("token claims are malformed", reason="token-malformed")
    return RouteSharing(policy=SharingPolicy.parse(policy), voter=voter, verify_seconds=seconds)


def _numbers[T: (RouteQuotas, RouteShare)](kind: type[T], body: object) -> T:
    content = cast("dict[str, object]", body) if isinstance(body, dict) else {}
    numbers = {n: v for n, v in content.items() if type(v) is int and v >= 0}
    if set(numbers) != {f.name for f in fields(kind)} or len(numbers) != len(content):
        raise TokenError("token claims are malformed", reason="token-malformed")
    return kind(**numbers)
