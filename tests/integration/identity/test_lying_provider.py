"""Identity providers that lie, redirect, flood, stall or disappear, over real HTTP on loopback."""

from __future__ import annotations

import asyncio
import json
import ssl
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path

import pytest

from hpcc.core import HpccError, IntegrityError, TenantId
from hpcc.identity.keys import load_or_create_tls
from hpcc.identity.oidc.http import ProviderError, ProviderHttp
from hpcc.identity.oidc.keys import KeyCache, KeyCacheLimits
from hpcc.ports import SystemClock
from hpcc.rpc.base.errors import UnauthenticatedError, UnavailableError
from hpcc.scheduler.tenants.authenticator import TableAuthenticator
from hpcc.scheduler.tenants.file import TenantsFile
from hpcc_testkit.services.idp_tokens import FixedClock, MintKey, claims, mint

ACME, GLOBEX = TenantId("acme"), TenantId("globex")
KEY, OTHER = MintKey.make("acme-1"), MintKey.make("globex-1")
Say = tuple[int, dict[str, str], bytes]


@dataclass(slots=True)
class Liar:
    """Serves a discovery document and a key set, which a test can change."""

    port: int = 0
    keys: list[dict[str, object]] = field(default_factory=lambda: [KEY.jwk()])
    asked: list[str] = field(default_factory=list)
    lie: Callable[[str], Say | None] = lambda _path: None
    scheme: str = "http"

    @property
    def issuer(self) -> str:
        return f"{self.scheme}://127.0.0.1:{self.port}"

    def discovery(self, **changes: object) -> dict[str, object]:
        return {"issuer": self.issuer, "jwks_uri": f"{self.issuer}/keys", **changes}

    def say(self, path: str) -> Say:
        self.asked.append(path)
        told = self.lie(path)
        if told is not None:
            return told
        if path == "/.well-known/openid-configuration":
            return 200, {}, json.dumps(self.discovery()).encode()
        if path == "/keys":
            return 200, {}, json.dumps({"keys": self.keys}).encode()
        return 404, {}, b"no"

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            head = await reader.readuntil(b"\r\n\r\n")
            status, headers, body = self.say(head.split(b" ")[1].decode())
            if status == 0:
                await reader.read()  # until the caller gives up
                return
            lines = [f"HTTP/1.1 {status} x", f"Content-Length: {len(body)}", "Connection: close"]
            lines += [f"{n}: {v}" for n, v in headers.items()]
            writer.write("\r\n".join(lines).encode() + b"\r\n\r\n" + body)
            await writer.drain()
        except (ConnectionError, asyncio.IncompleteReadError):
            pass
        finally:
            writer.close()


@asynccontextmanager
async def liar(tls: ssl.SSLContext | None = None) -> AsyncIterator[Liar]:
    said = Liar(scheme="https" if tls else "http")
    server = await asyncio.start_server(said.serve, "127.0.0.1", 0, ssl=tls)
    said.port = server.sockets[0].getsockname()[1]
    async with server:
        yield said


def cache_of(there: Liar, clock: FixedClock, **limits: float) -> KeyCache:
    http = ProviderHttp(total_seconds=2.0)
    return KeyCache(there.issuer, http, clock, KeyCacheLimits(**limits))


async def refusal(there: Liar) -> HpccError:
    with pytest.raises(HpccError) as refused:
        await cache_of(there, FixedClock()).keys(None)
    return refused.value


async def test_an_honest_provider_is_believed() -> None:
    async with liar() as there:
        assert [k.kid for k in await cache_of(there, FixedClock()).keys("acme-1")] == ["acme-1"]
        assert there.asked == ["/.well-known/openid-configuration", "/keys"]


async def test_a_provider_with_a_certificate_that_nobody_vouches_for_is_not_believed(
    tmp_path: Path,
) -> None:
    load_or_create_tls(tmp_path, "provider", clock=SystemClock())
    tls = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    tls.load_cert_chain(tmp_path / "provider.crt", tmp_path / "provider.key")
    async with liar(tls) as there:

        def asking(ca_file: str) -> KeyCache:
            http = ProviderHttp(ca_file=ca_file, total_seconds=5.0)
            return KeyCache(there.issuer, http, FixedClock())

        own = str(tmp_path / "provider.crt")
        assert [k.kid for k in await asking(own).keys("acme-1")] == ["acme-1"]
        asked = len(there.asked)
        for ca_file in ("", str(tmp_path / "none.crt"), str(tmp_path / "provider.key")):
            with pytest.raises(ProviderError) as refused:
                await asking(ca_file).keys(None)
            assert refused.value.reason == "idp-unreachable"
        assert len(there.asked) == asked


