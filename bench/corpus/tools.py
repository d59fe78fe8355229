"""The tools that are compared: the bare compiler, the distribution's ccache, and hpcc."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
from collections.abc import Mapping
from pathlib import Path
from typing import Final

BARE: Final = "bare"
CCACHE: Final = "ccache"
HPCC: Final = "hpcc"
_SECONDS: Final = 120
_STARTS: Final = 3
_REASONS: Final = ("bypass.", "uncacheable.", "missed.", "front.", "launcher.", "private.")
_IGNORED: Final = frozenset({"front.requests", "front.replayed"})


class Tool:
    """A word to put in front of a compile, with its own empty cache."""

    def __init__(self, name: str, prefix: tuple[str, ...], env: Mapping[str, str]) -> None:
        self.name, self.prefix, self.env = name, prefix, dict(env)

    def reasons(self) -> dict[str, int]:
        """Return counters of reasons for misses, since the cache was made."""
        return {}

    def place(self, output: str) -> str:
        """Return what the tool says about its last refusal of a compile; "" if nothing."""
        del output
        return ""

    def start(self) -> None:
        """Start what the tool would otherwise start at its first compile."""

    def stop(self) -> None:
        """End what the tool started."""


class Hpcc(Tool):
    """hpcc with a private directory; its daemon runs until `stop`."""

    def __init__(self, launcher: Path, directory: Path) -> None:
        super().__init__(HPCC, (str(launcher),), {"HPCC_DIR": str(directory)})

    def _run(self, *args: str) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            [*self.prefix, *args], env={**os.environ, **self.env}, capture_output=True, text=True,
            timeout=_SECONDS, check=False,
        )  # fmt: skip

    def _ask(self, *args: str) -> str:
        return self._run(*args).stdout

    def reasons(self) -> dict[str, int]:
        try:
            counts = json.loads(self._ask("stats", "--json"))
        except json.JSONDecodeError:
            return {}
        return {
            name: value
            for name, value in counts.items()
            if name.startswith(_REASONS) and name not in _IGNORED
        }

    def place(self, output: str) -> str:
        lines = [line.strip() for line in self._ask("explain", output).splitlines()]
        heads = ("because", "found at")
        words = [line.partition(head)[2].strip() for head in heads for line in lines
                 if line.startswith(head)]  # fmt: skip
        return "; ".join(words)

    def start(self) -> None:
        # On a busy machine the first compiles would not wait for the daemon.
        for _ in range(_STARTS):
            if self._run("start").returncode == 0:
                return

    def stop(self) -> None:
        self._ask("stop", "--now")


def make_tools(scratch: Path, launcher: Path) -> list[Tool]:
    """Return the tools in the order in which they run; caches are below `scratch`."""
    for name in (CCACHE, HPCC):
        shutil.rmtree(scratch / name, ignore_errors=True)
    ccache = shutil.which("ccache") or "ccache"
    return [
        Tool(BARE, (), {}),
        Tool(CCACHE, (ccache,), {"CCACHE_DIR": str(scratch / CCACHE)}),
        Hpcc(launcher, scratch / HPCC),
    ]
