"""Snapshots on disk and the choice between restore and boot, without a VM."""

from __future__ import annotations

import asyncio
import os
import threading
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import cast

import pytest

from hpcc.core import ImageDigest, IntegrityError
from hpcc.ports import Clock, GuestBootError, GuestLostError, GuestSpec, SystemClock
from hpcc.runtime.qemu.backend import why_no_snapshots
from hpcc.runtime.vm import warm as _warm
from hpcc.runtime.vm.snapshot_files import BLOCK_BYTES, digest_of, seal
from hpcc.runtime.vm.snapshot_store import Saved, Snapshot, SnapshotStore, snapshot_key
from hpcc.runtime.vm.vm import Vm, VmGuest
from hpcc.runtime.vm.warm import FORGIVE_SECONDS, WarmStart
from hpcc_testkit.services.idp_tokens import FixedClock

KEY = "0123456789abcdef" * 2
MIB = 1 << 20


@pytest.fixture
def image(tmp_path: Path) -> Path:
    path = tmp_path / "image"
    path.write_bytes(b"image")
    return path


@pytest.fixture
def spec(image: Path) -> GuestSpec:
    return GuestSpec(image=ImageDigest("sha256:" + "1" * 64), image_path=image, memory_mib=1)


def saved(directory: Path, content: bytes = b"memory") -> Saved:
    directory.mkdir(exist_ok=True)
    memory, state = directory / "m", directory / "s"
    with memory.open("wb") as file:
        file.write(content)
        file.truncate(MIB)
    state.write_bytes(b"state")
    return Saved(memory=memory, state=state, token="t" * 32)


def publish(store: SnapshotStore, directory: Path, image: Path, key: str = KEY) -> Snapshot:
    return store.publish(key, saved(directory), memory_bytes=MIB, image=image)


@pytest.fixture
def store(tmp_path: Path) -> SnapshotStore:
    store = SnapshotStore(tmp_path / "snapshots")
    store.open()
    return store


def again(tmp_path: Path) -> SnapshotStore:
    """Return the store that a worker opens at its next start."""
    store = SnapshotStore(tmp_path / "snapshots")
    store.open()
    return store


def test_a_sealed_file_keeps_bytes_and_holes_and_its_digest_knows_both(tmp_path: Path) -> None:
    source, target = tmp_path / "source", tmp_path / "target"
    content = bytes(3 * BLOCK_BYTES) + b"x" + bytes(2 * BLOCK_BYTES) + b"y"
    source.write_bytes(content)
    digest = seal(source, target, max_bytes=MIB)
    assert target.read_bytes() == content
    assert target.stat().st_blocks < source.stat().st_blocks
    assert digest_of(target, max_bytes=MIB) == digest_of(source, max_bytes=MIB) == digest
    seen = {digest}
    for changed in (content + b"\0", content[:-1], content[1:] + b"\0", b"z" + content[1:]):
        source.write_bytes(changed)
        seen.add(digest_of(source, max_bytes=MIB))
    assert len(seen) == 5


@pytest.mark.parametrize("what", ["link", "fifo", "large"])
def test_only_a_regular_file_of_the_right_size_is_sealed(tmp_path: Path, what: str) -> None:
    source = tmp_path / "source"
    match what:
        case "link":
            (tmp_path / "other").write_bytes(b"1")
            source.symlink_to(tmp_path / "other")
        case "fifo":
            os.mkfifo(source)
        case _:
            source.write_bytes(b"12345")
    with pytest.raises((IntegrityError, OSError)):
        seal(source, tmp_path / "target", max_bytes=4)
    assert not (tmp_path / "target").exists()


def test_a_snapshot_is_found_again_and_nobody_may_write_it(
    store: SnapshotStore, tmp_path: Path, image: Path
) -> None:
    made = publish(store, tmp_path / "vm", image)
    assert store.find(KEY) == made == again(tmp_path).find(KEY)
    assert made.token == "t" * 32
    assert {p.stat().st_mode & 0o777 for p in (made.memory, made.state)} == {0o444}
    assert (tmp_path / "snapshots").stat().st_mode & 0o777 == 0o700
    assert store.find("f" * 32) is None


