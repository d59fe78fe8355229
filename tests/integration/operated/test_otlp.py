"""Spans and events over OTLP: to a real HTTP server, by OpenTelemetry's own definitions."""

from __future__ import annotations

import asyncio
import json
import socket
import ssl
import subprocess
import sys
import threading
from contextlib import suppress
from pathlib import Path

import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

import hpcc
from hpcc import __version__
from hpcc.audit.log import open_audit_log
from hpcc.cache.recorder import export
from hpcc.cache.recorder.export import STATE_NAME
from hpcc.cache.recorder.places import DIRECTORY_NAME
from hpcc.cache.recorder.recorder import Recorder
from hpcc.cli.main import main
from hpcc.config.settings import TraceSettings
from hpcc.core import CallerError
from hpcc.gateway.refusals import RefusalLog
from hpcc.obs.metrics.service import ServiceMetrics
from hpcc.obs.otlp import sender
from hpcc.obs.otlp.export import open_event_export
from hpcc.obs.otlp.protobuf import data, number, text
from hpcc.obs.otlp.sender import LOGS, TRACES, CollectorAnswer, OtlpSender, PostEnding
from hpcc.obs.otlp.target import OtlpTarget
from hpcc.ports import SecurityEvent, SystemClock
from hpcc_testkit.cache.recorded import AT_US, small_build
from hpcc_testkit.receivers.collector import CollectorReply, attributes, collector
from hpcc_testkit.services.server_certificate import ServerFiles, make_server_files

_HANG = 60.0


@pytest.fixture(scope="module")
def files(tmp_path_factory: pytest.TempPathFactory) -> ServerFiles:
    return make_server_files(tmp_path_factory.mktemp("otlp"))


def _target(url: str, *, headers: Path | None = None, ca: Path | None = None) -> OtlpTarget:
    found = OtlpTarget.of(url, headers_file=str(headers or ""), ca_file=str(ca or ""))
    assert found is not None
    return found


def _sender(port: int) -> OtlpSender:
    return OtlpSender.of(_target(f"http://127.0.0.1:{port}"))


async def test_each_event_of_a_trail_and_a_gateway_arrives(
    files: ServerFiles, tmp_path: Path
) -> None:
    clock, metrics = SystemClock(), ServiceMetrics("")
    headers = tmp_path / "headers"
    headers.touch(mode=0o600)
    headers.write_text("Authorization: Bearer s3cret\n")
    event = SecurityEvent(name="token-refused", at=7.5, tenant="acme", fields=(("reason", "late"),))
    with collector(files) as server:
        target = _target(f"https://localhost:{server.port}/otlp", headers=headers, ca=files.ca)
        async with (
            asyncio.timeout(_HANG),
            open_event_export(target, metrics, clock, service="worker", source="w1") as on_event,
            open_audit_log(
                tmp_path / "trail", worker="w1", key=Ed25519PrivateKey.generate(), clock=clock,
                listeners=(on_event,),
            ) as log,
        ):  # fmt: skip
            await log.event(event)
            (first,) = await asyncio.to_thread(server.requests, 1)
            refusals = RefusalLog(clock, lambda _: None, (on_event,))
            refusals.note("Execute", "ipv4:10.0.0.7", CallerError("no", reason="no-token"))
        # The end of the block has waited for what was queued.
        _, second = server.requests(2)
    assert first.path == "/otlp/v1/logs"
    assert first.headers["content-type"] == "application/x-protobuf"
    assert first.headers["authorization"] == "Bearer s3cret"
    resource, (record,) = first.logs()
    assert {k: resource[k] for k in ("service.name", "service.instance.id", "service.version")} == {
        "service.name": "hpcc-worker", "service.instance.id": "w1", "service.version": __version__,
    }  # fmt: skip
    assert (record.event_name, record.time_unix_nano) == ("token-refused", 7_500_000_000)
    assert attributes(record) == {"hpcc.tenant": "acme", "hpcc.field.reason": "late"}
    _, (record,) = second.logs()
    assert record.event_name == "gateway-refused"
    assert attributes(record)["hpcc.field.reason"] == "no-token"
    shown = metrics.registry.ask()["hpcc_otlp_events_total"][1]
    assert shown == {("sent",): 2.0, ("dropped",): 0.0}


