"""Questions of `__has_include`: what may be read through macros and what may not."""

from __future__ import annotations

import pytest

from hpcc.compilers.scan.includes import argument_definitions, scan_definitions
from hpcc.compilers.scan.questions import (
    Definitions,
    Questions,
    definition_lines,
    merged,
    read_questions,
    read_uses,
    settle_questions,
)
from hpcc.compilers.scan.scan import (
    Hazard,
    may_be_read_once,
    scan_arguments,
    scan_source,
)
from hpcc.compilers.scan.text import joined


def settle(*texts: bytes, macros: tuple[bytes, ...] = ()) -> set[tuple[bool, bytes]] | None:
    """Return all names that these texts ask for; None if some are unknown."""
    every = [*map(joined, texts), definition_lines(macros)]
    asked = Questions()
    for text in every:
        asked |= read_questions(text)

    def uses(synonyms: frozenset[bytes], aliases: frozenset[bytes]) -> Questions:
        found = Questions()
        for text in every:
            found |= read_uses(text, synonyms, aliases)
        return found

    def definitions(names: frozenset[bytes]) -> Definitions:
        found = [scan_definitions(text, names) for text in texts]
        return merged([argument_definitions(macros, names), *found])

    names, is_opaque = settle_questions(asked, uses, definitions)
    return None if is_opaque else set(names)


@pytest.mark.parametrize(
    "text",
    [
        b"#define HAS(x) __has_include(x)\n",
        b"#ifdef __has_include\n#  define HAS(file) __has_include( file )\r\n#endif\n",
        b"#define HAS(x) \\\n  __has_include(x)\n",
        b"%:define HAS( x ) __has_include_next(x)\n",
        b"#define HAS(x) __has_include(x) && OTHER(x)\n",
        b"/* a\n*/ #define HAS(x) /* b\n*/ __has_include(x) // c\n",
    ],
)
def test_a_plain_alias_is_known(text: bytes) -> None:
    found = scan_source(text)
    assert found.asked.aliases == {b"HAS"}
    assert Hazard.OPAQUE_QUESTION not in found.hazards


@pytest.mark.parametrize(
    "text",
    [
        b"#define HAS __has_include\n",
        b"#  define HAS  __has_include_next // as in gtest-port.h\r\n",
        b"#define HAS /* a\n b */ __has_include\n",
    ],
)
def test_a_macro_may_be_the_operator(text: bytes) -> None:
    found = scan_source(text)
    assert found.asked.synonyms == {b"HAS"}
    assert Hazard.OPAQUE_QUESTION not in found.hazards


@pytest.mark.parametrize(
    "text",
    [
        b"#define HAS(x) __has_include(x##y)\n",
        b"#define HAS(x) __has_include(#x)\n",
        b"#define HAS(x) __has_include(<x.h>)\n",
        b"#define HAS(x, y) __has_include(x)\n",
        b"#define HAS() __has_include\n",
        b"#define HAS (__has_include)\n",
        b"#if __has_include(NAME(x))\n",
        b"#if __has_include()\n",
        b"#define P(a, b) a##b\n#if P(__has_, include)(<a.h>)\n",
        b"#if __has_include(__FILE__)\n",
        b"#define N <a b.h>\n#if __has_include(N)\n",
        b"#define N <__linux__/b.h>\n#if __has_include(N)\n",
        b"#define N M(a.h)\n#if __has_include(N)\n",
        b"#define N(x) <x>\n#if __has_include(N)\n",
    ],
)
def test_what_cannot_be_read_stays_opaque(text: bytes) -> None:
    assert settle(text) is None


