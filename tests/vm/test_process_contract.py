"""Containers pass the same contracts as virtual machines."""

from __future__ import annotations

from collections.abc import AsyncIterator
from pathlib import Path

import pytest
import pytest_asyncio

from hpcc.ports import GuestSpec, SystemClock
from hpcc.runtime.assets.assets import GuestAssets
from hpcc.runtime.runc.backend import RuncRuntime
from hpcc.runtime.runc.tools import RuncConfig
from hpcc.runtime.vm.vm import VmGuest
from hpcc_testkit.guests.containerd_daemon import ContainerdDaemon
from hpcc_testkit.guests.vm_contract import VmContract

pytestmark = [pytest.mark.vm, pytest.mark.asyncio(loop_scope="module"), pytest.mark.timeout(900)]


@pytest.fixture(scope="module")
def program() -> str:
    return "/probe"


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def guest(
    assets: GuestAssets, containerd: ContainerdDaemon, guests_directory: Path, spec: GuestSpec
) -> AsyncIterator[VmGuest]:
    config = RuncConfig(directory=guests_directory, socket=containerd.socket)
    async with RuncRuntime(config, assets, SystemClock()).guest(spec) as started:
        yield started


class TestProcessGuest(VmContract):
    """See the contract."""
