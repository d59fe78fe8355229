"""A real C++ project for Windows (MinGW's headers) through clang-cl: every object, miss and hit."""

from __future__ import annotations

import subprocess
import tarfile
from pathlib import Path

import pytest

from hpcc_testkit.cache.cl_bench import ClBench
from hpcc_testkit.cache.compiles import run_bare

pytestmark = pytest.mark.timeout(600)
ROOT = Path(__file__).parents[3]
_FLAGS = (
    "/nologo",
    "/c",
    "/EHsc",
    "/O1",
    "/Iinclude",
    "/Brepro",
    "/showIncludes",
    "--target=x86_64-w64-windows-gnu",
)


@pytest.fixture(scope="session")
def fmt(shared_cache: Path) -> Path:
    """Return fmt's sources, from the distribution."""
    directory = shared_cache / "sources" / "fmtlib"
    if not list(directory.glob("*.tar.*")):
        script = ROOT / "tools/fetch_source.sh"
        subprocess.run([script, "--upstream", "fmtlib", directory], check=True, timeout=300)
    return next(iter(sorted(directory.glob("*.orig.tar.*"))))


@pytest.mark.nightly
def test_a_projects_objects_are_the_bare_ones_and_then_come_from_the_cache(
    bench: ClBench, fmt: Path
) -> None:
    with tarfile.open(fmt) as archive:
        archive.extractall(bench.cwd, filter="data")
    (bench.cwd,) = bench.cwd.iterdir()
    bench.launcher.cwd = bench.cwd
    units = ["src/format.cc", "src/os.cc", "test/detect-stdfs.cc", "test/header-only-test.cc"]
    units = [
        u
        for u in units
        if not run_bare(("clang-cl", *_FLAGS, u, "/Foz.obj"), cwd=bench.cwd, env=bench.env)[0]
    ]
    assert {"src/format.cc", "src/os.cc"} <= set(units)
    for number, unit in enumerate(units):
        bench.age(bench.cwd / unit)
        bench.twice(*_FLAGS, unit, f"/Foout{number}.obj", output=f"out{number}.obj")
    counters = bench.cache.counters()
    assert counters["miss.local"] == len(units) == counters["hit.local"]
    assert not [name for name in counters if name.startswith(("bypass.", "uncacheable."))]
