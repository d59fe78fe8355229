"""Scenarios of inputs that no header list shows: clocks, tools, variables, data, arguments."""

from __future__ import annotations

import os
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Final

from hpcc_testkit.trust.steps import (
    Edit,
    Scenario,
    Step,
    copy,
    delete,
    link,
    mkdir,
    run_tool,
    step,
    write,
    write_keeping_times,
)

_C: Final = ("gcc", "clang")
_ALL: Final = ("gcc", "g++", "clang", "clang++")
_PLAIN: Final = write("main.c", "int value = 1;\n")
_CLOCK: Final = re.compile(
    rb"\d\d:\d\d:\d\d|(?:[A-Z][a-z]{2} )?[A-Z][a-z]{2} [ \d]\d(?: \d{4})?", re.DOTALL
)


def _mask_clock(data: bytes) -> bytes:
    """Mask dates and times, which also differ between two bare compiles."""
    return _CLOCK.sub(b"(clock)", data)


def _never_hit(name: str, commands: tuple[Step, ...]) -> Scenario:
    return Scenario(name=name, steps=commands, mask=_mask_clock)


def _clocks(cc: str) -> Iterator[Scenario]:
    texts = {
        "date": "__DATE__",
        "time": "__TIME__",
        "pasted": "PASTE(__DA, TE__)",
        "pasted-in-three": "PASTE(PASTE(__, TIME), __)",
        "stringized-after-expansion": "TEXT(__TIME__)",
        "timestamp": "__TIMESTAMP__",
    }
    macros = "#define PASTE_(a, b) a##b\n#define PASTE(a, b) PASTE_(a, b)\n"
    macros += "#define TEXT_(a) #a\n#define TEXT(a) TEXT_(a)\n"
    for name, text in texts.items():
        command = f"{cc} -c main.c -o main.o"
        source = write("main.c", f"{macros}extern const char v[];\nconst char v[] = {text};\n")
        yield _never_hit(
            f"clock-{name}-{cc}", (step(command, "nohit", source), step(command, "nohit"))
        )
    split = write("main.c", "extern const char v[];\nconst char v[] = __DA\\\nTE__;\n")
    command = f"{cc} -c main.c -o main.o"
    yield _never_hit(
        f"clock-broken-by-a-backslash-{cc}", (step(command, "nohit", split), step(command, "nohit"))
    )
    command = f"{cc} -c main.c -o main.o '-DWHEN=__DATE__ __TIME__'"
    source = write("main.c", "extern const char v[];\nconst char v[] = WHEN;\n")
    yield _never_hit(
        f"clock-in-an-argument-{cc}", (step(command, "nohit", source), step(command, "nohit"))
    )
    command = f"{cc} @flags -c main.c -o main.o"
    yield _never_hit(
        f"clock-in-a-response-file-{cc}",
        (
            step(command, "nohit", source, write("flags", "'-DWHEN=__TIME__'\n")),
            step(command, "nohit"),
        ),
    )
    command = f"{cc} -include when.h -c main.c -o main.o"
    yield _never_hit(
        f"clock-in-a-forced-header-{cc}",
        (
            step(command, "nohit", source, write("when.h", "#define WHEN __TIME__\n")),
            step(command, "nohit"),
        ),
    )
    command = f"{cc} -isystem sys -c main.c -o main.o"
    header = write("sys/when.h", "#pragma GCC system_header\n#define WHEN __DATE__\n")
    use = write("main.c", "#include <when.h>\nextern const char v[];\nconst char v[] = WHEN;\n")
    yield _never_hit(
        f"clock-in-a-system-header-{cc}",
        (step(command, "nohit", header, use), step(command, "nohit")),
    )
    command = f"{cc} -c main.c -o main.o"
    source = write("main.c", "extern const char v[];\nconst char v[] = __DATE__ __TIME__;\n")
    yield Scenario(
        name=f"source-date-epoch-{cc}",
        steps=(
            step(command, "nohit", source, env={"SOURCE_DATE_EPOCH": "1000000000"}),
            step(command, "any", env={"SOURCE_DATE_EPOCH": "1000000000"}),
            step(command, "nohit", env={"SOURCE_DATE_EPOCH": "1100000000"}),
            step(command, "nohit", env={"SOURCE_DATE_EPOCH": "junk"}),
        ),
        # Older Clangs ignore the variable.
        mask=_mask_clock if cc == "clang" else bytes,
    )
    yield Scenario(
        name=f"clock-without-use-of-it-{cc}",
        steps=(step(command, "miss", _PLAIN), step(command, "hit")),
    )


