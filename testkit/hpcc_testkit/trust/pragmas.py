"""Scenarios of pragmas that define macros in GCC's compiles and not in its preprocessor's runs."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Final

from hpcc_testkit.trust.steps import Scenario, copy, step, write

_GCC: Final = ("gcc-12", "gcc-14", "g++")
_FORMS: Final = {
    "optimize": ('#pragma GCC optimize("O3")\n', "__OPTIMIZE__"),
    "optimize-by-a-number": ("#pragma GCC optimize 3\n", "__OPTIMIZE__"),
    "target": ('#pragma GCC target("avx2")\n', "__AVX2__"),
    "operator": ('_Pragma("GCC target(\\"avx2\\")")\n', "__AVX2__"),
    "over-two-files": ('#include "do.h"\nDO(GCC optimize("O3"))\n', "__OPTIMIZE__"),
    "split": ('#pragma GCC opt\\\nimize/* why */("O3")\n', "__OPTIMIZE__"),
}
_DO: Final = write("do.h", "#define DO(x) _Pragma(#x)\n")


def _nothing(data: bytes) -> bytes:
    """Return b"" for an object, which holds a clock."""
    return b"" if data.startswith(b"\x7fELF") else data


def _hidden(cc: str, name: str, pragma: str, macro: str) -> Iterator[Scenario]:
    header = f"{pragma}#ifdef {macro}\n#include <v.h>\n#else\n#define V 0\n#endif\nint value = V;\n"
    # g++ 12 reads a whole file before it obeys a pragma, and takes the other branch, too.
    edited = "any" if cc == "g++" else "nohit"
    for flags in ("-g -MMD", "-MMD", "-g -MD", ""):
        command = f"{cc} {flags} -I. -isystem sys -c main.c -o main.o"
        yield Scenario(
            name=f"header-behind-a-pragma-{name}{flags.replace(' ', '')}-{cc}",
            steps=(
                step(command, "miss", _DO, write("main.c", header),
                     write("sys/v.h", "#define V 1\n")),
                step(command, "hit"),
                step(command, edited, write("sys/v.h", "#define V 2\n")),
            ),
        )  # fmt: skip
    clock = f"{pragma}#ifdef {macro}\nextern const char c[];\nconst char c[] = {{__TIME__[7]}};\n"
    command = f"{cc} -I. -c main.c -o main.o"
    yield Scenario(
        name=f"clock-behind-a-pragma-{name}-{cc}",
        steps=(
            step(command, edited, _DO, write("main.c", clock + "#endif\n")),
            step(command, edited),
        ),
        mask=_nothing,
    )
    unused = f"{pragma}#define NEVER __TIME__\n#ifdef {macro}\nint value = 1;\n#endif\n"
    yield Scenario(
        name=f"clock-beside-a-pragma-{name}-{cc}",
        steps=(
            step(command, "miss", _DO, write("main.c", unused)),
            step(command, "hit"),
            step(command, "nohit", write("main.c", unused + "const char *c = NEVER;\n")),
            step(command, "nohit"),
        ),
        mask=_nothing,
    )
    size = f"{pragma}#ifdef {macro}\nint value = sizeof(__FILE__);\n#endif\n"
    yield Scenario(
        name=f"name-behind-a-pragma-{name}-{cc}",
        steps=(
            step(f"{cc} -I.. -c %ROOT%/one/main.c -o main.o", "miss", _DO,
                 write("one/main.c", size), copy("one", "another"), cwd="one"),
            step(f"{cc} -I.. -c %ROOT%/another/main.c -o main.o", "any", cwd="another"),
        ),
    )  # fmt: skip


def _unseen(cc: str) -> Iterator[Scenario]:
    """Yield clocks of which no warning tells, behind a pragma."""
    used = "#ifdef __AVX2__\nextern const char c[];\nconst char c[] = {__TIME__[7]};\n#endif\n"
    pragma = '#pragma GCC target("avx2")\n'
    quiet = '#pragma GCC diagnostic ignored "-Wdate-time"\n'
    for name, flags, text in (
        ("no-warnings", "-w", pragma + used),
        ("no-warnings-for-the-preprocessor", "-Wp,-w", pragma + used),
        ("not-this-warning", "-Wno-date-time", pragma + used),
        ("pragma", "", pragma + quiet + used),
        ("pragma-with-an-escape", "", pragma + quiet.replace("Wd", "W\\144") + used),
        ("specs", "-specs=quiet.specs", pragma + used),
        ("header-of-the-system", "-isystem sys", pragma + "#include <v.h>\n"),
    ):
        command = f"{cc} {flags} -c main.c -o main.o"
        yield Scenario(
            name=f"clock-behind-a-pragma-without-a-warning-{name}-{cc}",
            steps=(
                step(command, "nohit", write("main.c", text), write("sys/v.h", used),
                     write("quiet.specs", "*cc1:\n+ -w\n\n")),
                step(command, "nohit"),
            ),
            mask=_nothing,
        )  # fmt: skip


def _beside_no_compiler(cc: str) -> Iterator[Scenario]:
    """Yield a header in a directory of the project that is named like one of GCC's."""
    used = "#ifdef __AVX2__\nextern const char c[];\nconst char c[] = {__TIME__[7]};\n#endif\n"
    home = "lib/gcc/x86_64-linux-gnu/12/include"
    command = f"{cc} -I{home} -c main.c -o main.o"
    yield Scenario(
        name=f"clock-behind-a-pragma-in-a-directory-like-the-compilers-{cc}",
        steps=(
            step(command, "nohit", write("main.c", "#include <wide.h>\n" + used),
                 write(f"{home}/wide.h", '#pragma GCC target("avx2")\n')),
            step(command, "nohit"),
        ),
        mask=_nothing,
    )  # fmt: skip


def scenarios() -> Iterator[Scenario]:
    """Yield every scenario of this family."""
    for cc in _GCC:
        for name, (pragma, macro) in _FORMS.items():
            yield from _hidden(cc, name, pragma, macro)
    for cc in ("gcc-12", "gcc-14"):
        yield from _unseen(cc)
        yield from _beside_no_compiler(cc)
