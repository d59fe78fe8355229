"""Doubts about an edited comment that only the preprocessor's output settles."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from .conftest import Project, age

WORDS = ["-O2", "-MD", "-MF", "a.d", "-c", "a.c", "-o", "a.o"]
# Only the expanded text shows which directives these templates hold.
MACRO = "#define A(x) A_(x)\n#define A_(x) asm(#x)\n"
BEFORE = MACRO + "int f(void) { return 1; } // first\n"
MORE_LINES = 40_000


def _edited(project: Project, name: str, old: str, new: str) -> None:
    text = (project.root / name).read_text()
    assert old in text
    project.write(name, text.replace(old, new))
    age(project.root)


def _settles(project: Project, words: list[str], answer: str) -> None:
    """Expect an answer for which the preprocessor is asked once."""
    before = project.cache.counters().get("content.asked", 0)
    assert project.compile(words, cwd=".") == answer
    if answer == "hit":
        assert project.cache.counters()["content.asked"] == before + 1


def test_the_sources_name_in_the_assemblers_list_is_settled(make: Callable[..., Project]) -> None:
    """GNU as lists a.c for `.file`: in its own directory that is also the name of a file."""
    project = make("p", {"a.c": BEFORE + "A(nop);\n"})
    assert project.compile(["gcc", *WORDS], cwd=".") == "miss"
    _edited(project, "a.c", "// first", "// second")
    _settles(project, ["gcc", *WORDS], "hit")
    # Stored under this command's own key: nothing is asked again.
    assert project.compile(["gcc", *WORDS], cwd=".") == "hit"
    assert project.cache.counters()["content.asked"] == 1


@pytest.mark.parametrize(
    "use",
    [
        'A(.incbin "a.c");\n',
        '#define INC .incbin\nA(INC "a.c");\n',
        '#define CAT(a, b) a##b\nA(.CAT(inc, bin) "a.c");\n',
        'A(.macro m x; .inc\\x "a.c"; .endm; m bin);\n',
        'A(.include "more.inc");\n',
    ],
)
def test_a_source_that_the_assembler_reads_is_data(use: str, make: Callable[..., Project]) -> None:
    files = {"a.c": BEFORE + "A(.data);\n" + use + "A(.text);\n", "more.inc": '.incbin "a.c"\n'}
    project = make("p", files)
    assert project.compile(["gcc", *WORDS], cwd=".") == "miss"
    _edited(project, "a.c", "// first", "// other")
    _settles(project, ["gcc", *WORDS], "miss")


# GCC copies these strings into its assembler output. No `asm` is in the text.
HIDDEN = {
    "section": '__attribute__((section("s,\\"a\\"\\n.inc" "bin \\"a.c\\"\\n#"))) int v = 1;\n',
    "escape": '__attribute__((section("s,\\"a\\"\\n.\\x69ncbin \\"a.c\\"\\n#"))) int v = 1;\n',
    "macro": "#define SECTION(x) __attribute__((__section__(x)))\n#define I .inc##bin\n#define S(x) #x\n"
    '#define T(x) S(x)\nSECTION("s,\\"a\\"\\n" T(.inc) "bin \\"a.c\\"\\n#") int v = 1;\n',
    "name-of-the-word": "#define NAME section\n"
    '__attribute__((NAME("s,\\"a\\"\\n.i" "ncbin \\"a.c\\"\\n#"))) int v = 1;\n',
    "argument": "#define ATTRIBUTE(a, x) __attribute__((a(x)))\n"
    'ATTRIBUTE(section, "s,\\"a\\"\\n.i" "ncbin \\"a.c\\"\\n#") int v = 1;\n',
    "pasted": "#define P(a, b) P_(a, b)\n#define P_(a, b) a##b\n"
    '__attribute__((P(sec, tion)("s,\\"a\\"\\n.i" "ncbin \\"a.c\\"\\n#"))) int v = 1;\n',
    "weakref": "int f(void);\n"
    'static int z(void) __attribute__((weakref("f\\n.inc" "bin \\"a.c\\"\\n#")));\n'
    "int q(void) { return z(); }\n",
    "weak-alias": "int f(void);\n"
    'static int z(void) __attribute__((weakref, alias("f\\n.inc" "bin \\"a.c\\"\\n#")));\n'
    "int q(void) { return z(); }\n",
    "symver": '__attribute__((symver("z@V\\n.inc" "bin \\"a.c\\"\\n#"))) int z(void) { return 1; }\n',
    "ident": '#ident "a\\"\\n.\\x69ncbin \\"a.c\\"\\n.ascii \\"b"\nint v;\n',
    "assembler-macro": '__attribute__((section("s,\\"a\\"\\n.macro m x\\n.inc\\\\x \\"a.c\\"\\n.endm\\nm bin\\n#"))) '
    "int v = 1;\n",
}


@pytest.mark.parametrize("kind", HIDDEN)
def test_a_source_that_a_string_outside_of_asm_makes_data(
    kind: str, make: Callable[..., Project]
) -> None:
    project = make("p", {"a.c": "int one(void) { return 1; } // first\n" + HIDDEN[kind]})
    assert project.compile(["gcc", *WORDS], cwd=".") == "miss"
    _edited(project, "a.c", "// first", "// other")
    _settles(project, ["gcc", *WORDS], "miss")


def test_strings_that_hold_no_directive_are_settled_once(make: Callable[..., Project]) -> None:
    text = "int one(void) { return 1; } // first\n"
    text += (
        '__attribute__((section("my." "section"))) int v = 1; const char *s = "see .include x";\n'
    )
    text = text.replace("see .include x", "x.h, see; .text")
    project = make("p", {"a.c": text})
    assert project.compile(["gcc", *WORDS], cwd=".") == "miss"
    _edited(project, "a.c", "// first", "// second")
    _settles(project, ["gcc", *WORDS], "hit")
    _edited(project, "a.c", "// second", "// a third one")
    assert project.compile(["gcc", *WORDS], cwd=".") == "hit"


def test_without_such_strings_nothing_is_asked(make: Callable[..., Project]) -> None:
    project = make("p", {"a.c": "#include <stdio.h>\nint one(void) { return 1; } // first\n"})
    assert project.compile(["gcc", *WORDS], cwd=".") == "miss"
    _edited(project, "a.c", "// first", "// second")
    assert project.compile(["gcc", *WORDS], cwd=".") == "hit"
    assert "content.asked" not in project.cache.counters()


def test_a_macro_on_the_command_line_changes_the_settled_answer(
    make: Callable[..., Project],
) -> None:
    text = BEFORE + '#ifdef D\n#include "d.h"\n#endif\nA(.data; S "a.c"; .text);\n'
    project = make("p", {"a.c": text, "d.h": "#define S .incbin\n"})
    harmless, harmful = ["gcc", "-DS=.string", *WORDS], ["gcc", "-DD", *WORDS]
    assert project.compile(harmless, cwd=".") == "miss"
    assert project.compile(harmful, cwd=".") == "miss"
    _edited(project, "a.c", "// first", "// other")
    _settles(project, harmless, "hit")
    _settles(project, harmful, "miss")
    # A header that becomes harmless is another text, and then its comments may change.
    _edited(project, "d.h", ".incbin", ".string // a")
    assert project.compile(harmful, cwd=".") == "miss"
    _edited(project, "d.h", "// a", "// b")
    _settles(project, harmful, "hit")
    _edited(project, "d.h", ".string // b", ".incbin // b")
    assert project.compile(harmful, cwd=".") == "miss"
    _edited(project, "a.c", "// other", "// third")
    _settles(project, harmful, "miss")


PRAGMAS = {
    "whole": '#pragma GCC optimize("O0")\n',
    "operator": '_Pragma("GCC optimize(\\"O0\\")")\n',
    "macro": '#define P(x) _Pragma(#x)\nP(GCC optimize("O0"))\n',
}
# The compiler takes the first branch without the pragma, the preprocessor always.
BRANCH = '#ifdef __OPTIMIZE__\nA(nop);\n#else\nA(.data; .incbin "a.c"; .text);\n#endif\n'


@pytest.mark.parametrize("pragma", PRAGMAS.values(), ids=PRAGMAS)
def test_a_pragma_that_no_text_obeys_leaves_no_doubt(
    pragma: str, make: Callable[..., Project]
) -> None:
    """GCC's preprocessor does not obey the pragma, but it shows it."""
    text = f'{BEFORE}#include "o.h"\n#ifdef OPTIMIZES\n{pragma}#endif\n{BRANCH}'
    project = make("p", {"a.c": text, "o.h": "// none\n"})
    words = ["gcc", "-O2", *WORDS]
    assert project.compile(words, cwd=".") == "miss"
    _edited(project, "a.c", "// first", "// other")
    _settles(project, words, "hit")
    _edited(project, "o.h", "// none", "#define OPTIMIZES // some")
    assert project.compile(words, cwd=".") == "miss"
    _edited(project, "a.c", "// other", "// third")
    _settles(project, words, "miss")


