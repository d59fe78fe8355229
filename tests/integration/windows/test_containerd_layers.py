"""Layers in a real containerd: written, applied, committed on a chain, and nothing left behind."""

from __future__ import annotations

import asyncio
import hashlib
import subprocess
from collections.abc import AsyncIterator, Iterator
from typing import Any

import pytest
import pytest_asyncio

from hpcc.core import CallerError, IntegrityError
from hpcc.ports import SystemClock
from hpcc.runtime.containerd.client import Containerd, ContainerdError, unix_connector
from hpcc.runtime.windows.layers.containerd_layers import LayerStore, chain_id
from hpcc.runtime.windows.layers.layer import WindowsLayer, build_windows_layer
from hpcc.runtime.windows.selftest import SelfTestSettings
from hpcc.runtime.windows.selftest import run_checks as run_windows_checks
from hpcc_testkit.guests.containerd_daemon import ContainerdDaemon, containerd_daemon

pytestmark = pytest.mark.timeout(300)
NOW, LATER = "2026-11-25T12:00:00Z", "2099-01-01T00:00:00Z"
BASE = build_windows_layer({"base.txt": b"base"})
AGENT = build_windows_layer({"hpcc-agent.exe": b"MZ" + bytes(3 << 20)})
# Copies files, so that it works on whatever file system the tests' directory is.
SNAPSHOTTER = "native"


@pytest.fixture(scope="module")
def daemon() -> Iterator[ContainerdDaemon]:
    with containerd_daemon() as daemon:
        yield daemon


@pytest_asyncio.fixture
async def client(daemon: ContainerdDaemon) -> AsyncIterator[Containerd]:
    client = Containerd(unix_connector(daemon.socket))
    await client.ensure_namespace()
    try:
        yield client
    finally:
        client.close()


@pytest_asyncio.fixture
async def layers(client: Containerd) -> LayerStore:
    return LayerStore(client, SNAPSHOTTER)


def ctr(daemon: ContainerdDaemon, *arguments: str) -> str:
    argv = ["ctr", "--address", str(daemon.socket), "--namespace", "hpcc", *arguments]
    return subprocess.run(argv, check=True, capture_output=True, text=True, timeout=60).stdout


def assert_nothing_is_left(daemon: ContainerdDaemon) -> None:
    assert "extract" not in ctr(daemon, "snapshots", "--snapshotter", SNAPSHOTTER, "ls")
    assert "hpcc-" not in ctr(daemon, "leases", "ls")


async def test_the_agents_layer_is_committed_on_an_images_chain(
    daemon: ContainerdDaemon, layers: LayerStore
) -> None:
    base = await layers.add(BASE, "", now=NOW, expires=LATER)
    assert base == BASE.diff_id
    top = await layers.add(AGENT, base, now=NOW, expires=LATER)
    assert top == chain_id(base, AGENT.diff_id)
    assert await layers.has(top)
    said = ctr(daemon, "snapshots", "--snapshotter", SNAPSHOTTER, "info", top)
    assert base in said
    assert AGENT.diff_id in said
    assert "Committed" in said
    assert_nothing_is_left(daemon)


async def test_a_layer_that_is_there_is_not_made_again(
    daemon: ContainerdDaemon, layers: LayerStore
) -> None:
    first, second = await asyncio.gather(
        *[layers.add(AGENT, "", now=NOW, expires=LATER) for _ in range(2)]
    )
    assert first == second == await layers.add(AGENT, "", now=NOW, expires=LATER)
    assert_nothing_is_left(daemon)


async def test_a_parent_that_is_not_there_is_an_error_that_leaves_nothing(
    daemon: ContainerdDaemon, layers: LayerStore
) -> None:
    with pytest.raises(ContainerdError):
        await layers.add(AGENT, "sha256:" + "0" * 64, now=NOW, expires=LATER)
    assert_nothing_is_left(daemon)


async def test_a_layer_with_another_content_than_its_name_is_refused(layers: LayerStore) -> None:
    with pytest.raises(CallerError):
        await layers.add(WindowsLayer(b"x", AGENT.diff_id), "", now=NOW, expires=LATER)


async def test_a_layer_that_was_applied_as_another_is_not_committed(
    daemon: ContainerdDaemon, layers: LayerStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def applied(*_: Any) -> str:
        return BASE.diff_id

    monkeypatch.setattr(layers, "_apply_to", applied)
    layer = build_windows_layer({"other.exe": b"MZ"})
    with pytest.raises(IntegrityError) as caught:
        await layers.add(layer, "", now=NOW, expires=LATER)
    assert caught.value.reason == "layer-digest"
    assert not await layers.has(layer.diff_id)
    assert_nothing_is_left(daemon)


async def test_a_cancel_midway_leaves_nothing(
    daemon: ContainerdDaemon, layers: LayerStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    entered = asyncio.Event()

    async def never(*_: Any) -> str:
        entered.set()
        await asyncio.Event().wait()
        raise AssertionError

    monkeypatch.setattr(layers, "_apply_to", never)
    layer = build_windows_layer({"cancelled.exe": b"MZ"})
    task = asyncio.ensure_future(layers.add(layer, "", now=NOW, expires=LATER))
    await entered.wait()
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert not await layers.has(layer.diff_id)
    assert_nothing_is_left(daemon)


async def test_a_tar_that_is_none_is_not_committed(
    daemon: ContainerdDaemon, layers: LayerStore
) -> None:
    junk = b"\x01" * 4096
    layer = WindowsLayer(junk, f"sha256:{hashlib.sha256(junk).hexdigest()}")
    with pytest.raises(ContainerdError):
        await layers.add(layer, "", now=NOW, expires=LATER)
    assert not await layers.has(layer.diff_id)
    assert_nothing_is_left(daemon)


@pytest.mark.parametrize("snapshotter", ["none-such"])
async def test_a_snapshotter_that_is_not_there_is_an_error(
    client: Containerd, snapshotter: str
) -> None:
    with pytest.raises(ContainerdError):
        await LayerStore(client, snapshotter).add(AGENT, "", now=NOW, expires=LATER)


async def test_the_self_test_imports_its_layer_and_takes_it_away(
    daemon: ContainerdDaemon, layers: LayerStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Equal to Windows except for the pipe, the snapshotter and the system's name."""
    base = await layers.add(BASE, "", now=NOW, expires=LATER)
    loop: Any = asyncio.get_running_loop()

    async def create(protocol: Any, _: str) -> Any:
        return await loop.create_unix_connection(protocol, str(daemon.socket))

    monkeypatch.setattr(loop, "create_pipe_connection", create, raising=False)
    before = ctr(daemon, "snapshots", "--snapshotter", SNAPSHOTTER, "ls")
    settings = SelfTestSettings(
        containerd=r"\\.\pipe\containerd-containerd",
        clock=SystemClock(),
        parent=base,
        snapshotter=SNAPSHOTTER,
        compiler="hpcc-none-such-cl",
        is_windows=True,
    )
    results = {r.name: r for r in await run_windows_checks(settings)}
    assert results["containerd-pipe"].outcome == "pass"
    assert results["layer-import"].outcome == "pass", results["layer-import"].reason
    # Debian's containerd is older than what Windows guests need.
    assert results["containerd-version"].outcome == "fail"
    assert ctr(daemon, "snapshots", "--snapshotter", SNAPSHOTTER, "ls") == before
    assert_nothing_is_left(daemon)
