"""pip-audit over the real lock files, with a vulnerability service on loopback."""

from __future__ import annotations

import json
import os
import subprocess
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest

ROOT = Path(__file__).resolve().parents[3]
_RECORD = {
    "id": "GHSA-test-test-test",
    "aliases": ["CVE-2026-0001"],
    "summary": "for a test",
    "affected": [
        {
            "package": {"name": "h2", "ecosystem": "PyPI"},
            "ranges": [{"type": "ECOSYSTEM", "events": [{"introduced": "0"}, {"fixed": "999.0"}]}],
        }
    ],
}


class Service(BaseHTTPRequestHandler):
    """Answers as osv.dev's /v1/query does."""

    vulnerable = ""
    asked: set[str]

    def do_POST(self) -> None:
        body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        name = body["package"]["name"]
        self.asked.add(name)
        answer: dict[str, Any] = {"vulns": [_RECORD]} if name == self.vulnerable else {}
        content = json.dumps(answer).encode()
        self.send_response(200)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(content)))
        self.end_headers()
        self.wfile.write(content)

    def log_message(self, format: str, *args: object) -> None:
        """Write nothing."""


@pytest.fixture
def service() -> Iterator[tuple[str, type[Service]]]:
    handler = type("Handler", (Service,), {"asked": set()})
    server = ThreadingHTTPServer(("127.0.0.1", 0), handler)
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    yield f"http://127.0.0.1:{server.server_port}/v1/query", handler
    server.shutdown()
    thread.join()
    server.server_close()


def audit(*arguments: str, home: Path) -> tuple[int, str]:
    done = subprocess.run(
        [ROOT / "tools/release.sh", "audit", *arguments],
        env=os.environ | {"HOME": str(home), "XDG_CACHE_HOME": str(home), "NO_PROXY": "127.0.0.1"},
        capture_output=True, text=True, check=False,
    )  # fmt: skip
    return done.returncode, done.stdout + done.stderr


@pytest.mark.nightly  # the finding below asks about each package, too
def test_each_locked_package_is_asked_about_and_clean_is_green(
    service: tuple[str, type[Service]], tmp_path: Path
) -> None:
    url, handler = service
    code, said = audit("--osv-url", url, "--required", home=tmp_path)
    assert code == 0, said
    assert "NOT CHECKED" not in said
    assert {"cryptography", "grpcio", "h2", "hatchling", "certifi"} <= handler.asked


def test_a_known_vulnerability_is_red(service: tuple[str, type[Service]], tmp_path: Path) -> None:
    url, handler = service
    handler.vulnerable = "h2"
    code, said = audit("--osv-url", url, home=tmp_path)
    assert code == 1
    assert {"cryptography", "grpcio", "h2", "hatchling", "certifi"} <= handler.asked
    assert "requirements.lock: VULNERABLE: h2 " in said
    assert "CVE-2026-0001" in said


def test_a_service_that_cannot_be_reached_is_said(tmp_path: Path) -> None:
    code, said = audit("--osv-url", "http://127.0.0.1:9/v1/query", home=tmp_path)
    assert (code, said.count("NOT CHECKED")) == (0, 2)
