"""Programs that record compiles, and programs in the place of cc1 and as that count real runs.

The counting programs are mounted over the compiler's own in a private mount namespace. The driver,
the command lines and the caches stay those of the distribution.
"""

from __future__ import annotations

import ctypes
import os
import shutil
import subprocess
import sys
from collections.abc import Iterable
from pathlib import Path
from typing import Final

SOURCE: Final = Path(__file__).resolve().parent / "shim.c"
COMPILERS: Final = ("cc", "gcc", "c++", "g++")
_COUNTED: Final = (("gcc", "cc1"), ("g++", "cc1plus"), ("gcc", "as"))
_INSIDE: Final = "CORPUS_INSIDE"
_MS_BIND: Final = 4096


class ShimError(Exception):
    """Real compiler runs cannot be counted on this machine."""


def build(output: Path, real_directory: Path) -> None:
    """Compile the program that runs its namesake in `real_directory`."""
    text = str(real_directory)
    command = ["gcc", "-O2", "-Wall", f'-DREAL_DIRECTORY="{text}"', str(SOURCE), "-o", str(output)]
    subprocess.run(command, check=True)


def recorders(directory: Path) -> Path:
    """Fill a directory for the front of PATH with recording compilers."""
    directory.mkdir(parents=True, exist_ok=True)
    build(directory / COMPILERS[0], Path("/usr/bin"))
    for name in COMPILERS[1:]:
        shutil.copy2(directory / COMPILERS[0], directory / name)
    return directory


def enter_namespace() -> None:
    """Run this program again in its own mount namespace; return if this is that run.

    Raises:
        ShimError: the machine allows no mount namespace.
    """
    if os.environ.get(_INSIDE):
        return
    command = ["unshare", "--mount", "--propagation=private"]
    if os.geteuid():
        command.append("--map-root-user")
    if subprocess.run([*command, "true"], check=False, capture_output=True).returncode:
        raise ShimError("counting compiler runs needs a mount namespace: run as root")
    env = {**os.environ, _INSIDE: "1"}
    os.execvpe(command[0], [*command, sys.executable, *sys.argv], env)


def count_runs(directory: Path) -> None:
    """Put counting programs over cc1, cc1plus and as. Only this namespace sees them."""
    real, shims = directory / "real", directory / "shims"
    for made in (real, shims):
        made.mkdir(parents=True, exist_ok=True)
    for driver, name in _COUNTED:
        path = _program_of(driver, name)
        # Under the name by which the driver calls it, and under the file's own.
        for alias in {name, path.name}:
            shutil.copy2(path, real / alias)
        build(shims / name, real)
        _bind(shims / name, path)


def _program_of(driver: str, name: str) -> Path:
    done = subprocess.run(
        [driver, f"-print-prog-name={name}"], check=True, capture_output=True, text=True
    )
    found = shutil.which(done.stdout.strip())
    if found is None:
        raise ShimError(f"{driver} does not say where its {name} is")
    return Path(found).resolve()


def _bind(source: Path, target: Path) -> None:
    libc = ctypes.CDLL(None, use_errno=True)
    if libc.mount(os.fsencode(source), os.fsencode(target), None, _MS_BIND, None):
        raise ShimError(f"cannot mount over {target}: {os.strerror(ctypes.get_errno())}")


def real_runs(lines: Iterable[str], *, is_assembler: bool) -> int:
    """Return how many times a compile ran the compiler, from the lines of its count file.

    A C source is compiled by cc1 or cc1plus, and each of their runs that only preprocesses is
    cheap and no compile. Assembler is compiled by as.
    """
    wanted = {"as compile"} if is_assembler else {"cc1 compile", "cc1plus compile"}
    return sum(line.strip() in wanted for line in lines)
