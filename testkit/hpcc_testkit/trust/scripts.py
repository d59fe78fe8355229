"""Scenarios of drivers that are scripts or wrappers, and of specs files in two words."""

from __future__ import annotations

import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Final

from hpcc_testkit.trust.steps import (
    Edit,
    Scenario,
    Step,
    delete,
    link,
    run_tool,
    step,
    write,
)


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


# The wrapper adds a flag with a value that only it reads.
_WRAPPER: Final = """
#define _GNU_SOURCE
#include <spawn.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/wait.h>
#include <unistd.h>
extern char **environ;
int main(int n, char **v) {{
  char **w = calloc((size_t)n + 2, sizeof *w), flag[100], value[50] = "0";
  FILE *file = fopen("own.cfg", "r");
  if (file) {{ if (!fgets(value, sizeof value, file)) return 1; fclose(file); }}
  if (getenv("OWN_VALUE")) strcpy(value, getenv("OWN_VALUE"));
  snprintf(flag, sizeof flag, "{flag}%s", value);
  w[0] = "{program}";
  w[1] = flag;
  for (int i = 1; i < n; i++) w[i + 1] = v[i];
  {runs}
  return 127;
}}
"""
_REPLACES: Final = "execv(w[0], w);"
_WAITS: Final = """
  pid_t child; int status;
  if (posix_spawn(&child, w[0], 0, 0, w, environ) || waitpid(child, &status, 0) < 0) return 127;
  return WEXITSTATUS(status);
"""
_USE: Final = write("main.c", "int value = OWN;\n")
# The assembler's symbol is in the object.
_ASSEMBLY: Final = write("main.c", 'int value;\n__asm__(".globl own_\\n.set own_, OWN\\n");\n')


def _wrapper(path: str, program: str, flag: str, runs: str = _REPLACES, *flags: str) -> Edit:
    def edit(root: Path) -> None:
        real = str(Path(shutil.which(program) or program).resolve())
        text = _WRAPPER.format(program=real, flag=flag, runs=runs)
        write("own.c", text)(root)
        (root / path).parent.mkdir(exist_ok=True)
        run_tool("gcc", "-s", "-w", *flags, "own.c", "-o", path)(root)
        (root / "own.c").unlink()

    return edit


def _steps(command: str, *edits: Edit, path: str = "/usr/bin:/bin") -> tuple[Step, ...]:
    """Return compiles with equal bytes everywhere, but for what the wrapper alone reads."""
    return (
        step(command, "nohit", *edits, env={"OWN_VALUE": "1", "PATH": path}),
        step(command, "nohit", env={"OWN_VALUE": "1", "PATH": path}),
        step(command, "nohit", env={"OWN_VALUE": "2", "PATH": path}),
        step(command, "nohit", write("own.cfg", "3"), env={"PATH": path}),
        step(command, "nohit", write("own.cfg", "4"), env={"PATH": path}),
        step(command, "nohit", delete("own.cfg"), env={"PATH": path}),
    )


def _drivers() -> Iterator[Scenario]:
    for cc in ("gcc", "clang"):
        name = f"%ROOT%/tools/{cc} -c main.c -o main.o"
        for kind, runs, flags in (
            ("replaces-itself", _REPLACES, ()),
            ("waits-for-it", _WAITS, ()),
            ("is-static", _REPLACES, ("-static",)),
        ):
            wrapper = _wrapper(f"tools/{cc}", cc, "-DOWN=", runs, *flags)
            yield Scenario(
                name=f"a-wrapper-{kind}-and-reads-its-own-variable-and-file-{cc}",
                steps=_steps(name, _USE, wrapper),
            )
        wrapper = _wrapper(f"tools/{cc}", cc, "-DOWN=")
        yield Scenario(
            name=f"a-wrapper-found-on-the-path-{cc}",
            steps=_steps(f"{cc} -c main.c -o main.o", _USE, wrapper, path="%ROOT%/tools:/usr/bin"),
        )
        real = str(Path(shutil.which(cc) or f"/usr/bin/{cc}").resolve())
        plain = f"%ROOT%/tools/{cc} -DOWN=9 -c main.c -o main.o"
        yield Scenario(
            name=f"a-wrapper-takes-the-place-of-a-compiler-and-leaves-it-{cc}",
            steps=(
                step(plain, "miss", _USE, link(real, f"tools/{cc}")),
                step(plain, "hit"),
                step(plain, "bypass", delete(f"tools/{cc}"), wrapper, env={"OWN_VALUE": "1"}),
                step(plain, "bypass", env={"OWN_VALUE": "2"}),
                step(plain, "hit", link(real, f"tools/{cc}"), env={"OWN_VALUE": "2"}),
            ),
        )


def _assemblers() -> Iterator[Scenario]:
    flag = "--defsym=OWN="
    wrapper = _wrapper("tools/as", "as", flag)
    script = write("tools/as", f'#!/bin/sh\nexec /usr/bin/as {flag}$OWN_VALUE "$@"\n', 0o755)
    command = "gcc -c main.c -o main.o"
    for kind, assembler in (("wrapper", wrapper), ("script", script)):
        yield Scenario(
            name=f"an-assembler-on-the-path-is-a-{kind}",
            steps=_steps(command, _ASSEMBLY, assembler, path="%ROOT%/tools:/usr/bin"),
        )
    for cc, more in (("gcc", ""), ("clang", " -fno-integrated-as")):
        yield Scenario(
            name=f"an-assembler-below-a-prefix-is-a-wrapper-{cc}",
            steps=_steps(f"{cc}{more} -Btools/ -c main.c -o main.o", _ASSEMBLY, wrapper),
        )
    proper = Path("/usr/lib/gcc").glob("*/12/cc1")
    yield Scenario(
        name="a-compiler-proper-below-a-prefix-is-a-wrapper",
        steps=_steps(
            "gcc-12 -Btools/ -c main.c -o main.o",
            _USE,
            _wrapper("tools/cc1", str(next(proper, "cc1")), "-DOWN="),
        ),
    )


def scenarios() -> Iterator[Scenario]:
    """Yield every scenario of this family."""
    yield from _scripts()
    yield from _specs()
    yield from _drivers()
    yield from _assemblers()
