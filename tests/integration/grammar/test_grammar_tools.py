"""Programs and files that a driver finds by itself: -B, -specs, sanitizer lists, Objective-C."""

from __future__ import annotations

import os
import shutil
import subprocess
from pathlib import Path
from typing import Any

import pytest

from hpcc.compilers.gnu.specs import is_tame
from hpcc_testkit.suite.newest_clang import newest

_SOURCE = "int f(int x) { return x + 1; }\n"
_AS = "/usr/bin/x86_64-linux-gnu-as"
# What each sanitizer changes, if no list excludes `g`.
_WATCHED = {
    "address": "int g(int *p) { return *p; }\n",
    "numerical": "double g(double x) { return x * x + 1; }\n",
    "alloc-token": "#include <stdlib.h>\nvoid *g(unsigned n) { return malloc(n * sizeof(int)); }\n",
}


def _compile(bench: Any, *argv: str) -> str:
    answer: str = bench.compile(*argv, "-c", "a.c", "-o", "out/x.o")[0].answer
    return answer


@pytest.mark.parametrize("prefix", ["-Btools", "-B tools/", "-Btools/x-", "-B{}/tools"])
@pytest.mark.parametrize("compiler", ["gcc", "clang"])
def test_a_program_below_a_prefix_is_an_input(compiler: str, prefix: str, bench: Any) -> None:
    if not Path(_AS).exists():
        pytest.skip("has no -as of this name")
    bench.write("a.c", _SOURCE)
    (bench.cwd / "tools").mkdir()
    flags = [compiler, *prefix.format(bench.cwd).split(), "-fno-integrated-as"]
    flags = [f for f in flags if compiler == "clang" or f != "-fno-integrated-as"]
    assert [_compile(bench, *flags) for _ in range(2)] == ["run", "done"]
    place = bench.cwd / "tools" / ("x-as" if "x-" in prefix else "as")
    shutil.copy(_AS, place)
    bench.age(place)
    assert [_compile(bench, *flags) for _ in range(2)] == ["run", "done"]
    with place.open("ab") as file:
        file.write(b"another version")
    bench.age(place)
    assert [_compile(bench, *flags) for _ in range(2)] == ["run", "done"]
    place.unlink()
    assert _compile(bench, *flags) == "done"


@pytest.mark.parametrize("compiler", ["clang-14", "clang-19"])
def test_the_assembler_of_another_target_is_an_input(compiler: str, bench: Any) -> None:
    """`TARGET-as` takes precedence over `as`, wherever it is on PATH."""
    bench.write("a.c", _SOURCE)
    tools = bench.cwd / "bin"
    tools.mkdir()
    bench.launcher.env["PATH"] = f"{tools}:/usr/bin:/bin"
    flags = ("--target=x86_64-pc-linux-gnu", "-fno-integrated-as")
    argv = (compiler, *flags, "-c", "a.c", "-o", "out/x.o")
    assert [bench.launcher.compile(*argv).answer for _ in range(2)] == ["run", "done"]
    place = tools / "x86_64-pc-linux-gnu-as"
    shutil.copy(_AS, place)
    bench.age(place)
    assert [bench.launcher.compile(*argv).answer for _ in range(2)] == ["run", "done"]
    with place.open("ab") as file:
        file.write(b"another version")
    bench.age(place)
    assert [bench.launcher.compile(*argv).answer for _ in range(2)] == ["run", "done"]


def test_a_script_below_a_prefix_is_not_trusted(bench: Any) -> None:
    bench.write("a.c", _SOURCE)
    script = bench.write("tools/as", f'#!/bin/sh\nexec {_AS} "$@" # 1\n')
    script.chmod(0o755)
    assert [_compile(bench, "gcc", "-Btools") for _ in range(2)] == ["run", "run"]
    assert bench.cache.counters()["uncacheable.program-prefix"] == 2


def test_a_program_that_appears_beside_the_compiler_is_an_input(bench: Any, tmp_path: Path) -> None:
    """Uses a copy of an installation: GCC searches that directory before PATH."""
    real = Path(os.path.realpath(shutil.which("gcc") or "/usr/bin/gcc"))
    asked = subprocess.run([real, "-print-file-name=include"], capture_output=True, check=True)
    own = Path(os.fsdecode(asked.stdout.strip())).parent
    copy = tmp_path / "usr/lib/gcc" / own.parent.name / own.name
    copy.mkdir(parents=True)
    for path in own.iterdir():
        (copy / path.name).symlink_to(path)
    (tmp_path / "usr/bin").mkdir()
    shutil.copy(real, tmp_path / "usr/bin/gcc")
    bench.write("a.c", _SOURCE)
    bench.launcher.env["PATH"] = f"{tmp_path}/usr/bin:/usr/bin:/bin"
    argv = ("gcc", "-c", "a.c", "-o", "out/x.o")
    assert [bench.launcher.compile(*argv).answer for _ in range(2)] == ["run", "done"]
    for name in ("as", f"{own.parent.name}-as"):
        shutil.copy(_AS, copy / name)
        with (copy / name).open("ab") as file:
            file.write(name.encode())
        bench.age(copy / name)
        assert [bench.launcher.compile(*argv).answer for _ in range(2)] == ["run", "done"], name


