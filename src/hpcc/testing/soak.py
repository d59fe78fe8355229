"""Random edits of small programs, each compiled bare and through hpcc and compared byte for byte.

`python -m hpcc.testing.soak --operations 10000` runs it by hand; `make soak` does.
"""

from __future__ import annotations

import argparse
import contextlib
import os
import random
import shutil
import sys
import tempfile
import threading
from collections import Counter
from collections.abc import Mapping
from pathlib import Path
from typing import Final

from hpcc.core import HpccError
from hpcc.testing.launcher import build_launcher, stop_daemon
from hpcc.testing.trust import QUIET_SECONDS, Outcome, Runner, Scenario, Step, differences, step

_COMPILERS: Final = ("gcc", "g++", "clang", "clang++")
_DIRECTORIES: Final = ("one", "two", "two/deep", "three")
_HEADERS: Final = ("a.h", "b.h", "c.h")
_FLAGS: Final = ("", "-O2", "-g", "-MD", "-MMD", "-DX=2", "-Wall", "-MD -MP -g", "-include a.h")
_TREES: Final = 12
# More than a tick of the file system's clock: what is younger is not kept.
_SHORT_SECONDS: Final = 0.1


class _Tree:
    """One program that is edited at random; a small alphabet makes states come back."""

    def __init__(self, name: str, root: Path, chance: random.Random) -> None:
        self.root, self._chance = root, chance
        self._compiler = chance.choice(_COMPILERS)
        self._flags = ""
        self.scenario = Scenario(name=name, steps=())
        root.mkdir(parents=True)
        (root / "src").mkdir()
        for directory in _DIRECTORIES[1:]:
            (root / directory).mkdir(exist_ok=True)
        self._write_source()
        for header in _HEADERS:
            self._write_header("three", header)

    def edit(self) -> Step:
        """Change something, or nothing, and say what to compile."""
        chance = self._chance
        kind = chance.randrange(10)
        directory, header = chance.choice(_DIRECTORIES), chance.choice(_HEADERS)
        if kind < 3:
            self._write_header(directory, header)
        elif kind == 3:
            (self.root / directory / header).unlink(missing_ok=True)
        elif kind == 4:
            self._write_source()
        elif kind == 5:
            self._flags = chance.choice(_FLAGS)
        elif kind == 6:
            self._exchange(directory, chance.choice(_DIRECTORIES))
        elif kind == 7:
            self._link(directory, header)
        command = f"{self._compiler} {self._flags} -Ione -Itwo -Itwo/deep -Ithree"
        return step(command + " -c src/main.c -o main.o")

    def clean(self) -> None:
        """Remove outputs, so that both compiles start from one state."""
        for name in ("main.o", "main.d"):
            (self.root / name).unlink(missing_ok=True)

    def _write_source(self) -> None:
        lines = [f"#include <{h}>" for h in _HEADERS if self._chance.random() < 0.7]
        lines.append(f"#if __has_include(<{self._chance.choice(_HEADERS)}>)\nint yes;\n#endif")
        lines.append("#ifndef A\n#define A 0\n#endif\nint value = A;\n")
        (self.root / "src/main.c").write_text("\n".join(lines))

    def _write_header(self, directory: str, header: str) -> None:
        path = self.root / directory / header
        if path.is_symlink():
            path.unlink()
        path.parent.mkdir(exist_ok=True)
        once = "#pragma once\n" if self._chance.random() < 0.3 else ""
        nested = f'#ifndef N\n#define N\n#include "{self._chance.choice(_HEADERS)}"\n#endif\n'
        nested = nested if self._chance.random() < 0.3 else ""
        value = self._chance.randrange(3)
        path.write_text(f"{once}{nested}#undef A\n#define A {value}\n")

    def _exchange(self, first: str, second: str) -> None:
        aside = self.root / "aside"
        paths = self.root / first, self.root / second
        nested = first.startswith(second + "/") or second.startswith(first + "/")
        if first != second and not nested and all(p.is_dir() for p in paths):
            paths[0].rename(aside)
            paths[1].rename(paths[0])
            aside.rename(paths[1])

    def _link(self, directory: str, header: str) -> None:
        path = self.root / directory / header
        if path.parent.is_dir():
            path.unlink(missing_ok=True)
            up = "../" * (directory.count("/") + 1)
            path.symlink_to(
                f"{up}{self._chance.choice(_DIRECTORIES)}/{self._chance.choice(_HEADERS)}"
            )


def soak(launcher: Path, directory: Path, *, seed: int, operations: int) -> Mapping[str, int]:
    """Do at least `operations` compiles both ways and return what the daemon counted.

    Raises:
        AssertionError: one differed; seed and operation are in the message.
    """
    chance = random.Random(seed)  # noqa: S311 - a repeatable sequence is the point
    runner = Runner(launcher, directory)
    trees = [_Tree(f"t{n}", directory / "w" / f"t{n}", chance) for n in range(_TREES)]
    counted: Counter[str] = Counter()
    done = 0
    try:
        while done < operations:
            steps = [tree.edit() for tree in trees]
            threading.Event().wait(chance.choice((_SHORT_SECONDS, QUIET_SECONDS)))
            for tree, one in zip(trees, steps, strict=True):
                tree.clean()
                bare = runner.see(tree.scenario, one, tree.root, prefix=())
                tree.clean()
                cached, more = runner.ask(tree.scenario, one, tree.root)
                counted.update(more)
                done += 1
                found = differences(Outcome(bare=bare, cached=cached, counted=more))
                assert not found, f"seed {seed}, operation {done}, {one.argv}: " + "\n".join(found)
    finally:
        with contextlib.suppress(HpccError):
            stop_daemon(runner.env)
    return counted


def _main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--operations", type=int, default=10_000)
    parser.add_argument("--seed", type=int, default=int.from_bytes(os.urandom(4)))
    args = parser.parse_args()
    directory = Path(tempfile.mkdtemp(prefix="hpcc-soak-"))
    try:
        launcher = build_launcher(directory / "launcher")
        sys.stdout.write(f"seed {args.seed}\n")
        sys.stdout.flush()
        counted = soak(launcher, directory, seed=args.seed, operations=args.operations)
    finally:
        shutil.rmtree(directory)
    for name, count in sorted(counted.items()):
        sys.stdout.write(f"{count:10} {name}\n")
    return 0


if __name__ == "__main__":
    sys.exit(_main())