@pytest.mark.parametrize(
    ("texts", "names"),
    [
        # gtest-port.h, xxhash.h
        ([b"#define HAS __has_include\n", b'#if HAS(<a.h>) || HAS ( "b.h")\n'], "<a.h> \"b.h"),
        # boost/config/stdlib/libstdcpp3.hpp
        ([b"#define N <ext/slist>\n", b"#if defined(N) && __has_include(N)\n"], "<ext/slist>"),
        ([b"#if 0\n#define N <a.h>\n#else\n#define N <b.h>\n#endif\n",
          b"#if __has_include(N)\n"], "<a.h> <b.h>"),
        ([b"#define A B\n#define B \"c.h\"\n#if __has_include(A)\n"], "\"c.h"),
        ([b"#define P(x) __has_include(x)\n#define Q(y) P(y)\n#if Q(<a.h>)\n"], "<a.h>"),
        ([b"#define P __has_include\n#define Q P\n#define R(x) Q(x)\n", b"#if R(N)\n",
          b"#define N <a.h>\n"], "<a.h>"),
        ([b"#if __has_include(NOBODY)\n#define O 1\n#if __has_include(O)\n"], ""),
        # Words between the brackets are expanded in a macro, and not in a plain question.
        ([b"#define N <d/a.h>\n#define d e\n#if __has_include(N)\n"], "<d/a.h> <e/a.h>"),
        ([b"#define H(x) __has_include(x)\n#if H(<linux/a.h>)\n"], "<linux/a.h> <1/a.h>"),
        ([b"#define d e\n#if __has_include(<d/a.h>)\n"], "<d/a.h>"),
        ([b"#define d(x) e\n#define d d\n#define N <d/a.h>\n#if __has_include(N)\n"], "<d/a.h>"),
        ([b"#define HAS(x) __has_include(x)\n#ifndef HAS\n#endif\n/* HAS is ours */\n"
          b'#if defined(HAS) && HAS(<version>) || HAS ( "own.h" )\n#undef HAS\n'],
         "<version> \"own.h"),
    ],
)  # fmt: skip
def test_names_behind_macros_are_known(texts: list[bytes], names: str) -> None:
    wanted = {(n[0] == '"', n.strip('<>"').encode()) for n in names.split()}
    assert settle(*texts) == wanted


def test_arguments_define_macros_like_texts() -> None:
    text = b"#if Q(<a.h>) || H(N) || __has_include(M)\n"
    macros = (b"Q=__has_include", b"H(x)=__has_include(x)", b'N="n.h"', b"M=N", b"O")
    assert settle(text, macros=macros) == {(False, b"a.h"), (True, b"n.h")}
    assert settle(b"#if __has_include(M)\n", macros=(b"M(x)=<a.h>",)) is None


def test_only_a_macro_of_the_arguments_may_ask() -> None:
    macros = (b"Q=__has_include",)
    assert scan_arguments((b"-DQ=__has_include", b"-c"), macros).hazards is Hazard.NONE
    assert scan_arguments((b"-DQ=__has_include",), macros).asked.synonyms == {b"Q"}
    opaque = scan_arguments((b"-foo=__has_include", b"-DQ=__has_include"), macros)
    assert opaque.hazards is Hazard.OPAQUE_QUESTION


@pytest.mark.parametrize(
    "text",
    [
        b"#if HAS(f(x))\n",
        b"#define OTHER(x) HAS\n",
        b"CALL(HAS, <a.h>)\n",
    ],
)
def test_a_use_that_cannot_be_read_is_opaque(text: bytes) -> None:
    assert read_uses(text, (), (b"HAS",)).is_opaque


def test_another_word_is_no_use() -> None:
    assert not read_uses(b"#if HAS_IT(X) || XHAS(Y)\n", (b"HAS",), (b"HAS",)).is_opaque


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        (b"#pragma once\n", True),
        (b"#pragma /* a\nb */ once\n", True),
        (b'_Pragma("once")\n', True),
        (b"#pra\\\ngma on\\\nce\n", True),
        (b"PRAGMA(once)\n", True),
        (b"/* once is enough; imported from elsewhere */\nint x;\n", False),
        (b'_Pragma("GCC diagnostic push")\n_Pragma(MACRO)\n', False),
        (b"#include <import.h>\n", False),
    ],
)
def test_a_file_that_is_read_once_says_so(text: bytes, expected: bool) -> None:
    assert may_be_read_once(text) is expected


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        (b"# import <a.h>\n", True),
        (b'#define ONCE _Pragma("once")\n', True),
        (b"#define WORD once\n#pragma once\n", True),
        (b"#define /* a\n */ WORD once\n", True),
        (b"#pragma once\n#define A 1 // once\n", False),
        (b"#define P(x) _Pragma(#x)\n", False),
    ],
)
def test_a_file_may_make_others_be_read_once(text: bytes, expected: bool) -> None:
    assert (Hazard.READ_ONCE in scan_source(text).hazards) is expected


def test_an_argument_may_make_files_be_read_once() -> None:
    assert Hazard.READ_ONCE in scan_arguments((b'-DX=_Pragma("once")',)).hazards
