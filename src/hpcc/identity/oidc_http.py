"""HTTP with an identity provider: HTTPS, no redirects, bounded answers, errors made ours."""

from __future__ import annotations

import asyncio
import ipaddress
import json
import ssl
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final
from urllib.parse import urlsplit

from hpcc.core import CallerError, InfrastructureError, IntegrityError

if TYPE_CHECKING:
    import httpx

MAX_URL_CHARS: Final = 1024
_CONNECT_SECONDS: Final = 5.0
# For one whole answer: a provider that trickles must not hold a login.
_TOTAL_SECONDS: Final = 15.0
_OK: Final = 200
_REDIRECTS: Final = range(300, 400)
_CLIENT_ERRORS: Final = range(400, 500)
_TOO_MANY: Final = 429


class ProviderError(InfrastructureError):
    """The identity provider does not answer, or not with what was asked for; try later."""

    default_reason = "idp-unreachable"


@dataclass(frozen=True, slots=True)
class ProviderResponse:
    """Status and the object in the body."""

    status: int
    body: Mapping[str, object]


def is_loopback(host: str | None) -> bool:
    """Whether a host name (no port) can only be this machine."""
    if host in {None, "localhost"}:
        return host is not None
    try:
        return ipaddress.ip_address(str(host)).is_loopback
    except ValueError:
        return False


def check_provider_url(url: str, *, issuer: str | None = None) -> str:
    """Return a URL that may be asked: https, or http on this machine's loopback.

    A provider elsewhere (`issuer`) cannot send us to an address of this machine.

    Raises:
        CallerError: another scheme, a login or fragment in it, or not a URL.
    """
    try:
        parts = urlsplit(url)
        host, _ = parts.hostname, parts.port
        issuer_host = urlsplit(issuer).hostname if issuer else host
    except ValueError:
        host = issuer_host = None
    if (
        not host
        or len(url) > MAX_URL_CHARS
        or not url.isascii()
        or not url.isprintable()
        or " " in url
        or parts.username is not None
        or parts.fragment
        or "#" in url
    ):
        raise CallerError(f"not a URL of an identity provider: {url[:200]!r}", reason="idp-url")
    if parts.scheme != "https" and not (parts.scheme == "http" and is_loopback(host)):
        raise CallerError(
            f"{url[:200]!r} is not https: tokens and keys travel no other way", reason="idp-url"
        )
    if is_loopback(host) and not is_loopback(issuer_host):
        raise CallerError(
            f"the identity provider points at this machine: {url[:200]!r}", reason="idp-url"
        )
    return url


