"""Programs that the soak edits at random. A small alphabet makes earlier states come back.

Every kind of tree implements `Tree`: `edit` changes it and returns the next compile.
"""

from __future__ import annotations

import contextlib
import os
import random
import shutil
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Final, Protocol

from hpcc_testkit.cache.soak_pool import Pool
from hpcc_testkit.trust.steps import Step, snapshot, step, write_keeping_times

OUTPUTS: Final = "out"
_DIRECTORIES: Final = ("one", "two", "two/deep", "three", "late", "src")
_HEADERS: Final = ("a.h", "b.h", "c.h")
_FLAGS: Final = (
    "",
    "-O2",
    "-g",
    "-MD",
    "-MMD",
    "-DX=2",
    "-Wall -Wextra",
    "-MD -MP -g",
    "-MMD -MF out/named.d -MT goal",
    "-include a.h",
    "-imacros b.h -O1",
    "-iquote three",
    "-isystem two -MD",
    "-idirafter one",
    "-S",
    "-g -gsplit-dwarf",
    "-fstack-usage -MD",
    "-save-temps=obj",
    "-ftest-coverage -frandom-seed=1",
    "-g -ffile-prefix-map=src=elsewhere",
    "-O2 -march=native",
    "-Werror",
    "-fdiagnostics-color=always -Wall",
    "@flags.rsp",
    "-flto -frandom-seed=1",
    "-E",
    "-nostdinc",
)
_RESPONSES: Final = ("-O2 -DX=1\n", "-DX=3 -Ithree\n", "-MD -g\n")
_ENVIRONMENTS: Final[tuple[Mapping[str, str], ...]] = (
    {},
    {},
    {},
    {"CPATH": "three"},
    {"C_INCLUDE_PATH": "one:three", "CPLUS_INCLUDE_PATH": "three"},
    {"SOURCE_DATE_EPOCH": "1000000000"},
    {"LC_ALL": "C.UTF-8"},
    {"GCC_COLORS": ""},
    {"UNRELATED": "value"},
)
_UMASKS: Final = (0o022, 0o022, 0o077, 0o002)
_KEPT_STATES: Final = 4
_OLD_OUTPUT: Final = b"left by an earlier compile"


class Tree(Protocol):
    """A program on disk, edited and compiled in place."""

    @property
    def name(self) -> str: ...
    @property
    def root(self) -> Path: ...
    @property
    def maps(self) -> tuple[bytes, ...]:
        """The flags that hpcc may add so that clones can share; empty without a marker."""
        ...

    def edit(self) -> Step:
        """Make a random change, or none, and return the compile to do next."""
        ...


def inputs_of(root: Path) -> frozenset[tuple[bytes, object]]:
    """Return the state of a tree without its outputs."""
    outputs = OUTPUTS.encode()
    return frozenset(
        (name, entry)
        for name, entry in snapshot(root).items()
        if name != outputs and not name.startswith(outputs + b"/")
    )


def times_of_once(root: Path) -> frozenset[tuple[str, int]]:
    """Return the seconds that GCC compares when two files with `#pragma once` are alike."""
    found = set()
    for path in root.rglob("*.h"):
        if path.is_file() and b"#pragma once" in path.read_bytes():
            found.add((str(path), int(path.stat().st_mtime)))
    return frozenset(found)


