"""Scenarios of the dynamic loader: its variables, and libraries that appear or change."""

from __future__ import annotations

import platform
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Final

from hpcc_testkit.trust.steps import (
    Edit,
    Scenario,
    copy,
    delete,
    link,
    mkdir,
    move,
    run_tool,
    step,
    write,
)

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


def _impostors(cc: str) -> Iterator[Scenario]:
    """Yield a foreign library with a known name; it reads a variable that the daemon never sees."""
    command = f"{cc} -c main.c -o main.o"
    speaks = """
#include <stdio.h>
#include <stdlib.h>
__attribute__((constructor)) static void speak(void) { fputs(getenv("OWN"), stderr); }
"""
    build = "gcc -shared -fPIC -s -w lib.c -o lib/libeatmydata.so"
    env = {"LD_LIBRARY_PATH": "%ROOT%/lib", "LD_PRELOAD": "libeatmydata.so"}
    made = (_PLAIN, mkdir("lib"), write("lib.c", speaks), run_tool(*build.split()))
    yield Scenario(
        name=f"a-foreign-library-has-a-known-name-{cc}",
        steps=(
            step(command, "bypass", *made, env={**env, "OWN": "1"}),
            step(command, "bypass", env={**env, "OWN": "2"}),
            step(command, "miss"),
            step(command, "bypass", env={**env, "OWN": "1"}),
            step(command, "hit"),
        ),
    )


