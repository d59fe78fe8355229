"""Command lines and what hpcc makes of them. A changed row here is a changed meaning."""

from __future__ import annotations

import pytest

from hpcc.compilers import Bypass, DepMode, Invocation, Language, read_invocation

_COMPILES = [
    # program, argv, language, source, output, dep mode, depfile
    ("gcc", "-c a.c", "c", "a.c", "a.o", "none", None),
    ("gcc", "-c d/a.b.c", "c", "d/a.b.c", "a.b.o", "none", None),
    ("gcc", "-oa.o -c a.c", "c", "a.c", "a.o", "none", None),
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
    ("gcc", "-MD -c -o noext a.c", "c", "a.c", "noext", "-MD", "noext.d"),
    (
        "gcc",
        "--param max-inline=3 -isystem i -Ij -iquote k -idirafter l -c a.c",
        "c",
        "a.c",
        "a.o",
        "none",
        None,
    ),
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
    ("gcc", "-S a.c", "assembly-output"),
    ("gcc", "-E a.c", "preprocess-only"),
    ("gcc", "-M a.c", "dependencies-only"),
    ("gcc", "-MM -c a.c", "dependencies-only"),
    ("gcc", "-fsyntax-only a.c", "syntax-only"),
    ("gcc", "-v -c a.c", "information"),
    ("gcc", "--version", "information"),
    ("gcc", "-print-prog-name=as", "information"),
    ("gcc", "-dumpversion", "information"),
    ("gcc", "-c a.s", "no-preprocessing"),
    ("gcc", "-c a.i", "no-preprocessing"),
    ("gcc", "-c a.h", "pch"),
    ("gcc", "-c a.m", "language"),
    ("gcc", "-c -x objective-c a.c", "language"),
    ("gcc", "-c a.o", "linker-input"),
    ("gcc", "-c a.c -MF x", "odd-dependencies"),
    ("gcc", "-c a.c -MD -MMD", "mixed-dependencies"),
    ("gcc", "-c a.c -MD -Wp,-MD,x", "mixed-dependencies"),
    ("gcc", "-c a.c -MD -MF x -MF y", "odd-dependencies"),
    ("gcc", "-c a.c -MG -MD", "dependencies-only"),
    ("clang", "-c a.c -MJ x", "compilation-database"),
    ("gcc", "-c a.c -save-temps=obj", "save-temps"),
    ("gcc", "-c a.c --coverage", "coverage"),
    ("gcc", "-c a.c -ftest-coverage", "coverage"),
    ("gcc", "-c a.c -fprofile-use=x", "profile"),
    ("gcc", "-c a.c -gsplit-dwarf", "split-dwarf"),
    ("gcc", "-c a.c -fplugin=x", "plugin"),
    ("gcc", "-c a.c -fstack-usage", "side-output"),
    ("gcc", "-c a.c -fdump-tree-all", "dump"),
    ("gcc", "-c a.c -da", "dump"),
    ("gcc", "-c a.c -fmodules-ts", "modules"),
    ("gcc", "-c a.c -specs=x", "specs"),
    ("gcc", "-c a.c -Bx", "program-prefix"),
    ("gcc", "-c a.c -wrapper x", "wrapper"),
    ("gcc", "-c a.c -I-", "split-include"),
    ("gcc", "-c a.c -I=x", "sysroot-include"),
    ("gcc", "-c a.c -Wa,-al=x", "assembler-flag"),
    ("gcc", "-c a.c -Wp,-include,x", "preprocessor-flag"),
    ("gcc", "-c a.c -Xassembler -a", "pass-through"),
    ("clang", "-c a.c -Xclang -x", "pass-through"),
    ("clang", "-c a.c -mllvm -x", "pass-through"),
    ("clang", "-c a.c -include-pch x", "pch"),
    ("clang", "-c a.c -emit-llvm", "other-output"),
    ("clang", "-c a.c -ftime-trace", "information"),
    ("clang", "-c a.c --config x", "config-file"),
    ("gcc", "-c a.c -frecord-gcc-switches", "record-switches"),
    ("gcc", "-c a.c -fsanitize-blacklist=x", "extra-input"),
    ("clang", "-c a.c -fbasic-block-sections=list=x", "extra-input"),
    ("clang", "-c a.c -fproc-stat-report=x", "side-output"),
    ("gcc", "-c a.c -finput-charset=utf-7", "input-charset"),
    ("clang", "-c a.c -ObjC", "language"),
    ("clang", "-arch x86_64 -arch arm64 -c a.c", "several-architectures"),
    ("nvcc", "-c a.cu", "nvcc"),
    ("/opt/cuda/bin/nvcc", "-c a.c", "nvcc"),
    ("gcc", "-c a.c --zz", "unknown-flag"),
    ("gcc", "-c a.c -Zq", "unknown-flag"),
]


@pytest.mark.parametrize("row", _BYPASSES, ids=lambda row: f"{row[0]} {row[1]}")
def test_bypasses(row: tuple[str, str, str]) -> None:
    program, argv, reason = row
    assert read_invocation(program.encode(), [a.encode() for a in argv.split()]) == Bypass(reason)
