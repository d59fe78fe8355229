"""Datagrams to a service manager, as sd_notify(3) describes them."""

from __future__ import annotations

import os
import secrets
import socket
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from hpcc.obs.health.manager import ServiceManager, extended

pytestmark = pytest.mark.skipif(sys.platform == "win32", reason="there is no such manager")


@pytest.fixture(params=["path", "abstract"])
def where(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    if request.param == "abstract":
        return f"@hpcc-test/{secrets.token_hex(8)}"
    return str(tmp_path / "notify")


@pytest.fixture
def listener(where: str) -> Iterator[socket.socket]:
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as found:
        found.bind("\0" + where[1:] if where.startswith("@") else where)
        found.settimeout(20)
        yield found


def test_a_message_is_one_datagram_of_lines(where: str, listener: socket.socket) -> None:
    environment = {"NOTIFY_SOCKET": where, "HOME": "/"}
    manager = ServiceManager.taken_from(environment)
    assert manager is not None
    assert manager.watchdog_seconds == 0
    assert environment == {"HOME": "/"}
    assert manager.send("READY=1", "STATUS=14 of 16 places busy", extended(1.5))
    expected = b"READY=1\nSTATUS=14 of 16 places busy\nEXTEND_TIMEOUT_USEC=1500000"
    assert listener.recv(4096) == expected


def test_who_reads_nothing_does_not_hold_the_service(where: str, listener: socket.socket) -> None:
    manager = ServiceManager(where)
    while manager.send("STATUS=x"):
        pass
    while True:
        try:
            listener.settimeout(0)
            listener.recv(64)
        except BlockingIOError:
            break
    assert manager.send("STATUS=y"), "the queue has room again"


def test_a_manager_that_is_gone_is_no_error(tmp_path: Path) -> None:
    manager = ServiceManager(str(tmp_path / "nobody"))
    assert [manager.send("READY=1") for _ in range(2)] == [False, False]


@pytest.mark.parametrize(
    ("usec", "pid", "seconds"),
    [
        ("30000000", "", 30.0),
        ("30000000", "own", 30.0),
        ("30000000", "1", 0.0),
        ("-1", "", 0.0),
        ("٣", "", 0.0),
        ("9" * 30, "", 0.0),
        ("", "", 0.0),
    ],
)
def test_the_watchdog_is_of_this_process_alone(usec: str, pid: str, seconds: float) -> None:
    pid = pid.replace("own", str(os.getpid()))
    environment = {"NOTIFY_SOCKET": "/run/x", "WATCHDOG_USEC": usec, "WATCHDOG_PID": pid}
    manager = ServiceManager.taken_from(environment)
    assert manager is not None
    assert manager.watchdog_seconds == seconds
    assert environment == {}


@pytest.mark.parametrize("address", ["", "relative", "vsock:2:1234", "/", "@", "/" + "x" * 107])
def test_what_is_no_local_socket_is_nobody_and_is_taken_away(address: str) -> None:
    environment = {"NOTIFY_SOCKET": address}
    assert ServiceManager.taken_from(environment) is None
    assert environment == {}


_SERVICE = """
import asyncio, subprocess, sys
from pathlib import Path
from hpcc.rpc.base.process import run_service

async def main(process):
    seen = await asyncio.to_thread(subprocess.check_output, ["/usr/bin/env"])
    process.ready({"env": seen.decode()})

raise SystemExit(run_service("t", main, Path("/dev/null")))
"""


def test_no_program_that_a_service_starts_can_speak_for_it(tmp_path: Path) -> None:
    """A compiler, a VMM or a helper with NOTIFY_SOCKET could say that the service is ready."""
    where = str(tmp_path / "notify")
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as listener:
        listener.bind(where)
        watched = {"NOTIFY_SOCKET": where, "WATCHDOG_USEC": "60000000", "WATCHDOG_PID": ""}
        done = subprocess.run(
            [sys.executable, "-c", _SERVICE], env={**os.environ, **watched, "CANARY": "1"},
            capture_output=True, text=True, check=True, stdin=subprocess.DEVNULL, timeout=60,
        )  # fmt: skip
        listener.settimeout(20)
        assert listener.recv(4096).startswith(b"EXTEND_TIMEOUT_USEC=")
    assert "CANARY=1" in done.stdout
    assert "NOTIFY_SOCKET" not in done.stdout
    assert "WATCHDOG" not in done.stdout