_PARTIAL = data(1, number(1, 3) + text(2, "s3cret words of the collector"))


@pytest.mark.parametrize(
    ("reply", "expected"),
    [
        (CollectorReply(), CollectorAnswer(PostEnding.TAKEN)),
        (CollectorReply(body=_PARTIAL), CollectorAnswer(PostEnding.TAKEN, rejected=3)),
        (
            CollectorReply(202, b"ok", {"Content-Type": "text/plain"}),
            CollectorAnswer(PostEnding.TAKEN),
        ),
        (
            CollectorReply(body=b"\xff"),
            CollectorAnswer(PostEnding.REFUSED, "its answer cannot be read"),
        ),
        (
            CollectorReply(body=text(9, "x" * (64 << 10))),
            CollectorAnswer(PostEnding.REFUSED, "its answer is too large"),
        ),
        (CollectorReply(400, b"words"), CollectorAnswer(PostEnding.REFUSED, "it answers 400")),
        (CollectorReply(500), CollectorAnswer(PostEnding.REFUSED, "it answers 500")),
        (
            CollectorReply(401),
            CollectorAnswer(PostEnding.REFUSED, "it answers 401: look at otlp_headers_file"),
        ),
        (
            CollectorReply(429, headers={"Retry-After": "7"}),
            CollectorAnswer(PostEnding.LATER, "it answers 429", wait_seconds=7.0),
        ),
        (
            CollectorReply(503, headers={"Retry-After": "Fri, 31 Dec 1999 23:59:59 GMT"}),
            CollectorAnswer(PostEnding.LATER, "it answers 503"),
        ),
    ],
)
def test_an_answer_is_understood(reply: CollectorReply, expected: CollectorAnswer) -> None:
    with collector() as server:
        server.answer = lambda _: reply
        assert _sender(server.port).post(LOGS, b"") == expected


def test_no_redirect_is_followed() -> None:
    with collector() as other, collector() as server:
        url = f"http://127.0.0.1:{other.port}/v1/traces"
        for status in (301, 307, 308):
            server.answer = lambda _, s=status: CollectorReply(s, headers={"Location": url})
            answer = _sender(server.port).post(TRACES, b"")
            assert answer == CollectorAnswer(
                PostEnding.REFUSED, "it redirects, which is not followed"
            )
        assert len(server.requests()) == 3
        assert other.requests() == []


@pytest.mark.parametrize("fault", ["another CA", "another name"])
def test_a_collector_that_is_not_the_named_one_gets_nothing(
    files: ServerFiles, tmp_path: Path, fault: str
) -> None:
    ca = make_server_files(tmp_path).ca if fault == "another CA" else files.ca
    host = "127.0.0.1" if fault == "another CA" else "127.0.0.2"
    with collector(files, host=host) as server:
        answer = OtlpSender.of(_target(f"https://{host}:{server.port}", ca=ca)).post(LOGS, b"x")
        assert answer.ending is PostEnding.LATER
        assert "its certificate is not accepted" in answer.what
        assert server.requests() == []


@pytest.mark.parametrize("has_tls", [False, True], ids=["plain", "tls"])
@pytest.mark.parametrize(
    ("begin", "speech"),
    [
        (b"", b""), (b"", b"H"), (b"", b"HTTP/1.1 100 x\r\n\r\n"),
        (b"HTTP/1.1 200 OK\r\nX: ", b"x"),
    ],
    ids=["silent", "slow", "100", "head"],
)  # fmt: skip
def test_a_collector_that_answers_without_an_end_is_left(
    files: ServerFiles, monkeypatch: pytest.MonkeyPatch, begin: bytes, speech: bytes,
    *, has_tls: bool,
) -> None:  # fmt: skip
    monkeypatch.setattr(sender, "TOTAL_SECONDS", 0.3)
    left = threading.Event()
    with socket.create_server(("127.0.0.1", 0)) as listener:

        def speak() -> None:
            client, _ = listener.accept()
            with suppress(OSError):  # it is left, perhaps during the handshake
                if has_tls:
                    context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
                    context.load_cert_chain(files.certificate, files.key)
                    client = context.wrap_socket(client, server_side=True)
                client.sendall(begin)
                while not left.wait(0.01):
                    client.sendall(speech)
            client.close()

        thread = threading.Thread(target=speak, daemon=True)
        thread.start()
        port = listener.getsockname()[1]
        url = f"{'https' if has_tls else 'http'}://127.0.0.1:{port}"
        answer = OtlpSender.of(_target(url, ca=files.ca)).post(LOGS, b"x")
        left.set()
        thread.join(_HANG)
    assert answer == CollectorAnswer(PostEnding.LATER, "no answer in time")


