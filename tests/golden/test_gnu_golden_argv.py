"""Command lines of gcc and clang and how hpcc reads them. A changed row is a changed meaning."""

from __future__ import annotations

import pytest

from hpcc.compilers.gnu.invocation import read_invocation
from hpcc.compilers.invocation.invocation import DepMode, Invocation, Language
from hpcc.compilers.invocation.side import Written, files_written
from hpcc.compilers.spec.table import Bypass

_COMPILES = [
    # program, argv, language, source, output, dep mode, depfile
    ("gcc", "-c a.c -specs x", "c", "a.c", "a.o", "none", None),
    ("gcc", "-c a.s", "assembler", "a.s", "a.o", "none", None),
    ("gcc", "-MD -MF a.d -c a.s", "assembler", "a.s", "a.o", "none", None),
    ("gcc", "-x assembler -c a.S", "assembler", "a.S", "a.o", "none", None),
    ("gcc", "-c a.i -o b.o", "cpp-output", "a.i", "b.o", "none", None),
    ("g++", "-c a.ii", "c++-cpp-output", "a.ii", "a.o", "none", None),
    ("gcc", "-x cpp-output -c a.c", "cpp-output", "a.c", "a.o", "none", None),
    ("gcc", "-c a.c", "c", "a.c", "a.o", "none", None),
    ("gcc", "-c d/a.b.c", "c", "d/a.b.c", "a.b.o", "none", None),
    ("gcc", "-oa.o -c a.c", "c", "a.c", "a.o", "none", None),
    ("gcc", "-P -c a.c", "c", "a.c", "a.o", "none", None),
    ("gcc", "-E a.c", "c", "a.c", "", "none", None),
    ("g++", "a.cpp -E -P -D_FILE_OFFSET_BITS=64 -P -O0", "c++", "a.cpp", "", "none", None),
    ("gcc", "-E -MD -MF a.d a.c", "c", "a.c", "", "-MD", "a.d"),
    ("g++", "-c a.c -o x.o", "c++", "a.c", "x.o", "none", None),
    ("gcc", "-c a.cc -MD", "c++", "a.cc", "a.o", "-MD", "a.d"),
    ("clang++-14", "-c a.C -MMD -o d.e/a.x.o", "c++", "a.C", "d.e/a.x.o", "-MMD", "d.e/a.x.d"),
    ("gcc", "-MD -MF x -c a.S", "assembler-with-cpp", "a.S", "a.o", "-MD", "x"),
    ("gcc", "-MMD -MP -MTq -MQ r -MFy -c -x c z.foo", "c", "z.foo", "z.o", "-MMD", "y"),
    ("x86_64-linux-gnu-gcc-12", "-c -x none a.c -Wp,-MD,k", "c", "a.c", "a.o", "-MD", "k"),
    ("/opt/bin/clang", "-Wp,-MMD,k -c a.c", "c", "a.c", "a.o", "-MMD", "k"),
    (
        "gcc",
        "-Wp,-U_F,-D_F=2 -Wa,--noexecstack -Wl,-O1 -L. -lm -c a.c",
        "c",
        "a.c",
        "a.o",
        "none",
        None,
    ),
    ("gcc", "-x assembler-with-cpp -c a.s", "assembler-with-cpp", "a.s", "a.o", "none", None),
    ("gcc", "-c a.m", "objective-c", "a.m", "a.o", "none", None),
    ("g++", "-c a.mm -MD", "objective-c++", "a.mm", "a.o", "-MD", "a.d"),
    ("clang", "-emit-llvm -c d/a.c -MD", "c", "d/a.c", "a.bc", "-MD", "a.d"),
    ("clang", "-fdebug-compilation-dir . -c a.c", "c", "a.c", "a.o", "none", None),
    ("clang", "-emit-llvm -S a.c", "c", "a.c", "a.ll", "none", None),
    ("clang", "-rtlib=compiler-rt -u f -e g -T x -c a.c", "c", "a.c", "a.o", "none", None),
    ("clang", "-x objective-c -c a.c", "objective-c", "a.c", "a.o", "none", None),
    ("clang", "-c -x ir a.bc", "ir", "a.bc", "a.o", "none", None),
    ("clang", "-x ir d/a.o -fthinlto-index=i -c -o b.o", "ir", "d/a.o", "b.o", "none", None),
    # CMake, Meson, Chromium's GN, the kernel's Kbuild, Debian's and Fedora's package builds.
    (
        "clang++",
        "-MMD -MF obj/a.o.d -DNDEBUG -I../.. -fno-ident -Wno-x -Xclang -fdebug-compilation-dir"
        " -Xclang . -mllvm -instcombine-lower-dbg-declare=0 -mllvm -enable-split-backedge-in-load=1"
        " -c ../../a.cc -o obj/a.o",
        "c++",
        "../../a.cc",
        "obj/a.o",
        "-MMD",
        "obj/a.o.d",
    ),
    (
        "gcc",
        "-Wp,-MMD,init/.main.o.d -nostdinc -I./include -include ./include/linux/kconfig.h"
        " -D__KERNEL__ -mno-sse -mcmodel=kernel -fno-strict-aliasing --param=allow-store-data-races=0"
        " -fcf-protection=none -c -o init/main.o init/main.c",
        "c",
        "init/main.c",
        "init/main.o",
        "-MMD",
        "init/.main.o.d",
    ),
    (
        "gcc",
        "-O2 -flto=auto -Werror=format-security -Wp,-U_FORTIFY_SOURCE,-D_FORTIFY_SOURCE=3"
        " -specs=/usr/lib/rpm/redhat/redhat-hardened-cc1 -m64 -march=x86-64-v2 -c a.c -o a.o",
        "c",
        "a.c",
        "a.o",
        "none",
        None,
    ),
    (
        "gcc",
        "-g -O2 -ffile-prefix-map=/build/x=. -specs=/usr/share/dpkg/pie-compile.specs -MT a.lo -MD"
        " -MP -MF .deps/a.Tpo -c a.c -fPIC -DPIC -o .libs/a.o",
        "c",
        "a.c",
        ".libs/a.o",
        "-MD",
        ".deps/a.Tpo",
    ),
    (
        "clang",
        "-fprofile-use=prof/code.profdata -fsanitize=cfi -fsanitize-ignorelist=cfi.txt -B/opt/mold"
        " -march=native -c a.c",
        "c",
        "a.c",
        "a.o",
        "none",
        None,
    ),
    ("gcc", "-MD -c -o noext a.c", "c", "a.c", "noext", "-MD", "noext.d"),
    ("gcc", "-c d/a.h", "c-header", "d/a.h", "d/a.h.gch", "none", None),
    ("g++", "a.h", "c++-header", "a.h", "a.h.gch", "none", None),
    ("gcc", "a.hpp -o x.gch", "c++-header", "a.hpp", "x.gch", "none", None),
    (
        "g++",
        "-x c++-header -MD -MF d -o x.gch -c a.cxx",
        "c++-header",
        "a.cxx",
        "x.gch",
        "-MD",
        "d",
    ),
    (
        "gcc",
        "--param max-inline=3 -isystem i -Ij -iquote k -idirafter l -c a.c",
        "c",
        "a.c",
        "a.o",
        "none",
        None,
    ),
    ("gcc", "-fsyntax-only a.c", "c", "a.c", "", "none", None),
    ("gcc", "-MD -fsyntax-only -o x/b.o -c a.c", "c", "a.c", "", "-MD", "x/b.d"),
    ("gcc", "-E -P -C -o b.i a.c", "c", "a.c", "b.i", "none", None),
    ("gcc", "-E -Wp,-MMD,a.d -o a.lds a.S", "assembler-with-cpp", "a.S", "a.lds", "-MMD", "a.d"),
]


