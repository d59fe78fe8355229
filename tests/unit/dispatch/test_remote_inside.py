"""The dispatcher on a thread of the daemon: no farm, an abandoned compile, no gRPC."""

from __future__ import annotations

import asyncio
import sys
import threading
from pathlib import Path

import pytest

from hpcc.config.paths import Paths
from hpcc.config.settings import Settings
from hpcc.core import RemoteFailure, RemoteRequest
from hpcc.dispatch import main
from hpcc.dispatch.remote_inside import InsideClient

REQUEST = RemoteRequest(
    argv=("cl.exe",), env=(), cwd="", inputs=(), outputs=("x.obj",), client_version="t"
)


def client_in(directory: Path) -> InsideClient:
    return InsideClient(Paths.from_env({"HPCC_DIR": str(directory)}), Settings())


def reason_of(client: InsideClient, *, is_cancelled: bool = False) -> str:
    outcome = client.compile(REQUEST, lambda: is_cancelled)
    assert isinstance(outcome, RemoteFailure)
    return outcome.reason


def test_it_says_that_there_is_no_farm_and_that_it_is_closed(tmp_path: Path) -> None:
    client = client_in(tmp_path)
    assert client.farm() is None
    assert reason_of(client) == "no-farm"
    client.close()
    client.close()
    assert reason_of(client) == "dispatcher-closed"
    assert not any(t.name == "hpcc-remote" for t in threading.enumerate())


def test_a_compile_that_nobody_waits_for_ends(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    ended = threading.Event()

    async def forever(*_: object) -> None:
        try:
            await asyncio.Event().wait()
        finally:
            ended.set()

    monkeypatch.setattr(main, "compile_on", forever)
    client = client_in(tmp_path)
    assert reason_of(client, is_cancelled=True) == "cancelled"
    assert ended.wait(60)
    client.close()


def test_without_grpc_each_compile_is_told_so(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "hpcc.dispatch.main", None)
    client = client_in(tmp_path)
    assert reason_of(client) == "dispatcher-start"
    client.close()
