"""Scenarios of settled doubts: what text leaves open is settled, and then the answer changes."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Final

from hpcc_testkit.trust.steps import (
    Scenario,
    delete,
    hard_link,
    link,
    mkdir,
    set_times,
    step,
    write,
)

_COUNTS: Final = "#pragma once\nextern int counted[__COUNTER__ >= 0];\n"
COMPILERS: Final = ("gcc", "g++", "clang", "clang++")


def _c(cc: str, flags: str, source: str = "src/main.c") -> str:
    return f"{cc} {flags} -c {source} -o main.o"


def _questions_through_files(cc: str) -> Iterator[Scenario]:
    command = _c(cc, "-Iinc -Imore")
    text = '#include "names.h"\n#if __has_include(N)\nint v = 2;\n#else\nint v = 1;\n#endif\n'
    names = "#if 0\n#define N <first.h>\n#else\n#define N <second.h>\n#endif\n"
    yield Scenario(
        name=f"has-include-of-a-macro-that-a-header-defines-{cc}",
        steps=(
            step(
                command, "miss", write("src/main.c", text), write("src/names.h", names),
                mkdir("inc"),
            ),
            step(command, "hit"),
            # The name of the branch that is not taken is watched as well; the object is the same.
            step(command, "nohit", write("inc/first.h", "")),
            step(command, "nohit", write("more/second.h", "")),
            step(command, "hit"),
            step(command, "nohit", write("src/names.h", "#define N <third.h>\n")),
            step(command, "hit"),
            step(command, "nohit", write("more/third.h", "")),
        ),
    )  # fmt: skip
    # As in gtest-port.h: the header defines the operator's name, and is changed to another.
    text = '#include "ask.h"\n#if Q(<maybe.h>)\nint v = 2;\n#else\nint v = 1;\n#endif\n'
    yield Scenario(
        name=f"has-include-by-a-synonym-that-changes-{cc}",
        steps=(
            step(
                command, "miss", write("src/main.c", text),
                write("src/ask.h", "#define Q __has_include\n"), mkdir("inc"),
            ),
            step(command, "hit"),
            step(command, "nohit", write("src/ask.h", "#define Q(x) 0\n")),
            step(command, "nohit", write("src/ask.h", "#define Q __has_include_next\n")),
            step(command, "nohit", write("src/ask.h", "#define Q __has_include\n"),
                 write("more/maybe.h", "")),
            step(command, "hit"),
        ),
    )  # fmt: skip
    # A quoted name in a macro is looked up beside the file that asks, not where the macro is.
    text = "#include <ask.h>\n#if Q\nint v = 2;\n#else\nint v = 1;\n#endif\n"
    yield Scenario(
        name=f"has-include-beside-the-file-that-asks-{cc}",
        steps=(
            step(
                command, "miss", write("src/main.c", text),
                write("inc/ask.h", '#define Q __has_include("maybe.h")\n'),
            ),
            step(command, "hit"),
            step(command, "nohit", write("src/maybe.h", "")),
            step(command, "hit", delete("src/maybe.h")),
        ),
    )  # fmt: skip
    for name, macro in {
        "synonym": "'-DQ=__has_include' '-DN=<maybe.h>'",
        "alias": "'-DQ(x)=__has_include(x)' -DN=M '-DM=<maybe.h>'",
    }.items():
        command = _c(cc, f"-Iinc {macro}")
        text = "#if Q(N)\nint v = 2;\n#else\nint v = 1;\n#endif\n"
        yield Scenario(
            name=f"has-include-by-arguments-{name}-{cc}",
            steps=(
                step(command, "miss", write("src/main.c", text), mkdir("inc")),
                step(command, "hit"),
                step(command, "nohit", write("inc/maybe.h", "")),
                step(_c(cc, f"-Iinc {macro.replace('maybe', 'other')}"), "nohit"),
                step(command, "hit"),
            ),
        )
    # A macro from one file asks in another, as in {fmt}; hpcc watches the answer.
    command = _c(cc, "-Iinc -Imore")
    text = '#include "ask.h"\n#if Q(<maybe.h>)\nint v = 2;\n#else\nint v = 1;\n#endif\n'
    ask = "#ifdef __has_include\n#  define Q(x) __has_include(x)\n#else\n#  define Q(x) 0\n#endif\n"
    yield Scenario(
        name=f"has-include-by-a-macro-with-a-parameter-{cc}",
        steps=(
            step(command, "any", write("src/main.c", text), write("src/ask.h", ask), mkdir("inc")),
            step(command, "hit"),
            step(command, "miss", write("inc/maybe.h", "")),
            step(command, "hit"),
            step(command, "hit", delete("inc/maybe.h")),
            step(command, "miss", write("more/maybe.h", "")),
        ),
    )
    command = _c(cc, "-Iinc '-DQ(x)=__has_include(x)'")
    text = "#if Q(<maybe.h>)\nint v = 2;\n#else\nint v = 1;\n#endif\n"
    yield Scenario(
        name=f"has-include-by-an-argument-{cc}",
        steps=(
            step(command, "any", write("src/main.c", text), mkdir("inc")),
            step(command),
            step(command, "nohit", write("inc/maybe.h", "")),
        ),
    )


def _twins(cc: str) -> Iterator[Scenario]:
    command = _c(cc, "-I.")
    once = "#pragma once\nenum { A_ = 1 };\n"
    both = write("src/main.c", '#include "one/x.h"\n#include "two/x.h"\nint value = A_;\n')
    twin = (write("one/x.h", once), write("two/x.h", once), both)
    same = (set_times("one/x.h", 10**9), set_times("two/x.h", 10**9))
    is_one_by_time = cc.startswith("g")
    # Where the compiler takes the twins for two, the second one is an error.
    first = ("miss", "hit") if is_one_by_time else ("any", "any")
    yield Scenario(
        name=f"once-headers-that-are-twins-{cc}",
        steps=(
            step(command, first[0], *twin, *same),
            step(command, first[1]),
            step(command, "nohit", write("two/x.h", "int other;\n")),
            step(command, "nohit", write("two/x.h", "int other2;\n")),
            step(command, "any", write("two/x.h", once), set_times("two/x.h", 10**9)),
            step(command, first[1]),
        ),
    )
    yield Scenario(
        name=f"once-headers-told-apart-by-time-{cc}",
        steps=(
            step(command, "any", *twin, *same),
            step(command, "any", set_times("two/x.h", 10**9 + 5)),
            step(command, "any", set_times("one/x.h", 10**9 + 5)),
        ),
    )
    # These compile whether the twins are one or two, and `__COUNTER__` tells.
    text = '#include "one/x.h"\n#include "two/x.h"\nint value = __COUNTER__;\n'
    yield Scenario(
        name=f"twins-become-two-and-one-again-{cc}",
        steps=(
            step(
                command, "miss", write("one/x.h", "#pragma once\nenum { A = __COUNTER__ };\n"),
                write("two/x.h", "#pragma once\nenum { B = __COUNTER__ };\n"),
                write("src/main.c", text), *same,
            ),
            step(command, "hit"),
            step(command, "nohit", write("one/x.h", _COUNTS), write("two/x.h", _COUNTS), *same),
            step(command, "hit"),
            step(command, "any", set_times("two/x.h", 10**9 + 1)),
            step(command, "hit"),
            step(command, "any", delete("two/x.h"), hard_link("one/x.h", "two/x.h")),
            step(command, "hit"),
            step(command, "any", delete("two/x.h"), write("two/x.h", _COUNTS)),
            step(command, "hit"),
        ),
    )  # fmt: skip
    yield Scenario(
        name=f"a-twin-that-appears-{cc}",
        steps=(
            step(
                _c(cc, "-Ione -Itwo"), "miss", write("one/x.h", _COUNTS), mkdir("two"),
                write("src/main.c", "#include <x.h>\n#if 0\n#include <y.h>\n#endif\n"),
            ),
            step(_c(cc, "-Ione -Itwo"), "hit"),
            step(_c(cc, "-Ione -Itwo"), "any", write("two/y.h", _COUNTS),
                 set_times("one/x.h", 10**9), set_times("two/y.h", 10**9)),
            step(_c(cc, "-Ione -Itwo"), "nohit",
                 write("src/main.c", "#include <x.h>\n#include <y.h>\nint v = __COUNTER__;\n")),
            step(_c(cc, "-Ione -Itwo"), "hit"),
            step(_c(cc, "-Ione -Itwo"), "nohit", write("two/y.h", "int other;\n")),
        ),
    )  # fmt: skip
    yield Scenario(
        name=f"once-header-and-a-link-to-it-{cc}",
        steps=(
            step(command, "miss", write("one/x.h", once), link("../one/x.h", "two/x.h"), both),
            step(command, "hit"),
            step(command, "nohit", delete("two/x.h"), write("two/x.h", "int beside;\n")),
            step(command, "hit"),
            step(command, "any", delete("two/x.h"), link("../one/x.h", "two/x.h")),
        ),
    )
    for name, mark, source in (
        ("import", "", '#import "one/x.h"\n#import "two/x.h"\n'),
        ("pragma-of-a-macro", "ONCE\n",
         '#define ONCE _Pragma("once")\n#include "one/x.h"\n#include "two/x.h"\n'),
        ("pragma-of-an-argument", "P(once)\n",
         '#define P(x) _Pragma(#x)\n#include "one/x.h"\n#include "two/x.h"\n'),
    ):  # fmt: skip
        header = mark + "static int counted(int) __attribute__((unused));\n"
        yield Scenario(
            name=f"twins-by-{name}-{cc}",
            steps=(
                step(command, "miss", write("one/x.h", header), write("two/x.h", header),
                     write("src/main.c", source + "int v = __COUNTER__;\n"), *same),
                step(command, "hit"),
                step(command, "nohit", write("two/x.h", header + "int other;\n")),
                step(command, "hit"),
                step(command, "nohit", write("two/x.h", header + "int other2;\n")),
            ),
        )  # fmt: skip
    # A pragma that is not `once`, in two files of one content (protobuf, abseil, fmt).
    pragma = '#define D _Pragma("GCC diagnostic push")\nD\n_Pragma("GCC diagnostic pop")\n'
    yield Scenario(
        name=f"twins-with-another-pragma-{cc}",
        steps=(
            step(command, "miss", write("one/x.h", pragma), write("two/x.h", pragma),
                 write("src/main.c", '#include "one/x.h"\n#include "two/x.h"\nint v;\n')),
            step(command, "hit"),
            step(command, "hit", set_times("two/x.h", 10**9)),
            step(command, "nohit", write("two/x.h", pragma + "int other;\n")),
        ),
    )  # fmt: skip


def _clocks(cc: str) -> Iterator[Scenario]:
    """A clock is mentioned and not read; then it is read."""
    command = _c(cc, "")
    declared = "extern const char v[];\n"
    use = declared + "const char v[] = VERSION;\n"
    for name, text in {
        "unused": "#define VERSION __DATE__ __TIME__\n",
        "unused-timestamp": "#define VERSION __TIMESTAMP__\n",
        "in-a-branch": "#if 0\nconst char *w = __TIME__;\n#endif\n#define VERSION __DATE__\n",
        "asked": "#ifdef __DATE__\n#define VERSION __TIME__\n#endif\n",
        "in-a-string": 'const char *w = "__DATE__";\n#define VERSION __TIME__\n',
        # zlib, CPython, git
        "pieces": "enum { TIME, DATE };\n#define AT 49\n#define VERSION __DATE__\n",
    }.items():
        header = write("src/version.h", text)
        unused = write("src/main.c", '#include "version.h"\nint value = 1;\n')
        used = write("src/main.c", '#include "version.h"\n' + use)
        yield Scenario(
            name=f"clock-{name}-{cc}",
            steps=(
                step(command, "miss", header, unused),
                step(command, "hit"),
                step(command, "nohit", used),
                step(command, "nohit"),
                step(command, "hit", unused),
                step(command, "hit", set_times("src/version.h", 10**9)),
            ),
            mask=_nothing,
        )
    redefined = (
        "-Wno-builtin-macro-redefined '-D__DATE__=\"redacted\"' '-D__TIME__=\"redacted\"' "
        "'-D__TIMESTAMP__=\"redacted\"'"
    )
    command = _c(cc, redefined)
    text = declared + "const char v[] = __DATE__ __TIME__ __TIMESTAMP__;\n"
    yield Scenario(
        name=f"clock-redefined-{cc}",
        steps=(
            step(command, "miss", write("src/main.c", text)),
            step(command, "hit"),
            step(command.replace("redacted", "other"), "miss"),
            step(command, "hit"),
        ),
    )
    command = _c(cc, "-Wno-builtin-macro-redefined '-D__DATE__=\"redacted\"'")
    yield Scenario(
        name=f"clock-partly-redefined-{cc}",
        steps=(step(command, "nohit", write("src/main.c", text)), step(command, "nohit")),
        mask=_nothing,
    )
    command = _c(cc, "-Wno-builtin-macro-redefined -U__DATE__")
    text = declared + "#ifdef __DATE__\nconst char v[] = __DATE__;\n#endif\n"
    yield Scenario(
        name=f"clock-undefined-{cc}",
        steps=(
            step(command, "miss", write("src/main.c", text)),
            step(command, "hit"),
            step(_c(cc, ""), "nohit"),
        ),
        mask=_nothing,
    )
    # git's blame.c: a string in the form of a time, beside a piece of a clock's name. Its hour does
    # not exist, so that it never is the time of this test.
    text = declared + 'enum { TIME };\nconst char v[] = "Thu Oct 19 24:00:04 2006";\n'
    yield Scenario(
        name=f"clock-like-a-string-{cc}",
        steps=(
            step(_c(cc, ""), "miss", write("src/main.c", text)),
            step(_c(cc, ""), "hit"),
            step(_c(cc, ""), "nohit", write("src/main.c", text.replace(":04", ":05"))),
        ),
    )
    stamp, seconds = "Thu Oct 19 16:00:04 2006", 1161273604
    # A file is included by the name of a date.
    text = "#define NAME __TIMESTAMP__\n#include NAME\n"
    yield Scenario(
        name=f"clock-that-names-a-header-{cc}",
        steps=(
            step(
                _c(cc, ""), "nohit", write("src/main.c", text),
                set_times("src/main.c", seconds), write(f"src/{stamp}", "int a;\n"),
                write("src/Thu Oct 19 16:00:05 2006", "int b;\n"), env={"TZ": "UTC"},
            ),
            step(_c(cc, ""), "nohit", env={"TZ": "UTC"}),
            step(_c(cc, ""), "nohit", set_times("src/main.c", seconds + 1), env={"TZ": "UTC"}),
        ),
    )  # fmt: skip


def _nothing(data: bytes) -> bytes:
    """Mask everything: objects with a clock differ between two compiles."""
    del data
    return b""


def scenarios() -> Iterator[Scenario]:
    """Yield every scenario of this family."""
    for cc in COMPILERS:
        yield from _questions_through_files(cc)
        yield from _twins(cc)
        yield from _clocks(cc)
