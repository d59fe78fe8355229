"""Scenarios of the search path: which file a name resolves to, and when that changes."""

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
    set_times,
    step,
    write,
    write_keeping_times,
)

_MAIN: Final = write("src/main.c", "#include <a.h>\nint value = A;\n")
_A1: Final = write("inc/a.h", "#define A 1\n")
_A2: Final = "#define A 2\n"
_PATH: Final = "-Ifirst -Iinc"

COMPILERS: Final = ("gcc", "g++", "clang", "clang++")


def _c(cc: str, flags: str, source: str = "src/main.c") -> str:
    return f"{cc} {flags} -c {source} -o main.o"


def _appears(
    name: str,
    cc: str,
    flags: str,
    before: tuple[Edit, ...],
    change: Edit,
    undo: Edit | None = None,
    *,
    again: str = "hit",
) -> Scenario:
    """Compile, hit, change the search, compile, hit; undo it, and the old result is right again."""
    command = _c(cc, flags)
    steps = [
        step(command, "miss", *before),
        step(command, again),
        step(command, "nohit", change),
        step(command),
    ]
    if undo is not None:
        steps.append(step(command, "any", undo))
    return Scenario(name=f"{name}-{cc}", steps=tuple(steps))


def _including_files(cc: str, flags: str) -> Iterator[Scenario]:
    """Yield headers that appear beside files which include the file with the line."""
    texts = (
        write("src/main.c", '#include "sub/one.h"\nint value = A;\n'),
        write("src/sub/one.h", '#include "deep/two.h"\n'),
        write("src/sub/deep/two.h", '#include "a.h"\n'),
        _A1,
    )
    still = "-mno-incremental-linker-compatible " if "msvc" in flags else ""  # no time in it
    command = f"{cc} {flags} {still}-Iinc -c src/main.c -o main.o"
    for place in ("src", "src/sub", "src/sub/deep"):
        header = f"{place}/a.h"
        yield Scenario(
            name=f"header-beside-an-including-file{flags}-{place.replace('/', '-')}-{cc}",
            steps=(
                step(command, "miss", *texts),
                step(command, "hit"),
                step(command, "nohit" if "=" in flags or "compat" in flags else "any",
                     write(header, _A2)),
                step(command, "any", delete(header)),
            ),
        )  # fmt: skip


def _both(first: Edit, second: Edit) -> Edit:
    def edit(root: Path) -> None:
        first(root)
        second(root)

    return edit