def _wrapper(program: str, extra: str) -> Edit:
    """Make an ELF program that runs the real compiler with one more macro; all have one size."""
    text = (
        f"#include <stdlib.h>\n#include <unistd.h>\nstatic char extra[] = {extra!r};\n".replace(
            "'", '"'
        )
        + "int main(int n, char **v) {\n"
        "  char **w = calloc((size_t)n + 2, sizeof *w);\n"
        "  for (int i = 0; i < n; i++) w[i] = v[i];\n  w[n] = extra;\n"
        f'  execv("/usr/bin/{program}", w);\n  return 127;\n}}\n'
    )

    def edit(root: Path) -> None:
        write("tools/wrapper.c", text)(root)
        run_tool("gcc", "-s", "tools/wrapper.c", "-o", "tools/aside")(root)
        target = root / "tools" / program
        if target.exists():
            keep = target.stat()
            target.write_bytes((root / "tools/aside").read_bytes())

            os.utime(target, ns=(keep.st_atime_ns, keep.st_mtime_ns))
            (root / "tools/aside").unlink()
        else:
            (root / "tools/aside").rename(target)

    return edit


def _assembler(text: str) -> Edit:
    """Make an assembler whose objects are all this text; all have one size and time."""
    source = f"""
#include <stdio.h>
#include <string.h>
static const char text[] = "{text}";
int main(int n, char **v) {{
  for (int i = 1; i + 1 < n; i++) {{
    FILE *file = strcmp(v[i], "-o") ? 0 : fopen(v[i + 1], "w");
    if (file && (fputs(text, file) < 0 || fclose(file))) return 1;
  }}
  return 0;
}}
"""

    def edit(root: Path) -> None:
        write("tools/as.c", source)(root)
        run_tool("gcc", "-s", "tools/as.c", "-o", "tools/aside")(root)
        write("tools/as", (root / "tools/aside").read_bytes(), 0o755)(root)
        os.utime(root / "tools/as", (1, 1))

    return edit


def _assemblers() -> Iterator[Scenario]:
    command = "gcc -c main.c -o main.o"
    env = {"PATH": "%ROOT%/tools:/usr/bin"}
    yield Scenario(
        name="assembler-changed-with-equal-size-and-time",
        steps=(
            step(command, "miss", _PLAIN, _assembler("one"), env=env),
            step(command, "hit", env=env),
            step(command, "nohit", _assembler("two"), env=env),
            step(command, "hit", env=env),
            step(command, "hit", _assembler("one"), env=env),
        ),
    )


