"""Logging in: which answers of a provider are accepted, what is stored, who may read it."""

from __future__ import annotations

import asyncio
import base64
import hashlib
import json
import os
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path

import pytest

from hpcc.core import CallerError, HpccError, IntegrityError
from hpcc.identity.keys import load_or_create_tls
from hpcc.identity.login.file import (
    FarmProfile,
    Login,
    load_login_or_none,
    load_profile,
    profile_text,
    save_login,
)
from hpcc.identity.login.grants import Grants, RefusedError
from hpcc.identity.login.source import (
    LoginSource,
    _locked,
    read_token_file,
    remove_renewed,
    store_login,
)
from hpcc.identity.oidc.http import (
    ProviderError,
    ProviderHttp,
    ProviderResponse,
    check_provider_url,
)
from hpcc.identity.oidc.provider import Provider, parse_provider
from hpcc.ports import SystemClock
from hpcc_testkit.services.idp_tokens import ISSUER, NOW, FixedClock, MintKey, claims, mint

KEY = MintKey.make("k")
PROVIDER = Provider(
    issuer=ISSUER,
    jwks_uri=f"{ISSUER}/keys",
    token_endpoint=f"{ISSUER}/token",
    device_endpoint=f"{ISSUER}/device",
    revocation_endpoint=f"{ISSUER}/revoke",
    has_pkce=True,
)
DISCOVERY: dict[str, object] = {
    "issuer": ISSUER,
    "jwks_uri": f"{ISSUER}/keys",
    "token_endpoint": f"{ISSUER}/token",
    "device_authorization_endpoint": f"{ISSUER}/device",
    "revocation_endpoint": f"{ISSUER}/revoke",
    "code_challenge_methods_supported": ["S256"],
}
DEVICE: dict[str, object] = {
    "device_code": "dc",
    "user_code": "WDJB-MJHT",
    "verification_uri": f"{ISSUER}/go",
    "verification_uri_complete": f"{ISSUER}/go?user_code=WDJB-MJHT",
    "expires_in": 600,
    "interval": 5,
}


class Script(ProviderHttp):
    """Returns its answers in order, or raises one that is an exception. Records the requests."""

    def __init__(self, *answers: ProviderResponse | HpccError) -> None:
        super().__init__()
        self.answers = list(answers)
        self.asked: list[tuple[str, dict[str, str], tuple[str, str] | None]] = []

    async def get(self, url: str, *, max_bytes: int, issuer: str = "") -> ProviderResponse:
        return ProviderResponse(200, DISCOVERY)

    async def post(
        self,
        url: str,
        form: Mapping[str, str],
        *,
        basic: tuple[str, str] | None,
        max_bytes: int,
        issuer: str,
    ) -> ProviderResponse:
        assert issuer == DISCOVERY["issuer"], "an endpoint that a document named"
        self.asked.append((url, dict(form), basic))
        answer = self.answers.pop(0)
        if isinstance(answer, HpccError):
            raise answer
        return answer


def error(code: str, status: int = 400) -> ProviderResponse:
    return ProviderResponse(
        status, {"error": code, "error_description": "\x1b[2Jgo to evil.example"}
    )


def tokens(**changes: object) -> ProviderResponse:
    body: dict[str, object] = {
        "id_token": mint(KEY, claims(aud="hpcc-cli")),
        "access_token": mint(KEY),
        "refresh_token": "r2",
        **changes,
    }
    return ProviderResponse(200, {n: v for n, v in body.items() if v is not None})


@pytest.fixture(scope="module")
def certificate(tmp_path_factory: pytest.TempPathFactory) -> str:
    made = load_or_create_tls(tmp_path_factory.mktemp("k"), "scheduler", clock=FixedClock())
    return made.certificate_pem.decode()


@pytest.fixture
def profile(certificate: str) -> FarmProfile:
    return FarmProfile(
        scheduler="farm.acme.example:7443",
        scheduler_certificate=certificate,
        tenant="acme",
        issuer=ISSUER,
        client_id="hpcc-cli",
        image="r.example/gcc@sha256:" + "ab" * 32,
    )


