"""Scenarios of names that each process resolves differently, and of directories that move."""

from __future__ import annotations

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
    step,
    write,
)

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


def _cmake_cache(build: str) -> Edit:
    """Write a build directory's cache, which names the source directory."""

    def edit(root: Path) -> None:
        write(f"{build}/CMakeCache.txt", f"CMAKE_HOME_DIRECTORY:INTERNAL={root}/src\n")(root)

    return edit


def _build_directories(cc: str) -> Iterator[Scenario]:
    """With Makefiles, CMake compiles below a build directory that absolute names lead to."""
    flags = "-I%ROOT%/{0}/first -I%ROOT%/{0}/gen"
    plain = f"{cc} -O2 {flags} -c %ROOT%/src/main.c"
    tree = (
        _cmake_cache("b"),
        mkdir("b/sub", "b/other", "b/first"),
        write("b/gen/gen.h", "#define V 1\n"),
        write("src/main.c", '#include "gen.h"\nint value = V;\n'),
    )
    yield Scenario(
        name=f"build-directory-with-generated-headers-{cc}",
        steps=(
            step(plain.format("b") + " -o main.o", "miss", *tree, cwd="b/sub"),
            step(plain.format("c") + " -o main.o", "hit", copy("b", "c"), cwd="c/sub"),
            step(plain.format("b") + " -o main.o", "hit", cwd="b/other"),
            step(plain.format("c") + " -o new.o", "nohit", write("c/gen/gen.h", "#define V 2\n"),
                 cwd="c/sub"),
            step(plain.format("b") + " -o new.o", "nohit", write("b/first/gen.h", "#define V 3\n"),
                 cwd="b/sub"),
            step(plain.format("c") + " -o third.o", "hit", write("c/gen/gen.h", "#define V 1\n"),
                 cwd="c/sub"),
            step(plain.format("c") + " -o fourth.o", "nohit", delete("c/gen"), cwd="c/sub"),
        ),
    )  # fmt: skip
    shows = write("b/gen/gen.h", "#define V 1\nconst char *name = __FILE__;\n")
    for name, command, edit in (
        ("shown-name", plain, shows),
        ("debug", f"{plain} -g", tree[2]),
        ("macro", f"{plain} -DWHERE=%ROOT%/{{0}}", tree[2]),
    ):
        yield Scenario(
            name=f"build-directory-{name}-{cc}",
            steps=(
                step(command.format("b") + " -o main.o", "miss", *tree, edit, cwd="b/sub"),
                step(command.format("c") + " -o main.o", "nohit", copy("b", "c"), cwd="c/sub"),
                step(command.format("c") + " -o new.o", "hit", cwd="c/sub"),
            ),
        )
    over = f"{cc} -O2 -I%ROOT%/{{0}} -c %ROOT%/src/main.c"
    crossing = (
        *tree[:2],
        write("b/sub/y.h", "#define V 1\n"),
        write("b/other/y.h", "#define V 2\n"),
        write("src/main.c", '#include "sub/y.h"\nint value = V;\n'),
    )
    yield Scenario(
        name=f"build-directory-leads-into-the-working-directory-{cc}",
        steps=(
            step(over.format("b") + " -o main.o", "miss", *crossing, cwd="b/sub"),
            step(over.format("c") + " -o main.o", "hit", copy("b", "c"), cwd="c/sub"),
            step(over.format("c") + " -o main.o", "nohit", write("c/sub/y.h", "#define V 4\n"),
                 write("c/other/y.h", "#define V 1\n"), cwd="c/other"),
        ),
    )  # fmt: skip
    # The root is in the build directory, and the working directory in the root.
    yield Scenario(
        name=f"build-directory-above-the-root-{cc}",
        steps=(
            step(f"{cc} -O2 -I%ROOT%/b/dep -c %ROOT%/b/dep/main.c -o main.o", "miss",
                 _cmake_cache("b"), mkdir("b/dep/.git", "q/.git"),
                 write("b/dep/sub/y.h", "#define V 1\n"), write("q/sub/y.h", "#define V 2\n"),
                 write("b/dep/main.c", '#include "sub/y.h"\nint value = V;\n'),
                 write("q/main.c", '#include "sub/y.h"\nint value = V;\n'), cwd="b/dep/sub"),
            step(f"{cc} -O2 -I%ROOT%/q -c %ROOT%/q/main.c -o new.o", "nohit", cwd="b/dep/sub"),
        ),
    )  # fmt: skip


