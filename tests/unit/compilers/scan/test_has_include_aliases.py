"""Macros that pass their argument to `__has_include`: which the scan may read and which not."""

from __future__ import annotations

import pytest

from hpcc.compilers.scan.scan import Hazard, may_be_read_once, scan_alias_uses, scan_source


@pytest.mark.parametrize(
    "text",
    [
        b"#define HAS(x) __has_include(x)\n",
        b"#ifdef __has_include\n#  define HAS(file) __has_include( file )\r\n#endif\n",
        b"#define HAS(x) \\\n  __has_include(x)\n",
        b"%:define HAS( x ) __has_include_next(x)\n",
    ],
)
def test_a_plain_alias_is_known(text: bytes) -> None:
    found = scan_source(text)
    assert found.aliases == (b"HAS",)
    assert Hazard.OPAQUE_QUESTION not in found.hazards


@pytest.mark.parametrize(
    "text",
    [
        b"#define HAS(x) __has_include(y)\n",
        b"#define HAS(x) __has_include(x) && OTHER(x)\n",
        b"#define HAS(x) __has_include(x##y)\n",
        b"#define HAS(x, y) __has_include(x)\n",
        b"#define HAS __has_include\n",
        b"#if __has_include(NAME)\n",
    ],
)
def test_more_than_an_alias_stays_opaque(text: bytes) -> None:
    found = scan_source(text)
    assert not found.aliases
    assert Hazard.OPAQUE_QUESTION in found.hazards


def test_uses_are_questions() -> None:
    text = (
        b"#define HAS(x) __has_include(x)\n#ifndef HAS\n#endif\n"
        b'#if defined(HAS) && HAS(<version>) || HAS ( "own.h" )\n#undef HAS\n'
    )
    found = scan_alias_uses(text, (b"HAS",))
    assert set(found.questions) == {(False, b"version"), (True, b"own.h")}
    assert found.hazards is Hazard.NONE


@pytest.mark.parametrize(
    "text",
    [
        b"#if HAS(NAME)\n",
        b"#define OTHER(x) HAS(x)\n",
        b"#define OTHER HAS\n",
        b"CALL(HAS, <a.h>)\n",
    ],
)
def test_a_use_that_cannot_be_read_is_opaque(text: bytes) -> None:
    assert Hazard.OPAQUE_QUESTION in scan_alias_uses(text, (b"HAS",)).hazards


def test_another_word_is_no_use() -> None:
    found = scan_alias_uses(b"#if HAS_IT(X) || XHAS(Y)\n", (b"HAS",))
    assert found.hazards is Hazard.NONE


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        (b"#pragma once\n", True),
        (b"#pragma /* a\nb */ once\n", True),
        (b'_Pragma("once")\n', True),
        (b"# import <a.h>\n", True),
        (b"#pra\\\ngma on\\\nce\n", True),
        (b"/* once is enough; imported from elsewhere */\nint x;\n", False),
        (b"#include <import.h>\n", False),
    ],
)
def test_a_file_that_is_read_once_says_so(text: bytes, expected: bool) -> None:
    assert may_be_read_once(text) is expected
