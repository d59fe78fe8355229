"""The admin port: bounded, for those who may reach it, and independent of a busy service."""

from __future__ import annotations

import asyncio
import http.client
import socket
import threading
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager, suppress

import pytest

from hpcc.core import CallerError, InfrastructureError
from hpcc.obs.metrics import admin
from hpcc.obs.metrics.address import check_admin, split_address
from hpcc.obs.metrics.admin import read_request, serve_admin
from hpcc.obs.metrics.service import ServiceMetrics
from hpcc.ports import SystemClock
from hpcc_testkit.farm.in_process import LaterClock
from hpcc_testkit.services.scraped import Scrape, fetch, scrape

ANY_PORT = "127.0.0.1:0"


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
    assert read_request(head, loopback_only=True)[0] == status


def test_elsewhere_than_on_loopback_any_host_may_be_named() -> None:
    head = b"GET /metrics HTTP/1.1\r\nHost: w1.acme.example:9464\r\n\r\n"
    assert read_request(head, loopback_only=False) == (200, "/metrics", False)


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
    monkeypatch.setattr(admin, "_REQUEST_SECONDS", 0.2)
    async with port() as (address, _):
        assert await asyncio.to_thread(_first_byte, address) == b""
        status, _ = await asyncio.to_thread(fetch, address)
        assert status == 200


async def test_connections_are_few(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(admin, "_REQUEST_SECONDS", 600.0)
    async with port() as (address, _):
        # Once sixteen have a place, one more is turned away at once.
        silent = [socket.create_connection(split_address("a", address)) for _ in range(16)]
        assert await asyncio.to_thread(_first_byte, address) == b""
        silent.pop().close()
        status = 0
        while status != 200:  # until the port has seen that one left
            with suppress(OSError, http.client.HTTPException):
                status, _ = await asyncio.to_thread(fetch, address)
        for connection in silent:
            connection.close()


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