class SmallTree:
    """One source and three headers that may be in six directories, or in none."""

    maps: tuple[bytes, ...] = ()

    def __init__(self, name: str, root: Path, chance: random.Random, pool: Pool) -> None:
        self.name, self.root, self._chance, self._pool = name, root, chance, pool
        self._is_cxx = chance.random() < 0.35
        self._source = "src/main.cc" if self._is_cxx else "src/main.c"
        self._compilers = [chance.choice(pool.cxx if self._is_cxx else pool.c) for _ in range(2)]
        self._flags, self._umask = "", 0o022
        self._env: Mapping[str, str] = {}
        self._search = ["one", "two", "two/deep", "late", "three"]
        self._states: list[dict[str, bytes | str]] = []
        root.mkdir(parents=True)
        for directory in _DIRECTORIES:
            if directory != "late":
                (root / directory).mkdir(exist_ok=True)
        self._write_source()
        (root / "flags.rsp").write_text(_RESPONSES[0])
        for header in _HEADERS:
            self._write_header("three", header)

    def edit(self) -> Step:
        """See `Tree`."""
        chance = self._chance
        for _ in range(chance.choice((0, 1, 1, 1, 2))):
            # An edit that the present tree does not allow is skipped.
            with contextlib.suppress(OSError):
                chance.choice(self._edits())()
        if chance.random() < 0.3:
            self._states = [*self._states, self._state()][-_KEPT_STATES:]
        compiler = self._compilers[chance.random() < 0.15]
        search = " ".join(f"-I{directory}" for directory in self._search)
        search += " -I/usr/include/csmith" if self._pool.programs else ""
        command = f"{compiler} {self._flags} {search} -c {self._source} -o out/main.o"
        return step(command, env=self._env, umask=self._umask)

    def _edits(self) -> tuple[Callable[[], None], ...]:
        chance = self._chance
        directory, header = chance.choice(_DIRECTORIES), chance.choice(_HEADERS)
        other, second = chance.choice(_DIRECTORIES), chance.choice(_HEADERS)
        write = lambda: self._write_header(directory, header)  # noqa: E731 - listed three times
        revert = lambda: self._revert(chance.randrange(_KEPT_STATES))  # noqa: E731 - as above
        return (
            write,
            write,
            write,
            revert,
            revert,
            self._write_source,
            self._change_flags,
            self._change_flags,
            self._change_environment,
            lambda: chance.shuffle(self._search),
            lambda: self._change_quietly(directory, header),
            lambda: (self.root / directory / header).unlink(missing_ok=True),
            lambda: self._rename(f"{directory}/{header}", f"{other}/{second}"),
            lambda: self._touch(f"{directory}/{header}"),
            lambda: self._exchange(directory, other),
            lambda: self._link(directory, header, f"{other}/{second}"),
            self._toggle_late,
            lambda: self._link_directory(other),
        )

    # ---- edits ----

    def _write_source(self) -> None:
        chance = self._chance
        lines = [f"#include <{h}>" for h in _HEADERS if chance.random() < 0.6]
        name = chance.choice(_HEADERS)
        lines.append(f"#if __has_include(<{name}>)\nint yes;\n#endif")
        lines.append("#ifndef A\n#define A 0\n#endif")
        odd = chance.randrange(8)
        lines += ('#define NAME "c.h"\n#include NAME',) if odd == 0 else ()
        lines += ("const char *date = __DATE__;",) if odd == 1 else ()
        lines += ("const char *file = __FILE__;",) if odd == 2 else ()
        lines += ("int odd(void) { int unused; return missing_return; }",) if odd == 3 else ()
        lines.append("int value = A;\nint f(int x) { int y; return x + A; }\n")
        text = "\n".join(lines)
        if self._pool.programs and not self._is_cxx and chance.random() < 0.3:
            text += '#pragma GCC diagnostic ignored "-Woverflow"\n'  # megabytes of them
            text += chance.choice(self._pool.programs)
        (self.root / self._source).write_text(text)

    def _write_header(self, directory: str, header: str) -> None:
        path = self.root / directory / header
        if path.is_symlink():
            path.unlink()
        if not path.parent.is_dir():
            return
        chance = self._chance
        once = "#pragma once\n" if chance.random() < 0.3 else ""
        kind, name = chance.randrange(6), chance.choice(_HEADERS)
        nested = {
            0: f'#ifndef N\n#define N\n#include "{name}"\n#endif\n',
            1: f"#ifndef M\n#define M\n#if __has_include_next(<{header}>)\n"
            f"#include_next <{header}>\n#endif\n#endif\n",
        }.get(kind, "")
        path.write_text(f"{once}{nested}#undef A\n#define A {chance.randrange(3)}\n")

    def _change_quietly(self, directory: str, header: str) -> None:
        """Replace the content and keep size, modification time and inode."""
        path = self.root / directory / header
        if path.is_file() and not path.is_symlink():
            text = path.read_text()
            new = text[:-2] + str((int(text[-2]) + 1) % 3) + "\n"
            write_keeping_times(f"{directory}/{header}", new)(self.root)

    def _touch(self, name: str) -> None:
        if (self.root / name).exists():
            os.utime(self.root / name)

    def _rename(self, old: str, new: str) -> None:
        source, target = self.root / old, self.root / new
        if (source.exists() or source.is_symlink()) and target.parent.is_dir():
            source.replace(target)

    def _exchange(self, first: str, second: str) -> None:
        aside = self.root / "aside"
        paths = self.root / first, self.root / second
        nested = first.startswith(second + "/") or second.startswith(first + "/")
        if first == second or nested or "src" in {first, second}:
            return
        if all(p.is_dir() and not p.is_symlink() for p in paths):
            paths[0].rename(aside)
            paths[1].rename(paths[0])
            aside.rename(paths[1])

    def _link(self, directory: str, header: str, target: str) -> None:
        path = self.root / directory / header
        # Some links dangle.
        if path.parent.is_dir() and ((self.root / target).exists() or self._chance.random() < 0.1):
            path.unlink(missing_ok=True)
            path.symlink_to(self.root / target)

    def _toggle_late(self) -> None:
        late = self.root / "late"
        if late.is_symlink():
            late.unlink()
        elif late.is_dir():
            shutil.rmtree(late)
        else:
            late.mkdir()

    def _link_directory(self, target: str) -> None:
        late = self.root / "late"
        if not late.exists() and not late.is_symlink():
            late.symlink_to(target)

    def _change_flags(self) -> None:
        self._flags = self._chance.choice(_FLAGS)
        (self.root / "flags.rsp").write_text(self._chance.choice(_RESPONSES))

    def _change_environment(self) -> None:
        self._env = self._chance.choice(_ENVIRONMENTS)
        self._umask = self._chance.choice(_UMASKS)

    # ---- states that come back ----

    def _state(self) -> dict[str, bytes | str]:
        """Return files (bytes) and links (their target)."""
        return {
            os.path.relpath(path, self.root): os.readlink(path)
            if path.is_symlink()
            else path.read_bytes()
            for path in sorted(self.root.rglob("*"))
            if (path.is_symlink() or path.is_file()) and OUTPUTS not in path.parts
        }

    def _revert(self, number: int) -> None:
        if number >= len(self._states):
            return
        wanted = self._states[number]
        for name in self._state().keys() - wanted.keys():
            (self.root / name).unlink()
        for name, content in wanted.items():
            path = self.root / name
            if path.parent.resolve() != path.parent or not path.parent.is_dir():
                continue  # the directory is a link now, or gone
            path.unlink(missing_ok=True) if isinstance(content, str) or path.is_symlink() else None
            if isinstance(content, str):
                path.symlink_to(content)
            elif not path.exists() or path.read_bytes() != content:
                path.write_bytes(content)