@pytest.mark.parametrize("place", ["tools/include", "tools/specs"])
def test_what_else_gcc_looks_for_below_a_prefix(place: str, bench: Any) -> None:
    bench.write("a.c", "#include <v.h>\nint v = V;\n")
    bench.write("inc/v.h", "#define V 1\n")
    (bench.cwd / "tools").mkdir()
    flags = ("gcc", "-Btools", "-idirafter", "inc")
    assert [_compile(bench, *flags) for _ in range(2)] == ["run", "done"]
    if place == "tools/specs":
        bench.write(place, "*self_spec:\n+ -O2 -g\n")
    else:
        bench.write(place + "/v.h", "#define V 2\n")
    assert _compile(bench, *flags) == "run"
    assert _compile(bench, *flags) == "done"


def test_a_specs_file_that_names_others_is_not_kept(bench: Any) -> None:
    bench.write("a.c", _SOURCE)
    bench.write("more.specs", "*self_spec:\n+ -O2\n")
    bench.write("s.specs", f"%include <{bench.cwd}/more.specs>\n")
    assert [_compile(bench, "gcc", f"-specs={bench.cwd}/s.specs") for _ in range(2)] == [
        "run",
        "run",
    ]
    assert bench.cache.counters()["uncacheable.specs"] == 2


def test_a_specs_file_is_found_earlier(bench: Any) -> None:
    bench.write("a.c", _SOURCE)
    bench.write("t.specs", "*self_spec:\n+ -O2\n")
    (bench.cwd / "tools").mkdir()
    flags = ("gcc", "-Btools", "-specs=t.specs")
    assert [_compile(bench, *flags) for _ in range(2)] == ["run", "done"]
    bench.write("tools/t.specs", "*self_spec:\n+ -fPIC -g\n")
    assert [_compile(bench, *flags) for _ in range(2)] == ["run", "done"]


@pytest.mark.parametrize("name", ["pie-compile.specs", "no-pie-compile.specs"])
def test_the_distribution_s_own_specs_hit(name: str, bench: Any) -> None:
    path = Path("/usr/share/dpkg") / name
    if not path.exists():
        pytest.skip(f"has no -specs file {name}")
    assert is_tame(path.read_bytes())
    bench.write("a.c", _SOURCE)
    assert [_compile(bench, "gcc", f"-specs={path}", "-MMD") for _ in range(2)] == ["run", "done"]


@pytest.mark.parametrize(
    ("compiler", "sanitizer", "name"),
    [
        ("clang-14", "address", "asan_ignorelist.txt"),
        ("clang-19", "numerical", "nsan_ignorelist.txt"),
        newest("clang-22", "alloc-token", "alloc_token_ignorelist.txt"),
    ],
)
def test_a_sanitizer_s_own_list_is_an_input(
    compiler: str, sanitizer: str, name: str, bench: Any, tmp_path: Path
) -> None:
    """Runs in a private copy of the compiler's own directory."""
    real = Path(os.path.realpath(shutil.which(compiler) or "/usr/bin/clang"))
    root = tmp_path / "llvm"
    version = subprocess.run(
        [real, "-print-resource-dir"], capture_output=True, check=True, text=True
    ).stdout.strip()
    own = root / "lib/clang" / Path(version).name
    (root / "bin").mkdir(parents=True)
    own.mkdir(parents=True)
    shutil.copy(real, root / "bin/clang")
    (own / "include").symlink_to(Path(version) / "include")
    (own / "share").mkdir()
    bench.write("a.c", _WATCHED[sanitizer])
    bench.launcher.env["PATH"] = f"{root}/bin:/usr/bin:/bin"
    bench.launcher.env["LD_LIBRARY_PATH"] = str(real.parent.parent / "lib")
    answers, objects = [], []
    for content in (None, None, "fun:g\n", "fun:g\n", "fun:nothing\n"):
        path = own / "share" / name
        if content is not None and (not path.exists() or path.read_text() != content):
            path.write_text(content)
            bench.age(path)
        target = bench.cwd / "out/x.o"
        target.unlink(missing_ok=True)
        argv = ("clang", f"-fsanitize={sanitizer}", "-c", "a.c", "-o", "out/x.o")
        answers.append(bench.launcher.compile(*argv).answer)
        objects.append(target.read_bytes())
    assert answers == ["run", "done", "run", "done", "run"]
    assert objects[0] == objects[1] != objects[2] == objects[3] != objects[4]


