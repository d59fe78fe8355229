"""What both kinds of package share: versions, machines, and a place to write entries."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from release.dsse import RefusedError

from packages.entries import Entry
from packages.layout import Source
from packages.table import Package

_VERSION: Final = re.compile(r"(\d+(?:\.\d+)*)((?:a|b|rc|\.dev)\d+)?")
_GLIBC: Final = re.compile(rb"GLIBC_2\.(\d+)\0")


@dataclass(frozen=True, slots=True, kw_only=True)
class Request:
    """One package to build into `out`. `revision` counts packages of one version of hpcc."""

    package: Package
    source: Source
    version: str
    out: Path
    revision: int = 1

    @property
    def upstream(self) -> str:
        """Return hpcc's version as both families order it: a candidate is before its release."""
        match = _VERSION.fullmatch(self.version)
        if not match:
            raise RefusedError(f"no version of a package: {self.version!r}")
        return match[1] + (f"~{match[2].lstrip('.')}" if match[2] else "")

    @property
    def full(self) -> str:
        """Return the version with its revision."""
        return f"{self.upstream}-{self.revision}"


def newest_glibc(entries: Iterable[Entry]) -> int:
    """Return N of the newest glibc 2.N that a program or library in these entries names; or 0."""
    contents = (entry.content or b"" for entry in entries)
    elves = (content for content in contents if content.startswith(b"\x7fELF"))
    return max((int(n) for content in elves for n in _GLIBC.findall(content)), default=0)


def run(command: Sequence[str | Path], epoch: int) -> None:
    """Run a tool that builds a package.

    Raises:
        RefusedError: it is not installed, or it fails.
    """
    tool = str(command[0])
    if shutil.which(tool) is None:
        raise RefusedError(f"{tool} is not installed: tools/bootstrap.sh packages test")
    env = {**os.environ, "SOURCE_DATE_EPOCH": str(epoch), "LC_ALL": "C.UTF-8", "TZ": "UTC"}
    done = subprocess.run(command, env=env, umask=0o022, capture_output=True, check=False)
    if done.returncode != 0:
        problem = (done.stdout + done.stderr).decode(errors="replace")[-4000:]
        raise RefusedError(f"{tool} failed:\n{problem}")
