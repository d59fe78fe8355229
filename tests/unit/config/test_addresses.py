"""Which addresses an answer from the network may send hpcc to."""

from __future__ import annotations

import asyncio
import socket
import ssl
from collections.abc import Mapping

import httpx
import pytest

from hpcc.config.addresses import Reach, _at, addresses_of, direct_transport, reach_of
from hpcc.core import InfrastructureError

PUBLIC, PRIVATE, HERE = "93.184.216.34", "10.0.0.5", "127.0.0.1"


@pytest.mark.parametrize(
    ("address", "expected"),
    [
        (PUBLIC, Reach.PUBLIC),
        ("2606:2800:220:1::1", Reach.PUBLIC),
        (PRIVATE, Reach.PRIVATE),
        ("192.168.1.1", Reach.PRIVATE),
        ("100.64.0.1", Reach.PRIVATE),
        ("fd12:3456::1", Reach.PRIVATE),
        ("::ffff:10.0.0.5", Reach.PRIVATE),
        ("64:ff9b::a00:5", Reach.PRIVATE),
        ("2002:a00:5::1", Reach.PRIVATE),
        (HERE, Reach.THIS_MACHINE),
        ("127.1.2.3", Reach.THIS_MACHINE),
        ("::1", Reach.THIS_MACHINE),
        ("::ffff:127.0.0.1", Reach.THIS_MACHINE),
        ("0.0.0.0", None),
        ("::", None),
        ("169.254.169.254", None),
        ("::ffff:169.254.169.254", None),
        ("fe80::1%eth0", None),
        ("fd00:ec2::254", None),
        ("100.100.100.200", None),
        ("::ffff:100.100.100.200", None),
        ("2002:6464:64c8::1", None),
        ("224.0.0.1", None),
        ("fec0::1", Reach.PRIVATE),
        ("::7f00:1", Reach.THIS_MACHINE),
        ("::ffff:0:127.0.0.1", Reach.THIS_MACHINE),
        ("64:ff9b:1::a9fe:a9fe", None),
        ("168.63.129.16", None),
        ("192.0.0.192", None),
        ("fd00:ec2::23", None),
        ("fd20:ce::254", None),
        ("fd00:c1::a9fe:a9fe", None),
        ("fd00:42::42", None),
    ],
)
def test_how_near_an_address_is(address: str, expected: Reach | None) -> None:
    assert reach_of(address) is expected


def names(monkeypatch: pytest.MonkeyPatch, table: Mapping[str, list[str]]) -> None:
    """Let these names lead to these addresses; an address leads to itself."""

    async def getaddrinfo(_: object, host: str, port: int, **__: object) -> list[object]:
        found = table.get(host, [host])
        if not found:
            raise socket.gaierror(socket.EAI_NONAME, "Name or service not known")
        return [(socket.AF_INET, socket.SOCK_STREAM, 6, "", (a, port)) for a in found]

    monkeypatch.setattr(asyncio.base_events.BaseEventLoop, "getaddrinfo", getaddrinfo)


@pytest.mark.parametrize(
    ("configured", "target", "is_allowed"),
    [
        (PUBLIC, PUBLIC, True),
        (PUBLIC, PRIVATE, False),
        (PUBLIC, HERE, False),
        (PUBLIC, "0.0.0.0", False),
        (PUBLIC, "169.254.169.254", False),
        (PRIVATE, PUBLIC, True),
        (PRIVATE, "192.168.7.7", True),
        (PRIVATE, HERE, False),
        (HERE, PRIVATE, True),
        (HERE, "169.254.169.254", False),
    ],
)
async def test_an_answer_may_name_nothing_nearer_than_what_was_configured(
    monkeypatch: pytest.MonkeyPatch, configured: str, target: str, *, is_allowed: bool
) -> None:
    names(monkeypatch, {"configured.test": [configured], "named.test": [target]})
    if is_allowed:
        assert await addresses_of("named.test", 443, configured="configured.test") == [target]
        return
    with pytest.raises(InfrastructureError, match=r"named\.test is ") as caught:
        await addresses_of("named.test", 443, configured="configured.test")
    assert caught.value.reason == "address"


