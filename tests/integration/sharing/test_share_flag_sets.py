"""Each allowed flag set: the result of one clone equals what a compile in the other clone gives."""

from __future__ import annotations

import hashlib
import shutil
from collections.abc import Callable, Iterator

import pytest

from hpcc.cache.cache import Cache, open_cache
from hpcc.config.paths import Paths
from hpcc.config.settings import Settings

from .conftest import FILES, Clone

# Not every release of the distribution has these.
_OTHERS = ("gcc-12", "gcc-13", "clang-14", "clang-17")
_MAIN = ("gcc-14", "clang-19")
_C = (*_MAIN, *filter(shutil.which, _OTHERS))

# `{s}` becomes the root as the command line spells it from its directory.
_FLAGS = {
    "none": (),
    "O0": ("-O0",),
    "O2": ("-O2",),
    "Os-wall": ("-Os", "-Wall", "-Wextra"),
    "wall": ("-Wall", "-Wextra", "-pedantic"),
    "O3-werror-not": ("-O3", "-Wall", "-Wno-error", "-march=x86-64-v2", "-mtune=generic"),
    "g": ("-g",),
    "g-O2": ("-g", "-O2", "-Wall"),
    "g3": ("-g3",),
    "ggdb": ("-ggdb",),
    "ggdb3-dwarf5": ("-ggdb3", "-gdwarf-5"),
    "dwarf4": ("-g", "-gdwarf-4"),
    "dwarf5": ("-gdwarf-5", "-O1"),
    "g1": ("-g1", "-Og"),
    "md": ("-MD", "-g"),
    "mmd": ("-MMD", "-g"),
    "mmd-plain": ("-MMD", "-Wall"),
    "md-mp": ("-MD", "-MP", "-O2"),
    "md-mf": ("-MD", "-MF", "{s}/build/x.P"),
    "cmake": ("-g", "-MD", "-MT", "build/x.o", "-MF", "{a}/build/x.o.d"),
    "mt-abs": ("-MMD", "-MP", "-MT", "{a}/build/x.o", "-MQ", "{a}/y$z.o", "-MT", "other.o"),
    "define": ("-DX=1", '-DNAME="text"', "-UY", "-g3"),
    "include": ("-include", "{s}/inc/forced.h", "-g", "-MD"),
    "imacros": ("-imacros", "{s}/inc/forced.h", "-g3"),
    "system": ("-isystem", "{a}/inc", "-iquote", "{s}/src", "-MD", "-g"),
    "shared-library": ("-fPIC", "-fvisibility=hidden", "-O2", "-g", "-pthread", "-pipe"),
    "sections": ("-ffunction-sections", "-fdata-sections", "-fno-strict-aliasing", "-g"),
    "hardened": ("-O2", "-fstack-protector-strong", "-D_FORTIFY_SOURCE=2", "-fcf-protection", "-g"),
    "kernel-like": (
        "-ffreestanding",
        "-fno-builtin",
        "-fno-common",
        "-fno-pic",
        "-fomit-frame-pointer",
        "-O2",
    ),
    "profiling-frames": ("-fno-omit-frame-pointer", "-fno-asynchronous-unwind-tables", "-O2", "-g"),
    "math": ("-ffast-math", "-fno-math-errno", "-fwrapv", "-funroll-loops", "-O2"),
    "colour": ("-fdiagnostics-color=always", "-Wall"),
    "native": ("-march=native", "-O2", "-g"),
    "vector": ("-msse4.2", "-mavx2", "-O3", "-m64"),
    "chars": ("-fsigned-char", "-fshort-enums", "-fno-plt", "-fPIE", "-w"),
}
_C_ONLY = {"c17": ("-std=c17", "-g"), "gnu11": ("-std=gnu11", "-Wall"), "x": ("-x", "c", "-g")}
_CXX_ONLY = {
    "c++17": ("-std=c++17", "-g", "-O2"),
    "c++20": ("-std=gnu++20", "-Wall", "-MD"),
    "lean": ("-fno-rtti", "-fvisibility-inlines-hidden", "-O2", "-g", "-fpermissive"),
}
_CXX_SOME = (
    "O2",
    "wall",
    "g-O2",
    "g3",
    "dwarf4",
    "dwarf5",
    "md-mp",
    "cmake",
    "include",
    "sections",
    "hardened",
)
_CLANG_ONLY = {
    "libc++": ("-stdlib=libc++", "-std=c++20", "-O2"),
    "libc++-g": ("-stdlib=libc++", "-g", "-MD"),
    "libstdc++": ("-stdlib=libstdc++", "-g3", "-Wall"),
}
# How the clone is spelled, and from where.
_PLACES = {
    "root-rel": (".", "."),
    "build-rel": ("build", ".."),
    "root-abs": (".", ""),
    "build-abs": ("build", ""),
}


