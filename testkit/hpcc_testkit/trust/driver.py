"""Scenarios of clock macros pasted from pieces, and of files that a driver finds beside itself."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Final

from hpcc_testkit.trust.steps import Edit, Scenario, delete, mkdir, set_times, step, write

_MACROS: Final = (
    "#define PASTE_(a, b) a##b\n#define PASTE(a, b) PASTE_(a, b)\n"
    "#define TEXT_(a) #a\n#define TEXT(a) TEXT_(a)\n"
)
_PIECES: Final = {
    "date": "PASTE(__DA, TE__)",
    "date-in-three": "PASTE(PASTE(__, DATE), __)",
    "time": "PASTE(__TI, ME__)",
    "time-by-letters": "PASTE(PASTE(__T, IM), E__)",
}
_TIMESTAMP: Final = "PASTE(__TIME, STAMP__)"
# A number computed from the clock: the object contains no text of it.
_FIGURE: Final = "extern const int v[];\nconst int v[] = {{ {0}[6], {0}[7] }};\n"
_STRING: Final = "extern const char v[];\nconst char v[] = {0};\n"
_LTO: Final = ("", "-flto", "-flto -ffat-lto-objects")
_CLOCK: Final = re.compile(
    rb"\d\d:\d\d:\d\d|(?:[A-Z][a-z]{2} )?[A-Z][a-z]{2} [ \d]\d(?: \d{4})?", re.DOTALL
)


def _nothing(data: bytes) -> bytes:
    """Return b"" for an object, which holds a clock or a random number; mask clocks in text."""
    return b"" if data[:4] in {b"\x7fELF", b"BC\xc0\xde"} else _CLOCK.sub(b"(clock)", data)


def _clocks(cc: str) -> Iterator[Scenario]:
    for flags in _LTO:
        command = f"{cc} {flags} -c main.c -o main.o"
        for name, text in _PIECES.items():
            bodies = {"text": _STRING, "figure": _FIGURE}
            for form, body in bodies.items():
                if form == "figure" and "date" in name:
                    continue
                main = write("main.c", _MACROS + body.format(text))
                yield Scenario(
                    name=f"clock-pasted-{name}-{form}{flags.replace(' ', '')}-{cc}",
                    steps=(step(command, "nohit", main), step(command, "nohit")),
                    mask=_nothing,
                )
        main = write("main.c", _MACROS + _STRING.format(_TIMESTAMP))
        yield Scenario(
            name=f"clock-pasted-timestamp{flags.replace(' ', '')}-{cc}",
            steps=(
                step(command, "nohit", main, set_times("main.c", 10**9)),
                step(command, "nohit", set_times("main.c", 10**9 + 100)),
            ),
            mask=_nothing if "lto" in flags else bytes,
        )
        main = write("main.c", _MACROS + "char *v = PASTE(A, B);\n")
        args = f"{cc} {flags} '-DA=__TI' '-DB=ME__' -c main.c -o main.o"
        split = write("main.c", f"{_MACROS}const char v[] = PASTE(A, B);\n")
        yield Scenario(
            name=f"clock-pasted-from-arguments{flags.replace(' ', '')}-{cc}",
            steps=(step(args, "nohit", split), step(args, "nohit")),
            mask=_nothing,
        )
        header = write("when.h", "#define HALF __DA\n")
        use = write("main.c", f'#include "when.h"\n{_MACROS}const char v[] = PASTE(HALF, TE__);\n')
        yield Scenario(
            name=f"clock-pasted-over-two-files{flags.replace(' ', '')}-{cc}",
            steps=(step(command, "nohit", header, use), step(command, "nohit")),
            mask=_nothing,
        )
    command = f"{cc} -c main.c -o main.o"
    words = write(
        "main.c", "/* the DATE and the TIME, at 12:34 */ enum { DATE, TIME, AT };\nint v;\n"
    )
    yield Scenario(
        name=f"clock-words-without-a-clock-{cc}",
        steps=(step(command, "miss", words), step(command, "hit")),
    )
    if cc == "gcc":
        pinned = {"SOURCE_DATE_EPOCH": "1000000000"}
        pasted = write("main.c", _MACROS + _STRING.format(_PIECES["date"]))
        yield Scenario(
            name="clock-pasted-and-pinned",
            steps=(step(command, "miss", pasted, env=pinned), step(command, "hit", env=pinned)),
        )


def _own_gcc(root: Path) -> None:
    """Give the tree a private GCC: a copy of the driver, links to the rest."""
    real = Path(shutil.which("gcc") or "/usr/bin/gcc").resolve()
    answer = subprocess.run(
        [real, "-print-search-dirs"], capture_output=True, check=True, text=True
    ).stdout
    install = Path(answer.partition("install: ")[2].partition("\n")[0])
    cc1 = subprocess.run(
        [real, "-print-prog-name=cc1"], capture_output=True, check=True, text=True
    ).stdout.strip()
    target = root / "gcc/lib/gcc" / install.parent.name / install.name
    target.mkdir(parents=True)
    (root / "gcc/bin").mkdir()
    shutil.copy(real, root / "gcc/bin/gcc")
    for path in (*install.iterdir(), Path(cc1)):
        if not (target / path.name).exists():
            (target / path.name).symlink_to(path)


def _specs_path(root: Path, kind: str) -> Path:
    (install,) = (root / "gcc/lib/gcc").glob("*/*")
    return {
        "install": install / "specs",
        "above": install.parents[1] / "specs",
        "tools": root / "gcc" / install.parent.name / "lib/specs",
    }[kind]


def _write_specs(kind: str, value: int) -> Edit:
    def edit(root: Path) -> None:
        path = _specs_path(root, kind)
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(f"*cpp_unique_options:\n+ -DV={value}\n\n")

    return edit


def _remove_specs(kind: str) -> Edit:
    return lambda root: _specs_path(root, kind).unlink()


def _driver_files() -> Iterator[Scenario]:
    use = write("main.c", "#ifndef V\n#define V 0\n#endif\nint value = V;\n")
    command = "gcc/bin/gcc -c main.c -o main.o"
    for kind in ("install", "above", "tools"):
        yield Scenario(
            name=f"specs-appear-{kind}",
            steps=(
                step(command, "miss", _own_gcc, use),
                step(command, "hit"),
                step(command, "nohit", _write_specs(kind, 1)),
                step(command, "any"),
                step(command, "nohit", _write_specs(kind, 2)),
                step(command, "any", _remove_specs(kind)),
            ),
        )
    for name, paths in (
        ("absolute", "%ROOT%/lib"),
        ("relative", "lib:"),
        ("empty-part", ":/usr/lib"),
        ("empty", ""),
    ):
        env = {"LIBRARY_PATH": paths}
        where = "specs" if name.startswith("empty") else "lib/specs"
        yield Scenario(
            name=f"specs-appear-by-a-variable-{name}",
            steps=(
                step("gcc -c main.c -o main.o", "miss", use, mkdir("lib"), env=env),
                step("gcc -c main.c -o main.o", "hit", env=env),
                step("gcc -c main.c -o main.o", "nohit",
                     write(where, "*cpp_unique_options:\n+ -DV=1\n\n"), env=env),
                step("gcc -c main.c -o main.o", "nohit",
                     write(where, "*cpp_unique_options:\n+ -DV=2\n\n"), env=env),
                step("gcc -c main.c -o main.o", "hit", delete(where), env=env),
            ),
        )  # fmt: skip
    older = "clang-14" if shutil.which("clang-14") else "clang-17"
    for cc, prog in (("clang-19", "clang"), ("clang-19", "clang++"), (older, "a-b-clang")):
        main = write("main.cc", "#ifndef V\n#define V 0\n#endif\nint value = V;\n")
        base = f"bin/{prog} -c main.cc -o main.o"
        names = {"clang": ("clang.cfg", "x86_64-pc-linux-gnu-clang.cfg", "x86_64-pc-linux-gnu.cfg"),
                 "clang++": ("clang++.cfg", "x86_64-pc-linux-gnu-clang++.cfg"),
                 "a-b-clang": ("a-b-clang.cfg", "a-b.cfg")}[prog]  # fmt: skip
        for name in names:
            yield Scenario(
                name=f"configuration-appears-{name}-{prog}",
                steps=(
                    step(base, "any", _own_clang(cc, prog), main),
                    step(base, "any"),
                    step(base, "nohit", write(f"bin/{name}", "-DV=1\n")),
                    step(base, "nohit", write(f"bin/{name}", "-DV=2\n")),
                    step(base, "any", delete(f"bin/{name}")),
                ),
            )
    for flags, triple in (("-m32", "i386-pc-linux-gnu"), ("--target=arm-x-y", "arm-x-y")):
        command = f"bin/clang {flags} -c main.cc -o main.o"
        yield Scenario(
            name=f"configuration-of-another-target-appears-{flags.strip('-=')}",
            steps=(
                step(command, "any", _own_clang("clang-19", "clang"), main),
                step(command, "any"),
                step(command, "nohit", write(f"bin/{triple}.cfg", "-DV=1\n")),
                step(command, "nohit", write(f"bin/{triple}.cfg", "-DV=2\n")),
            ),
        )


def _own_clang(cc: str, name: str) -> Edit:
    """Give the tree a copy of a Clang driver, which looks beside itself."""

    def edit(root: Path) -> None:
        (root / "bin").mkdir(exist_ok=True)
        real = os.path.realpath(shutil.which(cc) or f"/usr/bin/{cc}")
        shutil.copy(real, root / "bin" / name)

    return edit


def scenarios() -> Iterator[Scenario]:
    """Yield every scenario of this family."""
    for cc in ("gcc", "clang"):
        yield from _clocks(cc)
    yield from _driver_files()
