"""A project with a precompiled header, compiled with and without a cache."""

from __future__ import annotations

import os
import time
from pathlib import Path
from typing import Final

from hpcc.cache.cache import Cache
from hpcc.cache.results.records_read import read_records
from hpcc.config.paths import Paths
from hpcc_testkit.cache.compiles import FakeLauncher, run_bare

PCH, OBJECT = "pch.h.gch", "u.o"
NO_TIMES: Final = ("-Xclang", "-fno-pch-timestamp")
GENERATED = {
    "build/pch.h": '#pragma GCC system_header\n#include "../src/all.h"\n',
    "build/pch.h.cxx": "/* generated */\n",
}
SOURCES = {
    "src/all.h": '#pragma once\n#include "once.h"\n#include "guarded.h"\n',
    "src/once.h": "#pragma once\ninline int once() { return 1; }\n",
    "src/guarded.h": "#ifndef G\n#define G\ninline int guarded() { return 1; }\n#endif\n",
    "src/u.cpp": '#include "once.h"\nint u() { return once() + guarded(); }\n',
}

# A tick takes 10 ms at most.
_TICKS_SECONDS = 0.025


class Build:
    """A build directory whose commands are those of CMake for `target_precompile_headers`.

    `always` are the flags of every compile, `maps` are those that only a bare compile gets.
    """

    def __init__(self, root: Path, cache: Cache, compiler: str, paths: Paths) -> None:
        self.root, self.directory, self.cache, self.gcc = root, root / "build", cache, compiler
        self.is_clang, self.paths = compiler.startswith("clang"), paths
        self.header = f"{self.directory}/pch.h"
        self.pch = "pch.h.pch" if self.is_clang else PCH
        self.always: tuple[str, ...] = ("-O1", "-g", *(NO_TIMES if self.is_clang else ()))
        self.maps: tuple[str, ...] = ()
        self.plant()
        self.launcher = FakeLauncher(handler=cache, cwd=self.directory)

    def plant(self) -> None:
        """Write the project as a fresh clone has it after CMake, and let its files settle."""
        for name, text in (SOURCES | GENERATED).items():
            self.write(name, text)
        # A header that nobody knew before and that is younger than a tick of the kernel's clock may
        # have changed since the compile began.
        time.sleep(_TICKS_SECONDS)

    def write(self, name: str, text: str) -> None:
        """Write a file of the project."""
        path = self.root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)

    def making(self, *more: str) -> tuple[str, ...]:
        """Return the command that makes the precompiled header."""
        depfile = ("-MD", "-MT", self.pch, "-MF", f"{self.pch}.d")
        included: tuple[str, ...] = ("-x", "c++-header", "-include", self.header)
        if self.is_clang:
            inner = _inner("-emit-pch", "-include", self.header)
            included = ("-fpch-instantiate-templates", *inner, "-x", "c++-header")
        words = (self.gcc, *self.always, "-Winvalid-pch", *more, *included, *depfile)
        return (*words, "-o", self.pch, "-c", f"{self.header}.cxx")

    def using(self, *more: str, source: str = "u.cpp") -> tuple[str, ...]:
        """Return the command of a unit that uses it."""
        depfile = ("-MD", "-MT", OBJECT, "-MF", f"{OBJECT}.d")
        included: tuple[str, ...] = ("-include", self.header)
        if self.is_clang:
            pch = f"{self.directory}/{self.pch}"
            included = _inner("-include-pch", pch, "-include", self.header)
        words = (self.gcc, *self.always, "-Winvalid-pch", *more, *included, *depfile)
        return (*words, "-o", OBJECT, "-c", f"{self.root}/src/{source}")

    def make(self, *more: str) -> str:
        """Make the precompiled header through hpcc; return the answer."""
        ended = self.launcher.compile(*self.making(*more))
        assert ended.exit_code == 0, ended.stderr
        return ended.answer

    def use(self, *more: str, source: str = "u.cpp") -> str:
        """Compile a unit, compare all outputs with a bare compile, and return the answer."""
        argv = self.using(*more, source=source)
        made: list[dict[str, bytes | None]] = []
        (self.directory / OBJECT).unlink(missing_ok=True)
        ended = self.launcher.compile(*argv)
        made.append(self.outputs())
        (self.directory / OBJECT).unlink(missing_ok=True)
        code, out, err = run_bare((*argv, *self.maps), cwd=self.directory)
        made.append(self.outputs())
        assert made[0] == made[1]
        assert (ended.exit_code, ended.stdout, ended.stderr) == (code, out, err)
        return ended.answer if code == 0 else f"{ended.answer}, exit {code}"

    def outputs(self) -> dict[str, bytes | None]:
        """Return what the compile of a unit wrote."""
        return {name: self.read(name) for name in (OBJECT, f"{OBJECT}.d")}

    def read(self, name: str) -> bytes | None:
        """Return what is in the build directory under a name."""
        path = self.directory / name
        return path.read_bytes() if path.exists() else None

    def counted(self, kind: str = "uncacheable") -> dict[str, int]:
        """Return the counters of one kind that are not zero."""
        found = self.cache.counters().items()
        return {name: count for name, count in found if name.startswith(f"{kind}.") and count}

    def culprit(self) -> str:
        """Return what the newest record names."""
        self.cache.close()
        return read_records(os.fspath(self.paths.cache))[-1].culprit


def _inner(*words: str) -> tuple[str, ...]:
    return tuple(piece for word in words for piece in ("-Xclang", word))
