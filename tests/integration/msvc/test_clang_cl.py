"""clang-cl through the cache, miss and hit: object and messages equal those of a bare compile."""

from __future__ import annotations

import os
import subprocess
from pathlib import Path

import pytest

from hpcc.compilers.msvc.flags import MSVC_FLAGS, MsvcSpec
from hpcc.compilers.spec.table import Arity, Effect
from hpcc_testkit.cache.cl_bench import ClBench
from hpcc_testkit.cache.compiles import run_bare

pytestmark = pytest.mark.timeout(300)
SOURCE = '#include "h.h"\nint f(int a) { int unused; return a + X; }\n'


def fill(bench: ClBench) -> None:
    bench.write("x.c", SOURCE)
    bench.write("inc/h.h", "#define X 3\n")


@pytest.mark.parametrize(
    "flags",
    [
        "/O2 /MD", "/Z7", "/Zi", "/W4 /showIncludes", "-Z7 -showIncludes", "/TP /EHsc /std:c++20 -Wall",
        "/Zi -gno-codeview-command-line", "/Zi /FS /Fdx.dir/", "/clang:-fno-plt -fno-strict-aliasing -mavx2", "/FIinc/h.h",
    ],
)  # fmt: skip
def test_an_object_is_the_bare_compilers_cold_and_hit(bench: ClBench, flags: str) -> None:
    fill(bench)
    found = bench.twice("/nologo", "/c", "/Brepro", *flags.split(), "/Iinc", "x.c", "/Fox.obj")
    assert found[:2] == b"\x64\x86"  # COFF, x86-64


@pytest.mark.parametrize(
    "flags",
    ["-MD", "-MD /Z7", "-MMD /Zi /O1", "-MD -clang:-MP -pedantic", "-MD /showIncludes -clang:-MQx"],
)
def test_a_depfile_is_the_bare_compilers_cold_and_hit(bench: ClBench, flags: str) -> None:
    """What CMake passes to clang-cl since 4, in place of `/showIncludes`."""
    fill(bench)
    argv = ("/c", "/Brepro", "/Iinc", "-clang:-MTout/x.obj", "-clang:-MFx.c.d", "x.c")
    mode, *more = flags.split()
    argv = (f"-clang:{mode}", *more, *argv)
    depfile = bench.cwd / "x.c.d"
    assert run_bare(("clang-cl", *argv), cwd=bench.cwd, env=bench.env)[0] == 0
    expected = depfile.read_bytes()
    assert b"inc/h.h" in expected
    bench.twice(*argv)
    depfile.unlink()
    (bench.cwd / "x.obj").unlink()
    got = bench.launcher.compile("clang-cl", *argv)
    assert (got.answer, depfile.read_bytes()) == ("done", expected)
    bench.write("inc/h.h", "#define X 4\n")
    assert bench.compile(*argv)[0].answer == "run"


def test_a_changed_header_is_a_miss(bench: ClBench) -> None:
    fill(bench)
    argv = ("/c", "/Brepro", "/Iinc", "x.c")
    one = bench.twice(*argv)
    bench.write("inc/h.h", "#define X 4\n")
    other = bench.twice(*argv)
    assert one != other


def test_a_header_that_appears_earlier_on_the_path_is_a_miss(bench: ClBench) -> None:
    fill(bench)
    (bench.cwd / "first").mkdir()
    argv = ("/c", "/Brepro", "/Ifirst", "/Iinc", "x.c")
    one = bench.twice(*argv)
    bench.write("first/h.h", "#define X 5\n")
    assert bench.twice(*argv) != one


def test_a_header_that_appears_beside_an_includers_includer_is_a_miss(bench: ClBench) -> None:
    """cl and clang-cl search a quoted name up the chain of includers."""
    bench.write("x.c", '#include "sub/a.h"\nint f(void) { return X; }\n')
    bench.write("sub/a.h", '#include "b.h"\n')
    bench.write("inc/b.h", "#define X 1\n")
    argv = ("/c", "/Brepro", "/Iinc", "x.c")
    one = bench.twice(*argv)
    bench.write("b.h", "#define X 2\n")
    assert bench.twice(*argv) != one


def test_a_backslash_in_an_include_is_a_slash(bench: ClBench) -> None:
    bench.write("x.c", '#include "inc\\h.h"\nint f(void) { return X; }\n')
    bench.write("inc/h.h", "#define X 1\n")
    (bench.cwd / "first/inc").mkdir(parents=True)
    argv = ("/c", "/Brepro", "/Ifirst", "/I.", "-Wno-nonportable-include-path", "x.c")
    one = bench.twice(*argv)
    bench.write("inc/h.h", "#define X 2\n")
    assert bench.twice(*argv) != one


