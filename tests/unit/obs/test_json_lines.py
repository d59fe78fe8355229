"""A record is one bounded line of JSON, whatever a peer wrote into it."""

from __future__ import annotations

import json
import logging
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from hpcc.core import CallerError, NotFoundError
from hpcc.obs.json_lines import MAX_LINE_BYTES, JsonFormatter
from hpcc.obs.logs import ServiceLog, check_log_format
from hpcc.obs.secrets import hide_secrets

_LOST = "guest %s of worker %s is lost: %s"


def _line(message: str, *arguments: object, error: BaseException | None = None) -> str:
    record = logging.LogRecord("hpcc.x", logging.WARNING, "x.py", 1, message, arguments, None)
    record.created = 1_796_000_000.25
    if error is not None:
        record.exc_info = (type(error), error, error.__traceback__)
    return JsonFormatter("worker").format(record)


def _read(message: str, *arguments: object, error: BaseException | None = None) -> dict[str, Any]:
    line = _line(message, *arguments, error=error)
    assert line.isascii()
    assert line.isprintable()
    assert len(line) <= MAX_LINE_BYTES
    found: dict[str, Any] = json.loads(line)
    return found


def test_a_line_has_the_events_name_and_its_arguments() -> None:
    assert _read(_LOST, "g1", "w1", "it died") == {
        "time": "2026-11-30T00:53:20.250000Z",
        "severity": "WARN",
        "service": "worker",
        "event": "guest-lost",
        "logger": "hpcc.x",
        "message": "guest g1 of worker w1 is lost: it died",
        "guest": "g1",
        "worker": "w1",
        "reason": "it died",
    }


def test_numbers_stay_numbers_and_errors_give_their_reason() -> None:
    found = _read("audit checkpoints wait: %s", NotFoundError("gone", reason="audit-gap"))
    assert (found["error"], found["reason"]) == ("gone", "audit-gap")
    assert _read("tenants table reloaded: %d tenants", 3)["count"] == 3


@pytest.mark.parametrize("number", [float("nan"), float("inf"), 10**400, -(10**20)])
def test_a_number_that_readers_lack_is_a_text(number: float) -> None:
    assert _read("guest: %s", number)["error"] == str(number)


def test_a_librarys_record_is_no_event_of_hpcc() -> None:
    assert _read("Task exception was never retrieved")["event"] == "library"


@pytest.mark.parametrize(
    "text",
    [
        '\n{"event":"forged"}\r\n',
        "\x1b]0;owned\x07\x9b31m\u202egnp.exe\udcff\u2028\x00",
        "\x00" * (1 << 20),
        "\U0001f600" * (1 << 20),
        '"\\' * (1 << 20),
    ],
)
def test_whatever_a_peer_writes_is_one_bounded_line(text: str) -> None:
    # The longest event there is, each argument and the exception hostile.
    found = _read(
        "refused: connections reason=%s peer=%s count=%s open=%s limit=%s port=%s",
        *[text] * 6,
        error=ValueError(text),
    )
    assert found["event"] == "library"  # its sentence has %d
    found = _read(
        "parity tenant=%s image=%s compiler=%s level=%s host=%s there=%s",
        *[text] * 6,
        error=ValueError(text),
    )
    assert found["event"] == "compilers-differ"
    for name in ("message", "tenant", "there"):
        assert found[name].isprintable()
    assert all(c.isprintable() or c in "\n\t" for c in found["exception"])


def test_a_long_traceback_keeps_the_error() -> None:
    found = _read("guest failed", error=ValueError("x" * 100_000 + "the end"))
    assert found["exception"].startswith("...")
    assert found["exception"].endswith("the end")


def test_a_failing_argument_costs_no_line() -> None:
    class Broken:
        def __str__(self) -> str:
            raise RuntimeError

    assert _read("guest: %s", Broken())["message"] == "guest: %s"
    assert _read("guest: %s %s", "one")["event"] == "library"


@pytest.mark.parametrize(
    ("text", "secret"),
    [
        ("postgresql://hpcc:s3cret-canary@db/hpcc", "s3cret-canary"),
        ("at https://user:s3cret-canary@proxy:1/", "s3cret-canary"),
        ("token eyJhbGciOi.eyJzdWIiOiJ.c2lnbmF0dXJl_canary refused", "canary"),
        ("Authorization: Bearer s3cret-canary-of-16-chars", "canary"),
        ("Authorization: Basic czNjcmV0LWNhbmFyeQ==", "czNjcmV0"),
        ("GET https://a.example/b?sv=1&sig=s3cret-canary%3D HTTP/1.1", "s3cret-canary"),
        ("at https://b.example/k?X-Amz-Signature=0123456789canary&x=1", "canary"),
        ("token hpcc-enrol-0123456789abcdef-canary refused", "canary"),
        ("-----BEGIN PRIVATE KEY-----\nMIIcanary\n-----END PRIVATE KEY-----", "canary"),
        (
            "-----BEGIN RSA PRIVATE KEY-----\nDEK-Info: AES-128-CBC,00\n\nMIIcanary\n"
            "-----END RSA PRIVATE KEY-----",
            "canary",
        ),
        ("at https://user:s3cret@canary@proxy:1/", "canary"),
        ("headers {'Authorization': 'Basic czpjYW5hcnk='}", "czpjYW5hcnk"),
        ("Authorization: AWS4-HMAC-SHA256 Credential=AKIDcanary/eu, Sig", "canary"),
        ("403 for 'https://a.blob.example/c/k?sv=1&sig=canary%2Bx&x=1'", "canary"),
        ("host=db user=hpcc password=canary-of-hpcc dbname=hpcc", "canary"),
        ("https://idp.example/token?client_secret=canary-of-hpcc", "canary"),
    ],
)
def test_what_looks_like_a_credential_is_hidden(text: str, secret: str) -> None:
    found = _read("guest: %s", text, error=ValueError(text))
    assert secret not in json.dumps(found)
    assert "[hidden]" in found["message"]


