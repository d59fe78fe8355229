"""Firecracker guests restored from a snapshot run in a jail like any other and are distinct."""

from __future__ import annotations

import os
import time
from dataclasses import replace
from pathlib import Path

import pytest

from hpcc.ports import Guest, GuestSpec, SystemClock
from hpcc.runtime.assets.assets import GuestAssets
from hpcc.runtime.firecracker.backend import FirecrackerConfig, FirecrackerRuntime
from hpcc.runtime.firecracker.tools import FirecrackerTools
from hpcc.runtime.vm.warm import WarmStart
from hpcc.runtime.vm.warm import open_store as open_snapshots
from hpcc_testkit.guests.guest_contract import request, run

pytestmark = [pytest.mark.vm, pytest.mark.timeout(900)]


async def said(guest: Guest, *argv: str) -> bytes:
    done = await run(guest, request("/probe", *argv))
    assert done.result.exit_code == 0
    return done.stdout


def status_of(pid: int) -> dict[str, str]:
    lines = Path(f"/proc/{pid}/status").read_text().splitlines()
    return {name: value.strip() for name, _, value in (line.partition(":") for line in lines)}


def mappings(pid: int, inode: int) -> list[str]:
    lines = Path(f"/proc/{pid}/maps").read_text().splitlines()
    return [line.split()[1] for line in lines if f" {inode} " in line]


def names(directory: Path) -> set[str]:
    return {p.name for p in directory.iterdir()}


async def test_a_guest_is_restored_in_its_jail_and_is_not_its_siblings_twin(
    assets: GuestAssets, firecracker_tools: FirecrackerTools, spec: GuestSpec, tmp_path: Path
) -> None:
    patient = replace(spec, boot_timeout_seconds=500, memory_mib=256)
    guests, failures = tmp_path / "guests", []

    async def note(name: str, fields: tuple[tuple[str, str], ...]) -> None:
        failures.append((name, fields))

    config = FirecrackerConfig(tools=firecracker_tools, directory=guests)
    async with WarmStart(open_snapshots(tmp_path), SystemClock(), note) as warm:
        runtime = FirecrackerRuntime(config, assets, SystemClock(), warm)
        async with runtime.guest(patient) as booted:
            assert booted.identity.snapshot_digest == ""
            await warm.settle()
        (snapshot,) = [p for p in (tmp_path / "snapshots").iterdir() if p.is_dir()]
        memory = (snapshot / "memory").stat()
        assert (memory.st_mode & 0o777, memory.st_uid) == (0o444, os.geteuid())
        before = time.time()
        async with runtime.guest(patient) as one, runtime.guest(patient) as two:
            assert failures == []
            assert one.identity.snapshot_digest == two.identity.snapshot_digest != ""
            for guest in (one, two):
                assert int(status_of(guest.vmm_pid)["CapEff"], 16) == 0
                assert status_of(guest.vmm_pid)["Seccomp"] == "2"
                assert "0" not in status_of(guest.vmm_pid)["Uid"].split()
                assert mappings(guest.vmm_pid, memory.st_ino) == ["rw-p"]
            random = [await said(g, "head", "/dev/urandom", "32") for g in (one, two)]
            boots = [
                await said(g, "head", "/proc/sys/kernel/random/boot_id", "36") for g in (one, two)
            ]
            clocks = [int(await said(g, "time")) for g in (one, two)]
        assert {len(r) for r in random} == {65}
        assert random[0] != random[1]
        assert boots[0] != boots[1]
        # Whole seconds; the clock of a restored guest is set when it is restored.
        assert all(before - 1 <= c <= time.time() + 1 for c in clocks)
    assert names(guests) == set()