class ProviderHttp:
    """Requests to identity providers. One object serves many; it keeps no connection."""

    def __init__(
        self, *, proxy: str = "", ca_file: str = "", total_seconds: float = _TOTAL_SECONDS
    ) -> None:
        """Ask through `proxy`, and trust the roots of `ca_file`; empty for what the system says."""
        self._proxy, self._ca_file, self._total_seconds = proxy, ca_file, total_seconds

    async def get(self, url: str, *, max_bytes: int) -> ProviderResponse:
        """Fetch a JSON object.

        Raises:
            ProviderError: unreachable, slow, an error status or a redirect.
            IntegrityError: too large, or not a JSON object.
        """
        answer = await self._send("GET", url, {}, {}, max_bytes)
        if answer.status != _OK:
            raise ProviderError(f"{_host(url)} answers {answer.status}", reason="idp-status")
        return answer

    async def post(
        self, url: str, form: Mapping[str, str], *, basic: tuple[str, str] | None, max_bytes: int
    ) -> ProviderResponse:
        """Send a form; 4xx comes back as an answer, since OAuth says there what was wrong.

        Raises:
            ProviderError, IntegrityError: see `get`.
        """
        headers = {"Authorization": _basic(*basic)} if basic else {}
        answer = await self._send("POST", url, form, headers, max_bytes)
        is_told = answer.status in _CLIENT_ERRORS and answer.status != _TOO_MANY
        if answer.status != _OK and not is_told:
            raise ProviderError(f"{_host(url)} answers {answer.status}", reason="idp-status")
        return answer

    async def _send(
        self,
        method: str,
        url: str,
        form: Mapping[str, str],
        headers: Mapping[str, str],
        max_bytes: int,
    ) -> ProviderResponse:
        import httpx  # late: 60 ms that no other command need pay

        try:
            async with (
                asyncio.timeout(self._total_seconds),
                self._client(url) as client,
                client.stream(method, url, data=dict(form) or None, headers=headers) as response,
            ):
                if response.status_code in _REDIRECTS:
                    # Keys from where the operator did not say, or a secret sent there.
                    raise ProviderError(f"{_host(url)} redirects: refused", reason="idp-redirect")
                raw = await _read(response, max_bytes)
                status = response.status_code
        except TimeoutError as error:
            raise ProviderError(f"{_host(url)} takes too long") from error
        except httpx.ConnectError as error:
            raise ProviderError(
                f"{_host(url)} cannot be reached: wrong issuer, no network, or a certificate that"
                " is not trusted here (SSL_CERT_FILE, HTTPS_PROXY)"
            ) from error
        except (httpx.HTTPError, httpx.InvalidURL) as error:
            raise ProviderError(f"{_host(url)}: {type(error).__name__}") from error
        if not raw:
            return ProviderResponse(status, {})  # of a revocation, for one
        return ProviderResponse(status, _object(raw, url, is_ok=status == _OK))

    @asynccontextmanager
    async def _client(self, url: str) -> AsyncIterator[httpx.AsyncClient]:
        import httpx

        is_local = is_loopback(urlsplit(url).hostname)
        roots = self._roots()
        try:
            made = httpx.AsyncClient(
                follow_redirects=False,
                timeout=httpx.Timeout(self._total_seconds, connect=_CONNECT_SECONDS),
                # A proxy cannot reach this machine's loopback. System roots: where a company
                # puts its own.
                trust_env=not is_local,
                proxy=(self._proxy or None) if not is_local else None,
                verify=roots,
                headers={
                    "User-Agent": "hpcc",
                    "Accept": "application/json",
                    "Accept-Encoding": "identity",
                },
            )
        except (ImportError, ValueError) as error:
            # SOCKS, or no URL. Not its text: a proxy's URL may hold a password.
            raise ProviderError(
                f"{_host(url)}: the proxy that is set for it cannot be used", reason="idp-proxy"
            ) from error
        async with made as client:
            yield client

    def _roots(self) -> ssl.SSLContext:
        try:
            return ssl.create_default_context(cafile=self._ca_file or None)
        except OSError as error:  # of which ssl.SSLError is one
            raise ProviderError(f"no certificates can be read from {self._ca_file}") from error


async def _read(response: httpx.Response, max_bytes: int) -> bytes:
    if response.headers.get("content-encoding", "identity") != "identity":
        raise IntegrityError("the identity provider compresses unasked", reason="idp-answer")
    raw = b""
    async for chunk in response.aiter_raw():
        raw += chunk
        if len(raw) > max_bytes:
            raise IntegrityError(
                f"{response.url.host} sends more than {max_bytes} bytes", reason="idp-oversized"
            )
    return raw


def _object(raw: bytes, url: str, *, is_ok: bool) -> Mapping[str, object]:
    # Any: json.loads cannot say more; what comes out is checked at once.
    value: Any
    try:
        value = json.loads(raw)
    except (ValueError, RecursionError) as error:
        if not is_ok:
            return {}  # an error page
        raise IntegrityError(
            f"{_host(url)} does not answer in JSON", reason="idp-answer"
        ) from error
    if not isinstance(value, dict):
        raise IntegrityError(f"{_host(url)} does not answer an object", reason="idp-answer")
    return value


def _basic(client_id: str, secret: str) -> str:
    """RFC 6749, 2.3.1: both are form-encoded first."""
    import base64
    from urllib.parse import quote_plus

    pair = f"{quote_plus(client_id)}:{quote_plus(secret)}"
    return "Basic " + base64.b64encode(pair.encode()).decode()


def _host(url: str) -> str:
    return f"identity provider {urlsplit(url).netloc}"