def _compilers(cc: str) -> Iterator[Scenario]:
    use = write("main.c", "int value = V;\n")
    command = f"%ROOT%/tools/{cc} -c main.c -o main.o"
    yield Scenario(
        name=f"compiler-replaced-with-equal-size-and-time-{cc}",
        steps=(
            step(command, "any", use, _wrapper(cc, "-DV=1")),
            step(command, "any"),
            step(command, "nohit", _wrapper(cc, "-DV=2")),
            step(command, "any"),
        ),
    )
    yield Scenario(
        name=f"compiler-shadowed-on-the-path-{cc}",
        steps=(
            step(f"{cc} -c main.c -o main.o -DV=9", "miss", use, mkdir("tools"),
                 env={"PATH": "%ROOT%/tools:/usr/bin:/bin"}),
            step(f"{cc} -c main.c -o main.o -DV=9", "hit",
                 env={"PATH": "%ROOT%/tools:/usr/bin:/bin"}),
            step(f"{cc} -c main.c -o main.o -DV=9", "nohit", _wrapper(cc, "-DV=2"),
                 env={"PATH": "%ROOT%/tools:/usr/bin:/bin"}),
        ),
    )  # fmt: skip
    other = "clang" if cc == "gcc" else "gcc"
    version = write("main.c", "const char *v = __VERSION__;\n")
    yield Scenario(
        name=f"compiler-link-moved-{cc}",
        steps=(
            step("%ROOT%/tools/cc -c main.c -o main.o", "any", version,
                 link(f"/usr/bin/{cc}", "tools/cc")),
            step("%ROOT%/tools/cc -c main.c -o main.o", "any"),
            step("%ROOT%/tools/cc -c main.c -o main.o", "nohit",
                 link(f"/usr/bin/{other}", "tools/cc")),
        ),
    )  # fmt: skip


_AS_1: Final = '#!/bin/sh\nexec /usr/bin/as --defsym tool=1 "$@"\n'
_AS_2: Final = '#!/bin/sh\nexec /usr/bin/as --defsym tool=2 "$@"\n'


def _tools() -> Iterator[Scenario]:
    command = "gcc -c main.c -o main.o"
    for name, env in {
        "compiler-path": {"COMPILER_PATH": "%ROOT%/tools"},
        "relative-compiler-path": {"COMPILER_PATH": "tools"},
        "path": {"PATH": "%ROOT%/tools:/usr/bin:/bin"},
        "relative-path": {"PATH": "tools:/usr/bin:/bin"},
        "current-directory-in-path": {"PATH": ":/usr/bin:/bin"},
    }.items():
        tool = "as" if name == "current-directory-in-path" else "tools/as"
        yield Scenario(
            name=f"assembler-appears-by-{name}",
            steps=(
                step(command, "any", _PLAIN, mkdir("tools"), env=env),
                step(command, "any", env=env),
                step(command, "nohit", write(tool, _AS_1, 0o755), env=env),
                step(command, "nohit", write_keeping_times(tool, _AS_2), env=env),
                step(command, "any", delete(tool), env=env),
            ),
        )
    for name, flag in {"joined": "-B%ROOT%/tools", "relative": "-Btools/"}.items():
        command = f"gcc {flag} -c main.c -o main.o"
        yield Scenario(
            name=f"assembler-in-a-B-directory-{name}",
            steps=(
                step(command, "any", _PLAIN, write("tools/as", _AS_1, 0o755)),
                step(command, "any"),
                step(command, "nohit", write_keeping_times("tools/as", _AS_2)),
                step(command, "nohit", delete("tools/as")),
            ),
        )
    specs = "*cc1_options:\n+ -DV=%d\n"
    use = write("main.c", "int value = V;\n")
    command = "gcc -specs=my.specs -c main.c -o main.o"
    yield Scenario(
        name="specs-file",
        steps=(
            step(command, "any", use, write("my.specs", specs % 1)),
            step(command, "any"),
            step(command, "nohit", write("my.specs", specs % 2)),
        ),
    )
    command = "clang --config=%ROOT%/my.cfg -c main.c -o main.o"
    yield Scenario(
        name="clang-config-file",
        steps=(
            step(command, "any", use, write("my.cfg", "-DV=1\n")),
            step(command, "any"),
            step(command, "nohit", write("my.cfg", "-DV=2\n")),
        ),
    )
    command = "gcc -remap -Iinc -c main.c -o main.o"
    yield Scenario(
        name="header-gcc-remap-file",
        steps=(
            step(command, "any", write("main.c", "#include <averylongname.h>\nint v = A;\n"),
                 write("inc/one.h", "#define A 1\n"), write("inc/two.h", "#define A 2\n"),
                 write("inc/header.gcc", "averylongname.h one.h\n")),
            step(command, "any"),
            step(command, "nohit", write("inc/header.gcc", "averylongname.h two.h\n")),
        ),
    )  # fmt: skip
    lists = "int f(int a, int b) { return a / b + a * b; }\n"
    for name, flags in {
        "sanitizer-ignorelist": "-fsanitize=undefined -fsanitize-ignorelist=list",
        "sanitizer-blacklist": "-fsanitize=undefined -fsanitize-blacklist=list",
        "basic-block-sections-list": "-O1 -fbasic-block-sections=list=list",
        "xray-list": "-fxray-instrument -fxray-attr-list=list",
        "profile-list": "-fprofile-instr-generate -fprofile-list=list",
    }.items():
        contents = {
            "basic-block-sections-list": ("!f\n", "!g\n"),
            "xray-list": ("[always]\nfun:f\n", "[never]\nfun:f\n"),
            "profile-list": ("[clang]\ndefault:skip\n", "[clang]\nfun:f=allow\n"),
        }.get(name, ("fun:f\n", "fun:g\n"))
        command = f"clang {flags} -c main.c -o main.o"
        yield Scenario(
            name=f"{name}-changed",
            steps=(
                step(command, "any", write("main.c", lists), write("list", contents[0])),
                step(command, "any"),
                step(command, "nohit", write("list", contents[1])),
            ),
        )


