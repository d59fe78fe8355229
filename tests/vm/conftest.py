"""Guests for the VM tests: assets and a scratch image once, one booted guest for each module.

Firecracker tests need KVM. Container tests need root and an overlay, and some need a host that has
only cgroup version 2. Where that is missing, the tests run in an emulated machine that has it, and
their reports appear here.
"""

from __future__ import annotations

import asyncio
import os
import shutil
import subprocess
from collections.abc import AsyncIterator, Iterator
from functools import cache, partial
from pathlib import Path
from tempfile import TemporaryDirectory, mkdtemp

import pytest
import pytest_asyncio

from hpcc.core import ImageDigest, InfrastructureError
from hpcc.ports import GuestSpec, SystemClock
from hpcc.runtime.assets.assets import GuestAssets, prepare_assets
from hpcc.runtime.firecracker.backend import FirecrackerRuntime
from hpcc.runtime.firecracker.tools import FirecrackerTools, find_firecracker
from hpcc.runtime.qemu.backend import QemuConfig, QemuRuntime
from hpcc.runtime.registry.pick import pick_runtime
from hpcc.runtime.vm.vm import VmGuest
from hpcc_testkit.farm.machine import Machine
from hpcc_testkit.guests.containerd_daemon import ContainerdDaemon, containerd_daemon
from hpcc_testkit.guests.guest_program import build_scratch_image
from hpcc_testkit.guests.nested import INSIDE_VARIABLE, NestedMachine, hand_on

FIRECRACKER = "firecracker-1.12.1"
IS_NATIVE = pytest.StashKey[bool]()
NESTED = pytest.StashKey[NestedMachine]()
FAILURE = pytest.StashKey[str]()


def cache_directory() -> Path:
    base = os.environ.get("XDG_CACHE_HOME") or str(Path.home() / ".cache")
    directory = Path(base, "hpcc-tests")
    (directory / "guest").mkdir(parents=True, exist_ok=True)
    return directory


def prepared_assets() -> GuestAssets:
    return asyncio.run(prepare_assets(cache_directory() / "guest", print))


def is_for_firecracker(item: pytest.Item) -> bool:
    return item.path.name.startswith("test_firecracker_")


def is_for_containers(item: pytest.Item) -> bool:
    return item.path.name.startswith("test_process_")


def is_for_cgroup2(item: pytest.Item) -> bool:
    return item.path.name.endswith("_unified.py")


@pytest.hookimpl(tryfirst=True)
def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Mark the contract's rows that say nothing about Firecracker as `nightly`.

    They test the agent, which is the same program in QEMU's guests, where every run tests it.
    """
    for item in items:
        is_row = item.path.name == "test_firecracker_contract.py"
        if is_row and item.get_closest_marker("transport") is None:
            item.add_marker("nightly")


@cache
def containers_may_run() -> bool:
    """Return whether this user may mount an overlay here, which a container's root needs."""
    if os.geteuid() != 0:
        return False
    with TemporaryDirectory() as directory:
        for name in ("lower", "upper", "work", "root"):
            Path(directory, name).mkdir()
        options = ",".join(
            f"{key}={directory}/{name}"
            for key, name in (("lowerdir", "lower"), ("upperdir", "upper"), ("workdir", "work"))
        )
        mount = ("mount", "-t", "overlay", "overlay", "-o", options, f"{directory}/root")
        done = subprocess.run(["unshare", "--mount", *mount], capture_output=True, check=False)
    return done.returncode == 0


def is_handed_on(item: pytest.Item) -> bool:
    """Return whether the test needs something that this machine lacks; KVM is probed once."""
    if INSIDE_VARIABLE in os.environ:
        return False
    if is_for_cgroup2(item) and not Path("/sys/fs/cgroup/cgroup.controllers").exists():
        return True
    if is_for_containers(item):
        return not containers_may_run()
    if not is_for_firecracker(item):
        return False
    if IS_NATIVE not in item.config.stash:
        item.config.stash[IS_NATIVE] = kvm_works()
    return not item.config.stash[IS_NATIVE]


