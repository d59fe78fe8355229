"""Each thing that a container needs from the host, tested separately."""

from __future__ import annotations

import asyncio
import os
import socket
import stat
import subprocess
import sys
from pathlib import Path

import pytest

from hpcc.core import InfrastructureError
from hpcc.runtime.host.leftovers import is_owner_alive, owner_of
from hpcc.runtime.host.tools import ToolError
from hpcc.runtime.runc.host import (
    AgentSocket,
    GuestPlaces,
    PidHandle,
    cgroups_of,
    check_machine,
    daemon_of,
    groups_of_container,
    has_file_system,
    rootfs,
)
from hpcc.runtime.runc.tools import version_numbers

EROFS = bytes(1024) + bytes.fromhex("e2e1f5e0") + bytes(4096)


@pytest.fixture
def places(tmp_path: Path) -> GuestPlaces:
    places = GuestPlaces(tmp_path)
    places.make()
    return places


def image(directory: Path, name: str, content: bytes) -> Path:
    path = directory / name
    path.write_bytes(content)
    return path


def test_the_root_is_the_image_with_mount_points_over_it_and_the_agent_in_it(
    places: GuestPlaces, tmp_path: Path
) -> None:
    base, drive = image(tmp_path, "i", EROFS), image(tmp_path, "d", EROFS)
    first, layer, agent = rootfs(places, base, drive, by_loop=False)
    assert (first.kind, first.source, first.target) == ("erofs", str(base), "")
    assert (layer.kind, layer.target) == ("overlay", "")
    assert layer.options[0] == "lowerdir=rootfs"
    assert {"nosuid", "nodev"} <= set(layer.options)
    assert (agent.kind, agent.source, agent.target) == ("erofs", str(drive), ".hpcc")
    for mount in (first, agent):
        assert {"ro", "nosuid", "nodev"} == set(mount.options)
    assert {p.name for p in places.upper.iterdir()} >= {"proc", "src", "out", ".hpcc", "var"}
    assert stat.S_ISFIFO(places.log.stat().st_mode)


def test_a_strict_umask_does_not_lock_the_containers_root_out(tmp_path: Path) -> None:
    before = os.umask(0o077)
    try:
        places = GuestPlaces(tmp_path)
        places.make()
    finally:
        os.umask(before)
    paths = [places.upper, places.link, *places.upper.rglob("*")]
    assert {p.stat().st_mode & 0o777 for p in paths} == {0o755}


def test_where_the_kernel_mounts_no_files_a_loop_device_is_asked_for(
    places: GuestPlaces, tmp_path: Path
) -> None:
    base, drive = image(tmp_path, "i", b"hsqs" + bytes(4096)), image(tmp_path, "d", EROFS)
    mounts = rootfs(places, base, drive, by_loop=False)
    assert [m.kind for m in mounts] == ["squashfs", "overlay", "erofs"]
    assert ["loop" in m.options for m in mounts] == [True, False, False]
    mounts = rootfs(places, base, drive, by_loop=True)
    assert ["loop" in m.options for m in mounts] == [True, False, True]


def test_a_file_that_is_no_image_is_not_handed_on(places: GuestPlaces, tmp_path: Path) -> None:
    drive = image(tmp_path, "d", EROFS)
    with pytest.raises(ToolError):
        rootfs(places, image(tmp_path, "i", bytes(4096)), drive, by_loop=False)


def test_the_groups_of_a_process_are_where_its_kernel_says() -> None:
    for group in cgroups_of(os.getpid()):
        assert str(os.getpid()) in (group / "cgroup.procs").read_text().split()


async def test_only_the_containers_root_may_connect(places: GuestPlaces) -> None:
    listener = AgentSocket(places, os.geteuid())
    with socket.socket(socket.AF_UNIX) as guest:
        guest.connect(str(places.link / "agent"))
        connection = await listener.accept()
        connection.close()
    assert list(places.link.iterdir()) == []


async def test_another_user_is_refused(places: GuestPlaces) -> None:
    listener = AgentSocket(places, os.geteuid() + 1)
    with socket.socket(socket.AF_UNIX) as guest:
        guest.connect(str(places.link / "agent"))
        with pytest.raises(InfrastructureError, match="not the container's root"):
            async with asyncio.timeout(10):
                await listener.accept()


async def test_a_long_directory_name_is_no_obstacle(tmp_path: Path) -> None:
    directory = tmp_path / ("x" * 100) / "guest"
    directory.mkdir(parents=True)
    places = GuestPlaces(directory)
    places.make()
    listener = AgentSocket(places, 0)
    assert (places.link / "agent").is_socket()
    listener.close()


