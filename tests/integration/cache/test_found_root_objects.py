"""Objects that a farm makes below a found root have the bytes that the compiler writes here."""

from __future__ import annotations

import os
import shutil
import subprocess
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from hpcc.cache.cache import Cache
from hpcc.cache.results.records_read import read_records
from hpcc.compilers.invocation.depfile import parse_depfile, prerequisites
from hpcc.config.paths import Paths
from hpcc_testkit.cache.compiles import FakeLauncher, FakeRemote, run_bare

FILES = {
    "src/a.c": '#include <assert.h>\n#include "a.h"\n#include "gen.h"\n'
    "int f(int x) { assert(x > 0); return x + g(x) + GEN; }\n"
    "const char *n(void) { return __FILE__; }\nint size = sizeof(__FILE__);\n",
    "src/b.cc": '#include <cassert>\n#include <string>\n#include "a.h"\n'
    "std::string f(int x) { assert(x); return std::to_string(g(x)); }\n"
    "const char *n(const char *s = __builtin_FILE()) { return s; }\n",
    "src/c.S": '#include "gen.h"\n.globl low\nlow: .long GEN\n',
    "inc/a.h": "static inline int g(int x) { return x * 2; }\n",
    "build/gen.h": "#define GEN 3\n",
}
TRAVEL = {
    "src/a.c": """
-O2
-g
-g1 -O2
-g3
-ggdb3 -O1
-gdwarf-5
-g -gz
-g -DPLACE="ROOT"
-g -ffile-prefix-map=ROOT=.
-g -fdebug-prefix-map=ROOT=/x
-g -fmacro-prefix-map=ROOT/=
-g -ffile-prefix-map=PARENT=/p
-O2 -fPIC -fvisibility=hidden -fstack-protector-strong -D_FORTIFY_SOURCE=2 -ffunction-sections
-pg
-fopenmp -O2
-S
-S -g -O1
-fstack-usage -O2
-g -gsplit-dwarf -O1
-save-temps -O2
-save-temps=obj -g
-save-temps=cwd -O1 -fstack-usage
""",
    "src/b.cc": "\n-O2\n-g\n-save-temps\n",
    "src/c.S": "\n-O2\n",
}
# With these the object would name the guest's directory. They stay, if names are as in the second.
STAY = (
    ("gcc-12", "-gdwarf-4", "absolute"),
    ("gcc-12", "-fsanitize=address", "absolute"),
    ("clang-14", "-flto", "absolute"),
    ("clang-14", "-fprofile-instr-generate", "relative"),
    ("clang-14", "-g -fopenmp", "absolute"),
    ("clang-14", "-g -fmacro-prefix-map=ROOT/src=S", "relative"),
)


@pytest.fixture
def remote() -> FakeRemote:
    return FakeRemote()


@pytest.fixture
def tree(tmp_path: Path) -> Path:
    root = tmp_path / "proj"
    for name, text in FILES.items():
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_text(text)
    subprocess.run(["git", "init", "-q", root], check=True)
    (root / "build/build.ninja").touch()
    (root / "inc/deep").mkdir()
    old = time.time() - 3600
    for path in root.rglob("*"):
        os.utime(path, (old, old))
    return root


def _argv(compiler: str, source: str, flags: str, tree: Path, how: str) -> list[str]:
    base = str(tree) if how == "absolute" else ".."
    own = flags.replace("ROOT", str(tree)).replace("PARENT", str(tree.parent)).split()
    # Compilers write such spellings as they are.
    includes = (f"-I{base}/./inc", f"-I{base}/inc/deep/../../build/")
    return [
        compiler,
        *own,
        *includes,
        "-MD",
        *([] if "-S" in own else ["-c"]),
        f"{base}/{source}",
        "-o",
        "sub.o",
    ]


def _taken(directory: Path) -> tuple[dict[str, bytes], tuple[bytes, ...]]:
    """Return all outputs, with what the depfile lists in its place, and remove the files."""
    written = [path for stem in ("sub", "a", "b", "c") for path in directory.glob(f"{stem}.*")]
    data = {path.name: path.read_bytes() for path in written}
    listed = prerequisites(parse_depfile(data.pop("sub.d")))
    for path in written:
        path.unlink()
    return data, listed


