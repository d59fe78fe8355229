"""The parts of tools/packages that need no build: wheels, versions, entries, scripts, settings."""

from __future__ import annotations

import hashlib
import os
import re
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest

# Behind PYTHONPATH, where a mutation row puts another copy.
sys.path.append(str(Path(__file__).resolve().parents[3] / "tools"))

from packages import layout, scripts, wheels
from packages.build import Request, newest_glibc
from packages.entries import Entry, EntryError, checked, write
from packages.table import BEFORE_PYTHON, PACKAGES, PYTHONS
from release.dsse import RefusedError

from hpcc.config.extras import MODULES
from hpcc.config.service_file import parse_service_file
from hpcc.core import CallerError
from hpcc.gateway.config import GatewayConfig
from hpcc.scheduler.base.config import SchedulerConfig
from hpcc.worker.base.config import WorkerConfig
from hpcc_testkit.operate.page import read_page

ROOT = Path(__file__).resolve().parents[3]
_SOURCE = layout.Source(root=ROOT, wheel=Path(), libraries=Path(), epoch=0)
_SERVICES = {"scheduler": SchedulerConfig, "gateway": GatewayConfig, "worker": WorkerConfig}


def _wheel(directory: Path, tag: str, files: dict[str, str], name: str = "lib") -> str:
    """Write a wheel; return its digest."""
    path = directory / f"{name}-1.0-{tag}.whl"
    with zipfile.ZipFile(path, "w") as archive:
        for file, text in files.items():
            archive.writestr(file, text)
    return hashlib.sha256(path.read_bytes()).hexdigest()


def _lock(*digests: str) -> str:
    lines = [f"    --hash=sha256:{digest}" for digest in digests]
    return "lib==1.0 \\\n" + " \\\n".join(lines) + "\n    # via hpcc (pyproject.toml)\n"


def test_a_wheel_for_every_python_and_those_for_one_have_their_places(tmp_path: Path) -> None:
    _wheel(tmp_path, "cp311-abi3-manylinux_2_28_x86_64", {"lib/a.py": ""})
    (found,) = wheels.read(tmp_path, _lock(*_digests(tmp_path)))
    assert found.site == "usr/lib/hpcc/python"
    (tmp_path / "several").mkdir()
    for python in PYTHONS:
        tag = f"cp{python.replace('.', '')}"
        _wheel(tmp_path / "several", f"{tag}-{tag}-manylinux_2_28_x86_64", {f"lib/{tag}.so": ""})
    found = wheels.read(tmp_path / "several", _lock(*_digests(tmp_path / "several")))
    assert [w.site for w in found] == [f"usr/lib/hpcc/lib/python{v}/site-packages" for v in PYTHONS]
    # One of them is missing.
    found[1].path.unlink()
    with pytest.raises(RefusedError, match=r"lib has wheels for \['3.12', '3.14'\]"):
        wheels.read(tmp_path / "several", _lock(*_digests(tmp_path / "several")))


@pytest.mark.parametrize(
    ("tag", "python"),
    [
        ("py2.py3-none-any", ""),
        ("py3-none-manylinux_2_28_x86_64", ""),
        ("cp312-abi3-manylinux_2_28_x86_64", ""),
        # Not for 3.12, so that the pin is refused as one that lacks a Python.
        ("cp313-abi3-manylinux_2_28_x86_64", "3.13"),
        ("cp313-cp313-manylinux_2_28_x86_64", "3.13"),
    ],
)
def test_a_tag_says_which_pythons_a_wheel_fits(tmp_path: Path, tag: str, python: str) -> None:
    _wheel(tmp_path, tag, {})
    lock = _lock(*_digests(tmp_path))
    if python:
        with pytest.raises(RefusedError, match=re.escape(f"lib has wheels for ['{python}']")):
            wheels.read(tmp_path, lock)
    else:
        assert [wheel.python for wheel in wheels.read(tmp_path, lock)] == [""]


def test_a_wheel_for_another_interpreter_is_refused(tmp_path: Path) -> None:
    _wheel(tmp_path, "pp311-pypy311_pp73-manylinux_2_28_x86_64", {})
    with pytest.raises(RefusedError, match="for no version of Python"):
        wheels.read(tmp_path, _lock(*_digests(tmp_path)))


def _digests(directory: Path) -> list[str]:
    return [hashlib.sha256(file.read_bytes()).hexdigest() for file in directory.glob("*.whl")]


