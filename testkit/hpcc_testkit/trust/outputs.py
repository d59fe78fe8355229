"""Scenarios of outputs: depfiles, modes, names, special files, terminals."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Final

from hpcc_testkit.trust.steps import (
    Scenario,
    append_in_place,
    change_mode,
    delete,
    hard_link,
    link,
    mkdir,
    step,
    write,
)

_SOURCE: Final = write("main.c", '#include "a.h"\nint f(void) { int unused; return A; }\n')
_HEADER: Final = write("a.h", "#define A 1\n")
_DEPFILES: Final = (
    "-MD", "-MMD", "-MD -MP", "-MMD -MP", "-MD -MF x.dep", "-MMD -MF sub/x.dep", "-MD -MT one",
    "-MD -MT one -MT two", "-MD -MQ 'a$b'", "-MMD -MT one -MQ two -MP -MF x.dep",
    "-MD -MF /dev/null",
    "-MD -MF main.o", "-Wp,-MD,x.dep", "-Wp,-MMD,x.dep", "-MF x.dep", "-MD -MMD", "-MT one",
)  # fmt: skip


def _compiler(cc: str) -> Iterator[Scenario]:
    base = f"{cc} -Wall -c main.c"
    for number, flags in enumerate(_DEPFILES):
        command = f"{base} {flags} -o main.o"
        yield Scenario(
            name=f"depfile-{number}-{cc}",
            steps=(
                step(command, "any", _SOURCE, _HEADER, mkdir("sub")),
                step(command),
                step(command, "nohit", write("a.h", "#define A 2\n")),
            ),
        )
    outputs = {
        "default": base, "directory": f"{base} -o sub/x.o -MD", "no-suffix": f"{base} -o x -MD",
        "null": f"{base} -o /dev/null", "missing-directory": f"{base} -o gone/x.o",
        "is-a-directory": f"{base} -o sub", "is-the-source": f"{cc} -c main.c -o main.c",
        "odd-name": f"{base} -o 'sub/a b$c#d.o' -MD",
        "stdout": f"{cc} -S main.c -o -", "preprocessed": f"{cc} -E main.c",
    }  # fmt: skip
    for name, command in outputs.items():
        yield Scenario(
            name=f"output-{name}-{cc}",
            steps=(step(command, "any", _SOURCE, _HEADER, mkdir("sub")), step(command)),
        )
    command = f"{base} -o ../x.o"
    yield Scenario(
        name=f"output-above-{cc}",
        steps=(
            step(command, "miss", write("sub/main.c", "int v;\n"), cwd="sub"),
            step(command, "hit", delete("x.o"), cwd="sub"),
        ),
    )
    command = f"{base} -o main.o"
    for name, edit in {
        "hard-linked": hard_link("main.o", "twin.o"),
        "changed-in-place": append_in_place("main.o", b"more"),
        "read-only": change_mode("main.o", 0o444),
        "other-mode": change_mode("main.o", 0o600),
        "deleted": delete("main.o"),
        "a-link": link("elsewhere.o", "main.o"),
    }.items():
        yield Scenario(
            name=f"old-output-{name}-{cc}",
            steps=(
                step(command, "miss", _SOURCE, _HEADER),
                step(command, "any", edit),
                step(command, "any", append_in_place("main.o", b"more")),
            ),
        )
    for umask in (0o000, 0o077, 0o002):
        yield Scenario(
            name=f"umask-{umask:03o}-{cc}",
            steps=(
                step(command, "miss", _SOURCE, _HEADER),
                step(command, "hit", delete("main.o"), umask=umask),
            ),
        )
    text = b"int v = 3;\n"
    for name, tail in {"dash": "-x c -", "dev-stdin": "-x c /dev/stdin"}.items():
        command = f"{cc} -c {tail} -o main.o"
        yield Scenario(
            name=f"stdin-{name}-{cc}",
            steps=(
                step(command, "nohit", stdin=text),
                step(command, "nohit", stdin=b"int v = 4;\n"),
            ),
        )
    for odd in (b"n\xe4me.c", b"new\nline.c", b"-dash.c", b"sp ace.c"):
        argv: list[str | bytes] = [cc, "-MD", "-c", b"./" + odd, "-o", "main.o"]
        yield Scenario(
            name=f"source-named-{odd.hex()}-{cc}",
            steps=(step(argv, "any", write(odd, "int v;\n")), step(argv)),
        )
    long = " ".join(f"-DLONG_MACRO_{n}={'x' * 100}" for n in range(3000))
    yield Scenario(
        name=f"long-argv-{cc}",
        steps=(step(f"{base} {long} -o main.o", "any", _SOURCE, _HEADER),
               step(f"{base} {long} -o main.o")),
    )  # fmt: skip


def _build_information() -> Iterator[Scenario]:
    """Yield objects that hold the command line which made them (CodeView's LF_BUILDINFO)."""
    still = "-mno-incremental-linker-compatible"  # else the object holds the time
    for cc in ("clang-14", "clang-19"):
        for name, flags in (
            ("msvc", f"-g --target=x86_64-pc-windows-msvc {still}"),
            ("mingw", "-g -gcodeview --target=x86_64-w64-mingw32"),
        ):
            for dependencies in ("", "-MD", "-MMD"):
                command = f"{cc} {flags} {dependencies} -Iinc -c main.c -o main.o"
                yield Scenario(
                    name=f"command-line-in-codeview-{name}{dependencies}-{cc}",
                    steps=(
                        step(command, "miss", write("inc/v.h", "int v;\n"),
                             write("main.c", '#include "v.h"\nint f(void) { return v; }\n')),
                        step(command, "hit"),
                        step(command, "nohit", write("inc/v.h", "long v;\n")),
                    ),
                )  # fmt: skip


def scenarios() -> Iterator[Scenario]:
    """Yield every scenario of this family."""
    for cc in ("gcc", "clang"):
        yield from _compiler(cc)
    yield from _build_information()
