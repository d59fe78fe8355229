"""Scenarios of drivers that are shell scripts, and of specs files in two words."""

from __future__ import annotations

import subprocess
from collections.abc import Iterator
from pathlib import Path

from hpcc_testkit.trust.steps import Edit, Scenario, delete, link, step, write


def _script(text: str) -> Edit:
    """Write the script `my-gcc`, by another process.

    A thread that starts a program meanwhile would inherit a descriptor of this process, and the
    script could not be executed (ETXTBSY).
    """

    def edit(root: Path) -> None:
        command = ["sh", "-c", 'cat > "$0" && chmod 755 "$0"', str(root / "my-gcc")]
        subprocess.run(command, input=text.encode(), check=True)

    return edit


def _scripts() -> Iterator[Scenario]:
    """Yield drivers that are shell scripts, and edits of them."""
    source = write("main.c", "int value = V + 0 * sizeof(int);\n")
    for name in ("c99-gcc", "c89-gcc", "c99"):
        command = f"{name} -O2 -c main.c -o main.o"
        own = name.replace("-", "_")  # else another scenario's content would hit
        text = f"#ifdef __STDC_VERSION__\nint one;\n#endif\nint {own};\n"
        yield Scenario(
            name=f"script-{name}",
            steps=(
                step(command, "miss", write("main.c", text)),
                step(command, "hit"),
                step(command.replace("-O2", "-O2 -std=gnu11"), "bypass"),
                step(command.replace("-O2", "-O2 -std=c99"), "any"),
                step(command, "nohit", write("main.c", f"int {own};\n")),
            ),
        )
    musl = "musl-gcc -O2 -c main.c -o main.o"
    headers = (
        '#include <stdio.h>\n#include <limits.h>\nint f(void) { return printf("%d", INT_MAX); }\n'
    )
    yield Scenario(
        name="script-musl-gcc",
        steps=(
            step(musl, "miss", write("main.c", headers)),
            step(musl, "hit"),
            step(musl, "nohit", env={"REALGCC": "gcc-14"}),
            step(musl, "hit", env={"REALGCC": "gcc-14"}),
            step(musl, "hit"),
            step(musl, "any", write("include/stdio.h", "int printf(const char *, ...);\n")),
            step(musl, "nohit", write("main.c", headers + "int g;\n")),
        ),
    )

    command = "./my-gcc -c main.c -o main.o"
    yield Scenario(
        name="script-is-edited",
        steps=(
            step(command, "miss", source, _script('#!/bin/sh\n# mine\nexec gcc -DV=1 "$@"\n')),
            step(command, "hit"),
            step(command, "nohit", _script('#!/bin/sh\nexec gcc "$@" -DV=2\n')),
            step(command, "hit", _script('#! /bin/sh\n\n  exec gcc -DV=1 "$@"\n')),
            step(command, "nohit", _script('#!/bin/sh\nexec gcc-14 -DV=1 "$@"\n')),
            step(command, "nohit", _script('#!/bin/sh\nexec clang -DV=1 "$@"\n')),
            step(command, "bypass", _script('#!/bin/sh\nexec gcc -DV=$X "$@"\n'), env={"X": "5"}),
            step(command, "bypass", _script('#!/bin/sh\nexec gcc -DV=$X "$@"\n'), env={"X": "6"}),
        ),
    )
    yield Scenario(
        name="script-and-path",
        steps=(
            step(
                command,
                "miss",
                source,
                _script('#!/bin/sh\nexec gcc -DV=1 "$@"\n'),
                link("/usr/bin/gcc-12", "bin/gcc"),
                link("/usr/bin/gcc-14", "bin2/gcc"),
                env={"PATH": "%ROOT%/bin:/usr/bin:/bin"},
            ),
            step(command, "hit", env={"PATH": "%ROOT%/bin:/usr/bin:/bin"}),
            step(command, "nohit", env={"PATH": "%ROOT%/bin2:/usr/bin:/bin"}),
            step(
                command,
                "nohit",
                link("/usr/bin/gcc-14", "bin/gcc"),
                env={"PATH": "%ROOT%/bin:/usr/bin:/bin"},
            ),
        ),
    )
    for number, text in enumerate(
        (
            'exec gcc $(cat flags) "$@"',
            'exec gcc `cat flags` "$@"',
            'FLAGS=-DV=1 exec gcc "$@"',
            'exec gcc "$FLAGS" "$@"',
            'exec gcc -DV=1 "$@" 2>/dev/null',
            "exec gcc -DV=1 $*",
            'gcc -DV=1 "$@"',
            'exec gcc -DV=1 "$@" &',
            'exec gcc -DV=? "$@"',
        )
    ):
        yield Scenario(
            name=f"script-that-does-more-{number}",
            steps=(
                step(command, "nohit", source, write("flags", "-DV=1\n"),
                     _script(f"#!/bin/sh\n{text}\n")),
                step(command, "nohit", write("flags", "-DV=2\n"), env={"FLAGS": "-DV=3"}),
            ),
        )  # fmt: skip


def _specs() -> Iterator[Scenario]:
    for cc in ("gcc", "gcc-14"):
        command = f"{cc} -specs my.specs -c main.c -o main.o"
        yield Scenario(
            name=f"specs-in-two-words-{cc}",
            steps=(
                step(command, "miss", write("main.c", "int f(int a) { return a * 7; }\n"),
                     write("my.specs", "*cc1:\n+ -O2\n\n")),
                step(command, "hit"),
                step(command, "nohit", write("my.specs", "*cc1:\n+ -O0\n\n")),
                step(command, "hit", write("my.specs", "*cc1:\n+ -O2\n\n")),
                step(command, "nohit", delete("my.specs")),
            ),
        )  # fmt: skip


def scenarios() -> Iterator[Scenario]:
    """Yield every scenario of this family."""
    yield from _scripts()
    yield from _specs()
