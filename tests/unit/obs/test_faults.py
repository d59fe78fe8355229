"""The fault of a connection is named, and a library's own words are not shown."""

from __future__ import annotations

import asyncio
import ssl
from pathlib import Path

import httpx
import pytest

from hpcc.obs.faults import connection_fault, fault_in
from hpcc_testkit.services.authority import issue


async def failed(url: str) -> httpx.HTTPError:
    async with httpx.AsyncClient(trust_env=False, timeout=30) as client:
        with pytest.raises(httpx.HTTPError) as caught:
            await client.get(f"{url}/?sig=SECRET")
    return caught.value


async def test_what_a_library_wraps_is_found(tmp_path: Path) -> None:
    files = issue(tmp_path)
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(files.certificate, files.key)

    async def close(_: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.close()

    tls = await asyncio.start_server(close, "127.0.0.1", 0, ssl=context)
    plain = await asyncio.start_server(close, "127.0.0.1", 0)
    async with tls, plain:
        for server, said in (
            (tls, "its certificate is not accepted (unable to get local issuer certificate)"),
            (plain, "no TLS with it (UNEXPECTED_EOF_WHILE_READING)"),
        ):
            port = server.sockets[0].getsockname()[1]
            assert connection_fault(await failed(f"https://127.0.0.1:{port}")) == said
    assert connection_fault(await failed("https://127.0.0.1:1")) == "nobody listens there"


def test_an_error_that_tells_nothing_is_not_explained() -> None:
    assert connection_fault(ValueError("SECRET")) == ""
    loop = ValueError()
    loop.__cause__ = loop
    assert connection_fault(loop) == "", "a chain without end"


@pytest.mark.parametrize(
    ("text", "meaning"),
    [
        ("GET https://s3/b/SECRET: dns error: failed to lookup", "its name has no address: look"),
        ("kind: InvalidData, error: InvalidCertificate(UnknownIssuer)", "its certificate is not"),
        ("Connection refused (os error 111)", "nobody listens there"),
    ],
)
def test_a_text_is_replaced_by_what_it_means(text: str, meaning: str) -> None:
    assert fault_in(text).startswith(meaning)
    assert fault_in("SECRET") == ""