@pytest.mark.parametrize("status", [301, 302, 303, 307, 308])
@pytest.mark.parametrize("path", ["/keys", "/.well-known/openid-configuration"])
async def test_a_redirect_to_other_keys_is_not_followed(status: int, path: str) -> None:
    async with liar() as evil, liar() as there:
        evil.keys = [OTHER.jwk()]
        target = {"Location": f"{evil.issuer}{path}"}
        there.lie = lambda asked: (status, target, b"") if asked == path else None
        error = await refusal(there)
        assert error.reason == "idp-redirect"
        assert evil.asked == []


async def test_an_oversized_key_set_is_refused() -> None:
    async with liar() as there:
        there.keys = [{"kty": "RSA", "n": "A" * (300 << 10)}]
        assert (await refusal(there)).reason == "idp-oversized"


async def test_more_keys_than_anybody_has_are_refused() -> None:
    async with liar() as there:
        there.keys = [{"kty": "EC", "kid": str(n)} for n in range(100)]
        assert (await refusal(there)).reason == "idp-keys"


async def test_a_compressed_answer_is_not_unpacked() -> None:
    async with liar() as there:
        there.lie = lambda _: (200, {"Content-Encoding": "gzip"}, b"\x1f\x8b" + b"0" * 100)
        assert (await refusal(there)).reason == "idp-answer"


async def test_a_provider_that_stalls_is_given_up() -> None:
    async with liar() as there:
        there.lie = lambda _: (0, {}, b"")
        assert isinstance(await refusal(there), ProviderError)


@pytest.mark.parametrize("body", [b"", b"<html>", b"[]", b"7", b"\xff\xfe", b"[" * 5000])
async def test_an_answer_that_is_no_object_is_refused(body: bytes) -> None:
    async with liar() as there:
        there.lie = lambda _: (200, {}, body)
        assert isinstance(await refusal(there), IntegrityError)


async def test_a_provider_that_answers_for_another_issuer_is_refused() -> None:
    async with liar() as there:
        other = there.discovery(issuer="https://login.globex.example")
        there.lie = lambda p: (200, {}, json.dumps(other).encode()) if "well" in p else None
        assert (await refusal(there)).reason == "idp-issuer"


async def test_a_key_set_over_plain_http_elsewhere_is_not_fetched() -> None:
    async with liar() as there:
        other = there.discovery(jwks_uri="http://192.0.2.1/keys")
        there.lie = lambda p: (200, {}, json.dumps(other).encode()) if "well" in p else None
        assert (await refusal(there)).reason == "idp-url"


async def test_a_flood_of_unknown_key_names_costs_one_question_in_half_a_minute() -> None:
    async with liar() as there:
        clock = FixedClock()
        cache = cache_of(there, clock)
        await cache.keys(None)
        first = len(there.asked)
        for number in range(200):
            await cache.keys(f"invented-{number}")
        assert len(there.asked) == first
        clock.time += 31
        async with asyncio.TaskGroup() as group:
            for number in range(50):
                group.create_task(cache.keys(f"invented-{number}"))
        assert len(there.asked) == first + 2
        there.keys = [OTHER.jwk()]
        clock.time += 31
        assert [k.kid for k in await cache.keys("globex-1")] == ["globex-1"]


async def test_a_withdrawn_key_is_forgotten_in_an_hour() -> None:
    async with liar() as there:
        clock = FixedClock()
        cache = cache_of(there, clock)
        await cache.keys("acme-1")
        there.keys = [OTHER.jwk()]
        clock.time += 3500
        assert [k.kid for k in await cache.keys("acme-1")] == ["acme-1"]
        clock.time += 101
        assert [k.kid for k in await cache.keys("acme-1")] == ["globex-1"]


async def test_a_provider_that_stalls_holds_up_one_caller_and_not_all() -> None:
    async with liar() as there, asyncio.TaskGroup() as group:
        clock = FixedClock()
        cache = cache_of(there, clock)
        await cache.keys("acme-1")
        there.lie = lambda _: (0, {}, b"")
        clock.time += 4000
        asking = group.create_task(cache.keys("acme-1"))
        await asyncio.sleep(0)
        for _ in range(20):
            assert [k.kid for k in await cache.keys("acme-1")] == ["acme-1"]
        assert not asking.done()
        assert [k.kid for k in await asking] == ["acme-1"]


