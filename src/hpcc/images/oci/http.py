"""One registry endpoint over HTTP: bounded redirects, logins, errors converted to those of hpcc."""

from __future__ import annotations

import ssl
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final, Self
from urllib.parse import SplitResult, urljoin, urlsplit

from hpcc.config.addresses import direct_transport
from hpcc.core import CallerError, InfrastructureError, IntegrityError, NotFoundError
from hpcc.images.oci.auth import (
    MAX_TOKEN_ANSWER_BYTES,
    Logins,
    is_loopback,
    parse_challenges,
    parse_token,
)

if TYPE_CHECKING:
    import httpx

_MAX_REDIRECTS: Final = 5
_CONNECT_SECONDS: Final = 10.0
# The wait between two pieces of an answer. The whole answer has a separate deadline.
_READ_SECONDS: Final = 30.0
_UNAUTHORIZED, _FORBIDDEN, _NOT_FOUND, _TOO_MANY = 401, 403, 404, 429


@dataclass(frozen=True, slots=True)
class Timeouts:
    """Seconds for a connection and between two pieces of an answer."""

    connect_seconds: float = _CONNECT_SECONDS
    read_seconds: float = _READ_SECONDS


class Endpoint:
    """A registry or a mirror. Use it with `async with`."""

    def __init__(
        self, base_url: str, *, login_host: str, logins: Logins, timeouts: Timeouts
    ) -> None:
        self._base = check_base_url(base_url)
        self._login_host, self._logins, self._timeouts = login_host, logins, timeouts
        self._authorization = ""
        self._client: httpx.AsyncClient | None = None

    @property
    def name(self) -> str:
        """Return host and port, for error texts."""
        return self._base.netloc

    async def __aenter__(self) -> Self:
        import httpx  # imported late: it takes 60 ms, which commands without a registry save

        is_local = is_loopback(self._base.hostname)
        roots = ssl.create_default_context()
        self._client = httpx.AsyncClient(
            follow_redirects=False,
            timeout=httpx.Timeout(
                self._timeouts.read_seconds, connect=self._timeouts.connect_seconds
            ),
            # A proxy cannot reach this machine's loopback. The system's roots are used, because
            # companies install theirs there.
            trust_env=not is_local,
            verify=roots,
            transport=direct_transport(
                self._base.geturl(),
                configured=self._base.hostname or "",
                verify=roots,
                may_use_proxy=not is_local,
            ),
            headers={"User-Agent": "hpcc", "Accept-Encoding": "identity"},
        )
        return self

    async def __aexit__(self, *_: object) -> None:
        if self._client is not None:
            await self._client.aclose()

    @asynccontextmanager
    async def get(
        self, path: str, *, repository: str, accept: str = "*/*"
    ) -> AsyncIterator[httpx.Response]:
        """Open the answer to a GET of `path` below the base URL, before its body is read.

        Raises:
            NotFoundError: the status is 404.
            CallerError: the registry needs a login that is missing or not accepted.
            InfrastructureError: the registry is unreachable, fails, or redirects too often.
            IntegrityError: the answer is one that no correct registry sends.
        """
        url = self._base.geturl().rstrip("/") + path
        has_answered_challenge = False
        for _ in range(_MAX_REDIRECTS + 2):
            async with self._send(url, accept) as response:
                if (
                    response.status_code == _UNAUTHORIZED
                    and not has_answered_challenge
                    and self._is_own(url)
                ):
                    has_answered_challenge = True
                    await self._answer(response.headers.get_list("www-authenticate"), repository)
                    continue
                if response.has_redirect_location:
                    url = self._redirected(url, response.headers["location"])
                    continue
                self._check_status(response)
                yield response
                return
        raise InfrastructureError(
            f"registry {self.name} redirects too many times", reason="redirect-loop"
        )

    @asynccontextmanager
    async def _send(self, url: str, accept: str) -> AsyncIterator[httpx.Response]:
        """Send one request. The login is sent to the base URL's host only, not after redirects."""
        import httpx

        assert self._client is not None, "used outside of its block"
        headers = {"Accept": accept}
        if self._authorization and self._is_own(url):
            headers["Authorization"] = self._authorization
        try:
            request = self._client.build_request("GET", url, headers=headers)
            response = await self._client.send(request, stream=True)
            try:
                yield response
            finally:
                await response.aclose()
        except (httpx.HTTPError, httpx.InvalidURL) as error:
            raise InfrastructureError(
                f"registry {self.name}: {_why(error)}", reason="registry-unreachable"
            ) from error

    async def _answer(self, challenges: list[str], repository: str) -> None:
        challenge = parse_challenges(challenges, registry=self.name)
        login = self._logins.find(self._login_host)
        if challenge.scheme == "basic":
            if login is None:
                raise self._no_login()
            self._authorization = login.header
            return
        self._authorization = ""
        import httpx

        assert self._client is not None
        headers = {} if login is None else {"Authorization": login.header}
        try:
            async with self._client.stream(
                "GET", challenge.token_url(repository), headers=headers
            ) as response:
                if response.status_code in {_UNAUTHORIZED, _FORBIDDEN}:
                    raise self._no_login()
                if not response.is_success:
                    raise InfrastructureError(
                        f"the token server of {self.name} answers {response.status_code}",
                        reason="registry-auth",
                    )
                raw = await read_bounded(response, MAX_TOKEN_ANSWER_BYTES, what="token answer")
        except httpx.HTTPError as error:
            raise InfrastructureError(
                f"the token server of {self.name}: {_why(error)}", reason="registry-unreachable"
            ) from error
        self._authorization = f"Bearer {parse_token(raw, registry=self.name)}"

    def _is_own(self, url: str) -> bool:
        there = urlsplit(url)
        return (there.scheme, there.netloc) == (self._base.scheme, self._base.netloc)

    def _redirected(self, url: str, location: str) -> str:
        """Return the target of a redirect, if it is https, or loopback from loopback."""
        try:
            target = urljoin(url, location)
            there = urlsplit(target)
            is_local = is_loopback(there.hostname)
        except ValueError:
            there, is_local, target = SplitResult("", "", "", "", ""), False, ""
        from_local = is_loopback(self._base.hostname)
        is_allowed = (there.scheme == "https" and (from_local or not is_local)) or (
            there.scheme == "http" and is_local and from_local
        )
        if not is_allowed or there.username is not None:
            raise InfrastructureError(
                f"registry {self.name} redirects to a place that is not https: refused",
                reason="redirect-refused",
            )
        return target

    def _check_status(self, response: httpx.Response) -> None:
        status = response.status_code
        if status == _NOT_FOUND:
            raise NotFoundError(f"registry {self.name} does not have it", reason="image-not-found")
        if status in {_UNAUTHORIZED, _FORBIDDEN}:
            raise self._no_login()
        if status == _TOO_MANY:
            raise InfrastructureError(
                f"registry {self.name} limits the rate of pulls: log in, or try later",
                reason="registry-rate-limit",
            )
        if not response.is_success:
            raise InfrastructureError(
                f"registry {self.name} answers {status}", reason="registry-status"
            )
        if response.headers.get("content-encoding", "identity") != "identity":
            raise IntegrityError(
                f"registry {self.name} encodes a response that must be unencoded",
                reason="registry-encoding",
            )

    def _no_login(self) -> CallerError:
        how = (
            "its login is kept by a credential helper, which hpcc does not ask: "
            if self._login_host in self._logins.helpers
            else ""
        )
        return CallerError(
            f"registry {self.name} refuses the pull (or the image does not exist): "
            f"{how}log in with `docker login {self._login_host}`",
            reason="registry-login",
        )