def test_a_wheel_that_the_lock_file_does_not_have_is_refused(tmp_path: Path) -> None:
    digest = _wheel(tmp_path, "py3-none-any", {"lib/a.py": ""})
    assert wheels.read(tmp_path, _lock("0" * 64, digest))
    with pytest.raises(RefusedError, match="has a digest that is not in"):
        wheels.read(tmp_path, _lock("0" * 64))
    _wheel(tmp_path, "py3-none-any", {}, name="planted")
    with pytest.raises(RefusedError, match=r"planted-1\.0-py3-none-any\.whl is not in"):
        wheels.read(tmp_path, _lock(digest))


def test_a_library_is_unpacked_unchanged_with_its_installer(tmp_path: Path) -> None:
    files = {"lib/a.py": "a", "lib-1.0.dist-info/METADATA": "m", "lib-1.0.dist-info/RECORD": "r"}
    digest = _wheel(tmp_path, "py3-none-any", files)
    found = {e.name: e for e in wheels.unpacked(wheels.read(tmp_path, _lock(digest)), "deb")}
    place = "usr/lib/hpcc/python/"
    installer = found.pop(f"{place}lib-1.0.dist-info/INSTALLER")
    assert installer.content == b"deb\n"
    assert {n: (e.content or b"").decode() for n, e in found.items()} == {
        place + name: text for name, text in files.items()
    }
    digest = _wheel(tmp_path, "py3-none-any", {"lib-1.0.data/scripts/run": ""})
    with pytest.raises(RefusedError, match="which no package installs"):
        list(wheels.unpacked(wheels.read(tmp_path, _lock(digest)), "deb"))


def test_the_packages_of_the_extras_share_the_lock_file_out() -> None:
    project, lock = (ROOT / "pyproject.toml").read_text(), (ROOT / wheels.LOCK).read_text()
    client, farm = (wheels.of_extra(extra, project, lock) for extra in ("client", "farm"))
    assert not client & farm
    assert client | farm == {pin.name for pin in wheels.read_lock(lock)}
    # By the modules that each extra is looked for by.
    assert {"grpcio", "cryptography", "cffi", "idna"} <= client
    assert {*MODULES["farm"]} | {"hpack", "multidict", "pygments"} <= farm


@pytest.mark.parametrize(
    ("version", "upstream"),
    [("0.1.0", "0.1.0"), ("1.2", "1.2"), ("0.2.0rc1", "0.2.0~rc1"), ("1.0.dev3", "1.0~dev3")],
)
def test_a_candidate_is_before_its_release(version: str, upstream: str, tmp_path: Path) -> None:
    request = Request(package=PACKAGES[0], source=_SOURCE, version=version, out=tmp_path)
    assert request.full == f"{upstream}-1"
    if "~" in upstream:
        release = upstream.partition("~")[0]
        command = ["dpkg", "--compare-versions", request.full, "lt", f"{release}-1"]
        assert subprocess.run(command, check=False).returncode == 0


def test_a_version_that_no_package_manager_orders_is_refused(tmp_path: Path) -> None:
    for version in ("1.0+local", "", "1.0 2", "a"):
        with pytest.raises(RefusedError):
            _ = Request(package=PACKAGES[0], source=_SOURCE, version=version, out=tmp_path).full


def test_entries_have_one_name_each_below_the_root() -> None:
    for name in ("", "/etc/x", "a/../b", "./a"):
        with pytest.raises(EntryError):
            checked([Entry(name, b"")])
    with pytest.raises(EntryError):
        checked([Entry("a", b""), Entry("a", b"x")])
    assert [e.name for e in checked([Entry("b", b""), Entry("a", target="b")])] == ["a", "b"]


def test_entries_are_written_with_their_modes_and_one_time(tmp_path: Path) -> None:
    write(
        [Entry("a/b", b"x", 0o600), Entry("c", mode=0o700), Entry("d", target="a/b")],
        tmp_path / "root",
        1000,
    )
    root = tmp_path / "root"
    assert [f"{(root / n).stat().st_mode & 0o7777:o}" for n in ("a", "a/b", "c")] == [
        "755", "600", "700",
    ]  # fmt: skip
    assert {p.lstat().st_mtime for p in root.rglob("*")} == {1000.0}


def test_the_newest_glibc_is_the_newest_that_a_program_names() -> None:
    elf = b"\x7fELF..GLIBC_2.4\0GLIBC_2.33\0GLIBC_2.5\0"
    assert newest_glibc([Entry("a", elf), Entry("b", b"GLIBC_2.99\0"), Entry("c")]) == 33
    assert newest_glibc([Entry("b", b"text")]) == 0


