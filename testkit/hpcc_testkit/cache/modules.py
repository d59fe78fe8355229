"""A project with named modules, compiled with and without a cache as CMake and Ninja do it."""

from __future__ import annotations

from pathlib import Path
from typing import Final

from hpcc.cache.cache import Cache
from hpcc_testkit.cache.compiles import FakeLauncher, run_bare

SOURCES: Final = {
    "conf.h": "#define SEED 3\n",
    "base.cppm": 'module;\n#include "conf.h"\nexport module base;\n// aaa\n'
    "export inline int base(int x) { return x + SEED; }\n",
    "part.cppm": "export module mid:part;\nexport struct Part { int a = 4; };\n",
    "mid.cppm": "export module mid;\nexport import base;\nexport import :part;\n"
    "export int mid(int x);\nexport template <class T> T twice(T t) { return t + base(1); }\n",
    "impl.cpp": "module mid;\nint mid(int x) { return base(x) + Part{}.a; }\n",
    "user.cpp": "import mid;\nint user() { return twice(2) + mid(3); }\n",
}
IMPORTS: Final = {
    "base.cppm": (),
    "part.cppm": (),
    "mid.cppm": ("base", "mid:part"),
    "impl.cpp": ("mid", "base", "mid:part"),
    "user.cpp": ("mid", "base", "mid:part"),
}
NAMES: Final = {"base.cppm": "base", "part.cppm": "mid:part", "mid.cppm": "mid"}
ALL: Final = tuple(IMPORTS)


class Build:
    """A build directory whose commands are those of CMake with Ninja.

    GCC gets the maps as CMake writes them: with the direct imports. `maps` are flags that only a
    bare compile gets.
    """

    def __init__(self, root: Path, cache: Cache, compiler: str) -> None:
        self.root, self.directory, self.cache, self.compiler = root, root / "b", cache, compiler
        self.is_clang = compiler.startswith("clang")
        self.always: tuple[str, ...] = ("-g", "-std=c++20")
        self.maps: tuple[str, ...] = ()
        self.plant()
        self.launcher = FakeLauncher(handler=cache, cwd=self.directory)

    def plant(self) -> None:
        """Write the project as a fresh clone has it, and the response files."""
        for name, text in SOURCES.items():
            self.write(name, text)
        (self.directory / "mods").mkdir(parents=True, exist_ok=True)
        for source, imported in IMPORTS.items():
            lines = [f'-fmodule-file="{name}={self.interface(name)}"' for name in imported]
            if source in NAMES:
                lines = [
                    "-x c++-module",
                    f"-fmodule-output={self.interface(NAMES[source])}",
                    *lines,
                ]
            if not self.is_clang:
                named = (NAMES.get(source, ""), *(imported[:1] if "cpp" in source[-4:] else ()))
                named = (*named, *imported) if source == "mid.cppm" else named
                lines = [
                    "$root .",
                    *(f"{n} {self.interface(n)}" for n in dict.fromkeys(named) if n),
                ]
            text = "".join(line + "\n" for line in lines)
            (self.directory / f"{source}.o.modmap").write_text(text)

    def write(self, name: str, text: str) -> None:
        """Write a file of the project."""
        self.root.mkdir(parents=True, exist_ok=True)
        (self.root / name).write_text(text)

    def command(self, source: str, *more: str) -> tuple[str, ...]:
        """Return the command of one source."""
        made = f"{source}.o"
        depfile = ("-MD", "-MT", made, "-MF", f"{made}.d")
        by_map: tuple[str, ...] = (f"@{made}.modmap",)
        if not self.is_clang:
            mapper = ("-fmodules-ts", f"-fmodule-mapper={made}.modmap", "-MD")
            by_map = (*mapper, "-fdeps-format=p1689r5", "-x", "c++")
        words = (self.compiler, *self.always, *more, *depfile, *by_map)
        return (*words, "-o", made, "-c", f"{self.root}/{source}")

    def compile(self, source: str, *more: str) -> str:
        """Compile a source, compare all outputs with a bare compile, and return the answer."""
        argv = self.command(source, *more)
        for name in self.outputs(source):
            (self.directory / name).unlink(missing_ok=True)
        ended = self.launcher.compile(*argv)
        made = {name: self.read(name) for name in self.outputs(source)}
        code, out, err = run_bare((*argv, *self.maps), cwd=self.directory)
        bare = {name: self.read(name) for name in self.outputs(source)}
        interface = self.interface(NAMES[source]) if source in NAMES else ""
        if interface and not self.is_clang:  # GCC's tells when it was made
            keep = made.pop(interface)
            assert (keep is None) == (bare.pop(interface) is None)
            if keep is not None:
                (self.directory / interface).write_bytes(keep)
        assert made == bare
        assert (ended.exit_code, ended.stdout, ended.stderr) == (code, out, err)
        return ended.answer if code == 0 else f"{ended.answer}, exit {code}"

    def compile_all(self) -> list[str]:
        """Compile all sources in the order of their imports; return the answers."""
        return [self.compile(source) for source in ALL]

    def interface(self, name: str) -> str:
        """Return where a module's interface is."""
        return f"mods/{name.replace(':', '-')}.{'pcm' if self.is_clang else 'gcm'}"

    def outputs(self, source: str) -> tuple[str, ...]:
        """Return what a compile of a source writes."""
        made = f"{source}.o"
        own = (self.interface(NAMES[source]),) if source in NAMES else ()
        return (made, f"{made}.d", *own)

    def read(self, name: str) -> bytes | None:
        """Return what is in the build directory under a name."""
        path = self.directory / name
        return path.read_bytes() if path.exists() else None

    def counted(self, *kinds: str) -> dict[str, int]:
        """Return the counters of these kinds that are not zero."""
        found = self.cache.counters().items()
        return {name: n for name, n in found if n and name.partition(".")[0] in kinds}