def _earlier(cc: str) -> Iterator[Scenario]:
    base = (mkdir("first"), _A1, _MAIN)
    yield _appears("earlier-header", cc, _PATH, base, write("first/a.h", _A2), delete("first/a.h"))
    yield _appears(
        "earlier-header-with-depfile", cc, _PATH + " -MMD", base, write("first/a.h", _A2)
    )
    yield _appears(
        "earlier-directory", cc, _PATH, (_A1, _MAIN), write("first/a.h", _A2), delete("first")
    )
    yield _appears(
        "earlier-directory-renamed-in",
        cc,
        _PATH,
        (_A1, _MAIN, write("other/a.h", _A2)),
        move("other", "first"),
        move("first", "other"),
    )
    yield _appears(
        "earlier-deep-directory",
        cc,
        "-Inot/yet/there -Iinc",
        (_A1, _MAIN),
        write("not/yet/there/a.h", _A2),
        delete("not"),
    )
    yield _appears(
        "earlier-directory-is-a-dangling-link",
        cc,
        "-Ilinks/first -Iinc",
        (_A1, _MAIN, mkdir("real"), link("../real/first", "links/first")),
        write("real/first/a.h", _A2),
        again="any",
    )
    yield _appears(
        "earlier-header-is-a-dangling-link",
        cc,
        _PATH,
        (_A1, _MAIN, mkdir("real"), link("../real/a.h", "first/a.h")),
        write("real/a.h", _A2),
        again="any",
    )
    yield _appears(
        "earlier-name-was-a-directory-by-link",
        cc,
        _PATH,
        (_A1, _MAIN, mkdir("real/a.h"), link("../real/a.h", "first/a.h")),
        lambda root: (
            delete("real/a.h")(root),
            write("real/a.h", _A2)(root),
        )[0],
        again="any",
    )
    yield _appears(
        "search-directory-link-moved",
        cc,
        "-Icurrent -Iinc",
        (_A1, _MAIN, mkdir("v1"), write("v2/a.h", _A2), link("v1", "current")),
        link("v2", "current"),
        link("v1", "current"),
    )
    yield _appears(
        "quoted-beside-the-source",
        cc,
        _PATH,
        (_A1, write("src/main.c", '#include "a.h"\nint value = A;\n')),
        write("src/a.h", _A2),
        delete("src/a.h"),
    )
    yield _appears(
        "quoted-beside-the-header",
        cc,
        "-Iinc -Iinc/sub",
        (
            write("src/main.c", '#include "sub/b.h"\nint value = A;\n'),
            write("inc/sub/b.h", '#include "deep/a.h"\n'),
            write("inc/deep/a.h", "#define A 1\n"),
        ),
        write("inc/sub/deep/a.h", _A2),
        delete("inc/sub/deep"),
    )
    yield _appears(
        "iquote-directory", cc, "-iquote first -Iinc",
        (mkdir("first"), _A1, write("src/main.c", '#include "a.h"\nint value = A;\n')),
        write("first/a.h", _A2), delete("first/a.h"),
    )  # fmt: skip
    yield _appears(
        "isystem-shadows-a-system-header", cc, "-isystem first",
        (mkdir("first"), write("src/main.c", "#include <limits.h>\nint value = CHAR_BIT;\n")),
        write("first/limits.h", "#define CHAR_BIT 99\n"), delete("first/limits.h"),
    )  # fmt: skip
    yield _appears(
        "include-next", cc, "-Ione -Itwo -Ithree",
        (
            write("src/main.c", "#include <a.h>\nint value = A;\n"),
            write("one/a.h", "#include_next <a.h>\n"),
            mkdir("two"),
            write("three/a.h", "#define A 1\n"),
        ),
        write("two/a.h", _A2), delete("two/a.h"),
    )  # fmt: skip
    yield _appears(
        "forced-include-in-the-current-directory", cc, "-include a.h -Iinc",
        (_A1, write("src/main.c", "int value = A;\n")),
        write("a.h", _A2), delete("a.h"),
    )  # fmt: skip
    yield _appears(
        "include-of-a-macro", cc, "'-DHEADER=<a.h>' " + _PATH,
        (mkdir("first"), _A1, write("src/main.c", "#include HEADER\nint value = A;\n")),
        write("first/a.h", _A2), delete("first/a.h"),
    )  # fmt: skip
    yield _appears(
        "include-of-a-macro-also-reached-by-a-plain-line", cc, "'-DHEADER=<sub/a.h>' " + _PATH,
        (
            mkdir("first/sub"),
            write("inc/sub/a.h", "#ifndef A\n#define A 1\n#endif\n"),
            write("inc/sub/b.h", '#include "a.h"\n'),
            write("src/main.c", "#include HEADER\n#include <sub/b.h>\nint value = A;\n"),
        ),
        write("first/sub/a.h", _A2), delete("first/sub/a.h"),
    )  # fmt: skip
    yield _appears(
        "include-line-with-comments", cc, _PATH,
        (mkdir("first"), _A1, write("src/main.c", "/**/ # /**/ include /**/ <a.h>\nint v = A;\n")),
        write("first/a.h", _A2), delete("first/a.h"),
    )  # fmt: skip
    yield _appears(
        "include-line-broken-by-a-backslash", cc, _PATH,
        (mkdir("first"), _A1, write("src/main.c", "#inc\\\nlude <a\\\n.h>\nint v = A;\n")),
        write("first/a.h", _A2), delete("first/a.h"),
    )  # fmt: skip


