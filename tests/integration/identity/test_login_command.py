"""`hpcc login` as a person uses it, and builds with that login: local or remote, never broken."""

from __future__ import annotations

import asyncio
import json
import os
import re
import sys
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import ExitStack, asynccontextmanager
from dataclasses import dataclass, replace
from pathlib import Path

import pytest

from hpcc.config.paths import Paths
from hpcc.config.settings import RemoteSettings, Settings
from hpcc.core import RemoteFailure, RemoteInput, RemoteOutcome, RemoteRequest, RemoteResult
from hpcc.dispatch.remote import start_remote
from hpcc.identity.login.file import load_login_or_none, save_login
from hpcc_testkit.farm.in_process import IMAGE, FarmUnderTest, farm_under_test
from hpcc_testkit.services.browser import browser
from hpcc_testkit.services.browser import missing_or_none as no_browser_or_none
from hpcc_testkit.services.identity_provider import (
    CI_CLIENT,
    CI_SECRET,
    CLIENT,
    RealProvider,
    missing_or_none,
)
from hpcc_testkit.services.web import Fetched, web_pages

pytestmark = [
    pytest.mark.skipif(missing_or_none() is not None, reason=missing_or_none() or ""),
    pytest.mark.timeout(180),
    pytest.mark.asyncio(loop_scope="module"),
]
HPCC = Path(sys.prefix, "bin", "hpcc")
RESOURCE = "urn:hpcc:farm"


@dataclass(slots=True)
class Site:
    directory: Path
    provider: RealProvider
    farm: FarmUnderTest

    @property
    def paths(self) -> Paths:
        return Paths.from_env(self.env)

    @property
    def env(self) -> dict[str, str]:
        return {"HPCC_DIR": str(self.directory / "h"), "PATH": os.environ["PATH"], "HOME": "/"}

    def farm_file(self, **changes: str) -> Path:
        values = {
            "scheduler": f"{self.farm.scheduler.host}:{self.farm.scheduler.port}",
            "tenant": "acme",
            "issuer": self.provider.issuer,
            "client_id": CLIENT,
            "image": str(IMAGE),
            **changes,
        }
        path = self.directory / "farm.toml"
        lines = [f'{n} = "{v}"' for n, v in values.items()]
        certificate = f'scheduler_certificate = """\n{self.farm.scheduler.certificate_pem}"""'
        path.write_text("\n".join([*lines, certificate]))
        return path

    async def start(self, *argv: str) -> asyncio.subprocess.Process:
        return await asyncio.create_subprocess_exec(
            str(HPCC), *argv, env=self.env, cwd=self.directory,
            stdin=asyncio.subprocess.DEVNULL,
            stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.PIPE,
        )  # fmt: skip

    async def hpcc(self, *argv: str) -> tuple[int, str]:
        process = await self.start(*argv)
        out, errors = await process.communicate()
        assert process.returncode is not None
        return process.returncode, (out + errors).decode()

    async def log_in(
        self,
        person: str = "ann",
        *more: str,
        confirm: Callable[[str, str], Awaitable[None]] | None = None,
    ) -> str:
        """Log in as a person, who confirms at the provider's page, by default without a browser."""
        process = await self.start("login", str(self.farm_file()), *more)
        try:
            return await self._logged_in(process, person, confirm or self.provider.confirm)
        finally:
            if process.returncode is None:
                process.kill()
                await process.communicate()

    async def _logged_in(
        self,
        process: asyncio.subprocess.Process,
        person: str,
        confirm: Callable[[str, str], Awaitable[None]],
    ) -> str:
        assert process.stdout is not None
        head = ""
        while "or    " not in head:
            line = (await process.stdout.readline()).decode()
            assert line, head
            head += line
        page = re.search(r"^or    (\S+)$", head, re.MULTILINE)
        code = re.search(r"^code  (\S+)$", head, re.MULTILINE)
        assert page is not None
        assert code is not None
        assert code[1] in page[1]
        await confirm(page[1], person)
        out, errors = await process.communicate()
        assert process.returncode == 0, errors.decode()
        return head + out.decode()

    async def compile(self) -> RemoteOutcome:
        source = self.directory / "a.c"
        source.write_text("int x;\n")
        client = start_remote(self.paths, Settings(remote=RemoteSettings(timeout_seconds=30)))
        request = RemoteRequest(
            argv=("sh", "-c", "cp a.c a.o"),
            env=(("PATH", "/usr/bin:/bin"),),
            cwd="",
            inputs=(RemoteInput("a.c", str(source), False),),
            outputs=("a.o",),
        )
        try:
            return await asyncio.to_thread(client.compile, request, lambda: False)
        finally:
            await asyncio.to_thread(client.close)


def tenants(issuer: str, *, audience: str = CLIENT, client: str = CLIENT, quotas: str = "") -> str:
    return f"""
[tenants.acme]
images = ["{IMAGE}"]
minimum_isolation = "local/none"
guest_reuse = "exec"
[tenants.acme.identity]
issuer = "{issuer}"
audience = "{audience}"
client_ids = ["{client}"]
[tenants.acme.quotas]
{quotas}
"""