def test_nobody_there_is_said() -> None:
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    assert _sender(port).post(LOGS, b"") == CollectorAnswer(
        PostEnding.LATER, "nobody listens there"
    )


@pytest.mark.parametrize("how", ["settings", "address", "in the background"])
def test_a_recorded_build_is_sent(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], how: str
) -> None:
    cache, build = tmp_path / "cache", small_build()
    recorder = Recorder(str(cache / DIRECTORY_NAME), lambda: AT_US / 1e6)
    # An hour ago, by the clock of this machine.
    later_us = int((SystemClock().now() - 3600) * 1e6) - AT_US
    for each in build.compiles:
        recorder.add(build.build, each._replace(began_us=each.began_us + later_us))
    recorder.flush()
    headers = tmp_path / "headers"
    headers.touch(mode=0o600)
    headers.write_text("X-Token: s3cret\n")
    monkeypatch.setenv("HPCC_DIR", str(tmp_path))
    with collector() as server:
        url = f"http://127.0.0.1:{server.port}"
        trace = TraceSettings(otlp=url, otlp_headers_file=str(headers))
        if how == "in the background":
            monkeypatch.setattr(export, "_LOOK_SECONDS", 0.01)
            state = {"format": 1, "since": 1, "sent": {}}
            (cache / STATE_NAME).write_text(json.dumps(state))
            export.start_trace_export(str(cache), trace, lambda *_: None)
        else:
            (tmp_path / "config").mkdir()
            (tmp_path / "config/hpcc.toml").write_text(
                f'[trace]\notlp = "{url}"\notlp_headers_file = "{headers}"\n'
            )
            where = "settings" if how == "settings" else url
            assert main(["trace", "--otlp", where]) == 0
            said = capsys.readouterr().err
            assert f"to 127.0.0.1:{server.port}" in said
        (request,) = server.requests(1)
    assert (request.path, request.headers.get("x-token")) == (
        # The file of the settings is for the address of the settings.
        "/v1/traces", None if how == "address" else "s3cret",
    )  # fmt: skip
    spans = [span for found in request.spans().values() for span in found]
    assert [span.name for span in spans].count("compile") == len(build.compiles)


def test_a_build_that_is_not_taken_is_an_error_with_what_to_do(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    recorder = Recorder(str(tmp_path / "cache" / DIRECTORY_NAME), lambda: AT_US / 1e6)
    recorder.add("one", small_build().compiles[0])
    recorder.flush()
    monkeypatch.setenv("HPCC_DIR", str(tmp_path))
    for words, code, said in (
        (["trace"], 2, "-o FILE writes the trace, --otlp URL sends it"),
        (["trace", "--otlp", "settings"], 2, "set `otlp` in [trace] of hpcc.toml"),
        (["trace", "--otlp", "http://otel.example"], 2, "without TLS only loopback"),
        (["trace", "--otlp", "settings", "--otlp-ca", "/x"], 2, "takes its files from [trace]"),
    ):
        assert main(words) == code
        assert said in capsys.readouterr().err
    with collector() as server:
        server.answer = lambda _: CollectorReply(401)
        assert main(["trace", "--otlp", f"http://127.0.0.1:{server.port}"]) == 1
    said = capsys.readouterr().err
    assert "did not take the build: it answers 401: look at otlp_headers_file" in said


def test_what_sends_builds_needs_no_package() -> None:
    """The extra hpcc[otlp] is empty, and the local cache brings no package."""
    words = "import hpcc.cli.builds.otlp, hpcc.cache.recorder.export, hpcc.obs.otlp.sender"
    where = {"PYTHONPATH": str(Path(hpcc.__file__).parents[1])}
    # Without `site` no installed package can be imported.
    subprocess.run([sys.executable, "-S", "-c", words], env=where, check=True, timeout=_HANG)