def test_a_store_that_was_open_to_others_is_no_longer(tmp_path: Path) -> None:
    directory = tmp_path / "snapshots"
    directory.mkdir()
    directory.chmod(0o777)
    SnapshotStore(directory).open()
    assert directory.stat().st_mode & 0o777 == 0o700


def rewrite(path: Path, change: Callable[[bytearray], None]) -> None:
    path.chmod(0o644)
    data = bytearray(path.read_bytes())
    change(data)
    path.write_bytes(data)
    path.chmod(0o444)


@pytest.mark.parametrize("name", ["memory", "state"])
@pytest.mark.parametrize("is_running", [True, False])
def test_one_changed_byte_ends_a_snapshot(
    store: SnapshotStore, tmp_path: Path, image: Path, name: str, *, is_running: bool
) -> None:
    made = publish(store, tmp_path / "vm", image)
    reader = store if is_running else again(tmp_path)
    rewrite(made.memory.parent / name, lambda data: data.__setitem__(2, data[2] ^ 1))
    with pytest.raises(IntegrityError):
        reader.find(KEY)
    assert reader.find(KEY) is None
    assert not made.memory.parent.exists()


@pytest.mark.parametrize("damage", ["truncated", "writable", "record", "digest"])
def test_a_snapshot_that_is_not_whole_is_removed(
    store: SnapshotStore, tmp_path: Path, image: Path, damage: str
) -> None:
    made = publish(store, tmp_path / "vm", image)
    reader = again(tmp_path)
    record = made.memory.parent / "snapshot.json"
    match damage:
        case "truncated":
            rewrite(made.memory, lambda data: data.__delitem__(slice(100, None)))
        case "writable":
            made.memory.chmod(0o666)
        case "record":
            record.write_text("[]")
        case _:
            record.write_text(record.read_text().replace("sha256:", "sha256:0", 1))
    with pytest.raises(IntegrityError):
        reader.find(KEY)
    assert reader.find(KEY) is None


# Each raises another error where it is read.
NO_RECORDS: dict[str, Callable[[str], str]] = {
    "no-json": lambda _: "nonsense",
    "no-field": lambda _: "{}",
    "no-object": lambda _: "[]",
    "too-long": lambda good: good + " " * (64 << 10),
}


@pytest.mark.parametrize("kind", NO_RECORDS)
@pytest.mark.parametrize("how", ["found", "evicted"])
def test_a_record_that_is_none_removes_its_snapshot(
    store: SnapshotStore, tmp_path: Path, image: Path, kind: str, how: str
) -> None:
    other = publish(store, tmp_path / "vm", image, "b" * 32)
    made = publish(store, tmp_path / "vm", image)
    record = made.memory.parent / "snapshot.json"
    record.write_text(NO_RECORDS[kind](record.read_text()))
    if how == "evicted":
        store.evict()
    else:
        with pytest.raises(IntegrityError):
            SnapshotStore(tmp_path / "snapshots").find(KEY)
    assert not made.memory.parent.exists()
    assert store.find("b" * 32) == other


@pytest.mark.parametrize("name", ["memory", "state", "snapshot.json"])
def test_a_snapshot_without_one_of_its_files_is_removed(
    store: SnapshotStore, tmp_path: Path, image: Path, name: str
) -> None:
    made = publish(store, tmp_path / "vm", image)
    (made.memory.parent / name).unlink()
    if name != "snapshot.json":
        with pytest.raises(IntegrityError):
            store.find(KEY)
    assert store.find(KEY) is None
    store.evict()
    assert not made.memory.parent.exists()


def test_who_asks_to_stop_is_told_so_and_the_snapshot_stays(
    store: SnapshotStore, tmp_path: Path, image: Path
) -> None:
    made = publish(store, tmp_path / "vm", image)
    with pytest.raises(InterruptedError):
        again(tmp_path).find(KEY, lambda: True)
    with pytest.raises(InterruptedError):
        store.publish(
            "b" * 32, saved(tmp_path / "vm"), memory_bytes=MIB, image=image, is_stopped=lambda: True
        )
    assert store.find(KEY) == made
    assert [p.name for p in (tmp_path / "snapshots").iterdir() if p.is_dir()] == [KEY]


def test_a_snapshot_larger_than_the_store_is_an_error_that_says_so(
    tmp_path: Path, image: Path
) -> None:
    store = SnapshotStore(tmp_path / "snapshots", max_bytes=1)
    store.open()
    with pytest.raises(OSError, match="larger than the store"):
        publish(store, tmp_path / "vm", image)
    assert store.find(KEY) is None


