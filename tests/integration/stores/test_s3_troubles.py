"""An S3 server lies, stalls, disconnects or dies: bounded time and memory, and no wrong byte."""

from __future__ import annotations

import asyncio
import os
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import pytest

from hpcc.core import Blob, InfrastructureError, IntegrityError, NotFoundError
from hpcc.store.bucket.object_blobs import ObjectBlobStore
from hpcc.store.bucket.s3 import S3Config, S3Objects
from hpcc.store.objects import PrefixObjects
from hpcc.store.zstd import ZstdObjects
from hpcc_testkit.services.s3_servers import S3Server, radosgw, radosgw_missing_or_none
from hpcc_testkit.services.tcp_proxy import tcp_proxy

pytestmark = pytest.mark.timeout(300)

BLOB = Blob.of(os.urandom(2 << 20))
Answer = Callable[[asyncio.StreamWriter], Awaitable[None]]


@asynccontextmanager
async def liar(answer: Answer) -> AsyncIterator[S3Objects]:
    """Run a server that reads a request's head and then calls `answer`."""

    tasks: set[asyncio.Task[Any]] = set()
    transports: list[asyncio.WriteTransport] = []

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task is not None
        tasks.add(task)
        transports.append(writer.transport)
        try:
            await reader.readuntil(b"\r\n\r\n")
            await answer(writer)
        except (OSError, asyncio.IncompleteReadError):
            pass
        finally:
            writer.close()
            tasks.discard(task)

    server = await asyncio.start_server(serve, "127.0.0.1", 0)
    port = server.sockets[0].getsockname()[1]
    try:
        yield S3Objects(
            S3Config(
                endpoint=f"http://127.0.0.1:{port}",
                bucket="hpcc",
                access_key_id="id",
                secret_access_key="secret",
                call_seconds=2.0,
                max_object_bytes=1 << 20,
            )
        )
    finally:
        server.close()
        for task in [*tasks]:
            task.cancel()
        for transport in transports:
            transport.abort()  # close() waits for a client that may read no more
        # Until every socket is closed: one that outlives the loop is a warning.
        await server.wait_closed()


def says(head: str, body: bytes = b"") -> Answer:
    async def answer(writer: asyncio.StreamWriter) -> None:
        writer.write(head.replace("\n", "\r\n").encode() + b"\r\n\r\n" + body)
        await writer.drain()

    return answer


OK = 'HTTP/1.1 200 OK\nLast-Modified: Wed, 25 Nov 2026 00:00:00 GMT\nETag: "x"\n'


async def reason_of(objects: S3Objects, limit: int = 100) -> str:
    with pytest.raises((InfrastructureError, IntegrityError, NotFoundError)) as caught:
        await objects.get("acme/x", limit)
    assert "secret" not in repr(caught.value)
    return caught.value.reason


async def test_an_object_that_announces_too_much_is_refused_unread() -> None:
    sent = 0

    async def answer(writer: asyncio.StreamWriter) -> None:
        nonlocal sent
        writer.write((OK + "Content-Length: 99999999999\n\n").replace("\n", "\r\n").encode())
        while True:
            writer.write(b"x" * 65536)
            await writer.drain()
            sent += 65536

    async with liar(answer) as objects:
        assert await reason_of(objects) == "object-size"
    assert sent < 32 << 20  # what the sockets' buffers hold, no more


async def test_a_body_without_end_is_refused() -> None:
    async def answer(writer: asyncio.StreamWriter) -> None:
        writer.write((OK + "Transfer-Encoding: chunked\n\n").replace("\n", "\r\n").encode())
        while True:
            writer.write(b"1000\r\n" + b"x" * 4096 + b"\r\n")
            await writer.drain()

    async with liar(answer) as objects:
        assert await reason_of(objects) in {"store-s3", "object-size"}


