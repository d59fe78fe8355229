"""How `hpcc up` is asked to stop on Windows, and when it starts a farm there."""

from __future__ import annotations

import asyncio
from pathlib import Path

import pytest

from hpcc.cli.base import windows_guests
from hpcc.cli.base.up_process import forget_stop, stop_file, watch_for_file
from hpcc.cli.base.windows_guests import DoctorFinding
from hpcc.cli.farm.up import image_or_why
from hpcc.config.paths import Paths
from hpcc.config.settings import WorkerSettings
from hpcc.core import CallerError

IMAGE = "registry.example/msvc@sha256:" + "a" * 64


async def test_a_file_asks_for_a_stop_and_an_older_one_does_not(tmp_path: Path) -> None:
    paths, stop = Paths.from_env({"HPCC_DIR": str(tmp_path)}), asyncio.Event()
    file = stop_file(paths)
    file.parent.mkdir(parents=True)
    file.touch()
    forget_stop(paths)
    with watch_for_file(file, stop):
        assert not stop.is_set()
        file.touch()
        async with asyncio.timeout(20):
            await stop.wait()


@pytest.mark.parametrize(
    ("state", "wanted", "image", "why"),
    [
        ("missing", "", "", "no pipe; start it"),
        ("degraded", "", "", "containerd answers; `hpcc up --image NAME@sha256:…` starts one"),
        ("degraded", IMAGE, IMAGE, ""),
        ("degraded", f"docker://{IMAGE}", IMAGE, ""),
    ],
)
def test_windows_has_a_farm_where_containerd_answers_and_an_image_is_named(
    monkeypatch: pytest.MonkeyPatch, state: str, wanted: str, image: str, why: str
) -> None:
    find(monkeypatch, state)
    assert image_or_why(WorkerSettings(), wanted or None) == (image, why)


def test_an_image_without_containerd_or_without_a_digest_is_refused(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    find(monkeypatch, "missing")
    with pytest.raises(CallerError, match="no farm can start here: no pipe; start it") as caught:
        image_or_why(WorkerSettings(), IMAGE)
    assert caught.value.reason == "no-containerd"
    with pytest.raises(CallerError, match="is not pinned"):
        image_or_why(WorkerSettings(), "registry.example/msvc:latest")


def find(monkeypatch: pytest.MonkeyPatch, state: str) -> None:
    async def guests(settings: WorkerSettings, *, program_files: str) -> DoctorFinding:
        del settings, program_files
        return DoctorFinding(
            "missing" if state == "missing" else "degraded", "no pipe", "", "start it"
        )

    monkeypatch.setattr(windows_guests, "windows_guests", guests)