@pytest.mark.parametrize(
    "text",
    [
        "registry.example/gcc@sha256:0123",
        "https://example.org/a@b",
        "bearer of news",
        "eyJ is no token",
        "https://example.org/a?signal=1&design=12345678",
        "s1.acme.example:7443",
        "reason=token-expired, tokens=17",
        "authorization: no",
    ],
)
def test_other_texts_are_left_alone(text: str) -> None:
    assert hide_secrets(text) == text


def test_an_unknown_format_is_refused() -> None:
    with pytest.raises(CallerError, match='log_format: \'xml\' is not one of "text", "json"'):
        check_log_format("log_format", "xml")
    with pytest.raises(CallerError, match="HPCC_LOG_FORMAT"):
        ServiceLog("worker", "%(message)s", {"HPCC_LOG_FORMAT": "xml"}).begin(logging.INFO)


_SERVICE = """
import logging, os, sys, threading, warnings
from hpcc.obs.logs import ServiceLog
log = ServiceLog("worker", "%(levelname)s %(message)s", os.environ)
log.begin(logging.INFO)
log.configured(sys.argv[1])
logging.getLogger("hpcc.x").warning("guest failed")
log.ended("no room: \\x1b[2J\\npostgresql://hpcc:canary@db")
warnings.warn("old")
def fail(): raise ValueError("in a thread")
thread = threading.Thread(target=fail, name="t1")
thread.start(); thread.join()
class Freed:
    def __del__(self): raise ValueError("freed")
Freed()
raise ValueError("for a reason\\nat the end, hpcc worker: all is well")
"""


def _run(configured: str, **variables: str) -> list[str]:
    done = subprocess.run(
        [sys.executable, "-c", _SERVICE, configured],
        env={**os.environ, **variables},
        capture_output=True,
        check=False,
        timeout=60,
    )
    assert done.returncode == 1
    return done.stderr.decode().splitlines()


@pytest.mark.parametrize(
    ("configured", "variables"),
    [("json", {}), ("auto", {}), ("text", {"HPCC_LOG_FORMAT": "json"})],
)
def test_all_that_python_writes_to_stderr_is_json(
    configured: str, variables: dict[str, str]
) -> None:
    lines = [json.loads(line) for line in _run(configured, **variables)]
    assert [(line["severity"], line["event"]) for line in lines] == [
        ("WARN", "guest-failed"),
        ("FATAL", "service-ended"),
        ("WARN", "library"),
        ("ERROR", "thread-crashed"),
        ("ERROR", "finalizer-failed"),
        ("FATAL", "service-crashed"),
    ]
    assert {line["service"] for line in lines} == {"worker"}
    assert lines[3]["thread"] == "t1"
    assert lines[-1]["exception"].endswith("at the end, hpcc worker: all is well")


@pytest.mark.parametrize(
    ("configured", "variables"), [("text", {}), ("json", {"HPCC_LOG_FORMAT": "text"})]
)
def test_text_is_the_default_and_the_environment_decides(
    configured: str, variables: dict[str, str]
) -> None:
    lines = _run(configured, **variables)
    assert lines[:3] == [
        "WARNING guest failed",
        "hpcc worker: no room: \\x1b[2J",
        "    postgresql://[hidden]@db",
    ]
    begun = [line for line in lines if not line.startswith("    ")]
    assert [line.partition(" ")[0] for line in begun] == [
        "WARNING", "hpcc", "WARNING", "ERROR", "ERROR", "CRITICAL",
    ]  # fmt: skip
    assert lines[-1] == "    at the end, hpcc worker: all is well"


def test_a_complaint_about_the_config_file_is_a_line_too(tmp_path: Path) -> None:
    done = subprocess.run(
        [sys.executable, "-m", "hpcc.gateway", "--config", str(tmp_path / "absent.json")],
        env={**os.environ, "HPCC_LOG_FORMAT": "json"},
        stdin=subprocess.DEVNULL,
        capture_output=True,
        check=False,
        timeout=60,
    )
    assert done.returncode == 2
    (line,) = map(json.loads, done.stderr.decode().splitlines())
    assert (line["event"], line["service"]) == ("service-ended", "gateway")
    assert "absent.json" in line["error"]
