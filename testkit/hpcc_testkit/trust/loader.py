"""Scenarios of the dynamic loader: its variables, and libraries that appear or change."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path
from typing import Final

from hpcc_testkit.trust.steps import Edit, Scenario, delete, mkdir, run_tool, step, write

_PLAIN: Final = write("main.c", "int value;\n")
_SPEAKS: Final = """
#include <stdio.h>
__attribute__((constructor)) static void speak(void) {{ fputs("library {0}\\n", stderr); }}
"""
_AUDITS: Final = """
#include <stdio.h>
unsigned la_version(unsigned v) {{ fputs("audit {0}\\n", stderr); return v; }}
"""
_ADDRESS: Final = re.compile(rb"0x[0-9a-f]+")


def _library(text: str, number: int) -> Edit:
    """Build ./lib.so, whose messages hold a number."""

    def edit(root: Path) -> None:
        write("lib.c", text.format(number))(root)
        run_tool("gcc", "-shared", "-fPIC", "-s", "lib.c", "-o", "lib.so")(root)

    return edit


def _without_addresses(data: bytes) -> bytes:
    return _ADDRESS.sub(b"0x", data)


def _foreign(cc: str) -> Iterator[Scenario]:
    command = f"{cc} -c main.c -o main.o"
    for variable, text in (("LD_PRELOAD", _SPEAKS), ("LD_AUDIT", _AUDITS)):
        env = {variable: "%ROOT%/lib.so"}
        yield Scenario(
            name=f"a-library-of-{variable}-is-built-anew-{cc}",
            steps=(
                step(command, "miss", _PLAIN, _library(text, 1)),
                step(command, "nohit", env=env),
                step(command, "nohit", env=env),
                step(command, "nohit", _library(text, 2), env=env),
                step(command, "hit"),
            ),
        )
        yield Scenario(
            name=f"a-library-of-{variable}-is-there-from-the-start-{cc}",
            steps=(
                step(command, "nohit", _PLAIN, _library(text, 1), env=env),
                step(command, "miss"),
                step(command, "hit"),
            ),
        )
    known = {"LD_PRELOAD": "libstdc++.so.6"}
    yield Scenario(
        name=f"a-library-of-LD_PRELOAD-that-changes-no-output-{cc}",
        steps=(
            step(command, "miss", _PLAIN),
            step(command, "nohit", env=known),
            step(command, "hit", env=known),
            step(command, "hit"),
        ),
    )


def _variables(cc: str) -> Iterator[Scenario]:
    command = f"{cc} -c main.c -o main.o"
    for name, value, again in (
        ("LD_DEBUG", "help", "bypass"),
        ("LD_TRACE_LOADED_OBJECTS", "1", "bypass"),
        ("GCONV_PATH", "%ROOT%", "bypass"),
        ("GLIBC_TUNABLES", "glibc.malloc.check=0", "hit"),
        ("LD_HWCAP_MASK", "0x1", "hit"),
        ("OUTPUT_CHARSET", "UTF-8", "hit"),
    ):
        env = {name: value}
        yield Scenario(
            name=f"loader-variable-{name}-{cc}",
            steps=(
                step(command, "miss", _PLAIN),
                step(command, "nohit", delete("main.o"), env=env),
                step(command, again, env=env),
                step(command, "hit"),
            ),
            mask=_without_addresses,
        )


def _directories(cc: str) -> Iterator[Scenario]:
    """Yield a library that appears in a directory of LD_LIBRARY_PATH; a bad one is an error."""
    command = f"{cc} -c main.c -o main.o"
    for kind, value, where in (
        ("absolute", "%ROOT%/lib", "lib"),
        ("absolute-and-missing", "/none:%ROOT%/not/there", "not/there"),
        ("relative", "lib", "lib"),
        ("empty", "/none:", "."),
    ):
        env = {"LD_LIBRARY_PATH": value}
        made = () if "missing" in kind else (mkdir(where),)
        library = f"{where}/libz.so.1"
        yield Scenario(
            name=f"a-library-appears-in-a-directory-{kind}-{cc}",
            steps=(
                step(command, "miss", _PLAIN, *made, env=env),
                step(command, "hit", env=env),
                step(command, "nohit", write(library, ""), env=env),
                step(command, "nohit", env=env),
                step(command, "any", delete(library), env=env),
            ),
        )


def scenarios() -> Iterator[Scenario]:
    """Yield every scenario of this family."""
    for cc in ("gcc", "clang"):
        yield from _foreign(cc)
        yield from _variables(cc)
        yield from _directories(cc)
