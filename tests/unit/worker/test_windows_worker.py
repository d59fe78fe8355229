"""How a worker and `hpcc doctor` read the settings for Windows guests. Nothing is Windows."""

from __future__ import annotations

import asyncio
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from hpcc.cli.base.windows_guests import windows_guests
from hpcc.config.settings import WorkerSettings, parse_settings
from hpcc.core import CallerError, ImageDigest, ImageRef, InfrastructureError
from hpcc.ports import Probe, SystemClock
from hpcc.runtime.containerd.client import Connect
from hpcc.runtime.registry.pick import pick_runtime
from hpcc.runtime.registry.windows_pick import (
    WindowsChoice,
    check_windows_backend,
    pick_windows_runtime,
)
from hpcc.runtime.windows.hyperv import HyperVRuntime
from hpcc.runtime.windows.layers.layer import build_windows_layer, read_windows_layer
from hpcc.runtime.windows.spec import VM_OVERHEAD_MIB
from hpcc.worker.base.config import WorkerConfig
from hpcc.worker.pool.guests import overhead_mib, windows_choice
from hpcc_testkit.windows.scripted_containerd import ScriptedContainerd, serving

DIGEST = "sha256:" + "a" * 64
PULLED = f"mcr.microsoft.com/windows/servercore@{DIGEST}"


def config(tmp_path: Path, **changes: Any) -> WorkerConfig:
    base: dict[str, Any] = {
        name: tmp_path / name for name in ("keys", "store", "audit", "images", "state")
    }
    base |= {
        "worker_id": "win-1", "guest_assets": tmp_path, "scheduler": "s:1",
        "scheduler_certificate_pem": "", "image_digests": (DIGEST,), "memory_mib": 16384,
    }  # fmt: skip
    return WorkerConfig(**(base | changes))


def agent(directory: Path) -> Path:
    path = directory / "windows-agent.tar"
    path.write_bytes(build_windows_layer({"hpcc-agent.exe": b"MZ"}).tar)
    return path


def test_both_isolations_are_settings() -> None:
    for name in ("hyperv", "process"):
        settings = parse_settings(f'[worker]\nruntime = "{name}"\n')
        assert settings.worker.runtime == name
        assert check_windows_backend(name) == name
    assert check_windows_backend("auto") == "hyperv"
    for name in ("qemu", "firecracker"):
        with pytest.raises(CallerError, match="is for Linux"):
            check_windows_backend(name)


def test_a_workers_words_are_what_its_guests_are_made_of(tmp_path: Path) -> None:
    worker = config(tmp_path, runtime="process", containerd="pipe", pull_images=(PULLED,))
    assert windows_choice(worker, "C:\\P") == WindowsChoice(
        backend="process", worker="win-1", agent=tmp_path / "windows-agent.tar",
        containerd="pipe", images=(ImageDigest(DIGEST),), pulled=(ImageRef.parse(PULLED),), program_files="C:\\P",
    )  # fmt: skip
    assert overhead_mib(worker, is_windows=True) == overhead_mib(worker, is_windows=False)
    hyperv = replace(worker, runtime="hyperv")
    assert overhead_mib(hyperv, is_windows=True) == VM_OVERHEAD_MIB


@pytest.mark.parametrize(
    "image", ["servercore:ltsc2022", "servercore@sha256:" + "b" * 64, "servercore@sha256:x"]
)
def test_an_image_to_pull_is_pinned_and_one_of_the_offered(tmp_path: Path, image: str) -> None:
    with pytest.raises(CallerError):
        config(tmp_path, pull_images=(image,))


async def test_linux_refuses_hyperv_and_says_what_else(tmp_path: Path) -> None:
    assets: Any = None
    with pytest.raises(CallerError, match="for Windows Server"):
        await pick_runtime(
            assets, accelerator="auto", state_dir=tmp_path, clock=SystemClock(), backend="hyperv"
        )