def test_a_process_handle_kills_that_process_and_no_later_one() -> None:
    child = subprocess.Popen(["sleep", "600"])
    handle = PidHandle(child.pid)
    handle.kill()
    assert child.wait(timeout=10) == -9
    handle.kill()
    handle.close()
    handle.close()


def test_nobody_at_the_socket_is_said_with_the_remedy(tmp_path: Path) -> None:
    with pytest.raises(ToolError, match="apt-get install containerd runc"):
        daemon_of(tmp_path / "absent.sock")


def test_who_listens_is_found_by_the_socket(tmp_path: Path) -> None:
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind(str(tmp_path / "s"))
        listener.listen(1)
        found = daemon_of(tmp_path / "s", owner=os.geteuid())
        assert found.samefile(sys.executable)


def test_a_daemon_of_another_user_is_not_believed(tmp_path: Path) -> None:
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind(str(tmp_path / "s"))
        listener.listen(1)
        with pytest.raises(ToolError, match="has uid"):
            daemon_of(tmp_path / "s", owner=os.geteuid() + 1)


def test_a_group_that_was_not_made_for_the_container_is_not_given_to_it(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    places = [Path("/g/memory/hpcc/c-1"), Path("/g/unified/system.slice/containerd.service")]
    monkeypatch.setattr("hpcc.runtime.runc.host.cgroups_of", lambda _: places)
    assert groups_of_container(1, "c-1") == places[:1]


@pytest.mark.parametrize(
    ("text", "numbers"),
    [("1.7.24~ds1", (1, 7)), ("v2.1.0", (2, 1)), ("2.3.4", (2, 3)), ("", (0,)), ("x.y", (0,))],
)
def test_versions_are_read_as_far_as_they_are_compared(text: str, numbers: tuple[int, ...]) -> None:
    assert version_numbers(text) == numbers


def test_an_owner_is_a_process_and_its_start() -> None:
    owner = owner_of(os.getpid())
    assert is_owner_alive(owner)
    pid, _, started = owner.partition(".")
    for other in (f"{pid}.{int(started) + 1}", "", "1", "x.y", f"{pid}.", f".{started}"):
        assert not is_owner_alive(other)


def test_a_file_system_is_looked_for_among_modules_too(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    assert has_file_system("proc")
    assert not has_file_system("no-such-fs")
    monkeypatch.setattr("platform.release", lambda: str(tmp_path))
    (tmp_path / "modules.dep").write_text("kernel/fs/some-fs/some-fs.ko.xz: kernel/lib/x.ko.xz\n")
    assert has_file_system("some-fs")
    assert not has_file_system("some")


@pytest.mark.parametrize(
    ("name", "value", "says"),
    [
        ("os.geteuid", lambda: 1000, "run the worker as root"),
        ("shutil.which", lambda _: None, "apt-get install runc"),
        ("hpcc.runtime.runc.host.has_file_system", lambda n: n != "overlay", "overlay; use a"),
        ("hpcc.runtime.runc.host._limit_of_user_namespaces", lambda: 0, "sysctl user.max_user"),
        ("hpcc.runtime.runc.host._missing_controllers", lambda: ["pids"], "for pids"),
    ],
)
def test_what_is_missing_is_said_with_the_remedy(
    monkeypatch: pytest.MonkeyPatch, name: str, value: object, says: str
) -> None:
    monkeypatch.setattr("os.geteuid", lambda: 0)
    monkeypatch.setattr("shutil.which", lambda _: "/bin/sh")
    for piece, answer in (
        ("has_file_system", lambda _: True),
        ("_limit_of_user_namespaces", lambda: 1),
        ("_missing_controllers", list),
    ):
        monkeypatch.setattr(f"hpcc.runtime.runc.host.{piece}", answer)
    assert check_machine("runc") == Path("/bin/sh").resolve()
    monkeypatch.setattr(name, value)
    with pytest.raises(InfrastructureError, match=says):
        check_machine("runc")


@pytest.mark.parametrize("change", ["mode", "owner"])
def test_a_runc_that_others_can_change_is_never_run(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, change: str
) -> None:
    program = image(tmp_path, "runc", b"")
    program.chmod(0o777 if change == "mode" else 0o755)
    if change == "owner" and not os.geteuid():
        os.chown(program, 4321, -1)
    monkeypatch.setattr("os.geteuid", lambda: 0)
    monkeypatch.setattr("shutil.which", lambda _: str(program))
    with pytest.raises(ToolError, match="can be changed by others"):
        check_machine("runc")