class MarkedTree(SmallTree):
    """A `SmallTree` with a marker at its root; its clones repeat its last compile."""

    def __init__(self, name: str, root: Path, chance: random.Random, pool: Pool) -> None:
        super().__init__(name, root, chance, pool)
        (root / ".hpcc").write_text("version = 1\n")
        self.maps = _maps(root)
        self.last = step("true")

    def edit(self) -> Step:
        """See `Tree`."""
        self.last = super().edit()
        return self.last


class CloneTree:
    """The same program in another place."""

    def __init__(self, name: str, root: Path, original: MarkedTree) -> None:
        self.name, self.root, self._original = name, root, original
        self.maps = _maps(root)

    def edit(self) -> Step:
        """See `Tree`: copy the present state of the original."""
        shutil.rmtree(self.root, ignore_errors=True)
        ignored = shutil.ignore_patterns(OUTPUTS)
        shutil.copytree(self._original.root, self.root, symlinks=True, ignore=ignored)
        for path in [p for p in self.root.rglob("*") if p.is_symlink()]:
            target = os.readlink(path).replace(str(self._original.root), str(self.root))
            path.unlink()
            path.symlink_to(target)
        return self._original.last


def _maps(root: Path) -> tuple[bytes, ...]:
    """Return the flags as a user would write them (docs/adr/0009-sharing-between-checkouts.md)."""
    maps = (
        f"-fmacro-prefix-map={root}/=./",
        f"-fdebug-prefix-map={root}/=/proc/self/cwd/",
        f"-fdebug-prefix-map={root}=/proc/self/cwd",
    )
    return tuple(map(os.fsencode, maps))


class ProjectTree:
    """A real project: its C files compiled one at a time, with small edits anywhere in it."""

    maps: tuple[bytes, ...] = ()

    def __init__(
        self, name: str, root: Path, chance: random.Random, pool: Pool, *, sources: Path
    ) -> None:
        self.name, self.root, self._chance = name, root, chance
        self._compiler = chance.choice(pool.c)
        self._flags = "-O1"
        shutil.copytree(sources, root)
        found = (p for p in root.rglob("*.[ch]") if p.is_file())
        self._originals = {p: p.read_bytes() for p in sorted(found)}
        self._units = [p for p in self._originals if p.suffix == ".c"][:12]
        self._files = [p for p in self._originals if p in self._units or p.suffix == ".h"]
        names = dict.fromkeys(os.path.relpath(p.parent, root) for p in self._files)
        self._search = " ".join(f"-I{directory}" for directory in names)

    def edit(self) -> Step:
        """See `Tree`."""
        chance = self._chance
        path, kind = chance.choice(self._files), chance.randrange(5)
        if kind == 0:
            path.write_bytes(self._originals[path] + b"/* a remark */\n")
        elif kind == 1:
            path.write_bytes(self._originals[path] + b"enum { added_%d };\n" % chance.randrange(99))
        elif kind == 2:
            for changed, data in self._originals.items():
                if changed.read_bytes() != data:
                    changed.write_bytes(data)
        elif kind == 3:
            self._flags = chance.choice(("-O1", "-O2 -g", "-O0 -MD", "-MMD -DLUA_USE_POSIX"))
        unit = os.path.relpath(chance.choice(self._units), self.root)
        return step(f"{self._compiler} {self._flags} {self._search} -c {unit} -o out/unit.o")


def reset_outputs(tree: Tree, *, has_old: bool) -> None:
    """Bring the output directory to one of two states, so that both compiles start from one."""
    directory = tree.root / OUTPUTS
    shutil.rmtree(directory, ignore_errors=True)
    directory.mkdir()
    if has_old:
        for name in ("main.o", "main.d", "unit.o"):
            (directory / name).write_bytes(_OLD_OUTPUT)
            (directory / name).chmod(0o640)
