"""Another program than QEMU in QEMU's jail: what it is and sees, by /proc. It starts at once.

`tests/vm/test_qemu_lifecycle.py` asks the same of a VMM. QEMU's filter of system calls is its own.
"""

from __future__ import annotations

import os
import re
import select
import subprocess
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from hpcc.runtime.host.users import VMM_NUMBERS, VmmUser, vmm_user
from hpcc.runtime.qemu.jail import Jailing, QemuJail, jail_argv
from hpcc_testkit.guests.confinement import status_of, unconfined

pytestmark = [
    pytest.mark.skipif(os.geteuid() != 0, reason="only root makes this jail"),
    pytest.mark.timeout(60),
]
PROGRAM = "/bin/sleep"
# A group of the worker, which the program must not have.
ADM = 4
NOBODY = 65_534
# The group that opens /dev/kvm, where udev gave the device one.
_KVM = [*map(str, vmm_user(0).groups)]
# It is in no cgroup here, and only QEMU filters its calls.
QEMUS = {
    "no filter of system calls",
    "no limit of memory (memory.limit_in_bytes)", "no limit of pids (pids.max)",
}  # fmt: skip


def sleeps(pid: int) -> bool:
    """Tell whether the program waits: its loader, which opens libraries, has ended."""
    before = status_of(pid)
    time.sleep(0.05)
    now = status_of(pid)
    names = ("Name", "State", "voluntary_ctxt_switches", "nonvoluntary_ctxt_switches")
    is_still = all(before[name] == now[name] for name in names)
    return is_still and now["Name"] == "sleep" and now["State"].startswith("S")


@contextmanager
def jailed(
    tmp_path: Path, as_user: int | None = None
) -> Iterator[tuple[int, subprocess.Popen[bytes]]]:
    """Run a program in the jail; yield its number, and the process that starts it.

    With `as_user` the worker is that user, without any right.
    """
    libraries = re.findall(r"(/\S+) \(0x", subprocess.check_output(["ldd", PROGRAM], text=True))
    reader, writer = os.pipe()
    (tmp_path / "root").mkdir()
    (tmp_path / "memory").touch()
    for made in (tmp_path / "root", tmp_path / "memory"):
        os.chown(made, -1 if as_user is None else as_user, -1)
    number = VMM_NUMBERS.take()
    jailing = Jailing(
        jail=QemuJail(PROGRAM, (PROGRAM, *libraries)), root=tmp_path / "root",
        argv=[PROGRAM, "600"], user=vmm_user(number) if as_user is None else VmmUser(None, ()),
        status_fd=writer,
        guest_files=[("/kernel", Path("/etc/passwd"), False), ("/m", tmp_path / "memory", True)],
    )  # fmt: skip
    none = subprocess.DEVNULL
    process = subprocess.Popen(
        jail_argv(jailing), pass_fds=(writer,), stdin=none, stdout=none, stderr=none,
        extra_groups=[ADM], user=as_user, group=as_user,
    )  # fmt: skip
    os.close(writer)
    try:
        # The processes in front of it hold the pipe open, so there is no end to wait for.
        pid = int(os.read(reader, 32))
        while not sleeps(pid):
            time.sleep(0.01)
        yield pid, process
    finally:
        process.kill()
        process.wait()
        os.close(reader)
        VMM_NUMBERS.give_back(number)


def test_a_program_in_the_jail_has_nothing_of_the_host(tmp_path: Path) -> None:
    with jailed(tmp_path) as (pid, _):
        found = unconfined(pid, may_hold=frozenset()).splitlines()
        status = status_of(pid)
        names = {path.name for path in Path(f"/proc/{pid}/root").iterdir()}
    assert set(found) - QEMUS == set()
    assert int(status["CapBnd"], 16) == 0
    assert status["Groups"].split() == _KVM
    assert {"etc", "proc", "sys", "home"} & names == set()


def test_its_files_are_read_only_but_the_templates_memory(tmp_path: Path) -> None:
    with jailed(tmp_path) as (pid, _):
        lines = Path(f"/proc/{pid}/mountinfo").read_text().splitlines()
    options = {line.split()[4]: line.split()[5].split(",") for line in lines}
    assert [
        place for place, words in options.items() if "rw" in words and "/dev/" not in place
    ] == ["/m"]
    assert "ro" in options["/"]
    assert all("nosuid" in words for words in options.values())
    assert all("nodev" in words for place, words in options.items() if "/dev/" not in place)


def test_its_user_namespace_has_its_own_number_and_no_other(tmp_path: Path) -> None:
    with jailed(tmp_path) as (pid, _):
        uid = status_of(pid)["Uid"].split()[0]
        maps = [Path(f"/proc/{pid}/{kind}_map").read_text().split() for kind in ("uid", "gid")]
    groups = [word for group in _KVM for word in (group, group, "1")]
    assert maps == [[uid, uid, "1"], [*groups, uid, uid, "1"]]


def test_it_ends_with_the_process_that_started_it(tmp_path: Path) -> None:
    with jailed(tmp_path) as (pid, starter):
        fd = os.pidfd_open(pid)
        starter.kill()
        assert select.select([fd], [], [], 20)[0], "it runs on"
        os.close(fd)


def test_a_user_without_rights_gives_it_none() -> None:
    with tempfile.TemporaryDirectory() as name:
        place = Path(name)
        os.chown(place, NOBODY, NOBODY)
        with jailed(place, NOBODY) as (pid, _):
            found = set(unconfined(pid, may_hold=frozenset()).splitlines())
    assert found - QEMUS == {f"uid {NOBODY}\t{NOBODY}\t{NOBODY}\t{NOBODY}"}
