"""The command line of nvcc: what is read, and that everything else is refused."""

from __future__ import annotations

import pytest

from hpcc.compilers.invocation.invocation import Product
from hpcc.compilers.nvcc.invocation import NvccInvocation, expand_nvcc, read_nvcc
from hpcc.compilers.spec.table import Bypass
from hpcc.core.reasons.bypass import BypassReason

REFUSALS = {"nvcc-option", "missing-value", "nvcc", "process-path"}
CMAKE = (
    '-forward-unknown-to-host-compiler -DNAME="a b" -I/s/inc -isystem=/usr/x -O3 -DNDEBUG '
    "-std=c++17 --generate-code=arch=compute_80,code=[compute_80,sm_80] -Xcompiler=-fPIC,-Wall "
    "-Wextra -fno-exceptions -MD -MT o.o -MF o.o.d -x cu -rdc=true -c /s/x.cu -o o.o"
)


def words(line: str) -> list[bytes]:
    return [word.replace("a b", "a b").encode() for word in line.replace("a b", "a\0b").split()]


def read(line: str) -> NvccInvocation | Bypass:
    return read_nvcc([w.replace(b"\0", b" ") for w in words(line)])


def refusal(line: str) -> str:
    found = read(line)
    return found.reason if isinstance(found, Bypass) else ""


def test_the_line_of_cmake() -> None:
    found = read(CMAKE)
    assert isinstance(found, NvccInvocation)
    assert (found.source, found.output, found.depfile) == (b"/s/x.cu", b"o.o", b"o.o.d")
    assert found.include_dirs == (b"/s/inc", b"/usr/x")
    assert found.macros == (b'NAME="a b"', b"NDEBUG")
    assert [flag.raw[0] for flag in found.host] == [
        b"-fPIC",
        b"-Wall",
        b"-Wextra",
        b"-fno-exceptions",
    ]
    assert found.product is Product.CUDA
    assert list(found.arguments) == [w.replace(b"\0", b" ") for w in words(CMAKE)]


def test_values_are_divided_and_stripped_as_nvcc_does() -> None:
    found = read("-I=a,b --include-path c -isystem d,e -include=f.h,g.h -D=X=1,Y=2 -c x.cu")
    assert isinstance(found, NvccInvocation)
    assert found.include_dirs == (b"a", b"b", b"c", b"d", b"e")
    assert found.forced_includes[-2:] == (b"f.h", b"g.h")
    assert {b"X=1", b"Y=2"} < set(found.macros)
    assert found.output == b"x.o"


def test_flags_for_the_search_path_are_asked_with_it() -> None:
    found = read("-Xcompiler -march=x86-64-v3,-O2 -ccbin g++-14 -Xcompiler=-Wall -c x.cu")
    assert isinstance(found, NvccInvocation)
    assert found.search_arguments == (b"-Xcompiler", b"-march=x86-64-v3,-O2", b"-ccbin", b"g++-14")


