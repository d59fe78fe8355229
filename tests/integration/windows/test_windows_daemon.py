"""The daemon itself, in a CPython for Windows under Wine: it listens, answers, counts, ends."""

from __future__ import annotations

import shutil
import subprocess
from pathlib import Path

import pytest

from hpcc.testing.launcher import ROOT, build_windows_launcher, wait_until
from hpcc.testing.windows_agent import drive_c, windows_python
from hpcc.testing.wine import Wine, cross_build

pytestmark = pytest.mark.timeout(500)
_COMPILER = '#include <stdio.h>\nint main(void) { printf("compiled"); return 3; }\n'


class Desk:
    """A Windows with hpcc's sources in its Python, and the launcher beside a compiler."""

    def __init__(self, wine: Wine, directory: Path) -> None:
        self.wine, self.directory = wine, directory
        self.home = drive_c(wine) / "hpcc-home"
        self.python = directory / "python/python.exe"

    def hpcc(self, *arguments: str) -> subprocess.CompletedProcess[bytes]:
        return self.wine.run(self.python, "-B", "-m", "hpcc.cli", *arguments, cwd=self.directory)

    def compile(self) -> subprocess.CompletedProcess[bytes]:
        cl = "Z:" + str(self.directory / "cl.exe").replace("/", "\\")
        return self.wine.run(self.directory / "hpcc.exe", "wrap", cl, "/c", cwd=self.directory)


@pytest.fixture
def desk(wine: Wine, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Desk:
    assert windows_python().is_dir(), "no CPython for Windows: tools/bootstrap.sh windows-python"
    shutil.copytree(windows_python(), tmp_path / "python")
    (tmp_path / "python/python313._pth").write_text(
        "python313.zip\n.\nZ:" + str(ROOT / "src").replace("/", "\\") + "\n"
    )
    (tmp_path / "cl.c").write_text(_COMPILER)
    cross_build(tmp_path / "cl.c", tmp_path / "cl.exe")
    build_windows_launcher(tmp_path / "hpcc.exe")
    monkeypatch.setitem(wine.env, "HPCC_DIR", "C:\\hpcc-home")
    return Desk(wine, tmp_path)


def test_the_daemon_answers_a_launcher_and_commands_and_ends_when_told(desk: Desk) -> None:
    with desk.wine.start(desk.python, "-B", "-m", "hpcc.daemon", cwd=desk.directory) as daemon:
        try:
            wait_until(lambda: desk.hpcc("status").returncode == 0, timeout_seconds=120)
            done = desk.compile()
            assert (done.returncode, done.stdout, done.stderr) == (3, b"compiled", b""), done
            assert b"windows-host" in desk.hpcc("stats").stdout
            assert desk.hpcc("stop").stdout.split() == b"the daemon is stopped".split()
            assert daemon.wait(60) == 0
        finally:
            daemon.kill()
    # A mark of the launcher's, for the next daemon to count: nobody was there, nor could be started.
    assert desk.compile().stdout == b"compiled"
    assert (desk.home / "run/fallbacks").read_bytes() == b"n"


def test_a_service_is_refused_without_an_administrator(desk: Desk) -> None:
    (desk.directory / "worker.json").write_text("{}")
    (desk.directory / "python/hpcc-service.exe").write_bytes(b"MZ")
    config = "Z:" + str(desk.directory / "worker.json").replace("/", "\\")
    done = desk.hpcc("worker", "install-service", "--config", config)
    assert (done.returncode, done.stdout) == (2, b""), done
    assert b"administrator" in done.stderr
