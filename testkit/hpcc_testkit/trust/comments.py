"""Scenarios of edited comments: most change nothing that a compiler writes, some do."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Final

from hpcc_testkit.trust.steps import Edit, Scenario, hard_link, mkdir, set_times, step, write

_COMPILERS: Final = ("gcc", "gcc-14", "clang", "clang-19")
_FLAGS: Final = {
    "plain": "-O2 -Wall -Wextra",
    "debug": "-O1 -g -gdwarf-4",
    "checks": "-fsanitize=undefined",
}
_HEADER: Final = "{0}#define TWO 2{1}\nint g(int); {2}\n\nint h(int);\n{3}"
_SOURCE: Final = '#include "h.h"\nint f(int a) {{ return g(a) + TWO; }} {0}\n\nint last;\n{1}'


def _header(*texts: str) -> Edit:
    return write("h.h", _HEADER.format(*texts))


def _source(*texts: str) -> Edit:
    return write("main.c", _SOURCE.format(*texts))


def _edits(name: str, command: str, *edits: tuple[str, str | bytes]) -> Scenario:
    """Return a scenario in which main.c gets these texts, each with what the compile must be."""
    steps = (step(command, expect, write("main.c", text)) for expect, text in edits)
    return Scenario(name=name, steps=tuple(steps))


def _unseen(cc: str) -> Iterator[Scenario]:
    """Yield edits that no compiler sees."""
    for name, flags in _FLAGS.items():
        command = f"{cc} {flags} -c main.c -o main.o"
        yield Scenario(
            name=f"comment-unseen-{name}-{cc}",
            steps=(
                step(command, "miss", _source("", ""), _header("", "", "", "")),
                step(command, "hit", _source("// one", "")),
                step(
                    command,
                    "hit",
                    _source("// one \\n and C:\\x", ""),
                    _header("", " /* two */", "", ""),
                ),
                step(command, "hit", _header("", " /* é ß 日本 */", "// @param ??!", "")),
                # Behind the last token of a header nothing has a line.
                step(command, "hit", _header("", "", "", "\n/* three\n * four */\n")),
                step(command, "any", _source("", "\n/* five\n six */\n")),
                step(command, "nohit", _header("", "", "int i;", "")),
                step(command, "nohit", _source("", "int j;\n")),
            ),
        )
        long = write("h.h", "/* one\n * \\brief two\n */\nint g(int);\n#define TWO 2\n")
        other = write("h.h", "/* 1\n\n * \\x é\n */\nint g(int); // x\n#define TWO 2\n")
        same = write("h.h", "/* 1 é\n * \\x\n */\nint g(int); // x\n#define TWO 2\n")
        yield Scenario(
            name=f"comment-of-many-lines-{name}-{cc}",
            steps=(
                step(command, "miss", _source("", ""), long),
                step(command, "any", other),
                step(command, "hit", same),
                step(command, "hit", write("h.h", "\n// a\n\nint g(int);\n#define TWO 2\n// b\n")),
            ),
        )


def _lines(cc: str) -> Iterator[Scenario]:
    """Yield edits after which tokens are in other lines."""
    command = f"{cc} -O2 -g -gdwarf-4 -c main.c -o main.o"
    yield Scenario(
        name=f"comment-moves-lines-debug-{cc}",
        steps=(
            step(command, "miss", _source("", ""), _header("", "", "", "")),
            step(command, "nohit", _header("/* one\n two */\n", "", "", "")),
            step(command, "nohit", write("main.c", "\n// three\n" + _SOURCE.format("", ""))),
        ),
    )
    shown = "int line(void) { return __LINE__; }\n"
    asserted = "#include <assert.h>\nvoid g(int a) { assert(a); }\n"
    for name, text in {"line": shown, "assert": asserted}.items():
        command = f"{cc} -O2 -c main.c -o main.o"
        yield _edits(
            f"comment-moves-lines-that-show-{name}-{cc}",
            command,
            ("miss", text),
            ("hit", text + "// after\n"),
            ("nohit", "// one\n" + text),
            ("nohit", "// one\n\n/* two */\n" + text),
        )


def _odd(cc: str) -> Iterator[Scenario]:
    """Yield texts in which a string, a constant or a directive could hide a comment."""
    text = (
        "#if 0\nf('a b'); // one\n#endif\nchar s[] = \"a\\\n  // b\\\n\"; // one\n"
        "#if '\\\\' == 92 /* <a//b> */ && 1 \\\n  || 0\nint v; // one\n#endif\n\nint w;\n"
    )
    edited = text.replace("one", "two")
    yield _edits(
        f"comment-behind-odd-text-{cc}",
        f"{cc} -O2 -c main.c -o main.o",
        ("miss", text),
        ("hit", edited),
        ("nohit", edited.replace("// b", "// c")),
        ("nohit", edited.replace("a\\\n", "a\\ \n")),
        ("nohit", edited.replace("92", "93")),
        ("hit", text.replace("one", "six")),
    )
    raw = 'const char *s() {{ return R"(a "// {0}\\")"; }} // {1}\n\nint w;\n'
    command = f"{cc} -x c++ -std={{0}} -c main.c -o main.o"
    yield _edits(
        f"comment-behind-a-raw-string-{cc}",
        command.format("c++17"),
        ("miss", raw.format("one", "one")),
        ("hit", raw.format("one", "two")),
        ("nohit", raw.format("two", "two")),
    )
    # No raw string in C++98, so that a comment begins in the text.
    macro = '#define R ""\n#define A(x)\n'
    old = macro + 'const char *s = R"(a" /*{0} ")" A(" */ "b{1}"\n);\n\nint w;\n'
    yield _edits(
        f"comment-behind-no-raw-string-{cc}",
        command.format("c++98"),
        ("any", old.format("one", "")),
        ("any", old.format("two", "")),
        ("nohit", old.format("two", "c")),
    )


def _seen(cc: str) -> Iterator[Scenario]:
    """Yield edits of comments that a compiler reads."""
    body = (
        "int f(int a) {{\n  switch (a) {{\n  case 1: a = 2;\n{0}\n  case 2: a++;\n  }}\n"
        "  return a;\n}}\n"
    )
    # Clang reads no comment for this warning.
    seen = "nohit" if "gcc" in cc else "hit"
    yield _edits(
        f"comment-says-fall-through-{cc}",
        f"{cc} -Wextra -c main.c -o main.o",
        ("miss", body.format("  /* fall through */")),
        (seen, body.format("  /* far through */")),
        ("hit", body.format("  /* waterfall, or fall back */")),
        (seen, body.format("  // falls \t-through")),
        ("any", body.format("  // no fall-throuhg")),
        ("any", body.format("  // Fall-through.")),
    )
    command = f"{cc} -Wall -c main.c -o main.o"
    yield _edits(
        f"comment-in-a-comment-{cc}",
        command,
        ("miss", "int v; // one\n\nint w;\n"),
        ("nohit", "int v; /* one /* two */\n\nint w;\n"),
        ("nohit", "int v; // one \\\n\nint w;\n"),
        ("nohit", "int v; // one \\\nint w;\n"),
        ("hit", "int v; // o\\ne\n\nint w;\n"),
    )
    yield _edits(
        f"comment-turns-text-around-{cc}",
        command,
        ("miss", "int v; // one\n\nint w;\n"),
        ("nohit", "int v; // \u202e one\n\nint w;\n"),
        ("hit", "int v; // \u2013 one\n\nint w;\n"),
        ("nohit", b"int v; // \xe9 one\n\nint w;\n"),
        ("nohit", b"int v; // \xe8 one\n\nint w;\n"),
    )
    for name, flags, is_seen in (
        ("kept", "-E -C", True),
        ("saved", "-save-temps", True),
        ("directives", "-fdirectives-only", True),
        ("documentation", "-Wdocumentation" if "clang" in cc else "-Wimplicit-fallthrough=1", True),
        ("macros", "-g3 -gdwarf-4", False),
        ("indentation", "-Wmisleading-indentation", False),
    ):
        after = " /* 3 */\n\n// four\n" if is_seen else " // 3\n\n"
        yield _edits(
            f"comment-and-{name}-{cc}",
            f"{cc} {flags} -c main.c -o main.o",
            ("any", "#define A 1 // one\nint v = A; // one\n\nint w;\n"),
            ("nohit" if is_seen else "hit", f"#define A 1 // two\nint v = A;{after}int w;\n"),
        )
    indented = "void g(void);\nvoid f(int a) {{\n  if (a)\n    g();\n{0}\n    g();\n}}\n"
    yield _edits(
        f"comment-between-indented-lines-{cc}",
        command,
        ("any", indented.format("// one")),
        ("any", indented.format("    // one")),
        ("any", indented.format("/* two */")),
        ("any", indented.format("")),
    )
    yield _edits(
        f"comment-of-two-slashes-in-c90-{cc}",
        f"{cc} -std=gnu89 -pedantic -c main.c -o main.o",
        ("miss", "int v; /* one */\n\nint w;\n"),
        ("hit", "int v;\n\nint w;\n"),
        ("nohit", "int v; // one\n\nint w;\n"),
    )


def _twins(cc: str) -> Iterator[Scenario]:
    """Yield headers with two names, or of one content."""
    pragma = "#if defined(_MSC_VER)\n#pragma warning(once : 4606)\n#endif\n"
    use = write(
        "src/main.c", '#include "../h.h"\n#include "sub/../../h.h"\n#include "x.h"\nint v = V;\n'
    )
    guard = "#ifndef H\n#define H\n" + pragma + "#define V 1 // {0}\n#endif\n\n"
    command = f"{cc} -I. -c src/main.c -o main.o"
    files = (use, write("src/x.h", '#include "../h.h"\n'), write("src/sub/y.h", ""))
    for name, text in {"guard": guard, "once": "#pragma once\n#define V 1 // {0}\n\n"}.items():
        yield Scenario(
            name=f"comment-in-a-header-of-two-names-{name}-{cc}",
            steps=(
                step(command, "miss", *files, write("h.h", text.format("one"))),
                step(command, "hit", write("h.h", text.format("two"))),
                step(command, "nohit", write("h.h", text.format("two").replace("V 1", "V 2"))),
            ),
        )
    once = "#pragma once\nint v{0};\n"
    both = write("main.c", '#include "a/h.h"\n#include "b/h.h"\nint w;\n')
    command = f"{cc} -c main.c -o main.o"
    yield Scenario(
        name=f"comment-makes-twins-{cc}",
        steps=(
            step(
                command,
                "any",
                both,
                write("a/h.h", once.format(" /* a */")),
                write("b/h.h", once.format(" /* b */")),
                set_times("a/h.h", 10**9),
                set_times("b/h.h", 10**9),
            ),
            step(
                command, "nohit", write("b/h.h", once.format(" /* a */")), set_times("b/h.h", 10**9)
            ),
            step(
                command, "nohit", write("a/h.h", once.format(" /* c */")), set_times("a/h.h", 10**9)
            ),
            step(
                command, "any", lambda root: (root / "b/h.h").unlink(), hard_link("a/h.h", "b/h.h")
            ),
        ),
    )


def _beside_twins(cc: str) -> Iterator[Scenario]:
    """Yield an edit in a third header while two others are one, and one that makes it a third."""
    once = "#pragma once\n#ifndef ONE\n#define ONE {0}\n#else\n#define TWO {0}\n#endif\n\n"

    def at(name: str, text: str) -> Edit:
        def edit(root: Path) -> None:
            write(name, text)(root)
            set_times(name, 10**9)(root)

        return edit

    main = (
        '#include "a/h.h"\n#include "b/h.h"\n#include "c.h"\n#ifdef TWO\nint two;\n#endif\n'
        "int w = ONE;\n"
    )
    command = f"{cc} -c main.c -o main.o"
    for name, make in {"times": at, "links": None}.items():
        second = make("b/h.h", once.format(1)) if make else hard_link("a/h.h", "b/h.h")
        yield Scenario(
            name=f"comment-beside-twins-by-{name}-{cc}",
            steps=(
                step(command, "any", write("main.c", main), at("a/h.h", once.format(1)),
                     mkdir("b"), second, at("c.h", "int c; // one\n\n")),
                step(command, "hit", at("c.h", "int c; // two, and longer\n\n")),
                step(command, "nohit", at("c.h", "int c2; // two\n\n")),
                step(command, "nohit", at("a/h.h", once.format("1 // a"))),
                step(command, "any", at("a/h.h", once.format("1 // b"))),
                step(command, "any", set_times("a/h.h", 2 * 10**9)),
                step(command, "any", at("c.h", once.format("1 // b"))),
                step(command, "any", at("c.h", once.format("1 // c"))),
                step(command, "any", at("a/h.h", once.format("1 // c"))),
            ),
        )  # fmt: skip


def _imported(cc: str) -> Iterator[Scenario]:
    """Yield headers that another text makes read once, or seems to."""
    command = f"{cc} -c main.c -o main.o"
    call = write("o.h", "#define do_once(f) f##_once()\n#define O once\n\n")
    main = '#include "o.h"\n#include "a/h.h"\n#include "b/h.h"\nint w;\n'
    twice = "int v{0};\n"
    yield Scenario(
        name=f"comment-beside-a-word-for-once-{cc}",
        steps=(
            step(command, "miss", call, write("main.c", main),
                 write("a/h.h", "int a; // one\n"), write("b/h.h", "int b; // one\n")),
            step(command, "hit", write("a/h.h", "int a; // two\n")),
            step(command, "hit", write("main.c", main + "// three\n"),
                 write("b/h.h", "int b;\n// two\n")),
            step(command, "nohit", write("b/h.h", "int c; // two\n")),
        ),
    )  # fmt: skip

    def at(name: str, text: str) -> Edit:
        def edit(root: Path) -> None:
            write(name, text)(root)
            set_times(name, 10**9)(root)

        return edit

    pragma = '#define O _Pragma("once")\n'
    for name, text, begin in (
        ("import", main.replace("include", "import"), ""),
        ("macro", main.replace('"o.h"', '"o.h" '), "O\n"),
    ):
        yield Scenario(
            name=f"comment-makes-twins-by-{name}-{cc}",
            steps=(
                step(command, "any", write("o.h", pragma), write("main.c", text),
                     at("a/h.h", begin + twice.format(" /* a */")),
                     at("b/h.h", begin + twice.format(" /* b */"))),
                step(command, "any", at("b/h.h", begin + twice.format(" /* a */"))),
                step(command, "any", at("a/h.h", begin + twice.format(" /* c */"))),
                step(command, "any", at("a/h.h", begin + "int v = 1; /* c */\n")),
                step(command, "any", at("b/h.h", begin + "int v = 1; /* c */\n")),
            ),
        )  # fmt: skip


def _documented(cc: str) -> Iterator[Scenario]:
    """Yield the depfile with rules for headers, which two releases of Clang lay out otherwise."""
    for flags in ("-MD -MP", "-MMD -MP -MF main.d", "-MD"):
        command = f"{cc} {flags} -c main.c -o main.o"
        yield Scenario(
            name=f"comment-and-a-depfile{flags.replace(' ', '')}-{cc}",
            steps=(
                step(command, "miss", _source("", ""), _header("", "", "", "")),
                step(command, "hit", _source("// one", "")),
                step(command.replace("main.o", "other.o"), "hit"),
                step(command.replace("main.o", "other.o"), "nohit", _source("int i;", "")),
            ),
        )


_MACROS: Final = "#define A(x) A_(x)\n#define A_(x) __asm__(#x)\n"
_ASSEMBLED: Final = _MACROS + '#include "s.h"\nA(.data; S "main.c"; .text);\nint v; // {0}\n\n'


def _assembled(cc: str) -> Iterator[Scenario]:
    """Yield sources beside the name of which the assembler may read them as data."""
    command = f"{cc} -O2 -c main.c -o main.o"
    harmless, harmful = write("s.h", "#define S .string\n"), write("s.h", "#define S .incbin\n")
    yield Scenario(
        name=f"comment-and-the-assembler-{cc}",
        steps=(
            step(command, "miss", write("main.c", _ASSEMBLED.format("one")), harmless),
            step(command, "hit", write("main.c", _ASSEMBLED.format("two"))),
            step(command, "nohit", harmful),
            step(command, "nohit", write("main.c", _ASSEMBLED.format("six"))),
            step(command, "nohit", write("main.c", _ASSEMBLED.format("ten"))),
            step(command, "hit", harmless),
        ),
    )
    pragma = '#include "o.h"\n#ifdef O\n#pragma GCC optimize("O0")\n#endif\n'
    text = (
        f"{_MACROS}{pragma}#ifdef __OPTIMIZE__\nA(nop);\n#else\n"
        'A(.data; .incbin "main.c"; .text);\n#endif\nint v; // {0}\n\n'
    )
    off, on = write("o.h", "\n"), write("o.h", "#define O\n")
    is_gcc = "gcc" in cc
    yield Scenario(
        name=f"comment-and-assembly-behind-a-pragma-{cc}",
        steps=(
            step(command, "miss", write("main.c", text.replace("{0}", "one")), off),
            step(command, "hit", write("main.c", text.replace("{0}", "two"))),
            step(command, "nohit", on),
            # Clang does not know the pragma, and so the assembler reads no file.
            step(
                command, "nohit" if is_gcc else "any", write("main.c", text.replace("{0}", "six"))
            ),
            step(
                command, "nohit" if is_gcc else "any", write("main.c", text.replace("{0}", "ten"))
            ),
        ),
    )


def _repeated(cc: str) -> Iterator[Scenario]:
    """Yield headers without a guard that use up the columns of GCC if they are included often."""
    # Prose in a skipped part, so that the file is compared by its bytes.
    many = "#if 0\ndon't\n#endif\n" + "\n" * 40_000 + "CAT(int v, N);\n"
    head = "#define CAT(a, b) CAT_(a, b)\n#define CAT_(a, b) a##b\n"
    used = head + "".join(
        f'#undef N\n#define N {n}\n{"" if n < 2 else "#ifdef OFTEN"}\n#include "many.def"\n'
        + ("" if n < 2 else "#endif\n")
        for n in range(60)
    )
    text = '#include "often.h"\n' + used + "int f(void); // {0}\n\n"
    command = f"{cc} -g -gdwarf-4 -c main.c -o main.o"
    off, on = write("often.h", "\n"), write("often.h", "#define OFTEN\n")
    yield Scenario(
        name=f"comment-behind-repeated-headers-{cc}",
        steps=(
            step(
                command, "miss", write("main.c", text.format("one")), write("many.def", many), off
            ),
            step(command, "hit", write("main.c", text.format("two"))),
            step(command, "nohit", on),
            step(command, "nohit", write("main.c", text.format("x" * 300))),
        ),
    )
    # A pragma about a warning of that name defines no macro.
    named = '#pragma GCC diagnostic warning "-Wignored-pragma-optimize"\n'
    obeyed = '#pragma GCC optimize("O2")\n'
    quiet = f"{command} -Wno-pragmas -Wno-unknown-warning-option"
    head = '#pragma GCC diagnostic ignored "-Wunused"\n'
    yield Scenario(
        name=f"comment-behind-repeated-headers-and-a-pragma-{cc}",
        steps=(
            step(quiet, "miss", write("main.c", head + named + text.format("one")),
                 write("many.def", many), off),
            step(quiet, "hit", write("main.c", head + named + text.format("two"))),
            step(quiet, "nohit", write("main.c", head + obeyed + text.format("two"))),
            # Clang does not know the pragma.
            step(quiet, "nohit" if "gcc" in cc else "any",
                 write("main.c", head + obeyed + text.format("six"))),
            step(quiet, "nohit", on),
            step(quiet, "nohit", write("main.c", head + obeyed + text.format("x" * 300))),
        ),
    )  # fmt: skip


def _large(cc: str) -> Iterator[Scenario]:
    """Yield a large header without a guard: the texts tell how often it may be included."""
    big = write("big.def", "\n" * 40_000 + "extern int big;\n")
    once, often = '#include "big.def"\n', '#include "big.def"\n' * 60
    text = "int f(void); // {0}\n\n"
    command = f"{cc} -g -gdwarf-4 -c main.c -o main.o"
    yield Scenario(
        name=f"comment-beside-a-large-header-{cc}",
        steps=(
            step(command, "miss", write("main.c", once + text.format("one")), big),
            step(command, "hit", write("main.c", once + text.format("two"))),
            step(command, "nohit", write("main.c", often + text.format("two"))),
            step(command, "nohit", write("main.c", often + text.format("x" * 300))),
        ),
    )
    # The preprocessor tells how often a header is included that a macro names.
    computed = '#define BIG "big.def"\n'
    use = "#include BIG\n"
    yield Scenario(
        name=f"comment-beside-a-large-header-of-a-macro-{cc}",
        steps=(
            step(command, "miss", write("main.c", computed + use + text.format("one")), big),
            step(command, "hit", write("main.c", computed + use + text.format("two"))),
            step(command, "hit", write("main.c", computed + use + text.format("x" * 300))),
            step(command, "any", write("big.def", "\n" * 40_000 + "extern int big; // x\n")),
            step(command, "nohit", write("main.c", computed + use * 60 + text.format("two"))),
            step(command, "nohit", write("main.c", computed + use * 60 + text.format("x" * 300))),
        ),
    )
    # A word in a message names no file, a macro may.
    message = '#ifdef NEVER\n#error "never include it"\n#endif\n'
    macro = '#define X <stddef.h>\n#define BIG "big.def"\n' + "#include BIG\n" * 60
    command = command.replace("-c main", "-I. -c main")
    yield Scenario(
        name=f"comment-beside-a-large-header-and-a-message-{cc}",
        steps=(
            step(command, "miss", write("main.c", message + once + text.format("one")), big),
            step(command, "hit", write("main.c", message + once + text.format("two"))),
            step(command, "nohit", write("main.c", message + macro + text.format("two"))),
            step(command, "nohit", write("main.c", message + macro + text.format("x" * 300))),
        ),
    )


def scenarios() -> Iterator[Scenario]:
    """Yield every scenario of this family."""
    for cc in _COMPILERS:
        yield from _assembled(cc)
        yield from _repeated(cc)
        yield from _large(cc)
        yield from _unseen(cc)
        yield from _lines(cc)
        yield from _odd(cc)
        yield from _seen(cc)
        yield from _twins(cc)
        yield from _beside_twins(cc)
        yield from _imported(cc)
        yield from _documented(cc)
