"""Strings that GCC copies into its assembler output: which texts may have them, and what they say."""

from __future__ import annotations

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from hpcc.compilers.scan import assembler_names
from hpcc.compilers.scan.assembler_names import may_name_for_assembler, strings_may_direct

# What begins, ends or joins strings, and what strings may hold.
_PIECES = (
    b'"', b"'", b'R"(', b')"', b'u8R"m(', b')m"', b"L", b"R", b'"R"', b"(", b")", b"asm", b"__asm__",
    b"volatile", b"\n", b"\n", b"\n", b" ", b"\\", b"\\\n", b'\\"', b"int a;", b";", b"1'000", b"#pragma ",
    b".incbin", b".inc", b"bin", b".macro m", b"\\x69", b"x.i", b".",
)  # fmt: skip


@pytest.mark.parametrize(
    "text",
    [
        b'int v __attribute__((section("x;")));',
        b"int v __attribute__((__section__ (X)));",
        b'int v __attribute__((section\n/* why */("x-")));',
        b'[[gnu::section("x" "y")]] int v;',
        b'[[gnu::section("x" Y)]] int v;',
        b'[[gnu::section(Y "x")]] int v;',
        b'[[gnu::section("x\\n")]] int v;',
        b'[[gnu::section("x??/n")]] int v;',
        b'[[gnu::section("x y")]] int v;',
        b'[[gnu::section("x\ny")]] int v;',
        b'[[gnu::section(R"(x)")]] int v;',
        b'[[gnu::section(L"x")]] int v;',
        b'[[gnu::section(("x"))]] int v;',
        b'[[gnu::section("' + b"x" * 201 + b'")]] int v;',
        b'#define section(x) __attribute__((__section__ (x)))\nint v section("x");\n',
        b"#define S(x) section(#x)\n",
        b"#define S section\n",
        b"#define S section_\n",
        b"#define S __section__\n",
        b"#define S fentry_section\n",
        b"#define S(x) section x\n",
        b"#define S section//",
        b'fentry_section("x" Y)',
        b"# define S(x) __attribute__((__section__ x))\n",
        b'ATTRIBUTE(section, "x")',
        b'ATTRIBUTE(1, __section__, "x")',
        b"#define S sec\\\ntion\n",
        b"sec##tion",
        b"P(sec, tion)",
        b"P(__se, ction__)",
        b"P(s, ection)",
        b"P(sect, ion)",
        b"x(secti ## on)",
        b"x(sectio%:%:n)",
        b"x(sec /* a */ ## /* b */ tion)",
        b'int f() __attribute__((weakref("x")));',
        b"P(weak, ref)",
        b"weak##ref",
        b"P(weakr, ef)",
        b"P(wea, kref)",
        b"P(w, eakref)",
        b'int f() __attribute__((symver("x")));',
        b"P(symv, er)",
        b"P(sy, mver)",
        b'int f() __attribute__((fentry_name("x")));',
        b"int f() __attribute__((fentry_section(X)));",
        b'#ident "x"',
        b' # /* a */ sccs "x"',
        b'%:ident "x"',
        b"#" + b" " * 90 + b'ident "x"',
        b"int v __attribute__((section E));",
        b'int v __attribute__((section\n#include "x.h"\n));',
        b'int v __attribute__((section\0("x" Y)));',
        b"int f() __attribute__((weakref E));",
        b"int f() __attribute__((symver E));",
        b"#define S /*\n*/ section\n;",
        b"/**/#define S section\n;",
        b"\f#define S section\n;",
        b"#define A sec\n#define B tion\n",
        b"#define B sect\n",
        b"P(sec, /* " + b"x" * 90 + b" */ tion)",
        b"P(sec," + b" " * 90 + b"tion)",
        b"P(sym, ver)",
        b"sym##ver",
        b"sec??/\ntion",
    ],
)
def test_words_with_which_gcc_copies_a_string(text: bytes) -> None:
    assert may_name_for_assembler(b"int a;\n" + text + b"\nint b;\n")


