"""Builds one package with the bare compiler behind the recording program."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Final

from corpus.listing import Package
from corpus.recording import Command, read_commands

_PATH: Final = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"
_ASK_SECONDS: Final = 1.0


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
    package: Package, root: Path, recorders: Path, records: Path, seconds: float, enough: int = 0
) -> list[Command]:
    """Build the tree in `root`/src, each step at most so long; return its compiles.

    `enough`: the last step is stopped when it has compiled so many sources; 0: it is not.

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
    if package.system == "autotools":
        _make_times_equal(root / "src")
    steps = [(["sh", "-ec", line], root / "src" / package.subdir) for line in package.before]
    steps += build_steps(package, root)

    def is_enough() -> bool:
        # A compile that runs has a record, too, and no whole object.
        return len(read_commands(records, root)) > enough + 1

    for command, cwd in steps[:-1]:
        _run(command, cwd, env, log, seconds)
    command, cwd = steps[-1]
    _run(command, cwd, env, log, seconds, is_enough if enough else None)
    commands = read_commands(records, root)
    if not commands:
        raise BuildFailedError(f"the build left no objects: {first_error(log)[:200]}")
    return commands


def _make_times_equal(source: Path) -> None:
    """Give all files one time, so that make generates none of the archive's files anew.

    The distribution's patches touch inputs of configure and of Makefile.in, and the generators are
    seldom of the version that the archive was made with.
    """
    now = time.time()
    for path in source.rglob("*"):
        os.utime(path, (now, now), follow_symlinks=False)


def first_error(log: Path) -> str:
    """Return the first line of a build's log that names an error, else its last line."""
    lines = log.read_text(errors="replace").strip().splitlines() if log.exists() else []
    errors = [line for line in lines if "error" in line.lower()]
    return (errors[:1] or lines[-1:] or ["no output"])[0]


def _run(
    command: Sequence[str],
    cwd: Path,
    env: dict[str, str],
    log: Path,
    seconds: float,
    is_enough: Callable[[], bool] | None = None,
) -> None:
    """Run one step. A step that fails or takes too long is fine if compiles were recorded."""
    with log.open("ab") as file:
        file.write(f"$ {' '.join(command)}\n".encode())
        file.flush()
        try:
            with subprocess.Popen(
                command, cwd=cwd, env=env, stdin=subprocess.DEVNULL, stdout=file, stderr=file,
                start_new_session=True,
            ) as process:  # fmt: skip
                _wait(process, seconds, is_enough)
        except OSError as error:
            file.write(f"{error}\n".encode())


def _wait(
    process: subprocess.Popen[bytes], seconds: float, is_enough: Callable[[], bool] | None
) -> None:
    """Wait for a step's end; kill its group when its time is over or it has done enough."""
    end = time.monotonic() + seconds
    while True:
        left = end - time.monotonic()
        try:
            process.wait(left if is_enough is None else min(left, _ASK_SECONDS))
        except subprocess.TimeoutExpired:
            if time.monotonic() < end and not (is_enough is not None and is_enough()):
                continue
            os.killpg(process.pid, signal.SIGKILL)
        return
