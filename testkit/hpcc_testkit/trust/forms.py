"""Scenarios of command lines, drivers and variables that were refused once."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Final

from hpcc_testkit.trust.steps import Scenario, delete, link, mkdir, step, write

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


# The command of lib/string.c in a `tinyconfig` of Linux 6.12, without some warnings.
_KBUILD_C: Final = (
    "-Wp,-MMD,lib/.string.o.d -nostdinc -I./arch/x86/include -I./arch/x86/include/generated"
    " -I./include -I./include/uapi -include ./include/linux/kconfig.h"
    " -include ./include/linux/compiler_types.h -D__KERNEL__ -fmacro-prefix-map=./= -std=gnu11"
    " -fshort-wchar -funsigned-char -fno-common -fno-PIE -fno-strict-aliasing -mno-sse -mno-mmx"
    " -mno-sse2 -mno-3dnow -mno-avx -fcf-protection=none -m32 -msoft-float -mregparm=3"
    " -freg-struct-return -fno-pic -mpreferred-stack-boundary=2 -march=i686"
    " -Wa,-mtune=generic32 -ffreestanding -fno-asynchronous-unwind-tables"
    " -fno-delete-null-pointer-checks -Os -fno-allow-store-data-races -fno-stack-protector"
    " -fomit-frame-pointer -ftrivial-auto-var-init=zero -fno-stack-clash-protection"
    " -falign-functions=4 -fno-strict-overflow -fno-stack-check -fconserve-stack -Wall -Wundef"
    " -Werror=date-time -Wframe-larger-than=1024 -DKBUILD_MODFILE='\"lib/string\"'"
    " -D__KBUILD_MODNAME=kmod_string -c -o lib/string.o"
)
_KBUILD_S: Final = (
    "-Wp,-MMD,lib/.low.o.d -nostdinc -I./include -include ./include/linux/kconfig.h -D__KERNEL__"
    " -D__ASSEMBLY__ -fno-PIE -m32 -Wa,-gdwarf-5 -c -o lib/low.o lib/low.S"
)


def _kbuild() -> Iterator[Scenario]:
    """Yield compiles as Linux' Kbuild makes them, with what it exports."""
    config = "#define CONFIG_A 1\n"
    files = (
        write("include/linux/kconfig.h", "#include <generated/autoconf.h>\n"),
        write("include/generated/autoconf.h", config),
        write("include/linux/compiler_types.h", "#define __must_check\n"),
        write("lib/string.c", "#include <linux/string.h>\nint len(void) { return CONFIG_A; }\n"),
        write("include/linux/string.h", "int len(void);\n"),
        write("lib/low.S", ".globl low\nlow: .long CONFIG_A\n"),
        mkdir("arch/x86/include/generated", "include/uapi"),
    )
    for cc in ("gcc", "gcc-14"):
        for name, command in (
            ("c", f"{cc} {_KBUILD_C} lib/string.c"),
            ("assembler", f"{cc} {_KBUILD_S}"),
        ):
            yield Scenario(
                name=f"kbuild-{name}-{cc}",
                steps=(
                    step(command, "miss", *files, env=KBUILD),
                    step(command, "hit", env=KBUILD),
                    step(command, "nohit", write("include/generated/autoconf.h",
                                                 config.replace("1", "2")), env=KBUILD),
                    step(command, "hit", write("include/generated/autoconf.h", config),
                         env={**KBUILD, "CC_FLAGS_FTRACE": "-pg"}),
                    step(command, "nohit", write("arch/x86/include/generated/autoconf.h", ""),
                         write("include/linux/kconfig.h", "#define CONFIG_A 4\n"), env=KBUILD),
                ),
            )  # fmt: skip


_ALL: Final = ("gcc", "gcc-14", "clang", "clang-19")


def _plain_assembler() -> Iterator[Scenario]:
    text = '.globl one\n.data\none:\n.include "more.s"\n.incbin "blob"\n'
    files = (write("low.s", text), write("inc/more.s", ".byte 1\n"), write("blob", "one"))
    for cc in (*_ALL, "clang-19 -fno-integrated-as", "gcc-14 -pipe", "gcc -flto -g"):
        command = f"{cc} -Ifirst -Iinc -g -c low.s -o low.o"
        yield Scenario(
            name=f"plain-assembler-{cc.replace(' ', '')}",
            steps=(
                step(command, "miss", *files, mkdir("first")),
                step(command, "hit"),
                step(command, "nohit", write("inc/more.s", ".byte 2\n")),
                step(command, "hit"),
                step(command, "nohit", write("blob", "two")),
                step(command, "nohit", write("first/more.s", ".byte 3\n")),
                step(command, "hit"),
                step(command, "nohit", write("more.s", ".include \"deep.s\"\n"),
                     write("deep.s", ".byte 4\n")),
                step(command, "hit"),
                step(command, "nohit", write("deep.s", ".byte 5\n")),
                step(command, "nohit", write("low.s", text + ".byte 9\n")),
                step(command, "nohit", delete("blob")),
            ),
        )  # fmt: skip
    for cc in _ALL:
        # The flag writes no file, and a file of that name from before stays as it is.
        command = f"{cc} -MD -MF low.d -c low.s -o low.o"
        yield Scenario(
            name=f"plain-assembler-and-a-depfile-{cc}",
            steps=(
                step(command, "miss", write("low.s", ".byte 1\n")),
                step(command, "hit", delete("low.o")),
                step(command, "hit", write("low.d", "old")),
                step(command, "nohit", write("low.s", ".byte 2\n")),
            ),
        )
        made = '.macro m x\n.inc\\x "blob"\n.endm\n.data\nm bin\n'
        command = f"{cc} -c low.s -o low.o"
        yield Scenario(
            name=f"plain-assembler-macro-{cc}",
            steps=(
                step(command, "miss" if "gcc" in cc else "nohit", write("low.s", made),
                     write("blob", "one")),
                step(command, "hit" if "gcc" in cc else "nohit"),
                step(command, "nohit", write("blob", "two")),
            ),
        )  # fmt: skip
        command = f"{cc} -x assembler -c low.S -o low.o"
        yield Scenario(
            name=f"plain-assembler-by-x-{cc}",
            steps=(
                step(command, "miss", write("low.S", "# define X 1\n.byte 1\n")),
                step(command, "hit"),
                step(command, "nohit", write("low.S", "# define X 1\n.byte 2\n")),
            ),
        )


