"""A real image on a machine that misses the deadline: no answer is stored, and a retry works."""

from __future__ import annotations

import json
import shutil
from dataclasses import replace
from pathlib import Path

import pytest

from hpcc.cli.main import main
from hpcc.core import ImageRef, ImageToolchains
from hpcc.images import toolchains
from hpcc.images.store import ImageStore
from hpcc.ports import SystemClock
from hpcc.runtime.assets.assets import GuestAssets
from hpcc.runtime.qemu.backend import QemuConfig, QemuRuntime
from hpcc.worker.__main__ import _Images
from hpcc.worker.execute.toolchains import Prober
from hpcc.worker.pool.pool import GuestShape

pytestmark = [pytest.mark.vm, pytest.mark.timeout(900)]


@pytest.mark.nightly
async def test_a_deadline_that_is_too_small_keeps_nothing_and_a_good_one_is_asked_next(
    assets: GuestAssets,
    guests_directory: Path,
    toolchain: str,
    shared_cache: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    ref = ImageRef.parse(toolchain)
    monkeypatch.setenv("HPCC_DIR", str(tmp_path))
    prepared = tmp_path / "cache" / "images" / "prepared"
    prepared.mkdir(parents=True)
    for file in (shared_cache / "images" / "prepared").glob(f"{ref.digest.hex}.*"):
        if file.suffix in {".erofs", ".json"}:
            shutil.copy2(file, prepared)
    store = ImageStore(prepared.parent, SystemClock())
    book = _Images(store, SystemClock())
    runtime = QemuRuntime(
        QemuConfig(accelerator="tcg", directory=guests_directory), assets, SystemClock()
    )

    async def started() -> tuple[ImageToolchains, ...]:
        shape = GuestShape(memory_mib=768, boot_timeout_seconds=120)
        prober = Prober(runtime, book, book, shape, vcpus=1, clock=SystemClock())
        return await prober.learn([ref.digest], lambda _: None)

    try:
        with monkeypatch.context() as patch:
            patch.setattr(toolchains, "_LIMITS", replace(toolchains._LIMITS, wall_seconds=0.02))
            assert await started() == ()
        assert list(prepared.glob("*.compilers")) == []
        assert main(["image", "inspect", "--json", str(ref)]) == 0
        shown = json.loads(capsys.readouterr().out)
        assert shown["compilers"] is None
        whys = {a["why"] for a in shown["not_understood"]["answers"]}
        assert "deadline" in whys

        (found,) = await started()
        assert any("gcc" in t.names for t in found.compilers)
        assert await book.known(ref.digest) == found.compilers
        assert main(["image", "inspect", "--json", str(ref)]) == 0
        assert json.loads(capsys.readouterr().out)["not_understood"] is None
    finally:
        store.close()