def _directories(cc: str) -> Iterator[Scenario]:
    """Yield what changes in the search directories themselves, and not in a header."""
    # The counter shows how many of the files were read.
    again = "#if __COUNTER__ >= 0\n#include_next <a.h>\n#endif\n"
    same = (
        write("one/a.h", again),
        write("two/a.h", again),
        write("three/a.h", ""),
        write("src/main.c", "#include <a.h>\nint value = __COUNTER__;\n"),
    )
    for kind, flags in (
        ("plain", "-Ione -Itwo -Ithree"),
        ("system", "-Ione -isystem two -idirafter three"),
    ):
        for name, target in (("an-earlier-one", "one"), ("a-later-one", "three")):
            yield _appears(
                f"search-directory-becomes-a-link-to-{name}-{kind}",
                cc,
                flags,
                (*same, copy("two", "aside")),
                _both(delete("two"), link(target, "two")),
                _both(delete("two"), move("aside", "two")),
            )
    plain = write("src/main.c", "int value;\n")
    for name, flags in (
        ("", "-Iinc"),
        ("-with-a-warning", "-Wmissing-include-dirs -Iinc"),
        ("-of-quotes", "-Wmissing-include-dirs -iquote inc"),
        ("-after", "-idirafter inc"),
    ):
        command = _c(cc, flags)
        yield Scenario(
            name=f"search-directory-becomes-a-file-without-an-include{name}-{cc}",
            steps=(
                step(command, "miss", plain, mkdir("inc")),
                step(command, "hit"),
                step(command, "nohit", delete("inc"), write("inc", "")),
                step(command),
                step(command, "nohit", delete("inc")),
                step(command),
                step(command, "any", mkdir("inc")),
            ),
        )


def _questions(cc: str) -> Iterator[Scenario]:
    source = "#if __has_include(<maybe.h>)\nint value = 2;\n#else\nint value = 1;\n#endif\n"
    here = (write("src/main.c", source), mkdir("first", "inc"))
    yield _appears(
        "has-include-flips-to-yes", cc, _PATH, here, write("inc/maybe.h", ""), delete("inc/maybe.h")
    )
    yield _appears(
        "has-include-flips-to-no",
        cc,
        _PATH,
        (*here, write("inc/maybe.h", "")),
        delete("inc/maybe.h"),
        write("inc/maybe.h", ""),
    )
    yield _appears(
        "has-include-in-a-header-beside-it",
        cc,
        _PATH,
        (
            write("inc/a.h", source.replace("<maybe.h>", '"maybe.h"')),
            write("src/main.c", "#include <a.h>\n"),
        ),
        write("inc/maybe.h", ""),
        delete("inc/maybe.h"),
    )
    for name, text in {
        "alias": "#define Q __has_include\n#if Q(<maybe.h>)\nint v;\n#endif\n",
        "alias-of-an-alias": "#define P(x) __has_include(x)\n#define Q(x) P(x)\n#if Q(<maybe.h>)\n"
        "int v;\n#endif\n",
        "macro-argument": "#define N <maybe.h>\n#if __has_include(N)\nint v;\n#endif\n",
        "chain-of-macros": "#define P __has_include\n#define Q(x) P(x)\n#define N M\n"
        "#define M <maybe.h>\n#if Q(N)\nint v;\n#endif\n",
        "word-that-is-a-macro": "#define never maybe\n#define N <never.h>\n#if __has_include(N)\n"
        "int v;\n#endif\n",
        "broken-by-a-backslash": "#if __has_inc\\\nlude(<maybe.h>)\nint v;\n#endif\n",
        "comment": "#if __has_include(/* x */ <maybe.h>)\nint v;\n#endif\n",
        "space": "#if __has_include  (  <maybe.h>  )\nint v;\n#endif\n",
    }.items():
        command = _c(cc, "-Iinc")
        yield Scenario(
            name=f"has-include-{name}-{cc}",
            steps=(
                step(command, "miss", write("src/main.c", text), mkdir("inc")),
                step(command, "hit"),
                step(command, "nohit", write("inc/maybe.h", "")),
                step(command, "hit"),
                step(command, "hit", delete("inc/maybe.h")),
            ),
        )
    for name, text in {
        "of-a-parameter": "#define Q(x) __has_include(<x.h>)\n#if Q(maybe)\nint v;\n#endif\n",
        "by-a-call": "#define N(x) <x.h>\n#if __has_include(N(maybe))\nint v;\n#endif\n",
        "pasted": "#define C(a, b) a##b\n#if C(__has_, include)(<maybe.h>)\nint v;\n#endif\n",
    }.items():
        yield Scenario(
            name=f"has-include-{name}-{cc}",
            steps=(
                step(command, "any", write("src/main.c", text), mkdir("inc")),
                step(command),
                step(command, "nohit", write("inc/maybe.h", "")),
            ),
        )