@pytest.mark.parametrize("name", ["INCLUDE", "EXTERNAL_INCLUDE", "CPATH"])
def test_the_include_variables_are_search_paths(bench: ClBench, name: str) -> None:
    bench.write("x.c", "#include <h.h>\nint f(void) { return X; }\n")
    for directory, value in (("one", 1), ("two", 2)):
        bench.write(f"{directory}/h.h", f"#define X {value}\n")
    found = []
    for directory in ("one", "two"):
        bench.env[name] = str(bench.cwd / directory)
        if run_bare(("clang-cl", "/c", "x.c"), cwd=bench.cwd, env=bench.env)[0]:
            pytest.fail(f"this clang-cl does not read {name}")
        found.append(bench.twice("/c", "/Brepro", "x.c"))
    assert found[0] != found[1]
    bench.write("two/h.h", "#define X 3\n")
    assert bench.twice("/c", "/Brepro", "x.c") != found[1]
    bench.write("early/other.h", "")  # a directory that is older than the next compile
    bench.env[name] = f"{bench.cwd}/early{';:'[name == 'CPATH']}{bench.cwd}/two"
    third = bench.twice("/c", "/Brepro", "x.c")
    bench.write("early/h.h", "#define X 4\n")
    assert bench.twice("/c", "/Brepro", "x.c") != third


def test_flags_in_cl_and_behind_count(bench: ClBench) -> None:
    bench.write("x.c", "int f(void) { return X; }\n")
    found = []
    for before, behind in (("/DX#1", ""), ("/DX=2", ""), ("", "/DX=3"), ("/DX=1", "/UX /DX=4")):
        bench.env |= {"CL": before, "_CL_": behind}
        found.append(bench.twice("/c", "/Brepro", "x.c"))
    assert len(set(found)) == 4


def test_the_language_of_messages_is_part_of_the_key(bench: ClBench) -> None:
    fill(bench)
    for value in ("1033", "1031"):
        bench.env["VSLANG"] = bench.launcher.env["VSLANG"] = value
        bench.twice("/c", "/Brepro", "/Iinc", "x.c")


@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig", "utf-16"])
def test_a_response_file_is_read_as_windows_does(bench: ClBench, encoding: str) -> None:
    bench.write("x.c", "int f(void) { return X; }\n")
    found = []
    for value in (1, 2):
        bench.write("args.rsp", f'/c\r\n/Brepro "/DX={value}" x.c\r\n'.encode(encoding))
        found.append(bench.twice("@args.rsp"))
    assert found[0] != found[1]


@pytest.mark.parametrize("flag", ["--driver-mode=cl"])
def test_clang_in_cl_mode_is_clang_cl(bench: ClBench, flag: str) -> None:
    fill(bench)
    (bench.cwd / "x.obj").unlink(missing_ok=True)
    for answer in ("run", "done"):
        got = bench.launcher.compile("clang-19", flag, "/c", "/Brepro", "/Iinc", "x.c")
        assert (got.answer, got.exit_code) == (answer, 0), got
        assert (bench.cwd / "x.obj").read_bytes()[:2] == b"\x64\x86"


def test_a_response_file_with_the_words_of_cl_mode_is_not_read_as_a_known_cl_compile(
    bench: ClBench,
) -> None:
    """`clang @words` is clang's driver, whatever the file's words are, so the daemon bypasses it.

    The same words, written directly, are a compile of clang-cl, which searches `INCLUDE`. Their
    parsed form must not answer for the response file, where the variable is not in the key.
    """
    words = ["--driver-mode=cl", "/c", "/Brepro", "x.c"]
    bench.write("x.c", '#include "late.h"\n')
    bench.write("i1/late.h", "int one = 1;\n")
    bench.write("words.rsp", " ".join(words))
    bench.launcher.env["INCLUDE"] = str(bench.cwd / "i1")
    for answer in ("run", "done"):
        assert bench.launcher.compile("clang-19", *words).answer == answer
    (bench.cwd / "x.obj").unlink()
    assert bench.launcher.compile("clang-19", "@words.rsp").answer == "exec"
    assert bench.cache.counters()["bypass.unknown-flag"] == 1


def test_a_failing_compile_says_what_the_bare_one_says(bench: ClBench) -> None:
    bench.write("x.c", "int f(void) { return y; }\n")
    got, found = bench.compile("/c", "x.c")
    assert (got.answer, found) == ("run", b"")
    assert got.exit_code != 0


@pytest.mark.parametrize(
    ("flags", "reason"),
    [
        (["/c", "/Yuh.h"], "pch"), (["/c", "/ZI"], "pdb"), (["/E"], "preprocess-only"),
        (["/c", "/FAs"], "side-output"), (["/c", "/clang:-save-temps"], "pass-through"), ([], "link"),
    ],
)  # fmt: skip
def test_a_bypass_is_the_bare_compile(bench: ClBench, flags: list[str], reason: str) -> None:
    fill(bench)
    bench.env["TMPDIR"] = str(bench.cwd)
    got = bench.launcher.compile("clang-cl", *flags, "/Iinc", "x.c")
    assert (got.answer, got.reason) == ("exec", reason)
    assert bench.cache.counters()[f"bypass.{reason}"] == 1


