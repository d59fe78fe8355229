"""Firecracker guests pass the same contracts as QEMU's."""

from __future__ import annotations

from collections.abc import AsyncIterator
from dataclasses import replace
from pathlib import Path

import pytest
import pytest_asyncio

from hpcc.ports import GuestSpec, SystemClock
from hpcc.runtime.assets.assets import GuestAssets
from hpcc.runtime.firecracker.backend import FirecrackerConfig, FirecrackerRuntime
from hpcc.runtime.firecracker.tools import FirecrackerTools
from hpcc.runtime.vm.vm import VmGuest
from hpcc_testkit.guests.vm_contract import VmContract

pytestmark = [pytest.mark.vm, pytest.mark.asyncio(loop_scope="module"), pytest.mark.timeout(900)]


@pytest.fixture(scope="module")
def program() -> str:
    return "/probe"


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def guest(
    assets: GuestAssets,
    firecracker_tools: FirecrackerTools,
    guests_directory: Path,
    spec: GuestSpec,
) -> AsyncIterator[VmGuest]:
    config = FirecrackerConfig(tools=firecracker_tools, directory=guests_directory)
    # Patient, for the sake of the emulated machine.
    patient = replace(spec, boot_timeout_seconds=200)
    async with FirecrackerRuntime(config, assets, SystemClock()).guest(patient) as booted:
        yield booted


class TestFirecrackerGuest(VmContract):
    """See the contract."""
