"""Precompiled headers in two clones: each makes its own, and their users are hits.

Each answer is compared with what the compiler alone makes in that clone, with the same maps.
"""

from __future__ import annotations

import hashlib
import shutil
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

import pytest

from hpcc.cache.base.api import Run
from hpcc.cache.cache import Cache, open_cache
from hpcc.config.paths import Paths
from hpcc.config.settings import Settings
from hpcc_testkit.cache.clocks import TrustedClock
from hpcc_testkit.cache.compiles import FakeLauncher, log_counters, run_bare
from hpcc_testkit.cache.precompiled import Build

USERS = ("u.cpp", "v.cpp", "w.cpp")
# What may show where a header is: as text, and by the length of its name.
ALL = """\
#pragma once
#include <cassert>
#include "once.h"
#include "guarded.h"
inline const char *where() { return __FILE__; }
inline const char *built_in() { return __builtin_FILE(); }
constexpr unsigned long LENGTH = sizeof(__FILE__);
inline int checked(int x) { assert(x > 0); return x; }
template <class T> struct Holder { T held; Holder() : held(T()) { assert(!sizeof(T) || LENGTH); } };
"""
V = """\
#include "all.h"
namespace { Holder<int> local; }
unsigned long v() { return LENGTH + checked(local.held); }
const char *file() { return __FILE__; }
"""
W = """\
const char *w(int x) { return x > 1 ? where() : x ? built_in() : __FILE__; }
int unused(int never) { int also_never; return once(); }
"""

COMPILERS = ["g++-12", "g++-14", "clang++-17", "clang++-19"]
X = "unsigned long x() { return LENGTH; }\n"
TEXTS = {"all.h": ALL, "v.cpp": V, "w.cpp": W, "x.cpp": X, "y.cpp": "const " + X}

all_compilers = pytest.mark.parametrize("compiler", COMPILERS)
two_compilers = pytest.mark.parametrize("compiler", COMPILERS[1::2])


@pytest.fixture
def paths(tmp_path: Path) -> Paths:
    return Paths.from_env({"HPCC_DIR": str(tmp_path / "hpcc")})


def plant(build: Build) -> None:
    """Write the project. CMake names the header absolutely."""
    build.plant()
    for source, text in TEXTS.items():
        build.write(f"src/{source}", text)
    build.write("build/pch.h", f'#pragma GCC system_header\n#include "{build.root}/src/all.h"\n')


@pytest.fixture
def cache(paths: Paths) -> Iterator[Cache]:
    """A cache whose clock believes the tests' file system: the tests wait for nothing."""
    opened = open_cache(paths, Settings(), None, clock=TrustedClock())
    yield opened
    log_counters(opened)
    opened.close()


@pytest.fixture
def clone(tmp_path: Path, cache: Cache, compiler: str, paths: Paths) -> Callable[[str], Build]:
    def make(name: str) -> Build:
        root = tmp_path / name
        build = Build(root, cache, compiler, paths)
        build.write(".hpcc", "")
        plant(build)
        build.always = (*build.always, "-Wall")
        maps = (f"-fmacro-prefix-map={root}/=./", f"-fdebug-prefix-map={root}/=/proc/self/cwd/")
        build.maps = maps
        return build

    return make


@pytest.fixture
def first(clone: Callable[[str], Build]) -> Build:
    return clone("a/project")


@pytest.fixture
def second(clone: Callable[[str], Build]) -> Build:
    """A clone at another depth whose path is longer."""
    return clone("somewhere/else/that is deep/second_checkout-of.it")


def use_all(build: Build, sources: Sequence[str] = USERS) -> list[str]:
    return [build.use(source=source) for source in sources]


@all_compilers
def test_users_hit_in_other_clones(
    first: Build, second: Build, clone: Callable[[str], Build], cache: Cache
) -> None:
    """One user in each further clone is compiled, and compared with the stored result."""
    assert [first.make(), *use_all(first)] == ["run"] * 4
    assert [second.make(), *use_all(second)] == ["run", "run", "done", "done"]
    third = clone("third")
    assert [third.make(), *use_all(third)] == ["run", "run", "done", "done"]
    for build in (first, second):
        shutil.rmtree(build.directory)
        plant(build)
        assert [build.make(), *use_all(build)] == ["done"] * 4
    counted = cache.counters()
    assert (counted["hit.shared"], counted["missed.unproved"]) == (7, 2)
    assert first.counted("private") == {"private.pch": 3}
    assert not first.counted("uncacheable")
    # A precompiled header that the compiler alone made gives the same objects. Clang's is the same.
    assert run_bare((*second.making(), *second.maps), cwd=second.directory)[0] == 0
    assert use_all(second) == ["done" if second.is_clang else "run"] * 3


@two_compilers
@pytest.mark.parametrize("flags", ["-O2 -gdwarf-4 -fPIC -DN=1", "-O0 -g3 -std=c++20", "-O3 -g0"])
def test_flags(flags: str, first: Build, second: Build) -> None:
    for build in (first, second):
        build.always = (*build.always, *flags.split())
        build.make()
    assert use_all(first) == ["run"] * 3
    assert use_all(second) == ["run", "done", "done"]