@pytest.mark.parametrize("how", ["absolute", "relative"])
@pytest.mark.parametrize(
    ("compiler", "source"),
    [
        ("gcc-12", "src/a.c"),
        ("clang-19", "src/a.c"),
        ("gcc-14", "src/b.cc"),
        ("clang-14", "src/b.cc"),
        ("gcc-13", "src/c.S"),
        ("clang-17", "src/c.S"),
    ],
)
def test_an_object_is_the_one_of_a_compile_here(
    compiler: str,
    source: str,
    how: str,
    tree: Path,
    make_cache: Callable[..., Cache],
    remote: FakeRemote,
) -> None:
    if source.endswith(".cc"):
        compiler = compiler.replace("gcc", "g++").replace("clang", "clang++")
    assert shutil.which(compiler), f"no {compiler} on this machine"
    cache = make_cache(remote)
    launcher = FakeLauncher(handler=cache, cwd=tree / "build")
    for flags in TRAVEL[source].strip().splitlines():
        if "-save-temps" in flags and "clang" in compiler and how == "absolute":
            continue  # see below
        argv = _argv(compiler, source, flags, tree, how)
        code, _, warnings = run_bare(argv, cwd=launcher.cwd)
        assert code == 0
        wanted = _taken(launcher.cwd)
        ended = launcher.compile(*argv)
        assert (ended.answer, ended.stderr) == ("done", warnings), (flags, cache.counters())
        assert _taken(launcher.cwd) == wanted, flags
    counters = cache.counters()
    assert counters["miss.remote.executed"] == len(remote.requests)


@pytest.mark.parametrize(("compiler", "flags", "how"), STAY)
def test_flags_that_would_show_the_guest_stay_here_and_are_named(
    compiler: str,
    flags: str,
    how: str,
    tree: Path,
    make_cache: Callable[..., Cache],
    remote: FakeRemote,
) -> None:
    cache = make_cache(remote)
    launcher = FakeLauncher(handler=cache, cwd=tree / "build")
    ended = launcher.compile(*_argv(compiler, "src/a.c", flags, tree, how))
    assert (ended.answer, ended.exit_code, remote.requests) == ("run", 0, [])
    assert cache.counters()["fallback.names-in-output"] == 1


def test_bitcode_with_absolute_names_stays_here(
    tree: Path, make_cache: Callable[..., Cache], remote: FakeRemote
) -> None:
    cache = make_cache(remote)
    launcher = FakeLauncher(handler=cache, cwd=tree / "build")
    argv = _argv("clang-19", "src/a.c", "-save-temps", tree, "absolute")
    assert launcher.compile(*argv).answer == "run"
    assert (remote.requests, cache.counters()["fallback.side-output"]) == ([], 1)


def test_preprocessed_text_keeps_what_the_source_says(
    tree: Path, make_cache: Callable[..., Cache], remote: FakeRemote
) -> None:
    text = 'const char *s = "/src/a.c"; /* /src/b */\n#define X "# 1 \\"/src/a.c\\""\nconst char *x = X;\n'
    (tree / "src/a.c").write_text(text)
    launcher = FakeLauncher(handler=make_cache(remote), cwd=tree / "build")
    argv = _argv("gcc", "src/a.c", "-save-temps", tree, "absolute")
    assert run_bare(argv, cwd=launcher.cwd)[0] == 0
    wanted = _taken(launcher.cwd)
    assert launcher.compile(*argv).answer == "done"
    assert _taken(launcher.cwd) == wanted
    assert b'"/src/a.c"' in wanted[0]["sub.i"]


@pytest.mark.parametrize(
    ("flags", "detail"),
    [
        ("--coverage", "--coverage with absolute names"),
        ("-fprofile-generate", "-fprofile-generate with absolute names"),
        ("-fprofile-generate=there", "-fprofile-generate=there names its counters"),
    ],
)
@pytest.mark.parametrize("marker", [".hpcc", ".git"])
def test_outputs_that_name_the_guest_stay_here_with_any_root(
    flags: str,
    detail: str,
    marker: str,
    tree: Path,
    make_cache: Callable[..., Cache],
    remote: FakeRemote,
    paths: Paths,
) -> None:
    (tree / marker).mkdir(exist_ok=True)
    cache = make_cache(remote)
    launcher = FakeLauncher(handler=cache, cwd=tree / "build")
    ended = launcher.compile(*_argv("gcc-12", "src/a.c", flags, tree, "absolute"))
    assert (ended.answer, ended.exit_code, remote.requests) == ("run", 0, [])
    cache.close()
    (record,) = read_records(os.fspath(paths.cache))
    assert record.fallback.startswith(f"side-output: {detail}")