async def test_what_is_configured_may_be_anywhere_but_on_a_link(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    names(monkeypatch, {"a.test": [HERE], "b.test": ["169.254.169.254"]})
    assert await addresses_of("a.test", 443, configured="a.test") == [HERE]
    with pytest.raises(InfrastructureError, match="does not connect there"):
        await addresses_of("b.test", 443, configured="b.test")


async def test_of_several_addresses_only_the_allowed_ones_are_used(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    names(monkeypatch, {"configured.test": [PUBLIC], "named.test": [HERE, PUBLIC, PRIVATE]})
    assert await addresses_of("named.test", 443, configured="configured.test") == [PUBLIC]


@pytest.mark.parametrize("host", ["127.1", "2130706433", "0x7f000001"])
async def test_other_spellings_of_this_machine_are_this_machine(
    monkeypatch: pytest.MonkeyPatch, host: str
) -> None:
    with pytest.raises(InfrastructureError, match="may not send"):
        await addresses_of(host, 443, configured=PUBLIC)


async def test_a_name_that_leads_to_this_machine_for_a_moment_reaches_nothing_nearer(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """A hostile registry answers at a public address, and changes its name before it redirects."""
    names(monkeypatch, {"registry.test": [HERE], "named.test": [HERE]})
    answered = {"registry.test": Reach.PUBLIC}
    transport = direct_transport(
        "http://registry.test/",
        configured="registry.test",
        verify=ssl.create_default_context(),
        may_use_proxy=False,
        answered=answered,
    )
    assert transport is not None
    async with httpx.AsyncClient(transport=transport) as client:
        with pytest.raises(InfrastructureError, match=r"named\.test is 127\.0\.0\.1"):
            await client.get("http://named.test/")
    assert answered == {"registry.test": Reach.PUBLIC}


async def _answer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    head = await reader.readuntil(b"\r\n\r\n")
    host = next(line for line in head.split(b"\r\n") if line.lower().startswith(b"host:"))
    writer.write(b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n%s" % (len(host), host))
    await writer.drain()
    writer.close()


async def test_it_connects_to_the_address_that_was_checked_with_the_names_header(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    server = await asyncio.start_server(_answer, HERE, 0)
    port = server.sockets[0].getsockname()[1]
    # The first address refuses, and the second one answers.
    names(monkeypatch, {"registry.test": ["127.0.0.9", HERE]})
    answered: dict[str, Reach] = {}
    transport = direct_transport(
        f"http://registry.test:{port}/",
        configured="registry.test",
        verify=ssl.create_default_context(),
        may_use_proxy=False,
        answered=answered,
    )
    assert transport is not None
    async with server, httpx.AsyncClient(transport=transport) as client:
        answer = await client.get(f"http://registry.test:{port}/v2/")
        assert answer.text.lower() == f"host: registry.test:{port}"
        assert answered == {"registry.test": Reach.THIS_MACHINE}
        answered.clear()
        names(monkeypatch, {"registry.test": [PUBLIC], "other.test": [HERE]})
        with pytest.raises(InfrastructureError, match=r"other\.test is 127\.0\.0\.1"):
            await client.get(f"http://other.test:{port}/")


@pytest.mark.parametrize(("bypass", "is_direct"), [("", False), ("registry.test", True)])
def test_a_proxy_connects_where_one_is_set(
    monkeypatch: pytest.MonkeyPatch, bypass: str, *, is_direct: bool
) -> None:
    monkeypatch.setenv("HTTPS_PROXY", "http://proxy.test:3128")
    monkeypatch.setenv("NO_PROXY", bypass)
    transport = direct_transport(
        "https://registry.test/",
        configured="registry.test",
        verify=ssl.create_default_context(),
        may_use_proxy=True,
    )
    assert (transport is not None) == is_direct


def test_the_certificate_is_that_of_the_name() -> None:
    request = httpx.Request("GET", "https://registry.example/v2/", headers={"host": "x"})
    sent = _at(request, PUBLIC)
    assert sent.url.host == PUBLIC
    assert sent.extensions["sni_hostname"] == "registry.example"