@pytest.mark.parametrize("text", [b"section", b"int a;\n__section__\n", b"weakref", b"symver "])
def test_a_word_at_the_end_goes_on_in_the_next_file(text: bytes) -> None:
    assert may_name_for_assembler(text)


@pytest.mark.parametrize(
    "text",
    [
        b'int v __attribute__((section("x")));',
        b'int v __attribute__((__section__ ("__NV_CUDA,__nv_module_id"))) = NAME(ID);',
        b'int v __attribute__((section\n/* why */("x")));',
        b'[[gnu::section("x")]] int v;',
        b'#define S __attribute__((section(".data.x")))\n',
        b"#define my_section_INCLUDED\n#define S(x) section_of x\n#define section_x section_y\n",
        b"/* see section (3), section, and P(sec, tion) */",
        b"// the section(s) of a file\n",
        b"struct section *section; int n = section->size; get_section(x); int ident = identifier;",
        b"void f(struct section *section, int reference) { function(direction); }",
        b'int f(void) __attribute__((weak, alias("g"))); int ref;',
        b"# define __gthrw2(a, b, c) static __typeof(a) b __attribute__ ((__weakref__(#c)));".replace(
            b"#c", b"#name2"
        ),
    ],
)
def test_texts_without_such_words(text: bytes) -> None:
    assert not may_name_for_assembler(b"int a;\n" + text + b"\nint b;\n")


@pytest.mark.parametrize(
    "text",
    [
        rb'section("s\n.incbin \"x\"\n#")',
        rb'section("s\n.inc" "bin \"x\"\n#")',
        rb'section("s\n.inc" L"bin \"x\"\n#")',
        b'section("s\\n.inc"\n\n  "bin \\"x\\"\\n#")',
        rb'section("s\n.\x69ncbin \"x\"\n#")',
        rb'section("s;.\151nclude \"x\";#")',
        b'section(R"(s\n.inc)" R"m(bin "x"\n#)m")',
        rb'section("s\n.macro m x\n\x \"y\"\n.endm\n#")',
        rb'section("s\u002eincbin")',
        b'section(R"(' + b"x" * 70_000 + b'\n.incbin "x")")',
        b'int a = 1\'000; section("s\\n.incbin \\"x\\""); int b = 1\'000;',
        rb"""char c = '"'; section("s\n.inc" "bin \"x\""); char d = '"';""",
        rb'#ident "a\"\n.\x69ncbin \"x\"\n"',
        b'section("without an end\n',
    ],
)
def test_strings_that_may_hold_a_directive(text: bytes) -> None:
    assert strings_may_direct(b"int a;\n" + text + b"\nint b;\n")


@pytest.mark.parametrize(
    "text",
    [
        b'section(".text.unlikely") section(".gnu.warning.f\\n\\t#")',
        rb'printf("a.c: %s.\n" "see x.h; \"y\"", "include")',
        b"int a = 1'000'000; char c = '\\''; char d = L'x';",
        b'asm(".incbin \\"x\\""); __asm__ volatile (".inc" "bin \\"x\\"" : : "r"(1));',
    ],
)
def test_strings_without_a_directive(text: bytes) -> None:
    assert not strings_may_direct(b"int a;\n" + text + b"\nint b;\n")


@given(st.lists(st.sampled_from(_PIECES), max_size=40).map(b"".join))
@example(b'asm\nvolatile\n(".incbin"\n)')
@example(b'int a;\nasm\n(\n".inc"\n"bin")')
@example(b'".inc"\n\n"bin"')
@example(b'".inc"\nint a;\n"bin"')
@example(b'R"(\n.incbin\n)"')
@example(b'#pragma R"')
def test_lines_without_quotes_change_no_answer(text: bytes) -> None:
    found = assembler_names.RAW_IN_PRAGMA.search(text) or assembler_names._strings_direct(text)
    assert strings_may_direct(text) == bool(found)


def test_each_string_without_an_end_on_its_line_counts() -> None:
    assert strings_may_direct(b"int a;\n" * 1000 + b'"\n')
    assert not strings_may_direct(b"int a;\n" * 1000 + b"'\n" + b"int b;\n" * 1000)
