"""Which addresses an answer from the network may send hpcc to. Checked when it connects.

The problem: an identity provider names endpoints, and a registry redirects and names token servers.
A hostile one names the scheduler's own machine, its network, or the service that hands a cloud
machine its credentials. Names do not show that: any name can lead to any address, also to another
one at its next look-up.

The rule: what an operator configured may be anywhere. What its answers name may be no nearer to
this machine than what was configured: behind a public registry nothing private, behind a private
one nothing of this machine. Addresses of links, among them those credentials services, are for
nobody.

The check is on the resolved address, and the connection goes to exactly that one. Through a proxy,
the proxy resolves, so the check is the proxy's.

How near the configured host is, is not what its name leads to when it has named something: who owns
a name can let it lead to 127.0.0.1 for that moment. It is where the configured host has answered,
with a certificate of its name.
"""

from __future__ import annotations

import asyncio
import enum
import ipaddress
import socket
import ssl
import urllib.request
from typing import TYPE_CHECKING, Final

from hpcc.core import InfrastructureError

if TYPE_CHECKING:
    import httpx

_HTTPS_PORT: Final = 443
_HTTP_PORT: Final = 80
_MAX_ADDRESSES: Final = 8
# Services that give a cloud machine's credentials, outside of the ranges for links. Sources: the
# clouds' pages on metadata of machines, and cloud-init's data sources.
_CREDENTIALS: Final = frozenset(
    ipaddress.ip_address(text)
    for text in (
        "100.100.100.200",  # Alibaba
        "168.63.129.16",  # Azure's WireServer, a public address
        "192.0.0.192",  # Oracle
        "fd00:ec2::254", "fd00:ec2::23",  # AWS: EC2, EKS
        "fd20:ce::254",  # Google
        "fd00:c1::a9fe:a9fe",  # Oracle
        "fd00:42::42",  # Scaleway
    )
)  # fmt: skip
# RFC 6598: addresses that providers and overlay networks use inside.
_SHARED: Final = ipaddress.ip_network("100.64.0.0/10")
# An IPv4 address in the last four bytes: RFC 6052, 8215, 2765 and 4291.
_HOLDS_IPV4: Final = tuple(
    ipaddress.IPv6Network(text)
    for text in ("64:ff9b::/96", "64:ff9b:1::/48", "::ffff:0:0:0/96", "::/96")
)
_UNSPECIFIED_AND_LOOPBACK: Final = 1

type Address = ipaddress.IPv4Address | ipaddress.IPv6Address


class AddressError(InfrastructureError):
    """A name leads to addresses only that hpcc may not connect to."""

    default_reason = "address"


class Reach(enum.IntEnum):
    """How near an address is."""

    PUBLIC = 0
    PRIVATE = 1
    THIS_MACHINE = 2


def reach_of(text: str) -> Reach | None:
    """Return how near an address is; None if hpcc connects there for nobody.

    Raises:
        ValueError: the text is not an address.
    """
    address = _inner(ipaddress.ip_address(text.partition("%")[0]))
    if address in _CREDENTIALS or address.is_link_local:
        return None
    if address.is_loopback:
        return Reach.THIS_MACHINE
    if address.is_unspecified or address.is_multicast:
        return None
    is_shared = address.version == _SHARED.version and address in _SHARED
    is_site = isinstance(address, ipaddress.IPv6Address) and address.is_site_local
    if is_site:
        return Reach.PRIVATE
    return Reach.PUBLIC if address.is_global and not is_shared else Reach.PRIVATE


def _inner(address: Address) -> Address:
    """Return the IPv4 address that an IPv6 address stands for, or the address."""
    if isinstance(address, ipaddress.IPv4Address):
        return address
    if int(address) > _UNSPECIFIED_AND_LOOPBACK and any(address in n for n in _HOLDS_IPV4):
        return ipaddress.IPv4Address(int(address) & 0xFFFF_FFFF)
    return address.ipv4_mapped or address.sixtofour or address


async def addresses_of(
    host: str, port: int, *, configured: str, most: Reach | None = None
) -> list[str]:
    """Return where `host` may be connected to; `configured` is the host that an operator named.

    `most` is how near that host was when it answered; None: it is looked up.

    Raises:
        AddressError: no address of it is allowed; the text names it.
        OSError: a name is not known.
    """
    found = await _resolve(host, port)
    if host == configured:
        most = Reach.THIS_MACHINE
    elif most is None:
        reaches = [reach_of(a) for a in await _resolve(configured, port)]
        most = max((r for r in reaches if r is not None), default=Reach.PUBLIC)
    allowed = [a for a in found if (r := reach_of(a)) is not None and r <= most]
    if not allowed:
        raise AddressError(
            f"{host} is {', '.join(found)}: {configured} may not send hpcc there"
            if host != configured
            else f"{host} is {', '.join(found)}: hpcc does not connect there"
        )
    return allowed[:_MAX_ADDRESSES]


async def _resolve(host: str, port: int) -> list[str]:
    loop = asyncio.get_running_loop()
    answers = await loop.getaddrinfo(host, port, type=socket.SOCK_STREAM)
    return list(dict.fromkeys(str(answer[4][0]) for answer in answers))


def direct_transport(
    url: str,
    *,
    configured: str,
    verify: ssl.SSLContext,
    may_use_proxy: bool,
    answered: dict[str, Reach] | None = None,
) -> httpx.AsyncBaseTransport | None:
    """Return a transport that connects to allowed addresses only; None if a proxy is asked.

    `configured` is the host that an operator named. With `may_use_proxy` the environment's proxies
    count. `answered` notes how near configured hosts were; pass the same one to all transports that
    follow answers of one another.
    """
    import httpx  # late: it takes 60 ms, which commands without a network save

    parts = httpx.URL(url)
    proxies = urllib.request.getproxies()
    is_proxied = any(proxies.get(name) for name in (parts.scheme, "all"))
    if may_use_proxy and is_proxied and not urllib.request.proxy_bypass(parts.host):
        return None
    inner = httpx.AsyncHTTPTransport(verify=verify, trust_env=False)
    near = {} if answered is None else answered

    class Checked(httpx.AsyncBaseTransport):
        """Resolves, checks, and connects to the address; the certificate is still the name's."""

        async def handle_async_request(self, request: httpx.Request) -> httpx.Response:
            host = request.url.host
            port = request.url.port or (
                _HTTPS_PORT if request.url.scheme == "https" else _HTTP_PORT
            )
            try:
                found = await addresses_of(
                    host, port, configured=configured, most=near.get(configured)
                )
            except OSError as error:
                raise httpx.ConnectError(str(error), request=request) from error
            *others, last = found
            for address in others:
                try:
                    return await self._ask(request, address)
                except httpx.ConnectError:
                    continue
            return await self._ask(request, last)

        async def _ask(self, request: httpx.Request, address: str) -> httpx.Response:
            response = await inner.handle_async_request(_at(request, address))
            reach = reach_of(address)
            if request.url.host == configured and reach is not None:
                near[configured] = reach
            return response

        async def aclose(self) -> None:
            await inner.aclose()

    return Checked()


def _at(request: httpx.Request, address: str) -> httpx.Request:
    """Return a request that is sent to an address, with name and certificate of its host."""
    import httpx

    return httpx.Request(
        request.method,
        request.url.copy_with(host=address),
        headers=request.headers,
        stream=request.stream,
        extensions={**request.extensions, "sni_hostname": request.url.host},
    )
