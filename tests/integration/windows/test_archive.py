"""The zip for Windows that tools/packages builds: contents, refusals, equal bytes, a run under Wine."""

from __future__ import annotations

import hashlib
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest

from hpcc import __version__
from hpcc_testkit.cache.launcher import ROOT
from hpcc_testkit.windows.agent import drive_c, windows_python
from hpcc_testkit.windows.wine import Wine

from .test_wheel import build as build_wheel

sys.path.append(str(ROOT / "tools"))

from packages.windows import Archive, build
from release.dsse import RefusedError
from ruamel.yaml import YAML

pytestmark = pytest.mark.timeout(600)
EPOCH = 1_790_000_000
URL = "https://example.invalid/hpcc.zip"


@pytest.fixture(scope="module")
def archive(tmp_path_factory: pytest.TempPathFactory) -> Archive:
    """Return the archive of this tree, with the tests' CPython in the form of python.org's zip."""
    directory = tmp_path_factory.mktemp("archive")
    done = build_wheel(directory, "win_amd64")
    assert done.returncode == 0, done.stderr
    python = directory / "python-embed.zip"
    with zipfile.ZipFile(python, "w", zipfile.ZIP_DEFLATED) as made:
        for path in sorted(windows_python().rglob("*")):
            if path.is_file() and "__pycache__" not in path.parts:
                made.write(path, str(path.relative_to(windows_python())))
    return Archive(
        root=ROOT,
        wheel=directory / f"hpcc-{__version__}-py3-none-win_amd64.whl",
        python=python,
        python_sha256=hashlib.sha256(python.read_bytes()).hexdigest(),
        epoch=EPOCH,
        url=URL,
    )


def changed(archive: Archive, **fields: object) -> Archive:
    known = {name: getattr(archive, name) for name in Archive.__slots__}
    return Archive(**(known | fields))


def test_two_builds_are_equal_and_the_manifest_names_the_bytes(
    archive: Archive, tmp_path: Path
) -> None:
    one, two = build(archive, tmp_path / "one"), build(archive, tmp_path / "two")
    assert [path.read_bytes() for path in one] == [path.read_bytes() for path in two]
    with zipfile.ZipFile(one[0]) as made:
        names = made.namelist()
        assert names == sorted(names)
        assert {info.date_time for info in made.infolist()} == {(2026, 9, 21, 14, 13, 20)}
        assert {
            *("hpcc.exe", "hpcc-cli.exe", "hpcc-service.exe", "python.exe", "LICENSE"),
            *("lib/hpcc/__init__.py", "lib/hpcc/runtime/_guest/hpcc-agent.exe"),
        } <= {*names}
        assert made.read("python313._pth") == b"python313.zip\n.\nlib\n"
        assert [name for name in names if name.endswith((".pyc", ".so"))] == []
    version, installer, locale = (YAML(typ="safe").load(p.read_text()) for p in one[1:])
    assert installer["Installers"][0]["InstallerUrl"] == URL
    digest = hashlib.sha256(one[0].read_bytes()).hexdigest()
    assert installer["Installers"][0]["InstallerSha256"] == digest.upper()
    assert {m["PackageVersion"] for m in (version, installer, locale)} == {__version__}


def test_what_is_not_what_it_should_be_is_refused(archive: Archive, tmp_path: Path) -> None:
    linux = archive.wheel.with_name(f"hpcc-{__version__}-py3-none-linux_x86_64.whl")
    foreign = tmp_path / "libraries"
    foreign.mkdir()
    (foreign / "grpcio-1.0-cp313-cp313-win_amd64.whl").write_bytes(b"other")
    no_python = tmp_path / "empty.zip"
    zipfile.ZipFile(no_python, "w").close()
    digest = hashlib.sha256(no_python.read_bytes()).hexdigest()
    for wrong, said in (
        (changed(archive, wheel=linux), "not for Windows"),
        (changed(archive, python_sha256="0" * 64), "another digest"),
        (changed(archive, python=no_python, python_sha256=digest), "no embeddable"),
        (changed(archive, libraries=foreign), "not the wheel"),
        (changed(archive, url='https://x/"\nEvil: 1'), "not an https URL"),
    ):
        with pytest.raises(RefusedError, match=said):
            build(wrong, tmp_path / "out")


def test_the_programs_of_the_archive_run(archive: Archive, wine: Wine, tmp_path: Path) -> None:
    place = drive_c(wine) / "tools" / "hpcc from zip"
    with zipfile.ZipFile(build(archive, tmp_path)[0]) as made:
        made.extractall(place)
    wine.env["HPCC_DIR"] = "C:\\hpcc-zip"
    try:
        shown = wine.run(place / "hpcc.exe", "--version", cwd=tmp_path)
        assert shown.stdout.split() == [b"hpcc", __version__.encode()], shown
        shown = wine.run(place / "hpcc-cli.exe", "config", "a b", cwd=tmp_path)
        assert shown.returncode == 2, shown
        assert b"a b" in shown.stderr
        (place / "python.exe").unlink()
        shown = wine.run(place / "hpcc-cli.exe", "status", cwd=tmp_path)
        assert shown.returncode == 127
        assert b"install hpcc again" in shown.stderr
    finally:
        del wine.env["HPCC_DIR"]


def test_the_command_builds_it(archive: Archive, tmp_path: Path) -> None:
    command = [
        *(sys.executable, "-m", "packages", "windows", "--wheel", str(archive.wheel)),
        *("--python", str(archive.python), "--sha256", archive.python_sha256),
        *("--out", str(tmp_path), "--epoch", str(EPOCH)),
    ]
    done = subprocess.run(
        command, env={"PYTHONPATH": str(ROOT / "tools"), "PATH": "/usr/bin:/bin"},
        capture_output=True, text=True, timeout=300, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    assert [path.name for path in tmp_path.iterdir()] == [f"hpcc-{__version__}-windows-x64.zip"]
