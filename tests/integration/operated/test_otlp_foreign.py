"""A collector that others wrote takes what hpcc sends over OTLP, and understands all of it."""

from __future__ import annotations

import asyncio
import gzip
from pathlib import Path

import pytest
from google.protobuf.message import Message
from opentelemetry.proto.collector.logs.v1.logs_service_pb2 import ExportLogsServiceRequest
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest

from hpcc.cache.recorder.places import DIRECTORY_NAME
from hpcc.cache.recorder.recorder import Recorder
from hpcc.cli.main import main
from hpcc.obs.metrics.service import ServiceMetrics
from hpcc.obs.otlp.export import open_event_export
from hpcc.obs.otlp.target import OtlpTarget
from hpcc.ports import SecurityEvent, SystemClock
from hpcc_testkit.cache.recorded import AT_US, small_build
from hpcc_testkit.receivers.collector import Collector, collector
from hpcc_testkit.receivers.rotel import missing_or_none, rotel

pytestmark = [
    pytest.mark.skipif(bool(missing_or_none()), reason=missing_or_none() or "it is here"),
    pytest.mark.timeout(180),
]
_HANG = 60.0


def understood[M: Message](server: Collector, path: str, kind: type[M]) -> M:
    """Return all of a kind that arrived, as one message."""
    found = kind()
    for request in server.requests():
        if request.path == path:
            is_packed = request.headers.get("content-encoding") == "gzip"
            body = gzip.decompress(request.body) if is_packed else request.body
            found.MergeFromString(body)
    return found


def sent_and_understood[M: Message](
    path: str, kind: type[M], direct: Collector, relayed: Collector
) -> tuple[M, M]:
    """Return what hpcc sent, and what the other collector made of it, with groups in one order."""
    relayed.requests(1)
    sent, found = (understood(server, path, kind) for server in (direct, relayed))
    return sent, found


def test_a_build_comes_out_of_it_span_by_span(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    recorder = Recorder(str(tmp_path / "cache" / DIRECTORY_NAME), lambda: AT_US / 1e6)
    for compile_ in small_build().compiles:
        recorder.add(small_build().build, compile_)
    recorder.flush()
    monkeypatch.setenv("HPCC_DIR", str(tmp_path))
    with collector() as direct, collector() as relayed, rotel(tmp_path, relayed.port) as port:
        for to in (direct.port, port):
            assert main(["trace", "--otlp", f"http://127.0.0.1:{to}", "release-7"]) == 0
        sent, found = sent_and_understood("/v1/traces", ExportTraceServiceRequest, direct, relayed)
    groups = [
        sorted(
            message.resource_spans, key=lambda group: group.SerializeToString(deterministic=True)
        )
        for message in (sent, found)
    ]
    assert groups[0] == groups[1]
    spans = [s.name for g in groups[1] for scope in g.scope_spans for s in scope.spans]
    assert spans.count("compile") == len(small_build().compiles)


async def test_a_security_event_comes_out_of_it_as_it_was(tmp_path: Path) -> None:
    event = SecurityEvent(name="token-refused", at=7.5, tenant="acme", fields=(("reason", "late"),))
    clock = SystemClock()
    with collector() as direct, collector() as relayed, rotel(tmp_path, relayed.port) as port:
        for to in (direct.port, port):
            target = OtlpTarget.of(f"http://127.0.0.1:{to}", headers_file="", ca_file="")
            assert target is not None
            async with (
                asyncio.timeout(_HANG),
                open_event_export(
                    target, ServiceMetrics(""), clock, service="worker", source="w1"
                ) as on_event,
            ):
                on_event(event)
        sent, found = await asyncio.to_thread(
            sent_and_understood, "/v1/logs", ExportLogsServiceRequest, direct, relayed
        )
    assert [g.resource for g in sent.resource_logs] == [g.resource for g in found.resource_logs]
    records = [
        [r for g in message.resource_logs for scope in g.scope_logs for r in scope.log_records]
        for message in (sent, found)
    ]
    for record in (*records[0], *records[1]):
        record.observed_time_unix_nano = 0  # of the moment at which it was queued
    assert records[0] == records[1]
    assert [record.event_name for record in records[1]] == ["token-refused"]