@asynccontextmanager
async def site(directory: Path, provider: RealProvider, **table: str) -> AsyncIterator[Site]:
    path = directory / "tenants.toml"
    path.write_text(tenants(provider.issuer, **table))
    async with farm_under_test(directory / "farm", tenants=path) as farm, farm.serving():
        there = Site(directory, provider, farm)
        try:
            yield there
        finally:
            await there.hpcc("stop")


async def test_a_person_logs_in_builds_on_the_farm_and_logs_out(
    tmp_path: Path, provider: RealProvider
) -> None:
    revoked = (await provider.asked()).get("/token/revocation", 0)
    async with site(tmp_path, provider) as there:
        assert (await there.hpcc("whoami"))[0] == 1
        said = await there.log_in()
        assert "as ann of acme\nthe scheduler accepts it" in said
        assert there.paths.login_file.stat().st_mode & 0o777 == 0o600
        assert there.paths.farm_file.stat().st_mode & 0o777 == 0o600
        code, who = await there.hpcc("whoami", "--check")
        assert code == 0, who
        assert who.startswith("ann of tenant acme\n")
        assert "renewed before it ends" in who
        assert "accepts it" in who
        login = load_login_or_none(there.paths.login_file)
        assert login is not None
        for secret in (login.token, login.refresh_token):
            assert secret not in said + who

        outcome = await there.compile()
        assert isinstance(outcome, RemoteResult), outcome
        (row,) = there.farm.audit.rows
        # From the token, not from what the client says of itself.
        assert (row.tenant, row.principal) == ("acme", "ann")
        # The table is stricter than the worker, whose own setting is "principal".
        assert (row.reuse, there.farm.worker_fields) == ("exec", {"admin": ""})

        code, said = await there.hpcc("up")
        assert (code, "hpcc logout" in said) == (2, True)
        await there.hpcc("down")
        assert there.paths.farm_file.exists()

        assert await there.hpcc("logout") == (0, "logged out\n")
        assert not there.paths.login_file.exists()
        assert not there.paths.farm_file.exists()
        assert (await there.provider.asked())["/token/revocation"] == revoked + 1
        assert await there.hpcc("logout") == (0, "nobody was logged in\n")
        gone = await there.compile()
        assert isinstance(gone, RemoteFailure)
        assert gone.reason == "no-farm"


async def test_the_farms_pages_are_shown_with_the_login_of_their_person(
    tmp_path: Path, provider: RealProvider
) -> None:
    async with site(tmp_path, provider) as there:
        code, said = await there.hpcc("web")
        assert (code, "hpcc login" in said) == (2, True)
        await there.log_in()
        login = load_login_or_none(there.paths.login_file)
        assert login is not None
        with ExitStack() as stack:
            # In a thread: scheduler and worker live in this loop.
            link = await asyncio.to_thread(stack.enter_context, web_pages(there.env, local=False))
            client = await asyncio.to_thread(Fetched, link)

            async def until(words: str) -> str:
                front = ""
                while words not in front:  # the guard is the test's own limit of time
                    front, _ = await asyncio.to_thread(client.page, f"{client.root}/")
                    await asyncio.sleep(0.1)
                return front

            front = await until("1 worker takes compiles, and there is room.")
            assert "what members of acme see" in front
            assert "ann" in front
            for secret in (login.token, login.refresh_token):
                assert secret not in front
            await there.hpcc("logout")
            assert "worker takes" not in await until("no farm")
            await asyncio.to_thread(stack.close)


@pytest.mark.skipif(bool(no_browser_or_none()), reason=no_browser_or_none() or "it is here")
async def test_a_person_confirms_in_a_browser_and_looks_at_the_farm_there(
    tmp_path: Path, provider: RealProvider
) -> None:
    async with site(tmp_path, provider) as there:
        with ExitStack() as stack:
            chromium = await asyncio.to_thread(stack.enter_context, browser())

            def confirm(page: str, person: str) -> None:
                chromium.do("open", url=page)
                chromium.do("click", css="button[type='submit']")  # this is my code
                chromium.do("type", css="input[name='login']", text=person)
                chromium.do("write", css="input[name='password']", text="any")
                chromium.do("click", css="button[type='submit']")  # hpcc may know my name
                chromium.do("wait", text="Sign-in Success")
                chromium.do("log")  # the provider's pages want fonts from the internet

            said = await there.log_in(confirm=lambda *a: asyncio.to_thread(confirm, *a))
            assert "as ann of acme\nthe scheduler accepts it" in said
            link = await asyncio.to_thread(stack.enter_context, web_pages(there.env, local=False))
            await asyncio.to_thread(chromium.do, "open", url=link)
            await asyncio.to_thread(chromium.do, "wait", text="what members of acme see")
            front = await asyncio.to_thread(chromium.do, "wait", text="1 worker takes compiles")
            assert "ann" in front["text"]
            assert await asyncio.to_thread(chromium.do, "log") == []
            await there.hpcc("logout")
            await asyncio.to_thread(chromium.do, "wait", text="no farm")
            await asyncio.to_thread(stack.close)


