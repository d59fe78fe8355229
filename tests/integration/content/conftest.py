"""A cache, and projects in several places that are compiled through it and bare."""

from __future__ import annotations

import os
import shutil
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import pytest

from hpcc.cache.cache import Cache, open_cache
from hpcc.config.paths import Paths
from hpcc.config.settings import Settings
from hpcc_testkit.cache.compiles import FakeLauncher, run_bare
from hpcc_testkit.suite.system_digests import shared_digests

__all__ = ["shared_digests"]  # a fixture of each test here

_LONG_AGO = 3600
_OUTPUTS = {".o", ".d", ".su", ".s"}


def age(root: Path) -> None:
    """Make all files older than any compile."""
    old = time.time() - _LONG_AGO
    for path in root.rglob("*"):
        if not path.is_symlink():
            os.utime(path, (old, old))
    time.sleep(0.06)


@dataclass(slots=True)
class Project:
    """One place of a project, and a launcher that compiles in it."""

    root: Path
    cache: Cache
    env: dict[str, str] = field(default_factory=dict)
    gets_maps: bool = True
    """Whether hpcc adds prefix maps to these compiles if there is a marker."""

    def write(self, name: str, text: str) -> None:
        path = self.root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)

    def spell(self, argv: Sequence[str]) -> list[str]:
        """Replace `{root}` by this place."""
        return [word.replace("{root}", str(self.root)) for word in argv]

    def compile(self, argv: Sequence[str], cwd: str = "build") -> str:
        """Compile through the cache and bare; both must leave the same. Return how hpcc answered."""
        directory = self.root / cwd
        directory.mkdir(parents=True, exist_ok=True)
        self._clear()
        before = self._state()
        launcher = FakeLauncher(handler=self.cache, cwd=directory, env=dict(self.env))
        words = self.spell(argv)
        cached = launcher.compile(*words)
        if self.gets_maps and (self.root / ".hpcc").exists():
            words += self._maps(directory)
        left = self._new(before)
        for path in left:
            path.unlink()
        code, out, err = run_bare(words, cwd=directory, env=self.env)
        expected = self._new(before)
        named = {str(p.relative_to(self.root)): data for p, data in left.items()}
        wanted = {str(p.relative_to(self.root)): data for p, data in expected.items()}
        assert (cached.exit_code, cached.stdout, cached.stderr) == (code, out, err)
        assert named == wanted, f"{sorted(named)} against {sorted(wanted)}"
        return "hit" if cached.answer == "done" else "miss"

    def _clear(self) -> None:
        """Remove all outputs, so that none of an earlier compile is compared."""
        for path in self.root.rglob("*"):
            is_source = path.suffix == ".s" and path.parent.name == "src"
            if path.suffix in _OUTPUTS and path.is_file() and not is_source:
                path.unlink()

    def _maps(self, directory: Path) -> list[str]:
        """The flags of a project with a marker as a user would write them."""
        maps = [f"-fmacro-prefix-map={self.root}/=./"]
        maps.append(f"-fdebug-prefix-map={self.root}/=/proc/self/cwd/")
        last = f"-fdebug-prefix-map={self.root}=/proc/self/cwd"
        return [*maps, last] if directory == self.root else maps

    def _state(self) -> set[Path]:
        return set(self.root.rglob("*"))

    def _new(self, before: set[Path]) -> dict[Path, bytes]:
        return {p: p.read_bytes() for p in self.root.rglob("*") if p.is_file() and p not in before}


@pytest.fixture
def cache(tmp_path: Path) -> Iterator[Cache]:
    opened = open_cache(Paths.from_env({"HPCC_DIR": str(tmp_path / "hpcc")}), Settings(), None)
    yield opened
    opened.close()


@pytest.fixture
def make(cache: Cache, tmp_path: Path) -> Callable[..., Project]:
    """Make a project from files, with a `.git` in its root unless `root_name` says otherwise."""

    def made(place: str, files: Mapping[str, str], *, root_name: str = ".git") -> Project:
        project = Project(tmp_path / place, cache)
        for name, text in files.items():
            project.write(name, text)
        if root_name == ".hpcc":
            project.write(".hpcc", "")
        elif root_name:
            (project.root / root_name).mkdir(parents=True, exist_ok=True)
        age(project.root)
        return project

    return made


@pytest.fixture
def move(cache: Cache, tmp_path: Path) -> Callable[[Project, str], Project]:
    """Copy a project, with its times, to another place."""

    def moved(project: Project, place: str) -> Project:
        target = tmp_path / place
        shutil.copytree(project.root, target, symlinks=True)
        return Project(target, cache, dict(project.env), project.gets_maps)

    return moved
