"""pip builds a wheel for one platform from the tree, with a working `hpcc` in it."""

from __future__ import annotations

import os
import subprocess
import sys
import sysconfig
import tarfile
import venv
import zipfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from hpcc import __version__
from hpcc_testkit.cache.launcher import ROOT, launcher_environment, stop_daemon

pytest.importorskip("hatchling")
pytestmark = pytest.mark.timeout(180)


def run(*command: str | Path, cwd: Path, env: dict[str, str] | None = None) -> str:
    done = subprocess.run(
        command, cwd=cwd, env=env, capture_output=True, text=True, timeout=120, check=False
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


def pip(python: Path | str, *args: str | Path, cwd: Path) -> None:
    """Run this environment's pip for `python`, so that a new environment needs none."""
    flags = ("--no-deps", "--no-build-isolation", "--no-index", "-q", "--disable-pip-version-check")
    run(sys.executable, "-m", "pip", "--python", python, args[0], *flags, *args[1:], cwd=cwd)


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Build the wheel from the source distribution, so that both are known to be complete."""
    place = tmp_path_factory.mktemp("wheel")
    run(sys.executable, "-m", "hatchling", "build", "-t", "sdist", "-d", place, cwd=ROOT)
    with tarfile.open(next(place.glob("*.tar.gz"))) as archive:
        archive.extractall(place / "src", filter="data")
    pip(sys.executable, "wheel", "-w", place, next((place / "src").iterdir()), cwd=place)
    return next(place.glob("*.whl"))


@pytest.fixture
def python(tmp_path: Path) -> Path:
    """Make an environment with hpcc's dependencies and without hpcc."""
    venv.create(tmp_path / "venv", symlinks=True)
    made = tmp_path / "venv" / "bin" / "python"
    site = Path(
        run(made, "-c", "import site; print(site.getsitepackages()[0])", cwd=tmp_path).strip()
    )
    # A .pth inside that directory is not read again, so that an editable hpcc stays away.
    (site / "dependencies.pth").write_text(sysconfig.get_path("purelib") + "\n")
    return made


@pytest.fixture
def env(tmp_path: Path) -> Iterator[dict[str, str]]:
    made = launcher_environment(tmp_path / "h")
    made["PATH"] = f"{tmp_path}/venv/bin:{made['PATH']}"
    yield made
    stop_daemon(made)


def check_that_hpcc_works(python: Path, work: Path, env: dict[str, str]) -> None:
    (work / "a.c").write_text("int a;\n")
    assert run("hpcc", "--version", cwd=work, env=env) == f"hpcc {__version__}\n"
    run("hpcc", "gcc", "-c", "a.c", cwd=work, env=env)
    assert (work / "a.o").read_bytes()[:4] == b"\x7fELF"
    # Launcher and daemon are of one build, or the second would have been refused.
    (work / "a.o").unlink()
    run("hpcc", "gcc", "-c", "a.c", cwd=work, env=env)
    question = (
        "import os; from hpcc.config.paths import Paths; from hpcc.daemon.client import query; "
    )
    question += "print(query(Paths.from_env(os.environ), 'stats')['front'])"
    assert run(python, "-c", question, cwd=work, env=env) == "{'requests': 2}\n"


def test_the_wheel_is_for_this_platform_and_any_python(wheel: Path) -> None:
    platform = sysconfig.get_platform().replace("-", "_").replace(".", "_")
    assert wheel.name == f"hpcc-{__version__}-py3-none-{platform}.whl"
    with zipfile.ZipFile(wheel) as archive:
        names = archive.namelist()
        launcher = f"hpcc-{__version__}.data/scripts/hpcc"
        assert launcher in names
        assert archive.read(launcher)[:4] == b"\x7fELF"
        assert archive.getinfo(launcher).external_attr >> 16 & 0o111
    assert not any(name.startswith(("launcher/", "tests/", "tools/")) for name in names)


def test_an_installed_wheel_has_a_working_hpcc(
    wheel: Path, python: Path, tmp_path: Path, env: dict[str, str]
) -> None:
    pip(python, "install", wheel, cwd=tmp_path)
    check_that_hpcc_works(python, tmp_path, env)
    where = run(python, "-c", "import hpcc; print(hpcc.__file__)", cwd=tmp_path, env=env)
    assert where.startswith(str(tmp_path))


def test_an_editable_install_has_a_working_hpcc(
    python: Path, tmp_path: Path, env: dict[str, str]
) -> None:
    pip(python, "install", "-e", ROOT, cwd=tmp_path)
    check_that_hpcc_works(python, tmp_path, env)
    where = run(python, "-c", "import hpcc; print(hpcc.__file__)", cwd=tmp_path, env=env)
    assert where.startswith(str(ROOT))


def test_the_launcher_is_static_where_a_static_library_is(wheel: Path, tmp_path: Path) -> None:
    with zipfile.ZipFile(wheel) as archive:
        launcher = tmp_path / "hpcc"
        launcher.write_bytes(archive.read(f"hpcc-{__version__}.data/scripts/hpcc"))
    # The name of a dynamic loader is in every dynamic program.
    assert b"/ld-" not in launcher.read_bytes()
    assert os.stat(launcher).st_size < 200_000
