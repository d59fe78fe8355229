"""Scenarios of names that each process resolves differently, and of directories that move."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Final

from hpcc_testkit.trust.steps import Scenario, delete, link, mkdir, move, step, write

_USE: Final = write("main.c", "#include <v.h>\nint value = V;\n")
_ONE: Final = write("inc/v.h", "#define V 1\n")
_TWO: Final = write("inc/v.h", "#define V 2\n")


def _of_a_process(cc: str) -> Iterator[Scenario]:
    text, other = b"int v = 3;\n", b"int v = 4;\n"
    for name, tail in {
        "fd": "-x c /dev/fd/0",
        "stdin": "-x c /dev/stdin",
        "proc": "-x c /proc/self/fd/0",
        "link": "-x c in",
        "forced": "-include /dev/stdin main.c",
        "joined": "-include/dev/fd/0 main.c",
    }.items():
        command = f"{cc} {tail} -c -o main.o"
        files = (link("/dev/stdin", "in"), write("main.c", "int w;\n"))
        yield Scenario(
            name=f"process-input-{name}-{cc}",
            steps=(
                step(command, "nohit", *files, stdin=text),
                step(command, "nohit", stdin=other),
            ),
        )
    yield Scenario(
        name=f"process-response-file-{cc}",
        steps=(
            step(f"{cc} @/dev/stdin -c main.c -o main.o", "nohit", write("main.c", "int v = V;\n"),
                 stdin=b"-DV=1"),
            step(f"{cc} @/dev/stdin -c main.c -o main.o", "nohit", stdin=b"-DV=2"),
            step(f"{cc} @in -c main.c -o main.o", "nohit", link("/proc/self/fd/0", "in"),
                 stdin=b"-DV=3"),
            step(f"{cc} @in -c main.c -o main.o", "nohit", stdin=b"-DV=4"),
        ),
    )  # fmt: skip
    here = "/proc/self/cwd"
    for name, flags, env in (
        ("joined", f"-I{here}/inc", {}),
        ("separate", f"-isystem {here}/inc", {}),
        ("by-a-link", "-Ilink", {}),
        ("by-dots", "-I../../../../../../../../../../../../proc/self/cwd/inc", {}),
        ("variable", "", {"CPATH": f"/nowhere:{here}/inc"}),
    ):
        command = f"{cc} {flags} -c main.c -o main.o"
        yield Scenario(
            name=f"process-directory-{name}-{cc}",
            steps=(
                step(command, "nohit", _USE, _ONE, link(f"{here}/inc", "link"), env=env),
                step(command, "nohit", env=env),
                step(command, "nohit", _TWO, env=env),
            ),
        )
    for name, out in {"plain": f"{here}/main.o", "by-a-link": "out/main.o"}.items():
        command = f"{cc} -Iinc -c main.c -MD -o {out}"
        yield Scenario(
            name=f"process-output-{name}-{cc}",
            steps=(
                step(command, "nohit", _USE, _ONE, link(here, "out")),
                step(command, "nohit"),
                step(command, "nohit", delete("main.o")),
            ),
        )
    command = f"{cc} -g -DWHERE=/proc/self -fdebug-prefix-map={here}=. -Iinc -c main.c -o main.o"
    yield Scenario(
        name=f"process-names-in-text-{cc}",
        steps=(
            step(command, "miss", _USE, _ONE, env={"PWD": here}),
            step(command, "hit", env={"PWD": here}),
        ),
    )


def _moved(cc: str) -> Iterator[Scenario]:
    command = f"{cc} -Ilink -c main.c -o main.o"
    trees = (_USE, write("one/v.h", "#define V 1\n"), write("two/v.h", "#define V 2\n"))
    yield Scenario(
        name=f"moved-directory-link-{cc}",
        steps=(
            step(command, "miss", *trees, link("one", "link")),
            step(command, "hit"),
            step(command, "nohit", link("two", "link")),
            step(command, "hit", link("one", "link")),
        ),
    )
    yield Scenario(
        name=f"moved-behind-a-directory-link-{cc}",
        steps=(
            step(command, "miss", *trees, link("one", "link")),
            step(command, "hit"),
            step(command, "nohit", move("one", "three"), move("two", "one")),
            step(command, "hit", move("one", "two"), move("three", "one")),
        ),
    )
    command = f"{cc} -Itop/sub -c main.c -o main.o"
    yield Scenario(
        name=f"moved-directory-above-{cc}",
        steps=(
            step(command, "miss", _USE, write("top/sub/v.h", "#define V 1\n"),
                 write("top2/sub/v.h", "#define V 2\n")),
            step(command, "hit"),
            step(command, "nohit", move("top", "top3"), move("top2", "top")),
            step(command, "nohit", delete("top")),
            step(command, "hit", move("top3", "top")),
        ),
    )  # fmt: skip
    command = f"{cc} -Ifirst -Iinc -c main.c -o main.o"
    yield Scenario(
        name=f"moved-full-directory-in-place-of-an-empty-one-{cc}",
        steps=(
            step(command, "miss", _USE, _ONE, mkdir("first"), write("full/v.h", "#define V 2\n")),
            step(command, "hit"),
            step(command, "nohit", delete("first"), move("full", "first")),
        ),
    )
    yield Scenario(
        name=f"moved-link-in-place-of-an-empty-directory-{cc}",
        steps=(
            step(command, "miss", _USE, _ONE, mkdir("first"), write("full/v.h", "#define V 2\n")),
            step(command, "hit"),
            step(command, "nohit", delete("first"), link("full", "first")),
        ),
    )


def scenarios() -> Iterator[Scenario]:
    """Yield every scenario of this family."""
    for cc in ("gcc", "clang"):
        yield from _of_a_process(cc)
        yield from _moved(cc)