async def test_a_login_that_the_scheduler_refuses_is_not_kept(
    tmp_path: Path, provider: RealProvider
) -> None:
    async with site(tmp_path, provider, audience="another", client="another") as there:
        process = await there.start("login", str(there.farm_file()))
        assert process.stdout is not None
        page = ""
        while not page.startswith("or    "):
            page = (await process.stdout.readline()).decode()
        await there.provider.confirm(page.split()[1], "ann")
        _, errors = await process.communicate()
        assert process.returncode == 2
        assert "the scheduler refuses ann: token is for another service" in errors.decode()
        assert not there.paths.login_file.exists()
        assert not there.paths.farm_file.exists()


async def test_ci_logs_in_by_client_credentials_or_by_a_token_file(
    tmp_path: Path, provider: RealProvider
) -> None:
    async with site(tmp_path, provider, audience=RESOURCE, client=CI_CLIENT) as there:
        secret = tmp_path / "secret"
        secret.touch(mode=0o600)
        secret.write_text(CI_SECRET)
        file = there.farm_file(client_id=CI_CLIENT, credential="access", resource=RESOURCE)
        file.write_text(f'scopes = ["compile"]\n{file.read_text()}')
        code, said = await there.hpcc("login", str(file), "--client-secret-file", str(secret))
        assert code == 0, said
        assert isinstance(await there.compile(), RemoteResult)
        assert there.farm.audit.rows[-1].principal == CI_CLIENT

        login = load_login_or_none(there.paths.login_file)
        assert login is not None
        token = tmp_path / "token"
        token.write_text(login.token)
        assert (await there.hpcc("logout"))[0] == 0
        code, said = await there.hpcc("login", str(file), "--token-file", str(token))
        assert code == 0, said
        assert login.token not in there.paths.login_file.read_text()
        assert isinstance(await there.compile(), RemoteResult)
        token.unlink()
        gone = await there.compile()
        assert isinstance(gone, RemoteFailure)
        assert gone.reason == "login-token-file"


async def test_a_tenant_that_has_uploaded_what_it_may_compiles_here(
    tmp_path: Path, provider: RealProvider
) -> None:
    async with site(tmp_path, provider, quotas="upload_bytes = 100") as there:
        await there.log_in()
        outcome = await there.compile()
        assert isinstance(outcome, RemoteFailure)
        assert outcome.reason == "quota-upload"
        assert ("quota-upload", "acme") in {(e.name, e.tenant) for e in there.farm.audit.events}
        assert there.farm.audit.rows == []


async def stats(there: Site) -> dict[str, int]:
    code, said = await there.hpcc("stats", "--json")
    assert code == 0, said
    counters: dict[str, int] = json.loads(said)
    return counters


async def _refused(there: Site, reason: str) -> None:
    """Wait until the scheduler, which looks at its table every second, refuses the login."""
    async with asyncio.timeout(60):
        outcome = await there.compile()
        while not isinstance(outcome, RemoteFailure):
            await asyncio.sleep(0.2)
            outcome = await there.compile()
        assert outcome.reason == reason


@pytest.mark.parametrize("how", ["ended", "refused", "unreadable", "gone"])
async def test_a_login_that_is_no_good_costs_no_build(
    tmp_path: Path, provider: RealProvider, how: str
) -> None:
    async with site(tmp_path, provider) as there:
        await there.log_in()
        paths = there.paths
        login = load_login_or_none(paths.login_file)
        assert login is not None
        match how:
            case "ended":
                save_login(paths.login_file, replace(login, token="", refresh_token="no",
                                                     expires_at=1.0, obtained_at=0.0))  # fmt: skip
                reason = "login-expired"
            case "refused":
                table = tmp_path / "tenants.toml"
                table.write_text(tenants(there.provider.issuer, audience="another"))
                await _refused(there, "idp-token-audience")
                reason = "idp-token-audience"
            case "unreadable":
                paths.login_file.chmod(0o644)
                reason = "login-file"
            case _:
                paths.login_file.unlink()
                reason = "login-none"
        (tmp_path / "b.c").write_text("int main(void) { return 0; }\n")
        for number in range(2):
            code, said = await there.hpcc("gcc", f"-DN={number}", "-c", "b.c", "-o", "b.o")
            assert (code, said) == (0, ""), said
            assert (tmp_path / "b.o").exists()
        counters = await stats(there)
        assert counters[f"fallback.{reason}"] == 2, counters
        lines = (paths.state / "daemon.log").read_text().splitlines()
        assert [x for x in lines if f"compiled locally ({reason})" in x], lines