def _data(cc: str) -> Iterator[Scenario]:
    sources = {
        "incbin": '__asm__(".data\\n.incbin \\"blob\\"\\n");\n',
        "incbin-in-two-strings": '__asm__(".data\\n.inc" "bin \\"blob\\"\\n");\n',
        "incbin-in-capitals": '__asm__(".data\\n.INCBIN \\"blob\\"\\n");\n',
        "incbin-by-macro": '#define D(x) __asm__(".data\\n.inc" #x " \\"blob\\"\\n")\nD(bin);\n',
        "incbin-by-assembler-macro": (
            '__asm__(".data\\n.macro m x\\n.inc\\\\x \\"blob\\"\\n.endm\\nm bin\\n");\n'
        ),
        "include": '__asm__(".include \\"more.s\\"\\n");\n',
    }
    if cc == "clang":
        sources["embed"] = 'const char v[] = {\n#embed "blob"\n};\n'
        sources["has-embed"] = '#if __has_embed("maybe")\nint v;\n#endif\n'
    for name, text in sources.items():
        command = f"{cc} -c main.c -o main.o"
        yield Scenario(
            name=f"{name}-{cc}",
            steps=(
                step(command, "any", write("main.c", text), write("blob", "one"),
                     write("more.s", ".data\n.byte 1\n")),
                step(command, "any"),
                step(command, "nohit", write("blob", "two"),
                     write("more.s", ".data\n.byte 2\n"), write("maybe", "x")),
            ),
        )  # fmt: skip
    for name, text in {
        "incbin": '.data\n.incbin "blob"\n',
        "include": '.include "more.s"\n',
        "macro": '#define INC .incbin\n.data\nINC "blob"\n',
        "header": '#include "low.inc"\n.data\nDATA\n',
    }.items():
        command = f"{cc} -c low.S -o low.o"
        yield Scenario(
            name=f"assembler-source-{name}-{cc}",
            steps=(
                step(command, "any", write("low.S", text), write("blob", "one"),
                     write("more.s", ".data\n.byte 1\n"),
                     write("low.inc", "#define DATA .byte 1\n")),
                step(command, "any"),
                step(command, "nohit", write("blob", "two"),
                     write("more.s", ".data\n.byte 2\n"),
                     write("low.inc", "#define DATA .byte 2\n")),
            ),
        )  # fmt: skip


