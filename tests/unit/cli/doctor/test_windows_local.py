"""The lines of `hpcc doctor` on Windows, from a disk in memory and an environment."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

from hpcc.cli.doctor import windows_local
from hpcc.cli.doctor.check import DoctorCheck
from hpcc.cli.doctor.windows_local import WINDOWS_CHECKS, WindowsView
from hpcc.config.paths import Paths
from hpcc_testkit.windows.memory_disk import OWNER, MemoryDisk

HOME, CHECKOUT = "C:\\u", "C:\\u\\p"
MARKER = CHECKOUT + "\\.hpcc"
# As the launcher in C has it, between other bytes.
LAUNCHER = b"MZ..." + "\\\\.\\pipe\\hpcc-".encode("utf-16-le") + b"..."


def view(disk: MemoryDisk, **env: str) -> WindowsView:
    return WindowsView(
        env={"USERPROFILE": HOME, "USERNAME": "ann", **env}, cwd=CHECKOUT + "\\sub", disk=disk,
        owner=OWNER, is_raised=False,
    )  # fmt: skip


@pytest.fixture
def disk() -> MemoryDisk:
    made = MemoryDisk(now=1_000)
    made.put(CHECKOUT + "\\sub\\x.c")
    return made


def complete(check: DoctorCheck) -> bool:
    """Tell whether a line that is not ok says what that costs and what to do."""
    return check.state == "ok" or bool(check.cost and check.remedy)


def programs(directory: Path, **content: bytes) -> dict[str, str]:
    for name, data in content.items():
        (directory / name).write_bytes(data)
        (directory / name).chmod(0o755)
    return {"PATH": str(directory)}


def test_a_prompt_without_a_compiler_or_its_headers(disk: MemoryDisk, tmp_path: Path) -> None:
    nothing = windows_local.compilers(view(disk, PATH=str(tmp_path)))
    assert nothing.state == "missing"
    assert "Developer PowerShell" in nothing.remedy
    path = programs(tmp_path, cl=b"MZ")
    bare = windows_local.compilers(view(disk, **path))
    assert bare.state == "degraded"
    assert "INCLUDE" in bare.detail
    assert complete(bare)
    assert windows_local.compilers(view(disk, INCLUDE="C:\\sdk", **path)).state == "ok"
    assert nothing.is_local
    assert complete(nothing)


def test_only_the_launcher_in_c_is_good(disk: MemoryDisk, tmp_path: Path) -> None:
    scripts = tmp_path / "Scripts"
    absent = windows_local.launcher(view(disk, PATH=str(tmp_path)), scripts)
    assert absent.state == "missing"
    assert complete(absent)
    scripts.mkdir()
    (scripts / "hpcc.exe").touch()
    off_path = windows_local.launcher(view(disk, PATH=str(tmp_path)), scripts)
    assert off_path.remedy == f"put {scripts} on PATH"
    slow = windows_local.launcher(view(disk, **programs(tmp_path, hpcc=b"MZ pip's")), scripts)
    assert slow.state == "degraded"
    assert complete(slow)
    good = windows_local.launcher(view(disk, **programs(tmp_path, hpcc=LAUNCHER)), scripts)
    assert (good.state, good.detail) == ("ok", str(tmp_path / "hpcc"))


def test_a_file_system_without_a_time_of_change_keeps_no_result(disk: MemoryDisk) -> None:
    here = view(disk)
    assert windows_local.file_system(here).state == "ok"
    disk.changed[here.cwd.lower()] = 1_000, 0
    for bad in (
        windows_local.file_system(here),
        windows_local.file_system(replace(here, cwd="E:\\x")),
    ):
        assert bad.state == "degraded"
        assert complete(bad)


def test_sharing_names_the_checkout_or_why_its_marker_does_not_count(disk: MemoryDisk) -> None:
    here = view(disk)
    assert windows_local.sharing(here).detail == "off: no .hpcc above this directory"
    disk.put(MARKER, b'name = "game"\n')
    good = windows_local.sharing(here)
    assert (good.state, good.detail) == (
        "ok", f"between checkouts with a .hpcc: {CHECKOUT} (game)",
    )  # fmt: skip
    told = []
    for spoil in (
        lambda: disk.owners.update({MARKER: "S-1-5-21-9"}),
        lambda: disk.put(MARKER, b"exclude = 3\n"),
        lambda: disk.odd.add(MARKER),
    ):
        spoil()
        told.append(windows_local.sharing(here))
        disk.owners.clear()
    assert [MARKER in check.detail for check in told] == [True] * 3
    assert "S-1-5-21-9" in told[0].detail
    assert "is a link" in told[2].detail
    disk.odd.clear()
    disk.put(MARKER)
    disk.reals = {here.cwd.upper(): here.cwd, "S:\\": CHECKOUT}
    told.append(windows_local.sharing(replace(here, cwd=here.cwd.upper())))
    told.append(windows_local.sharing(replace(here, cwd="S:\\")))
    told.append(windows_local.sharing(replace(here, cwd="\\\\server\\share")))
    assert all(check.state == "degraded" and complete(check) for check in told)


def test_an_elevated_prompt_is_told_that_nothing_is_cached(disk: MemoryDisk) -> None:
    assert windows_local.user(view(disk)).detail == f"ann ({OWNER})"
    raised = windows_local.user(replace(view(disk), is_raised=True))
    assert raised.state == "degraded"
    assert "bypass.elevated-daemon" in raised.cost


async def test_a_remote_cache_is_not_used_there_yet(tmp_path: Path) -> None:
    paths = Paths.from_env({"HPCC_DIR": str(tmp_path)}, uid=1)
    assert (await WINDOWS_CHECKS["remote cache"](paths)).state == "ok"
    paths.config_file.parent.mkdir(parents=True, exist_ok=True)
    paths.config_file.write_text('[cache.remote]\nurl = "https://cache.example"\n')
    told = await WINDOWS_CHECKS["remote cache"](paths)
    assert told.state == "degraded"
    assert "https://cache.example" in told.detail
    assert complete(told)
