"""The daemon in a CPython for Windows under Wine: it listens, answers, counts and stops."""

from __future__ import annotations

import asyncio
import json
import shutil
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from hpcc.config.private_file import write_private_file
from hpcc.core import Toolchain
from hpcc.runtime.windows.layers.layer import build_windows_layer
from hpcc_testkit.cache.compiles import FARM, farm_session
from hpcc_testkit.cache.launcher import ROOT, build_windows_launcher, wait_until
from hpcc_testkit.farm.in_process import IMAGE, farm_under_test
from hpcc_testkit.services.identity_provider import (
    CLIENT,
    RealProvider,
    missing_or_none,
    real_provider,
)
from hpcc_testkit.windows.agent import drive_c, windows_packages, windows_python
from hpcc_testkit.windows.image import windows_image
from hpcc_testkit.windows.wine import Wine, cross_build

pytestmark = pytest.mark.timeout(500)
IMAGE_NAME = "registry.example/msvc@sha256:" + "a" * 64
# Says what it is and what it reads, as cl would, and compiles nothing.
_COMPILER = r"""
#include <stdio.h>
#include <string.h>
int main(int argc, char **argv) {
    for (int i = 1; i < argc; i++) {
        if (!strcmp(argv[i], "-EP"))
            return puts("HPCC_PROBE cl 193833130\nHPCC_BUILD 0\nHPCC_TARGET x64") < 0;
        if (!strcmp(argv[i], "-Foempty.obj")) return 0;
        if (!strcmp(argv[i], "-sourceDependencies")) {
            FILE *file = fopen(argv[i + 1], "wb");
            fputs("{\"Version\":\"1.1\",\"Data\":{\"Source\":\"..\\\\x.c\",\"Includes\":[\"..\\\\inc\\\\h.h\"]}}", file);
            return fclose(file);
        }
    }
    printf("compiled");
    return 3;
}
"""

_TENANTS = """
[tenants.acme]
images = ["{image}"]
minimum_isolation = "local/none"
guest_reuse = "exec"
[tenants.acme.identity]
issuer = "{issuer}"
audience = "{client}"
client_ids = ["{client}"]
"""


class Desk:
    """A Windows prefix with hpcc's sources in its Python, and the launcher beside a compiler."""

    def __init__(self, wine: Wine, directory: Path) -> None:
        self.wine, self.directory = wine, directory
        self.cwd = directory
        self.home = drive_c(wine) / "hpcc-home"
        self.python = directory / "python/python.exe"

    @contextmanager
    def daemon(self) -> Iterator[None]:
        """Run the daemon while the block runs, and end it as a user does."""
        command = (self.python, "-B", "-m", "hpcc.daemon")
        with self.wine.start(*command, cwd=self.directory) as daemon:
            try:
                wait_until(lambda: self.hpcc("status").returncode == 0, timeout_seconds=120)
                yield
                assert self.hpcc("stop").stdout.split() == b"the daemon is stopped".split()
                assert daemon.wait(60) == 0
            finally:
                daemon.kill()

    def hpcc(self, *arguments: str) -> subprocess.CompletedProcess[bytes]:
        return self.wine.run(self.python, "-B", "-m", "hpcc.cli", *arguments, cwd=self.directory)

    def compile(self, *argv: str) -> subprocess.CompletedProcess[bytes]:
        cl = "Z:" + str(self.directory / "cl.exe").replace("/", "\\")
        return self.wine.run(self.directory / "hpcc.exe", "wrap", cl, "/c", *argv, cwd=self.cwd)