def _content(cc: str) -> Iterator[Scenario]:
    command = _c(cc, "-Iinc")
    yield Scenario(
        name=f"edited-header-{cc}",
        steps=(
            step(command, "miss", _MAIN, _A1),
            step(command, "hit"),
            step(command, "nohit", write("inc/a.h", _A2)),
            step(command, "hit"),
            step(command, "hit", _A1),
        ),
    )
    yield Scenario(
        name=f"edited-header-with-the-same-times-{cc}",
        steps=(
            step(command, "miss", _MAIN, _A1),
            step(command, "hit"),
            step(command, "nohit", write_keeping_times("inc/a.h", _A2)),
            step(command, "nohit", write_keeping_times("inc/a.h", "#define A 3\n"), settles=False),
            step(command, "any", write_keeping_times("inc/a.h", "#define A 4\n"), settles=False),
        ),
    )
    yield Scenario(
        name=f"header-replaced-by-an-older-one-{cc}",
        steps=(
            step(command, "miss", _MAIN, _A1, write("old.h", _A2), set_times("old.h", 10**9)),
            step(command, "hit"),
            step(command, "nohit", move("old.h", "inc/a.h")),
        ),
    )
    yield Scenario(
        name=f"deleted-header-{cc}",
        steps=(
            step(command, "miss", _MAIN, _A1),
            step(command, "nohit", delete("inc/a.h")),
            step(command, "hit", _A1),
        ),
    )
    yield Scenario(
        name=f"directory-of-headers-exchanged-{cc}",
        steps=(
            step(command, "miss", _MAIN, _A1, write("new/a.h", _A2)),
            step(command, "hit"),
            step(command, "nohit", move("inc", "old"), move("new", "inc")),
        ),
    )
    yield Scenario(
        name=f"header-by-link-moved-{cc}",
        steps=(
            step(
                command, "miss", _MAIN, write("a1.h", "#define A 1\n"), write("a2.h", _A2),
                link("../a1.h", "inc/a.h"),
            ),
            step(command, "hit"),
            step(command, "nohit", link("../a2.h", "inc/a.h")),
            step(command, "hit", link("../a1.h", "inc/a.h")),
        ),
    )  # fmt: skip
    yield Scenario(
        name=f"two-checkouts-{cc}",
        steps=(
            step(command, "miss", write("c1/src/main.c", "#include <a.h>\nint v = A;\n"),
                 write("c1/inc/a.h", "#define A 1\n"), copy("c1", "c2"), cwd="c1"),
            step(command, "hit", cwd="c1"),
            step(command, "any", cwd="c2"),
            step(command, "nohit", write("c2/inc/a.h", _A2), cwd="c2"),
            step(command, "hit", cwd="c1"),
        ),
    )  # fmt: skip


def scenarios() -> Iterator[Scenario]:
    """Yield every scenario of this family."""
    for cc in ("clang-14", "clang-19"):
        for flags in ("-fms-compatibility", "-fms-extensions", "--target=x86_64-pc-windows-msvc"):
            yield from _including_files(cc, flags)
    for cc in COMPILERS:
        yield from _earlier(cc)
        yield from _content(cc)
        yield from _directories(cc)
        yield from _questions(cc)
