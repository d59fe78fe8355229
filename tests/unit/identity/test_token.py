"""Route tokens: one test per way to cheat."""

from __future__ import annotations

import base64
import json
from dataclasses import replace

import pytest
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from hpcc.core import GuestReuse, ImageDigest, Isolation, SharingPolicy, TenantId
from hpcc.identity.token import (
    RouteClaims,
    RouteQuotas,
    RouteShare,
    RouteSharing,
    TokenError,
    TokenSigner,
    TokenVerifier,
)

NOW = 1_900_000_000.0
KEY = Ed25519PrivateKey.from_private_bytes(b"k" * 32)
OTHER_KEY = Ed25519PrivateKey.from_private_bytes(b"o" * 32)


class StillClock:
    def __init__(self, now: float = NOW) -> None:
        self.at = now

    def now(self) -> float:
        return self.at

    def monotonic(self) -> float:
        return self.at

    async def sleep(self, seconds: float) -> None:
        raise AssertionError(seconds)


CLAIMS = RouteClaims(
    issuer="scheduler-1",
    subject="ann",
    tenant=TenantId("acme"),
    audience="worker-key",
    image=ImageDigest("sha256:" + "ab" * 32),
    minimum_isolation=Isolation.QEMU_TCG,
    generation=7,
    rights=frozenset({"cache", "execute"}),
    not_before=NOW,
    expires_at=NOW + 300,
    token_id="t1",
    guest_reuse=GuestReuse.EXEC,
    client_version="1",
)


def verifier(now: float = NOW, **changes: str) -> TokenVerifier:
    values = {"issuer": "scheduler-1", "audience": "worker-key", **changes}
    return TokenVerifier(keys={"k1": KEY.public_key()}, clock=StillClock(now), **values)


def sign(claims: RouteClaims = CLAIMS, key: Ed25519PrivateKey = KEY, kid: str = "k1") -> str:
    return TokenSigner(key, kid=kid).sign(claims)


def refused(token: str, now: float = NOW, **changes: str) -> str:
    with pytest.raises(TokenError) as caught:
        verifier(now, **changes).verify(token)
    assert token[:40] not in str(caught.value)
    return caught.value.reason


def encode(value: object) -> str:
    return base64.urlsafe_b64encode(json.dumps(value).encode()).rstrip(b"=").decode()


def forge(header: object, token: str | None = None) -> str:
    _, body, _ = (token or sign()).split(".")
    signed = f"{encode(header)}.{body}"
    return f"{signed}.{base64.urlsafe_b64encode(KEY.sign(signed.encode())).rstrip(b'=').decode()}"


def test_a_good_token_gives_its_claims_back() -> None:
    assert verifier().verify(sign()) == CLAIMS


def test_an_expired_token_is_refused() -> None:
    assert refused(sign(), NOW + 300) == "token-expired"


def test_a_token_from_the_future_is_refused() -> None:
    assert refused(sign(), NOW - 31) == "token-not-yet"


def test_a_small_skew_of_clocks_is_forgiven() -> None:
    assert verifier(NOW - 29).verify(sign()) == CLAIMS


def test_a_token_for_another_worker_is_refused() -> None:
    assert refused(sign(), audience="other-worker") == "token-audience"


def test_a_token_of_another_scheduler_is_refused() -> None:
    assert refused(sign(), issuer="other") == "token-issuer"


def test_a_token_that_lives_too_long_is_refused() -> None:
    assert refused(sign(replace(CLAIMS, expires_at=NOW + 86400))) == "token-lifetime"


def test_a_token_of_an_unknown_key_is_refused() -> None:
    assert refused(sign(kid="k2")) == "token-unknown-key"


def test_a_token_signed_by_another_key_under_our_name_is_refused() -> None:
    assert refused(sign(key=OTHER_KEY)) == "token-signature"


def test_every_changed_character_of_the_body_is_noticed() -> None:
    header, body, signature = sign().split(".")
    for index in range(0, len(body), 7):
        other = "A" if body[index] != "A" else "B"
        changed = f"{header}.{body[:index]}{other}{body[index + 1 :]}.{signature}"
        assert refused(changed).startswith("token-")