@pytest.mark.parametrize("row", _COMPILES, ids=lambda row: f"{row[0]} {row[1]}")
def test_compiles(row: tuple[str, ...]) -> None:
    program, argv, language, source, output, mode, depfile = row
    found = read_invocation(program.encode(), [a.encode() for a in argv.split()])
    assert isinstance(found, Invocation), found
    assert found.language is Language(language.encode())
    assert (found.source.decode(), found.output.decode()) == (source, output)
    assert found.dep_mode is DepMode(mode)
    assert (found.depfile and found.depfile.decode()) == depfile


_BYPASSES = [
    ("ld", "-c a.c", "unknown-compiler"),
    ("gcc", "", "link"),
    ("gcc", "a.c", "link"),
    ("gcc", "a.o b.o -o prog", "link"),
    ("gcc", "-c", "no-source"),
    ("gcc", "-c a.c b.c", "multiple-sources"),
    ("gcc", "-c -", "stdin"),
    ("gcc", "-c a.c -o", "missing-value"),
    ("gcc", "-c a.c -o x -o y", "multiple-outputs"),
    ("gcc", "-c a.c -o -", "odd-output"),
    ("gcc", "-S a.S", "preprocess-only"),
    ("gcc", "-V", "information"),
    ("gcc", "-qversion", "information"),
    ("clang", "-version", "information"),
    ("gcc", "-S -c a.c", "several-modes"),
    ("gcc", "-E -MD a.c", "preprocess-only"),
    ("gcc", "-E -o - a.c", "odd-output"),
    ("gcc", "-E -c -o a.i a.c", "preprocess-only"),
    ("gcc", "-E -MD -o a.i a.c", "preprocess-only"),
    ("gcc", "-E -o a.i a.h", "preprocess-only"),
    ("gcc", "-E -o a.i b.i", "preprocess-only"),
    ("gcc", "-E -fdirectives-only -o a.i a.c", "preprocess-only"),
    ("gcc", "-E -traditional-cpp -o a.i a.c", "unknown-flag"),
    ("gcc", "-c -traditional-cpp a.c", "unknown-flag"),
    ("gcc", "-c -Wp,-traditional-cpp a.c", "preprocessor-flag"),
    ("gcc", "-c -Xpreprocessor -traditional-cpp a.c", "preprocessor-flag"),
    ("clang", "-E -frewrite-includes -o a.i a.c", "preprocess-only"),
    ("gcc", "-E -save-temps -o a.i a.c", "preprocess-only"),
    ("gcc", "-E -dDI -o a.i a.c", "dump"),
    ("gcc", "-c -dM a.c", "dump"),
    ("gcc", "-c -CC a.c", "unknown-flag"),
    ("gcc", "-M a.c", "dependencies-only"),
    ("gcc", "-MM -c a.c", "dependencies-only"),
    ("gcc", "-S -fsyntax-only a.c", "syntax-only"),
    ("gcc", "-fsyntax-only -MMD a.c", "syntax-only"),
    ("gcc", "-fsyntax-only a.S", "syntax-only"),
    ("gcc", "-fsyntax-only a.i", "syntax-only"),
    ("gcc", "-fsyntax-only --coverage a.c", "syntax-only"),
    ("gcc", "-fsyntax-only -fprofile-use a.c", "syntax-only"),
    ("g++", "-fsyntax-only -fmodules-ts a.cc", "syntax-only"),
    ("gcc", "-v -c a.c", "information"),
    ("gcc", "--version", "information"),
    ("gcc", "-print-prog-name=as", "information"),
    ("gcc", "-dumpversion", "information"),
    ("gcc", "-c a.mi", "no-preprocessing"),
    ("gcc", "-c -include b.h a.i", "no-preprocessing"),
    ("gcc", "-c -Wp,-MD,a.d a.i", "no-preprocessing"),
    ("gcc", "-c -fdirectives-only a.i", "no-preprocessing"),
    ("gcc", "-S a.s", "preprocess-only"),
    ("gcc", "-c -S a.h", "several-modes"),
    ("gcc", "-S a.h", "pch"),
    ("gcc", "-c -MD a.h", "pch"),
    ("gcc", "-c --coverage a.h", "pch"),
    ("gcc", "-c -x objective-c-header a.h", "pch"),
    ("gcc", "-c a.adb", "language"),
    ("gcc", "-c -x f77 a.c", "language"),
    ("gcc", "-c -x objective-c-cpp-output a.c", "no-preprocessing"),
    ("clang", "-c -x c++-user-header a.h", "header-unit"),
    ("clang++", "-c a.ixx", "modules"),
    ("clang", "-c -x ir a.bc -MD", "thinlto-backend"),
    ("clang", "-c -x ir a.bc -fthinlto-index=a.idx -fthinlto-index=b.idx", "thinlto-backend"),
    ("clang", "-S -x ir a.bc", "thinlto-backend"),
    ("clang", "-c a.c -fthinlto-index=a.idx", "thinlto-backend"),
    ("gcc", "-c a.o", "linker-input"),
    ("gcc", "-c a.c -MF x", "odd-dependencies"),
    ("gcc", "-c a.c -MD -MMD", "mixed-dependencies"),
    ("gcc", "-c a.c -MD -Wp,-MD,x", "mixed-dependencies"),
    ("gcc", "-c a.c -MD -MF x -MF y", "odd-dependencies"),
    ("gcc", "-c a.c -MG -MD", "dependencies-only"),
    ("clang", "-c a.c -MJ x", "compilation-database"),
    ("gcc", "-c a.c -save-temps=else", "save-temps"),
    ("gcc", "-c a.c -fprofile-note=x", "profile"),
    ("gcc", "-c a.c -gsplit-dwarf=both", "split-dwarf"),
    ("gcc", "-c a.c -fplugin=x", "plugin"),
    ("gcc", "-c a.c -fplugin-arg-x-y=z", "plugin"),
    ("gcc", "-c a.c -fopt-info-vec=x", "side-output"),
    ("gcc", "-c a.c -fdeps-file=x", "modules"),
    ("gcc", "-c a.c -fself-test=x", "dump"),
    ("clang", "-c a.c -save-stats=obj", "save-stats"),
    ("clang", "-c a.c -foptimization-record-file=x", "side-output"),
    ("gcc", "-c a.c -fdump-tree-all", "dump"),
    ("gcc", "-c a.c -da", "dump"),
    ("gcc", "-c a.c -fmodules-ts", "modules"),
    ("clang", "-c a.c -F x", "framework"),
    ("clang", "-c a.c -iframework x", "framework"),
    ("clang", "-c a.c -ivfsoverlay x", "vfs-overlay"),
    ("gcc", "-c a.c -wrapper x", "wrapper"),
    ("gcc", "-c a.c -I-", "split-include"),
    ("gcc", "-c a.c -I=x", "sysroot-include"),
    ("gcc", "-c a.c -Wa,-al=x", "assembler-flag"),
    ("gcc", "-c a.c -Wp,-include,x", "preprocessor-flag"),
    ("gcc", "-c a.c -Xassembler -a", "assembler-flag"),
    ("gcc", "-c a.c -Xpreprocessor -MD", "preprocessor-flag"),
    ("clang", "-c a.c -Xclang -x", "pass-through"),
    ("clang", "-c a.c -Xclang -include-pch", "pass-through"),
    ("clang", "-c a.c -Xclang -emit-pch", "pch"),
    ("clang", "-c a.c -Xclang -include-pch -Xclang x -Xclang -include-pch -Xclang y", "pch"),
    ("clang", "-c a.h -Xclang -include-pch -Xclang x", "pch"),
    ("clang", "-c a.i -Xclang -include -Xclang x", "no-preprocessing"),
    ("clang", "-c a.c -fpch-debuginfo", "pch"),
    ("clang", "-c a.c -Xclang -target-cpu", "pass-through"),
    ("clang", "-c a.c -Xclang -mllvm -Xclang -pgo-test-profile-file=x", "pass-through"),
    ("clang", "-c a.c -mllvm -x", "pass-through"),
    ("clang", "-c a.c -mmlir -MD", "pass-through"),
    ("clang", "-c a.c -mllvm -pgo-test-profile-file=x", "pass-through"),
    ("clang", "-c a.c -mllvm -enable-name-compression=x", "pass-through"),
    ("clang", "-c a.c -mllvm -time-passes", "pass-through"),
    ("clang", "-c a.c -include-pch x", "pch"),
    ("clang", "-c a.c -emit-ast", "other-output"),
    ("gcc", "-c a.c -fsearch-include-path", "extra-input"),
    ("clang", "-c a.c -ftime-trace", "measures-time"),
    ("gcc", "-c a.c -ftime-report", "measures-time"),
    ("clang", "-c a.c --config x", "config-file"),
    ("clang", "-c a.c -frecord-command-line", "record-switches"),
    ("clang", "-c a.c -fembed-bitcode", "record-switches"),
    ("clang", "-c a.c -fproc-stat-report=x", "side-output"),
    ("gcc", "-c a.c -finput-charset=utf-7", "input-charset"),
    ("clang", "-c a.c -ObjC", "language"),
    ("clang", "-arch x86_64 -arch arm64 -c a.c", "several-architectures"),
    ("icc", "-c a.c", "other-compiler"),
    ("/opt/arm/armclang", "-c a.c", "other-compiler"),
    ("gfortran", "-c a.f90", "other-compiler"),
    ("x86_64-linux-gnu-gfortran-14", "-c a.f90", "other-compiler"),
    ("clang-tidy-19", "a.c -- -DX", "other-compiler"),
    ("rustc", "a.rs", "other-compiler"),
    ("ldc2", "-c a.d", "other-compiler"),
    ("/usr/bin/sccache", "cc -c a.c", "other-compiler"),
    ("ccache", "gcc -c a.c", "other-compiler"),
    ("my-tool", "-c a.c", "unknown-compiler"),
    ("nvcc", "-c a.cu", "other-compiler"),
    ("/opt/cuda/bin/nvcc", "-c a.c", "other-compiler"),
    ("gcc", "-c a.c --zz", "unknown-flag"),
    ("gcc", "-c a.c -Zq", "unknown-flag"),
]


