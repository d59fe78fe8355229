"""The contents of the wheel for Windows, built here. Installing it has not yet run on Windows."""

from __future__ import annotations

import os
import struct
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest

from hpcc import __version__
from hpcc_testkit.cache.launcher import ROOT

pytestmark = pytest.mark.timeout(400)
_X86_64 = 0x8664


def build(directory: Path, target: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "hatchling", "build", "-t", "wheel", "-d", str(directory)],
        cwd=ROOT, env={**os.environ, "HPCC_TARGET": target}, check=False,
        capture_output=True, text=True, timeout=300,
    )  # fmt: skip


def machine(program: bytes) -> int:
    """Return the machine type of a PE file (PE format, "COFF File Header")."""
    assert program[:2] == b"MZ"
    (at,) = struct.unpack_from("<I", program, 0x3C)
    assert program[at : at + 4] == b"PE\0\0"
    (found,) = struct.unpack_from("<H", program, at + 4)
    return int(found)


def test_the_windows_wheel_has_windows_programs_and_no_others(tmp_path: Path) -> None:
    done = build(tmp_path, "win_amd64")
    assert done.returncode == 0, done.stderr
    wheel = tmp_path / f"hpcc-{__version__}-py3-none-win_amd64.whl"
    with zipfile.ZipFile(wheel) as archive:
        programs = [
            f"hpcc-{__version__}.data/scripts/hpcc.exe",
            f"hpcc-{__version__}.data/scripts/hpcc-service.exe",
            "hpcc/runtime/_guest/hpcc-agent.exe",
        ]
        for name in programs:
            assert machine(archive.read(name)) == _X86_64
        for name in programs[:2]:  # paths of more than 260 characters, UTF-8, a version
            data = archive.read(name)
            assert data.count(b">true</longPathAware>") == 1
            assert data.count(b">UTF-8</activeCodePage>") == 1
            for text in ("FileVersion", "ProductVersion"):
                assert f"{text}\0".encode("utf-16-le") in data
            assert data.count(f"{__version__}\0".encode("utf-16-le")) == 2
            assert Path(name).name.encode("utf-16-le") in data
        starts = {name: archive.open(name).read(4) for name in archive.namelist()}
        assert [name for name, start in starts.items() if start == b"\x7fELF"] == []
        assert [name for name in starts if name.endswith(".so")] == []
        points = archive.read(f"hpcc-{__version__}.dist-info/entry_points.txt").decode()
    assert "hpcc-cli" in points


def test_an_unknown_target_is_refused(tmp_path: Path) -> None:
    done = build(tmp_path, "win_arm64")
    assert done.returncode != 0
    assert "win_amd64" in done.stderr
    assert list(tmp_path.iterdir()) == []
