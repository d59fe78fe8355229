"""hpcc as a user has it, on one machine and under one directory, for end-to-end tests.

Make a `Machine`, run `hpcc` commands with it, and `close` it.
"""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Final

HPCC: Final = Path(sys.executable).parent / "hpcc"
POLL_SECONDS: Final = 0.05


class Machine:
    """Runs the installed `hpcc` with `HPCC_DIR` under `root`; images and assets are shared.

    With `snapshots` its worker keeps guest snapshots there, and restores a snapshot that another
    test machine saved instead of booting.
    """

    def __init__(self, root: Path, shared_cache: Path, snapshots: Path | None = None) -> None:
        self.root, self.directory = root, root / "hpcc"
        if snapshots is not None:
            runtime = self.directory / "state" / "runtime"
            for directory in (self.directory, runtime.parent, runtime):
                directory.mkdir(mode=0o700, parents=True, exist_ok=True)
            (runtime / "snapshots").symlink_to(snapshots)
        cache = self.directory / "cache"
        cache.mkdir(parents=True, exist_ok=True)
        for name in ("images", "guest"):
            shared = shared_cache / name
            shared.mkdir(parents=True, exist_ok=True)
            if not (cache / name).exists():
                (cache / name).symlink_to(shared)
        self.env = {
            "PATH": f"{HPCC.parent}:/usr/local/bin:/usr/bin:/bin:/usr/sbin:/sbin",
            "HOME": str(root),
            "HPCC_DIR": str(self.directory),
            "LC_ALL": "C.UTF-8",
        }

    def run(
        self,
        argv: Sequence[str],
        *,
        cwd: Path | None = None,
        timeout: float = 300,
        check: bool = True,
    ) -> subprocess.CompletedProcess[str]:
        """Run a command as the user would; a failure carries its output."""
        done = subprocess.run(
            list(argv), env=self.env, cwd=cwd or self.root, capture_output=True, text=True,
            errors="surrogateescape", timeout=timeout, check=False, stdin=subprocess.DEVNULL,
        )  # fmt: skip
        if check and done.returncode:
            raise AssertionError(f"{argv} -> {done.returncode}\n{done.stdout}\n{done.stderr}")
        return done

    def hpcc(
        self, *args: str, timeout: float = 300, check: bool = True
    ) -> subprocess.CompletedProcess[str]:
        return self.run([str(HPCC), *args], timeout=timeout, check=check)

    def spawn(self, argv: Sequence[str], *, cwd: Path) -> subprocess.Popen[str]:
        """Start a command in a new session, so that a signal reaches all its processes."""
        return subprocess.Popen(
            list(argv), env=self.env, cwd=cwd, text=True, start_new_session=True,
            stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.STDOUT,
        )  # fmt: skip

    def counters(self) -> dict[str, int]:
        counters = json.loads(self.hpcc("stats", "--json").stdout)
        return {str(k): int(v) for k, v in counters.items()}

    def count(self, prefix: str) -> int:
        """Return the sum of a counter and those below it (`fallback` sums `fallback.*`)."""
        return sum(
            v for k, v in self.counters().items() if k == prefix or k.startswith(prefix + ".")
        )

    def processes(self, *words: str) -> list[int]:
        """Return this machine's processes whose command lines have its directory and all words."""
        found = []
        for entry in Path("/proc").iterdir():
            if not entry.name.isdigit() or int(entry.name) == os.getpid():
                continue
            try:
                line = (
                    (entry / "cmdline").read_bytes().replace(b"\0", b" ").decode(errors="replace")
                )
                environ = (entry / "environ").read_bytes().decode(errors="replace")
            except OSError:
                continue
            if (str(self.directory) in line or f"HPCC_DIR={self.directory}" in environ) and all(
                word in line for word in words
            ):
                found.append(int(entry.name))
        return sorted(found)

    def leftovers(self) -> list[str]:
        """Return the processes and mounts of this machine that still exist."""
        deadline = time.monotonic() + 5
        while (left := self.processes()) and time.monotonic() < deadline:
            time.sleep(POLL_SECONDS)
        mounts = Path("/proc/self/mounts").read_text().splitlines()
        return [str(pid) for pid in left] + [m for m in mounts if str(self.directory) in m]

    def wait_for(self, what: str, *words: str, seconds: float = 60) -> list[int]:
        """Wait until a process with those words runs; return the pids."""
        deadline = time.monotonic() + seconds
        while time.monotonic() < deadline:
            if found := self.processes(*words):
                return found
            time.sleep(POLL_SECONDS)
        raise AssertionError(f"no {what} within {seconds} s")

    def close(self) -> None:
        """Run `hpcc down` and `hpcc stop`; whether they succeed is not checked."""
        for command in ("down", "stop"):
            self.hpcc(command, check=False, timeout=90)

    def kill_all(self) -> None:
        for pid in self.processes():
            try:
                os.kill(pid, signal.SIGKILL)
            except ProcessLookupError:
                continue
