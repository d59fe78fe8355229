"""Guests for the VM tests: assets and a scratch image once, one booted guest for each module."""

from __future__ import annotations

import asyncio
import os
from collections.abc import AsyncIterator
from pathlib import Path

import pytest
import pytest_asyncio

from hpcc.core import ImageDigest
from hpcc.ports import GuestSpec, SystemClock
from hpcc.runtime import GuestAssets, QemuConfig, QemuRuntime, VmGuest, prepare_assets
from hpcc.testing._guest_program import build_scratch_image


@pytest.fixture(scope="session")
def shared_cache() -> Path:
    """Images and guest assets, kept between runs: they are named by content."""
    base = os.environ.get("XDG_CACHE_HOME") or str(Path.home() / ".cache")
    directory = Path(base, "hpcc-tests")
    (directory / "guest").mkdir(parents=True, exist_ok=True)
    return directory


@pytest.fixture(scope="session")
def assets(shared_cache: Path) -> GuestAssets:
    return asyncio.run(prepare_assets(shared_cache / "guest", print))


@pytest.fixture(scope="session")
def scratch_image(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return build_scratch_image(tmp_path_factory.mktemp("image"))


@pytest.fixture(scope="session")
def guests_directory(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("guests")


@pytest.fixture
def runtime(assets: GuestAssets, guests_directory: Path) -> QemuRuntime:
    return QemuRuntime(
        QemuConfig(accelerator="tcg", directory=guests_directory), assets, SystemClock()
    )


@pytest.fixture(scope="session")
def spec(scratch_image: Path) -> GuestSpec:
    return GuestSpec(
        image=ImageDigest("sha256:" + "0" * 64),
        image_path=scratch_image,
        memory_mib=384,
        boot_timeout_seconds=90,
    )


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def guest(
    assets: GuestAssets, guests_directory: Path, spec: GuestSpec
) -> AsyncIterator[VmGuest]:
    runtime = QemuRuntime(
        QemuConfig(accelerator="tcg", directory=guests_directory), assets, SystemClock()
    )
    async with runtime.guest(spec) as booted:
        yield booted
