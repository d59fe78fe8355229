"""A worker that is not root, with its helper: a real VMM and a real warden with own ids."""

from __future__ import annotations

import os
import pwd
import subprocess
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from hpcc.runtime.assets.assets import GuestAssets
from hpcc.wire.helper import FIRST_ID
from hpcc_testkit.guests.confinement import status_of, unconfined
from hpcc_testkit.guests.helped_worker import HelpedWorker, copied_assets, names_of_files
from hpcc_testkit.guests.worker_helper import worker_helper

pytestmark = [
    pytest.mark.vm,
    pytest.mark.timeout(400),
    pytest.mark.skipif(os.geteuid() != 0, reason="only root starts a helper"),
]
USER = "nobody"
UID = pwd.getpwnam(USER).pw_uid


@pytest.fixture
def home() -> Iterator[Path]:
    """A directory of the worker's user, which it can reach."""
    with tempfile.TemporaryDirectory() as name:
        os.chown(name, UID, -1)
        yield Path(name)


def children(pid: int) -> list[int]:
    return [int(p) for p in Path(f"/proc/{pid}/task/{pid}/children").read_text().split()]


def own_id(pid: int) -> int:
    """Return the one id that a process has as user and as group."""
    status = status_of(pid)
    (number,) = {*status["Uid"].split(), *status["Gid"].split()}
    assert set(status["Groups"].split()) <= {number}
    return int(number)


@pytest.mark.nightly
@pytest.mark.parametrize("kind", ["cold", "warm"])
def test_guests_of_a_worker_without_rights_have_own_ids_and_end_with_it(
    home: Path, assets: GuestAssets, kind: str
) -> None:
    theirs = copied_assets(assets, home)
    with (
        worker_helper(USER) as place,
        HelpedWorker(user=USER, place=place, home=home, kind=kind).started(theirs) as (
            process,
            said,
        ),
    ):
        assert "error" not in said, said
        vmm, zygote = int(str(said["vmm"])), int(str(said["zygote"]))
        (warden,) = children(zygote)
        assert bool(said["snapshot"]) is (kind == "warm")
        assert said["warden"] == "own-uid"
        assert {own_id(vmm), own_id(warden)}.isdisjoint({0, UID})
        assert own_id(vmm) != own_id(warden)
        assert min(own_id(vmm), own_id(warden)) >= FIRST_ID
        assert own_id(zygote) == own_id(process.pid) == UID
        found = unconfined(vmm, may_hold=names_of_files(vmm, home, theirs)).splitlines()
        # Nothing was delegated to this worker; a unit's is.
        assert [line for line in found if not line.startswith("no limit of")] == []
        end(process, is_killed=kind == "cold")
    until_gone(vmm, zygote, warden)
    if kind == "warm":
        assert list((home / "guests").iterdir()) == []


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
    home: Path, assets: GuestAssets
) -> None:
    worker = HelpedWorker(user=USER, place=home / "no-socket", home=home)
    with worker.started(copied_assets(assets, home)) as (_, said):
        assert "QEMU has no jail" in str(said["error"])