def check_base_url(text: str) -> SplitResult:
    """Parse the address of a registry or mirror.

    Raises:
        CallerError: it is neither https nor plain http on loopback.
    """
    try:
        url = urlsplit(text)
        host, _ = url.hostname, url.port
    except ValueError:
        host, url = None, SplitResult("", "", "", "", "")
    is_plain_local = url.scheme == "http" and is_loopback(host)
    if not host or not (url.scheme == "https" or is_plain_local) or url.username is not None:
        raise CallerError(
            f"{text[:200]!r} is not a registry address: https://HOST[:PORT], or plain http for "
            "127.0.0.1, [::1] and localhost",
            reason="registry-address",
        )
    return url


async def read_bounded(response: httpx.Response, limit_bytes: int, *, what: str) -> bytes:
    """Read a whole answer; `what` names it in the error text.

    Raises:
        IntegrityError: the answer is longer than `limit_bytes`.
    """
    data = bytearray()
    async for chunk in response.aiter_raw():
        data += chunk
        if len(data) > limit_bytes:
            raise IntegrityError(
                f"{response.url.host}: a {what} of more than {limit_bytes} bytes",
                reason="answer-too-large",
            )
    return bytes(data)


def _why(error: Exception) -> str:
    text = str(error) or type(error).__name__
    if "CERTIFICATE_VERIFY_FAILED" in text:
        return f"{text} (is the package ca-certificates installed?)"
    return text[:300]
