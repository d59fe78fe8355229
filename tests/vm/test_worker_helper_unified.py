"""A worker without rights whose unit's cgroup systemd delegated, with KVM: its VMM has limits.

It needs cgroup version 2. On another host it runs in an emulated machine that has it, and in which
/dev/kvm works (see conftest).
"""

from __future__ import annotations

import os
import pwd
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from hpcc.runtime.assets.assets import GuestAssets
from hpcc_testkit.guests.confinement import status_of, unconfined
from hpcc_testkit.guests.helped_worker import HelpedWorker, copied_assets, names_of_files
from hpcc_testkit.guests.nested import INSIDE_VARIABLE
from hpcc_testkit.guests.worker_helper import worker_helper

pytestmark = [
    pytest.mark.vm,
    pytest.mark.timeout(900),
    pytest.mark.skipif(os.geteuid() != 0, reason="only root starts a helper"),
]
USER = "nobody"
UID = pwd.getpwnam(USER).pw_uid
CGROUPS = Path("/sys/fs/cgroup")
KVM = Path("/dev/kvm")
_KVM_GROUP = 777


@contextmanager
def delegated() -> Iterator[Path]:
    """Yield the cgroup that a unit's processes start in, as `DelegateSubgroup=` makes it."""
    (CGROUPS / "cgroup.subtree_control").write_text("+memory +pids")
    unit = CGROUPS / f"unit-{os.getpid()}.service"
    own = unit / "worker"
    own.mkdir(parents=True)
    for place in (unit, own):
        names = ("", "cgroup.procs", "cgroup.threads", "cgroup.subtree_control")
        for name in names:
            os.chown(place / name, UID, -1)
    try:
        yield own
    finally:
        (unit / "cgroup.kill").write_text("1")
        for group in (own, unit / "hpcc", unit):
            if group.exists():
                group.rmdir()


def group_of_kvm() -> tuple[int, ...]:
    """Return the group that may use /dev/kvm, as udev sets it; the emulated machine has no udev."""
    if INSIDE_VARIABLE in os.environ:
        os.chown(KVM, 0, _KVM_GROUP)
        KVM.chmod(0o660)
    status = KVM.stat() if KVM.exists() else None
    return (status.st_gid,) if status is not None and status.st_mode & 0o060 == 0o060 else ()


def test_a_vmm_of_a_delegated_worker_is_confined_like_roots_and_leaves_nothing(
    assets: GuestAssets,
) -> None:
    groups = group_of_kvm()
    with (
        tempfile.TemporaryDirectory() as name,
        worker_helper(USER) as place,
        delegated() as cgroup,
    ):
        home = Path(name)
        os.chown(home, UID, -1)
        theirs = copied_assets(assets, home)
        worker = HelpedWorker(
            user=USER, place=place, home=home, groups=groups, cgroup=cgroup,
            accelerator="kvm" if groups else "tcg",
        )  # fmt: skip
        with worker.started(theirs) as (process, said):
            assert "error" not in said, said
            vmm = int(str(said["vmm"]))
            assert unconfined(vmm, may_hold=names_of_files(vmm, home, theirs)) == ""
            assert status_of(vmm)["Groups"].split() == [str(g) for g in groups]
            assert f"{cgroup.parent.name}/hpcc/" in Path(f"/proc/{vmm}/cgroup").read_text()
            assert process.stdin is not None
            process.stdin.close()
            assert process.wait(60) == 0
        assert not [g for g in cgroup.parent.glob("hpcc/*") if g.is_dir()]