async def test_a_device_login_sends_a_pkce_challenge_and_later_its_verifier(
    profile: FarmProfile,
) -> None:
    http = Script(ProviderResponse(200, DEVICE), tokens())
    grants = Grants(http, PROVIDER, profile, FixedClock())
    code = await grants.device_code()
    got = await grants.wait_device(code)
    (_, asked, _), (_, polled, _) = http.asked
    digest = hashlib.sha256(polled["code_verifier"].encode()).digest()
    assert asked["code_challenge"] == base64.urlsafe_b64encode(digest).rstrip(b"=").decode()
    assert asked["code_challenge_method"] == "S256"
    assert asked["scope"] == "openid offline_access"
    assert "code_verifier" not in asked
    assert got.principal == "ann"
    assert got.refresh_token == "r2"
    assert "password" not in {v for _, form, _ in http.asked for v in form.values()}

    plain = Script(ProviderResponse(200, DEVICE))
    await Grants(plain, replace(PROVIDER, has_pkce=False), profile, FixedClock()).device_code()
    assert "code_challenge" not in plain.asked[0][1]


async def test_polling_slows_down_when_told_to_and_when_nobody_answers(
    profile: FarmProfile,
) -> None:
    clock = FixedClock()
    http = Script(
        ProviderResponse(200, DEVICE),
        error("authorization_pending"),
        error("slow_down"),
        error("authorization_pending"),
        ProviderError("away"),
        error("slow_down"),
        tokens(),
    )
    grants = Grants(http, PROVIDER, profile, clock)
    await grants.wait_device(await grants.device_code())
    assert clock.slept == [5, 5, 10, 10, 20, 25]


async def test_polling_ends_when_the_code_does(profile: FarmProfile) -> None:
    http = Script(
        ProviderResponse(200, {**DEVICE, "expires_in": 12}), *[error("authorization_pending")] * 9
    )
    grants = Grants(http, PROVIDER, profile, FixedClock())
    with pytest.raises(RefusedError) as refused:
        await grants.wait_device(await grants.device_code())
    assert refused.value.code == "expired_token"
    assert len(http.answers) == 7


async def test_a_provider_that_names_no_interval_is_asked_every_five_seconds(
    profile: FarmProfile,
) -> None:
    clock = FixedClock()
    device = {name: value for name, value in DEVICE.items() if name != "interval"}
    grants = Grants(Script(ProviderResponse(200, device), tokens()), PROVIDER, profile, clock)
    await grants.wait_device(await grants.device_code())
    assert clock.slept == [5]


async def test_a_provider_cannot_make_us_wait_for_ever_or_poll_without_pause(
    profile: FarmProfile,
) -> None:
    clock = FixedClock()
    http = Script(ProviderResponse(200, {**DEVICE, "expires_in": 10**9, "interval": 0}), tokens())
    grants = Grants(http, PROVIDER, profile, clock)
    code = await grants.device_code()
    assert code.deadline == clock.monotonic() + 1800
    await grants.wait_device(code)
    assert clock.slept == [1]


@pytest.mark.parametrize(
    ("change", "value"),
    [
        ("user_code", "A\x1b[2J"),
        ("user_code", "A\nB"),
        ("user_code", ""),
        ("user_code", 7),
        ("user_code", "x" * 600),
        ("verification_uri", "javascript:alert(1)"),
        ("verification_uri", "http://login.acme.example/"),
        ("verification_uri", "https://127.0.0.1/admin"),
        ("verification_uri_complete", "file:///etc/passwd"),
        ("device_code", ""),
        ("device_code", None),
        ("interval", "5"),
        ("interval", float("nan")),
        ("interval", 10**400),
        ("expires_in", "600"),
        ("expires_in", float("nan")),
        ("expires_in", True),
    ],
)
async def test_a_page_or_code_that_could_mislead_a_person_is_not_shown(
    profile: FarmProfile, change: str, value: object
) -> None:
    grants = Grants(
        Script(ProviderResponse(200, {**DEVICE, change: value})), PROVIDER, profile, FixedClock()
    )
    with pytest.raises(IntegrityError):
        await grants.device_code()