def _arguments(cc: str) -> Iterator[Scenario]:
    use = write("main.c", "int value = V;\n")
    for name, flags, file in (
        ("include", "-include v.h", "v.h"),
        ("imacros", "-imacros v.h", "v.h"),
        ("include-from-a-directory", "-Iinc -include v.h", "inc/v.h"),
    ):
        command = f"{cc} {flags} -c main.c -o main.o"
        for depend in ("", "-MMD"):
            yield Scenario(
                name=f"argument-{name}{depend}-{cc}",
                steps=(
                    step(f"{command} {depend}", "miss", use, write(file, "#define V 1\n")),
                    step(f"{command} {depend}", "hit"),
                    step(f"{command} {depend}", "nohit", write(file, "#define V 2\n")),
                ),
            )
    command = f"{cc} @one -c main.c -o main.o"
    yield Scenario(
        name=f"response-files-nested-{cc}",
        steps=(
            step(command, "miss", use, write("one", "-O1 @two"), write("two", "'-DV=1'")),
            step(command, "hit"),
            step(command, "nohit", write("two", "'-DV=2'")),
            step(command, "hit", write("two", '"-DV=1"')),
            step(command, "any", delete("two")),
        ),
    )
    command = f"{cc} -include pre.h -c main.c -o main.o"
    make = ("-x", "c-header", "pre.h", "-o")
    suffix = "pre.h.gch" if cc == "gcc" else "pre.h.pch"
    yield Scenario(
        name=f"precompiled-header-appears-{cc}",
        steps=(
            step(command, "miss", use, write("pre.h", "#define V 1\n")),
            step(command, "hit"),
            step(command, "nohit", write("pre.h", "#define V 2\n"), run_tool(cc, *make, suffix)),
            step(command, "nohit"),
        ),
    )
    for name, first, second in (
        ("macro", "-DV=1", "-DV=2"),
        ("optimize", "-DV=1 -O0", "-DV=1 -O2"),
        ("debug", "-DV=1", "-DV=1 -g"),
        ("debug-directory", "-DV=1 -g", "-DV=1 -g -fdebug-prefix-map=%ROOT%=/x"),
        ("standard", "-DV=__STDC_VERSION__", "-DV=__STDC_VERSION__ -std=c99"),
        ("order", "-DV=1 -UV -DV=2", "-DV=2 -UV -DV=1"),
    ):
        head = f"{cc} -c main.c -o main.o "
        yield Scenario(
            name=f"flags-{name}-{cc}",
            steps=(
                step(head + first, "miss", use),
                step(head + second, "nohit"),
                step(head + first, "hit"),
                step(head + second, "hit"),
            ),
        )


