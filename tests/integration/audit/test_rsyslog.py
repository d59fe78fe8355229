"""A real rsyslog understands each security event as it was meant. No part of it is hpcc's."""

from __future__ import annotations

import asyncio
from pathlib import Path

import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from hpcc.audit import syslog
from hpcc.audit.log import open_audit_log
from hpcc.audit.syslog import open_syslog
from hpcc.audit.syslog_target import SyslogTarget
from hpcc.obs.metrics.service import ServiceMetrics
from hpcc.ports import SecurityEvent, SystemClock
from hpcc_testkit.receivers.rsyslog import missing_or_none, rsyslog
from hpcc_testkit.services.server_certificate import ServerFiles, make_server_files

_HANG = 60.0
_NASTY = 'a"b]c\\d\\"e] [x y="z"]\x1b[31m\nüß'
_AT = 1_796_000_000.25

pytestmark = pytest.mark.skipif(bool(missing_or_none()), reason=missing_or_none() or "it is here")


@pytest.fixture(scope="module")
def files(tmp_path_factory: pytest.TempPathFactory) -> ServerFiles:
    return make_server_files(tmp_path_factory.mktemp("rsyslog"))


def _target(files: ServerFiles, port: int, *, pair: bool) -> SyslogTarget:
    found = SyslogTarget.of(
        f"tls://localhost:{port}",
        ca_file=str(files.ca),
        certificate=str(files.certificate) if pair else "",
        key=str(files.key) if pair else "",
        enterprise=32473,
    )
    assert found is not None
    return found


def _large() -> SecurityEvent:
    """Return an event whose message is as long as one may be."""
    return SecurityEvent(
        name="x-y", at=_AT, fields=tuple((f"f{number}", "x" * 500) for number in range(40))
    )


async def test_rsyslog_reads_from_each_event_what_the_trail_was_given(
    files: ServerFiles, tmp_path: Path
) -> None:
    metrics, clock = ServiceMetrics(""), SystemClock()
    event = SecurityEvent(
        name="token-refused", at=_AT, tenant="acme", peer="ipv4:10.0.0.7:4711", request_id="r1",
        fields=(("reason", "token-expired"), ("said", _NASTY)),
    )  # fmt: skip
    with rsyslog(tmp_path, files, client="localhost") as server:
        async with (
            asyncio.timeout(_HANG),
            open_syslog(
                _target(files, server.port, pair=True), metrics, clock, service="worker",
                source="w1",
            ) as on_event,
            open_audit_log(
                tmp_path / "trail", worker="w1", key=Ed25519PrivateKey.generate(), clock=clock,
                listeners=(on_event,),
            ) as log,
        ):  # fmt: skip
            await log.event(event)
            await log.event(_large())
            first, second = await server.wait_received(2)
    assert (first.priority, first.app, first.message_id) == ("84", "hpcc-worker", "token-refused")
    assert (first.at, first.text) == (
        "2026-11-30T00:53:20.250000Z", "security event token-refused",
    )  # fmt: skip
    assert first.data == {
        "hpcc@32473": {
            "name": "token-refused", "source": "w1", "tenant": "acme",
            "peer": "ipv4:10.0.0.7:4711", "request_id": "r1", "reason": "token-expired",
            # In one line, and nothing in it ended a value, an element or the message.
            "said": 'a"b]c\\d\\"e] [x y="z"]\\x1b[31m\\nüß',
        }
    }  # fmt: skip
    (large,) = second.data.values()
    assert (large["name"], large["cut"]) == ("x-y", "1")
    assert [v for k, v in large.items() if k.startswith("f")] == ["x" * 500] * (len(large) - 3)
    shown = metrics.registry.ask()["hpcc_syslog_events_total"][1]
    assert shown == {("sent",): 2.0, ("dropped",): 0.0}


async def test_rsyslog_gets_nothing_from_a_service_whose_certificate_it_does_not_see(
    files: ServerFiles,
    tmp_path: Path,
    caplog: pytest.LogCaptureFixture,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(syslog, "_FLUSH_SECONDS", 0.01)
    metrics = ServiceMetrics("")
    with rsyslog(tmp_path, files, client="localhost") as server:
        async with (
            asyncio.timeout(_HANG),
            open_syslog(
                _target(files, server.port, pair=False), metrics, SystemClock(), service="worker",
                source="w1",
            ) as on_event,
        ):  # fmt: skip
            on_event(SecurityEvent(name="token-refused", at=_AT))
            while "takes no security events" not in caplog.text:  # noqa: ASYNC110 - nor has a log
                await asyncio.sleep(0.02)
        assert not server.output.exists()
    assert metrics.registry.ask()["hpcc_syslog_events_total"][1][("sent",)] == 0.0