async def test_what_a_provider_says_in_words_is_not_shown(profile: FarmProfile) -> None:
    for answer in (
        error("invalid_client"),
        error("\x1b[2J"),
        ProviderResponse(400, {"error": {"a": 1}}),
    ):
        with pytest.raises(RefusedError) as refused:
            await Grants(Script(answer), PROVIDER, profile, FixedClock()).device_code()
        assert "evil" not in str(refused.value)
        assert str(refused.value).isprintable()


async def test_a_provider_without_device_login_says_what_else_there_is(
    profile: FarmProfile,
) -> None:
    grants = Grants(Script(), replace(PROVIDER, device_endpoint=""), profile, FixedClock())
    with pytest.raises(CallerError, match="token file"):
        await grants.device_code()


@pytest.mark.parametrize(
    "changes",
    [
        {"id_token": None},
        {"id_token": 7},
        {"id_token": "opaque"},
        {"id_token": "x" * 7000},
        {"id_token": mint(KEY, claims(iss="https://evil.example"))},
        {"id_token": mint(KEY, claims(exp=None))},
        {"id_token": mint(KEY, claims(exp=float("nan")))},
        {"id_token": mint(KEY, claims(exp=float("inf")))},
        {"id_token": mint(KEY, claims(exp=10**400))},
        {"refresh_token": 7},
        {"refresh_token": "x" * 9000},
    ],
)
async def test_tokens_that_no_scheduler_would_take_are_refused_at_once(
    profile: FarmProfile, changes: dict[str, object]
) -> None:
    with pytest.raises(IntegrityError):
        await Grants(Script(tokens(**changes)), PROVIDER, profile, FixedClock()).refresh("r1")


async def test_a_provider_that_does_not_rotate_keeps_the_refresh_token(
    profile: FarmProfile,
) -> None:
    grants = Grants(Script(tokens(refresh_token=None)), PROVIDER, profile, FixedClock())
    assert (await grants.refresh("r1")).refresh_token == "r1"


async def test_a_clients_secret_goes_into_the_header_and_nowhere_else(
    profile: FarmProfile,
) -> None:
    http = Script(tokens())
    await Grants(http, PROVIDER, profile, FixedClock()).client_credentials("s3cret")
    ((_, form, basic),) = http.asked
    assert basic == ("hpcc-cli", "s3cret")
    assert form == {"grant_type": "client_credentials"}


@pytest.mark.parametrize(
    "change",
    [
        {"issuer": "https://login.globex.example"},
        {"issuer": ISSUER + "/"},
        {"issuer": None},
        {"jwks_uri": "http://login.acme.example/keys"},
        {"jwks_uri": "https://127.0.0.1/keys"},
        {"jwks_uri": "https://localhost:9/keys"},
        {"jwks_uri": "https://[::1]/keys"},
        {"jwks_uri": "https://a@login.acme.example/keys"},
        {"jwks_uri": None},
        {"token_endpoint": "http://login.acme.example/token"},
        {"token_endpoint": 7},
        {"revocation_endpoint": "ftp://x"},
    ],
)
def test_a_provider_that_points_where_it_must_not_is_refused(change: dict[str, object]) -> None:
    with pytest.raises(IntegrityError):
        parse_provider({**DISCOVERY, **change}, issuer=ISSUER)


@pytest.mark.parametrize(
    "url",
    ["http://acme.example", "https://", "https:///x", "acme.example", "https://a b", "https://a#b",
     "https://a\n", "https://ä", "https://a:99999", "https://u:p@a", "https://" + "a" * 1100],
)  # fmt: skip
def test_only_https_is_asked(url: str) -> None:
    with pytest.raises(CallerError):
        check_provider_url(url)


@pytest.mark.parametrize("proxy", ["socks5://127.0.0.1:1", "proxy:3128", "ftp://u:s3cret@p"])
async def test_a_proxy_that_cannot_be_used_is_an_error_of_ours(proxy: str) -> None:
    with pytest.raises(ProviderError) as refused:
        await ProviderHttp(proxy=proxy).get("https://login.acme.example/x", max_bytes=1)
    assert refused.value.reason == "idp-proxy"
    assert "s3cret" not in str(refused.value)