# Debug information holds the most of paths: from both places.
_BOTH = (
    "none",
    "g",
    "g-O2",
    "g3",
    "ggdb3-dwarf5",
    "dwarf4",
    "dwarf5",
    "md",
    "mmd",
    "cmake",
    "include",
    "system",
)
_NAMING = ("cmake", "system")
# Compiler releases differ in where and how they write paths. So the other releases run only the
# cases about paths. With Clang 14 only relative names are shared.
_CASES = [
    (compiler, flags, place)
    for compiler in _C
    if compiler != "clang-14"
    for flags in (*_FLAGS, *_C_ONLY)
    for place in ("root-rel", "build-abs")
    if flags in _BOTH or (place == "build-abs" and compiler in _MAIN)
    if place == "build-abs" or compiler in _MAIN
] + [("clang-14", flags, "build-rel") for flags in _BOTH if flags not in _NAMING]
_CXX_CASES = [
    (compiler.replace("gcc", "g++").replace("clang-", "clang++-"), flags)
    for compiler in _MAIN
    for flags in (*_CXX_SOME, *_CXX_ONLY)
] + [("clang++-19", flags) for flags in _CLANG_ONLY]


@pytest.fixture(scope="module")
def cache(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Cache]:
    """Return one cache for all tests, so that each compiler is identified once."""
    paths = Paths.from_env({"HPCC_DIR": str(tmp_path_factory.mktemp("hpcc"))})
    cache = open_cache(paths, Settings(), None)
    yield cache
    cache.close()


@pytest.fixture
def clones(make_clone: Callable[..., Clone], request: pytest.FixtureRequest) -> tuple[Clone, Clone]:
    """Make two clones of a project that only this test uses, so that no other result fits."""
    own = f"/* {request.node.name} */\n"
    files = {name: own + text for name, text in FILES.items()}
    return make_clone("a/project", files=files), make_clone(
        "somewhere/else/that-is-deep/second_checkout-of.it", files=files
    )


def _argv(
    clone: Clone, compiler: str, source: str, flags: tuple[str, ...], place: str
) -> list[str]:
    spelled = _PLACES[place][1] or str(clone.root)
    words = (f.replace("{s}", spelled).replace("{a}", str(clone.root)) for f in flags)
    output = "x.o" if _PLACES[place][0] == "build" else "build/x.o"
    return [
        compiler,
        f"-I{spelled}/inc",
        "-I",
        f"{spelled}/absent",
        *words,
        "-c",
        f"{spelled}/{source}",
        "-o",
        output,
    ]