@pytest.mark.parametrize("package", PACKAGES, ids=lambda p: p.name)
@pytest.mark.parametrize("of", [scripts.of_deb, scripts.of_rpm])
def test_each_script_is_a_shell_script_without_open_words(package: object, of: object) -> None:
    for name, text in of(package, _SOURCE).items():  # type: ignore[operator]  # one of two functions
        assert not re.search(r"@[A-Z]+@", text), name
        done = subprocess.run(["sh", "-n"], input=text, text=True, capture_output=True, check=False)
        assert (done.returncode, done.stderr) == (0, ""), name
        # Nothing of an operator's or a person's is ever deleted.
        removed = [line.strip() for line in text.splitlines() if re.search(r"\brm\b", line)]
        assert {*removed} <= {
            "find /usr/lib/hpcc -name __pycache__ -type d -prune -exec rm -rf {} + 2>/dev/null || :",
            'rm -f "$file"',
        }


def test_an_installation_gives_nothing_away_through_a_link(tmp_path: Path) -> None:
    """What a user of an earlier installation left in its directory may lead anywhere."""
    package = next(p for p in PACKAGES if p.service == "worker")
    etc, tools = tmp_path / "etc/worker", tmp_path / "tools"
    etc.mkdir(parents=True)
    tools.mkdir()
    for name in ("systemd-sysusers", "systemctl"):
        (tools / name).write_text("#!/bin/sh\n")
        (tools / name).chmod(0o755)
    # Who follows this link finds nothing, and fails.
    (etc / "worker.json").symlink_to(tmp_path / "elsewhere")
    script = scripts.of_deb(package, _SOURCE)["postinst"]
    script = script.replace("/etc/hpcc", str(etc.parent))
    script = script.replace(" hpcc-worker: ", f" {os.getuid()}:{os.getgid()} ")
    done = subprocess.run(
        ["sh", "-s", "--", "configure", ""], input=script, text=True, capture_output=True,
        check=False, env={"PATH": f"{tools}:{os.environ['PATH']}"},
    )  # fmt: skip
    assert (done.returncode, done.stderr) == (0, "")


@pytest.mark.parametrize("name", _SERVICES)
def test_each_template_is_what_the_page_shows_and_has_known_keys(name: str) -> None:
    text = (ROOT / f"deploy/packages/{name}.json").read_text()
    page = read_page((ROOT / "docs/operate.md").read_text())
    (shown,) = (f[f"{name}.json"] for block in page.blocks if f"{name}.json" in (f := block.files))
    for variable, value in page.site.items():
        shown = shown.replace(f"${variable}", value)
    # What the commands of the page look up.
    shown = shown.replace("${IMAGE#*@}", "sha256:…")
    certificate = "-----BEGIN CERTIFICATE-----\\n…\\n-----END CERTIFICATE-----\\n"
    assert text == re.sub(r"\$\(awk .*?\)(?=\")", lambda _: certificate, shown)
    try:
        parse_service_file(text.encode(), _SERVICES[name], source=name)
    except CallerError as error:
        # A worker's digests and certificates cannot be known here.
        assert "unknown key" not in str(error)
        assert "missing" not in str(error)


@pytest.mark.parametrize("name", _SERVICES)
def test_each_service_has_the_lines_for_its_user_only(name: str) -> None:
    for kind in ("sysusers", "tmpfiles"):
        part = layout.part_of((ROOT / f"deploy/systemd/hpcc.{kind}").read_text(), name)
        others = {f"hpcc-{other}" for other in _SERVICES} - {f"hpcc-{name}"}
        assert f"hpcc-{name}" in part
        assert not [other for other in others if other in part]
    users = layout.part_of((ROOT / "deploy/systemd/hpcc.sysusers").read_text(), name)
    assert ("m hpcc-worker    kvm" in users) is (name == "worker")


def test_the_bounds_of_python_are_those_of_the_wheels() -> None:
    newest = int(PYTHONS[-1].partition(".")[2])
    assert f"3.{newest + 1}" == BEFORE_PYTHON
    assert [f"3.{n}" for n in range(12, newest + 1)] == [*PYTHONS]
    project = (ROOT / "pyproject.toml").read_text()
    assert f'requires-python = ">={PYTHONS[0]}"' in project


def test_each_unit_of_a_package_starts_what_the_package_brings() -> None:
    for package in PACKAGES:
        for entry in layout.entries(package, _SOURCE, "deb") if package.service else ():
            if entry.name.endswith(".service"):
                text = (entry.content or b"").decode()
                assert "/opt/hpcc" not in text
                assert re.search(r"^ExecStart=/usr/lib/hpcc/bin/(hpcc|python) ", text, re.M)