def test_loopback_is_asked_over_http_for_tests() -> None:
    for url in ("http://127.0.0.1:80/x", "http://localhost", "http://[::1]:8080"):
        assert check_provider_url(url) == url


def a_login(profile: FarmProfile, **changes: object) -> Login:
    values: dict[str, object] = {
        "profile": profile_text(profile),
        "method": "device",
        "token": "t1",
        "obtained_at": NOW,
        "expires_at": NOW + 600,
        "refresh_token": "r1",
        **changes,
    }
    return Login(**values)  # type: ignore[arg-type]  # built by name just above


async def source_of(
    path: Path, profile: FarmProfile, http: ProviderHttp, clock: FixedClock, **changes: object
) -> LoginSource:
    await store_login(path, a_login(profile, **changes), clock)
    return LoginSource(path, clock, http=http)


async def test_a_token_is_renewed_two_minutes_before_it_ends(
    tmp_path: Path, profile: FarmProfile
) -> None:
    fresh = mint(KEY, claims(aud="hpcc-cli", exp=int(NOW) + 1200))
    clock, http = FixedClock(), Script(tokens(id_token=fresh))
    source = await source_of(tmp_path / "l", profile, http, clock)
    clock.time += 479
    assert await source.token() == "t1"
    clock.time += 1
    renewed = await source.token()
    assert renewed == fresh
    assert http.asked[0][1]["refresh_token"] == "r1"
    kept = load_login_or_none(tmp_path / "l")
    assert kept is not None
    assert (kept.token, kept.refresh_token) == (renewed, "r2")


async def test_a_provider_that_is_away_costs_nothing_while_the_token_is_good(
    tmp_path: Path, profile: FarmProfile
) -> None:
    clock, http = FixedClock(), Script(*[ProviderError("away")] * 3)
    source = await source_of(tmp_path / "l", profile, http, clock)
    clock.time += 500
    for _ in range(5):
        assert await source.token() == "t1"
    assert len(http.asked) == 1
    clock.time += 101
    with pytest.raises(ProviderError) as away:
        await source.token()
    assert away.value.reason == "idp-unreachable"
    with pytest.raises(ProviderError):
        await source.token()
    assert len(http.asked) == 2


async def test_a_machine_whose_clock_is_wrong_is_told_so(
    tmp_path: Path, profile: FarmProfile
) -> None:
    clock, http = FixedClock(), Script(tokens())
    source = await source_of(tmp_path / "l", profile, http, clock)
    clock.time += 900
    with pytest.raises(CallerError, match="clock"):
        await source.token()


async def test_a_refused_renewal_keeps_the_token_that_is_still_good(
    tmp_path: Path, profile: FarmProfile
) -> None:
    clock, http = FixedClock(), Script(error("invalid_grant"))
    source = await source_of(tmp_path / "l", profile, http, clock)
    clock.time += 500
    assert await source.token() == "t1"
    clock.time += 101
    with pytest.raises(CallerError, match="hpcc login") as over:
        await source.token()
    assert over.value.reason == "login-expired"
    assert len(http.asked) == 1


async def test_a_new_login_is_noticed_without_a_restart(
    tmp_path: Path, profile: FarmProfile
) -> None:
    clock = FixedClock()
    source = await source_of(tmp_path / "l", profile, Script(error("invalid_grant")), clock)
    clock.time += 700
    with pytest.raises(CallerError):
        await source.token()
    await store_login(tmp_path / "l", a_login(profile, token="t9", expires_at=NOW + 2000), clock)
    assert await source.token() == "t9"
    (tmp_path / "l").unlink()
    with pytest.raises(CallerError) as nobody:
        await source.token()
    assert nobody.value.reason == "login-none"


