"""pip builds a wheel for one platform from the tree, with a working `hpcc` in it.

Without an extra it is the local cache and brings no other package.
"""

from __future__ import annotations

import asyncio
import importlib.metadata
import json
import os
import subprocess
import sys
import sysconfig
import tarfile
import venv
import zipfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

from hpcc import __version__
from hpcc.cli.main import build_parser
from hpcc.config.private_file import write_private_file
from hpcc.daemon.client import query
from hpcc_testkit.cache.launcher import ROOT, counters, launcher_environment, paths_of, stop_daemon
from hpcc_testkit.farm.connections import connected
from hpcc_testkit.farm.in_process import farm_under_test

pytest.importorskip("hatchling")
pytestmark = pytest.mark.timeout(180)

# Runs commands in one process, because starting Python for each costs more than they do.
_DRIVER = """
import contextlib, io, json, sys
from hpcc.cli.main import main
ended = []
for argv in json.load(sys.stdin):
    out, errors = io.StringIO(), io.StringIO()
    with contextlib.redirect_stdout(out), contextlib.redirect_stderr(errors):
        ended.append((main(argv), out, errors))
json.dump([(code, out.getvalue(), errors.getvalue()) for code, out, errors in ended], sys.stdout)
"""
# Every command of the command line is in one of these.
_LOCAL = (
    ["start"], ["status"], ["stats"], ["stats", "--format", "prometheus"], ["explain", "a.o"],
    ["inspect", "a.o"], ["builds"], ["report"], ["trace", "-o", "trace.json"], ["config", "show"],
    ["config", "path"], ["doctor"], ["doctor", "--json"], ["jobs"], ["completion", "bash"],
    ["debug-map"], ["wrap", "true"], ["clean"], ["stop"], ["down"],
)  # fmt: skip
_OF_CLIENT = (
    ["login", "farm.toml"], ["logout"], ["whoami"], ["token"], ["farm", "status"],
    ["cache", "status"], ["cache", "flush"], ["cache", "keygen", "k"], ["cache", "trust"],
    ["cache", "revoke", "k"], ["pack", "push"], ["pack", "pull"], ["pack", "status"],
    ["pack", "list"], ["attest", "a"], ["verify-evidence", "e", "a", "--key", "k"],
)  # fmt: skip
_OF_FARM = (
    ["up"], ["image", "list"], ["image", "build-debian", "gcc"], ["image", "pull", "x"],
    ["assets", "verify"], ["audit", "list"], ["audit", "verify"], ["audit", "coverage", "a"],
    ["audit", "sources", "r"],
    ["audit", "hold", "list"], ["audit", "retire", "--before", "9d", "--key", "k", "--reason", "r"],
    ["scheduler", "--config", "s"], ["scheduler", "migrate", "--config", "s"],
    ["worker", "--config", "w"],
    ["gateway", "--config", "g"], ["selftest", "windows"], ["tenants", "show", "--config", "s"],
    ["windows-agent", "--python", "z", "--sha256", "0", "out"],
)  # fmt: skip


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
    with using(tmp_path / "venv" / "bin" / "python", tmp_path) as made:
        yield made


@pytest.fixture
def bare_env(bare: Path, tmp_path: Path) -> Iterator[dict[str, str]]:
    with using(bare, tmp_path) as made:
        yield made


def bare_environment(directory: Path, wheel: Path) -> Path:
    """Make an environment with hpcc and what it requires; return its Python."""
    venv.create(directory / "venv", symlinks=True)
    python = directory / "venv" / "bin" / "python"
    add_with_dependencies(python, wheel, directory)
    return python


