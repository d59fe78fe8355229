"""HTTP with identity providers: HTTPS, no redirects, bounded answers, errors of hpcc's families."""

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

from hpcc.config.addresses import AddressError, Reach, direct_transport
from hpcc.core import CallerError, InfrastructureError, IntegrityError
from hpcc.obs.faults import connection_fault

if TYPE_CHECKING:
    import httpx

MAX_URL_CHARS: Final = 1024
_CONNECT_SECONDS: Final = 5.0
# For the whole answer: a provider that sends slowly must not block a login.
_TOTAL_SECONDS: Final = 15.0
_OK: Final = 200
_REDIRECTS: Final = range(300, 400)
_CLIENT_ERRORS: Final = range(400, 500)
_TOO_MANY: Final = 429


class ProviderError(InfrastructureError):
    """The identity provider does not answer, or not as requested; a later try may succeed."""

    default_reason = "idp-unreachable"


@dataclass(frozen=True, slots=True)
class ProviderResponse:
    """The status, and the JSON object in the body."""

    status: int
    body: Mapping[str, object]


def is_loopback(host: str | None) -> bool:
    """Return whether a host name (without port) can only be this machine."""
    if host in {None, "localhost"}:
        return host is not None
    try:
        return ipaddress.ip_address(str(host)).is_loopback
    except ValueError:
        return False


def check_provider_url(url: str, *, issuer: str | None = None) -> str:
    """Return the URL if it may be requested: https, or http on this machine's loopback.

    The documents of a remote provider (`issuer`) cannot point at an address of this machine.

    Raises:
        CallerError: another scheme, credentials or a fragment in it, or not a URL.
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
            f"{url[:200]!r} is not https: hpcc sends tokens and fetches keys only over https",
            reason="idp-url",
        )
    if is_loopback(host) and not is_loopback(issuer_host):
        raise CallerError(
            f"the identity provider points at this machine: {url[:200]!r}", reason="idp-url"
        )
    return url


class ProviderHttp:
    """Sends requests to identity providers. One object serves many; it keeps no connections."""

    def __init__(
        self, *, proxy: str = "", ca_file: str = "", total_seconds: float = _TOTAL_SECONDS
    ) -> None:
        """Send through `proxy` and trust the roots in `ca_file`; empty means the system's."""
        self._proxy, self._ca_file, self._total_seconds = proxy, ca_file, total_seconds
        self._answered: dict[str, Reach] = {}

    async def get(self, url: str, *, max_bytes: int, issuer: str = "") -> ProviderResponse:
        """Return the JSON object at `url`, which a document of `issuer` may have named.

        Raises:
            ProviderError: unreachable, slow, an error status, or a redirect.
            IntegrityError: too large, or not a JSON object.
        """
        answer = await self._send("GET", url, {}, {}, max_bytes, issuer or url)
        if answer.status != _OK:
            raise ProviderError(f"{_host(url)} answers {answer.status}", reason="idp-status")
        return answer

    async def post(
        self,
        url: str,
        form: Mapping[str, str],
        *,
        basic: tuple[str, str] | None,
        max_bytes: int,
        issuer: str = "",
    ) -> ProviderResponse:
        """Send a form to `url`, which a document of `issuer` may have named.

        4xx is returned and not raised, because OAuth puts error codes there.

        Raises:
            ProviderError, IntegrityError: see `get`.
        """
        headers = {"Authorization": _basic(*basic)} if basic else {}
        answer = await self._send("POST", url, form, headers, max_bytes, issuer or url)
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
        issuer: str,
    ) -> ProviderResponse:
        import httpx  # late: it takes 60 ms, which other commands need not pay

        try:
            async with (
                asyncio.timeout(self._total_seconds),
                self._client(url, issuer) as client,
                client.stream(method, url, data=dict(form) or None, headers=headers) as response,
            ):
                if response.status_code in _REDIRECTS:
                    # A redirect could fetch keys from, or send a secret to, an unconfigured place.
                    raise ProviderError(f"{_host(url)} redirects: refused", reason="idp-redirect")
                raw = await _read(response, max_bytes)
                status = response.status_code
        except AddressError as error:
            raise ProviderError(str(error), reason=error.reason) from error
        except TimeoutError as error:
            raise ProviderError(f"{_host(url)} takes too long") from error
        except httpx.ConnectError as error:
            why = connection_fault(error) or "wrong issuer or no network"
            raise ProviderError(
                f"{_host(url)} cannot be reached: {why} (settings: SSL_CERT_FILE, HTTPS_PROXY)"
            ) from error
        except (httpx.HTTPError, httpx.InvalidURL) as error:
            raise ProviderError(f"{_host(url)}: {type(error).__name__}") from error
        if not raw:
            return ProviderResponse(status, {})  # for example the answer to a revocation
        return ProviderResponse(status, _object(raw, url, is_ok=status == _OK))

    @asynccontextmanager
    async def _client(self, url: str, issuer: str) -> AsyncIterator[httpx.AsyncClient]:
        import httpx

        is_local = is_loopback(urlsplit(url).hostname)
        roots = self._roots()
        try:
            configured = urlsplit(issuer).hostname or ""
            direct = (
                direct_transport(
                    url,
                    configured=configured,
                    verify=roots,
                    may_use_proxy=not is_local,
                    answered=self._answered,
                )
                if is_local or not self._proxy
                else None
            )
            made = httpx.AsyncClient(
                follow_redirects=False,
                timeout=httpx.Timeout(self._total_seconds, connect=_CONNECT_SECONDS),
                # A proxy cannot reach this machine's loopback. Companies add their roots to the
                # system's, so those are trusted.
                trust_env=not is_local,
                proxy=(self._proxy or None) if not is_local else None,
                verify=roots,
                transport=direct,
                headers={
                    "User-Agent": "hpcc",
                    "Accept": "application/json",
                    "Accept-Encoding": "identity",
                },
            )
        except (ImportError, ValueError) as error:
            # SOCKS, or not a URL. The error's text is dropped: a proxy URL may hold a password.
            raise ProviderError(
                f"{_host(url)}: the proxy that is set for it cannot be used", reason="idp-proxy"
            ) from error
        async with made as client:
            yield client

    def _roots(self) -> ssl.SSLContext:
        try:
            return ssl.create_default_context(cafile=self._ca_file or None)
        except OSError as error:  # includes ssl.SSLError
            raise ProviderError(f"no certificates can be read from {self._ca_file}") from error


async def _read(response: httpx.Response, max_bytes: int) -> bytes:
    if response.headers.get("content-encoding", "identity") != "identity":
        raise IntegrityError(
            "the identity provider sent a compressed answer unasked", reason="idp-answer"
        )
    raw = b""
    async for chunk in response.aiter_raw():
        raw += chunk
        if len(raw) > max_bytes:
            raise IntegrityError(
                f"{response.url.host} sends more than {max_bytes} bytes", reason="idp-oversized"
            )
    return raw


def _object(raw: bytes, url: str, *, is_ok: bool) -> Mapping[str, object]:
    # Any: json.loads has no better type; the value is checked below.
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
    """Return the Basic credentials; RFC 6749, 2.3.1 form-encodes both parts first."""
    import base64
    from urllib.parse import quote_plus

    pair = f"{quote_plus(client_id)}:{quote_plus(secret)}"
    return "Basic " + base64.b64encode(pair.encode()).decode()


def _host(url: str) -> str:
    return f"identity provider {urlsplit(url).netloc}"
