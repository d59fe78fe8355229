"""Guests restored from a snapshot are distinct; a bad snapshot makes the guest boot instead."""

from __future__ import annotations

import asyncio
import os
import shutil
import time
from collections.abc import AsyncIterator
from dataclasses import replace
from pathlib import Path

import pytest
import pytest_asyncio

from hpcc.core import GuestReuse, ImageDigest, Isolation, TenantId
from hpcc.ports import Guest, GuestSpec, SystemClock
from hpcc.runtime.assets.assets import GuestAssets
from hpcc.runtime.qemu.backend import QemuConfig, QemuRuntime
from hpcc.runtime.vm.command_line import recorded_line
from hpcc.runtime.vm.snapshot_store import Saved
from hpcc.runtime.vm.vm import VmGuest
from hpcc.runtime.vm.warm import WarmStart
from hpcc.runtime.vm.warm import open_store as open_snapshots
from hpcc.worker.base.domain import TrustDomain
from hpcc.worker.pool.decisions import PoolLimits
from hpcc.worker.pool.pool import GuestPool, GuestShape
from hpcc_testkit.guests.guest_contract import request, run
from hpcc_testkit.guests.memory import memory_of
from hpcc_testkit.guests.vm_contract import VmContract

pytestmark = [pytest.mark.vm, pytest.mark.asyncio(loop_scope="module"), pytest.mark.timeout(400)]

Events = list[tuple[str, dict[str, str]]]


@pytest.fixture(scope="module")
def program() -> str:
    return "/probe"