def test_a_name_of_the_compilers_own_header_hides_no_pragma(make: Callable[..., Project]) -> None:
    own = "/usr/lib/gcc/x86_64-linux-gnu/12/include/immintrin.h"
    text = f'{BEFORE}#include <immintrin.h>\n#line 5 "{own}"\n{PRAGMAS["whole"]}{BRANCH}'
    project = make("p", {"a.c": text})
    words = ["gcc", "-O2", *WORDS]
    assert project.compile(words, cwd=".") == "miss"
    _edited(project, "a.c", "// first", "// other")
    _settles(project, words, "miss")


def test_pragmas_of_the_compilers_own_headers_leave_no_doubt(make: Callable[..., Project]) -> None:
    text = f"{BEFORE}#include <immintrin.h>\n#ifdef NONE\n{PRAGMAS['whole']}#endif\n{BRANCH}"
    project = make("p", {"a.c": text})
    assert project.compile(["gcc", *WORDS], cwd=".") == "miss"
    _edited(project, "a.c", "// first", "// other")
    _settles(project, ["gcc", *WORDS], "hit")


@pytest.fixture
def library(tmp_path: Path) -> Path:
    """A header outside of the project, of many lines and without a guard."""
    path = tmp_path / "library/many.def"
    path.parent.mkdir()
    path.write_text("\n" * MORE_LINES + "CAT(int v, N);\n")
    age(path.parent)
    return path