_OUTPUT: Final = (
    '# 0 "main.c"\n# 0 "<built-in>"\n# 1 "main.c"\n# 1 "inc/one.h" 1\nint one = 1;\n'
    '# 2 "main.c" 2\nint f(void) { int unused; return 1; }\n'
)


def _preprocessed() -> Iterator[Scenario]:
    source = write("main.i", _OUTPUT)
    shown = write("main.c", '#include "inc/one.h"\nint f(void) { int unused; return 1; }\n')
    for cc in (*_ALL, "gcc-14 -MD -MF main.d", "clang-19 -O2 -MMD"):
        command = f"{cc} -g -Wall -c main.i -o main.o"
        is_gcc = "gcc" in cc
        yield Scenario(
            name=f"preprocessed-{cc.replace(' ', '')}",
            steps=(
                step(command, "miss", source),
                step(command, "hit"),
                # GCC shows lines of these files in its messages.
                step(command, "nohit", shown),
                step(command, "hit"),
                step(command, "nohit", write("main.c", "\nint f(void) { int unused2; }\n")),
                step(command, "hit", shown),
                step(command, "nohit", write("inc/one.h", "int one;\n")),
                step(command, "nohit" if is_gcc else "any", link("other", "main.c"),
                     write("other", "\nchanged;\n")),
                step(command, "nohit", write("main.i", _OUTPUT + "int two;\n")),
                step(command, "hit", source),
            ),
        )  # fmt: skip
    for cc in ("g++", "g++-14", "clang++", "clang++-19"):
        command = f"{cc} -O2 -c main.ii -o main.o"
        text = '# 1 "main.cc"\nnamespace a { int f() { return 1; } }\n'
        yield Scenario(
            name=f"preprocessed-{cc}",
            steps=(
                step(command, "miss", write("main.ii", text)),
                step(command, "hit"),
                step(command, "nohit", write("main.ii", text.replace("1; }", "2; }"))),
            ),
        )
    indented = write(
        "main.i", '# 1 "main.c"\nvoid g(void);\nvoid f(int a) {\n  if (a)\n    g();\n\tg();\n}\n'
    )
    one = write("main.c", "void g(void);\nvoid f(int a) {\n  if (a)\n    g();\n\tg();\n}\n")
    two = write("main.c", "void g(void);\nvoid f(int a) {\n  if (a)\n    g();\n    g();\n}\n")
    for cc in ("gcc", "gcc-14"):
        command = f"{cc} -Wall -Werror -c main.i -o main.o"
        yield Scenario(
            name=f"preprocessed-misleading-indentation-{cc}",
            steps=(
                step(command, "miss", indented, one),
                step(command, "any"),
                step(command, "nohit", two),
                step(command, "any", one),
            ),
        )
    for cc in _ALL:
        command = f"{cc} -fno-pic -c main.i -o main.o"
        asm = '# 1 "main.c"\n__asm__(".data\\n.inc"\n# 2 "main.c"\n"bin \\"blob\\"\\n");\n'
        yield Scenario(
            name=f"preprocessed-assembly-{cc}",
            steps=(
                step(command, "miss", write("main.i", asm), write("blob", "one")),
                step(command, "hit"),
                step(command, "nohit", write("blob", "two")),
            ),
        )
        clock = write("main.i", "const char *now = __DATE__ __TIME__;\n")
        include = write("main.i", '#include "one.h"\n')
        dated = write("main.i", '#pragma GCC dependency "one.h"\nint v;\n')
        yield Scenario(
            name=f"preprocessed-with-directives-{cc}",
            steps=(
                step(command, "nohit", clock),
                step(command, "nohit", write("main.i", "#define A __TI ## ME__\nint x;\n")
                     if "clang" in cc else clock),
                step(command, "nohit", include, write("one.h", "int one;\n")),
                step(command, "nohit"),
                step(command, "nohit", write("one.h", "int two;\n")),
                step(command, "nohit", write("main.i", "int v = \n#if __has_include(\"h.h\")\n1\n"
                                             "#else\n2\n#endif\n;\n")),
                step(command, "nohit", write("h.h", "")),
                step(command, "nohit", dated),
                step(command, "nohit"),
            ),
            mask=lambda data: b"" if data[:4] == b"\x7fELF" else data,
        )  # fmt: skip
        yield Scenario(
            name=f"preprocessed-to-assembly-{cc}",
            steps=(
                step(f"{cc} -S main.i -o main.s", "miss", source),
                step(f"{cc} -S main.i -o main.s", "hit"),
                step(f"{cc} -fno-pic -S main.i -o main.s", "nohit"),
            ),
        )


def scenarios() -> Iterator[Scenario]:
    """Yield every scenario of this family."""
    yield from _variables()
    yield from _search_variables()
    yield from _code_models()
    yield from _kbuild()
    yield from _plain_assembler()
    yield from _preprocessed()