@pytest.fixture
def desk(wine: Wine, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Desk:
    assert windows_python().is_dir(), "no CPython for Windows: tools/bootstrap.sh windows-python"
    shutil.copytree(windows_python(), tmp_path / "python")
    assert windows_packages().is_dir(), "no packages for Windows: tools/bootstrap.sh windows-python"
    places = (windows_packages(), ROOT / "src")
    names = ["Z:" + str(place).replace("/", "\\") for place in places]
    (tmp_path / "python/python313._pth").write_text("\n".join(["python313.zip", ".", *names, ""]))
    (tmp_path / "cl.c").write_text(_COMPILER)
    cross_build(tmp_path / "cl.c", tmp_path / "cl.exe")
    build_windows_launcher(tmp_path / "hpcc.exe")
    monkeypatch.setitem(wine.env, "HPCC_DIR", "C:\\hpcc-home")
    return Desk(wine, tmp_path)


def doctor(desk: Desk) -> dict[str, dict[str, str]]:
    """Run `hpcc doctor --json`; return its lines by name."""
    argv = (desk.python, "-B", "-m", "hpcc.cli", "doctor", "--json")
    assert desk.wine.run_into(desk.directory / "said", *argv, cwd=desk.directory) == 0
    return {line["name"]: line for line in json.loads((desk.directory / "said").read_bytes())}


def test_doctor_says_what_is_there_and_what_to_do(desk: Desk) -> None:
    newer = Toolchain(names=("cl",), family="msvc", version="19.44.35207", target="x64", build="0")
    (desk.home / "state").mkdir(parents=True, exist_ok=True)
    (desk.home / "state/farm.json").write_text(FARM.to_json())
    (desk.home / "state/farm-session.json").write_text(farm_session(newer).to_json())
    with desk.daemon():
        found = doctor(desk)
    for name in ("farm.json", "farm-session.json"):
        (desk.home / "state" / name).unlink()
    # cl and the launcher are in the working directory. There is no containerd and no SDK.
    assert [name for name, line in found.items() if line["state"] == "missing"] == ["windows"]
    assert "INCLUDE is not set" in found["compilers"]["detail"]
    for name in ("settings", "launcher", "file system", "user", "login", "sharing"):
        assert found[name]["state"] == "ok", found[name]
    assert found["daemon"]["detail"].startswith("running, pid ")
    # The compiler's own answer, compared with what the farm said of its image.
    assert "cl: other (msvc 19.38.33130 (0) for x64)" in found["parity"]["detail"]
    assert "cl of image" in found["parity"]["remedy"]
    assert "is msvc 19.44.35207 (0) for x64" in found["parity"]["remedy"]
    assert all(line["state"] == "ok" or line["remedy"] for line in found.values())


def said(desk: Desk, status: int, *arguments: str) -> str:
    """Run a command that leaves processes behind; return what it wrote."""
    argv = (desk.python, "-B", "-m", "hpcc.cli", *arguments)
    assert desk.wine.run_into(desk.directory / "said", *argv, cwd=desk.directory) == status
    return (desk.directory / "said").read_text()


def test_up_without_containerd_is_the_local_cache_until_down(desk: Desk) -> None:
    assert "hpcc was not up" in said(desk, 0, "down")
    refused = said(desk, 2, "up", "--image", IMAGE_NAME)
    assert refused.startswith("hpcc: no farm can start here: containerd does not listen on ")
    shown = said(desk, 0, "up")
    try:
        assert "hpcc is up: the local cache" in shown
        assert "no farm:   containerd does not listen on" in shown
        assert "docs/windows.md, The host" in shown
        assert desk.compile().stdout == b"compiled"
        assert b"no-source" in desk.hpcc("stats").stdout
    finally:
        assert "hpcc is down" in said(desk, 0, "down")
    assert desk.hpcc("status").returncode == 3


def test_the_services_of_a_farm_start_in_order_and_end_with_their_supervisor(desk: Desk) -> None:
    layer = build_windows_layer({"hpcc-agent.exe": b"MZ"})
    write_private_file(desk.home / "cache/guest/windows-agent.tar", layer.tar)
    (desk.home / "state").mkdir(mode=0o700, exist_ok=True)
    argv = (desk.python, "-B", "-m", "hpcc.cli.farm.supervise", IMAGE_NAME)
    assert desk.wine.run_into(desk.directory / "said", *argv, cwd=desk.directory) == 1
    worker = (desk.home / "state/worker.log").read_text()
    assert "containerd does not listen on" in worker
    scheduler = (desk.home / "state/scheduler.log").read_text()
    assert "worker local-worker is enrolled" in scheduler
    assert "Traceback" not in scheduler
    # A scheduler that was killed leaves it.
    assert not (desk.home / "state/scheduler/scheduler.sqlite-wal").exists()
    assert not (desk.home / "state/farm.json").exists()


def test_the_daemon_answers_a_launcher_and_commands_and_ends_when_told(desk: Desk) -> None:
    with desk.daemon():
        done = desk.compile()
        assert (done.returncode, done.stdout, done.stderr) == (3, b"compiled", b""), done
        assert b"no-source" in desk.hpcc("stats").stdout
    # A mark of the launcher's, for the next daemon to count: nobody was there, nor could be started.
    assert desk.compile().stdout == b"compiled"
    assert (desk.home / "run/fallbacks").read_bytes() == b"n"


def project(tmp_path: Path) -> Path:
    """Make a project in `p`; return a program named clang-cl."""
    clang = shutil.which("clang-19") or shutil.which("clang")
    assert clang is not None, "no clang on this machine"
    (tmp_path / "clang-cl").symlink_to(Path(clang).resolve())
    (tmp_path / "p/inc").mkdir(parents=True)
    (tmp_path / "p/sub").mkdir()
    (tmp_path / "p/.hpcc").touch()
    (tmp_path / "p/inc/h.h").write_text("#define X 3\n")
    (tmp_path / "p/x.c").write_text('#include "h.h"\nint f(void) { return X; }\n')
    return tmp_path / "clang-cl"


async def test_cl_is_compiled_on_a_farm_or_else_by_the_users_own(
    desk: Desk, tmp_path: Path
) -> None:
    clang_cl = project(tmp_path)
    desk.cwd = tmp_path / "p/sub"
    async with farm_under_test(tmp_path / "farm") as farm:
        farm.runtime.guest_class = windows_image(clang_cl)
        async with farm.serving():
            await asyncio.to_thread(use_farm, desk, farm.farm().to_json())
        assert {"executed", "hit"} <= {row.cache_status for row in farm.audit.rows}
    argv: list[str | Path] = [clang_cl, "/nologo", "/c", "/O1", "/Brepro", "-Iinc", "x.c"]
    await asyncio.to_thread(lambda: subprocess.run(argv, cwd=tmp_path / "p", check=True))
    assert (desk.cwd / "one.obj").read_bytes() == (tmp_path / "p/x.obj").read_bytes()


def use_farm(desk: Desk, farm: str) -> None:
    (desk.home / "state").mkdir(parents=True, exist_ok=True)
    (desk.home / "state/farm.json").write_text(farm)
    root = "Z:" + str(desk.cwd.parent).replace("/", "\\")
    argv = ("/nologo", "/O1", f"/I{root}\\inc", "/Foone.obj", f"{root}\\x.c")
    with desk.daemon():
        # gRPC is loaded for the first one: a launcher may find the daemon silent on a busy machine.
        wait_until(lambda: desk.compile(*argv).returncode == 0, timeout_seconds=120)
        done = desk.compile(*argv)
        assert (done.returncode, done.stdout, done.stderr) == (0, b"", b""), done
        assert desk.compile("/Zi", "x.c").stdout == b"compiled"
        (desk.home / "state/farm.json").write_text(farm.replace("127.0.0.1:", "127.0.0.2:"))
        assert desk.compile(*argv).stdout == b"compiled"
        counted = json.loads(desk.hpcc("stats", "--json").stdout)
    (desk.home / "state/farm.json").unlink()
    for name in (
        "miss.remote.executed",
        "miss.remote.cached",
        "bypass.pdb",
        "fallback.unavailable",
    ):
        assert counted[name] > 0, counted
    assert not list(desk.cwd.glob("*.hpcc"))


@pytest.mark.skipif(missing_or_none() is not None, reason=missing_or_none() or "")
async def test_a_person_logs_in_compiles_on_the_farm_and_logs_out(
    desk: Desk, tmp_path: Path
) -> None:
    clang_cl = project(tmp_path)
    desk.cwd = tmp_path / "p/sub"
    table = tmp_path / "tenants.toml"
    async with real_provider() as provider:
        table.write_text(_TENANTS.format(image=IMAGE, issuer=provider.issuer, client=CLIENT))
        async with farm_under_test(tmp_path / "farm", tenants=table) as farm:
            farm.runtime.guest_class = windows_image(clang_cl)
            (tmp_path / "farm.toml").write_text(
                f'scheduler = "{farm.scheduler.host}:{farm.scheduler.port}"\ntenant = "acme"\n'
                f'issuer = "{provider.issuer}"\nclient_id = "{CLIENT}"\nimage = "{IMAGE}"\n'
                f"scheduler_certificate = '''\n{farm.scheduler.certificate_pem}'''\n"
            )
            async with farm.serving():
                await log_in(desk, provider)
                await asyncio.to_thread(use_login, desk)
        assert {row.principal for row in farm.audit.rows} == {"ann"}


async def log_in(desk: Desk, provider: RealProvider) -> None:
    """Run `hpcc login farm.toml`; confirm what it prints, as its user does."""
    command = (desk.python, "-B", "-u", "-m", "hpcc.cli", "login", "farm.toml")
    with desk.wine.start(*command, cwd=desk.directory) as process:
        assert process.stdout is not None
        page = b""
        while not page.startswith(b"or    "):
            page = await asyncio.to_thread(process.stdout.readline)
            assert page, process.stderr
        await provider.confirm(page.split()[1].decode(), "ann")
        said, errors = await asyncio.to_thread(process.communicate, None, 60)
    assert process.returncode == 0, errors
    assert b"as ann of acme" in said
    assert b"the scheduler accepts it" in said


def use_login(desk: Desk) -> None:
    said = desk.hpcc("whoami", "--check")
    assert said.stdout.startswith(b"ann of tenant acme"), said
    assert said.stdout.split()[-2:] == [b"accepts", b"it"], said
    assert desk.hpcc("jobs").stdout.strip().isdigit()
    assert b"workers: 1 live" in desk.hpcc("farm", "status").stdout
    assert desk.hpcc("token").stdout.count(b".") == 2
    root = "Z:" + str(desk.cwd.parent).replace("/", "\\")
    argv = ("/nologo", f"/I{root}\\inc", "/Foone.obj", f"{root}\\x.c")
    with desk.daemon():
        wait_until(lambda: desk.compile(*argv).returncode == 0, timeout_seconds=120)
    said = desk.hpcc("logout")
    assert (said.returncode, said.stdout.split()) == (0, [b"logged", b"out"]), said
    assert not (desk.home / "state/login.json").exists()
    assert not (desk.home / "state/farm.json").exists()
    said = desk.hpcc("whoami")
    assert (said.returncode, said.stdout[:19]) == (1, b"nobody is logged in"), said


def test_a_service_is_refused_without_an_administrator(desk: Desk) -> None:
    (desk.directory / "worker.json").write_text("{}")
    (desk.directory / "python/hpcc-service.exe").write_bytes(b"MZ")
    config = "Z:" + str(desk.directory / "worker.json").replace("/", "\\")
    done = desk.hpcc("worker", "install-service", "--config", config)
    assert (done.returncode, done.stdout) == (2, b""), done
    assert b"administrator" in done.stderr
