"""A daemon with one engine of the hit path, and builds whose hits the daemon replays.

A build is one command in a private directory. `settle` waits until all its files are old enough to
be remembered, `establish` compiles until the daemon replays, and `bare` compiles without hpcc.
"""

from __future__ import annotations

import os
import shutil
import stat
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final

from hpcc.core import HpccError
from hpcc.daemon.client import query
from hpcc_testkit.cache.launcher import front_counters, launcher_environment, paths_of, wait_until

OUTPUTS: Final = "out"
# Past the window in which a stat cannot tell a change (cache/base/files.py).
_YOUNG_SECONDS: Final = 2.1
# A helper process reports twice a second how many hits it served.
_FLUSH_SECONDS: Final = 0.5
_ATTEMPTS: Final = 30


@dataclass
class Seen:
    """What a user sees of one compile: status, streams, and every file under `out`."""

    exit_code: int
    stdout: bytes
    stderr: bytes
    files: dict[str, tuple[int, object]]


@dataclass
class ReplayDaemon:
    """The shipped daemon as a process; `processes` answer hits."""

    launcher: Path
    directory: Path
    engine: str = "native"
    processes: int = 1
    process: subprocess.Popen[bytes] | None = None

    @property
    def env(self) -> dict[str, str]:
        env = launcher_environment(self.directory, LC_ALL="C")
        env["HPCC_NATIVE"] = "0" if self.engine == "python" else "1"
        # Mutation rows run against a copy of the source.
        return {**env, **{n: v for n, v in os.environ.items() if n == "PYTHONPATH"}}

    def start(self) -> None:
        paths = paths_of(self.env)
        paths.config_file.parent.mkdir(parents=True, exist_ok=True)
        paths.config_file.write_text(f"[daemon]\nprocesses = {self.processes}\n")
        command = [sys.executable, "-P", "-m", "hpcc.daemon"]
        with open(self.directory / "log", "ab") as log:
            self.process = subprocess.Popen(
                command, env=self.env, stdin=subprocess.DEVNULL, stderr=log, start_new_session=True
            )
        wait_until(self._answers, timeout_seconds=20)

    def _answers(self) -> bool:
        assert self.process is not None
        assert self.process.poll() is None, (self.directory / "log").read_text()
        try:
            query(paths_of(self.env), "status")
        except HpccError:
            return False
        return True

    def stop(self) -> None:
        if self.process is not None:
            self.process.terminate()
            self.process.wait(20)
            self.process = None

    def replayed(self) -> int:
        """Return how many requests were answered by a replay, so far."""
        if self.processes > 1:
            threading.Event().wait(_FLUSH_SECONDS)
        return front_counters(self.env).get("replayed", 0)


@dataclass
class Build:
    """One command in one directory."""

    daemon: ReplayDaemon
    work: Path
    argv: list[str]
    extra_env: dict[str, str] = field(default_factory=dict)
    umask: int = 0o022
    # Puts the outputs into the state that each compile starts from.
    prepare: Callable[[Path], None] = field(default=lambda work: clear(work))  # noqa: PLW0108 - defined below
    # Where below `work` the command runs.
    cwd: str = ""

    def through(self) -> Seen:
        """Compile through hpcc."""
        return self._run([os.fspath(self.daemon.launcher), *self.argv])

    def bare(self) -> Seen:
        """Compile without hpcc."""
        return self._run(self.argv)

    def same(self) -> Seen:
        """Compile through hpcc and bare, each over the same outputs, and assert equal results."""
        self.prepare(self.work)
        ours = self.through()
        self.prepare(self.work)
        bare = self.bare()
        assert ours == bare
        return ours

    def replays(self) -> bool:
        """Return whether a compile was a replay; assert that it equals the bare compile."""
        before = self.daemon.replayed()
        self.same()
        return self.daemon.replayed() > before

    def establish(self) -> None:
        """Compile until the daemon replays."""
        for _ in range(_ATTEMPTS):
            if self.replays():
                return
        raise AssertionError("it is never replayed")

    def _run(self, argv: list[str]) -> Seen:
        cwd = self.work / self.cwd
        env = {**self.daemon.env, "PWD": os.fspath(cwd), **self.extra_env}
        done = subprocess.run(
            argv,
            cwd=cwd,
            env=env,
            umask=self.umask,
            stdin=subprocess.DEVNULL,
            capture_output=True,
            check=False,
            timeout=60,
        )
        return Seen(done.returncode, done.stdout, done.stderr, picture(self.work / OUTPUTS))


def clear(work: Path) -> None:
    """Leave an empty directory for the outputs."""
    shutil.rmtree(work / OUTPUTS, ignore_errors=True)
    (work / OUTPUTS).mkdir()


def fill(work: Path) -> None:
    """Make a small tree: sources, headers, search directories, two compilers behind a link."""
    files = {
        "src/a.c": '#include <conf.h>\n#include "util.h"\n#if __has_include("extra.h")\n'
        '#include "extra.h"\n#else\n#define EXTRA 0\n#endif\n'
        '#if __has_include("asked-for.h")\nint asked_for;\n#endif\n'
        "int a(void) { int unused; return CONF * 100 + UTIL * 10 + EXTRA; }\n",
        "src/asked-for.h": "\n",
        "src/util.h": "#define UTIL 1\n",
        "inc/conf.h": "#define CONF 1\n",
        "one/linked.h": "#define LINKED 1\n",
        "two/linked.h": "#define LINKED 2\n",
        "src/linked.c": "#include <linked.h>\nint a = LINKED;\n",
    }
    for name, text in files.items():
        (work / name).parent.mkdir(parents=True, exist_ok=True)
        (work / name).write_text(text)
    for name in ("early", "bin"):
        (work / name).mkdir()
    (work / "link").symlink_to("one")
    for version in ("v1", "v2"):
        (work / version).mkdir()
    (work / "v1" / "gcc").symlink_to("/usr/bin/gcc")
    (work / "v2" / "gcc").symlink_to("/usr/bin/gcc-14")
    (work / "current").symlink_to("v1")
    lines = (f"int f{i}(void) {{ int unused_{i}; return 0; }}" for i in range(100))
    (work / "src" / "loud.c").write_text("\n".join(lines) + "\n")
    (work / "args").write_text("-DEXTRA_FLAG=1 -c src/a.c -o out/a.o\n")
    clear(work)


def picture(directory: Path) -> dict[str, tuple[int, object]]:
    """Describe every file by what a build can see of it, except inode and times."""
    found: dict[str, tuple[int, object]] = {}
    for path in sorted(directory.rglob("*")) if directory.is_dir() else ():
        status = path.lstat()
        data: object = None
        if stat.S_ISREG(status.st_mode):
            data = path.read_bytes()
        elif stat.S_ISLNK(status.st_mode):
            data = os.readlink(path)
        found[str(path.relative_to(directory))] = (status.st_mode, data)
    return found


def settle() -> None:
    """Wait until the written files count as old."""
    time.sleep(_YOUNG_SECONDS)


def rewrite_unseen(path: Path, old: str, new: str) -> None:
    """Edit a file so that size and mtime stay; only the ctime changes."""
    before = path.stat()
    text = path.read_text()
    assert len(old) == len(new)
    assert old in text
    path.write_text(text.replace(old, new))
    os.utime(path, ns=(before.st_atime_ns, before.st_mtime_ns))
