"""Real projects: the scanned tree of each compile holds every file that `-M` names."""

from __future__ import annotations

import fcntl
import os
import shutil
import subprocess
import tarfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from hpcc_testkit.cache.closures import ClosureAudit, audit_closures
from hpcc_testkit.cache.launcher import ROOT

pytestmark = pytest.mark.timeout(400)

_CACHE = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "hpcc-tests/sources"
_DRIVERS = {".c": ("gcc", "clang"), ".cc": ("g++", "clang++"), ".cpp": ("g++", "clang++")}
# Source package, where make runs, which files, flags.
_PROJECTS = {
    "lua5.4": ("src", "src/*.c", ["-std=gnu99", "-O2", "-DLUA_USE_POSIX"]),
    "zlib": (".", "[acdgtuz]*.c", ["-O2"]),
    "fmtlib": (".", "src/*s.cc", ["-std=c++17", "-Iinclude"]),
}


@pytest.fixture(scope="module")
def audit(tmp_path_factory: pytest.TempPathFactory) -> Iterator[ClosureAudit]:
    with audit_closures(tmp_path_factory.mktemp("client")) as audit:
        yield audit


def _unpacked(package: str, directory: Path) -> Path:
    """Unpack a distribution's source package; the download is kept for the next run."""
    home = _CACHE / package
    home.mkdir(parents=True, exist_ok=True)
    with (home / "lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if not list(home.glob("*.orig.tar.*")):
            fetch = [ROOT / "tools/fetch_source.sh", "--upstream", package, home]
            subprocess.run(fetch, check=True, capture_output=True, timeout=300)
    archives = [p for p in home.glob("*.orig.tar.*") if p.suffix != ".asc"]
    with tarfile.open(archives[0]) as archive:
        archive.extractall(directory, filter="data")
    return next(p for p in directory.resolve().iterdir() if p.is_dir())


@pytest.mark.parametrize("package", _PROJECTS)
def test_a_real_projects_trees_hold_all_that_the_compilers_name(
    package: str, tmp_path: Path, audit: ClosureAudit
) -> None:
    if os.environ.get("HPCC_TEST_DEBIAN") == "1":
        root = _unpacked(package, tmp_path)
        below, pattern, flags = _PROJECTS[package]
    else:  # without the network: hpcc's C sources
        root = tmp_path.resolve()
        shutil.copytree(ROOT / "native", root / "native")
        below, pattern, flags = "native", "native/*.c", ["-D_GNU_SOURCE"]
    (root / ".hpcc").touch()
    audit.forget()
    sources = sorted(root.glob(pattern))
    commands = 0
    for source in sources:
        for driver in _DRIVERS[source.suffix]:
            argv = (driver, *flags, "-c", os.path.relpath(source, root / below), "-o", "x.o")
            audit.check(root, (root / below).resolve(), argv)
            commands += 1
    assert commands >= 2
    assert audit.scanned == commands, audit.asked