def _allocators(cc: str) -> Iterator[Scenario]:
    """Yield settings of allocators: some make a preloaded one write messages or files."""
    command = f"{cc} -c main.c -o main.o"
    library = {"LD_PRELOAD": "libstdc++.so.6"}
    for name, value, alone in (
        ("MALLOC_CONF", "stats_print:true", "hit"),
        ("TCMALLOC_SAMPLE_PARAMETER", "1", "hit"),
        ("MIMALLOC_VERBOSE", "1", "hit"),
        ("HEAPPROFILE", "%ROOT%/heap", "bypass"),
        ("MALLOCSTATS", "1", "bypass"),
    ):
        yield Scenario(
            name=f"setting-of-an-allocator-{name}-{cc}",
            steps=(
                step(command, "miss", _PLAIN, env=library),
                step(command, "hit", env=library),
                step(command, "bypass", env={**library, name: value}),
                step(command, "nohit", env={name: value}),
                step(command, alone, env={name: value}),
                step(command, "hit", env=library),
            ),
        )
    for name, one, other in (
        ("MALLOC_PERTURB_", "1", "77"),
        ("MALLOC_CHECK_", "0", "3"),
        ("POSIXLY_CORRECT", "1", "2"),
        ("LOCALE_ARCHIVE", "/a", "/b"),
    ):
        yield Scenario(
            name=f"setting-of-libc-{name}-{cc}",
            steps=(
                step(command, "miss", _PLAIN, env={name: one}),
                step(command, "nohit", env={name: other}),
                step(command, "hit", env={name: one}),
                step(command, "hit", env={name: other}),
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


def _of_other_class(source: str, path: str) -> Edit:
    """Write a library with the ELF class of another machine, which the loader skips."""

    def edit(root: Path) -> None:
        data = bytearray((root / source).read_bytes())
        data[4] = 3 - data[4]
        write(path, bytes(data))(root)

    return edit


def _skipped(cc: str) -> Iterator[Scenario]:
    """Yield a library that the loader skips, until it is repaired; a bad one is an error."""
    command = f"{cc} -c main.c -o main.o"
    env = {"LD_LIBRARY_PATH": "%ROOT%/lib"}
    library = "lib/libz.so.1"
    other = (_library(_SPEAKS, 1), _of_other_class("lib.so", library))
    for kind, made, repaired in (
        ("a-dangling-link", (link("../later", library),), write("later", "")),
        ("a-link-to-be-replaced", (link("none", library),), move("main.c.empty", library)),
        ("of-another-class", other, write(library, "")),
        ("below-a-dangling-link", (link("later", "lib"),), write("later/libz.so.1", "")),
    ):
        yield Scenario(
            name=f"a-library-is-{kind}-until-it-is-repaired-{cc}",
            steps=(
                step(command, "miss", _PLAIN, write("main.c.empty", ""), *made, env=env),
                step(command, "hit", env=env),
                step(command, "hit", env=env),
                step(command, "nohit", repaired, env=env),
                step(command, "nohit", env=env),
            ),
        )


def _named_by_the_loader(cc: str) -> Iterator[Scenario]:
    """Yield a directory `$LIB`, which is relative; the loader decides on its name."""
    command = f"{cc} -c main.c -o main.o"
    env = {"LD_LIBRARY_PATH": "$LIB"}
    names = ("lib", "lib64", f"lib/{platform.machine()}-linux-gnu")
    yield Scenario(
        name=f"a-library-appears-in-a-directory-named-by-the-loader-{cc}",
        steps=(
            step(command, "miss", _PLAIN, mkdir(*names), env=env),
            step(command, "hit", env=env),
            step(command, "nohit", *(write(f"{n}/libz.so.1", "") for n in names), env=env),
            step(command, "nohit", env=env),
        ),
    )


def _unnameable(cc: str) -> Iterator[Scenario]:
    """Yield an empty part in a directory with a colon, which no absolute name can replace."""
    command = f"{cc} -c ../main.c -o main.o"
    env = {"LD_LIBRARY_PATH": "/none:"}
    yield Scenario(
        name=f"a-library-appears-in-a-working-directory-with-a-colon-{cc}",
        steps=(
            step(command, "nohit", _PLAIN, mkdir("a:b"), env=env, cwd="a:b"),
            step(command, "nohit", env=env, cwd="a:b"),
            step(command, "nohit", write("a:b/libz.so.1", ""), env=env, cwd="a:b"),
            step(command, "nohit", env=env, cwd="a:b"),
        ),
    )


# It executes no other assembler, or it would be a wrapper.
_ASSEMBLER: Final = """
#include <stdio.h>
#include <string.h>
int own(void);
int main(int count, char **words) {
  own();
  for (int i = 1; i + 1 < count; i++) {
    FILE *file = strcmp(words[i], "-o") ? 0 : fopen(words[i + 1], "w");
    if (file && (fputs("object", file) < 0 || fclose(file))) return 1;
  }
  return 0;
}
"""
_OWN: Final = "int own(void) { return 0; }\n"


def _libraries_of_a_program_below_a_prefix() -> Iterator[Scenario]:
    """Yield an assembler that `-B` adds; the loader skips its library, until it is repaired."""
    command = "gcc -Btools/ -c main.c -o main.o"
    env = {"LD_LIBRARY_PATH": "%ROOT%/lib:%ROOT%/good"}
    library = "lib/libown.so.1"
    build = "gcc -shared -fPIC -s -Wl,-soname,libown.so.1 own.c -o"
    made = (
        _PLAIN,
        mkdir("lib", "good", "tools"),
        write("own.c", _OWN),
        run_tool(*build.split(), "good/libown.so.1"),
        write("as.c", _ASSEMBLER),
        run_tool("gcc", "as.c", "good/libown.so.1", "-s", "-o", "tools/as"),
        write("own.c", _SPEAKS.format(1) + _OWN),
        run_tool(*build.split(), "speaks"),
    )
    for kind, fault, again in (
        ("of-another-class", _of_other_class("speaks", library), "hit"),
        ("a-dangling-link", link("none", library), "nohit"),
    ):
        yield Scenario(
            name=f"a-library-of-an-assembler-below-a-prefix-is-{kind}",
            steps=(
                step(command, "miss", *made, fault, env=env),
                step(command, again, env=env),
                step(command, "nohit", copy("speaks", library + ".new"),
                     move(library + ".new", library), env=env),
                step(command, "any", env=env),
            ),
        )  # fmt: skip


def scenarios() -> Iterator[Scenario]:
    """Yield every scenario of this family."""
    for cc in ("gcc", "clang"):
        yield from _foreign(cc)
        yield from _impostors(cc)
        yield from _allocators(cc)
        yield from _variables(cc)
        yield from _directories(cc)
        yield from _skipped(cc)
        yield from _named_by_the_loader(cc)
        yield from _unnameable(cc)
    yield from _libraries_of_a_program_below_a_prefix()