@two_compilers
def test_another_header_in_one_clone(first: Build, second: Build) -> None:
    second.write("src/once.h", "#pragma once\ninline int once() { return 2; }\n")
    for build in (first, second):
        assert [build.make(), *use_all(build)] == ["run"] * 4
    second.write("src/once.h", (first.root / "src/once.h").read_text())
    assert [second.make(), *use_all(second)] == ["run", "run", "done", "done"]


@two_compilers
def test_a_copy_from_another_clone(first: Build, second: Build) -> None:
    """It names the other clone: GCC's gives another object here, and Clang's fails."""
    assert [first.make(), *use_all(first)] == ["run"] * 4
    assert [second.make(), *use_all(second)] == ["run", "run", "done", "done"]
    shutil.copy(first.directory / first.pch, second.directory / second.pch)
    answer = "retried, exit 1" if second.is_clang else "run"
    assert use_all(second) == [answer] * 3


@pytest.mark.parametrize("compiler", COMPILERS[:2])
@pytest.mark.parametrize("is_own_first", [False, True])
def test_one_that_another_clone_uses_in_its_place(
    is_own_first: bool, clone: Callable[[str], Build]
) -> None:
    """It holds the paths of its clone, which the maps of the other one do not replace."""
    own, other = clone("x/own"), clone("x/other")
    for build in (own, other):
        build.write("build/pch.h", "#include <all.h>\n")
        build.always = (*build.always, f"-I{build.root}/src")
        build.write("src/u.cpp", "int u() { return once(); }\n")
        assert build.make() == "run"
        build.header = "../../own/build/pch.h"
    builds = (own, other) if is_own_first else (other, own)
    assert [use_all(build, ("u.cpp", "w.cpp")) for build in builds] == [["run"] * 2] * 2
    assert "hit.shared" not in own.counted("hit")


@two_compilers
def test_one_that_is_read_as_data_too(first: Build, second: Build) -> None:
    """Its bytes are then in the object, and the first user that is compared may lack them."""
    for build in (first, second):
        build.write("build/pch.h", '#include "../src/all.h"\n')
        assert build.make() == "run"
    one, two = ((build.read(build.pch) or b"") for build in (first, second))
    at = next(at for at, (a, b) in enumerate(zip(one, two, strict=False)) if a != b)
    for build in (first, second):
        build.write("src/u.cpp", "int u() { return once(); }\n")
        text = f'asm(".data\\n.incbin \\"{build.pch}\\", {at}, 1\\n.text");\n'
        build.write("src/v.cpp", text)
        assert use_all(build, ("u.cpp", "v.cpp")) == ["run"] * 2
    assert first.counted("private") == {"private.pch": 4}


@two_compilers
def test_one_that_was_made_without_maps(first: Build, second: Build) -> None:
    """The lengths of names are in it. A flag that is not proved keeps its compile private."""
    for build in (first, second):
        build.always = build.always[:1] + build.always[2:]  # without -g
        assert build.launcher.compile(*build.making("-fno-ident")).exit_code == 0
        assert use_all(build, ("u.cpp", "x.cpp")) == ["run"] * 2
    assert first.counted("private") == {"private.flags": 2, "private.pch": 4}


@two_compilers
def test_one_whose_header_names_the_clone(first: Build, second: Build) -> None:
    for build in (first, second):
        text = f'inline int once() {{ return sizeof "{build.root}"; }}\n'
        build.write("src/once.h", f"#pragma once\n{text}")
        assert [build.make(), *use_all(build)] == ["run"] * 4
    assert first.counted("private") == {"private.root-in-source": 8}


@two_compilers
def test_an_include_line_that_belongs_to_another_line(first: Build, second: Build) -> None:
    """Behind the backslash is a form feed. Compilers are silent about it in such a header."""
    for build in (first, second):
        text = (build.root / "build/pch.h").read_text()
        line = (
            f"#define TEXT(x) #x\nconstexpr unsigned long SIZE = sizeof(TEXT(\\\f\n{text[26:]}));\n"
        )
        build.write("build/pch.h", text + line)
        build.write("src/u.cpp", "int u() { return once(); }\n")
        build.write("src/x.cpp", "unsigned long x() { return SIZE; }\n")
        build.always = (build.always[0], *build.always[2:])  # without -g
        assert [build.make(), *use_all(build, ("u.cpp", "x.cpp"))] == ["run"] * 3
    assert first.counted("private") == {"private.root-in-source": 6}


@two_compilers
def test_a_message_about_a_source_that_names_the_clone(first: Build, second: Build) -> None:
    """A message shows lines of the text, and underlines names."""
    for build in (first, second):
        text = (build.root / "build/pch.h").read_text()
        build.write("build/pch.h", text + "[[deprecated]] inline int own() { return 7; }\n")
        build.write("src/u.cpp", "int u() { return own(); }\n")
        assert (build.make(), build.use()) == ("run", "run")
        assert build.use("-Wno-deprecated-declarations") == "run"
    assert first.counted("private") == {"private.pch": 2, "private.text": 2}


