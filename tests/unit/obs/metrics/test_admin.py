"""The admin port: bounded, for those who may reach it, and independent of a busy service."""

from __future__ import annotations

import asyncio
import select
import socket
import threading
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager
from http import HTTPStatus

import pytest

from hpcc.core import CallerError, InfrastructureError
from hpcc.obs.http import serve
from hpcc.obs.http.request import Request, read_request
from hpcc.obs.http.serve import HttpAnswer
from hpcc.obs.metrics import admin
from hpcc.obs.metrics.address import check_admin, split_address
from hpcc.obs.metrics.admin import AdminPage, serve_admin
from hpcc.obs.metrics.service import ServiceMetrics
from hpcc.ports import SystemClock
from hpcc_testkit.farm.in_process import LaterClock
from hpcc_testkit.services.scraped import Scrape, fetch, scrape

ANY_PORT = "127.0.0.1:0"
LIVE = b"GET /livez HTTP/1.1\r\nHost: 127.0.0.1\r\n\r\n"


@asynccontextmanager
async def port(address: str = ANY_PORT) -> AsyncGenerator[tuple[str, ServiceMetrics]]:
    metrics = ServiceMetrics("1.0")
    async with serve_admin(address, metrics, SystemClock()) as bound:
        yield bound, metrics


def talk(address: str, sent: bytes) -> bytes:
    """Send bytes; return what comes until the other side ends."""
    host, number = split_address("a", address)
    with socket.create_connection((host, number), timeout=20) as connection:
        connection.sendall(sent)
        data = b""
        while part := connection.recv(65536):
            data += part
        return data


async def test_it_shows_what_was_counted_and_is_gone_with_the_service() -> None:
    async with port() as (address, metrics):
        metrics.security_event("one")
        metrics.called("/hpcc.v1.Service/Route", 0, 0.2)
        metrics.ends("server", lambda: 12.5)
        found = await asyncio.to_thread(scrape, address)
        assert found.value("hpcc_security_events_total", name="one") == 1
        calls = {"rpc_method": "hpcc.v1.Service/Route", "rpc_grpc_status_code": "0"}
        assert found.value("hpcc_rpc_server_seconds_count", **calls) == 1
        assert found.value("hpcc_certificate_expires_timestamp_seconds", what="server") == 12.5
        assert found.value("hpcc_event_loop_up") == 1
        assert found.value("process_open_fds") > 0
    with pytest.raises(OSError, match="refused"):
        await asyncio.to_thread(fetch, address)
    assert "hpcc-admin" not in {t.name for t in threading.enumerate()}


async def test_nothing_is_open_unless_it_is_configured() -> None:
    before = threading.active_count()
    async with port("") as (address, _):
        assert (address, threading.active_count()) == ("", before)


TOKEN = "t" * 40
PAGE = b"GET /api/v1/scale HTTP/1.1\r\nHost: 127.0.0.1\r\n%s\r\n"


@pytest.mark.parametrize(
    ("header", "status"),
    [
        (b"", 401),
        (b"Authorization: Bearer\r\n", 401),
        (b"Authorization: Bearer %s\r\n" % (b"u" * 40), 401),
        (b"Authorization: Basic %s\r\n" % TOKEN.encode(), 401),
        (b"Authorization: Bearer \xff\r\n", 401),
        (b"Authorization: Bearer %s\r\n" % TOKEN.encode() * 2, 401),
        (b"Authorization: Bearer %s\r\n" % TOKEN.encode(), 200),
        (b"authorization: bearer  %s\r\n" % TOKEN.encode(), 200),
    ],
)
async def test_a_page_with_a_token_is_for_its_holders(header: bytes, status: int) -> None:
    reads = list[int]()

    def read() -> HttpAnswer:
        reads.append(1)
        return HttpAnswer(HTTPStatus.OK, b"{}", "application/json")

    pages = {"/api/v1/scale": AdminPage(read, TOKEN)}
    async with serve_admin(ANY_PORT, ServiceMetrics("1.0"), SystemClock(), pages) as address:
        answer = await asyncio.to_thread(talk, address, PAGE % header)
        assert answer.startswith(b"HTTP/1.1 %d " % status)
        assert (b"WWW-Authenticate: Bearer" in answer) is (status == 401)
        assert len(reads) == (status == 200), "a stranger costs the service nothing"
        other = await asyncio.to_thread(talk, address, (PAGE % b"").replace(b"scale", b"scales"))
        assert b"/api/v1/scale" in other


