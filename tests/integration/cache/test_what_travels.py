"""Counts which commands of ordinary projects a farm gets: a repository without a marker.

Each row is a command as a build system writes it: working directory, command, and the reason if it
stays here. `ROOT` is the repository. Nothing is compiled here; other tests compare objects.
"""

from __future__ import annotations

import os
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from hpcc.cache.cache import Cache
from hpcc.core import Isolation, RemoteOutput, RemoteRequest, RemoteResult
from hpcc_testkit.cache.compiles import FakeLauncher, FakeRemote

# The share that must travel, of all commands of the table.
WANTED = 0.9
FILES = {
    "src/a.c": '#include <stdio.h>\n#include <assert.h>\n#include "a.h"\nint f(int x) { assert(x); return g(x); }\n',
    "src/b.cc": '#include <string>\n#include <vector>\n#include "a.h"\nstd::string f() { return __FILE__; }\n',
    "src/c.S": '#include "a.h"\n#ifdef __ASSEMBLER__\n.globl low\nlow: .long 1\n#endif\n',
    "src/clock.c": "enum { TIME, DATE };\n#define mode(TI) TI\n#define T(t) DATE_##t\nint x = mode(TIME);\n",
    "src/away.c": '#ifdef NEVER\n#include "../../elsewhere/check.h"\n#endif\nint x;\n',
    "src/ask.c": '#if __has_include(<zlib.h>)\n#define Z 1\n#endif\n#if __has_include("opt.h")\n#endif\nint x;\n',
    "src/alias.c": "#define HAS __has_include\n#define NAME <stdio.h>\n#if HAS(<stdlib.h>)\n#include NAME\n#endif\nint x;\n",
    "src/once.c": '#include "twin1.h"\n#include "twin2.h"\nint x;\n',
    "src/twin1.h": "#pragma once\nint one(void);\n",
    "src/twin2.h": "#pragma once\nint two(void);\n",
    "src/low.s": ".globl low\nlow: .long 1\n",
    "src/now.c": "const char *now = __DATE__;\n",
    "inc/a.h": "#pragma once\n#ifndef __ASSEMBLER__\nstatic inline int g(int x) { return x; }\n#endif\n",
    "inc/config.h": "#define CONF 1\n",
    "build/config.h": "#define CONF 1\n",
    "build/gen/gen.c": '#include "a.h"\nint gen;\n',
    "build/CMakeCache.txt": "",
    "build/src/keep": "",
    "build/CMakeFiles/t.dir/keep": "",
    "mbuild/build.ninja": "",
    "mbuild/t.p/keep": "",
    "mbuild/config.h": "#define CONF 1\n",
    "configure.ac": "",
    "kernel/include/linux/kconfig.h": "#define K 1\n",
    "kernel/init/main.c": "#include <linux/kconfig.h>\nint k = K;\n",
    "kernel/init/x": "",
}
_MAKE = "-MD -MT CMakeFiles/t.dir/a.o -MF CMakeFiles/t.dir/a.o.d -o CMakeFiles/t.dir/a.o -c"
_MESON = (
    "-It.p -I. -I.. -I../inc -fdiagnostics-color=always -D_FILE_OFFSET_BITS=64 -Wall -Winvalid-pch"
)
_MESON_OUT = "-MD -MQ t.p/a.o -MF t.p/a.o.d -o t.p/a.o -c"
TABLE = f"""
cmake-make    | build | gcc -DNDEBUG -IROOT/inc -IROOT/build -O3 {_MAKE} ROOT/src/a.c
cmake-make    | build | gcc -IROOT/inc -g -std=gnu11 {_MAKE} ROOT/src/a.c
cmake-make    | build | gcc -IROOT/inc -isystem /opt/none/include -O2 -g -DNDEBUG -fPIC {_MAKE} ROOT/src/a.c
cmake-make    | build | g++ -IROOT/inc -O2 -std=gnu++17 {_MAKE} ROOT/src/b.cc
cmake-make    | build | g++ -IROOT/inc -g -fvisibility=hidden -fvisibility-inlines-hidden {_MAKE} ROOT/src/b.cc
cmake-make    | build | gcc -IROOT/inc -IROOT/build {_MAKE} ROOT/build/gen/gen.c
cmake-make    | build | gcc -IROOT/inc -o CMakeFiles/t.dir/c.o -c ROOT/src/c.S
cmake-ninja   | build | clang -IROOT/inc -O2 {_MAKE} ROOT/src/a.c
cmake-ninja   | build | clang++ -IROOT/inc -g -O0 -stdlib=libstdc++ {_MAKE} ROOT/src/b.cc
cmake-ninja   | build | clang++ -IROOT/inc -O3 -DNDEBUG -flto=thin {_MAKE} ROOT/src/b.cc | names-in-output
cmake-ninja   | build | gcc -IROOT/inc -O2 -fsanitize=address {_MAKE} ROOT/src/a.c | names-in-output
cmake-ninja   | build | gcc -IROOT/inc -O2 -g -gsplit-dwarf {_MAKE} ROOT/src/a.c
cmake-ninja   | build | gcc -IROOT/inc -O2 -fstack-usage {_MAKE} ROOT/src/a.c
cmake-ninja   | build | gcc -IROOT/inc --coverage {_MAKE} ROOT/src/a.c | side-output
cmake-ninja   | build | clang -IROOT/inc --coverage {_MAKE} ROOT/src/a.c
cmake-ninja   | build | gcc -IROOT/inc -O2 -save-temps=obj {_MAKE} ROOT/src/a.c
meson         | mbuild | cc {_MESON} -std=gnu99 -O2 -g {_MESON_OUT} ../src/a.c
meson         | mbuild | cc {_MESON} -include config.h -fPIC {_MESON_OUT} ../src/a.c
meson         | mbuild | cc {_MESON} -include ROOT/mbuild/config.h -O0 {_MESON_OUT} ../src/a.c
meson         | mbuild | c++ {_MESON} -std=c++17 -O2 -g {_MESON_OUT} ../src/b.cc
meson         | mbuild | cc {_MESON} -O2 -g --coverage {_MESON_OUT} ../src/a.c
meson         | mbuild | cc {_MESON} -O2 -fsanitize=address,undefined -g {_MESON_OUT} ../src/a.c
meson         | mbuild | cc {_MESON} -O2 -flto=auto {_MESON_OUT} ../src/a.c
meson         | mbuild | cc {_MESON} -O2 -pg {_MESON_OUT} ../src/a.c
meson         | mbuild | cc {_MESON} -O2 -fopenmp {_MESON_OUT} ../src/a.c
meson         | mbuild | cc {_MESON} -S -O2 -MD -MQ t.p/a.s -MF t.p/a.s.d -o t.p/a.s ../src/a.c
autotools     | build/src | gcc -DHAVE_CONFIG_H -I. -I../../src -I.. -I../../inc -g -O2 -MT a.o -MD -MP -MF a.Tpo -c -o a.o ../../src/a.c
autotools     | src | gcc -DHAVE_CONFIG_H -I. -I../inc -g -O2 -MT a.o -MD -MP -MF a.Tpo -c -o a.o a.c
libtool       | src | gcc -DHAVE_CONFIG_H -I. -I../inc -g -O2 -MT a.lo -MD -MP -MF a.Tpo -c a.c -fPIC -DPIC -o a.o
libtool       | src | gcc -I. -I../inc -O2 -DLOCALEDIR="/usr/share/locale" -MMD -MF a.d -c a.c -o a.o
make          | src | gcc -O2 -Wall -I../inc -c a.c
make          | src | gcc -O2 -Wall -I../inc -c -o a.o a.c
make          | . | gcc -O3 -march=x86-64-v2 -Iinc -c src/a.c -o src/a.o
make          | . | cc -std=c99 -pedantic -Iinc -Wp,-MD,src/a.d -c src/a.c -o src/a.o
make          | . | g++ -Iinc -std=c++20 -O2 -c src/b.cc -o src/b.o
make          | . | gcc -Iinc -Wp,-D_FORTIFY_SOURCE=2 -fstack-protector-strong -Wformat -Werror=format-security -c src/a.c -o src/a.o
make          | . | gcc -Iinc -O2 -fprofile-arcs -ftest-coverage -c src/a.c -o src/a.o
make          | . | gcc -Iinc -O2 -fprofile-generate -c src/a.c -o src/a.o
make          | . | gcc -Iinc -O2 -save-temps -c src/a.c -o src/a.o
make          | . | clang -Iinc -O2 -save-temps -c src/a.c -o src/a.o
make          | . | gcc -Iinc -g3 -ggdb -fno-omit-frame-pointer -c src/a.c -o src/a.o
make          | . | gcc -Iinc -O2 -gdwarf-4 -c src/a.c -o src/a.o
make          | . | gcc -m32 -Iinc -O2 -c src/clock.c -o src/a.o
make          | src | gcc -O2 -Wa,--noexecstack -I../inc -c -o a.o low.s
kbuild        | kernel | gcc -Wp,-MMD,init/.main.o.d -nostdinc -I./include -include ./include/linux/kconfig.h -D__KERNEL__ -std=gnu11 -mcmodel=kernel -fno-PIE -O2 -c -o init/main.o init/main.c
texts         | src | gcc -O2 -c clock.c
texts         | src | gcc -O2 -I.. -c away.c
texts         | src | gcc -O2 -c ask.c
texts         | src | clang -O2 -c alias.c
texts         | src | gcc -O2 -c once.c
texts         | src | gcc -O2 -c now.c | date-time
ffile-maps    | build | gcc -IROOT/inc -g -ffile-prefix-map=ROOT=. {_MAKE} ROOT/src/a.c
ffile-maps    | build | gcc -IROOT/inc -O2 -fdebug-prefix-map=ROOT=/usr/src/x -g {_MAKE} ROOT/src/a.c
cpu           | . | gcc -Iinc -O2 -mavx2 -mfma -c src/a.c -o src/a.o
cpu           | . | gcc -Iinc -O2 -march=native -c src/a.c -o src/a.o | native
cross         | . | clang --target=aarch64-linux-gnu -O2 -c src/clock.c -o src/a.o
"""