@pytest.mark.parametrize("alg", ["none", "HS256", "RS256", "eddsa", "", None, ["EdDSA"]])
def test_no_other_algorithm_is_tried(alg: object) -> None:
    assert refused(forge({"alg": alg, "kid": "k1", "typ": "hpcc-route+jwt"})) == "token-algorithm"


def test_hmac_with_the_public_key_as_secret_is_refused() -> None:
    import hashlib
    import hmac

    public = KEY.public_key().public_bytes(
        serialization.Encoding.Raw, serialization.PublicFormat.Raw
    )
    _, body, _ = sign().split(".")
    signed = f"{encode({'alg': 'HS256', 'kid': 'k1', 'typ': 'hpcc-route+jwt'})}.{body}"
    mac = hmac.new(public, signed.encode(), hashlib.sha256).digest()
    token = f"{signed}.{base64.urlsafe_b64encode(mac).rstrip(b'=').decode()}"
    assert refused(token) == "token-algorithm"


def test_an_empty_signature_is_refused() -> None:
    header, body, _ = sign().split(".")
    assert refused(f"{header}.{body}.") == "token-malformed"


@pytest.mark.parametrize("extra", ["jwk", "jku", "x5c", "crit", "b64"])
def test_a_header_cannot_bring_its_own_key_or_options(extra: str) -> None:
    header = {"alg": "EdDSA", "kid": "k1", "typ": "hpcc-route+jwt", extra: "x"}
    assert refused(forge(header)) == "token-malformed"


@pytest.mark.parametrize("text", ["", ".", "..", "a.b", "a.b.c.d", "§.§.§", "a.b.c=", " . . "])
def test_nonsense_is_refused(text: str) -> None:
    with pytest.raises(TokenError):
        verifier().verify(text)


def test_an_oversized_token_is_refused_before_it_is_parsed() -> None:
    assert refused("A" * 3000) == "token-oversized"


def test_a_second_spelling_of_the_signature_is_refused() -> None:
    token = sign()
    alphabet = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_"
    last = alphabet.index(token[-1])
    twin = token[:-1] + alphabet[last ^ 1]
    assert refused(twin) in {"token-malformed", "token-signature"}


def test_a_deeply_nested_body_is_refused() -> None:
    body = base64.urlsafe_b64encode(b"[" * 1200).rstrip(b"=").decode()
    header = encode({"alg": "EdDSA", "kid": "k1", "typ": "hpcc-route+jwt"})
    signed = f"{header}.{body}"
    signature = base64.urlsafe_b64encode(KEY.sign(signed.encode())).rstrip(b"=").decode()
    with pytest.raises(TokenError):
        verifier().verify(f"{signed}.{signature}")


def test_quotas_that_are_no_numbers_are_refused() -> None:
    limited = replace(CLAIMS, quotas=RouteQuotas(concurrent_execs=4, cache_bytes=1 << 40))
    assert verifier().verify(sign(limited)).quotas == limited.quotas
    for name, value in (("concurrent_execs", -1), ("upload_bytes", True), ("cache_bytes", 1.5)):
        wrong = replace(CLAIMS, quotas=replace(RouteQuotas(), **{name: value}))
        assert refused(sign(wrong)) == "token-malformed"


def test_a_share_comes_back_and_its_absence_too() -> None:
    shared = replace(CLAIMS, share=RouteShare(in_flight=4, upload_bytes=1 << 20))
    assert verifier().verify(sign(shared)) == shared
    assert verifier().verify(sign()).share is None


def test_a_token_without_a_lease_has_no_claim_of_it() -> None:
    """Workers that do not know the claim would refuse the token."""
    assert verifier().verify(sign(replace(CLAIMS, leased=True))).leased
    assert not verifier().verify(sign()).leased
    body = sign().split(".")[1]
    assert b"leased" not in base64.urlsafe_b64decode(body + "=" * (-len(body) % 4))


