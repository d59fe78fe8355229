"""Flags that leave no name of an output in the object: another output hits, and so does a move.

Each group of flags is compiled through the cache and bare in two places; the objects must agree.
"""

from __future__ import annotations

import os
from collections.abc import Callable

import pytest

from hpcc.compilers.gnu.family import GNU
from hpcc.compilers.spec.table import Bypass

from .conftest import Project

FILES = {
    "src/a.c": '#include "a.h"\nstatic int table[64]; int shared; static volatile int seen;\n'
    "static int helper(int n) { int s = 0; for (int i = 0; i < n; i++) s += table[i & 63] * i;"
    " return s; }\n"
    "int work(struct s *p, int n) { char b[64]; switch (n) { case 1: return helper(n);"
    " case 2: return p->a; case 3: return 7; case 4: seen++; return 9; default: break; }"
    " use(b); return (int)(p->d * n) + shared; }\n"
    "void scale(double *x, int n) { for (int i = 0; i < n; i++) x[i] = x[i] * 2 + 1; }\n",
    "inc/a.h": "void use(char *);\nstruct s { int a : 3; unsigned b : 5; double d; };\n",
    "src/a.cc": '#include "b.h"\nB::~B() {}\nint B::f() { return x; }\n'
    "int D::f() { static int n = once(); return B::f() + n; }\n"
    "namespace { struct A { int g() { return 4; } }; }\n"
    "template <class T> T twice(T t) { return t + t; }\n"
    "int all(B *b) { try { return b->f() + A().g() + twice(3) + (dynamic_cast<D *>(b) ? 1 : 0); }"
    " catch (int e) { return e; } }\n",
    "inc/b.h": "int once();\nstruct B { virtual ~B(); virtual int f(); int x; };\n"
    "struct D : B { int f(); };\n",
    "src/a.S": '#include "n.h"\n.text\n.globl foo\nfoo: mov $N, %eax\n ret\n'
    '.section .note.GNU-stack,"",@progbits\n',
    "inc/n.h": "#define N 4\n",
    "src/lines.S": '.file 1 "lines.c"\n.text\n.globl foo\nfoo: .loc 1 7\n ret\n'
    '.section .note.GNU-stack,"",@progbits\n',
    "src/shows.S": '#include "n.h"\n.data\n.ascii __FILE__\n.section .note.GNU-stack,"",@progbits\n',
}
# Groups for (compiler, source): one text has flags that may stand together.
PLAIN = {
    ("gcc", "a.c"): [
        "-fno-guess-branch-probability -fno-var-tracking-assignments -fno-toplevel-reorder"
        " -fno-reorder-blocks-and-partition -fno-defer-pop -fno-thread-jumps -frerun-cse-after-loop"
        " -fno-combine-stack-adjustments -fno-caller-saves -fno-cprop-registers -fno-code-hoisting",
        "-fgcse-las -fgcse-lm -fgcse-sm -fisolate-erroneous-paths-attribute -fkeep-gc-roots-live"
        " -flive-range-shrinkage -fno-lra-remat -fno-hoist-adjacent-loads -fno-shrink-wrap-separate"
        " -fno-split-paths -fno-ssa-backprop -fno-finite-loops -fno-compare-elim -fno-bit-tests",
        "-fvariable-expansion-in-unroller -fversion-loops-for-strides -fselective-scheduling2"
        " -fsel-sched-pipelining -fno-asm -finstrument-functions -fno-stack-limit"
        " -fno-dwarf2-cfi-asm -fcx-fortran-rules -fno-fp-int-builtin-inexact -fpcc-struct-return"
        " -funconstrained-commons -fno-inline-atomics -fno-trampolines -fno-auto-inc-dec",
        "-fno-lto -fno-profile-arcs -fno-test-coverage -fno-branch-probabilities -fno-verbose-asm"
        " -frandom-seed=a -fira-region=all -ftrack-macro-expansion=0 -O4 -fno-use-linker-plugin",
        "-fira-hoist-pressure -freorder-blocks-algorithm=simple -fira-region=one -malign-data=abi",
        "-pg -fwhole-program -fno-inhibit-size-directive -fno-graphite-identity -fuse-ld=gold",
    ],
    ("gcc", "a.cc"): [
        "-fno-access-control -fno-implicit-templates -fno-implicit-inline-templates -fcheck-new"
        " -fno-ext-numeric-literals -fextern-tls-init -fno-implement-inlines -fnew-inheriting-ctors"
        " -fnothrow-opt -fno-pretty-templates -fstrong-eval-order -ftemplate-backtrace-limit=0"
        " -fabi-compat-version=8",
    ],
    ("clang-19", "a.c"): ["-fblocks -fno-lto -fno-profile-generate -fno-autolink -pg"],
    ("clang-19", "a.cc"): [
        "-fcomplete-member-pointers -fstrict-vtable-pointers -fno-unique-section-names"
        " -fno-access-control -finstrument-functions",
    ],
    ("gcc", "a.S"): ["-Wa,--noexecstack", "-DX=1 -mno-red-zone"],
    ("clang-19", "a.S"): ["-DX=1"],
    ("gcc-12", "a.c"): ["-fanalyzer"],
    ("gcc-14", "a.c"): ["-fanalyzer -Wno-analyzer-malloc-leak"],
    **{
        (cc, source): [
            "-Xclang -fno-pch-timestamp",
            "-Xclang -disable-O0-optnone -Xclang -target-feature -Xclang +avx",
        ]
        for cc in ("clang-14", "clang-17")
        for source in ("a.c", "a.cc")
    },
}
# Bitcode holds the name of the source; what LLVM's switches do with names was not asked.
BITCODE = {
    (cc, source): [
        "-emit-llvm",
        "-emit-llvm -g -Xclang -disable-llvm-passes",
        "-flto",
        "-flto=thin -g",
        "-flto=full -fno-common",
        "-mllvm -inline-threshold=3",
        "-g -mllvm -enable-misched=false -mllvm -unroll-count=4",
    ]
    for cc in ("clang-14", "clang-17", "clang-19")
    for source in ("a.c", "a.cc")
}
DEBUG = {
    ("gcc", "a.c"): [
        "-g -fdebug-types-section -fno-eliminate-unused-debug-symbols -fno-merge-debug-strings"
        " -fno-eliminate-unused-debug-types -gstrict-dwarf -gno-record-gcc-switches"
        " -gno-statement-frontiers -gdwarf64 -gno-as-loc-support -fvar-tracking",
    ],
    ("clang-19", "a.cc"): [
        "-gline-tables-only",
        "-gmlt",
        "-g -fstandalone-debug -gstrict-dwarf -gsimple-template-names",
        "-g -ffile-compilation-dir=.",
    ],
    ("gcc", "a.S"): ["-g", "-ggdb"],
    ("clang-19", "a.S"): ["-g"],
}
# An assembler source with `__FILE__`.
SHOWN = {("gcc", "shows.S"): [""], ("clang-19", "shows.S"): [""]}


