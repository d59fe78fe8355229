"""Runs Debian's Bazel on a small project, as a stock client of a worker or a gateway.

Call `missing_or_none` first: it returns the reason to skip. Then use the `bazel` context manager.
"""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Final

_PROJECT: Final = Path(__file__).parents[3] / "tests" / "e2e" / "bazel"
_RULES: Final = Path("/usr/share/bazel/rules")
_TLS_JAR: Final = Path("/usr/share/java/netty-tcnative.jar")
_TLS_LIBRARY: Final = "libnetty-tcnative.so"
# Debian's multiarch directories are below this one.
_LIBRARIES: Final = Path("/usr/lib")
_RUN_SECONDS: Final = 300.0
_END_SECONDS: Final = 20.0


def missing_or_none() -> str | None:
    """Return what this machine lacks to run Bazel, or None."""
    is_there = shutil.which("bazel") and (_RULES / "java").is_dir() and _TLS_JAR.exists()
    if is_there and any(_LIBRARIES.glob(f"*/jni/{_TLS_LIBRARY}")):
        return None
    return "no Bazel, its rules or its TLS library: tools/bootstrap.sh packages test"


class Bazel:
    """One workspace and one server, which ends with `close`."""

    def __init__(self, root: Path) -> None:
        self.root = root
        self.workspace, self._output_root = root / "workspace", root / "output"
        shutil.copytree(_PROJECT, self.workspace, ignore=shutil.ignore_patterns("rules_cc"))
        shutil.copytree(_PROJECT / "rules_cc", root / "rules_cc")
        # A copy, because Netty looks for this name and resolves links before it compares.
        library = next(_LIBRARIES.glob(f"*/jni/{_TLS_LIBRARY}"))
        (root / "native").mkdir()
        shutil.copy(library, root / "native" / "libnetty_tcnative.so")
        self._startup: tuple[str, ...] = (
            "bazel",
            "--nohome_rc",
            f"--output_user_root={self._output_root}",
            "--max_idle_secs=120",
            "--host_jvm_args=-Xmx512m",
            # Debian's Netty has no ALPN with Java's TLS.
            f"--host_jvm_args=-Djava.library.path={root / 'native'}",
            f"--host_jvm_args=-Xbootclasspath/a:{_TLS_JAR}",
        )
        self._env = {
            "PATH": "/usr/local/bin:/usr/bin:/bin",
            "HOME": str(root),
            "LC_ALL": "C.UTF-8",
        }

    def use(self, bazelrc: Path) -> None:
        """Use a user's settings, as `hpcc token` writes them."""
        self._startup = (*self._startup, f"--bazelrc={bazelrc}")

    def build(self, *flags: str) -> subprocess.CompletedProcess[str]:
        """Build everything remotely with these flags; no action of the project runs locally."""
        return self._run(
            "build",
            "//:check",
            "//:demo",
            "--crosstool_top=//toolchain:suite",
            "--cpu=k8",
            f"--override_repository=rules_cc={self.root / 'rules_cc'}",
            *(f"--override_repository=rules_{n}={_RULES / n}" for n in ("java", "proto")),
            "--spawn_strategy=remote",
            "--genrule_strategy=remote",
            "--jobs=4",
            "--color=no",
            "--curses=no",
            "--noshow_progress",
            *flags,
        )

    def clean(self) -> None:
        done = self._run("clean")
        assert done.returncode == 0, done.stderr

    def output(self, path: str) -> bytes:
        return (self.workspace / "bazel-bin" / path).read_bytes()

    def close(self) -> None:
        """End the server; kill it by pid if it ignores the shutdown request."""
        pids = [int(f.read_text()) for f in self._output_root.glob("*/server/server.pid.txt")]
        with suppress(subprocess.TimeoutExpired):
            self._run("shutdown", seconds=_END_SECONDS)
        for pid in pids:
            with suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
            deadline = time.monotonic() + _END_SECONDS
            while Path(f"/proc/{pid}").exists() and time.monotonic() < deadline:
                time.sleep(0.05)
        # Bazel removes the write permission from its outputs.
        for directory, _, _ in os.walk(self._output_root):
            with suppress(OSError):
                Path(directory).chmod(0o700)

    def _run(self, *args: str, seconds: float = _RUN_SECONDS) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            [*self._startup, *args], cwd=self.workspace, env=self._env, capture_output=True,
            text=True, timeout=seconds, check=False, stdin=subprocess.DEVNULL,
        )  # fmt: skip


@contextmanager
def bazel(root: Path) -> Iterator[Bazel]:
    """Yield a Bazel; end its server when the block ends."""
    root.mkdir(parents=True)
    one = Bazel(root)
    try:
        yield one
    finally:
        one.close()