def _hidden_names(cc: str) -> Iterator[Scenario]:
    """A name leads from one root into the working directory, and from another one elsewhere."""
    quote = '#define S(x) #x\n#define T(x) S(x)\nint value;\nasm(".incbin \\"'
    for name, text in {
        "plain": '#include "sub/y.h"\nint value = V;\n',
        "splice": '#include "su\\\nb/y.h"\nint value = V;\n',
        "trigraph": '#include "sub??/\n/y.h"\nint value = V;\n',
        "macro": "#define Q <sub/y.h>\n#include Q\nint value = V;\n",
        "assembler": f'{quote}sub/y.h\\"");\n',
        "escape": f'{quote}su\\142/y.h\\"");\n',
        "argument": f'{quote}" T(NAME) "/y.h\\"");\n',
    }.items():
        command = f"{cc} -std=gnu11 -trigraphs -DNAME=sub -O2 -I%ROOT%/{{0}} -c %ROOT%/{{0}}/main.c"
        yield Scenario(
            name=f"root-leads-into-the-working-directory-{name}-{cc}",
            steps=(
                step(command.format("p") + " -o main.o", "any", mkdir("p/.git", "q/.git"),
                     write("p/sub/y.h", "#define V 1\n"), write("q/sub/y.h", "#define V 2\n"),
                     write("p/main.c", text), write("q/main.c", text), cwd="p/sub"),
                step(command.format("q") + " -o new.o", "nohit", cwd="p/sub"),
            ),
        )  # fmt: skip


def _system_directories(cc: str) -> Iterator[Scenario]:
    """GCC writes the real name of a system header where that is shorter."""
    header = "#define V 1\nstatic inline const char *name(void) { return __FILE__; }\n"
    tree = (
        mkdir("tree/.git", "a", "b"),
        write("r1/v.h", header),
        write("r2/v.h", header),
        link("../../r1", "tree/third_party/lib"),
        write("tree/main.c", "#include <v.h>\nconst char *n(void) { return name(); }\n"
              "int value = V;\n"),
    )  # fmt: skip
    for flag in ("-isystem", "-idirafter"):
        command = f"{cc} -O2 {flag} %ROOT%/tree/third_party/lib -c %ROOT%/tree/main.c -MD -o"
        yield Scenario(
            name=f"system-directory-is-a-link{flag}-{cc}",
            steps=(
                step(f"{command} a.o", "miss", *tree, cwd="a"),
                step(f"{command} b.o", "hit", cwd="a"),
                step(f"{command} c.o", "hit", cwd="b"),
                step(f"{command} d.o", "nohit", link("../../r2", "tree/third_party/lib"), cwd="a"),
                step(f"{command} e.o", "hit", cwd="a"),
                step(f"{command} f.o", "hit", link("../../r1", "tree/third_party/lib"), cwd="a"),
                step(f"{command} g.o", "nohit", write("r1/v.h", header.replace("V 1", "V 2")),
                     cwd="a"),
                step(f"{command} h.o", "nohit", delete("r1/v.h"), link("../r2/v.h", "r1/v.h"),
                     cwd="a"),
                step(f"{command} i.o", "nohit", delete("r1/v.h"), write("r1/v.h", header),
                     delete("tree/third_party/lib"), copy("r1", "tree/third_party/lib"), cwd="a"),
            ),
        )  # fmt: skip
    command = f"{cc} -O2 -isystem ../tree/in/../lib -c ../tree/main.c -MD -o"
    yield Scenario(
        name=f"system-directory-by-dots-{cc}",
        steps=(
            step(f"{command} a.o", "miss", *tree[:1], tree[4], mkdir("tree/in", "z/in"),
                 write("tree/lib/v.h", header), write("z/lib/v.h", header.replace("V 1", "V 2")),
                 cwd="b"),
            step(f"{command} b.o", "hit", cwd="b"),
            step(f"{command} c.o", "nohit", delete("tree/in"), link("../z/in", "tree/in"), cwd="b"),
            step(f"{command} d.o", "any", delete("tree/in"), mkdir("tree/in", "c"), cwd="c"),
            step(f"{command} e.o", "nohit", move("tree/lib", "lib"), link("../lib", "tree/lib"),
                 cwd="b"),
        ),
    )  # fmt: skip


def scenarios() -> Iterator[Scenario]:
    """Yield every scenario of this family."""
    for cc in ("gcc", "clang"):
        yield from _of_a_process(cc)
        yield from _moved(cc)
        yield from _build_directories(cc)
        yield from _hidden_names(cc)
        yield from _system_directories(cc)