def rows(table: dict[tuple[str, str], list[str]]) -> list[object]:
    return [
        pytest.param(driver(cc, source), source, flags.split(), id=f"{cc} {source} {flags[:40]}")
        for (cc, source), groups in table.items()
        for flags in groups
    ]


def driver(cc: str, source: str) -> str:
    is_cxx = source.endswith(".cc")
    return cc.replace("gcc", "g++").replace("clang", "clang++") if is_cxx else cc


def command(cc: str, source: str, flags: list[str], output: str) -> list[str]:
    return [cc, "-O2", *flags, "-I{root}/inc", "-c", f"{{root}}/src/{source}", "-o", output]


@pytest.mark.parametrize(("cc", "source", "flags"), rows(PLAIN))
def test_another_output_and_another_place_hit(
    cc: str,
    source: str,
    flags: list[str],
    make: Callable[..., Project],
    move: Callable[[Project, str], Project],
) -> None:
    project = make("p", FILES)
    assert project.compile(command(cc, source, flags, "a.o")) == "miss"
    assert project.compile(command(cc, source, flags, "b.pic.o")) == "hit"
    moved = move(project, "elsewhere/deeper/q")
    assert moved.compile(command(cc, source, flags, "b.o"), "other") == "hit"


@pytest.mark.parametrize(("cc", "source", "flags"), [*rows(DEBUG), *rows(SHOWN), *rows(BITCODE)])
def test_an_object_that_holds_names_hits_for_another_output_only(
    cc: str,
    source: str,
    flags: list[str],
    make: Callable[..., Project],
    move: Callable[[Project, str], Project],
) -> None:
    project = make("p", FILES)
    assert project.compile(command(cc, source, flags, "a.o")) == "miss"
    assert project.compile(command(cc, source, flags, "b.pic.o")) == "hit"
    assert move(project, "q").compile(command(cc, source, flags, "a.o")) == "miss"


@pytest.mark.parametrize("cc", ["gcc", "gcc-14", "clang-19"])
def test_assembler_that_makes_debug_information_itself_hits_only_in_its_place(
    cc: str, make: Callable[..., Project], move: Callable[[Project, str], Project]
) -> None:
    """Directives make as write the working directory, also without -g."""
    project = make("p", FILES)
    words = [cc, "-c", "../src/lines.S", "-o"]
    assert project.compile([*words, "a.o"]) == "miss"
    assert project.compile([*words, "b.o"]) == "hit"
    first = project.root / "build/b.o"
    assert str(project.root).encode() in first.read_bytes()
    assert project.compile([*words, "a.o"], "other") == "miss"
    assert move(project, "q").compile([*words, "a.o"]) == "miss"