_SIDE = [
    # program, argv, output, its mode is kept, further files (those that are replaced: +)
    ("gcc", "-c d/a.c -o b/x.y.o --coverage", "b/x.y.o", False, "b/x.y.gcno"),
    ("clang", "-c d/a.c -ftest-coverage", "a.o", False, "a.gcno"),
    ("gcc", "-c a.c -o x -fstack-usage", "x", False, "x.su"),
    ("gcc", "-g -c a.c -o b/x.o -gsplit-dwarf", "b/x.o", False, "+b/x.dwo"),
    ("clang", "-g -c a.c -o b/x.o -gsplit-dwarf=split", "b/x.o", False, "b/x.dwo"),
    ("clang", "-g -c a.c -o b/x.o -gsplit-dwarf=single", "b/x.o", False, ""),
    ("gcc", "-save-temps -c d/a.c -o b/x.o", "b/x.o", False, "b/x.i b/x.s"),
    ("gcc", "-save-temps=obj -c d/a.cc -o b/x.o", "b/x.o", False, "b/x.ii b/x.s"),
    ("gcc", "--save-temps=cwd -c d/a.c -o b/x.o", "b/x.o", False, "x.i x.s"),
    ("gcc", "-save-temps=cwd -S d/a.c -o b/x.s", "b/x.s", True, "x.i"),
    ("gcc", "-save-temps -c d/a.S -o b/x.o", "b/x.o", False, "b/x.s"),
    ("clang", "-save-temps -c d/a.c -o b/x.o", "b/x.o", True, "+a.i +a.bc +a.s"),
    ("clang", "-save-temps=obj -c d/a.cc -o b/x.o", "b/x.o", True, "+b/a.ii +b/a.bc +b/a.s"),
    ("clang", "-save-temps -S a.c", "a.s", False, "+a.i +a.bc"),
    ("gcc", "-S d/a.c", "a.s", True, ""),
    ("gcc", "-c d/a.c -o b/x.o -fcallgraph-info", "b/x.o", False, "b/x.ci"),
    ("gcc", "-c d/a.c -o b/x.o -fcallgraph-info=su,da", "b/x.o", False, "b/x.ci"),
    ("clang", "-c d/a.c -o b/x.o -fsave-optimization-record", "b/x.o", False, "b/x.opt.yaml"),
    ("clang", "-c d/a.c -fsave-optimization-record=yaml", "a.o", False, "a.opt.yaml"),
    ("clang", "-c a.c --serialize-diagnostics b/a.dia", "a.o", False, "+b/a.dia"),
    ("gcc", "-save-temps -c a.m -o x.o", "x.o", False, "x.mi x.s"),
    ("clang", "-S d/a.c", "a.s", False, ""),
]


