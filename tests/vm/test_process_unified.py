"""Containers on a host that has only cgroup version 2, like most hosts.

On another host the tests run in an emulated machine that has it (see conftest).
"""

from __future__ import annotations

from collections.abc import AsyncIterator
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
CGROUPS = Path("/sys/fs/cgroup")


@pytest.fixture(scope="module")
def program() -> str:
    return "/probe"


@pytest.fixture(scope="module")
def runtime_config(containerd: ContainerdDaemon, guests_directory: Path) -> RuncConfig:
    return RuncConfig(directory=guests_directory, socket=containerd.socket)


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def guest(
    assets: GuestAssets, runtime_config: RuncConfig, spec: GuestSpec
) -> AsyncIterator[VmGuest]:
    async with RuncRuntime(runtime_config, assets, SystemClock()).guest(spec) as started:
        yield started


class TestLimitsOfVersion2:
    """Tests that depend on how a compile's cgroup is made; test_process_contract.py has the rest."""

    test_memory_is_limited = VmContract.test_memory_is_limited
    test_files_count_as_memory = VmContract.test_files_count_as_memory
    test_processes_are_limited = VmContract.test_processes_are_limited
    test_what_a_compile_leaves_running_is_ended = (
        VmContract.test_what_a_compile_leaves_running_is_ended
    )
    test_the_deadline_ends_it = VmContract.test_the_deadline_ends_it
    test_execs_at_once_do_not_mix = VmContract.test_execs_at_once_do_not_mix
    test_the_agents_places_are_empty_or_absent = (
        VmContract.test_the_agents_places_are_empty_or_absent
    )

    async def test_a_compile_that_needs_less_than_its_limit_runs(
        self, guest: Guest, program: str
    ) -> None:
        done = await run(guest, request(program, "eat", "20", limits=small()))
        assert (done.result.exit_code, done.result.reason) == (0, "")


async def test_a_guest_leaves_no_group(
    assets: GuestAssets, runtime_config: RuncConfig, spec: GuestSpec
) -> None:
    assert "memory" in (CGROUPS / "cgroup.controllers").read_text()
    async with RuncRuntime(runtime_config, assets, SystemClock()).guest(spec) as started:
        group = CGROUPS / "hpcc" / started.identity.guest_id
        assert (group / "memory.max").read_text().strip() == str(spec.memory_mib << 20)
        await run(started, request("/probe", "exit", "0"))
    assert not group.exists()