@pytest.mark.parametrize("cc", ["gcc", "clang-19"])
def test_assembler_with_another_header_or_embedded_file_misses(
    cc: str, make: Callable[..., Project]
) -> None:
    project = make("p", FILES)
    data = '#include "n.h"\n.data\n.incbin "d.bin"\n.section .note.GNU-stack,"",@progbits\n'
    project.write("src/data.S", data)
    project.write("build/d.bin", "one")
    words = [cc, "-I../inc", "-c", "../src/data.S", "-o"]
    assert project.compile([*words, "a.o"]) == "miss"
    project.write("build/d.bin", "two")
    assert project.compile([*words, "b.o"]) == "miss"
    project.write("inc/n.h", "#define N 5\n#if 0\n#endif\n")
    assert project.compile([*words, "c.o"]) == "miss"


@pytest.mark.parametrize("cc", ["gcc", "clang-19"])
@pytest.mark.parametrize("target", ["./b.o", ".//b.o", "././o/b.o"])
def test_a_target_that_begins_with_the_directory_hits(
    cc: str, target: str, make: Callable[..., Project]
) -> None:
    """GCC writes b.o for ./b.o, Clang does not."""
    project = make("p", FILES)
    words = command(cc, "a.c", ["-MD", "-MF", "x.d"], "a.o")
    assert project.compile([*words, "-MT", "a.o"]) == "miss"
    assert project.compile([*words, "-MT", target]) == "hit"


# ---- what GCC's analyzer and Clang proper get ----

LEAK = "#include <stdlib.h>\nint f(int n) { char *p = malloc(4); return n + (p != 0); }\n"
# It knows these macros by their names; no file reads them.
OPENS = (
    "int open(const char *, int);\nlong read(int, void *, unsigned long);\nint close(int);\n"
    "long f(const char *p) { char b[4]; int fd = open(p, 1); if (fd < 0) return 0;"
    " long n = read(fd, b, 1); close(fd); return n; }\n"
)


@pytest.mark.parametrize("cc", ["gcc-12", "gcc-14"])
def test_messages_of_the_analyzer_are_those_of_the_asking_compile(
    cc: str, make: Callable[..., Project], move: Callable[[Project, str], Project]
) -> None:
    """`compile` compares them; here only what another output answers is known."""
    project = make("p", {**FILES, "src/leak.c": LEAK})
    flags = ["-fanalyzer", "-Wall"]
    assert project.compile(command(cc, "leak.c", flags, "a.o")) == "miss"
    assert project.compile(command(cc, "leak.c", flags, "b.o")) == "hit"
    move(project, "elsewhere/q").compile(command(cc, "leak.c", flags, "a.o"))
    named = command(cc, "leak.c", flags, "leak.c.o")  # the messages hold a part of it
    assert project.compile(named) == "hit"


def test_the_analyzer_reads_macros_that_no_file_reads(make: Callable[..., Project]) -> None:
    project = make("p", {**FILES, "src/opens.c": OPENS})
    words = command("gcc-14", "opens.c", ["-fanalyzer"], "a.o")
    assert project.compile([*words, "-DUNREAD"]) == "miss"
    assert project.compile(words) == "miss"
    assert project.compile([*words, "-DO_RDONLY=0", "-DO_ACCMODE=3", "-DO_WRONLY=1"]) == "miss"


@pytest.mark.parametrize(
    "flags",
    [
        "-Xclang -fdebug-compilation-dir=/x -g",
        "-Xclang -fdebug-compilation-dir -Xclang x -g",
        "-Xclang -include -Xclang a.h",
        "-Xclang -fopenmp",
        "-fopenmp",
        "-frecord-command-line",
        "-grecord-command-line -g",
        "--coverage",
        "-fprofile-arcs",
        "-fprofile-instr-generate -fcoverage-mapping",
        "-gsplit-dwarf",
        "-save-temps=obj",
    ],
)
def test_what_names_files_to_clang_or_was_not_asked_misses(
    flags: str, make: Callable[..., Project]
) -> None:
    project = make("p", {**FILES, "build/a.h": "void use(char *);\n"})
    first = command("clang-19", "a.c", flags.split(), "a.o")
    assert project.compile(first) == "miss"
    assert project.compile([*first[:-1], "b.o"]) == "miss"


@pytest.mark.parametrize("flags", ["-flto", "--coverage", "-fprofile-generate", "-gsplit-dwarf"])
def test_what_gcc_makes_anew_each_time_has_no_content_key(
    flags: str, make: Callable[..., Project]
) -> None:
    """Without a seed two runs differ, so an object is compared with nothing."""
    project = make("p", FILES)
    invocation = GNU.read(
        b"gcc",
        [os.fsencode(w) for w in project.spell(command("gcc", "a.c", flags.split(), "a.o")[1:])],
    )
    assert not isinstance(invocation, Bypass)
    assert GNU.content_form(invocation, 12) is None
