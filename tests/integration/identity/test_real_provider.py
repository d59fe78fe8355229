"""Logins at a real, certified OpenID provider; a scheduler checks the tokens that it issues."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, replace
from pathlib import Path

import pytest

from hpcc.core import CallerError, HpccError, Isolation, TenantId
from hpcc.identity.login.file import FarmProfile, Login, load_login_or_none, profile_text
from hpcc.identity.login.grants import DeviceCode, Grants, RefusedError, Tokens
from hpcc.identity.login.source import LoginSource, store_login
from hpcc.identity.oidc.http import ProviderHttp
from hpcc.identity.oidc.provider import discover
from hpcc.identity.tls import PinnedPeer
from hpcc.ports import SystemClock
from hpcc.rpc.base.channel import open_channel
from hpcc.rpc.base.errors import UnauthenticatedError
from hpcc.rpc.scheduler.api import RouteAsk, SessionGrant
from hpcc.rpc.scheduler.client import SchedulerClient
from hpcc.scheduler.base.config import SchedulerConfig
from hpcc.scheduler.serve import RunningScheduler, serve_scheduler
from hpcc_testkit.farm.in_process import IMAGE, OTHER_IMAGE
from hpcc_testkit.services.identity_provider import (
    CI_CLIENT,
    CI_SECRET,
    CLIENT,
    RealProvider,
    missing_or_none,
    real_provider,
)

pytestmark = [
    pytest.mark.skipif(missing_or_none() is not None, reason=missing_or_none() or ""),
    pytest.mark.timeout(120),
    pytest.mark.asyncio(loop_scope="module"),
]
ACME, GLOBEX = TenantId("acme"), TenantId("globex")


def section(tenant: str, issuer: str, more: str = "") -> str:
    return f"""