@pytest.mark.parametrize("compiler", ["gcc", "clang"])
@pytest.mark.parametrize("flag", ["-march=native", "-mtune=native"])
def test_native_hits(compiler: str, flag: str, bench: Any) -> None:
    bench.write("a.c", _SOURCE)
    assert [_compile(bench, compiler, flag) for _ in range(2)] == ["run", "done"]


@pytest.mark.parametrize("compiler", ["gcc-12", "gcc-14", "clang-14", "clang-19"])
def test_objective_c(compiler: str, bench: Any) -> None:
    asked = shutil.which(compiler) and subprocess.run(
        [compiler, "-print-prog-name=cc1obj"], capture_output=True, check=True, text=True
    )
    if not asked or not (compiler.startswith("clang") or asked.stdout.startswith("/")):
        pytest.skip(f"has no -x objective-c: {compiler}")
    header = bench.write("v.h", "#define V 1\n")
    bench.write(
        "a.m",
        '#import "v.h"\n@interface A\n+ (int)v;\n@end\n@implementation A\n+ (int)v { return V; }\n@end\n',
    )
    argv = (compiler, "-c", "a.m", "-o", "out/x.o", "-MD")
    assert [bench.compile(*argv)[0].answer for _ in range(2)] == ["run", "done"]
    header.write_text("#define V 2\n")
    bench.age(header)
    assert [bench.compile(*argv)[0].answer for _ in range(2)] == ["run", "done"]


@pytest.mark.parametrize("compiler", ["clang-14", "clang-18", "clang-19"])
@pytest.mark.parametrize("flags", [(), ("-MD",), ("-MMD",), ("-fno-integrated-as",)], ids=" ".join)
def test_an_object_does_not_hold_our_flags(
    compiler: str, flags: tuple[str, ...], bench: Any
) -> None:
    """Debian's Clang 18 writes its command line into debug information."""
    if shutil.which(compiler) is None:
        pytest.skip(f"no {compiler} here")
    bench.write("a.c", '#include "v.h"\nint v = V;\n')
    header = bench.write("v.h", "#define V 1\n")
    assert [_compile(bench, compiler, "-g", *flags) for _ in range(2)] == ["run", "done"]
    header.write_text("#define V 2\n")
    bench.age(header)
    assert [_compile(bench, compiler, "-g", *flags) for _ in range(2)] == ["run", "done"]


@pytest.mark.parametrize(
    "flags",
    [
        ("-Xassembler", "--noexecstack"),
        ("-Xpreprocessor", "-DV=3"),
        ("-fopt-info-vec", "-O3"),
        ("-fprofile-generate=data", "-frandom-seed=1"),
        ("-iprefix", "/usr/", "-iwithprefix", "include"),
        ("-gz",),
        ("-frecord-gcc-switches", "-MMD"),
        ("-frecord-gcc-switches", "-MD"),
        ("-frecord-gcc-switches",),
        ("-fdebug-prefix-map=/a=b", "-g"),
    ],
    ids=" ".join,
)
def test_flags_that_only_pass_through_hit(flags: tuple[str, ...], bench: Any) -> None:
    bench.write("a.c", _SOURCE)
    assert [_compile(bench, "gcc", *flags) for _ in range(2)] == ["run", "done"]


@pytest.mark.parametrize(
    ("compiler", "flags", "name"),
    [
        ("gcc", ("-fcallgraph-info=su,da",), "x.ci"),
        ("clang-19", ("-O2", "-fsave-optimization-record"), "x.opt.yaml"),
        ("clang-14", ("-Wall", "--serialize-diagnostics", "out/x.dia"), "x.dia"),
        ("clang-14", ("-emit-llvm",), "x.o"),
    ],
)
def test_reports_come_back(compiler: str, flags: tuple[str, ...], name: str, bench: Any) -> None:
    if shutil.which(compiler) is None:
        pytest.skip(f"no {compiler} here")
    bench.write("a.c", _SOURCE)
    assert _compile(bench, compiler, *flags) == "run"
    report = bench.cwd / "out" / name
    expected = report.read_bytes()
    report.unlink()
    argv = (compiler, *flags, "-c", "a.c", "-o", "out/x.o")
    assert bench.launcher.compile(*argv).answer == "done"
    assert report.read_bytes() == expected
