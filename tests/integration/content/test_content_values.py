"""Headers that a build makes again with other values of macros: what no source reads changes no object."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from .conftest import Project, age

CONFIG = """#ifndef CONFIG_H
#define CONFIG_H
/* made by a script */
#define CONFIG_TIMESTAMP "2026-12-01 02:51:10 UTC"
#define CONFIG_STAR 1
#define CONFIG_COMMIT "0123abc"
#define CONFIG_SIZE 3
#endif
"""
FILES = {
    "inc/config.h": CONFIG,
    "src/a.c": '#include "config.h"\nint a[CONFIG_SIZE];\n',
    "src/reads.c": '#include "config.h"\nconst char *when = CONFIG_TIMESTAMP;\n',
}


@pytest.fixture(params=["gcc", "clang-19"])
def cc(request: pytest.FixtureRequest) -> str:
    return str(request.param)


def _words(cc: str, *more: str, source: str = "a.c") -> list[str]:
    return [cc, "-O2", *more, "-I../inc", "-c", f"../src/{source}", "-MD", "-o", "a.o"]


def _edit(project: Project, old: str, new: str, name: str = "inc/config.h") -> None:
    text = (project.root / name).read_text()
    assert old in text
    project.write(name, text.replace(old, new))
    age(project.root)


def _later(project: Project) -> None:
    _edit(project, "02:51:10", "03:14:15")


def test_a_value_that_no_text_reads_changes_nothing(cc: str, make: Callable[..., Project]) -> None:
    project = make("p", FILES)
    assert project.compile(_words(cc)) == "miss"
    _later(project)
    _edit(project, "0123abc", "fedcba9-dirty")
    assert project.compile(_words(cc)) == "hit"
    assert project.compile(_words(cc)) == "hit"
    counted = project.cache.counters()
    assert (counted["hit.comments"], counted["content.other-values"]) == (2, 2)
    _edit(project, "CONFIG_SIZE 3", "CONFIG_SIZE 4")
    assert project.compile(_words(cc)) == "miss"


@pytest.mark.parametrize("flag", ["-g", "-Wall", "-include../inc/config.h", "-DNDEBUG"])
def test_with_other_flags(flag: str, make: Callable[..., Project]) -> None:
    project = make("p", FILES)
    assert project.compile(_words("gcc", flag)) == "miss"
    _later(project)
    assert project.compile(_words("gcc", flag)) == "hit"


def test_a_source_that_reads_it_is_compiled(cc: str, make: Callable[..., Project]) -> None:
    project = make("p", FILES)
    assert project.compile(_words(cc, source="reads.c")) == "miss"
    _later(project)
    assert project.compile(_words(cc, source="reads.c")) == "miss"


@pytest.mark.parametrize(
    "reader",
    [
        "const char *t = CONFIG_TIMESTAMP;",
        "#ifdef CONFIG_TIMESTAMP\nint t;\n#endif",
        "#define CAT(a, b) a##b\n#define CAT2(a, b) CAT(a, b)\nconst char *t = CAT2(CONFIG_, TIMESTAMP);",
        "#define CAT(a, b) a##b\nconst char *t = CAT(CONFIG_TIME, STAMP);",
        "#define S(x) #x\n#define T(x) S(x)\nconst char *t = T(CONFIG_TIMESTAMP);",
        '#pragma push_macro("CONFIG_TIMESTAMP")',
        '_Pragma("push_macro(\\"CONFIG_TIMESTAMP\\")")',
        "#define OTHER CONFIG_TIMESTAMP\nconst char *t = OTHER;",
        "#undef CONFIG_TIMESTAMP\n#define CONFIG_TIMESTAMP 1\nint t = CONFIG_TIMESTAMP;",
        "const char *t = CONFIG_TIME\\\nSTAMP;",
    ],
)
def test_each_way_to_read_it_counts(reader: str, cc: str, make: Callable[..., Project]) -> None:
    project = make("p", {**FILES, "src/a.c": f'#include "config.h"\n{reader}\n'})
    assert project.compile(_words(cc)) == "miss"
    _later(project)
    assert project.compile(_words(cc)) == "miss"


@pytest.mark.parametrize(
    ("reader", "flag"),
    [
        ("int t = 8 //**/ CONFIG_STAR\n;", "-std=c90"),
        ('#if 0\nit " says /*\n#endif\nint t = CONFIG_STAR;\n/* */', "-w"),
        ("#if 0\ndon't /*\n#endif\nint t = CONFIG_STAR;\n/* */", "-w"),
        ('int t(void) { return \'aaaaaaaaa"\' + "//"[0] + CONFIG_STAR;\n}', "-w"),
        ("#include <s/*y.h>\nint t = CONFIG_STAR;\n/* */", "-w"),
    ],
)
def test_words_that_only_seem_to_be_in_comments(
    reader: str, flag: str, cc: str, make: Callable[..., Project]
) -> None:
    source = f'#include "config.h"\n{reader}\n'
    project = make("p", {**FILES, "inc/s/*y.h": "int y;\n", "src/a.c": source})
    assert project.compile(_words(cc, flag)) == "miss"
    _edit(project, "CONFIG_STAR 1", "CONFIG_STAR 2")
    assert project.compile(_words(cc, flag)) == "miss"


@pytest.mark.parametrize("flag", ["-g3", "-ggdb3", "-DCONFIG_TIMESTAMP=1"])
def test_what_shows_or_names_macros_compiles(flag: str, make: Callable[..., Project]) -> None:
    project = make("p", FILES)
    assert project.compile(_words("gcc", flag)) == "miss"
    _later(project)
    assert project.compile(_words("gcc", flag)) == "miss"


@pytest.mark.parametrize(
    "other",
    [
        '#define CONFIG_TIMESTAMP "2026-12-01 02:51:10 UTC"\n' * 2,
        '#define CONFIG_TIMESTAMP \\\n "2026-12-01 02:51:10 UTC"\n',
        'static const char *s = "a\\\n#define CONFIG_TIMESTAMP 02:51:10\\\n";\n',
        '#define CONFIG_TIMESTAMP "02:51:10" "x"\n',
        "static int x; //\\\n#define CONFIG_TIMESTAMP 1 // 02:51:10\n",
    ],
)
def test_other_forms_of_definitions_compile(other: str, make: Callable[..., Project]) -> None:
    project = make("p", {**FILES, "inc/config.h": other + "#define CONFIG_SIZE 3\n"})
    assert project.compile(_words("gcc", "-w")) == "miss"
    _later(project)
    assert project.compile(_words("gcc", "-w")) in {"miss", "hit"}


def test_in_a_raw_string_it_is_no_definition(make: Callable[..., Project]) -> None:
    text = 'static const char *s = R"(\n#define CONFIG_TIMESTAMP "02:51:10"\n)";\n'
    source = '#include "config.h"\nconst char *t() { return s; }\n'
    project = make("p", {"inc/config.h": text, "src/a.cc": source})
    assert project.compile(_words("g++", source="a.cc")) == "miss"
    _later(project)
    assert project.compile(_words("g++", source="a.cc")) == "miss"


def test_a_header_that_became_equal_to_another_is_skipped_by_the_compiler(
    cc: str, make: Callable[..., Project]
) -> None:
    one = "#pragma once\n#define CONFIG_BUILD 1\nint x CONFIG_NOTHING;\n"
    files = {
        "inc/one.h": one.replace("BUILD 1", "BUILD 222"),
        "inc/two.h": one,
        "src/a.c": '#define CONFIG_NOTHING\n#include "one.h"\n#include "two.h"\n',
    }
    project = make("p", files)
    assert project.compile(_words(cc)) == "miss"
    _edit(project, "BUILD 222", "BUILD 1", "inc/one.h")
    assert project.compile(_words(cc)) == "miss"


def test_in_cxx_beside_the_library(make: Callable[..., Project]) -> None:
    source = '#include <string>\n#include <vector>\n#include "config.h"\nstd::vector<std::string> v(CONFIG_SIZE);\n'
    project = make("p", {**FILES, "src/a.cc": source})
    assert project.compile(_words("g++", source="a.cc")) == "miss"
    _later(project)
    assert project.compile(_words("g++", source="a.cc")) == "hit"


def test_a_warning_about_something_else_is_repeated(make: Callable[..., Project]) -> None:
    source = '#include "config.h"\nstatic int unused;\nint a[CONFIG_SIZE];\n'
    project = make("p", {**FILES, "src/a.c": source})
    assert project.compile(_words("gcc", "-Wall")) == "miss"
    _later(project)
    assert project.compile(_words("gcc", "-Wall")) == "hit"


def test_a_warning_that_names_the_header_is_made_again(make: Callable[..., Project]) -> None:
    files = {**FILES, "inc/config.h": CONFIG.replace("#endif", "static int unused;\n#endif")}
    project = make("p", files)
    assert project.compile(_words("gcc", "-Wall")) == "miss"
    _later(project)
    assert project.compile(_words("gcc", "-Wall")) == "miss"


def test_values_that_go_back_and_forth(make: Callable[..., Project]) -> None:
    """Each edit is compared with the header of the compile that made the result."""
    project = make("p", FILES)
    assert project.compile(_words("gcc")) == "miss"
    for old, new in (("2026", "2027"), ("2027", "x"), ("x-12", "2026-12"), ("0123abc", "9")):
        _edit(project, old, new)
        assert project.compile(_words("gcc")) == "hit"
    _edit(project, "CONFIG_SIZE 3", "CONFIG_SIZE 4")
    assert project.compile(_words("gcc")) == "miss"


def test_a_second_definition_is_compared_with_the_first(make: Callable[..., Project]) -> None:
    text = "#define CONFIG_BUILD 1\n#define CONFIG_BUILD 1\n#define CONFIG_SIZE 3\n"
    project = make("p", {**FILES, "inc/config.h": text})
    assert project.compile(_words("gcc")) == "miss"
    _edit(project, "BUILD 1\n#define CONFIG_BUILD", "BUILD 2\n#define CONFIG_BUILD")
    assert project.compile(_words("gcc")) == "miss"


def test_a_poisoned_name_is_compiled(make: Callable[..., Project]) -> None:
    text = "#pragma GCC poison strcpy\n#define CONFIG_BUILD 1\n#define CONFIG_SIZE 3\n"
    project = make("p", {**FILES, "inc/config.h": text})
    assert project.compile(_words("gcc")) == "miss"
    _edit(project, "BUILD 1", "BUILD strcpy")
    assert project.compile(_words("gcc")) == "miss"


BODY = "static inline int f(int n) {\n  if (n)\n    n++;\n%s\n    n++;\n  return n;\n}\n"
HINT = "int f(void) { return CONFIG_HINT_AB(1); }\n"
ONCE = '#pragma once\n%s#ifdef MORE\n#include "more.h"\n#endif\n'


@pytest.mark.parametrize(
    ("words", "header", "old", "new", "source"),
    [
        # Blank lines move lines that the compiler names, or that are joined with the next.
        ("gcc -g3", "#define MY_A 1\n#define MY_B 1\n", "\n", "\n\n", ""),
        ("gcc -Wall", '#define MY_A 1\n#include "more.h"\n', "\n", "\n\n", ""),
        ("gcc", "#define MY_A 1\n#define F(x, y) x \\\n\n", "\\\n\n", "\\\n", ""),
        ("clang-19 -Wnewline-eof", "#define MY_A 1\n", "1\n", "1", ""),
        ("gcc -Wall -fno-diagnostics-show-caret", '#define MY_A 1\n#warning "x"\n', "1\n", "1\n\n", ""),
        # A directive that reads or sets its line.
        ("gcc", "#define MY_A 1\n#if LINE == 2\nint y;\n#endif\n", "1\n", "1\n#define MY_B 1\n", ""),
        ("gcc", "#define MY_A 1\n#if LINE == 2\n#define Y(a, b) 7\n#else\n#define Y(a, b) 8\n#endif\n",
         "1\n", "1\n#define MY_B 1\n", "int y[Y(1, 2)];\n"),
        ("gcc -Wall", '#line 1 "x"\n#define MY_A 1\n#include "more.h"\n', "1\n#i", "1\n#define MY_B\n#i", ""),
        # A null directive instead of a line.
        ("gcc -g", "#define MY_A 1\nint y(void) { return 1; }\n#define MY_B 2\n", "#define MY_A 1\n", "#\n\n", ""),
        # A string that ends a comment.
        ("gcc", '/*\n#define MY_A "x"\n#\n*/\n', '"x"', '"x*/ int y; /*"', ""),
        # Warnings of indentation.
        ("gcc -Wtraditional", "#define MY_A 1\nextern int y;\n", "#define", "  #define", ""),
        ("gcc -Wall", BODY % "#define MY_A 1", "#define MY_A 1", "           #define MY_A 2", ""),
        ("gcc -Wtraditional", '#define MY_A(...) "x"\n', '"x"', '"__VA_ARGS__"', ""),
        # Clang warns of tokens of a definition.
        ("clang-19 -Wc99-compat", '#define MY_A "x"\n', '"x"', 'u"x"', ""),
        ("clang++-19 -xc++", "#define MY_A 1\n", "1", "&B::operator<=>", ""),
        ("clang++-19 -xc++ -Wc++98-compat", "#define MY_A 1\n", "1", "A<::B>", ""),
        ("clang-19", "#ifndef CONFIG_H\n#define CONFIG_N 1\n#endif\n", "N 1", "N", ""),
        # The command line defines it, too.
        ("gcc -Wp,-DMY_A=1", "#define MY_A 1\nextern int y;\n", "1", "2", ""),
        # The name of a new macro is offered.
        ("gcc -Wall", "#define MY_A 1\n", "1\n", "1\n#define CONFIG_HINT_AC 1\n", HINT),
        ("gcc -Wall", "#if defined MY_A\n#define CONFIG_HINT_AC 1\n#endif\n",
         "#if defined MY_A\n#define CONFIG_HINT_AC 1\n", "#define CONFIG_HINT_AC 1\n#if defined MY_A\n", HINT),
    ],
)  # fmt: skip
def test_what_a_line_shows_in_other_ways_is_compiled(
    words: str, header: str, old: str, new: str, source: str, make: Callable[..., Project]
) -> None:
    files = {"inc/config.h": header, "inc/more.h": "static int unused;\n"}
    source = f'#define LINE __LINE__\n#include "config.h"\nint x;\n{source}'
    project = make("p", {**files, "src/a.c": source})
    cc, *flags = words.split()
    assert project.compile(_words(cc, *flags)) == "miss"
    _edit(project, old, new)
    assert project.compile(_words(cc, *flags)) == "miss"


@pytest.mark.parametrize("more", ["", "#define MY_BUILD 5\n"])
def test_two_headers_that_define_a_macro_are_compared(
    more: str, cc: str, make: Callable[..., Project]
) -> None:
    files = {
        "inc/one.h": more + "#define MY_NUMBER 1\nextern int one;\n",
        "inc/two.h": "#define MY_NUMBER 1\nextern int two;\n",
        "src/a.c": '#include "one.h"\n#include "two.h"\nint a;\n',
    }
    project = make("p", files)
    assert project.compile(_words(cc)) == "miss"
    old, new = ("BUILD 5", "BUILD 6") if more else ("NUMBER 1", "NUMBER 2")
    _edit(project, old, new, "inc/one.h")
    _edit(project, "NUMBER 1", "NUMBER 3", "inc/two.h")
    assert project.compile(_words(cc)) == "miss"


@pytest.mark.parametrize(
    ("one", "two", "new"),
    [
        ("#define MY_A 1\n", "\n#define MY_A 1\n", "\n#define MY_A 1\n"),
        ("#define MY_A 1\n#define MY_B 2\n", "#define MY_A 1\n", "#define MY_C 1\n"),
    ],
)
def test_headers_that_become_equal_by_their_lines_are_one(
    one: str, two: str, new: str, make: Callable[..., Project]
) -> None:
    files = {
        "inc/one.h": ONCE % one,
        "inc/two.h": ONCE % two,
        "inc/more.h": "int more;\n",
        "src/a.c": '#include "one.h"\n#define MORE\n#include "two.h"\nint a;\n',
    }
    project = make("p", files)
    assert project.compile(_words("gcc")) == "miss"
    project.write("inc/one.h", ONCE % new)
    project.write("inc/two.h", ONCE % new)
    age(project.root)
    assert project.compile(_words("gcc")) == "miss"
