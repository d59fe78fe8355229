"""Cross-builds programs for Windows and runs them under Wine.

`cross_build` compiles one C file; `Wine` is a prefix to run programs in.
"""

from __future__ import annotations

import os
import subprocess
from collections.abc import Sequence
from pathlib import Path
from typing import Final

COMPILER: Final = "x86_64-w64-mingw32-gcc"
_FLAGS: Final = (
    "-std=c11",
    "-O2",
    "-Wall",
    "-Wextra",
    "-Werror",
    "-s",
    "-Wl,--no-insert-timestamp",
)
_FIRST_START_SECONDS: Final = 240.0
_RUN_SECONDS: Final = 100.0
# Keeps the Wine server alive between programs; without this each program restarts all of Windows,
# which takes seconds.
_KEEP_SECONDS: Final = 600


def cross_build(source: Path, target: Path, *libraries: str) -> Path:
    """Compile one C file for Windows; equal sources give equal bytes."""
    argv = [COMPILER, *_FLAGS, "-o", str(target), str(source), *libraries]
    subprocess.run(argv, check=True, timeout=_RUN_SECONDS)
    return target


class Wine:
    """One Wine prefix. `close` ends everything that runs in it."""

    def __init__(self, prefix: Path) -> None:
        runtime = prefix / "run"
        runtime.mkdir(parents=True, mode=0o700)
        (prefix / "wine").mkdir()
        self.env: Final = {
            "PATH": "/usr/local/bin:/usr/bin:/bin",
            "HOME": str(prefix),
            "WINEPREFIX": str(prefix / "wine"),
            "WINEDEBUG": "-all",
            "WINEDLLOVERRIDES": "mscoree,mshtml=",  # no dialogs that offer to install them
            "XDG_RUNTIME_DIR": str(runtime),
            "LC_ALL": "C.UTF-8",
        }
        _quiet(["wineserver", f"-p{_KEEP_SECONDS}"], self.env)
        subprocess.run(
            ["wineboot", "--init"], env=self.env, check=True, timeout=_FIRST_START_SECONDS,
            stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL,
        )  # fmt: skip

    def run(
        self, program: Path | str, *arguments: str, cwd: Path, seconds: float = _RUN_SECONDS
    ) -> subprocess.CompletedProcess[bytes]:
        return subprocess.run(
            ["wine", str(program), *arguments], env=self.env, cwd=cwd, check=False,
            stdin=subprocess.DEVNULL, capture_output=True, timeout=seconds,
        )  # fmt: skip

    def run_into(self, output: Path, program: Path | str, *arguments: str, cwd: Path) -> int:
        """Run a program that may start Wine's desktop: that outlives it, and would hold a pipe."""
        with output.open("wb") as file:
            return subprocess.run(
                ["wine", str(program), *arguments], env=self.env, cwd=cwd, check=False,
                stdin=subprocess.DEVNULL, stdout=file, stderr=file, timeout=_RUN_SECONDS,
            ).returncode  # fmt: skip

    def start(self, program: Path | str, *arguments: str, cwd: Path) -> subprocess.Popen[bytes]:
        return subprocess.Popen(
            ["wine", str(program), *arguments], env=self.env, cwd=cwd,
            stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE,
        )  # fmt: skip

    def processes(self, word: str) -> list[int]:
        """Return the processes of this prefix whose command lines contain `word`."""
        found = []
        mark = f"WINEPREFIX={self.env['WINEPREFIX']}".encode()
        for entry in Path("/proc").iterdir():
            if not entry.name.isdigit() or int(entry.name) == os.getpid():
                continue
            try:
                line = (entry / "cmdline").read_bytes()
                is_ours = mark in (entry / "environ").read_bytes()
            except OSError:
                continue
            if is_ours and word.encode() in line:
                found.append(int(entry.name))
        return sorted(found)

    def close(self) -> None:
        _quiet(["wineserver", "--kill"], self.env)
        _quiet(["wineserver", "--wait"], self.env)


def _quiet(argv: Sequence[str], env: dict[str, str]) -> None:
    subprocess.run(
        list(argv), env=env, check=False, timeout=_RUN_SECONDS,
        stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL,
    )  # fmt: skip