@pytest.mark.skipif(os.geteuid() != 0, reason="needs root")
def test_a_snapshot_of_another_user_is_not_used(
    store: SnapshotStore, tmp_path: Path, image: Path
) -> None:
    made = publish(store, tmp_path / "vm", image)
    os.chown(made.memory, 65534, -1)
    with pytest.raises(IntegrityError, match="another owner"):
        again(tmp_path).find(KEY)


def test_memory_of_another_size_is_refused(
    store: SnapshotStore, tmp_path: Path, image: Path
) -> None:
    with pytest.raises(IntegrityError):
        store.publish(KEY, saved(tmp_path / "vm"), memory_bytes=2 * MIB, image=image)
    assert store.find(KEY) is None
    assert [p.name for p in (tmp_path / "snapshots").iterdir() if p.is_dir()] == []


def test_of_two_who_make_the_same_snapshot_one_wins(tmp_path: Path, image: Path) -> None:
    stores = [again(tmp_path), again(tmp_path)]
    found: list[Snapshot] = []
    gate = threading.Barrier(2)

    def make(number: int) -> None:
        files = saved(tmp_path / f"vm{number}", b"memory %d" % number)
        gate.wait(10)
        found.append(stores[number].publish(KEY, files, memory_bytes=MIB, image=image))

    threads = [threading.Thread(target=make, args=(n,)) for n in range(2)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(20)
    assert len(found) == 2
    assert found[0] == found[1] == again(tmp_path).find(KEY)


def test_one_maker_at_a_time(store: SnapshotStore, tmp_path: Path) -> None:
    with store.making() as mine, again(tmp_path).making() as theirs:
        assert (mine, theirs) == (True, False)
    with again(tmp_path).making() as theirs:
        assert theirs


def test_the_longest_unused_goes_first(tmp_path: Path, image: Path) -> None:
    store = SnapshotStore(tmp_path / "snapshots")
    store.open()
    keys = [c * 32 for c in "abc"]
    for key in keys[:2]:
        publish(store, tmp_path / "vm", image, key)
    size = sum(p.stat().st_blocks * 512 for p in (tmp_path / "snapshots" / keys[0]).iterdir())
    os.utime(tmp_path / "snapshots" / keys[1], (1, 1))
    bounded = SnapshotStore(tmp_path / "snapshots", max_bytes=2 * size)
    bounded.open()
    publish(bounded, tmp_path / "vm", image, keys[2])
    assert [bounded.find(k) is not None for k in keys] == [True, False, True]


def test_a_snapshot_goes_with_its_image_and_what_a_killed_maker_left_goes_too(
    store: SnapshotStore, tmp_path: Path, image: Path
) -> None:
    publish(store, tmp_path / "vm", image)
    other = tmp_path / "other"
    other.write_bytes(b"other")
    publish(store, tmp_path / "vm", other, "b" * 32)
    unfinished = tmp_path / "snapshots" / "guest-left"
    unfinished.mkdir()
    (unfinished / "processes.json").write_text("[[1999999999, 1]]")
    image.unlink()
    reader = again(tmp_path)
    assert reader.find(KEY) is None
    assert reader.find("b" * 32) is not None
    assert not unfinished.exists()


def test_everything_that_a_snapshot_depends_on_is_in_its_key(
    spec: GuestSpec, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    other = tmp_path / "other-image"
    other.write_bytes(b"image")
    keys = [
        snapshot_key(spec, "kernel", "vmm"),
        snapshot_key(spec, "kernel2", "vmm"),
        snapshot_key(spec, "kernelv", "mm"),
        snapshot_key(replace(spec, memory_mib=2), "kernel", "vmm"),
        snapshot_key(replace(spec, vcpus=2), "kernel", "vmm"),
        snapshot_key(replace(spec, image=ImageDigest("sha256:" + "2" * 64)), "kernel", "vmm"),
        snapshot_key(replace(spec, image_path=other), "kernel", "vmm"),
    ]
    assert len(set(keys)) == len(keys)
    assert snapshot_key(replace(spec, boot_timeout_seconds=1), "kernel", "vmm") == keys[0]
    for what in ("release", "version"):
        with monkeypatch.context() as patch:
            patch.setattr(f"platform.{what}", lambda: "another")
            assert snapshot_key(spec, "kernel", "vmm") not in keys
    spec.image_path.write_bytes(b"another")
    assert snapshot_key(spec, "kernel", "vmm") != keys[0]


class Backend:
    """Scripted VMs that count their calls."""

    def __init__(self, directory: Path) -> None:
        self.directory = directory
        self.log: list[str] = []
        self.seconds: dict[str, float] = {}
        self.restores_fail = self.template_fails = False
        self.may_save, self.asked = asyncio.Event(), asyncio.Event()

    def key(self, spec: GuestSpec) -> str:
        if not spec.image_path.exists():
            raise FileNotFoundError(spec.image_path)
        return KEY

    def cold(self, spec: GuestSpec) -> Vm:
        return cast("Vm", "cold")

    def restored(self, spec: GuestSpec, snapshot: Snapshot) -> Vm:
        return cast("Vm", "restored")

    def template(self, spec: GuestSpec) -> Backend:
        self.log.append("template")
        self.asked.set()
        return self

    async def save(self) -> Saved:
        await self.may_save.wait()
        if self.template_fails:
            raise GuestLostError("it ended")
        return saved(self.directory)

    async def end(self) -> None:
        self.log.append("template ended")


@pytest.fixture
async def backend(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Backend:
    backend = Backend(tmp_path / "vm")

    @asynccontextmanager
    async def booted(
        new_vm: Callable[[], object], spec: GuestSpec, clock: object, *, tries: int
    ) -> AsyncIterator[VmGuest]:
        kind = str(new_vm())
        backend.log.append(kind)
        backend.seconds[kind] = spec.boot_timeout_seconds
        if kind == "restored" and backend.restores_fail:
            raise GuestBootError("no restore")
        yield cast("VmGuest", SimpleNamespace(kind=kind))

    monkeypatch.setattr(_warm, "booted", booted)
    return backend


Events = list[str]


def warm_start(store: SnapshotStore, events: Events, clock: Clock | None = None) -> WarmStart:
    async def note(name: str, _: object) -> None:
        events.append(name)

    return WarmStart(store, clock or SystemClock(), note)


async def one_guest(warm: WarmStart, backend: Backend, spec: GuestSpec) -> str:
    async with warm.guest(backend, spec, tries=2) as guest:
        return str(cast("SimpleNamespace", guest).kind)


async def test_the_first_guest_does_not_wait_for_the_snapshot_and_the_next_is_restored(
    backend: Backend, store: SnapshotStore, spec: GuestSpec
) -> None:
    events: Events = []
    async with asyncio.timeout(20), warm_start(store, events) as warm:
        assert await one_guest(warm, backend, spec) == "cold"
        assert await one_guest(warm, backend, spec) == "cold", "while the template boots"
        backend.may_save.set()
        await warm.settle()
        assert await one_guest(warm, backend, spec) == "restored"
    # The template and the second guest start in either order.
    assert sorted(backend.log[:3]) == ["cold", "cold", "template"]
    assert backend.log[3:] == ["template ended", "restored"]
    assert events == []


async def test_a_failed_restore_is_a_boot_and_is_not_tried_for_ever(
    backend: Backend, store: SnapshotStore, spec: GuestSpec, tmp_path: Path, image: Path
) -> None:
    backend.restores_fail = True
    backend.may_save.set()
    events: Events = []
    async with asyncio.timeout(20), warm_start(store, events) as warm:
        publish(store, tmp_path / "vm", image)
        for _ in range(4):
            assert await one_guest(warm, backend, spec) == "cold"
            await warm.settle()
    assert backend.log.count("restored") == 2
    assert events == ["snapshot-restore-failed"] * 2
    assert store.find(KEY) is None


async def test_a_restore_has_a_third_of_a_boots_time_so_that_a_boot_is_possible_after_it(
    backend: Backend, store: SnapshotStore, spec: GuestSpec, tmp_path: Path, image: Path
) -> None:
    backend.restores_fail = True
    publish(store, tmp_path / "vm", image)
    async with asyncio.timeout(20), warm_start(store, []) as warm:
        assert await one_guest(warm, backend, replace(spec, boot_timeout_seconds=90.0)) == "cold"
    assert backend.seconds["restored"] == pytest.approx(30.0)
    assert backend.seconds["cold"] == 90.0


async def test_a_damaged_snapshot_is_a_boot_an_event_and_a_new_snapshot(
    backend: Backend, store: SnapshotStore, spec: GuestSpec, tmp_path: Path, image: Path
) -> None:
    backend.may_save.set()
    events: Events = []
    async with asyncio.timeout(20), warm_start(store, events) as warm:
        publish(store, tmp_path / "vm", image)
        os.truncate(tmp_path / "snapshots" / KEY / "state", 1)
        assert await one_guest(warm, backend, spec) == "cold"
        await warm.settle()
        assert await one_guest(warm, backend, spec) == "restored"
    assert events == ["snapshot-damaged"]


async def test_a_template_that_fails_harms_nobody(
    backend: Backend, store: SnapshotStore, spec: GuestSpec
) -> None:
    backend.template_fails = True
    backend.may_save.set()
    async with asyncio.timeout(20), warm_start(store, []) as warm:
        for _ in range(4):
            assert await one_guest(warm, backend, spec) == "cold"
            await warm.settle()
    assert backend.log.count("template") == backend.log.count("template ended") == 2


async def test_failures_are_forgiven_a_while_after_the_last_one(
    backend: Backend, store: SnapshotStore, spec: GuestSpec
) -> None:
    backend.template_fails = True
    backend.may_save.set()
    clock = FixedClock()
    async with asyncio.timeout(20), warm_start(store, [], clock) as warm:

        async def guests(count: int) -> list[str]:
            kinds = []
            for _ in range(count):
                kinds.append(await one_guest(warm, backend, spec))
                await warm.settle()
            return kinds

        await guests(3)
        assert backend.log.count("template") == 2
        clock.time += FORGIVE_SECONDS - 1
        await guests(1)
        assert backend.log.count("template") == 2
        clock.time += 1
        await guests(3)
        assert backend.log.count("template") == 4, "as often as before, not once"
        clock.time += FORGIVE_SECONDS
        backend.template_fails = False
        assert await guests(2) == ["cold", "restored"]


async def test_the_end_of_the_block_ends_a_template(
    backend: Backend, store: SnapshotStore, spec: GuestSpec
) -> None:
    async with asyncio.timeout(20):
        async with warm_start(store, []) as warm:
            assert await one_guest(warm, backend, spec) == "cold"
            await backend.asked.wait()
        assert not warm.is_making
    assert backend.log[-1] == "template ended"
    assert store.find(KEY) is None


async def test_without_an_image_the_boot_says_so(
    backend: Backend, store: SnapshotStore, spec: GuestSpec, tmp_path: Path
) -> None:
    async with asyncio.timeout(20), warm_start(store, []) as warm:
        gone = replace(spec, image_path=tmp_path / "gone")
        assert await one_guest(warm, backend, gone) == "cold"
    assert backend.log == ["cold"]


@pytest.mark.parametrize(
    ("version", "reason"),
    [
        ("QEMU emulator version 7.2.9 (Debian 1:7.2+dfsg-7)", "8.2"),
        ("QEMU emulator version 8.1.3", "8.2"),
        ("nonsense", "8.2"),
        ("QEMU emulator version 8.2.0", ""),
        ("QEMU emulator version 10.0.13 (Debian 1:10.0.13+ds-0+deb13u1)", ""),
    ],
)
async def test_an_old_qemu_says_why_its_guests_boot(
    tmp_path: Path, version: str, reason: str
) -> None:
    program = tmp_path / "qemu"
    program.write_text(f"#!/bin/sh\necho '{version}'\n")
    program.chmod(0o755)
    said = await why_no_snapshots(str(program))
    assert (reason in said) if reason else said == ""
    assert "not installed" in await why_no_snapshots(str(tmp_path / "absent"))


def test_a_worker_that_ends_does_not_wait_for_a_copy(tmp_path: Path) -> None:
    source = tmp_path / "memory"
    source.write_bytes(b"x" * (4 * BLOCK_BYTES))
    asked: list[bool] = []

    def is_stopped() -> bool:
        asked.append(True)
        return len(asked) > 2

    with pytest.raises(InterruptedError):
        seal(source, tmp_path / "sealed", max_bytes=1 << 20, is_stopped=is_stopped)
    assert len(asked) == 3