[tenants.{tenant}]
images = ["{IMAGE}"]
minimum_isolation = "{Isolation.LOCAL_NONE.value}"
{more}
[tenants.{tenant}.identity]
issuer = "{issuer}"
audience = "{CLIENT}"
client_ids = ["{CLIENT}"]
"""


@dataclass(slots=True)
class World:
    a: RealProvider
    b: RealProvider
    table: Path
    scheduler: RunningScheduler

    def profile(self, tenant: str = "acme", **changes: object) -> FarmProfile:
        values: dict[str, object] = {
            "scheduler": f"{self.scheduler.host}:{self.scheduler.port}",
            "scheduler_certificate": self.scheduler.certificate_pem,
            "tenant": tenant,
            "issuer": (self.a if tenant == "acme" else self.b).issuer,
            "client_id": CLIENT,
            "image": str(IMAGE),
            **changes,
        }
        return FarmProfile(**values)  # type: ignore[arg-type]  # built by name just above

    @asynccontextmanager
    async def client(self) -> AsyncIterator[SchedulerClient]:
        peer = PinnedPeer.from_pem(self.scheduler.certificate_pem.encode())
        async with open_channel(
            f"{self.scheduler.host}:{self.scheduler.port}",
            certificate_pem=peer.certificate_pem,
            name=peer.name,
        ) as channel:
            yield SchedulerClient(channel)

    async def authenticate(self, token: str, tenant: TenantId) -> SessionGrant:
        async with self.client() as client:
            return await client.authenticate(
                secret=token, tenant=tenant, principal="said by the client", client_version="t"
            )


@asynccontextmanager
async def world(directory: Path, a: RealProvider, b: RealProvider) -> AsyncIterator[World]:
    table = directory / "tenants.toml"
    table.write_text(section("acme", a.issuer) + section("globex", b.issuer))
    config = SchedulerConfig(
        keys=directory / "keys",
        state=directory / "state",
        tenants=str(table),
    )
    async with serve_scheduler(config, SystemClock()) as scheduler:
        yield World(a, b, table, scheduler)


async def grants_of(profile: FarmProfile) -> Grants:
    http = ProviderHttp()
    return Grants(http, await discover(http, profile.issuer), profile, SystemClock())


async def log_in(provider: RealProvider, profile: FarmProfile, person: str) -> Tokens:
    grants = await grants_of(profile)
    code = await grants.device_code()
    assert code.user_code in code.complete_uri
    assert code.interval_seconds == 1
    assert code.verification_uri.startswith(provider.issuer)
    await provider.confirm(code.complete_uri, person)
    return await grants.wait_device(quick(code))


def quick(code: DeviceCode) -> DeviceCode:
    return replace(code, interval_seconds=0.05)


async def test_two_tenants_log_in_and_neither_is_let_in_as_the_other(
    tmp_path: Path, provider: RealProvider, other_provider: RealProvider
) -> None:
    async with world(tmp_path, provider, other_provider) as there:
        ann = await log_in(there.a, there.profile("acme"), "ann")
        gus = await log_in(there.b, there.profile("globex"), "gus")
        grant = await there.authenticate(ann.token, ACME)
        assert grant.expires_at <= ann.expires_at + 60
        await there.authenticate(gus.token, GLOBEX)
        for token, tenant in ((ann.token, GLOBEX), (gus.token, ACME)):
            with pytest.raises(UnauthenticatedError) as refused:
                await there.authenticate(token, tenant)
            # The other's keys are looked at first: the issuer in the token chooses nothing.
            assert refused.value.reason == "idp-token-unknown-key"
        # A session is valid only for its tenant, and only for images in the table.
        async with there.client() as client:
            with pytest.raises(CallerError) as foreign:
                await client.route(grant.session, RouteAsk(tenant=GLOBEX, image=IMAGE))
            assert foreign.value.reason == "foreign-tenant"
            with pytest.raises(CallerError) as image:
                await client.route(grant.session, RouteAsk(tenant=ACME, image=OTHER_IMAGE))
            assert image.value.reason == "image"
            with pytest.raises(HpccError) as nobody:
                await client.route(grant.session, RouteAsk(tenant=ACME, image=IMAGE))
            assert nobody.value.reason == "no-worker"


async def test_a_declined_login_ends_the_wait(
    tmp_path: Path, provider: RealProvider, other_provider: RealProvider
) -> None:
    async with world(tmp_path, provider, other_provider) as there:
        grants = await grants_of(there.profile())
        code = await grants.device_code()
        await there.a.decline(code.complete_uri)
        with pytest.raises(RefusedError) as refused:
            await grants.wait_device(quick(code))
        assert refused.value.code == "access_denied"


async def test_waiting_goes_on_while_nobody_has_answered(
    tmp_path: Path, provider: RealProvider, other_provider: RealProvider
) -> None:
    async with world(tmp_path, provider, other_provider) as there, asyncio.TaskGroup() as group:
        grants = await grants_of(there.profile())
        code = await grants.device_code()
        before = (await there.a.asked()).get("/token", 0)
        waiting = group.create_task(grants.wait_device(quick(code)))
        while (await there.a.asked()).get("/token", 0) < before + 3:  # noqa: ASYNC110 - of another process
            await asyncio.sleep(0.05)
        assert not waiting.done()
        await there.a.confirm(code.complete_uri, "ann")
        assert (await waiting).principal == "ann"


async def test_a_token_is_renewed_before_it_ends_and_its_refresh_token_is_used_once(
    tmp_path: Path, other_provider: RealProvider
) -> None:
    async with (
        real_provider(token_seconds=4) as hasty,
        world(tmp_path, hasty, other_provider) as there,
    ):
        path, profile = tmp_path / "login.json", there.profile()
        first = await log_in(there.a, profile, "ann")
        await store_login(path, login_of(profile, first), SystemClock())
        # As many processes as a machine may have: a daemon of each mount namespace, a command.
        sources = [LoginSource(path, SystemClock()) for _ in range(4)]
        assert await sources[0].token() == first.token
        before = (await there.a.asked())["/token"]
        async with asyncio.timeout(10):
            while await sources[0].token() == first.token:  # noqa: ASYNC110 - time must pass
                await asyncio.sleep(0.1)
        seen = {await source.token() for source in sources}
        assert len(seen) == 1
        assert first.token not in seen
        assert (await there.a.asked())["/token"] == before + 1
        await there.authenticate(seen.pop(), ACME)
        login = load_login_or_none(path)
        assert login is not None
        assert login.refresh_token not in {"", first.refresh_token}
        assert path.stat().st_mode & 0o777 == 0o600


async def test_processes_that_renew_at_once_do_not_end_the_login(
    tmp_path: Path, provider: RealProvider, other_provider: RealProvider
) -> None:
    async with world(tmp_path, provider, other_provider) as there:
        path, profile = tmp_path / "login.json", there.profile()
        first = await log_in(there.a, profile, "ann")
        await store_login(path, ended(login_of(profile, first)), SystemClock())
        async with asyncio.TaskGroup() as group:
            tasks = [group.create_task(LoginSource(path, SystemClock()).token()) for _ in range(5)]
        assert len({t.result() for t in tasks}) == 1
        await there.authenticate(tasks[0].result(), ACME)


async def test_a_revoked_login_says_so_once_and_asks_nobody_again(
    tmp_path: Path, provider: RealProvider, other_provider: RealProvider
) -> None:
    async with world(tmp_path, provider, other_provider) as there:
        path, profile = tmp_path / "login.json", there.profile()
        first = await log_in(there.a, profile, "ann")
        await store_login(path, ended(login_of(profile, first)), SystemClock())
        assert await (await grants_of(profile)).revoke(first.refresh_token)
        source = LoginSource(path, SystemClock())
        for _ in range(2):
            with pytest.raises(CallerError, match="hpcc login") as over:
                await source.token()
            assert over.value.reason == "login-expired"
        asked = (await there.a.asked())["/token"]
        with pytest.raises(CallerError):
            await LoginSource(path, SystemClock()).token()
        assert (await there.a.asked())["/token"] == asked


async def test_client_credentials_let_ci_in_and_a_wrong_secret_does_not(
    tmp_path: Path, provider: RealProvider, other_provider: RealProvider
) -> None:
    async with world(tmp_path, provider, other_provider) as there:
        resource = "urn:hpcc:farm"
        there.table.write_text(
            section("acme", there.a.issuer)
            .replace(f'audience = "{CLIENT}"', f'audience = "{resource}"')
            .replace(f'client_ids = ["{CLIENT}"]', f'client_ids = ["{CI_CLIENT}"]')
        )
        profile = there.profile(
            client_id=CI_CLIENT, credential="access", resource=resource, scopes=("compile",)
        )
        path, secret = tmp_path / "login.json", tmp_path / "secret"
        secret.touch(mode=0o600)
        secret.write_text(CI_SECRET + "\n")
        login = Login(
            profile=profile_text(profile), method="client-credentials", secret_file=str(secret)
        )
        await store_login(path, login, SystemClock())
        token = await LoginSource(path, SystemClock()).token()
        await eventually_lets_in(there, token)
        assert CI_SECRET not in path.read_text()

        secret.write_text("wrong")
        await store_login(path, login, SystemClock())
        with pytest.raises(RefusedError) as refused:
            await LoginSource(path, SystemClock()).token()
        assert refused.value.code == "invalid_client"
        secret.chmod(0o644)
        with pytest.raises(CallerError, match="chmod 600"):
            await LoginSource(path, SystemClock()).token()


async def eventually_lets_in(there: World, token: str) -> None:
    """Wait until the scheduler admits the token; it reads its table once a second."""
    async with asyncio.timeout(10):
        while True:
            try:
                await there.authenticate(token, ACME)
            except UnauthenticatedError:
                await asyncio.sleep(0.1)
            else:
                return


async def test_new_keys_are_found_and_old_ones_forgotten(
    tmp_path: Path, provider: RealProvider, other_provider: RealProvider
) -> None:
    async with world(tmp_path, provider, other_provider) as there:
        old = await log_in(there.a, there.profile(), "ann")
        await there.a.rotate()
        # Never asked before, so the scheduler sees the new keys only.
        new = await log_in(there.a, there.profile(), "ann")
        await there.authenticate(new.token, ACME)
        with pytest.raises(UnauthenticatedError) as refused:
            await there.authenticate(old.token, ACME)
        assert refused.value.reason == "idp-token-unknown-key"


async def test_a_tenant_that_leaves_the_table_is_out_at_once(
    tmp_path: Path, provider: RealProvider, other_provider: RealProvider
) -> None:
    async with world(tmp_path, provider, other_provider) as there:
        ann = await log_in(there.a, there.profile(), "ann")
        grant = await there.authenticate(ann.token, ACME)
        async with there.client() as client:
            with pytest.raises(HpccError) as nobody:
                await client.route(grant.session, RouteAsk(tenant=ACME, image=IMAGE))
            assert nobody.value.reason == "no-worker"
            there.table.write_text("[tenants.acme\nbroken")
            await asyncio.sleep(2.5)
            with pytest.raises(HpccError) as still:
                await client.route(grant.session, RouteAsk(tenant=ACME, image=IMAGE))
            assert still.value.reason == "no-worker"
            there.table.write_text(section("globex", there.b.issuer))
            async with asyncio.timeout(10):
                reason = "no-worker"
                while reason == "no-worker":
                    with pytest.raises(HpccError) as out:
                        await client.route(grant.session, RouteAsk(tenant=ACME, image=IMAGE))
                    reason = out.value.reason
            assert reason == "session"


def login_of(profile: FarmProfile, tokens: Tokens) -> Login:
    return Login(
        profile=profile_text(profile),
        method="device",
        token=tokens.token,
        obtained_at=SystemClock().now(),
        expires_at=tokens.expires_at,
        refresh_token=tokens.refresh_token,
        principal=tokens.principal,
    )


def ended(login: Login) -> Login:
    """Return the same login with an expired token."""
    return replace(login, token="", obtained_at=0.0, expires_at=1.0)