@pytest.mark.parametrize("is_refused", [False, True])
async def test_a_renewal_that_a_logout_overtakes_does_not_bring_the_login_back(
    tmp_path: Path, profile: FarmProfile, *, is_refused: bool
) -> None:
    class Slow(Script):
        async def post(
            self,
            url: str,
            form: Mapping[str, str],
            *,
            basic: tuple[str, str] | None,
            max_bytes: int,
            issuer: str,
        ) -> ProviderResponse:
            (tmp_path / "l").unlink(missing_ok=True)  # as `hpcc logout` does
            return await super().post(url, form, basic=basic, max_bytes=max_bytes, issuer=issuer)

    clock = FixedClock()
    http = Slow(error("invalid_grant") if is_refused else tokens(), ProviderResponse(200, {}))
    source = await source_of(tmp_path / "l", profile, http, clock)
    clock.time += 500
    with pytest.raises(CallerError) as nobody:
        await source.token()
    assert nobody.value.reason == "login-none"
    assert not (tmp_path / "l").exists()
    # The new refresh token that replaced the old one is revoked too.
    revoked = [form["token"] for url, form, _ in http.asked if url.endswith("/revoke")]
    assert revoked == ([] if is_refused else ["r2"])


async def test_a_renewal_that_is_kept_in_the_moment_of_a_logout_is_removed(
    tmp_path: Path, profile: FarmProfile
) -> None:
    """The renewal read the file, then logout removed it before the new tokens replaced it."""
    path, clock = tmp_path / "l", FixedClock()
    await source_of(path, profile, Script(), clock)
    login = load_login_or_none(path)
    assert login is not None
    async with _locked(path, clock):
        path.unlink()  # as `hpcc logout` does first
        logout = asyncio.Task(remove_renewed(path, SystemClock()))
        await asyncio.sleep(0)
        save_login(path, replace(login, refresh_token="r2"))
    found = await logout
    assert found is not None
    assert found.refresh_token == "r2", "to be revoked"
    assert not path.exists()
    assert await remove_renewed(path, clock) is None
    async with _locked(path, clock):
        assert await remove_renewed(path, clock) is None, "who asks the provider looks afterwards"


async def test_a_workloads_token_is_read_again_when_it_was_replaced(
    tmp_path: Path, profile: FarmProfile
) -> None:
    token_file, clock = tmp_path / "token", FixedClock()
    first, second = mint(KEY), mint(KEY, claims(sub="bob"))
    token_file.write_text(first + "\n")
    source = await source_of(
        tmp_path / "l", profile, Script(), clock, method="token-file", token_file=str(token_file)
    )
    assert await source.token() == first
    # As Kubernetes does it: another file under the name.
    (tmp_path / "next").write_text(second)
    (tmp_path / "next").rename(token_file)
    assert await source.token() == second
    clock.time += 301
    with pytest.raises(CallerError, match="has expired") as over:
        await source.token()
    assert over.value.reason == "login-token-file"
    for text in ("", "x" * 7000, "opaque"):
        token_file.write_text(text)
        with pytest.raises(CallerError):
            await source.token()
    token_file.unlink()
    with pytest.raises(CallerError):
        await source.token()


@pytest.mark.parametrize("kind", ["fifo", "directory", "device", "link-to-fifo"])
def test_a_token_file_that_is_no_regular_file_is_refused_and_holds_nobody_up(
    tmp_path: Path, kind: str
) -> None:
    path = tmp_path / "token"
    match kind:
        case "fifo":
            os.mkfifo(path)
        case "directory":
            path.mkdir()
        case "device":
            path = Path("/dev/zero")
        case _:
            os.mkfifo(tmp_path / "fifo")
            path.symlink_to(tmp_path / "fifo")
    with pytest.raises(CallerError, match="is not a regular file") as refused:
        read_token_file(path)
    assert refused.value.reason == "login-token-file"


def test_a_token_file_may_be_a_link(tmp_path: Path) -> None:
    (tmp_path / "data").write_text("token\n")
    (tmp_path / "token").symlink_to("data")
    assert read_token_file(tmp_path / "token") == "token"


async def test_a_login_file_is_private_and_holds_no_clients_secret(
    tmp_path: Path, profile: FarmProfile
) -> None:
    path = tmp_path / "deep" / "login.json"
    await store_login(path, a_login(profile), FixedClock())
    assert path.stat().st_mode & 0o777 == 0o600
    assert path.parent.stat().st_mode & 0o077 == 0
    # Without the profile, whose random certificate may hold any two characters.
    login = load_login_or_none(path)
    assert login is not None
    shown = repr(replace(login, profile=""))
    assert "t1" not in shown
    assert "r1" not in shown
    assert load_login_or_none(tmp_path / "none") is None


