"""Security events reach a syslog server over TLS, and no server can hold a service up."""

from __future__ import annotations

import asyncio
import logging
import os
import socket
import threading
from collections.abc import AsyncGenerator, Callable
from contextlib import asynccontextmanager
from pathlib import Path

import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from hpcc.audit import syslog, syslog_connection
from hpcc.audit.log import open_audit_log
from hpcc.audit.syslog import MAX_WAITING, SyslogExport, open_syslog
from hpcc.audit.syslog_connection import SILENT_SECONDS, AddressLookup, end_when_silent
from hpcc.audit.syslog_message import SyslogSource
from hpcc.audit.syslog_target import SyslogTarget
from hpcc.core import CallerError
from hpcc.gateway.refusals import RefusalLog
from hpcc.obs.metrics.service import ServiceMetrics
from hpcc.ports import SecurityEvent, SystemClock
from hpcc_testkit.receivers.syslog_server import SyslogServer, serve_syslog
from hpcc_testkit.services.server_certificate import ServerFiles, make_server_files

_HANG = 60.0


@pytest.fixture(scope="module")
def files(tmp_path_factory: pytest.TempPathFactory) -> ServerFiles:
    return make_server_files(tmp_path_factory.mktemp("syslog"))


class _Impatient(SystemClock):
    """Counts the pauses and makes them short."""

    def __init__(self) -> None:
        self.pauses: list[float] = []

    async def sleep(self, seconds: float) -> None:
        self.pauses.append(seconds)
        await asyncio.sleep(0.01)


def _event(number: int) -> SecurityEvent:
    return SecurityEvent(name="token-refused", at=0.0, fields=(("number", str(number)),))


def _target(url: str, ca: str = "", *, pair: bool = False, number: int = 32473) -> SyslogTarget:
    own = Path(ca).parent
    found = SyslogTarget.of(
        url,
        ca_file=ca,
        certificate=str(own / "server.crt") if pair else "",
        key=str(own / "server.key") if pair else "",
        enterprise=number,
    )
    assert found is not None
    return found


@asynccontextmanager
async def _exporting(
    files: ServerFiles,
    port: int,
    *,
    host: str = "127.0.0.1",
    ca: Path | None = None,
    pair: bool = False,
) -> AsyncGenerator[tuple[SyslogExport, _Impatient]]:
    target = _target(f"tls://{host}:{port}", str(ca or files.ca), pair=pair)
    clock = _Impatient()
    source = SyslogSource(service="worker", source="w1", enterprise=32473)
    export = SyslogExport(target, target.context(), source, clock)
    async with asyncio.timeout(_HANG):
        task = asyncio.Task(export.run())
        try:
            yield export, clock
        finally:
            task.cancel()
            await asyncio.wait([task])
            assert task.cancelled()


async def _numbers(server: SyslogServer, count: int) -> list[str]:
    return [(await server.messages.get()).fields["number"] for _ in range(count)]


async def _wait(reached: Callable[[], bool]) -> None:
    while not reached():  # noqa: ASYNC110 - counters have no event
        await asyncio.sleep(0.01)


async def test_each_event_of_a_trail_and_a_gateway_arrives(
    files: ServerFiles, tmp_path: Path
) -> None:
    clock = SystemClock()
    metrics = ServiceMetrics("")
    async with asyncio.timeout(_HANG), serve_syslog(files) as server:
        target = _target(f"tls://localhost:{server.port}", str(files.ca), number=4711)
        async with (
            open_syslog(target, metrics, clock, service="worker", source="w1") as on_event,
            open_audit_log(
                tmp_path, worker="w1", key=Ed25519PrivateKey.generate(), clock=clock,
                listeners=(on_event,),
            ) as log,
        ):  # fmt: skip
            await log.event(_event(7))
            first = await server.messages.get()
            refusals = RefusalLog(clock, lambda _: None, (on_event,))
            refusals.note("Execute", "ipv4:10.0.0.7", CallerError("no", reason="no-token"))
            second = await server.messages.get()
        assert (first.app, first.element, first.message_id) == (
            "hpcc-worker", "hpcc@4711", "token-refused",
        )  # fmt: skip
        assert (first.fields["source"], first.fields["number"]) == ("w1", "7")
        assert second.fields["name"] == "gateway-refused"
        assert second.fields["reason"] == "no-token"
        assert server.connections == 1
        shown = metrics.registry.ask()["hpcc_syslog_events_total"][1]
        assert shown == {("sent",): 2.0, ("dropped",): 0.0}


async def test_what_waits_when_a_service_ends_is_sent(files: ServerFiles) -> None:
    clock, metrics = SystemClock(), ServiceMetrics("")
    async with asyncio.timeout(_HANG), serve_syslog(files) as server:
        target = _target(f"tls://127.0.0.1:{server.port}", str(files.ca))
        async with open_syslog(target, metrics, clock, service="worker", source="w1") as on_event:
            for number in range(20):
                on_event(_event(number))
        assert await _numbers(server, 20) == [str(n) for n in range(20)]


