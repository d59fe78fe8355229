"""Identity providers' tokens that must be refused. Tests are named after the attacks."""

from __future__ import annotations

import base64
import hashlib
import hmac
import json
import warnings

import jwt
import pytest

from hpcc.core import IntegrityError
from hpcc.identity.oidc.keys import MAX_KEYS, ProviderKey, parse_keys
from hpcc.identity.oidc.verify import IdpTokenError, peek_claims, read_header, verify_idp_token
from hpcc_testkit.services.idp_tokens import NOW, FixedClock, MintKey, claims, mint, policy

EC = MintKey.make("ec-1")
RSA = MintKey.make("rsa-1", "RS256")
ED = MintKey.make("ed-1", "EdDSA")
P384 = MintKey.make("p384-1", "ES384")
FOREIGN = MintKey.make("globex-1")
KEYS = parse_keys({"keys": [k.jwk() for k in (EC, RSA, ED, P384)]})


def verify(token: str, *, keys: tuple[ProviderKey, ...] = KEYS, **changes: object) -> str:
    return verify_idp_token(token, policy(**changes), keys, FixedClock()).principal


def refusal(token: str, *, keys: tuple[ProviderKey, ...] = KEYS, **changes: object) -> str:
    with pytest.raises(IdpTokenError) as refused:
        verify(token, keys=keys, **changes)
    part = token.split(".")[1] if token.count(".") == 2 else token
    assert not part or part[:20] not in str(refused.value)
    return refused.value.reason


def raw(header: object, body: object, signature: bytes = b"x") -> str:
    parts = (json.dumps(header).encode(), json.dumps(body).encode(), signature)
    return ".".join(base64.urlsafe_b64encode(p).rstrip(b"=").decode() for p in parts)


@pytest.mark.parametrize("key", [EC, RSA, ED, P384], ids=lambda k: k.algorithm)
def test_a_good_token_of_each_kind_lets_its_subject_in(key: MintKey) -> None:
    assert verify(mint(key)) == "ann"
    assert verify(mint(key, typ="at+jwt")) == "ann"


def test_a_session_ends_with_the_token() -> None:
    who = verify_idp_token(mint(EC), policy(), KEYS, FixedClock())
    assert who.expires_at == NOW + 300 + 60


def test_alg_none_is_refused() -> None:
    for name in ("none", "None", "NONE", ""):
        token = raw({"alg": name, "kid": "ec-1"}, claims(), b"")
        assert refusal(token + ("x" if token.endswith(".") else "")) == "idp-token-algorithm"
    assert refusal(raw({"alg": "none"}, claims(), b"")) == "idp-token-malformed"


@pytest.mark.parametrize("kind", ["pem", "jwk", "raw"])
def test_hs256_with_the_public_key_as_secret_is_refused(kind: str) -> None:
    secret = {
        "pem": RSA.public_pem,
        "jwk": json.dumps(RSA.jwk()).encode(),
        "raw": str(RSA.jwk()["n"]).encode(),
    }[kind]
    signed = raw({"alg": "HS256", "kid": "rsa-1"}, claims()).rpartition(".")[0]
    mac = hmac.new(secret, signed.encode(), hashlib.sha256).digest()
    token = f"{signed}.{base64.urlsafe_b64encode(mac).rstrip(b'=').decode()}"
    assert refusal(token) == "idp-token-algorithm"
    # Not even a table that was written wrongly lets it through.
    assert refusal(token, algorithms=("HS256",)) == "idp-token-algorithm"


def test_a_key_is_never_used_with_another_familys_algorithm() -> None:
    for algorithm in ("RS256", "EdDSA", "ES384"):
        token = raw({"alg": algorithm, "kid": "ec-1"}, claims())
        assert refusal(token) == "idp-token-unknown-key"
    # The set says what a key is for: PS256 with a key for RS256 is another key's signature.
    only = parse_keys({"keys": [RSA.jwk(alg="RS256")]})
    token = jwt.PyJWS().encode(
        json.dumps(claims()).encode(), RSA.private, algorithm="PS256", headers={"kid": "rsa-1"}
    )
    assert verify(token) == "ann"
    assert refusal(token, keys=only) == "idp-token-unknown-key"