def pytest_itemcollected(item: pytest.Item) -> None:
    """Mark tests that need KVM or cgroup version 2, by name: no probe runs at collection."""
    if is_for_firecracker(item) or is_for_cgroup2(item):
        item.add_marker("nested")


@pytest.hookimpl(tryfirst=True)
def pytest_runtest_protocol(item: pytest.Item, nextitem: pytest.Item | None) -> bool | None:
    """Hand a test on to a machine that has what it needs."""
    if not is_handed_on(item):
        return None
    hand_on(item, nextitem, partial(nested_machine, item.session))
    return True


def kvm_works() -> bool:
    """Return whether Firecracker's probe guest answers here, probed once per boot."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("PATH", str(cache_directory() / FIRECRACKER), prepend=os.pathsep)
        try:
            return asyncio.run(_picks_firecracker())
        except InfrastructureError:
            return False  # the tests will say what is missing


async def _picks_firecracker() -> bool:
    assets = await prepare_assets(cache_directory() / "guest", print)
    state = cache_directory() / "state"
    found = await pick_runtime(assets, accelerator="auto", clock=SystemClock(), state_dir=state)
    return isinstance(found, FirecrackerRuntime)


def nested_machine(session: pytest.Session) -> NestedMachine:
    """Return the session's machine, started at the first call; its failure fails every caller."""
    stash = session.config.stash
    if FAILURE in stash:
        raise AssertionError(stash[FAILURE])
    if NESTED not in stash:
        stash[FAILURE] = "the emulated machine did not start: see the first test that needed it"
        stash[NESTED] = start_nested_machine(session)
        del stash[FAILURE]
    return stash[NESTED]


def start_nested_machine(session: pytest.Session) -> NestedMachine:
    items = [i for i in session.items if is_handed_on(i)]
    if any("toolchain" in getattr(i, "fixturenames", ()) for i in items):
        with TemporaryDirectory() as directory:  # made here: there is no network there
            make_toolchain(Path(directory))
    directory = Path(mkdtemp(prefix="hpcc-nested-"))
    session.config.add_cleanup(partial(shutil.rmtree, directory, ignore_errors=True))
    machine = NestedMachine(directory, cache_directory(), prepared_assets())
    session.config.add_cleanup(machine.stop)
    machine.start([i.nodeid for i in items], session.config.rootpath)
    return machine


def make_toolchain(directory: Path) -> str:
    done = Machine(directory, cache_directory()).hpcc(
        "image", "build-debian", "--if-missing", "gcc", "g++", timeout=900
    )
    return done.stdout.strip().splitlines()[-1]


@pytest.fixture(scope="session")
def shared_cache() -> Path:
    """Return the cache of images and guest assets. Content names them, so runs share it."""
    return cache_directory()


@pytest.fixture(scope="session")
def toolchain(tmp_path_factory: pytest.TempPathFactory) -> str:
    """Return the pinned reference of a gcc image made from the distribution's packages."""
    return make_toolchain(tmp_path_factory.mktemp("image"))


@pytest.fixture(scope="session")
def firecracker_directory() -> Path:
    """Return the directory of the programs that tools/bootstrap.sh fetched."""
    return cache_directory() / FIRECRACKER


@pytest.fixture(scope="session")
def firecracker_tools(firecracker_directory: Path) -> FirecrackerTools:
    return asyncio.run(find_firecracker(str(firecracker_directory)))


@pytest.fixture(scope="session")
def assets() -> GuestAssets:
    return prepared_assets()


@pytest.fixture(scope="session")
def containerd() -> Iterator[ContainerdDaemon]:
    """Yield the tests' own containerd; at the end it must hold nothing that the tests made."""
    with containerd_daemon() as daemon:
        yield daemon
        left = daemon.leftovers()
    assert left == []


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
        has_mitigations=False,  # as in most farms; test_qemu_gcc.py has a guest with them
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