@pytest.mark.parametrize(
    "words",
    [
        # What a shell would interpret.
        "-DX=$(id)", "-DX=`id`", "-DX=$HOME", "-DX=a;id", "-DX=a|b", "-DX=a&b", "-DX=a>b",
        "-DX=\\", "-DX='1'", '-DX="$HOME"', '-DX="\\"', '-DX="a', "-DX=a#b", "-DX=a*", "-DX=~",
        "-I$HOME", "-I~/x", "-I\u0430", "-isystem=a*", "-o a;b", "-MF $(id)", "-MT a\\ b", "-include a?b",
        "-Xcompiler=-W$(id)", "-Xcompiler=-Wall;id", '-Xcompiler="-Wall"', "-Xptxas=-v;id",
        # Options that do more than a compile.
        "-keep", "--keep", "--keep-dir=x", "-save-temps", "--save-temps", "-dryrun", "--dryrun",
        "-run", "--run", "-objtemp", "-time=x", "--time", "-fdevice-time-trace=x", "-v", "-odir=x",
        "-noprof", "-ldir=/x", "-target-dir=x", "-use-local-env", "-l=x", "-lx", "-L/x", "-Xlinker=-x",
        "-Xnvlink=-x", "-Xfatbin=-x", "-Xcicc=-x", "-opt-info=inline", "-qpp-config=x", "-MMD",
        "-arbin=/x", "-clean", "-jobserver", "-sanitize=x", "-idp=x", "-r", "-shared", "-gen-opt-lto",
        # Spellings that nvcc may read in another way.
        "-MD=true", "-c=true", "-g=true", "-O4", "-Ofast", "-O", "-Ofc", "-std=gnu++17", "-ofile",
        "-isystemdir", "-stdc++17", "-xcu", "-x=c++", "-x=c", "-I", "-I=", "-I,a",
        "-Ia,,b", "-D=", "-D1", "-D-x", "-rdc=yes", "-rdc", "--no-such", "-", "--", "@x", "-@x",
        "-gencode=arch=native", "-arch=native", "-code=native",
        "-arch=all,native", "-t=x", "-maxrregcount=x", "-ccbin=./x", "-ccbin=../g++", "-ccbin=a/b",
        "-ccbin=", "-Werror=", "-forward-unknown-to-host-compiler=1", "-forward-unknown-opts",
        # Not passed on: without the option that forwards, and what GCC would do besides.
        "-Wall", "-fPIC", "-march=x86-64", "-Xcompiler=-I/x", "-Xcompiler=-include,x.h",
        "-Xcompiler=-DX", "-Xcompiler=-Wa,-x", "-Xcompiler=-Wp,-x", "-Xcompiler=-fplugin=x",
        "-Xcompiler=-specs=x", "-Xcompiler=-B/x", "-Xcompiler=-march=native", "-Xcompiler=-flto",
        "-Xcompiler=-save-temps", "-Xcompiler=-fprofile-use", "-Xcompiler=--coverage",
        "-Xcompiler=-fdirectives-only", "-Xcompiler=@x", "-Xcompiler=x.c", "-Xcompiler=-x,c",
        "-Xcompiler=-MD", "-Xcompiler=-E", "-Xcompiler=-o,x", "-Xcompiler=-frecord-gcc-switches",
        "-Xcompiler=-fdump-tree-all", "-Xcompiler=-finput-charset=x", "-Xcompiler=-nostdinc",
        "-Xcompiler=-fms-extensions", "-Xcompiler=-gsplit-dwarf", "-Xcompiler=-imacros,x",
        "-Xcompiler=-pipe,", "-Xcompiler=-fpch-preprocess", "-Xcompiler=-fmodules-ts",
        "-Xptxas=--options-file=x", "-Xptxas=-o,x", "-Xptxas=x.ptx", "-Xcudafe=--x",
        "-Xcudafe=--diag_suppress=a;b", "-I-", "-I=-", "-I -x", "-Ia,-", "-isystem=-", "-include -x",
        "-o -x", "-MF -x", "-MT -x", "-U-x", "-Werror -w", "-frandom-seed=-x", "-I=/proc/self/cwd", "-Ia,/proc/1", "-isystem=//proc",
    ],
)  # fmt: skip
def test_everything_else_is_refused(words: str) -> None:
    assert refusal(f"-c x.cu {words}") in REFUSALS


@pytest.mark.parametrize(
    "words",
    [
        "-Wa,-x", "-Wp,-MD,x", "-Wl,-x", "-specs=x", "-B/x", "-fplugin=x", "-march=native", "-nostdinc",
        "-include-pch x", "--sysroot=/x", "-iquote x", "-MMD", "-M", "-E", "-S", "-cuda", "-keep",
        "-fdevice-time-trace=x", "-fdevice-syntax-only", "-dw", "-dlink", "-lib", "-e=x", "-time=x",
        "-fprofile-use=x", "--param=x", "-Xcicc=x", "-dlx", "-hls=gen-lcs", "-save-temps=obj",
    ],
)  # fmt: skip
def test_what_is_not_forwarded(words: str) -> None:
    line = f"-forward-unknown-to-host-compiler -c x.cu {words}"
    assert refusal(line) in REFUSALS