async def test_a_page_of_a_service_whose_loop_hangs_is_an_error(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(admin, "ASK_SECONDS", 0.05)
    pages = {"/api/v1/scale": AdminPage(lambda: HttpAnswer(HTTPStatus.OK, b"{}"))}
    async with serve_admin(ANY_PORT, ServiceMetrics("1.0"), SystemClock(), pages) as address:
        answers = list[bytes]()
        thread = threading.Thread(target=lambda: answers.append(talk(address, PAGE % b"")))
        thread.start()
        thread.join(20)  # the loop of this test stands still meanwhile
        assert answers[0].startswith(b"HTTP/1.1 503 ")
        assert (await asyncio.to_thread(talk, address, PAGE % b"")).startswith(b"HTTP/1.1 200 ")


async def test_a_service_whose_loop_hangs_still_shows_what_it_counted(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(admin, "ASK_SECONDS", 0.05)
    async with port() as (address, metrics):
        metrics.security_event("one")
        metrics.ends("server", lambda: 12.5)
        answers: list[Scrape] = []
        thread = threading.Thread(target=lambda: answers.append(scrape(address)))
        thread.start()
        thread.join(20)  # the loop of this test stands still meanwhile
        assert answers[0].value("hpcc_event_loop_up") == 0
        assert answers[0].value("hpcc_security_events_total", name="one") == 1
        assert "hpcc_certificate_expires_timestamp_seconds" not in answers[0].families
        await asyncio.sleep(0)
        found = await asyncio.to_thread(scrape, address)
        assert found.value("hpcc_event_loop_up") == 1


async def test_a_service_whose_loop_hangs_is_not_ready_and_after_a_while_not_alive(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(admin, "ASK_SECONDS", 0.05)
    clock, metrics, answers = LaterClock(), ServiceMetrics("1.0"), list[tuple[int, bytes]]()
    async with serve_admin(ANY_PORT, metrics, clock) as address:
        metrics.health.serving()
        assert await asyncio.to_thread(fetch, address, "/readyz") == (200, b"ready\n")
        assert await asyncio.to_thread(fetch, address, "/healthz?x=1") == (200, b"ready\n")

        def ask() -> None:
            answers.extend(fetch(address, path) for path in ("/readyz", "/livez"))
            clock.ahead = 30.0
            answers.append(fetch(address, "/livez"))

        thread = threading.Thread(target=ask)
        thread.start()
        thread.join(20)  # the loop of this test stands still meanwhile
        assert answers[0] == (503, b"event-loop: it did not answer in time\n")
        assert answers[1] == (200, b"live\n")
        assert answers[2][0] == 503
        assert answers[2][1].startswith(b"event-loop: it has not run for 3")


@pytest.mark.parametrize(
    ("head", "status"),
    [
        (b"GET /metrics HTTP/1.1\r\nHost: 127.0.0.1:9464\r\n\r\n", 200),
        (b"GET /metrics HTTP/1.0\r\nhost:localhost\r\n\r\n", 200),
        (b"HEAD /metrics?x=1 HTTP/1.1\r\nHost: [::1]:9464\r\n\r\n", 200),
        (b"GET /metrics HTTP/1.1\r\nHost: attacker.example:9464\r\n\r\n", 421),
        (b"GET /metrics HTTP/1.1\r\nHost: 127.0.0.1.attacker.example\r\n\r\n", 421),
        (b"GET /metrics HTTP/1.1\r\n\r\n", 400),
        (b"GET /metrics HTTP/1.1\r\nHost: 127.0.0.1\r\nHost: x\r\n\r\n", 400),
        (b"POST /metrics HTTP/1.1\r\nHost: 127.0.0.1\r\n\r\n", 405),
        (b"GET http://127.0.0.1/metrics HTTP/1.1\r\nHost: 127.0.0.1\r\n\r\n", 400),
        (b"GET /metrics HTTP/2\r\nHost: 127.0.0.1\r\n\r\n", 400),
        (b"\xff\xfe\x00\r\n\r\n", 400),
        (b"\r\n\r\n", 400),
        (b"", 400),
    ],
)
def test_a_request_is_read_strictly(head: bytes, status: int) -> None:
    found = read_request(head, loopback_only=True)
    assert (200 if isinstance(found, Request) else found) == status


def test_elsewhere_than_on_loopback_any_host_may_be_named() -> None:
    head = b"GET /metrics HTTP/1.1\r\nHost: w1.acme.example:9464\r\n\r\n"
    found = read_request(head, loopback_only=False)
    assert isinstance(found, Request)
    assert (found.target, found.is_head) == ("/metrics", False)


async def test_refusals_are_answers_and_the_port_goes_on() -> None:
    host = b"\r\nHost: 127.0.0.1\r\n"
    async with port() as (address, _):
        for sent, first in (
            (b"GET / HTTP/1.1" + host + b"\r\n", b"HTTP/1.1 404 "),
            (b"PUT /metrics HTTP/1.1" + host + b"\r\n", b"HTTP/1.1 405 "),
            (b"GET /metrics HTTP/1.1\r\nHost: a.example\r\n\r\n", b"HTTP/1.1 421 "),
            (b"GET /metrics HTTP/1.1" + host + b"X: " + b"x" * 9000, b"HTTP/1.1 400 "),
        ):
            answer = await asyncio.to_thread(talk, address, sent)
            assert answer.startswith(first), answer
            assert b"hpcc_" not in answer
        head = await asyncio.to_thread(talk, address, b"HEAD /metrics HTTP/1.1" + host + b"\r\n")
        assert head.endswith(b"\r\n\r\n"), "no body"
        assert (await asyncio.to_thread(fetch, address))[0] == 200


async def test_those_who_say_nothing_are_ended(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(serve, "REQUEST_SECONDS", 0.2)
    async with port() as (address, _):
        assert await asyncio.to_thread(_first_byte, address) == b""
        status, _ = await asyncio.to_thread(fetch, address)
        assert status == 200


def _connected(address: str, count: int) -> list[socket.socket]:
    where = split_address("a", address)
    return [socket.create_connection(where, timeout=20) for _ in range(count)]


def _asking(address: str, count: int, path: str) -> list[socket.socket]:
    """Return connections that have sent a request each, while the service's loop stands still."""
    asking = []
    for _ in range(count):
        asking += _connected(address, 1)
        asking[-1].sendall(LIVE.replace(b"/livez", path.encode()))
        # A probe needs no place. Then the request before it has been read as well.
        assert fetch(address, "/livez") == (200, b"live\n")
    return asking


def _ended(connections: list[socket.socket]) -> list[socket.socket]:
    return select.select(connections, [], [], 0)[0]


async def test_those_who_are_silent_keep_no_probe_out(monkeypatch: pytest.MonkeyPatch) -> None:
    """If a flood kept `/livez` from answering, a kubelet would end this worker and its compiles."""
    monkeypatch.setattr(serve, "REQUEST_SECONDS", 600.0)
    async with port() as (address, _):
        silent = _connected(address, 40)
        # The first of them takes the place of one more; the second comes when that one is closed.
        for _ in range(2):
            assert await asyncio.to_thread(fetch, address, "/livez") == (200, b"live\n")
        assert _ended(silent) == silent[:25]
        last = silent[-1]
        last.sendall(LIVE)
        assert (await asyncio.to_thread(last.recv, 12)) == b"HTTP/1.1 200", "it still had its place"
        for connection in silent:
            connection.close()


@pytest.mark.parametrize("path", ["/metrics", "/readyz", "/healthz"])
async def test_those_who_wait_for_a_hanging_service_are_few(
    monkeypatch: pytest.MonkeyPatch, path: str
) -> None:
    monkeypatch.setattr(serve, "REQUEST_SECONDS", 600.0)
    monkeypatch.setattr(admin, "ASK_SECONDS", 600.0)
    async with port() as (address, metrics):
        metrics.health.serving()
        asked = _asking(address, 17, path)
        assert fetch(address, "/livez") == (200, b"live\n")
        assert _ended(asked) == asked[16:]
        with asked.pop() as turned_away:
            assert turned_away.recv(12) == b""
        for connection in asked:
            assert await asyncio.to_thread(connection.recv, 12) == b"HTTP/1.1 200"
            connection.close()


async def test_who_scrapes_without_end_takes_no_place_of_a_probe(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(serve, "REQUEST_SECONDS", 600.0)
    monkeypatch.setattr(serve, "MAX_CONNECTIONS", 2)
    # More than fits in buffers of the kernel.
    monkeypatch.setattr(admin, "exposition", lambda *_: b"x" * (32 << 20))
    async with port() as (address, metrics):
        metrics.health.serving()
        # The first two get an answer that they never read; the third one had no place.
        slow = _asking(address, 3, "/metrics")
        for path in ("/readyz", "/healthz"):
            assert await asyncio.to_thread(fetch, address, path) == (200, b"ready\n")
        for connection in slow:
            connection.close()


async def _steps() -> None:
    for _ in range(20):
        await asyncio.sleep(0)


async def test_all_who_wait_for_a_page_cost_the_service_one_answer(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(admin, "_PAUSE_SECONDS", 0.0)
    read, may_go_on = list[int](), asyncio.Event()

    async def answer() -> int:
        read.append(len(read))
        number = read[-1]
        await may_go_on.wait()
        return number

    shared = admin._Shared(answer)
    async with asyncio.TaskGroup() as group:
        first = group.create_task(shared.get())
        await _steps()
        # What is read already may be older than their question.
        others = [group.create_task(shared.get()) for _ in range(100)]
        await _steps()
        others.pop().cancel()
        may_go_on.set()
    assert first.result() == 0
    assert {task.result() for task in others} == {1}
    assert read == [0, 1]


async def test_a_page_is_not_read_again_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(admin, "_PAUSE_SECONDS", 3600.0)
    read = list[int]()

    async def answer() -> int:
        read.append(len(read))
        return read[-1]

    shared = admin._Shared(answer)
    assert await shared.get() == 0
    asked = [asyncio.Task(shared.get()) for _ in range(3)]
    await _steps()
    assert read == [0]
    for task in asked:
        task.cancel()


def _first_byte(address: str) -> bytes:
    with socket.create_connection(split_address("a", address), timeout=20) as connection:
        try:
            return connection.recv(1)
        except ConnectionError:
            return b""


async def test_an_address_that_is_taken_or_is_none_says_so() -> None:
    async with port() as (address, _):
        with pytest.raises(InfrastructureError, match="admin: cannot listen on"):
            async with port(address):
                pass
    for text in ("9464", ":9464", "127.0.0.1:", "127.0.0.1:x", "::1:9464", "[::1]", "a b:1", "a:٣"):
        with pytest.raises(CallerError, match="admin must be HOST:PORT"):
            split_address("admin", text)
    with pytest.raises(CallerError, match="must be 0 to 65535"):
        split_address("admin", "127.0.0.1:65536")
    assert split_address("admin", "[::1]:9464") == ("::1", 9464)


def test_tenants_that_are_named_are_tenants_and_not_too_many() -> None:
    check_admin("", ())
    check_admin("127.0.0.1:9464", ("acme", "globex"))
    for tenants in (("acme", "acme"), tuple(f"t{n}" for n in range(65))):
        with pytest.raises(CallerError, match="at most 64 tenants, each once"):
            check_admin("", tenants)
    for address, tenants in (("", ("_other",)), ("9464", ())):
        with pytest.raises(CallerError):
            check_admin(address, tenants)