@pytest.mark.parametrize("row", _SIDE, ids=lambda row: f"{row[0]} {row[1]}")
def test_further_outputs(row: tuple[str, str, str, bool, str]) -> None:
    program, argv, output, keeps_mode, expected = row
    found = read_invocation(program.encode(), [a.encode() for a in argv.split()])
    assert isinstance(found, Invocation), found
    assert found.output.decode() == output
    written = files_written(found, is_clang=program == "clang", major=14)
    assert isinstance(written, Written), written
    assert written.output_keeps_mode is keeps_mode
    names = [("" if s.keeps_mode else "+") + s.name.decode() for s in written.side]
    assert names == expected.split()


@pytest.mark.parametrize(
    ("program", "argv", "major", "reason"),
    [
        ("gcc", "-c a.c --coverage", 11, "unproved-compiler"),
        ("clang", "-S a.c", 99, "unproved-compiler"),
        ("clang", "-c a.h", 19, "pch"),
        ("clang", "-c a.h -o a.pch", 19, "pch-timestamp"),
        ("clang", "-c a.h -o a.gch -Xclang -fno-pch-timestamp", 19, "pch"),
        ("clang", "-c a.h -o a.pch -Xclang -fno-pch-timestamp", 18, "pch"),
        ("gcc", "-c a.h", 11, "pch"),
        ("gcc", "-c a.h -o a.pch", 14, "pch"),
        ("gcc", "-S -fverbose-asm a.c", 12, "verbose-asm"),
        ("gcc", "-c -save-temps -fverbose-asm a.c", 12, "verbose-asm"),
        ("gcc", "-S -g -gsplit-dwarf a.c", 12, "split-dwarf"),
        ("gcc", "-c -save-temps -save-temps=cwd a.c", 12, "save-temps"),
        ("gcc", "-c -fcallgraph-info=x a.c", 12, "side-output"),
        ("gcc", "-c -fsave-optimization-record a.c", 12, "side-output"),
    ],
)
def test_further_outputs_that_are_not_for_the_cache(
    program: str, argv: str, major: int, reason: str
) -> None:
    found = read_invocation(program.encode(), [a.encode() for a in argv.split()])
    assert isinstance(found, Invocation), found
    written = files_written(found, is_clang=program == "clang", major=major)
    assert written == Bypass(reason)


@pytest.mark.parametrize("row", _BYPASSES, ids=lambda row: f"{row[0]} {row[1]}")
def test_bypasses(row: tuple[str, str, str]) -> None:
    program, argv, reason = row
    assert read_invocation(program.encode(), [a.encode() for a in argv.split()]) == Bypass(reason)