async def test_a_server_that_comes_later_gets_what_waits_and_hears_of_the_loss(
    files: ServerFiles, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.WARNING)
    async with serve_syslog(files) as server:
        port = server.port
    async with _exporting(files, port) as (export, clock):
        await _wait(lambda: bool(clock.pauses))
        for number in range(MAX_WAITING + 5):
            export.put(_event(number))
        assert export.dropped == 5
        await _wait(lambda: len(clock.pauses) > 8)
        assert clock.pauses[:8] == [1, 2, 4, 8, 16, 32, 60, 60]
        async with serve_syslog(files, port=port) as server:
            assert await _numbers(server, MAX_WAITING) == [str(n) for n in range(MAX_WAITING)]
            export.put(_event(-1))
            assert (await server.messages.get()).fields["dropped_before"] == "5"
            export.put(_event(-2))
            assert "dropped_before" not in (await server.messages.get()).fields
    lines = [r.getMessage() for r in caplog.records if "syslog at" in r.getMessage()]
    assert lines == [
        f"syslog at 127.0.0.1:{port} takes no security events: nobody listens there",
        f"syslog at 127.0.0.1:{port} takes security events again",
    ]


async def test_a_server_that_ends_each_connection_gets_each_event(files: ServerFiles) -> None:
    async with serve_syslog(files) as server, _exporting(files, server.port) as (export, clock):
        server.most = 1
        for number in range(5):
            export.put(_event(number))
            assert await _numbers(server, 1) == [str(number)]
            # The end of the connection was seen: what is handed to an ended one may be lost.
            await _wait(lambda: len(clock.pauses) > number)  # noqa: B023 - waited for here
        assert server.connections == 5
        assert set(clock.pauses) == {1.0}


@pytest.mark.parametrize("fault", ["another CA", "another name"])
async def test_a_server_that_is_not_the_named_one_gets_nothing(
    files: ServerFiles, tmp_path: Path, caplog: pytest.LogCaptureFixture, fault: str
) -> None:
    caplog.set_level(logging.WARNING)
    ca = make_server_files(tmp_path).ca if fault == "another CA" else files.ca
    host = "127.0.0.1" if fault == "another CA" else "127.0.0.2"
    async with serve_syslog(files, host=host) as server:
        async with _exporting(files, server.port, host=host, ca=ca) as (export, clock):
            export.put(_event(1))
            await _wait(lambda: len(clock.pauses) >= 3)
        assert server.messages.empty()
        assert export.sent == 0
    (line,) = [r.getMessage() for r in caplog.records if "syslog at" in r.getMessage()]
    assert "its certificate is not accepted" in line


async def test_a_server_that_reads_nothing_holds_nobody_up(files: ServerFiles) -> None:
    async with serve_syslog(files) as server, _exporting(files, server.port) as (export, _):
        server.reads.clear()
        export.put(_event(1))
        await _wait(lambda: export.sent == 1)
        large = SecurityEvent(
            name="x-y", at=0.0, fields=tuple((f"f{i}", "x" * 500) for i in range(20))
        )
        while not export.dropped:
            export.put(large)
            # The loop turns, so the queue empties into the connection until that is full, too.
            await asyncio.sleep(0)
        assert export.dropped == 1


async def test_the_address_that_answers_is_found(
    files: ServerFiles, monkeypatch: pytest.MonkeyPatch
) -> None:
    answers = [(0, 0, 0, "", (address, 0)) for address in ("127.0.0.3", "127.0.0.1", "127.0.0.4")]
    async with serve_syslog(files) as server:
        monkeypatch.setattr(socket, "getaddrinfo", lambda *_, **__: answers)
        async with _exporting(files, server.port, host="localhost") as (export, clock):
            export.put(_event(1))
            assert await _numbers(server, 1) == ["1"]
            assert clock.pauses == []


async def test_a_resolver_that_hangs_takes_one_thread_which_nobody_waits_for(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    answered, asked = threading.Event(), list[threading.Thread]()

    def hang(*_: object, **__: object) -> list[tuple[object, ...]]:
        asked.append(threading.current_thread())
        assert answered.wait(_HANG)
        return [(0, 0, 0, "", (f"10.0.0.{number % 9}", 0)) for number in range(99)]

    monkeypatch.setattr(socket, "getaddrinfo", hang)
    monkeypatch.setattr(syslog_connection, "_SECONDS", 0.01)
    lookup = AddressLookup("siem.example", 6514)
    for _ in range(5):
        with pytest.raises(TimeoutError):
            await lookup.addresses()
    (thread,) = asked
    assert thread.daemon, "the process ends without it"
    monkeypatch.setattr(syslog_connection, "_SECONDS", _HANG)
    waiting = asyncio.Task(lookup.addresses())
    await asyncio.sleep(0)
    answered.set()
    assert await waiting == [f"10.0.0.{number}" for number in range(4)]
    await lookup.addresses()
    assert len(asked) == 2


def test_the_system_ends_a_connection_that_acknowledges_nothing() -> None:
    with socket.socket() as connection:
        end_when_silent(connection)
        assert connection.getsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE)
        limit = connection.getsockopt(socket.IPPROTO_TCP, socket.TCP_USER_TIMEOUT)
    assert limit == SILENT_SECONDS * 1000


