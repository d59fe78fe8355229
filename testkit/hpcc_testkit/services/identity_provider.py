"""A real OpenID provider (npm's certified `oidc-provider`), and a person who uses its pages.

`missing_or_none` returns the reason to skip; `real_provider` runs the provider.
"""

from __future__ import annotations

import asyncio
import html
import json
import os
import re
import shutil
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final
from urllib.parse import urljoin

import httpx

from hpcc_testkit.suite.pipes import gone

_SCRIPT: Final = Path(__file__).parents[3] / "tests" / "oidc" / "provider.mjs"
_START_SECONDS: Final = 180.0
_DEVICE_GRANT: Final = "urn:ietf:params:oauth:grant-type:device_code"
CLIENT: Final = "hpcc-cli"
CI_CLIENT: Final = "hpcc-ci"
CI_SECRET: Final = "not a secret: of a provider that lives for one test"  # noqa: S105 - as it says


def provider_directory() -> Path:
    """Return where `tools/bootstrap.sh identity-provider` puts the package."""
    base = os.environ.get("XDG_CACHE_HOME") or str(Path.home() / ".cache")
    return Path(base, "hpcc-tests", "oidc-provider")


def missing_or_none() -> str | None:
    """Return what this machine lacks to run the provider, or None."""
    if shutil.which("node") is None:
        return "no node: tools/bootstrap.sh packages test"
    if not (provider_directory() / "node_modules" / "oidc-provider").is_dir():
        return "no identity provider: tools/bootstrap.sh identity-provider"
    return None


@dataclass(slots=True)
class RealProvider:
    """A running provider with a public client (device code) and one with a secret (CI)."""

    issuer: str
    _process: asyncio.subprocess.Process = field(repr=False)

    async def rotate(self) -> None:
        """Replace all signing keys; older tokens then name unknown keys."""
        await self._command("rotate")

    async def asked(self) -> Mapping[str, int]:
        """Count the requests so far by path."""
        return dict(await self._command("asked"))

    async def _command(self, name: str) -> Any:  # noqa: ANN401 - what the script answers
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        self._process.stdin.write(json.dumps({"do": name}).encode() + b"\n")
        async with asyncio.timeout(_START_SECONDS):
            return json.loads(await self._process.stdout.readline())

    async def confirm(self, page: str, login: str) -> None:
        """Open the page as a person does, log in as `login`, confirm and consent."""
        await self._walk(page, login, "confirm")

    async def decline(self, page: str) -> None:
        """Open the page and abort."""
        await self._walk(page, "", "abort")

    async def _walk(self, page: str, login: str, answer: str) -> None:
        async with httpx.AsyncClient(follow_redirects=True, trust_env=False) as browser:
            answered = await browser.get(page)
            for _ in range(10):
                form = _form(answered, login, answer)
                if form is None:
                    break
                url, data = form
                answered = await browser.post(url, data=data)
            said = answered.text
            assert "Sign-in Success" in said or "was interrupted" in said, said


def _form(answered: httpx.Response, login: str, answer: str) -> tuple[str, dict[str, str]] | None:
    """Return the URL of the page's form and the fields to send; None for the last page."""
    if "was interrupted" in answered.text:
        return None
    form = re.search(r'<form[^>]*\baction="([^"]*)"', answered.text)
    if form is None:
        return None
    data = {}
    for tag in re.findall(r"<input[^>]*>", answered.text):
        name, value = re.search(r'name="([^"]*)"', tag), re.search(r'value="([^"]*)"', tag)
        if name:
            data[name[1]] = html.unescape(value[1]) if value else ""
    if "login" in data:
        data |= {"login": login, "password": "any"}
    if answer == "abort" and "Abort" in answered.text:
        data.pop("confirm", None)
        data["abort"] = "yes"
    return urljoin(str(answered.url), html.unescape(form[1])), data


@asynccontextmanager
async def real_provider(*, token_seconds: int = 300) -> AsyncIterator[RealProvider]:
    """Run a provider while the block runs; its state is only in memory."""
    options = {
        "clients": [
            {
                "client_id": CLIENT,
                "token_endpoint_auth_method": "none",
                "application_type": "native",
                "grant_types": [_DEVICE_GRANT, "refresh_token"],
                "response_types": [],
                "redirect_uris": [],
                "id_token_signed_response_alg": "ES256",
            },
            {
                "client_id": CI_CLIENT,
                "client_secret": CI_SECRET,
                "grant_types": ["client_credentials"],
                "response_types": [],
                "redirect_uris": [],
            },
        ],
        "ttl": {
            "AccessToken": token_seconds,
            "ClientCredentials": token_seconds,
            "IdToken": token_seconds,
            "RefreshToken": 3600,
            "DeviceCode": 60,
        },
    }
    process = await asyncio.create_subprocess_exec(
        "node",
        str(_SCRIPT),
        cwd=provider_directory(),
        stdin=asyncio.subprocess.PIPE,
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.DEVNULL,
    )
    assert process.stdin is not None
    assert process.stdout is not None
    try:
        process.stdin.write(json.dumps(options).encode() + b"\n")
        async with asyncio.timeout(_START_SECONDS):
            ready = json.loads(await process.stdout.readline())
        yield RealProvider(ready["issuer"], process)
    finally:
        process.stdin.close()
        try:
            async with asyncio.timeout(_START_SECONDS):
                await gone(process)
        except TimeoutError:
            process.kill()
            await gone(process)