def test_an_algorithm_that_the_tenant_does_not_list_is_refused() -> None:
    assert refusal(mint(EC), algorithms=("EdDSA",)) == "idp-token-algorithm"


def test_a_token_signed_by_another_tenants_provider_is_refused() -> None:
    assert refusal(mint(FOREIGN)) == "idp-token-unknown-key"


def test_a_token_with_the_kid_of_this_tenant_and_another_tenants_key_is_refused() -> None:
    assert refusal(mint(FOREIGN, kid="ec-1")) == "idp-token-signature"


def test_a_key_that_the_token_brings_along_is_not_used() -> None:
    brought = FOREIGN.jwk()
    for member in ({"jwk": brought}, {"jku": "https://evil.example/keys"}, {"x5u": "https://e"}):
        assert refusal(mint(FOREIGN, **member)) == "idp-token-unknown-key"
        assert refusal(mint(FOREIGN, kid="ec-1", **member)) == "idp-token-signature"


def test_a_token_without_kid_is_checked_only_if_one_key_fits() -> None:
    token = mint(EC, kid=None)
    assert verify(token) == "ann"
    two = (*KEYS, *parse_keys({"keys": [FOREIGN.jwk(kid="ec-2")]}))
    assert refusal(token, keys=two) == "idp-token-unknown-key"


def test_two_keys_of_one_name_check_nothing() -> None:
    twins = parse_keys({"keys": [EC.jwk(), FOREIGN.jwk(kid="ec-1")]})
    assert refusal(mint(EC), keys=twins) == "idp-token-unknown-key"


def test_a_changed_token_is_refused_wherever_it_was_changed() -> None:
    header, body, signature = mint(EC).split(".")
    other = base64.urlsafe_b64encode(json.dumps(claims(sub="root")).encode()).rstrip(b"=").decode()
    assert refusal(f"{header}.{other}.{signature}") == "idp-token-signature"
    assert refusal(f"{header}.{body}.{signature[:-8]}AAAAAAAA") == "idp-token-signature"
    assert refusal(f"{header}.{body}.{mint(EC).split('.')[2][::-1]}") == "idp-token-signature"


def test_an_extension_that_must_be_understood_is_refused() -> None:
    assert refusal(raw({"alg": "ES256", "crit": ["b64"], "b64": False}, {})) == "idp-token-type"


@pytest.mark.parametrize(
    "kind", ["logout+jwt", "dpop+jwt", "secevent+jwt", "hpcc-route+jwt", "", 7, None]
)
def test_a_jwt_of_another_kind_is_no_login(kind: object) -> None:
    token = raw({"alg": "ES256", "kid": "ec-1", "typ": kind}, claims())
    assert refusal(token) == "idp-token-type"


@pytest.mark.parametrize("bound", [{"jkt": "a" * 43}, {"x5t#S256": "a" * 43}, {}])
def test_a_token_that_is_bound_to_a_key_is_not_taken_as_a_bearer_token(bound: object) -> None:
    assert refusal(mint(EC, claims(cnf=bound))) == "idp-token-bound"


@pytest.mark.parametrize(
    "issuer",
    ["https://login.globex.example", "https://login.acme.example/", "https://login.acme.example:443",
     "HTTPS://login.acme.example", "", None, ["https://login.acme.example"]],
)  # fmt: skip
def test_a_wrong_issuer_is_refused(issuer: object) -> None:
    assert refusal(mint(EC, claims(iss=issuer))) == "idp-token-issuer"


@pytest.mark.parametrize("audience", ["other", "hpcc2", "", None, [], ["a", "b"], {"hpcc": 1}, 7])
def test_a_wrong_audience_is_refused(audience: object) -> None:
    assert refusal(mint(EC, claims(aud=audience))) == "idp-token-audience"


def test_more_audiences_than_anybody_has_are_refused() -> None:
    many = ["hpcc", *map(str, range(40))]
    assert refusal(mint(EC, claims(aud=many))) == "idp-token-audience"