class CountingRemote(FakeRemote):
    """Answers at once with outputs that no compiler made."""

    def compile(self, request: RemoteRequest, is_cancelled: Callable[[], bool]) -> RemoteResult:
        del is_cancelled
        self.requests.append(request)
        depfiles = (".d", ".Tpo")
        return RemoteResult(
            exit_code=0,
            stdout=b"",
            stderr=b"",
            outputs=tuple(
                RemoteOutput(p, b"a.o:\n" if p.endswith(depfiles) else b"made", is_executable=False)
                for p in request.outputs
            ),
            is_cached=False,
            isolation=Isolation.LOCAL_NONE,
            action="0" * 64 + "/0",
        )


@pytest.fixture
def root(tmp_path: Path) -> Path:
    root = tmp_path / "repository"
    for name, text in FILES.items():
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_text(text)
    (root / ".git").mkdir()
    old = time.time() - 3600
    for path in root.rglob("*"):
        os.utime(path, (old, old))
    time.sleep(0.08)
    return root


def test_the_share_of_commands_that_travel(root: Path, make_cache: Callable[..., Cache]) -> None:
    remote = CountingRemote()
    cache = make_cache(remote)
    rows = [row.split("|") for row in TABLE.strip().splitlines()]
    seen, wanted = [], []
    for kind, cwd, command, *reason in rows:
        argv = command.replace("ROOT", str(root)).split()
        launcher = FakeLauncher(handler=cache, cwd=root / cwd.strip())
        before = cache.counters()
        answer = cache.begin(launcher.request(argv), lambda: False)
        counters = cache.counters()
        why = [
            name.rpartition(".")[2]
            for name in counters
            if name.startswith(("fallback", "bypass", "uncacheable"))
            and counters[name] != before.get(name, 0)
        ]
        is_done = type(answer).__name__ == "Done"
        assert is_done == (not why), (command, why)
        seen.append((kind.strip(), command.strip(), *why))
        wanted.append((kind.strip(), command.strip(), *(r.strip() for r in reason)))
    assert seen == wanted
    assert len(remote.requests) >= WANTED * len(rows)