async def test_what_is_left_when_a_service_ends_is_said(
    files: ServerFiles, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(syslog, "_FLUSH_SECONDS", 0.01)
    async with serve_syslog(files) as server:
        port = server.port
    target = _target(f"tls://127.0.0.1:{port}", str(files.ca))
    metrics = ServiceMetrics("")
    async with (
        asyncio.timeout(_HANG),
        open_syslog(target, metrics, SystemClock(), service="worker", source="w1") as on_event,
    ):
        for number in range(3):
            on_event(_event(number))
    assert f"syslog at 127.0.0.1:{port} did not get the last 3 events" in caplog.text


async def test_a_server_that_speaks_is_left(files: ServerFiles) -> None:
    async with serve_syslog(files) as server, _exporting(files, server.port) as (_, clock):
        server.greeting = b"220 hello\r\n" * 100_000
        await _wait(lambda: bool(clock.pauses))
        assert server.connections == 1


@pytest.mark.parametrize(
    "url",
    [
        "siem.example:6514", "tcp://siem.example:6514", "tls://", "tls://siem.example:0",
        "tls://siem.example:x", "tls://siem.example/path", "tls://user@siem.example",
        "tls://siem.example?x", "TLS//siem.example", "tls://siem.example:65536",
    ],
)  # fmt: skip
def test_a_wrong_address_is_refused(url: str) -> None:
    with pytest.raises(CallerError, match="syslog must be tls://HOST"):
        _target(url)


def test_settings_that_cannot_work_are_refused(files: ServerFiles, tmp_path: Path) -> None:
    with pytest.raises(CallerError, match="syslog_enterprise"):
        _target("tls://siem.example", number=0)
    with pytest.raises(CallerError, match="go together"):
        SyslogTarget.of("", ca_file="", certificate="/a.pem", key="", enterprise=1)
    assert SyslogTarget.of("", ca_file="", certificate="", key="", enterprise=1) is None
    target = _target("tls://[::1]", str(tmp_path / "absent"))
    assert (target.host, target.port) == ("::1", 6514)
    with pytest.raises(CallerError, match=r"syslog_ca_file: .*absent"):
        target.context()
    (tmp_path / "empty").write_text("nothing")
    with pytest.raises(CallerError, match=r"syslog_ca_file: .*empty"):
        _target("tls://[::1]", str(tmp_path / "empty")).context()
    (tmp_path / "ca.pem").write_bytes(files.ca.read_bytes())
    (tmp_path / "server.key").touch(mode=0o600)
    with pytest.raises(CallerError, match=r"syslog_certificate: .* must be a pair"):
        _target("tls://[::1]", str(tmp_path / "ca.pem"), pair=True).context()


@pytest.mark.parametrize(
    ("kind", "words"),
    [("0644", "others can read"), ("link", "cannot read"), ("pipe", "others can read")],
    ids=["mode", "link", "pipe"],
)
def test_a_key_that_others_can_read_or_replace_is_not_used(
    files: ServerFiles, tmp_path: Path, kind: str, words: str
) -> None:
    for name in ("ca.crt", "server.crt"):
        (tmp_path / name).write_bytes((files.ca.parent / name).read_bytes())
    key = tmp_path / "server.key"
    if kind == "pipe":
        os.mkfifo(key, 0o600)
    elif kind == "link":
        key.symlink_to(files.key)
    else:
        key.write_bytes(files.key.read_bytes())
        key.chmod(0o644)
    with pytest.raises(CallerError, match=f"syslog_key: {words} .*server.key"):
        _target("tls://[::1]", str(tmp_path / "ca.crt"), pair=True).context()


@pytest.mark.parametrize("pair", [True, False])
async def test_a_server_may_ask_for_a_certificate(
    files: ServerFiles, caplog: pytest.LogCaptureFixture, *, pair: bool
) -> None:
    caplog.set_level(logging.WARNING)
    async with (
        serve_syslog(files, asks=True) as server,
        _exporting(files, server.port, pair=pair) as (export, clock),
    ):
        if pair:
            export.put(_event(1))
            assert await _numbers(server, 1) == ["1"]
        else:
            export.put(_event(1))
            await _wait(lambda: len(clock.pauses) > 1)
            assert export.sent == 0
    assert ("takes no security events" in caplog.text) is not pair