@pytest.fixture(scope="module")
def bare(wheel: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Install hpcc without an extra, for tests that add nothing."""
    return bare_environment(tmp_path_factory.mktemp("bare"), wheel)


@contextmanager
def using(python: Path, directory: Path) -> Iterator[dict[str, str]]:
    """Yield a user's environment with that installation on the PATH."""
    made = launcher_environment(directory / "h")
    made["PATH"] = f"{python.parent}:{made['PATH']}"
    try:
        yield made
    finally:
        stop_daemon(made)


def site_of(python: Path) -> Path:
    return next(python.parents[1].glob("lib/python3*/site-packages"))


def add_with_dependencies(python: Path, what: str | Path, cwd: Path) -> None:
    """Run pip as a user does, where no index is, and no package but those that are there."""
    flags = ("install", "--no-index", "-q", "--disable-pip-version-check")
    env = {"PATH": os.environ["PATH"], "PIP_CONFIG_FILE": os.devnull}
    run(sys.executable, "-m", "pip", "--python", python, *flags, what, cwd=cwd, env=env)


def lend(python: Path, extra: str) -> None:
    """Put what an extra of the installed hpcc requires into its environment, and no more."""
    site, waiting, done = site_of(python), [("hpcc", extra)], set()
    while waiting:
        name, wanted = waiting.pop()
        if (name, wanted) in done:
            continue
        done.add((name, wanted))
        place = [str(site)] if name == "hpcc" else sys.path
        found = next(iter(importlib.metadata.distributions(name=name, path=place)))
        for line in found.requires or ():
            need = Requirement(line)
            if need.marker is None or need.marker.evaluate({"extra": wanted}):
                name_of = canonicalize_name(need.name)
                waiting += [(name_of, word) for word in ("", *need.extras)]
        tops = {file.parts[0] for file in found.files or ()} - {"..", "__pycache__", "hpcc"}
        for top in tops if name != "hpcc" else ():
            if not (site / top).exists():
                (site / top).symlink_to(str(found.locate_file(top)))


def packages(python: Path) -> list[str]:
    found = importlib.metadata.distributions(path=[str(site_of(python))])
    return sorted({canonicalize_name(d.metadata["Name"]) for d in found})


def commands(
    python: Path, argvs: tuple[list[str], ...], work: Path, env: dict[str, str]
) -> dict[str, tuple[int, str, str]]:
    """Run commands; return code, output and errors of each."""
    done = subprocess.run(
        [python, "-c", _DRIVER], input=json.dumps(argvs), cwd=work, env=env, capture_output=True,
        text=True, timeout=120, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stdout + done.stderr
    return {" ".join(a): tuple(e) for a, e in zip(argvs, json.loads(done.stdout), strict=True)}


def needs(argv: list[str], extra: str, python: Path) -> tuple[int, str, str]:
    """Return what a command answers that lacks its extra, in an environment without pip."""
    add = f"`uv pip install --python {python} 'hpcc[{extra}]'`"
    return (
        2,
        "",
        f"hpcc: `hpcc {argv[0]}` needs hpcc[{extra}], which is not installed; add it with {add}\n",
    )


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


def test_without_an_extra_it_is_the_local_cache_and_brings_no_package(
    bare: Path, tmp_path: Path, bare_env: dict[str, str]
) -> None:
    env = bare_env
    assert packages(bare) == ["hpcc"]
    check_that_hpcc_works(bare, tmp_path, env)
    tried = {argv[0] for argv in (*_LOCAL, *_OF_CLIENT, *_OF_FARM)} | {"web"}
    groups = build_parser()._subparsers
    assert groups is not None
    assert tried == {str(name) for name in groups._group_actions[0].choices or ()}
    ended = commands(bare, (*_LOCAL, *_OF_CLIENT, *_OF_FARM), tmp_path, env)
    failed = {name: ended[name] for name in map(" ".join, _LOCAL) if ended[name][0]}
    # There is no checkout here that one could map, and the other is the launcher's.
    assert [*failed] == ["debug-map", "wrap true"]
    assert failed["debug-map"][2].startswith("hpcc: . is not in a checkout that shares results")
    assert "guests        hpcc[farm] is not installed" in ended["doctor"][1]
    assert "local cache:  works" in ended["doctor"][1]
    with subprocess.Popen(
        ["hpcc", "web", "--local"], cwd=tmp_path, env=env, stdout=subprocess.PIPE, text=True
    ) as pages:
        assert pages.stdout is not None
        shown = pages.stdout.readline()
        pages.terminate()
    assert "http://127.0.0.1:" in shown
    for extra, argvs in (("client", _OF_CLIENT), ("farm", _OF_FARM)):
        for argv in argvs:
            assert ended[" ".join(argv)] == needs(argv, extra, bare)
    # Also by way of the launcher.
    done = subprocess.run(
        ["hpcc", "up"], cwd=tmp_path, env=env, capture_output=True, text=True, check=False
    )
    assert (done.returncode, done.stdout, done.stderr) == needs(["up"], "farm", bare)


def test_a_farm_and_a_bucket_without_the_client_cost_no_compile(
    bare: Path, tmp_path: Path, bare_env: dict[str, str]
) -> None:
    env = bare_env
    paths = paths_of(env)
    for file in (paths.farm_file, paths.config_file):
        file.parent.mkdir(parents=True, exist_ok=True)
    write_private_file(paths.farm_file, connected(tmp_path)[0].farm.to_json().encode())
    paths.config_file.write_text('[cache.remote]\nurl = "https://cache.acme.example/c"\n')
    (tmp_path / "a.c").write_text("int a;\n")
    for _ in range(2):
        run("hpcc", "gcc", "-c", "a.c", cwd=tmp_path, env=env)
        (tmp_path / "a.o").unlink()
    counted = counters(env)
    assert counted["fallback.no-client"] == 2
    assert counted["remote-cache.failed.no-client"] == 1
    assert counted["miss.local"] == counted["hit.local"] == 1
    assert query(paths, "status")["farm"]
    ended = commands(bare, (["doctor"], ["jobs"], ["explain", "a.c"], ["clean"]), tmp_path, env)
    assert {code for code, _, _ in ended.values()} == {0}
    assert "missing   extras        a farm needs hpcc[client]\n" in ended["doctor"][1]
    assert ended["jobs"][1] == f"{len(os.sched_getaffinity(0))}\n"
    assert "a farm needs hpcc[client], which is not installed; add it with `uv" in ended["jobs"][2]
    assert "  not on farm   no-client" in ended["explain a.c"][1]


async def test_the_extra_client_compiles_on_a_farm_and_runs_none(
    wheel: Path, tmp_path: Path, env: dict[str, str]
) -> None:
    python = await asyncio.to_thread(bare_environment, tmp_path, wheel)
    await asyncio.to_thread(lend, python, "client")
    # The named command: hpcc itself is taken from what is installed, for there is no index.
    await asyncio.to_thread(add_with_dependencies, python, "hpcc[client]", tmp_path)
    assert {"grpcio", "cryptography"} < {*packages(python)}
    assert not {"asyncpg", "grpclib", "h2", "rich"} & {*packages(python)}
    work = tmp_path / "work"
    work.mkdir()
    (work / "a.c").write_text("int a;\n")
    async with farm_under_test(tmp_path / "farm") as farm, farm.serving():
        paths = paths_of(env)
        paths.farm_file.parent.mkdir(parents=True)
        write_private_file(paths.farm_file, farm.farm("ann").to_json().encode())
        await asyncio.to_thread(run, "hpcc", "gcc", "-c", "a.c", cwd=work, env=env)
        counted = await asyncio.to_thread(counters, env)
    assert counted["miss.remote.executed"] == 1
    assert not [name for name in counted if name.startswith(("fallback.", "bypass."))]
    argvs = (["cache", "keygen", "k"], ["cache", "status"], ["doctor"], ["image", "list"])
    ended = await asyncio.to_thread(commands, python, argvs, work, env)
    assert ended["cache keygen k"][0] == ended["doctor"][0] == 0
    assert ended["cache status"][2].startswith("hpcc: there is no remote cache")
    assert ended["image list"] == needs(["image"], "farm", python)