def test_a_token_that_was_given_to_another_client_is_refused() -> None:
    assert refusal(mint(EC, claims(client_id="evil"))) == "idp-token-client"
    assert refusal(mint(EC, claims(azp="evil"))) == "idp-token-client"
    assert refusal(mint(EC, claims(client_id=None, azp="evil"))) == "idp-token-client"
    assert refusal(mint(EC, claims(client_id=["hpcc-cli"]))) == "idp-token-client"
    assert verify(mint(EC, claims(client_id=None, azp="hpcc-ci"))) == "ann"


def test_an_id_token_is_for_its_own_client_alone() -> None:
    mine = {"client_ids": ("hpcc-cli",), "audience": "hpcc-cli"}
    assert verify(mint(EC, claims(aud="hpcc-cli", client_id=None)), **mine) == "ann"
    two = claims(aud=["hpcc-cli", "other"], client_id=None)
    assert refusal(mint(EC, two), **mine) == "idp-token-client"
    # An audience other than our clients does not show who requested the token.
    assert refusal(mint(EC, claims(client_id=None))) == "idp-token-client"


def test_somebody_else_whom_the_provider_serves_is_refused() -> None:
    wanted = {"client_ids": (), "claims": (("repository_owner", ("acme",)),)}
    good = claims(client_id=None, repository_owner="acme")
    assert verify(mint(EC, good), **wanted) == "ann"
    for owner in ("acme2", "", None, ["x"], {"acme": 1}, True):
        body = claims(client_id=None, repository_owner=owner)
        assert refusal(mint(EC, body), **wanted) == "idp-token-claim"
    groups = {"claims": (("groups", ("builders", "ci")),)}
    assert verify(mint(EC, claims(groups=["x", "ci"])), **groups) == "ann"


def test_an_expired_token_is_refused_and_the_clocks_may_differ_by_a_minute() -> None:
    assert verify(mint(EC, claims(exp=int(NOW) - 59))) == "ann"
    assert refusal(mint(EC, claims(exp=int(NOW) - 60))) == "idp-token-expired"


def test_a_token_of_the_future_is_refused() -> None:
    assert verify(mint(EC, claims(nbf=int(NOW) + 60))) == "ann"
    assert refusal(mint(EC, claims(nbf=int(NOW) + 61))) == "idp-token-not-yet"
    assert refusal(mint(EC, claims(iat=int(NOW) + 61))) == "idp-token-not-yet"


def test_a_token_that_lives_for_ever_is_refused() -> None:
    assert refusal(mint(EC, claims(exp=int(NOW) + 90_000))) == "idp-token-lifetime"


@pytest.mark.parametrize("name", ["exp", "iat", "nbf"])
@pytest.mark.parametrize("value", [None, "1800000300", True, -1, float("nan"), float("inf"), [1]])
def test_a_time_that_is_none_is_refused(name: str, value: object) -> None:
    body = claims(**{name: value})
    if name == "nbf" and value is None:
        assert verify(mint(EC, body)) == "ann"
        return
    assert refusal(mint(EC, body)) == "idp-token-malformed"


@pytest.mark.parametrize(
    "subject", [None, "", " ann", "ann ", "a\nb", "a\x1b[31m", "an\u202en", "x" * 129, 7, ["ann"]]
)
def test_a_subject_that_could_mislead_a_reader_is_refused(subject: object) -> None:
    assert refusal(mint(EC, claims(sub=subject))) == "idp-token-principal"


def test_an_address_that_nobody_verified_names_nobody() -> None:
    by_mail = {"principal_claim": "email"}
    good = claims(email="ann@acme.example", email_verified=True)
    assert verify(mint(EC, good), **by_mail) == "ann@acme.example"
    for word in (False, None, "true", 1):
        body = claims(email="ann@acme.example", email_verified=word)
        assert refusal(mint(EC, body), **by_mail) == "idp-token-principal"


