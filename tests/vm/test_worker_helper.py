"""A worker that is not root, with its helper: a real VMM and a real warden with own ids."""

from __future__ import annotations

import json
import os
import pickle
import pwd
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import fields, replace
from pathlib import Path

import pytest

from hpcc.runtime.assets.assets import GuestAssets
from hpcc.wire.helper import FIRST_ID
from hpcc_testkit.guests.confinement import status_of, unconfined
from hpcc_testkit.guests.worker_helper import as_user, worker_environment, worker_helper

pytestmark = [
    pytest.mark.vm,
    pytest.mark.timeout(400),
    pytest.mark.skipif(os.geteuid() != 0, reason="only root starts a helper"),
]
USER = "nobody"
UID = pwd.getpwnam(USER).pw_uid
# A worker as far as a guest needs one. It says what runs, and ends when its input does.
WORKER = """
import asyncio, json, pathlib, pickle, sys
from hpcc.ports import GuestBootError, SystemClock
from hpcc.runtime.assets.assets import probe_spec
from hpcc.runtime.channel.warden import process_zygote
from hpcc.runtime.qemu.backend import QemuConfig, QemuRuntime
from hpcc.runtime.vm.warm import WarmStart, open_store

async def main(assets, home):
    config = QemuConfig(accelerator="tcg", directory=home / "guests")
    spec = probe_spec(assets, 300.0)
    if sys.argv[1] == "cold":
        async with QemuRuntime(config, assets, SystemClock()).guest(spec) as guest:
            await show(guest)
        return
    async def note(name, fields):
        print(json.dumps([name, dict(fields)]), flush=True)
    async with WarmStart(open_store(home), SystemClock(), note) as warm:
        runtime = QemuRuntime(config, assets, SystemClock(), warm)
        async with runtime.guest(spec):
            await warm.settle()
        async with runtime.guest(spec) as guest:
            await show(guest)

async def show(guest):
    said = {"vmm": guest.vmm_pid, "zygote": process_zygote().pid, "warden": guest.identity.warden,
            "snapshot": guest.identity.snapshot_digest}
    print(json.dumps(said), flush=True)
    await asyncio.to_thread(sys.stdin.read)

data = pickle.load(sys.stdin.buffer)
try:
    asyncio.run(main(*data))
except GuestBootError as error:
    print(json.dumps({"error": str(error)}), flush=True)
"""


@pytest.fixture
def home() -> Iterator[Path]:
    """A directory of the worker's user, which it can reach."""
    with tempfile.TemporaryDirectory() as name:
        os.chown(name, UID, -1)
        yield Path(name)


@pytest.fixture
def their_assets(assets: GuestAssets, home: Path) -> GuestAssets:
    """The guest's files where the worker's user can read them."""
    paths = {f.name: getattr(assets, f.name) for f in fields(assets)}
    ours = {n: p for n, p in paths.items() if isinstance(p, Path) and n != "firmware"}
    copies = {n: home / n for n in ours}
    for name, path in ours.items():
        shutil.copyfile(path, copies[name])
    return replace(assets, **copies)  # type: ignore[arg-type]  # none of these is text


@contextmanager
def worker(
    kind: str, place: Path, home: Path, assets: GuestAssets
) -> Iterator[tuple[subprocess.Popen[bytes], dict[str, object]]]:
    with subprocess.Popen(
        [sys.executable, "-B", "-c", WORKER, kind], cwd="/",
        stdin=subprocess.PIPE, stdout=subprocess.PIPE, env=worker_environment(place, home),
        **as_user(USER),  # type: ignore[call-overload]  # a mapping
    ) as process:  # fmt: skip
        assert process.stdin is not None
        assert process.stdout is not None
        try:
            pickle.dump((assets, home), process.stdin)
            process.stdin.flush()
            yield process, json.loads(process.stdout.readline())
        finally:
            process.kill()


def children(pid: int) -> list[int]:
    return [int(p) for p in Path(f"/proc/{pid}/task/{pid}/children").read_text().split()]


def own_id(pid: int) -> int:
    """Return the one id that a process has as user and as group."""
    status = status_of(pid)
    (number,) = {*status["Uid"].split(), *status["Gid"].split()}
    assert set(status["Groups"].split()) <= {number}
    return int(number)


@pytest.mark.parametrize("kind", ["cold", "warm"])
def test_guests_of_a_worker_without_rights_have_own_ids_and_end_with_it(
    home: Path, their_assets: GuestAssets, kind: str
) -> None:
    with worker_helper(USER) as place, worker(kind, place, home, their_assets) as (process, said):
        assert "error" not in said, said
        vmm, zygote = int(str(said["vmm"])), int(str(said["zygote"]))
        (warden,) = children(zygote)
        assert bool(said["snapshot"]) is (kind == "warm")
        assert said["warden"] == "own-uid"
        assert {own_id(vmm), own_id(warden)}.isdisjoint({0, UID})
        assert own_id(vmm) != own_id(warden)
        assert min(own_id(vmm), own_id(warden)) >= FIRST_ID
        assert own_id(zygote) == own_id(process.pid) == UID
        held = (their_assets.kernel, their_assets.initramfs, their_assets.agent_drive)
        names = frozenset({*(p.name for p in held), *memory_of(vmm, home), "state"})
        found = unconfined(vmm, may_hold=names).splitlines()
        # Nothing was delegated to this worker; a unit's is.
        assert [line for line in found if not line.startswith("no limit of")] == []
        end(process, is_killed=kind == "cold")
    until_gone(vmm, zygote, warden)
    if kind == "warm":
        assert list((home / "guests").iterdir()) == []


def memory_of(vmm: int, home: Path) -> list[str]:
    """Return how a VMM names the snapshot's memory, which it opens by a name in its jail."""
    kept = [path.stat().st_ino for path in home.glob("snapshots/*/memory")]
    fds = list(Path(f"/proc/{vmm}/fd").iterdir())
    return [os.readlink(fd) for fd in fds if fd.stat().st_ino in kept]


def end(process: subprocess.Popen[bytes], *, is_killed: bool) -> None:
    if is_killed:
        process.kill()
        return
    assert process.stdin is not None
    process.stdin.close()
    assert process.wait(60) == 0


def until_gone(*pids: int) -> None:
    """Wait until processes have ended; a zombie has."""
    deadline = time.monotonic() + 60
    while left := [pid for pid in pids if is_alive(pid)]:
        assert time.monotonic() < deadline, left
        time.sleep(0.02)


def is_alive(pid: int) -> bool:
    try:
        return not status_of(pid)["State"].startswith("Z")
    except OSError:
        return False


def test_without_the_helper_that_it_was_promised_there_is_no_guest(
    home: Path, their_assets: GuestAssets
) -> None:
    with worker("cold", home / "no-socket", home, their_assets) as (_, said):
        assert "QEMU has no jail" in str(said["error"])
