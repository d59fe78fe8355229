"""Builds one package with the bare compiler behind the recording program."""

from __future__ import annotations

import os
import shutil
import subprocess
from collections.abc import Sequence
from pathlib import Path
from typing import Final

from corpus.listing import Package
from corpus.recording import Command, read_commands

_PATH: Final = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"


class BuildFailedError(Exception):
    """The package left no compiles that can be run again."""


def build_steps(package: Package, root: Path) -> list[tuple[list[str], Path]]:
    """Return the commands that configure and build, each with its directory."""
    source, build = root / "src" / package.subdir, root / "build"
    options = list(package.options)
    jobs = "-j2"
    # Build everything that builds: a test that lacks a library does not end the build.
    if package.system == "cmake":
        # Old projects ask for versions that today's CMake refuses.
        configure = ["cmake", "-S", str(source), "-B", str(build), "-G", "Unix Makefiles"]
        configure += ["-DCMAKE_POLICY_VERSION_MINIMUM=3.5", *options]
        return [(configure, root), (["make", "-k", jobs], build)]
    if package.system == "meson":
        configure = ["meson", "setup", str(build), str(source), *options]
        return [(configure, root), (["ninja", "-k", "0", jobs], build)]
    if package.system == "autotools":
        place = source if package.in_tree else build
        script = "./configure" if package.in_tree else os.path.relpath(source / "configure", build)
        return [([script, *options], place), (["make", "-k", jobs], place)]
    return [(["make", "-k", jobs, *options], source)]


def build(
    package: Package, root: Path, recorders: Path, records: Path, seconds: float
) -> list[Command]:
    """Build the tree in `root`/src, each step at most so long; return its compiles.

    Raises:
        BuildFailedError: nothing was compiled.
    """
    shutil.rmtree(records, ignore_errors=True)
    records.mkdir(parents=True)
    if package.system == "autotools" and not package.in_tree:
        (root / "build").mkdir()
    home = root.parent / "home"
    home.mkdir(exist_ok=True)
    env = {
        "PATH": f"{recorders}:{_PATH}", "HOME": str(home), "LC_ALL": "C.UTF-8",
        # Named, because Meson would put an installed ccache or sccache in front by itself.
        "CC": "cc", "CXX": "c++", "CORPUS_RECORD": str(records), "FORCE_UNSAFE_CONFIGURE": "1",
    }  # fmt: skip
    log = root.parent / "build.log"
    steps = [(["sh", "-ec", line], root / "src" / package.subdir) for line in package.before]
    for command, cwd in [*steps, *build_steps(package, root)]:
        _run(command, cwd, env, log, seconds)
    commands = read_commands(records, root)
    if not commands:
        raise BuildFailedError(f"the build left no objects: {first_error(log)[:200]}")
    return commands


def first_error(log: Path) -> str:
    """Return the first line of a build's log that names an error, else its last line."""
    lines = log.read_text(errors="replace").strip().splitlines() if log.exists() else []
    errors = [line for line in lines if "error" in line.lower()]
    return (errors[:1] or lines[-1:] or ["no output"])[0]


def _run(command: Sequence[str], cwd: Path, env: dict[str, str], log: Path, seconds: float) -> None:
    """Run one step. A step that fails or takes too long is fine if compiles were recorded."""
    with log.open("ab") as file:
        file.write(f"$ {' '.join(command)}\n".encode())
        file.flush()
        try:
            with subprocess.Popen(
                command, cwd=cwd, env=env, stdin=subprocess.DEVNULL, stdout=file, stderr=file,
                start_new_session=True,
            ) as process:  # fmt: skip
                try:
                    process.wait(seconds)
                except subprocess.TimeoutExpired:
                    os.killpg(process.pid, 9)
        except OSError as error:
            file.write(f"{error}\n".encode())
