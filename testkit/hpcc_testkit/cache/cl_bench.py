"""Compiles with clang-cl bare and through the cache, step by step, and compares all outputs.

Make a `ClBench`, then call `compile` for one step or `twice` for a miss and a hit.
"""

from __future__ import annotations

import os
import time
from pathlib import Path
from typing import Final

from hpcc.cache.replay.handler import CacheHandler
from hpcc_testkit.cache.compiles import Compiled, FakeLauncher, run_bare

_LONG_AGO: Final = 3600
_SYSTEM_PATH: Final = "/usr/local/bin:/usr/bin:/bin"


class ClBench:
    """Compiles each step bare and through the cache and compares every output."""

    def __init__(self, cwd: Path, cache: CacheHandler, programs: Path) -> None:
        self.cwd, self.cache = cwd, cache
        self.env = {"PATH": f"{programs}:{_SYSTEM_PATH}"}
        self.launcher = FakeLauncher(handler=cache, cwd=cwd, env=self.env)

    def write(self, name: str, content: str | bytes) -> Path:
        path = self.cwd / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(content if isinstance(content, bytes) else content.encode())
        self.age(path)
        return path

    def age(self, path: Path) -> None:
        """Make a file old, and wait so that its change time is older than the next compile."""
        old = time.time() - _LONG_AGO
        os.utime(path, (old, old))
        time.sleep(0.08)

    def compile(self, *argv: str, output: str = "x.obj") -> tuple[Compiled, bytes]:
        """Return the answer and the object, after comparing both with a bare compile."""
        target = self.cwd / output
        target.unlink(missing_ok=True)
        bare = run_bare(("clang-cl", *argv), cwd=self.cwd, env=self.env)
        expected = target.read_bytes() if target.exists() else b""
        target.unlink(missing_ok=True)
        got = self.launcher.compile("clang-cl", *argv)
        found = target.read_bytes() if target.exists() else b""
        assert (got.exit_code, got.stdout, got.stderr) == bare
        assert found == expected
        return got, found

    def twice(self, *argv: str, output: str = "x.obj") -> bytes:
        """Compile to a miss and to a hit; return the object."""
        miss, first = self.compile(*argv, output=output)
        assert miss.answer == "run", miss
        hit, second = self.compile(*argv, output=output)
        assert hit.answer == "done", (hit, self.cache.counters())
        assert first == second
        return first
