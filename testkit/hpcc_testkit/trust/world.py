"""Scenarios of a compile's environment: terminals, languages, variables, special files."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path
from typing import Final

from hpcc_testkit.trust.steps import Edit, Scenario, delete, link, mkdir, step, write

_WARN: Final = write("main.c", "int f(void) { int unused; return 0; }\n")
_QUOTES: Final = write("main.c", "int f(void) { int unused_name; char c = 300; return c; }\n")


def _fifo(name: str) -> Edit:
    def edit(root: Path) -> None:
        os.mkfifo(root / name)

    return edit


def _terminals(cc: str) -> Iterator[Scenario]:
    base = f"{cc} -Wall -c main.c -o main.o"
    for name, flags, env in (
        ("colours", "", {"TERM": "xterm"}),
        ("dumb", "", {"TERM": "dumb"}),
        ("no-term", "", {}),
        ("no-color", "", {"TERM": "xterm", "NO_COLOR": "1"}),
        ("gcc-colors", "", {"TERM": "xterm", "GCC_COLORS": "warning=01;36"}),
        ("gcc-colors-empty", "", {"TERM": "xterm", "GCC_COLORS": ""}),
        ("always", "-fdiagnostics-color=always", {"TERM": "xterm"}),
        ("never", "-fdiagnostics-color=never", {"TERM": "xterm"}),
        ("auto", "-fdiagnostics-color=auto", {"TERM": "xterm"}),
        ("plain", "-fdiagnostics-plain-output" if cc == "gcc" else "-fno-color-diagnostics",
         {"TERM": "xterm"}),
        ("width", "", {"TERM": "xterm", "COLUMNS": "20"}),
        ("no-width", "", {"TERM": "xterm", "COLUMNS": "wide"}),
        ("width-and-length", "-fmessage-length=40", {"TERM": "xterm", "COLUMNS": "30"}),
        ("urls", "", {"TERM": "xterm-kitty", "GCC_URLS": "bel"}),
    ):  # fmt: skip
        command = f"{base} {flags}"
        yield Scenario(
            name=f"terminal-{name}-{cc}",
            steps=(
                step(command, "any", _WARN, env=env, has_terminal=True),
                step(command, "any", env=env, has_terminal=True),
                step(command, "any", env=env),
                step(command, "any", env=env, has_terminal=True),
                step(command, "any", env=env),
            ),
        )
    command = f"{base} -fdiagnostics-color=always"
    yield Scenario(
        name=f"colours-by-variable-{cc}",
        steps=(
            step(command, "miss", _WARN, env={"GCC_COLORS": "warning=01;36"}),
            step(command, "any", env={"GCC_COLORS": "warning=01;31"}),
            step(command, "any", env={"GCC_COLORS": ""}),
            step(command, "any"),
        ),
    )


def _languages(cc: str) -> Iterator[Scenario]:
    base = f"{cc} -Wall -Woverflow -c main.c -o main.o"
    for name in ("LANG", "LC_ALL", "LC_CTYPE", "LC_MESSAGES"):
        yield Scenario(
            name=f"language-{name}-{cc}",
            steps=(
                step(base, "miss", _QUOTES, env={name: "C"}),
                step(base, "any", env={name: "C.UTF-8"}),
                step(base, "any", env={name: "C.UTF-8"}),
                step(base, "hit", env={name: "C"}),
                step(base, "any", env={name: "POSIX", "LANGUAGE": "de:fr"}),
            ),
        )
    for name, first, second in (
        ("GCC_EXTRA_DIAGNOSTIC_OUTPUT", "fixits-v1", "fixits-v2"),
        ("COLUMNS", "40", "200"),
        ("TZ", "UTC", "Asia/Tokyo"),
        ("HOME", "%ROOT%/one", "%ROOT%/two"),
        ("LC_NUMERIC", "C", "C.UTF-8"),
        ("CLICOLOR_FORCE", "1", "0"),
        ("FORCE_SOURCE_DATE", "1", "0"),
        ("CFLAGS", "-DX", "-DY"),
        ("SDKROOT", "%ROOT%", "/"),
        ("GCC_ROOT", "%ROOT%", "/"),
        ("MACOSX_DEPLOYMENT_TARGET", "10.9", "11.0"),
    ):
        yield Scenario(
            name=f"surroundings-{name}-{cc}",
            steps=(
                step(base, "any", _QUOTES, mkdir("one", "two")),
                step(base, "any", env={name: first}),
                step(base, "any", env={name: second}),
                step(base, "any", env={name: first}),
                step(base, "any"),
            ),
        )


def _special(cc: str) -> Iterator[Scenario]:
    null = f"{cc} -x c -c /dev/null -o main.o"
    yield Scenario(name=f"source-is-dev-null-{cc}", steps=(step(null), step(null)))
    command = f"{cc} -include /dev/null -Iinc -c main.c -o main.o"
    yield Scenario(
        name=f"forced-header-is-dev-null-{cc}",
        steps=(step(command, "any", write("main.c", "int v;\n")), step(command)),
    )
    command = f"{cc} -Iinc -c main.c -o main.o"
    use = write("main.c", "#include <v.h>\nint value = V;\n")
    yield Scenario(
        name=f"header-is-a-link-to-dev-null-{cc}",
        steps=(
            step(command, "any", write("main.c", "#include <v.h>\nint v;\n"),
                 link("/dev/null", "inc/v.h")),
            step(command, "any"),
            step(command, "nohit", delete("inc/v.h"), write("inc/v.h", "int w;\n")),
        ),
    )  # fmt: skip
    # A pipe on the search path, after the header that is read: hpcc must not block on it.
    both = f"{cc} -Iinc -Ipipes -c main.c -o main.o"
    yield Scenario(
        name=f"a-pipe-later-on-the-search-path-{cc}",
        steps=(
            step(both, "any", use, write("inc/v.h", "#define V 1\n"), mkdir("pipes"),
                 _fifo("pipes/v.h")),
            step(both, "any"),
            step(both, "nohit", write("inc/v.h", "#define V 2\n")),
        ),
    )  # fmt: skip
    yield Scenario(
        name=f"output-is-a-pipe-without-a-reader-{cc}",
        steps=(
            step(f"{cc} -c plain.c -o plain.o -MD -MF dep", "any", write("plain.c", "int v;\n")),
            step(f"{cc} -c plain.c -o plain.o -MD -MF dep", "any", write("plain.c", "int w;\n")),
        ),
    )
    yield Scenario(
        name=f"source-is-a-directory-{cc}",
        steps=(step(f"{cc} -x c -c d -o main.o", "nohit", mkdir("d")),
               step(f"{cc} -x c -c d -o main.o", "nohit")),
    )  # fmt: skip
    yield Scenario(
        name=f"source-is-missing-{cc}",
        steps=(
            step(f"{cc} -c gone.c -o main.o", "nohit"),
            step(f"{cc} -c gone.c -o main.o", "miss", write("gone.c", "int v;\n")),
            step(f"{cc} -c gone.c -o main.o", "nohit", delete("gone.c"), delete("main.o")),
        ),
    )
    yield Scenario(
        name=f"source-without-permission-{cc}",
        steps=(
            step(f"{cc} -c main.c -o main.o", "miss", write("main.c", "int v;\n", 0o000)),
            step(f"{cc} -c main.c -o main.o", "any"),
        ),
    )


def scenarios() -> Iterator[Scenario]:
    """Yield every scenario of this family."""
    for cc in ("gcc", "clang"):
        yield from _terminals(cc)
        yield from _languages(cc)
        yield from _special(cc)