@pytest.mark.parametrize("leased", [None, False, 1, "yes"])
def test_a_lease_of_another_form_is_refused(leased: object) -> None:
    assert refused(signed_with("leased", leased)) == "token-malformed"


def signed_with(name: str, value: object) -> str:
    """Return a good token with one claim of another value."""
    header, body, _ = sign().split(".")
    claims = json.loads(base64.urlsafe_b64decode(body + "=" * (-len(body) % 4)))
    signed = f"{header}.{encode({**claims, name: value})}"
    signature = base64.urlsafe_b64encode(KEY.sign(signed.encode())).rstrip(b"=").decode()
    return f"{signed}.{signature}"


@pytest.mark.parametrize(
    "share",
    [
        None,
        {},
        [],
        4,
        {"in_flight": 1},
        {"in_flight": -1, "upload_bytes": 0},
        {"in_flight": True, "upload_bytes": 0},
        {"in_flight": 1, "upload_bytes": 0, "more": 1},
    ],
)
def test_a_share_of_another_form_is_refused(share: object) -> None:
    assert refused(signed_with("share", share)) == "token-malformed"


def test_a_token_that_was_valid_before_is_refused_once_it_has_expired() -> None:
    clock = StillClock()
    checks = TokenVerifier(
        keys={"k1": KEY.public_key()}, issuer="scheduler-1", audience="worker-key", clock=clock
    )
    token = sign()
    assert checks.verify(token) == CLAIMS
    assert checks.verify(token) is checks.verify(token), "its signature is checked once"
    clock.at = CLAIMS.expires_at
    with pytest.raises(TokenError) as caught:
        checks.verify(token)
    assert caught.value.reason == "token-expired"


def test_a_token_that_was_refused_is_refused_again() -> None:
    checks, forged = verifier(), sign(key=OTHER_KEY)
    for _ in range(2):
        with pytest.raises(TokenError) as caught:
            checks.verify(forged)
        assert caught.value.reason == "token-signature"


def test_only_the_whole_token_is_known() -> None:
    checks, token = verifier(), sign()
    checks.verify(token)
    signed, _, signature = token.rpartition(".")
    other = sign(key=OTHER_KEY).rpartition(".")[2]
    for text in (f"{signed}.{other}", f"{signed}.", f"{token}.", f" {token}", signature):
        with pytest.raises(TokenError):
            checks.verify(text)


SHARED = replace(
    CLAIMS,
    sharing=RouteSharing(policy=SharingPolicy(fresh=True, agree=2), voter="k-1:" + "a" * 32),
)


def test_a_token_with_a_voter_gives_it_back() -> None:
    assert SHARED.sharing is not None
    assert verifier().verify(sign(SHARED)) == SHARED
    idle = replace(SHARED, sharing=replace(SHARED.sharing, verify_seconds=3600))
    assert verifier().verify(sign(idle)) == idle


@pytest.mark.parametrize(
    "sharing",
    [
        [],
        ["fresh"],
        ["fresh", "k-1:" + "a" * 31],
        ["fresh", "k 1:" + "a" * 32],
        ["everything", "k-1:" + "a" * 32],
        ["fresh", 1],
        ["fresh", "k-1:" + "a" * 32, 3601],
        ["fresh", "k-1:" + "a" * 32, -1],
        ["fresh", "k-1:" + "a" * 32, True],
        ["fresh", "k-1:" + "a" * 32, 1, 1],
        {"policy": "fresh"},
        "fresh",
        1,
    ],
)
def test_a_malformed_voter_is_refused(sharing: object) -> None:
    header, body, _ = sign().split(".")
    content = json.loads(base64.urlsafe_b64decode(body + "=="))
    signed = f"{header}.{encode({**content, 'sharing': sharing})}"
    value = base64.urlsafe_b64encode(KEY.sign(signed.encode())).rstrip(b"=").decode()
    assert refused(f"{signed}.{value}") == "token-malformed"