def test_a_date_in_the_source_is_not_kept(bench: ClBench) -> None:
    bench.write("x.c", 'const char *f(void) { return __DATE__ " " __TIME__; }\n')
    for _ in range(2):
        assert bench.launcher.compile("clang-cl", "/c", "x.c").answer == "run"


def test_output_to_another_process_is_a_bypass(bench: ClBench) -> None:
    fill(bench)
    bench.launcher.env["VS_UNICODE_OUTPUT"] = "12"
    assert bench.launcher.compile("clang-cl", "/c", "/Iinc", "x.c").reason == "environment"


_VALUES = {
    "Fo": "y.obj", "o": "y.obj", "Tc": "x.c", "Tp": "x.c", "I": "inc", "external:I": "inc", "imsvc": "inc",
    "external:W": "0", "FI": "inc/h.h", "D": "A=1", "U": "A", "std:": "c++17", "Zc:": "wchar_t", "Zp": "8",
    "Zm": "100", "source-charset:": "utf-8", "execution-charset:": "utf-8", "vd": "0", "vm": "g", "EH": "sc",
    "GR": "-", "Gw": "", "Gy": "-", "GS": "-", "Gs": "4096", "constexpr:": "depth100", "O": "2",
    "arch:": "AVX2", "favor:": "blend", "fp:": "fast", "guard:": "cf", "wd": "4996", "we": "4996", "wo": "4996",
    "diagnostics:": "caret", "errorReport:": "none", "MP": "2", "cgthreads": "2", "-target=": "x86_64-pc-windows-msvc",
    "winsysroot": "/nowhere", "vctoolsdir": "/nowhere", "winsdkdir": "/nowhere", "vctoolsversion": "14.38",
    "winsdkversion": "10", "diasdkdir": "/nowhere", "fdiagnostics-color": "=never", "fmsc-version=": "1930",
    "clang:": "-fno-plt", "clang:-MF": "x.d", "clang:-MT": "y", "clang:-MQ": "y", "fms-compatibility": "", "gline-tables": "-only", "gcodeview": "", "gno-codeview": "-command-line",
    "Fd": "x.pdb", "sourceDependencies": "x.json", "JMC": "", "u": "", "Qvec": "", "Qpar": "", "Qspectre": "", "Qfast": "_transcendentals", "jumptablerdata": "",
}  # fmt: skip


def _asked(spec: MsvcSpec) -> list[str]:
    value = _VALUES.get(spec.spelling, "")
    prefix = "-" if spec.spelling.startswith("-") else "/"
    if spec.arity is Arity.SEPARATE:
        return [prefix + spec.spelling, value]
    return [prefix + spec.spelling + value]


@pytest.mark.parametrize(
    "spec",
    [r for r in MSVC_FLAGS.rows if r.is_clang_cl and r.effect is not Effect.REFUSE],
    ids=lambda s: s.spelling,
)
def test_each_row_is_taken_and_writes_the_object_alone(
    spec: MsvcSpec, tmp_path: Path, programs: Path
) -> None:
    """The real program accepts the flag, or reports that it ignores it, and leaves one file."""
    (tmp_path / "inc").mkdir()
    (tmp_path / "inc/h.h").write_text("#define X 3\n")
    (tmp_path / "x.c").write_text("int f(void) { return 3; }\n")
    own = _asked(spec)
    is_depfile = spec.effect is Effect.DEPENDENCY
    own = ["/clang:-MD", "/clang:-MFx.d", *own] if is_depfile else own
    source = [] if spec.spelling in {"Tc", "Tp"} else ["x.c"]
    mode = [] if spec.spelling == "c" else ["/c"]
    done = subprocess.run(
        [programs / "clang-cl", *mode, *own, "--", *source] if source else [programs / "clang-cl", *mode, *own],
        cwd=tmp_path, capture_output=True, text=True, check=False, timeout=100,
        env={"PATH": os.environ["PATH"], "TMPDIR": str(tmp_path)},
    )  # fmt: skip
    assert "no such file" not in done.stderr, done.stderr
    assert "unknown argument" not in done.stderr, done.stderr
    assert done.returncode == 0, done.stderr
    left = {p.name for p in tmp_path.iterdir()} - {"inc", "x.c"}
    objects = {"y.obj" if spec.effect is Effect.OUTPUT else "x.obj"}
    assert left == objects | ({"x.d"} if is_depfile else set())