async def test_a_login_file_that_others_can_read_is_refused(
    tmp_path: Path, profile: FarmProfile
) -> None:
    path = tmp_path / "login.json"
    await store_login(path, a_login(profile), FixedClock())
    for mode in (0o640, 0o604, 0o660, 0o666):
        path.chmod(mode)
        with pytest.raises(CallerError, match="chmod 600"):
            load_login_or_none(path)


@pytest.mark.skipif(os.geteuid() != 0, reason="needs root")
async def test_a_login_file_of_another_user_is_refused(
    tmp_path: Path, profile: FarmProfile
) -> None:
    path = tmp_path / "login.json"
    await store_login(path, a_login(profile), FixedClock())
    os.chown(path, 4321, 4321)
    with pytest.raises(CallerError, match="not a file of your own"):
        load_login_or_none(path)


@pytest.mark.parametrize("kind", ["link", "fifo", "directory"])
async def test_something_else_in_place_of_a_login_file_is_refused(
    tmp_path: Path, profile: FarmProfile, kind: str
) -> None:
    path, other = tmp_path / "login.json", tmp_path / "other"
    await store_login(other, a_login(profile), FixedClock())
    if kind == "link":
        path.symlink_to(other)
    elif kind == "fifo":
        os.mkfifo(path, 0o600)
    else:
        path.mkdir(0o700)
    with pytest.raises(CallerError):
        load_login_or_none(path)


@pytest.mark.parametrize(
    "raw", [b"", b"[]", b"{}", b'{"profile": "x", "method": "device"}', b"{" * 5000, b"x" * 300000]
)
def test_a_damaged_login_file_says_what_to_do(tmp_path: Path, raw: bytes) -> None:
    path = tmp_path / "login.json"
    path.touch(mode=0o600)
    path.write_bytes(raw)
    with pytest.raises(CallerError):
        load_login_or_none(path)


def toml_of(certificate: str, **changes: object) -> str:
    values: dict[str, object] = {
        "scheduler": "farm.acme.example:7443",
        "tenant": "acme",
        "issuer": ISSUER,
        "client_id": "hpcc-cli",
        "image": "r.example/gcc@sha256:" + "ab" * 32,
        **changes,
    }
    lines = [f"{n} = {json.dumps(v)}" for n, v in values.items() if v is not None]
    return "\n".join([*lines, f'scheduler_certificate = """\n{certificate}"""'])


def test_an_operators_farm_file_is_read(
    tmp_path: Path, certificate: str, profile: FarmProfile
) -> None:
    path = tmp_path / "farm.toml"
    path.write_text(toml_of(certificate))
    assert load_profile(path) == profile
    path.write_text(toml_of(certificate, scopes=["openid", "compile"], credential="access"))
    assert load_profile(path).scopes == ("openid", "compile")


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"tenent": "x"}, "unknown key 'tenent'; did you mean 'tenant'?"),
        ({"password": "x"}, "unknown key 'password'"),
        ({"issuer": "http://login.acme.example"}, "is not https"),
        ({"issuer": None}, "'issuer' is missing"),
        ({"client_id": ""}, "client_id"),
        ({"credential": "refresh"}, "must be one of id, access"),
        ({"scopes": "openid"}, "list of strings"),
        ({"image": "gcc:latest"}, "not pinned"),
        ({"tenant": "../x"}, "not a tenant id"),
    ],
)
def test_a_wrong_farm_file_is_said_in_one_line(
    tmp_path: Path, certificate: str, changes: dict[str, object], said: str
) -> None:
    path = tmp_path / "farm.toml"
    path.write_text(toml_of(certificate, **changes))
    with pytest.raises(CallerError) as refused:
        load_profile(path)
    assert said in str(refused.value)
    assert "\n" not in str(refused.value)


def test_a_farm_file_without_the_schedulers_certificate_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "farm.toml"
    path.write_text(toml_of("nonsense"))
    with pytest.raises(CallerError):
        load_profile(path)