class Runtime(HyperVRuntime):
    """Stands in for a runtime whose host is not this machine."""

    is_usable = True
    done: list[str]

    async def probe(self) -> Probe:
        self.done.append("probe")
        return Probe(
            is_usable=self.is_usable, isolation=self.isolation, summary="no answer", remedy="mend"
        )

    async def sweep(self) -> int:
        self.done.append("sweep")
        return 0


async def pick(tmp_path: Path, connect: Connect, *, is_usable: bool, done: list[str]) -> Any:
    def make(host: Any) -> Runtime:
        made = Runtime(host, SystemClock())
        made.is_usable, made.done = is_usable, done
        return made

    choice = WindowsChoice(
        backend="hyperv", worker="w", agent=agent(tmp_path), containerd="pipe",
        images=(ImageDigest(DIGEST),), pulled=(ImageRef.parse(PULLED),),
    )  # fmt: skip
    streams: Any = None
    return await pick_windows_runtime(
        choice, SystemClock(), streams=streams, build=lambda: 20348, connect=lambda _: connect,
        make=make,
    )  # fmt: skip


async def test_a_runtime_is_swept_has_its_images_and_is_proved_before_it_is_used(
    tmp_path: Path,
) -> None:
    daemon, done = ScriptedContainerd({}), []
    async with serving(daemon, tmp_path / "s") as connect:
        await pick(tmp_path, connect, is_usable=True, done=done)
        assert done == ["sweep", "probe"]
        (pulled,) = daemon.requests["Transfer/Transfer"]
        assert pulled.source.type_url == "containerd.types.transfer.OCIRegistry"
        assert pulled.destination.type_url == "containerd.types.transfer.ImageStore"
        with pytest.raises(InfrastructureError, match="hyperv guests do not work here: no answer"):
            await pick(tmp_path, connect, is_usable=False, done=done)


async def test_an_old_containerd_is_refused_before_anything_is_swept(tmp_path: Path) -> None:
    daemon, done = ScriptedContainerd({}), []
    daemon.version = "2.0.5"
    async with serving(daemon, tmp_path / "s") as connect:
        with pytest.raises(InfrastructureError, match=r"2\.1\.1"):
            await pick(tmp_path, connect, is_usable=True, done=done)
    assert done == []
    assert daemon.calls == ["Version/Version"]


def test_an_agents_layer_that_is_none_is_refused(tmp_path: Path) -> None:
    good = agent(tmp_path)
    assert read_windows_layer(good) == build_windows_layer({"hpcc-agent.exe": b"MZ"})
    other = tmp_path / "other.tar"
    other.write_bytes(build_windows_layer({"a.txt": b""}).tar)
    junk = tmp_path / "junk.tar"
    junk.write_bytes(b"junk" * 1000)
    for path in (other, junk, tmp_path / "absent"):
        with pytest.raises(CallerError) as caught:
            read_windows_layer(path)
        assert caught.value.reason == "no-agent-layer"


async def test_doctor_says_what_is_there_and_that_nobody_has_run_it(tmp_path: Path) -> None:
    asked, hyperv = WorkerSettings(), WorkerSettings(runtime="hyperv")
    assert (await windows_guests(asked, is_windows=False, program_files="")).state == "ok"
    assert (await windows_guests(hyperv, is_windows=False, program_files="")).state == "missing"
    daemon = ScriptedContainerd({})
    async with serving(daemon, tmp_path / "s") as connect:

        async def ask(settings: WorkerSettings) -> Any:
            return await windows_guests(
                settings, is_windows=True, program_files="", connect=lambda _: connect
            )

        said = await ask(hyperv)
        assert (said.state, said.remedy) == ("degraded", "hpcc selftest windows")
        assert "not yet run on Windows" in said.cost
        assert "the host's own kernel" in (await ask(WorkerSettings(runtime="process"))).detail
        daemon.version = "1.7.27"
        assert (await ask(hyperv)).state == "missing"
    await asyncio.sleep(0)
