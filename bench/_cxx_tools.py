"""The compared tools of `cxx_projects`: also ccache and sccache with what their manuals ask for.

- ccache: `sloppiness` as its manual asks for precompiled headers and for modules, the depend mode
  that it asks for modules, and `base_dir` without `hash_dir` for a second directory. CMake includes
  a precompiled header by `-include`, and the project has `-fno-pch-timestamp`, as the manual wants.
- sccache: the pinned release, which is newer than the distribution's, with `SCCACHE_BASEDIRS`. Its
  documents name no setting for precompiled headers, modules or CUDA.
- Both: CMake does not look for modules where there are none, since they decline its flags.
"""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Final

from _measure import run
from _tools import BARE, OURS, Ccache, Hpcc, Sccache, Tool, clean_env

CCACHE_SET: Final = "ccache, set"
SCCACHE_SET: Final = "sccache, set"
NAMES: Final = (BARE, OURS, Ccache.name, CCACHE_SET, Sccache.name, SCCACHE_SET)
_SLOPPINESS: Final = "pch_defines,time_macros,include_file_mtime,include_file_ctime"
_MODULES: Final = frozenset({"modules", "import-std"})
_NEWER: Final = "hpcc-tests/sccache-0.16.0/bin/sccache"


class SetCcache(Ccache):
    """ccache with the settings of its manual."""

    name = CCACHE_SET


class SetSccache(Sccache):
    """The newer sccache with base directories."""

    name = SCCACHE_SET

    def __init__(self, base_env: Mapping[str, str], scratch: Path) -> None:
        super().__init__(base_env, scratch)
        self.prefix = (str(newer_sccache()),)


_CLASSES: Final = {
    Ccache.name: Ccache,
    CCACHE_SET: SetCcache,
    Sccache.name: Sccache,
    SCCACHE_SET: SetSccache,
    OURS: Hpcc,
}


def newer_sccache() -> Path:
    """Return where `tools/bootstrap.sh sccache` puts the pinned release."""
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache", _NEWER)


def is_set(tool: Tool) -> bool:
    """Return whether a tool has other settings than its defaults."""
    return tool.name in {CCACHE_SET, SCCACHE_SET}


def uses_modules(project: str) -> bool:
    """Return whether CMake must look for modules in a project's sources."""
    return project in _MODULES


def settle_in(tool: Tool, project: str, clones: Sequence[Path]) -> None:
    """Give a tool the settings for one project; sccache reads them at its next start."""
    if tool.name == CCACHE_SET:
        is_modules = uses_modules(project)
        tool.env["CCACHE_SLOPPINESS"] = _SLOPPINESS + (",modules" if is_modules else "")
        tool.env |= {"CCACHE_BASEDIR": str(clones[0].parent), "CCACHE_NOHASHDIR": "1"}
        tool.env.pop("CCACHE_DEPEND", None)
        if is_modules:
            tool.env["CCACHE_DEPEND"] = "1"
    if tool.name == SCCACHE_SET:
        tool.env["SCCACHE_BASEDIRS"] = os.pathsep.join(map(str, clones))


def counters(tool: Tool) -> dict[str, int]:
    """Return all counters of hpcc; nothing for other tools."""
    if tool.name != OURS:
        return {}
    found = json.loads(run([*tool.prefix, "stats", "--json"], tool.env, Path("/")))
    return {name: count for name, count in found.items() if isinstance(count, int)}


def available(names: Sequence[str]) -> tuple[list[str], dict[str, str]]:
    """Return the tools that are here, and the reason for each missing one."""
    there, absent = [], {}
    for name in names:
        program = name.partition(",")[0]
        if name == SCCACHE_SET and not newer_sccache().is_file():
            absent[name] = f"{name}: no {newer_sccache()} (tools/bootstrap.sh sccache)"
        elif name not in {BARE, OURS, SCCACHE_SET} and not shutil.which(program):
            absent[name] = f"{program} is not installed (tools/bootstrap.sh packages bench)"
        else:
            there.append(name)
    return there, absent


@contextmanager
def running(names: Sequence[str], scratch: Path) -> Iterator[list[Tool]]:
    """Start the named tools, each in a separate directory; end all of them when the block ends."""
    made: list[Tool] = []
    with ExitStack() as stack:
        for name in names:
            directory = scratch / name.replace(", ", "-")
            directory.mkdir(parents=True)
            tool = _CLASSES[name](clean_env(), directory) if name != BARE else Tool(clean_env())
            stack.callback(tool.stop)
            tool.start()
            made.append(tool)
        yield made