async def test_a_redirect_takes_no_signature_and_no_upload_elsewhere() -> None:
    """obstore follows redirects; docs/security.md says what that costs. This is what it spares."""
    heads: list[bytes] = []

    async def elsewhere(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        heads.append(await reader.readuntil(b"\r\n\r\n"))
        await says(OK + "Content-Length: 5\nConnection: close", b"inner")(writer)
        writer.close()

    server = await asyncio.start_server(elsewhere, "127.0.0.1", 0)
    to = f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}/inside"
    answer = says(f"HTTP/1.1 307 Go\nLocation: {to}\nContent-Length: 0\nConnection: close")
    async with server, liar(answer) as objects:
        # A blob is compared with its digest afterwards, and a result with its signature.
        assert await objects.get("acme/x", 100) == b"inner"
        with pytest.raises(InfrastructureError):
            await objects.put("acme/x", b"of the tenant")
    (head,) = heads
    assert head.startswith(b"GET /inside HTTP/1.1\r\n")
    assert b"authorization" not in head.lower()


@pytest.mark.parametrize(
    ("head", "body", "reason"),
    [
        (OK + "Content-Length: 50", b"too short", "store-s3"),
        (OK + "Content-Length: -1", b"", "store-s3"),
        (OK + "Content-Length: 18446744073709551616", b"", "store-s3"),
        ("HTTP/1.1 200 OK\nContent-Length: x", b"", "store-s3"),
        ("HTTP/1.1 999 What\nContent-Length: 0", b"", "store-s3"),
        ("HTTP/1.1 404 No\nContent-Length: 0", b"", "not-found"),
        ("HTTP/1.1 403 No\nContent-Length: 6", b"secret", "store-denied"),
        ("HTTP/1.1 401 No\nContent-Length: 6", b"secret", "store-denied"),
        ("HTTP/1.1 500 No\nContent-Length: 6", b"secret", "store-s3"),
        ("HTTP/1.1 302 No\nLocation: http://127.0.0.1:1/\nContent-Length: 0", b"", "store-s3"),
        ("SSH-2.0-nonsense", b"", "store-s3"),
    ],
)
async def test_an_answer_that_lies_is_an_error(head: str, body: bytes, reason: str) -> None:
    async with liar(says(head, body)) as objects:
        assert await reason_of(objects) == reason


async def test_an_error_page_without_end_is_left_in_time() -> None:
    async def answer(writer: asyncio.StreamWriter) -> None:
        writer.write(b"HTTP/1.1 500 No\r\nTransfer-Encoding: chunked\r\n\r\n")
        while True:
            writer.write(b"1\r\nx\r\n")
            await writer.drain()
            await asyncio.sleep(0.01)

    async with liar(answer) as objects:
        assert await reason_of(objects) in {"store-timeout", "store-s3"}


async def test_a_server_that_drips_is_left_in_time() -> None:
    async def answer(writer: asyncio.StreamWriter) -> None:
        writer.write((OK + "Content-Length: 100\n\n").replace("\n", "\r\n").encode())
        for _ in range(100):
            writer.write(b"x")
            await writer.drain()
            await asyncio.sleep(1)

    async with liar(answer) as objects:
        assert await reason_of(objects) in {"store-timeout", "store-s3"}


async def test_a_server_that_says_nothing_is_left_in_time() -> None:
    async def answer(writer: asyncio.StreamWriter) -> None:
        del writer
        await asyncio.sleep(120)

    async with liar(answer) as objects:
        assert await reason_of(objects) == "store-timeout"
        for attempt in (objects.put("acme/x", b"data"), objects.has("acme/x")):
            with pytest.raises(InfrastructureError) as caught:
                await attempt
            assert caught.value.reason == "store-timeout"


async def test_whole_bytes_that_are_others_are_never_taken_for_the_blob() -> None:
    wanted = Blob.of(b"what was asked for")
    for other in (b"what was not asked", b"", wanted.data[:-1]):
        async with liar(says(OK + f"Content-Length: {len(other) + 1}", b"\0" + other)) as objects:
            with pytest.raises(NotFoundError):
                await ObjectBlobStore(ZstdObjects(objects)).get(wanted.digest)


async def test_a_blob_over_the_limit_is_not_sent() -> None:
    async with liar(says(OK + "Content-Length: 0")) as objects:
        with pytest.raises(InfrastructureError) as caught:
            await objects.put("acme/x", b"x" * ((1 << 20) + 1))
        assert caught.value.reason == "object-size"


