"""Objects by GET and PUT on a web server: WebDAV, S3-compatible services, Azure's blobs.

Nothing that the server answers leads to another address: redirects are refused, and names are
resolved and checked before each connection (`hpcc.config.addresses`). Bodies are bounded while they
are received, and are never unpacked here.
"""

from __future__ import annotations

import ssl
from collections.abc import AsyncIterator, Callable, Mapping
from contextlib import asynccontextmanager, suppress
from typing import TYPE_CHECKING, Final
from urllib.parse import urlsplit

from hpcc.config.addresses import AddressError, direct_transport
from hpcc.core import InfrastructureError, IntegrityError, NotFoundError
from hpcc.core.endpoints import is_loopback
from hpcc.obs.faults import connection_fault
from hpcc.store.objects import checked_key, too_large

if TYPE_CHECKING:
    import httpx

Headers = Callable[[str, str, bytes], Mapping[str, str]]
"""Returns the headers that prove who asks, for a method, a URL and a body."""

_OK: Final = 200
_SUCCESSES: Final = range(200, 300)
_REDIRECTS: Final = range(300, 400)
_DENIED: Final = frozenset({401, 403})
_ABSENT: Final = frozenset({404, 410})
# WebDAV (RFC 4918, 9.7.1): a PUT below a collection that does not exist.
_NO_PARENT: Final = frozenset({404, 409})
_EXISTS: Final = 405
_MAX_PARENTS: Final = 8
# Errors of S3 services have some hundred bytes. Beyond this a new connection costs less.
_MAX_REST_BYTES: Final = 16 << 10


class WebObjects:
    """`Objects` below `base`. Use it with `open_web`. Times are the caller's to limit."""

    def __init__(self, client: httpx.AsyncClient, base: str, query: str, headers: Headers) -> None:
        self._client, self._base, self._headers = client, base.rstrip("/"), headers
        self._query = f"?{query}" if query else ""

    async def get(self, key: str, limit: int) -> bytes:
        async with self._answer("GET", checked_key(key), b"") as response:
            if response.status_code in _ABSENT:
                await _read_rest(response)
                raise NotFoundError("no such object")
            _check(response, "read")
            if response.headers.get("content-encoding", "identity") != "identity":
                raise IntegrityError("the object is encoded", reason="object-form")
            announced = response.headers.get("content-length", "")
            if announced.isdecimal() and int(announced) > limit:
                raise too_large(limit)
            data = bytearray()
            async for piece in response.aiter_raw():
                data += piece
                if len(data) > limit:
                    raise too_large(limit)
            if announced.isdecimal() and int(announced) != len(data):
                raise InfrastructureError("the store ended an object early", reason="store-http")
            return bytes(data)

    async def put(self, key: str, data: bytes) -> None:
        status = await self._send("PUT", checked_key(key), data)
        if status in _NO_PARENT and await self._make_parents(key):
            status = await self._send("PUT", key, data)
        if status not in _SUCCESSES:
            raise _failure(status, "write")

    async def has(self, key: str) -> bool:
        status = await self._send("HEAD", checked_key(key), b"")
        if status not in _SUCCESSES and status not in _ABSENT:
            raise _failure(status, "ask")
        return status in _SUCCESSES

    async def _make_parents(self, key: str) -> bool:
        """Make the collections above a key; return whether the server has such a call."""
        parts = key.split("/")[:-1][:_MAX_PARENTS]
        for count in range(1, len(parts) + 1):
            status = await self._send("MKCOL", "/".join(parts[:count]) + "/", b"")
            if status not in _SUCCESSES and status != _EXISTS:
                return False
        return bool(parts)

    async def _send(self, method: str, name: str, body: bytes) -> int:
        async with self._answer(method, name, body) as response:
            await _read_rest(response)
            return response.status_code

    @asynccontextmanager
    async def _answer(self, method: str, name: str, body: bytes) -> AsyncIterator[httpx.Response]:
        import httpx

        url = f"{self._base}/{name}"
        headers = self._headers(method, url, body)
        try:
            async with self._client.stream(
                method, url + self._query, content=body or None, headers=headers
            ) as response:
                yield response
        except AddressError as error:
            raise InfrastructureError(str(error), reason="store-address") from error
        except httpx.TimeoutException as error:
            raise InfrastructureError("the store is too slow", reason="store-timeout") from error
        except (httpx.HTTPError, httpx.InvalidURL, OSError) as error:
            # `from None`: the texts may quote the URL, whose query may be a secret.
            why = connection_fault(error) or type(error).__name__
            raise InfrastructureError(f"the store failed: {why}", reason="store-http") from None


async def _read_rest(response: httpx.Response) -> None:
    """Read a short body that nobody needs, so that the connection serves the next request.

    Else each miss and each upload makes another one, which takes three round trips with TLS.
    """
    import httpx

    left = _MAX_REST_BYTES
    with suppress(httpx.HTTPError):
        async for piece in response.aiter_raw():
            left -= len(piece)
            if left < 0:
                return


def _check(response: httpx.Response, what: str) -> None:
    if response.status_code != _OK:
        raise _failure(response.status_code, what)


def _failure(status: int, what: str) -> InfrastructureError:
    if status in _REDIRECTS:
        return InfrastructureError("the store redirects: refused", reason="store-redirect")
    if status in _DENIED:
        return InfrastructureError(
            f"the store refuses to {what}: its credential or policy is wrong",
            reason="store-denied",
        )
    return InfrastructureError(f"the store answers {status}", reason="store-http")


@asynccontextmanager
async def open_web(
    base: str,
    headers: Headers,
    *,
    query: str = "",
    ca_file: str = "",
    idle_seconds: float,
    max_connections: int,
) -> AsyncIterator[WebObjects]:
    """Open a client for objects below a URL.

    `query` is added to each URL (a SAS token). `ca_file` is PEM of roots that count besides the
    system's. `idle_seconds` limits the wait for a connection and between two pieces of an answer.

    Raises:
        InfrastructureError: the roots cannot be read, or the proxy cannot be used.
    """
    import httpx  # late: it takes 60 ms, which daemons without a remote cache save

    host = urlsplit(base).hostname or ""
    may_use_proxy = not is_loopback(host)
    try:
        roots = ssl.create_default_context()
        if ca_file:
            roots.load_verify_locations(cafile=ca_file)
        transport = direct_transport(
            base, configured=host, verify=roots, may_use_proxy=may_use_proxy
        )
        client = httpx.AsyncClient(
            follow_redirects=False,
            timeout=idle_seconds,
            limits=httpx.Limits(max_connections=max_connections),
            trust_env=may_use_proxy,
            verify=roots,
            transport=transport,
            headers={"User-Agent": "hpcc", "Accept-Encoding": "identity"},
        )
    except (OSError, ImportError, ValueError) as error:  # OSError includes ssl.SSLError
        raise InfrastructureError(
            f"no client for the store: {type(error).__name__} (roots or proxy)",
            reason="store-config",
        ) from None
    async with client:
        yield WebObjects(client, base, query, headers)