@pytest.fixture(scope="module")
def state(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("state")


@pytest.fixture(scope="module")
def events() -> Events:
    return []


@pytest.fixture(scope="module")
def config(state: Path) -> QemuConfig:
    return QemuConfig(accelerator="tcg", directory=state / "guests")


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def warm(state: Path, events: Events) -> AsyncIterator[WarmStart]:
    async def note(name: str, fields: tuple[tuple[str, str], ...]) -> None:
        events.append((name, dict(fields)))

    async with WarmStart(open_snapshots(state), SystemClock(), note) as warm:
        yield warm


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def runtime(
    config: QemuConfig, assets: GuestAssets, warm: WarmStart, spec: GuestSpec
) -> QemuRuntime:
    """Yield a runtime that has a snapshot of `spec`."""
    runtime = QemuRuntime(config, assets, SystemClock(), warm)
    async with runtime.guest(spec) as first:
        assert first.identity.snapshot_digest == ""
        await warm.settle()
    return runtime


@pytest.fixture(scope="module")
def original(runtime: QemuRuntime, state: Path) -> Path:
    """Return the snapshot's directory."""
    (record,) = state.glob("snapshots/*/snapshot.json")
    return record.parent


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def guest(runtime: QemuRuntime, spec: GuestSpec) -> AsyncIterator[VmGuest]:
    """Yield a restored guest, on which the contract runs."""
    async with runtime.guest(spec) as restored:
        assert restored.identity.snapshot_digest.startswith("sha256:")
        yield restored


@pytest.mark.nightly
class TestRestoredQemuGuest(VmContract):
    """See the contract."""


async def read(guest: Guest, path: str, size: int = 0) -> bytes:
    """Return the content that a compile reads from a file of the guest."""
    argv = ("head", path, str(size)) if size else ("copy", path, "o")
    done = await run(guest, request("/probe", *argv, outputs=() if size else ("o",)))
    return done.stdout if size else done.outputs["o"]


def mappings(pid: int, inode: int) -> list[str]:
    lines = Path(f"/proc/{pid}/maps").read_text().splitlines()
    return [line.split()[1] for line in lines if f" {inode} " in line]


async def test_guests_of_one_snapshot_are_not_the_same(
    runtime: QemuRuntime, spec: GuestSpec
) -> None:
    before = time.time()
    async with runtime.guest(spec) as one, runtime.guest(spec) as two:
        assert one.identity.snapshot_digest == two.identity.snapshot_digest != ""
        assert one.identity.guest_id != two.identity.guest_id
        random = [await read(g, "/dev/urandom", 32) for g in (one, two)]
        boots = [await read(g, "/proc/sys/kernel/random/boot_id") for g in (one, two)]
        clocks = [int((await run(g, request("/probe", "time"))).stdout) for g in (one, two)]
        lines = [recorded_line((await read(g, "/proc/cmdline")).decode()) for g in (one, two)]
        assert lines == [one.identity.kernel_command_line, two.identity.kernel_command_line]
        assert "mitigations=off" in lines[0].split()
        assert all(len(r) == 65 for r in random)
        assert random[0] != random[1]
        # Made when it is first asked for: after the entropy came.
        assert boots[0] != boots[1]
        # Whole seconds; the clock of a restored guest is set when it is restored.
        assert all(before - 1 <= c <= time.time() + 1 for c in clocks)


async def test_restored_guests_share_the_memory_that_they_do_not_write(
    runtime: QemuRuntime, spec: GuestSpec, original: Path
) -> None:
    memory = (original / "memory").stat()
    async with runtime.guest(spec) as guest:
        assert set(mappings(guest.vmm_pid, memory.st_ino)) == {"rw-p"}
    assert (memory.st_mode & 0o777, memory.st_uid) == (0o444, os.geteuid())
    assert memory.st_size == spec.memory_mib << 20
    assert memory.st_blocks * 512 < memory.st_size


async def test_several_are_restored_at_once(
    runtime: QemuRuntime, spec: GuestSpec, config: QemuConfig
) -> None:
    before = set(config.directory.iterdir())

    async def one(number: int) -> str:
        async with runtime.guest(spec) as guest:
            assert guest.identity.snapshot_digest
            done = await run(guest, request("/probe", "exit", str(number)))
            assert done.result.exit_code == number
            return guest.identity.guest_id

    async with asyncio.TaskGroup() as group:
        tasks = [group.create_task(one(n)) for n in range(3)]
    assert len({t.result() for t in tasks}) == 3
    assert set(config.directory.iterdir()) == before


def damaged_copy(original: Path, copy: Path, damage: str) -> None:
    shutil.copytree(original, copy)
    middle = (copy / "memory").stat().st_size // 2
    match damage:
        case "flipped":
            (copy / "memory").chmod(0o644)
            with (copy / "memory").open("r+b") as file:
                file.seek(middle)
                file.write(b"?")
            (copy / "memory").chmod(0o444)
        case "truncated":
            os.truncate(copy / "memory", middle)
        case _:
            (copy / "state").unlink()


@pytest.mark.nightly
@pytest.mark.parametrize("damage", ["flipped", "truncated", "state-gone"])
async def test_a_damaged_snapshot_is_dropped_and_the_guest_booted(
    config: QemuConfig, assets: GuestAssets, spec: GuestSpec, original: Path, tmp_path: Path,
    damage: str,
) -> None:  # fmt: skip
    """A later worker finds a snapshot that has changed."""
    events: list[str] = []

    async def note(name: str, _: object) -> None:
        events.append(name)

    copy = tmp_path / "snapshots" / original.name
    damaged_copy(original, copy, damage)
    async with WarmStart(open_snapshots(tmp_path), SystemClock(), note) as warm:
        again = QemuRuntime(config, assets, SystemClock(), warm)
        async with again.guest(spec) as guest:
            assert guest.identity.snapshot_digest == ""
            assert (await run(guest, request("/probe", "exit", "3"))).result.exit_code == 3
            assert events == ["snapshot-damaged"]
            assert not copy.exists()


async def test_a_restore_that_fails_is_a_boot(
    config: QemuConfig, assets: GuestAssets, spec: GuestSpec, original: Path, tmp_path: Path,
) -> None:  # fmt: skip
    """The snapshot has a state that QEMU refuses, under matching digests."""
    events: list[str] = []

    async def note(name: str, _: object) -> None:
        events.append(name)

    store = open_snapshots(tmp_path)
    broken = tmp_path / "state"
    broken.write_bytes((original / "state").read_bytes()[:5000])
    store.open()
    saved = Saved(memory=original / "memory", state=broken, token="t" * 32)
    memory_bytes = spec.memory_mib << 20
    store.publish(original.name, saved, memory_bytes=memory_bytes, image=spec.image_path)
    async with WarmStart(store, SystemClock(), note) as warm:
        again = QemuRuntime(config, assets, SystemClock(), warm)
        async with again.guest(spec) as guest:
            assert guest.identity.snapshot_digest == ""
            assert (await run(guest, request("/probe", "exit", "3"))).result.exit_code == 3
        assert events == ["snapshot-restore-failed"]


async def test_a_worker_that_stops_ends_its_template(
    config: QemuConfig, assets: GuestAssets, spec: GuestSpec, tmp_path: Path
) -> None:
    """The stop comes while a template boots: no guest waits for it, and nothing is left."""
    own = replace(config, directory=tmp_path / "guests")
    async with WarmStart(open_snapshots(tmp_path), SystemClock()) as warm:
        runtime = QemuRuntime(own, assets, SystemClock(), warm)
        async with runtime.guest(spec) as guest:
            assert (await run(guest, request("/probe", "exit", "3"))).result.exit_code == 3
            assert warm.is_making
    assert not warm.is_making
    assert list(own.directory.iterdir()) == []
    assert list((tmp_path / "snapshots").glob("*/*")) == []


class OneImage:
    """`ImageProvider` with one image."""

    def __init__(self, path: Path) -> None:
        self._path = path

    async def image(self, _: ImageDigest) -> Path:
        return self._path


async def test_a_pool_restores_guests_ahead_of_demand_and_they_are_small(
    runtime: QemuRuntime, spec: GuestSpec
) -> None:
    limits = PoolLimits(
        max_guests=2, vcpus=1, guest_mib=1, memory_mib=2, max_queue=9, idle_seconds=600.0,
        session_seconds=600.0, ahead_guests=9,
    )  # fmt: skip
    domain = TrustDomain.of(
        tenant=TenantId("acme"), image=spec.image, isolation=Isolation.QEMU_TCG,
        reuse=GuestReuse.PRINCIPAL, principal="ann",
    )  # fmt: skip
    shape = GuestShape(memory_mib=spec.memory_mib, boot_timeout_seconds=spec.boot_timeout_seconds)

    async def no_loss(guest_id: str, reason: str) -> None:
        raise AssertionError((guest_id, reason))

    async with asyncio.TaskGroup() as group:
        images = OneImage(spec.image_path)
        pool = GuestPool(limits, shape, runtime, images, group, no_loss, SystemClock())
        pool.expect(domain, 64)
        while pool.numbers()["idle"] < 2:  # noqa: ASYNC110 - guests that start; the test has a limit
            await asyncio.sleep(0.05)
        async with pool.lease(domain) as one, pool.lease(domain) as two:
            assert one.number != two.number
            for lease in (one, two):
                assert isinstance(lease.guest, VmGuest)
                assert lease.guest.identity.snapshot_digest
                memory = memory_of(lease.guest.vmm_pid)
                assert memory.own - memory.translated < 64, memory
                done = await run(lease.guest, request("/probe", "exit", "3"))
                assert done.result.exit_code == 3
        counts = pool.core.counts
        assert counts.started == counts.ahead == counts.ahead_used == 2
        await pool.drain(0.0)


async def test_this_qemu_says_that_it_can(assets: GuestAssets, config: QemuConfig) -> None:
    probe = await QemuRuntime(config, assets, SystemClock()).probe()
    assert probe.is_usable
    assert probe.no_warm_start == ""