@pytest.mark.parametrize("compiler", COMPILERS[2:])
def test_a_message_that_calls_such_a_source_otherwise(first: Build, second: Build) -> None:
    """Clang shows the include line and its length, and the name of a line directive."""
    for build in (first, second):
        build.always = (*build.always, "-g0", "-Wnewline-eof")
        build.write("src/u.cpp", "int u() { return once(); }\n")
        build.write("src/v.cpp", f'#line 1 "x.y"\n#include "{build.root}/src/once.h"')
        assert [build.make(), *use_all(build, ("u.cpp", "v.cpp"))] == ["run"] * 3


@two_compilers
def test_the_md5_of_a_source_that_names_the_clone(first: Build) -> None:
    """Clang writes that of some sources into debug information."""
    md5 = hashlib.md5((first.root / "build/pch.h").read_bytes(), usedforsecurity=False).digest()
    first.write("src/u.cpp", f"unsigned char u[] = {{{', '.join(map(str, md5))}}};\n")
    assert (first.make(), first.use()) == ("run", "run")
    assert first.counted("private") == {"private.pch": 1, "private.embeds-path": 1}


def _use_at_once(build: Build, sources: Sequence[str], cache: Cache) -> list[str]:
    """Use in one thread each, while the compile of the first one runs; return the answers."""
    answers = dict.fromkeys(sources, "")
    others: list[threading.Thread] = []
    before = cache.counters().get("dedup.waited", 0)

    def use(source: str, launcher: FakeLauncher) -> None:
        argv = list(build.using(source=source))
        argv[argv.index("-o") + 1] = f"{source}.o"
        ended = launcher.compile(*argv)
        assert ended.exit_code == 0, ended.stderr
        answers[source] = ended.answer

    def start_others(_: Run) -> None:
        for source in sources[1:]:
            launcher = FakeLauncher(handler=cache, cwd=build.directory)
            others.append(threading.Thread(target=use, args=(source, launcher)))
            others[-1].start()
        deadline = time.monotonic() + 60
        while cache.counters().get("dedup.waited", 0) < before + len(others):
            assert time.monotonic() < deadline
            time.sleep(0.01)

    first = FakeLauncher(handler=cache, cwd=build.directory)
    first.after_run = start_others
    use(sources[0], first)
    for other in others:
        other.join()
    return [answers[source] for source in sources]


@two_compilers
def test_of_users_that_run_at_once_one_is_compared(
    first: Build, second: Build, cache: Cache
) -> None:
    for build in (first, second):
        build.always = ("-O1", *build.always[2:])  # without -g
        assert build.make() == "run"
    sources = ("x.cpp", "v.cpp", "w.cpp")
    expected = {}
    for build in (first, second):
        for source in sources:
            argv = list(build.using(source=source))
            argv[argv.index("-o") + 1] = f"{source}.o"
            if build is first:
                assert build.launcher.compile(*argv).answer == "run"
            else:
                assert run_bare((*argv, *build.maps), cwd=build.directory)[0] == 0
                expected[source] = (build.directory / f"{source}.o").read_bytes()
                (build.directory / f"{source}.o").unlink()
    assert _use_at_once(second, sources, cache) == ["run", "done", "done"]
    for source in sources:
        assert (second.directory / f"{source}.o").read_bytes() == expected[source]
    assert second.counted("hit")["hit.shared"] == 2


@two_compilers
def test_users_that_wait_for_a_difference_are_compiled(
    first: Build, second: Build, cache: Cache
) -> None:
    sources = ("x.cpp", "y.cpp", "u.cpp")
    for build in (first, second):
        build.always = build.always[:1] + build.always[2:]  # without -g
    assert first.make() == "run"
    for source in sources:
        argv = list(first.using(source=source))
        argv[argv.index("-o") + 1] = f"{source}.o"
        assert first.launcher.compile(*argv).answer == "run"

    def make_again(_: Run) -> None:
        assert run_bare(second.making(), cwd=second.directory)[0] == 0

    second.launcher.after_run = make_again
    assert second.make() == "run"
    assert _use_at_once(second, sources, cache) == ["run"] * 3
    assert "hit.shared" not in second.counted("hit")


@two_compilers
def test_a_difference_ends_the_sharing(first: Build, second: Build) -> None:
    """No such case is known. The second clone's is made anew here without maps, unseen by hpcc."""
    sources = ("x.cpp", "y.cpp", "u.cpp")
    for build in (first, second):
        build.always = build.always[:1] + build.always[2:]  # without -g
    assert [first.make(), *use_all(first, sources)] == ["run"] * 4

    def make_again(_: Run) -> None:
        assert run_bare(second.making(), cwd=second.directory)[0] == 0

    second.launcher.after_run = make_again
    assert second.make() == "run"
    second.launcher.after_run = lambda _run: None
    assert use_all(second, sources) == ["run"] * 3
    assert second.counted("private") == {"private.pch": 2, "private.origin": 3}
    assert use_all(second, sources) == ["done"] * 3
    assert use_all(first, sources) == ["done"] * 3
    assert "hit.shared" not in second.counted("hit")
