"""Scenarios of warnings whose compile is asked for again by another directory or output."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Final

from hpcc_testkit.trust.steps import Scenario, copy, delete, mkdir, move, step, write

_SOURCE: Final = '#include "{0}"\nint f(void) {{ int unused; return v; }}\n'
_HEADER: Final = "static int w(void) { return 1; }\n#define v 1\n"
_FILES: Final = (
    write("one/src/main.c", _SOURCE.format("h.h")),
    write("one/inc/h.h", _HEADER),
    write("one/b1/g.h", "static int g(void) { return 1; }\n"),
    write("one/b2/g.h", "static int g(void) { return 1; }\n"),
)
_EDITED: Final = write("one/inc/h.h", "\n" + _HEADER)


def _places(cc: str) -> Iterator[Scenario]:
    """Yield warnings in another build directory, in a moved and a copied project."""
    relative = f"{cc} -Wall -I../inc -c ../src/main.c -o main.o"
    absolute = f"{cc} -Wall -MD -I%ROOT%/one/inc -c %ROOT%/one/src/main.c -o main.o"
    generated = f"{absolute} -include %ROOT%/one/b1/g.h"
    for name, command, second in (
        ("relative", relative, relative),
        ("absolute", absolute, absolute),
        ("generated", generated, generated.replace("b1", "b2")),
        (
            "in-colour",
            f"{relative} -fdiagnostics-color=always",
            f"{relative} -fdiagnostics-color=always",
        ),
    ):
        yield Scenario(
            name=f"warning-in-a-new-build-directory-{name}-{cc}",
            steps=(
                step(command, "miss", *_FILES, cwd="one/b1"),
                step(second, "hit", cwd="one/b2"),
                step(second, "hit", cwd="one/b2"),
                step(second, "nohit", _EDITED, cwd="one/b2"),
                step(command, "hit", cwd="one/b1"),
            ),
        )
        yield Scenario(
            name=f"warning-in-a-moved-project-{name}-{cc}",
            steps=(
                step(command, "miss", *_FILES, cwd="one/b1"),
                step(
                    command.replace("one", "a/longer/name"),
                    "hit",
                    mkdir("a/longer"),
                    move("one", "a/longer/name"),
                    cwd="a/longer/name/b1",
                ),
                step(
                    command.replace("one", "two"), "hit", copy("a/longer/name", "two"), cwd="two/b1"
                ),
                step(
                    command.replace("one", "two"),
                    "nohit",
                    write("two/inc/h.h", "\n" + _HEADER),
                    cwd="two/b1",
                ),
            ),
        )
        yield Scenario(
            name=f"warning-in-a-second-target-{name}-{cc}",
            steps=(
                step(command, "miss", *_FILES, cwd="one/b1"),
                step(command.replace("main.o", "other.o"), "hit", cwd="one/b1"),
                step(command.replace("main.o", "main.c.o"), "hit", cwd="one/b1"),
            ),
        )


def _tied(cc: str) -> Iterator[Scenario]:
    """Yield warnings that show more of a place than the names of files."""
    command = f"{cc} -Wall -I%ROOT%/one/inc -c %ROOT%/one/src/main.c -o main.o"
    moved = command.replace("one", "two")
    # The line of the source names the project, and a message quotes the line.
    quoted = "#define v 1\nint f(void) { int n; return v; } /* %s/one/x */\n"

    def name_root(root: object) -> None:
        with open(f"{root}/one/src/main.c", "w", encoding="utf-8") as file:
            file.write(quoted % root)

    yield Scenario(
        name=f"warning-quotes-a-path-{cc}",
        steps=(
            step(command, "miss", mkdir("one/src", "one/b1", "one/inc"), name_root, cwd="one/b1"),
            step(moved, "nohit", copy("one", "two"), cwd="two/b1"),
        ),
    )
    shown = "#pragma message(__FILE__)\nint f(void) { return 1; }\n"
    yield Scenario(
        name=f"warning-shows-its-file-{cc}",
        steps=(
            step(
                command,
                "miss",
                write("one/src/main.c", shown),
                mkdir("one/b1", "one/inc"),
                cwd="one/b1",
            ),
            step(moved, "nohit", copy("one", "two"), cwd="two/b1"),
            step(command, "hit", delete("two"), cwd="one/b1"),
        ),
    )
    broken = f"{command} -fmessage-length=40"
    yield Scenario(
        name=f"warning-is-broken-at-a-width-{cc}",
        steps=(
            step(broken, "miss", *_FILES, cwd="one/b1"),
            step(
                broken.replace("one", "a/much/longer/name"),
                "nohit",
                mkdir("a/much/longer"),
                copy("one", "a/much/longer/name"),
                cwd="a/much/longer/name/b1",
            ),
            step(broken, "any", cwd="one/b2"),
        ),
    )
    named = write("one/src/main.c", '#warning "main.o and other.o"\nint v;\n')
    relative = f"{cc} -Wall -c ../src/main.c -o main.o"
    yield Scenario(
        name=f"warning-names-its-output-{cc}",
        steps=(
            step(relative, "miss", named, mkdir("one/b1", "one/b2"), cwd="one/b1"),
            step(relative.replace("main.o", "third.o"), "any", cwd="one/b2"),
        ),
    )
    comment = "int f(void) { int n; return 1; } // {0}\n\nint w;\n"
    yield Scenario(
        name=f"warning-quotes-a-comment-{cc}",
        steps=(
            step(
                relative,
                "miss",
                write("one/src/main.c", comment.replace("{0}", "a")),
                mkdir("one/b1"),
                cwd="one/b1",
            ),
            step(
                relative,
                "nohit",
                write("one/src/main.c", comment.replace("{0}", "b")),
                cwd="one/b1",
            ),
        ),
    )
    twice = "int f(void) { int n; return 1; } // {0}\n\nint w; // {0}\n\nint v;\n"
    for name, flags in {"": "", "-in-colour": " -fdiagnostics-color=always"}.items():
        quoting = f"{relative}{flags}"
        steps = (
            step(
                quoting,
                expect,
                write("one/src/main.c", twice.replace("{0}", a, 1).replace("{0}", b)),
                mkdir("one/b1"),
                cwd="one/b1",
            )
            for expect, a, b in (
                ("miss", "a", "a"),
                # Clang 14 does not number the lines that it quotes.
                ("any" if cc == "clang" else "hit", "a", "b"),
                ("nohit", "b", "b"),
                ("nohit", "\x1b[31mb\x1b[m", "b"),
                ("any", "b", "b"),
            )
        )
        yield Scenario(name=f"warning-beside-a-comment{name}-{cc}", steps=tuple(steps))
    # No warning before, one now: a comment that is added may end one, but brings none.
    late = (
        "int g(int);\nint f(int a) {\n  switch (a) {\n  case 1: a = g(a);\n  case 2: a++;\n  }\n"
        "  return a;\n}\n"
    )
    early = late.replace("g(a);\n", "g(a); // fall through\n")
    fall = f"{cc} -Wextra -Wimplicit-fallthrough -c ../src/main.c -o main.o"
    yield Scenario(
        name=f"warning-ends-by-a-comment-{cc}",
        steps=(
            step(fall, "miss", write("one/src/main.c", late), mkdir("one/b1"), cwd="one/b1"),
            step(
                fall,
                "nohit" if "gcc" in cc else "any",
                write("one/src/main.c", early),
                cwd="one/b1",
            ),
            step(fall, "any", write("one/src/main.c", late), cwd="one/b1"),
        ),
    )


_SWITCH: Final = (
    '#include "w.h"\nint g(int);\nint f(int a) {{\n  switch (a) {{\n  case 1: a = g(a);\n'
    "  {0}\n  case 2: a++;\n  }}\n  return a;\n}}\nint w;\n"
)
_MACROS: Final = "#define P_(x) _Pragma(#x)\n#define P(x) P_(x)\n"
_WARN: Final = {
    "line": '#pragma GCC diagnostic warning "-Wimplicit-fallthrough"\n',
    "group": '#pragma GCC diagnostic warning "-Wextra"\n',
    "operator": '_Pragma("GCC diagnostic warning \\"-Wextra\\"")\n',
    "pieces": '#pragma GCC diagnostic warning "-Wimplicit-" "fallthrough"\n',
    "macro": _MACROS + '#define W(x) P(GCC diagnostic warning x)\nW("-Wimplicit-fallthrough")\n',
    "word": _MACROS
    + "#define S(x) #x\n#define W(x) P(GCC diagnostic warning S(-W##x))\nW(implicit-fallthrough)\n",
}
_IGNORED: Final = '#pragma GCC diagnostic ignored "-Wextra"\n'


def _cases(cc: str) -> Iterator[Scenario]:
    """Yield texts that warn of cases without a flag: GCC then reads no comment."""
    command = f"{cc} -O2 -Wall -c main.c -o main.o"
    marked, bare = (write("main.c", _SWITCH.format(c)) for c in ("// fall through", "// far"))
    for name, text in _WARN.items():
        yield Scenario(
            name=f"comment-of-a-case-and-a-pragma-{name}-{cc}",
            steps=(
                step(command, "miss", marked, write("w.h", _IGNORED)),
                step(command, "hit", bare),
                step(command, "nohit", write("w.h", text)),
                step(command, "any", marked),
                step(command, "any", bare),
                step(command, "hit", write("w.h", _IGNORED)),
                step(f"{command} -Wextra", "nohit"),
                step(f"{command} -Wextra", "nohit" if "gcc" in cc else "any", marked),
            ),
        )


def _documented(cc: str) -> Iterator[Scenario]:
    """Yield a text that makes Clang read documentation, or tells it not to."""
    command = f"{cc} -O2 -Wall -c main.c -o main.o"
    text = '#include "w.h"\n/// \\param {0} one\nint f(int a);\nint v;\n'
    good, bad = (write("main.c", text.format(n)) for n in ("a", "b"))
    guarded = '#ifdef __clang__\n#pragma clang diagnostic {0} "-W{1}"\n#endif\n'
    for kind in ("documentation", "everything"):
        seen = "nohit" if "clang" in cc else "hit"
        off, on = (write("w.h", guarded.format(word, kind)) for word in ("ignored", "warning"))
        yield Scenario(
            name=f"comment-of-documentation-and-a-pragma-{kind}-{cc}",
            steps=(
                step(command, "miss", good, off),
                step(command, "hit", bad),
                step(command, "nohit", on),
                step(command, seen, good),
                step(command, "any", bad),
                step(command, "hit", off),
            ),
        )
    word = _MACROS + "#define S(x) #x\n#define W(x) P(GCC diagnostic warning S(-W##x))\n"
    yield Scenario(
        name=f"comment-of-documentation-and-a-word-{cc}",
        steps=(
            step(command, "miss", good, write("w.h", word)),
            step(command, "hit", bad),
            step(command, "any", write("w.h", word + "W(documentation)\n")),
            step(command, "nohit" if "clang" in cc else "any", good),
            step(command, "any", bad),
        ),
    )


def scenarios() -> Iterator[Scenario]:
    """Yield every scenario of this family."""
    for cc in ("gcc", "gcc-14", "clang", "clang-19"):
        yield from _places(cc)
        yield from _tied(cc)
        yield from _cases(cc)
        yield from _documented(cc)