@pytest.mark.parametrize(
    ("line", "reason"),
    [
        ("x.cu -o x", "nvcc"), ("-c x.cu y.cu", "nvcc"), ("-c x.cpp", "nvcc"), ("-c x.o", "nvcc"),
        ("-c", "nvcc"), ("-c -dc x.cu", "nvcc"), ("-c -x cu x.ptx", "nvcc"), ("-c .cu", "nvcc"),
        ("-c x.cu -o a.o -o b.o", "multiple-outputs"), ("-c x.cu -o x.cu", "odd-output"),
        ("-c x.cu -o d/", "odd-output"), ("-c x.cu -MD", "odd-dependencies"),
        ("-c x.cu -MF x.d", "odd-dependencies"), ("-c x.cu -MD -MF a -MF b", "odd-dependencies"),
        ("-c x.cu -MT x", "odd-dependencies"), ("-c x.cu -MD -MF d/", "odd-dependencies"),
        ("-c x.cu -o", "missing-value"), ("-c x.cu -o x.d -MD -MF x.d", "odd-output"),
    ],
)  # fmt: skip
def test_forms_of_the_command(line: str, reason: str) -> None:
    assert refusal(line) == reason


def _expanded(*arguments: str, files: dict[bytes, bytes] | None = None, **env: str) -> object:
    variables = {name.encode(): value.encode() for name, value in env.items()}
    given = tuple(word.encode() for word in arguments)
    found = expand_nvcc(given, variables, (files or {}).get)
    return found if isinstance(found, Bypass) else [word.decode() for word in found]


def test_words_of_the_environment_and_of_files() -> None:
    assert _expanded("-c", "x.cu") == ["-c", "x.cu"]
    assert _expanded("-c", NVCC_PREPEND_FLAGS="-O2\t-DX", NVCC_APPEND_FLAGS=" -DY ") == [
        "-O2", "-DX", "-c", "-DY",
    ]  # fmt: skip
    files = {b"r": b"-Ia\r\n-DX=1\n"}
    for form in (("--options-file", "r"), ("-optf=r",), ("--options-file=r",), ("-optf", "r")):
        found = _expanded(*form, "-c", files=files)
        assert found == [form[0].partition("=")[0], "r", "-Ia", "-DX=1", "-c"]


def test_quotes_around_a_plain_directory_count_for_nothing() -> None:
    """As CMake writes `includes_CUDA.rsp` for Makefiles, and nvcc 13 reads it (`--dryrun`)."""
    files = {b"r": b'-I"/p/inc" -isystem "/p/sys" -isystem="/p/more"\n'}
    found = _expanded("-optf", "r", "-c", files=files)
    assert found == ["-optf", "r", "-I/p/inc", "-isystem", "/p/sys", "-isystem=/p/more", "-c"]


def test_a_response_file_is_no_value_of_another_option() -> None:
    for line in ("-D -optf r X=1 -c x.cu", "-MT -optf r -DX=1 -MD -MF d -c x.cu", "-c x.cu -optf"):
        assert refusal(line), line
    found = read("-optf r -DX=1 -c x.cu")
    assert isinstance(found, NvccInvocation)
    assert found.arguments == (b"-DX=1", b"-c", b"x.cu")
    assert found.key_arguments == (b"-optf", b"r", b"-DX=1", b"-c", b"x.cu")


@pytest.mark.parametrize(
    "content",
    [
        b'"-Ia b"',
        b'-I"a b"',
        b'-I"a"b',
        b'-I"a',
        b'-D"X=1"',
        b"-DX=\\1",
        b"'-Ia'",
        b"-optf r",
        b"-Ia # -Ib",
        b"-I$x",
        b"\0",
        b"-ccbin x",
        b"-Xcompiler=-O2",
        b"x.cu",
        b"-I a b",
        b"-D",
        b"-D -I",
        b"-isystemx",
        b"-O2",
    ],
)
def test_a_response_file_that_may_mean_something_else_is_refused(content: bytes) -> None:
    refused = Bypass(BypassReason.RESPONSE_FILE)
    assert _expanded("-optf", "r", files={b"r": content}) == refused
    assert _expanded("-optf", "r") == refused
    assert _expanded("-optf") == refused