def _prove(first: Clone, second: Clone, make: Callable[[Clone], list[str]], cwd: str) -> None:
    """Compile in one clone, take the hit in the other, and compare with its own compiles."""
    # A variable in each key keeps a content key from finding the result of another case.
    name = hashlib.sha256(repr((cwd, make(first))).encode()).hexdigest()
    first.env["LANGUAGE"] = second.env["LANGUAGE"] = name
    before = first.handler.counters()
    cold = first.compile(make(first), cwd)
    assert (cold.answer, cold.exit_code) == ("run", 0), cold.stderr
    counters = first.handler.counters()
    assert not [
        name
        for name in counters
        if name.startswith(("private.", "uncacheable.")) and counters[name] != before.get(name)
    ]
    argv = make(second)
    bare = second.bare(argv, cwd)
    assert bare[0] == 0, bare[2]
    own = second.outputs()
    second.wipe()
    mapped = second.bare([*argv, *second.maps(cwd)], cwd)
    expected = second.outputs()
    second.wipe()
    hit = second.compile(argv, cwd)
    assert hit.answer == "done"
    assert second.outputs() == expected
    assert (hit.exit_code, hit.stdout, hit.stderr) == mapped == bare
    # Depfiles and messages are the plain compile's, too.
    assert {n: d for n, d in expected.items() if not n.endswith(".o")} == {
        n: d for n, d in own.items() if not n.endswith(".o")
    }
    assert first.handler.counters()["hit.shared"] == before.get("hit.shared", 0) + 1
    # The first clone has its own paths again.
    made = first.outputs()
    first.wipe()
    again = first.compile(make(first), cwd)
    assert (again.answer, again.stdout, again.stderr) == ("done", cold.stdout, cold.stderr)
    assert first.outputs() == made


@pytest.mark.parametrize(("compiler", "flags", "place"), _CASES)
def test_a_c_object_is_shared(
    compiler: str, flags: str, place: str, clones: tuple[Clone, Clone]
) -> None:
    words = {**_FLAGS, **_C_ONLY}[flags]
    _prove(*clones, lambda c: _argv(c, compiler, "src/main.c", words, place), _PLACES[place][0])


@pytest.mark.parametrize("place", ["build-rel", "build-abs"])
@pytest.mark.parametrize("compiler", ["clang-14", "clang-19", "gcc-14"])
@pytest.mark.parametrize("source", ["p.c", "p.cc"])
def test_the_size_of_a_pretty_name_is_that_of_the_own_clone(
    source: str, compiler: str, place: str, make_clone: Callable[..., Clone]
) -> None:
    """Clang 14 writes the clone's name into it, as it is spelled, and the object its size only."""
    text = {
        "p.c": "int f(struct { int a; } *x) { return sizeof(__PRETTY_FUNCTION__); }\n",
        "p.cc": "template <class T> int size(T) { return sizeof(__PRETTY_FUNCTION__); }\n"
        "int f(int n) { return size([n](int k) { return n + k; }); }\n",
    }
    files = {name: f"// {compiler} {place}\n{lines}" for name, lines in text.items()}
    one, other = (make_clone(name, files=files) for name in ("one", "much/longer/other"))
    argv = [_argv(clone, compiler, source, ("-w", "-O1"), place) for clone in (one, other)]
    assert one.compile(argv[0], "build").answer == "run"
    is_own = compiler == "clang-14" and place == "build-abs"
    assert other.compile(argv[1], "build").answer == ("run" if is_own else "done")
    hit = other.outputs()
    other.wipe()
    other.bare([*argv[1], *([] if is_own else other.maps("build"))], "build")
    assert other.outputs() == hit


@pytest.mark.parametrize(("compiler", "flags"), _CXX_CASES)
def test_a_cxx_object_is_shared(compiler: str, flags: str, clones: tuple[Clone, Clone]) -> None:
    words = {**_FLAGS, **_CXX_ONLY, **_CLANG_ONLY}[flags]
    _prove(*clones, lambda c: _argv(c, compiler, "src/tool.cc", words, "build-abs"), "build")


@pytest.mark.parametrize("compiler", _MAIN)
@pytest.mark.parametrize("place", ["root-abs", "build-rel"])
@pytest.mark.parametrize("flags", ["g-O2", "cmake", "wall"])
def test_the_other_spellings_are_shared_too(
    compiler: str, flags: str, place: str, clones: tuple[Clone, Clone]
) -> None:
    _prove(
        *clones,
        lambda c: _argv(c, compiler, "src/main.c", _FLAGS[flags], place),
        _PLACES[place][0],
    )
