"""A client of Windows under Wine: CPython for Windows with hpcc's sources, launcher and daemon."""

from __future__ import annotations

import json
import shutil
import subprocess
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Final

from hpcc_testkit.cache.launcher import ROOT, build_windows_launcher, wait_until
from hpcc_testkit.windows.agent import drive_c, windows_packages, windows_python
from hpcc_testkit.windows.native_clang import NativeClangCl
from hpcc_testkit.windows.wine import Wine

_START_SECONDS: Final = 120
_END_SECONDS: Final = 60


class WindowsClient:
    r"""A launcher and a daemon with files in `C:\hpcc-NAME`, and a compiler.

    `env` are variables of every compile. `cwd` is where compiles run.
    """

    def __init__(self, wine: Wine, directory: Path, clang: NativeClangCl, name: str) -> None:
        assert windows_python().is_dir(), "no CPython for Windows: bootstrap.sh windows-python"
        self.wine, self.directory, self.clang = wine, directory, clang
        self.home = drive_c(wine) / f"hpcc-{name}"
        self.env: dict[str, str] = {}
        self.cwd = directory
        shutil.copytree(windows_python(), directory / "python")
        names = ["Z:" + str(p).replace("/", "\\") for p in (windows_packages(), ROOT / "src")]
        path = "\n".join(["python313.zip", ".", *names, ""])
        (directory / "python/python313._pth").write_text(path)
        build_windows_launcher(directory / "hpcc.exe")
        self._python = directory / "python/python.exe"

    @contextmanager
    def daemon(self) -> Iterator[None]:
        """Run the daemon while the block runs, and end it as a user does."""
        with self._variables({}):
            process = self.wine.start(self._python, "-B", "-m", "hpcc.daemon", cwd=self.directory)
        with process as daemon:
            try:
                wait_until(
                    lambda: self.hpcc("status").returncode == 0, timeout_seconds=_START_SECONDS
                )
                yield
                assert self.hpcc("stop").returncode == 0
                assert daemon.wait(_END_SECONDS) == 0
            finally:
                daemon.kill()

    def hpcc(self, *arguments: str) -> subprocess.CompletedProcess[bytes]:
        """Run a command of hpcc."""
        with self._variables({}):
            return self.wine.run(
                self._python, "-B", "-m", "hpcc.cli", *arguments, cwd=self.directory
            )

    def python(self, program: str, *arguments: str) -> subprocess.CompletedProcess[bytes]:
        """Run a program of Python with hpcc's sources."""
        with self._variables({}):
            return self.wine.run(
                self._python, "-B", "-X", "utf8", "-c", program, *arguments, cwd=self.cwd
            )

    @property
    def launcher_hits(self) -> int:
        """How many hits launchers answered by themselves since the daemon last looked."""
        log = self.home / "run/hits.log"
        return log.stat().st_size // 16 if log.exists() else 0

    def stats(self) -> dict[str, int]:
        """Return the daemon's counters."""
        found: dict[str, int] = json.loads(self.hpcc("stats", "--json").stdout)
        return found

    def compile(self, *arguments: str, compiler: str = "") -> subprocess.CompletedProcess[bytes]:
        """Compile through the launcher."""
        program = compiler or self.clang.program
        with self._variables(self.env):
            return self.wine.run(
                self.directory / "hpcc.exe", "wrap", program, *arguments, cwd=self.cwd
            )

    def bare(self, *arguments: str) -> subprocess.CompletedProcess[bytes]:
        """Compile without hpcc."""
        with self._variables(self.env):
            return self.wine.run(self.clang.program, *arguments, cwd=self.cwd)

    @contextmanager
    def _variables(self, more: Mapping[str, str]) -> Iterator[None]:
        ours = {"HPCC_DIR": "C:\\" + self.home.name, **more}
        self.wine.env.update(ours)
        try:
            yield
        finally:
            for name in ours:
                del self.wine.env[name]