def _variables(cc: str) -> Iterator[Scenario]:
    use = (
        write("main.c", "#include <v.h>\nint value = V;\n"),
        write("one/v.h", "#define V 1\n"),
        write("two/v.h", "#define V 2\n"),
    )
    command = f"{cc} -c main.c -o main.o"
    for name in ("CPATH", "C_INCLUDE_PATH"):
        yield Scenario(
            name=f"variable-{name}-{cc}",
            steps=(
                step(command, "miss", *use, env={name: "%ROOT%/one"}),
                step(command, "hit", env={name: "%ROOT%/one"}),
                step(command, "nohit", env={name: "%ROOT%/two"}),
                step(command, "nohit", env={name: "two:one"}),
                step(command, "any", env={name: "one"}),
                step(command, "nohit", write("one/v.h", "#define V 3\n"), env={name: "one"}),
            ),
        )
        yield Scenario(
            name=f"variable-{name}-with-an-empty-part-{cc}",
            steps=(
                step(command, "any", *use, write("v.h", "#define V 5\n"), env={name: ":one"}),
                step(command, "any", env={name: ":one"}),
                step(command, "nohit", write("v.h", "#define V 6\n"), env={name: ":one"}),
            ),
        )
        yield Scenario(
            name=f"variable-{name}-earlier-header-{cc}",
            steps=(
                step(command, "miss", *use, mkdir("new"), env={name: "new:one"}),
                step(command, "hit", env={name: "new:one"}),
                step(command, "nohit", write("new/v.h", "#define V 4\n"), env={name: "new:one"}),
            ),
        )
    where = write("main.c", "const char *v = __FILE__;\n")
    yield Scenario(
        name=f"directory-by-PWD-{cc}",
        steps=(
            step(f"{cc} -g -c main.c -o main.o", "miss", where, link(".", "alias"),
                 env={"PWD": "%ROOT%"}),
            step(f"{cc} -g -c main.c -o main.o", "any", env={"PWD": "%ROOT%/alias"}),
            step(f"{cc} -g -c main.c -o main.o", "hit", env={"PWD": "%ROOT%"}),
            step(f"{cc} -g -c main.c -o main.o", "any", env={"PWD": "/nowhere"}),
            step(f"{cc} -g -c main.c -o main.o", "any"),
        ),
    )  # fmt: skip
    for flags in ("-g", "-g -MD"):
        by_link = {"PWD": "%ROOT%/alias"}
        named = f"{cc} {flags} -c main.c -o main.o"
        yield Scenario(
            name=f"directory-by-PWD-that-leads-elsewhere{flags.replace(' ', '')}-{cc}",
            steps=(
                step(named, "miss", where, link(".", "alias"), env=by_link),
                step(named, "hit", env=by_link),
                step(named, "nohit", link("nowhere", "alias"), env=by_link),
                step(named, "hit", link(".", "alias"), env=by_link),
                step(named, "any", mkdir("sub"), link("sub", "alias"), env=by_link),
                step(named, "any", link(".", "alias"), env=by_link),
            ),
        )
    for name, file in (("other-name", "other.c"), ("other-directory", "sub/main.c")):
        for flags in ("", "-g"):
            yield Scenario(
                name=f"same-source-{name}{flags}-{cc}",
                steps=(
                    step(f"{cc} {flags} -c main.c -o main.o", "miss", where, mkdir("sub"),
                         copy_after("main.c", file)),
                    step(f"{cc} {flags} -c {file} -o main.o", "any"),
                    step(f"{cc} {flags} -c main.c -o main.o", "hit"),
                    step(f"{cc} {flags} -c ./main.c -o main.o", "any"),
                    step(f"{cc} {flags} -c %ROOT%/main.c -o main.o", "any"),
                ),
            )  # fmt: skip
    yield Scenario(
        name=f"temporary-directory-{cc}",
        steps=(
            step(command, "miss", _PLAIN, mkdir("t")),
            step(command, "any", env={"TMPDIR": "%ROOT%/t"}),
            step(command, "any", env={"TMPDIR": "/nowhere"}),
        ),
    )
    for names in (
        {"DEPENDENCIES_OUTPUT": "deps"},
        {"SUNPRO_DEPENDENCIES": "deps target"},
        {"CCC_OVERRIDE_OPTIONS": "+-DW=1"},
        {"GCC_COMPARE_DEBUG": "1"},
        {"LD_LIBRARY_PATH": "%ROOT%"},
        {"LC_ALL": "C.UTF-8"},
        {"LC_ALL": "xx_YY.UTF-8"},
        {"LANGUAGE": "de"},
    ):
        warn = write("main.c", "int f(void) { int unused; return 0; }\n")
        name = "-".join(f"{k}-{v.strip('%+')}" for k, v in names.items()).replace(" ", "-")
        yield Scenario(
            name=f"variable-{name}-{cc}",
            steps=(
                step(f"{cc} -Wall -c main.c -o main.o", "miss", warn),
                step(f"{cc} -Wall -c main.c -o main.o", "nohit", delete("main.o"), env=names),
                step(f"{cc} -Wall -c main.c -o main.o", "any", env=names),
                step(f"{cc} -Wall -c main.c -o main.o", "hit"),
            ),
        )


def copy_after(old: str, new: str) -> Edit:
    """Return a copy edit; edits run in order, so it sees the earlier edits of its step."""
    return copy(old, new)


def scenarios() -> Iterator[Scenario]:
    """Yield every scenario of this family."""
    for cc in _C:
        yield from _clocks(cc)
        yield from _compilers(cc)
        yield from _data(cc)
        yield from _arguments(cc)
        yield from _variables(cc)
    yield from _assemblers()
    yield from _tools()