@pytest.fixture
def own_server(tmp_path: Path) -> Iterator[S3Server]:
    if missing := radosgw_missing_or_none():
        pytest.skip(missing)
    with radosgw(tmp_path / "s3", tenants=("acme",)) as server:
        yield server


def store_at(server: S3Server, s3_of: Any, port: int, **more: Any) -> ObjectBlobStore:
    endpoint = f"http://127.0.0.1:{port}"
    return ObjectBlobStore(PrefixObjects(s3_of(server, endpoint=endpoint, **more), "acme"))


async def test_a_put_or_get_that_breaks_off_leaves_nothing_half_made(
    server: S3Server, s3_of: Any
) -> None:
    blob = Blob.of(os.urandom(2 << 20))
    async with tcp_proxy("127.0.0.1", urlsplit(server.endpoint).port or 0) as proxy:
        store = store_at(server, s3_of, proxy.port, call_seconds=20.0)
        proxy.cut_up_after = 1 << 20
        with pytest.raises(InfrastructureError):
            await store.put(blob)
        proxy.cut_up_after = None
        assert await store.find_missing([blob.digest]) == {blob.digest}
        await store.put(blob)
        proxy.cut_down_after = 1 << 20
        with pytest.raises(InfrastructureError):
            await store.get(blob.digest)
        proxy.cut_down_after = None
        assert await store.get(blob.digest) == blob


async def test_a_stall_in_mid_get_ends_in_time_and_the_next_get_works(
    server: S3Server, s3_of: Any
) -> None:
    async with tcp_proxy("127.0.0.1", urlsplit(server.endpoint).port or 0) as proxy:
        store = store_at(server, s3_of, proxy.port, call_seconds=3.0)
        await store_at(server, s3_of, proxy.port).put(BLOB)
        proxy.stall()
        with pytest.raises(InfrastructureError) as caught:
            await store.get(BLOB.digest)
        assert caught.value.reason == "store-timeout"
        proxy.resume()
        assert await store_at(server, s3_of, proxy.port).get(BLOB.digest) == BLOB


async def test_a_server_that_is_killed_in_mid_put_has_the_whole_blob_or_none(
    own_server: S3Server, s3_of: Any
) -> None:
    async with tcp_proxy("127.0.0.1", urlsplit(own_server.endpoint).port or 0) as proxy:
        store = store_at(own_server, s3_of, proxy.port, call_seconds=20.0)
        proxy.stall()
        async with asyncio.TaskGroup() as group:
            put = group.create_task(failure_of(store.put(BLOB)))
            get = group.create_task(failure_of(store.get(BLOB.digest)))
            while proxy.connections < 2:  # noqa: ASYNC110 - counted by the proxy
                await asyncio.sleep(0.01)
            own_server.kill()
            proxy.resume()
        assert {put.result(), get.result()} <= {"store-s3", "store-timeout"}
    await asyncio.to_thread(own_server.restart)
    again = ObjectBlobStore(PrefixObjects(s3_of(own_server), "acme"))
    assert await again.find_missing([BLOB.digest]) == {BLOB.digest}
    await again.put(BLOB)
    assert await again.get(BLOB.digest) == BLOB


async def test_a_server_that_stops_where_it_is_and_goes_on(
    own_server: S3Server, s3_of: Any
) -> None:
    store = ObjectBlobStore(PrefixObjects(s3_of(own_server, call_seconds=2.0), "acme"))
    patient = ObjectBlobStore(PrefixObjects(s3_of(own_server), "acme"))
    await patient.put(BLOB)
    own_server.stall()
    try:
        assert await failure_of(store.get(BLOB.digest)) == "store-timeout"
    finally:
        own_server.resume()
    assert await patient.get(BLOB.digest) == BLOB


async def failure_of(work: Awaitable[object]) -> str:
    with pytest.raises(InfrastructureError) as caught:
        await work
    return caught.value.reason


async def test_headers_without_end_are_an_error() -> None:
    async def answer(writer: asyncio.StreamWriter) -> None:
        writer.write(b"HTTP/1.1 200 OK\r\n")
        while True:
            writer.write(b"X-A: " + b"a" * 60_000 + b"\r\n")
            await writer.drain()

    async with liar(answer) as objects:
        assert await reason_of(objects) in {"store-s3", "store-timeout"}