def _repeating(times: int) -> str:
    uses = "".join(f'#undef N\n#define N {n}\n#include "many.def"\n' for n in range(times))
    return f"#define CAT(a, b) CAT_(a, b)\n#define CAT_(a, b) a##b\n{uses}int f(void); // first\n"


@pytest.mark.parametrize("cc", ["gcc", "clang-19"])
@pytest.mark.parametrize(("times", "answer"), [(2, "hit"), (60, "miss")])
def test_the_lines_of_repeated_headers_are_counted(
    cc: str, times: int, answer: str, library: Path, make: Callable[..., Project]
) -> None:
    project = make("p", {"a.c": _repeating(times)})
    words = [cc, f"-I{library.parent}", *WORDS]
    assert project.compile(words, cwd=".") == "miss"
    _edited(project, "a.c", "// first", "// second")
    _settles(project, words, answer)


def test_an_edit_that_repeats_a_header_changes_the_settled_answer(
    library: Path, make: Callable[..., Project]
) -> None:
    project = make("p", {"a.c": _repeating(2), "more.h": _repeating(60)})
    words = ["gcc", "-g", f"-I{library.parent}", *WORDS]
    assert project.compile(words, cwd=".") == "miss"
    _edited(project, "a.c", "// first", '\n#include "more.h"\n// first')
    assert project.compile(words, cwd=".") == "miss"
    _edited(project, "a.c", "// first", "// " + "x" * 300)
    _settles(project, words, "miss")


def test_a_library_with_more_lines_is_another_library(
    library: Path, make: Callable[..., Project]
) -> None:
    project = make("p", {"a.c": _repeating(2)})
    words = ["gcc", f"-I{library.parent}", *WORDS]
    assert project.compile(words, cwd=".") == "miss"
    library.write_text("\n" * 30 * MORE_LINES + "CAT(int v, N);\n")
    age(library.parent)
    assert project.compile(words, cwd=".") == "miss"
    _edited(project, "a.c", "// first", "// second")
    _settles(project, words, "hit" if 2 * 30 * MORE_LINES << 7 <= 0x0F000000 else "miss")
