"""Firecracker's programs and what the machine must have: each error names its remedy."""

from __future__ import annotations

import os
from pathlib import Path
from types import SimpleNamespace

import pytest

from hpcc.core import CallerError, InfrastructureError
from hpcc.ports import SystemClock
from hpcc.runtime.assets.assets import GuestAssets
from hpcc.runtime.firecracker import tools
from hpcc.runtime.firecracker.tools import find_firecracker
from hpcc.runtime.registry.pick import pick_runtime


def programs(directory: Path, *, vmm: str = "1.12.1", jailer: str = "1.12.1") -> str:
    directory.mkdir()
    for name, said in (("firecracker", f"Firecracker v{vmm}"), ("jailer", f"Jailer v{jailer}")):
        (directory / name).write_text(f"#!/bin/sh\necho {said}\n")
        (directory / name).chmod(0o755)
    return str(directory)


async def test_both_are_found_with_version_and_digests(tmp_path: Path) -> None:
    found = await find_firecracker(programs(tmp_path / "bin"))
    assert found.version == "1.12.1"
    assert found.firecracker == tmp_path / "bin/firecracker"
    assert found.firecracker_digest.startswith("sha256:")
    assert found.jailer_digest != found.firecracker_digest


async def test_absent_programs_are_named_with_where_to_get_them(tmp_path: Path) -> None:
    path = programs(tmp_path / "bin")
    (tmp_path / "bin/jailer").unlink()
    with pytest.raises(InfrastructureError, match=r"jailer is not installed; install .*releases"):
        await find_firecracker(path)


async def test_programs_of_different_versions_are_refused(tmp_path: Path) -> None:
    with pytest.raises(InfrastructureError, match=r"is 1\.13\.0 and .* is 1\.12\.1"):
        await find_firecracker(programs(tmp_path / "bin", vmm="1.13.0"))


async def test_an_old_program_is_refused(tmp_path: Path) -> None:
    with pytest.raises(InfrastructureError, match="too old"):
        await find_firecracker(programs(tmp_path / "bin", vmm="1.7.0", jailer="1.7.0"))


@pytest.mark.parametrize("change", ["group", "others", "owner"])
async def test_a_program_that_others_can_change_is_never_run(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, change: str
) -> None:
    path = programs(tmp_path / "bin")
    if change == "owner":
        if not os.geteuid():
            os.chown(tmp_path / "bin/firecracker", 4321, -1)
        monkeypatch.setattr(os, "geteuid", lambda: 1234)
    else:
        (tmp_path / "bin/jailer").chmod(0o775 if change == "group" else 0o757)
    with pytest.raises(InfrastructureError, match="can be changed by others"):
        await find_firecracker(path)


def test_without_kvm_the_text_says_so(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(tools, "KVM", tmp_path / "absent")
    with pytest.raises(InfrastructureError, match="needs hardware virtualisation"):
        tools.check_machine(tmp_path)


def test_without_root_the_text_says_so(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(tools, "KVM", tmp_path)
    monkeypatch.setattr(os, "geteuid", lambda: 1000)
    with pytest.raises(InfrastructureError, match="only root may"):
        tools.check_machine(tmp_path)


@pytest.mark.parametrize(
    ("flag", "name"),
    [(os.ST_NODEV, "nodev"), (os.ST_NODEV | os.ST_NOEXEC, "nodev"), (os.ST_NOEXEC, "noexec")],
)
def test_a_jail_on_such_a_mount_is_refused(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, flag: int, name: str
) -> None:
    monkeypatch.setattr(tools, "KVM", tmp_path)
    monkeypatch.setattr(os, "geteuid", lambda: 0)
    monkeypatch.setattr(os, "statvfs", lambda _: SimpleNamespace(f_flag=flag))
    with pytest.raises(InfrastructureError, match=f"is mounted {name}"):
        tools.check_machine(tmp_path / "absent/guests")


@pytest.fixture
def assets(tmp_path: Path) -> GuestAssets:
    return GuestAssets(
        kernel=tmp_path, kernel_digest="", initramfs=tmp_path, initramfs_digest="", vmlinux=tmp_path,
        vmlinux_digest="", vsock_initramfs=tmp_path, agent_drive=tmp_path, agent_digest="",
        firmware=None,
    )  # fmt: skip


async def test_firecracker_that_was_asked_for_is_never_replaced(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, assets: GuestAssets
) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(InfrastructureError, match="firecracker is not installed"):
        await pick_runtime(
            assets, accelerator="auto", state_dir=tmp_path, clock=SystemClock(),
            backend="firecracker",
        )  # fmt: skip


async def test_firecracker_without_kvm_is_a_contradiction(
    tmp_path: Path, assets: GuestAssets
) -> None:
    with pytest.raises(CallerError, match="needs KVM"):
        await pick_runtime(
            assets,
            accelerator="tcg",
            state_dir=tmp_path,
            clock=SystemClock(),
            backend="firecracker",
        )