async def test_a_provider_that_went_away_lets_people_in_for_some_hours_only() -> None:
    async with liar() as there:
        clock = FixedClock()
        cache = cache_of(there, clock)
        await cache.keys("acme-1")
        there.lie = lambda _: (503, {}, b"")
        clock.time += 4000
        asked = len(there.asked)
        for _ in range(20):
            assert [k.kid for k in await cache.keys("acme-1")] == ["acme-1"]
        assert len(there.asked) == asked + 1
        clock.time += 6 * 3600
        with pytest.raises(ProviderError) as gone:
            await cache.keys("acme-1")
        assert gone.value.reason == "idp-status"


def of_file(path: Path) -> TableAuthenticator:
    clock = FixedClock()
    return TableAuthenticator(TenantsFile(path, clock), clock)


def table(path: Path, **issuers: str) -> Path:
    path.write_text(
        "".join(
            f'[tenants.{name}]\nimages = ["sha256:{"ab" * 32}"]\nminimum_isolation = "qemu/tcg"\n'
            f'[tenants.{name}.identity]\nissuer = "{issuer}"\naudience = "hpcc"\n'
            f'client_ids = ["hpcc-cli"]\n'
            for name, issuer in issuers.items()
        )
    )
    return path


async def test_a_token_of_one_tenant_is_only_ever_checked_against_that_tenants_keys(
    tmp_path: Path,
) -> None:
    async with liar() as acme, liar() as globex:
        globex.keys = [OTHER.jwk(kid="acme-1")]
        both = table(tmp_path / "t", acme=acme.issuer, globex=globex.issuer)
        authenticator = of_file(both)
        good = mint(KEY, claims(iss=acme.issuer))
        assert (await authenticator.admit(good, ACME, "x")).principal == "ann"
        asked = len(acme.asked)
        with pytest.raises(UnauthenticatedError) as refused:
            await authenticator.admit(good, GLOBEX, "x")
        assert refused.value.reason == "idp-token-signature"
        # B's keys with A's issuer, A's tenant: B's provider cannot let anybody into A.
        forged = mint(OTHER, claims(iss=acme.issuer), kid="acme-1")
        with pytest.raises(UnauthenticatedError):
            await authenticator.admit(forged, ACME, "x")
        with pytest.raises(UnauthenticatedError) as issuer:
            await authenticator.admit(forged, GLOBEX, "x")
        assert issuer.value.reason == "idp-token-issuer"
        assert len(acme.asked) == asked


async def test_an_unknown_tenant_is_nobodys_and_asks_nobody(tmp_path: Path) -> None:
    async with liar() as acme:
        authenticator = of_file(table(tmp_path / "t", acme=acme.issuer))
        with pytest.raises(UnauthenticatedError) as refused:
            await authenticator.admit(mint(KEY, claims(iss=acme.issuer)), GLOBEX, "x")
        assert refused.value.reason == "unknown-tenant"
        for nonsense in ("", "x", "a.b.c", "s" * 43, "x" * 9000):
            with pytest.raises(UnauthenticatedError):
                await authenticator.admit(nonsense, ACME, "x")
        assert acme.asked == []


async def test_a_provider_that_is_away_is_no_refusal(tmp_path: Path) -> None:
    async with liar() as acme:
        acme.lie = lambda _: (500, {}, b"")
        authenticator = of_file(table(tmp_path / "t", acme=acme.issuer))
        with pytest.raises(UnavailableError) as away:
            await authenticator.admit(mint(KEY, claims(iss=acme.issuer)), ACME, "x")
        assert away.value.reason == "idp-status"


async def test_no_refusal_and_no_log_line_holds_a_token(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    async with liar() as acme:
        authenticator = of_file(table(tmp_path / "t", acme=acme.issuer))
        token = mint(KEY, claims(iss=acme.issuer, aud="other"))
        with caplog.at_level("DEBUG"), pytest.raises(UnauthenticatedError) as refused:
            await authenticator.admit(token, ACME, "x")
        assert "reason=idp-token-audience" in caplog.text
        for part in token.split("."):
            assert part[:16] not in caplog.text + str(refused.value)
