"""Named modules in two clones: each makes its own interfaces, and what imports them is a hit.

Each answer is compared with what the compiler alone makes in that clone, with the same maps.
"""

from __future__ import annotations

import shutil
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from hpcc.cache.cache import Cache, open_cache
from hpcc.config.paths import Paths
from hpcc.config.settings import Settings
from hpcc_testkit.cache.clocks import TrustedClock
from hpcc_testkit.cache.compiles import log_counters
from hpcc_testkit.cache.modules import SOURCES, Build

TEXTS = {
    # Where a header is may show as text, and by the length of its name.
    "conf.h": "#define SEED 3\ninline const char *where() { return __FILE__; }\n",
    "part.cppm": 'module;\n#include "conf.h"\nexport module mid:part;\n'
    "export struct Part { int a = sizeof(__FILE__); };\n"
    "export inline const char *part() { return where(); }\n",
    "user.cpp": "import mid;\nint user() { return twice(2) + mid(3) + Part{}.a; }\n"
    "const char *names(int x) { return x ? part() : __FILE__; }\n",
}
INTERFACES = ("base.cppm", "part.cppm", "mid.cppm")
all_compilers = pytest.mark.parametrize("compiler", ["g++-14", "clang++-17", "clang++-19"])
two_compilers = pytest.mark.parametrize("compiler", ["g++-14", "clang++-19"])


@pytest.fixture
def cache(tmp_path: Path) -> Iterator[Cache]:
    """A cache whose clock believes the tests' file system: the tests wait for nothing."""
    paths = Paths.from_env({"HPCC_DIR": str(tmp_path / "hpcc")})
    opened = open_cache(paths, Settings(), None, clock=TrustedClock())
    yield opened
    log_counters(opened)
    opened.close()


@pytest.fixture
def clone(tmp_path: Path, cache: Cache, compiler: str) -> Callable[[str], Build]:
    def make(name: str) -> Build:
        build = Build(tmp_path / name, cache, compiler)
        root = build.root
        plant(build)
        build.always = (*build.always, "-O1", "-Wall")
        maps = (f"-fmacro-prefix-map={root}/=./", f"-fdebug-prefix-map={root}/=/proc/self/cwd/")
        build.maps = maps
        return build

    return make


def plant(build: Build) -> None:
    build.plant()
    for name, text in {**TEXTS, ".hpcc": ""}.items():
        build.write(name, text)


@pytest.fixture
def first(clone: Callable[[str], Build]) -> Build:
    return clone("a/project")


@pytest.fixture
def second(clone: Callable[[str], Build]) -> Build:
    """A clone at another depth whose path is longer."""
    return clone("somewhere/else/that is deep/second_checkout-of.it")


@all_compilers
def test_what_imports_hits_in_another_clone(first: Build, second: Build, cache: Cache) -> None:
    """One unit in the second clone is compiled, and compared with the stored result."""
    assert first.compile_all() == ["run"] * 5
    assert second.compile_all() == [*["run"] * 4, "done"]
    for build in (first, second):
        shutil.rmtree(build.directory)
        plant(build)
        assert build.compile_all() == ["done"] * 5
    counted = cache.counters()
    assert (counted["hit.shared"], counted["missed.unproved"]) == (3, 1)
    assert first.counted("private") == {"private.modules": 6}
    assert not first.counted("uncacheable")


@two_compilers
@pytest.mark.parametrize("source", ["base.cppm", "conf.h"])
def test_another_source_in_one_clone(source: str, first: Build, second: Build) -> None:
    """Clang's interface is the same after an edit of a comment that keeps the length."""
    text = {**SOURCES, **TEXTS}[source]
    edited = text.replace("SEED 3", "SEED 4").replace("// aaa", "// bbb")
    assert edited != text
    second.write(source, edited)
    for build in (first, second):
        assert build.compile_all() == ["run"] * 5
    second.write(source, text)
    # Two interfaces of GCC may be equal if they were made within one second.
    assert second.compile_all()[-1] == "done"


@two_compilers
def test_copies_from_another_clone(first: Build, second: Build) -> None:
    """They name the other clone, and so does what Clang makes of them here."""
    first.compile_all()
    second.compile_all()
    for path in (first.directory / "mods").iterdir():
        shutil.copy(path, second.directory / "mods" / path.name)
    assert "done" not in (second.compile("impl.cpp"), second.compile("user.cpp"))


@two_compilers
def test_interfaces_that_were_made_without_maps(first: Build, second: Build) -> None:
    """The lengths of names are in them. A flag that is not proved keeps its compile private."""
    for build in (first, second):
        for source in INTERFACES:
            assert build.launcher.compile(*build.command(source, "-fno-ident")).exit_code == 0
        assert [build.compile("impl.cpp"), build.compile("user.cpp")] == ["run", "run"]
    counted = first.counted("private")
    assert counted["private.flags"] == 6
    assert sum(counted.values()) == 10
