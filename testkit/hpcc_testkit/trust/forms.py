"""Scenarios of command lines, drivers and variables that were refused once."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Final

from hpcc_testkit.trust.steps import Scenario, step, write

# What Kbuild exports to every compiler; no compiler reads these.
KBUILD: Final = {
    "CC_FLAGS_FPU": "-msse -msse2",
    "CC_FLAGS_NO_FPU": "",
    "CC_FLAGS_CFI": "-fsanitize=kcfi",
    "AS_LIBRARIES": "x",
    "CC_VERSION_TEXT": "gcc",
}
_KERNEL: Final = "-mcmodel=kernel -fno-PIE -mno-red-zone -mno-sse -O2"


def _variables() -> Iterator[Scenario]:
    plain = write("main.c", "int value = 1;\n")
    for cc in ("gcc", "gcc-14", "clang", "clang-19"):
        command = f"{cc} -g -c main.c -o main.o"
        yield Scenario(
            name=f"variables-of-kbuild-{cc}",
            steps=(
                step(command, "miss", plain, env=KBUILD),
                step(command, "hit", env=KBUILD),
                step(command, "hit", env={**KBUILD, "CC_FLAGS_FPU": "-mfpu=neon"}),
                step(command, "hit"),
            ),
        )
        for name in ("CC_PRINT_OPTIONS", "CC_PRINT_HEADERS", "CCC_OVERRIDE_OPTIONS", "LPATH"):
            yield Scenario(
                name=f"variable-of-the-driver-{name}-{cc}",
                steps=(
                    step(command, "miss", plain),
                    step(command, "bypass", env={name: "1"}),
                    step(command, "hit"),
                ),
            )
    # Each of these is set, changed and unset again.
    for cc, flags, name, value in (
        ("gcc", "-flto -frandom-seed=1", "COLLECT_AS_OPTIONS", "'-Wa,--noexecstack'"),
        ("gcc-14", "-flto -frandom-seed=1", "COLLECT_AS_OPTIONS", "'-Wa,--noexecstack'"),
        ("clang", "-flto", "LLVM_OVERRIDE_PRODUCER", "somebody"),
        ("clang-19", "-emit-llvm", "LLVM_OVERRIDE_PRODUCER", "somebody"),
        ("clang-19", "-g --target=arm64-apple-macos13", "RC_DEBUG_PREFIX_MAP", "%ROOT%=/mapped"),
        ("clang-19", "--target=arm64-apple-ios", "IPHONEOS_DEPLOYMENT_TARGET", "15.0"),
        ("gcc-14", "-gsplit-dwarf", "GNUTARGET", "elf32-i386"),
        ("gcc-14", "-Wall", "GCC_EXTRA_DIAGNOSTIC_OUTPUT", "fixits-v1"),
    ):
        command = f"{cc} {flags} -c main.c -o main.o"
        source = write("main.c", "int f(void) { int unused; return 1; }\n")
        yield Scenario(
            name=f"variable-{name}-{flags.partition(' ')[0].strip('-')}-{cc}",
            steps=(
                step(command, "miss", source),
                step(command, "hit"),
                step(command, "nohit", env={name: value}),
                step(command, "any", env={name: value}),
                step(command, "nohit", env={name: value + "0"}),
                step(command, "hit"),
            ),
        )


def _search_variables() -> Iterator[Scenario]:
    """Yield scenarios of variables that change where headers are found."""
    source = write("main.c", '#include <stdarg.h>\n#include "one.h"\n')
    headers = (write("a/one.h", "int one = 1;\n"), write("b/one.h", "int two = 2;\n"))
    # Without the second flag the object holds the time.
    flags = "--target=x86_64-pc-windows-msvc -mno-incremental-linker-compatible"
    command = f"clang-19 {flags} -c main.c -o main.o"
    yield Scenario(
        name="variable-INCLUDE-windows-target",
        steps=(
            step(command, "miss", source, *headers, env={"INCLUDE": "%ROOT%/a"}),
            step(command, "hit", env={"INCLUDE": "%ROOT%/a"}),
            step(command, "nohit", env={"INCLUDE": "%ROOT%/b"}),
            step(command, "nohit", env={"INCLUDE": "%ROOT%/c;%ROOT%/a"}),
            step(command, "nohit", write("c/one.h", "int three = 3;\n"),
                 env={"INCLUDE": "%ROOT%/c;%ROOT%/a"}),
            step(command, "nohit", env={}),
        ),
    )  # fmt: skip
    plain = "clang-19 -c main.c -o main.o"
    yield Scenario(
        name="variable-INCLUDE-other-target",
        steps=(
            step(plain, "miss", write("main.c", "int one;\n"), env={"INCLUDE": "%ROOT%/a"}),
            step(plain, "hit", env={"INCLUDE": "%ROOT%/b"}),
        ),
    )
    for cc in ("gcc", "gcc-14"):
        command = f"{cc} -c main.c -o main.o"
        major = {"gcc": "12", "gcc-14": "14"}[cc]
        own = f"lib/gcc/x86_64-linux-gnu/{major}/include/stdbool.h"
        root = {"GCC_ROOT": "%ROOT%/r"}
        yield Scenario(
            name=f"variable-GCC_ROOT-{cc}",
            steps=(
                step(command, "miss", write("main.c", "#include <stdbool.h>\nint v = X;\n"),
                     write("r/" + own, "#define X 1\n"), env=root),
                step(command, "hit", env=root),
                step(command, "nohit", write("r/" + own, "#define X 2\n"), env=root),
                step(command, "nohit"),
                step(command, "nohit", write("q/" + own, "#define X 3\n"),
                     env={"GCC_ROOT": "%ROOT%/q"}),
                step(command, "hit", write("r/" + own, "#define X 1\n"), env=root),
            ),
        )  # fmt: skip


def _code_models() -> Iterator[Scenario]:
    """Yield command lines whose `-m` flags are an error without their `-f` flags."""
    source = write("main.c", '#include "one.h"\nint value = ONE;\n')
    for cc, flags in (
        ("gcc", _KERNEL),
        ("gcc-14", _KERNEL),
        ("clang", _KERNEL),
        ("gcc-14", "-m32 -mfentry -pg -fno-pic"),
        ("clang-19", "--target=aarch64-linux-gnu -mcmodel=large -fno-pic"),
    ):
        command = f"{cc} {flags} -Ifirst -Isecond -c main.c -o main.o"
        yield Scenario(
            name=f"code-model-{'-'.join(f.strip('-') for f in flags.split()[:2])}-{cc}",
            steps=(
                step(command, "miss", source, write("second/one.h", "#define ONE 1\n")),
                step(command, "hit"),
                step(command, "nohit", write("second/one.h", "#define ONE 2\n")),
                step(command, "nohit", write("first/one.h", "#define ONE 3\n")),
                step(command, "hit"),
            ),
        )


def scenarios() -> Iterator[Scenario]:
    """Yield every scenario of this family."""
    yield from _variables()
    yield from _search_variables()
    yield from _code_models()
