"""Containers pass the same contracts as virtual machines."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator
from contextlib import suppress
from pathlib import Path

import pytest
import pytest_asyncio

from hpcc.ports import Guest, GuestSpec, SystemClock
from hpcc.runtime.assets.assets import GuestAssets
from hpcc.runtime.runc.backend import RuncRuntime
from hpcc.runtime.runc.tools import RuncConfig
from hpcc.runtime.vm.vm import VmGuest
from hpcc_testkit.guests.containerd_daemon import ContainerdDaemon
from hpcc_testkit.guests.guest_contract import request, run
from hpcc_testkit.guests.vm_contract import VmContract, small

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

    async def test_a_sandbox_waits_for_one_compile(self, guest: Guest, program: str) -> None:
        """What was made before a compile serves it, and ends with it."""
        for _ in range(2):
            await run(guest, request(program, "who"))
        first = await _waiting(guest)
        await run(guest, request(program, "who"))
        second = await _waiting(guest)
        assert len(first) == len(second) == 3  # its helper, and in it PID 1 and the program's own
        assert not first & second
        # One with other limits is not used.
        await run(guest, request(program, "who", limits=small(pids=20)))
        assert not second & await _waiting(guest)


async def _waiting(guest: Guest) -> set[int]:
    """Return the processes on the host of the sandbox that waits in a guest, when it is made."""
    return await asyncio.to_thread(_made, guest.identity.guest_id)


def _made(name: str) -> set[int]:
    while len(found := _helpers(name)) < 3:  # the test's time limit ends this
        time.sleep(0.01)
    return found


def _helpers(name: str) -> set[int]:
    found = set()
    for entry in Path("/proc").iterdir():
        if entry.name.isdigit():
            with suppress(OSError):  # it has ended
                is_helper = b"hpcc-init\0exec" in (entry / "cmdline").read_bytes()
                if is_helper and name in (entry / "cgroup").read_text():
                    found.add(int(entry.name))
    return found