@pytest.mark.parametrize(
    ("token", "reason"),
    [
        ("", "idp-token-malformed"),
        ("a.b", "idp-token-malformed"),
        ("a.b.c.d.e", "idp-token-malformed"),
        ("a..c", "idp-token-malformed"),
        ("e30.e30.e30\n", "idp-token-malformed"),
        ("e30=.e30.e30", "idp-token-malformed"),
        (raw([1], {}), "idp-token-malformed"),
        (raw({"alg": ["ES256"]}, {}), "idp-token-algorithm"),
        (raw({"alg": "ES256", "kid": 7}, {}), "idp-token-malformed"),
        (raw({"alg": "ES256", "kid": "k" * 300}, {}), "idp-token-malformed"),
        ("x" * 7000, "idp-token-oversized"),
        (base64.urlsafe_b64encode(b'{"a":' * 900).rstrip(b"=").decode() + ".e30.e30",
         "idp-token-malformed"),
    ],
)  # fmt: skip
def test_nonsense_is_refused_before_a_key_is_looked_for(token: str, reason: str) -> None:
    with pytest.raises(IdpTokenError) as refused:
        read_header(token, policy())
    assert refused.value.reason == reason


def test_claims_that_are_no_object_are_refused() -> None:
    for body in (b"[1]", b"7", b"{", b"\xff", b"[" * 2000):
        token = jwt.PyJWS().encode(body, EC.private, algorithm="ES256", headers={"kid": "ec-1"})
        assert refusal(token) == "idp-token-malformed"


def test_a_weak_key_of_the_provider_checks_nothing() -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # PyJWT warns of the very thing
        weak = MintKey.make("weak", "RS256", rsa_bits=1024)
        token = mint(weak)
        assert refusal(token, keys=parse_keys({"keys": [weak.jwk()]})) == "idp-token-unknown-key"


def test_secrets_encryption_keys_and_nonsense_in_a_key_set_are_left_out() -> None:
    odd: list[object] = [
        {"kty": "oct", "k": "c2VjcmV0", "kid": "oct-1", "alg": "HS256"},
        EC.jwk(use="enc", kid="enc-1"),
        EC.jwk(key_ops=["sign"], kid="sign-1"),
        EC.jwk(kid=7),
        EC.jwk(kid="k" * 300),
        {**EC.jwk(), "kty": ["EC"]}, {**EC.jwk(), "kty": {}},
        "nonsense", None, 7,
    ]  # fmt: skip
    odd[2] = {**EC.jwk(kid="sign-1"), "key_ops": ["sign"]}
    assert parse_keys({"keys": odd}) == ()
    broken = [{"kty": "EC", "kid": "b"}, {"kty": "RSA", "n": "AA", "e": "AQAB", "kid": "c"},
              {"kty": "EC", "crv": ["P-256"], "x": 7, "y": {}}, {"kty": "RSA", "n": [], "e": {}},
              {"kty": "OKP", "crv": [], "x": None, "alg": ["ES256"]},
              {"kty": "EC", "crv": "P-256", "x": "AA", "y": "AA", "kid": "d"}]  # fmt: skip
    for key in parse_keys({"keys": broken}):
        assert key.for_algorithm("ES256") is None
        assert key.for_algorithm("RS256") is None


def test_a_private_key_that_leaked_into_the_set_is_not_kept() -> None:
    leaked = json.loads(str(jwt.get_algorithm_by_name("ES256").to_jwk(EC.private)))
    (key,) = parse_keys({"keys": [{**leaked, "kid": "ec-1", "key_ops": ["verify"]}]})
    assert "d" in leaked
    assert "d" not in key.jwk
    assert verify(mint(EC), keys=(key,)) == "ann"


@pytest.mark.parametrize("body", [{}, {"keys": {}}, {"keys": "x"}, {"keys": [{}] * (MAX_KEYS + 1)}])
def test_a_key_set_that_is_none_or_endless_is_refused(body: dict[str, object]) -> None:
    with pytest.raises(IntegrityError):
        parse_keys(body)


def test_peeking_believes_nothing_and_says_what_is_written() -> None:
    assert peek_claims(raw({}, {"sub": "x"})) == {"sub": "x"}
    # Two parts, four parts, too long; no base64, no text, no JSON, no object.
    for token in ("x.y", "e30.e30.e30.e30", "e30." + "x" * 7000 + ".e30", "e30.A.e30", "e30.é.e30",
                  "e30._w.e30", "e30.ew.e30", "e30.W10.e30"):  # fmt: skip
        with pytest.raises(IdpTokenError) as refused:
            peek_claims(token)
        assert refused.value.reason == "idp-token-malformed"
