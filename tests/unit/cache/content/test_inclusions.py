"""How often a file may be included, for the bound of GCC's locations."""

from __future__ import annotations

import pytest

from hpcc.cache.content.comments import _FEW_INCLUSIONS, _MOST_INCLUSIONS, _most_inclusions


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        (b"#ifndef A\n#define A\n#endif\n", 1),
        (b"// a\n/* b\n */\n# ifndef A\n#  define A 1\n#endif\n", 1),
        (b"int a;\n#pragma once\n", 1),
        (b"# /* a */\n#\n# // b\n# ifndef A\n#  include <b.h>\n#  define A\n#endif\n", 1),
        (b"#ifndef A\n#define AB\n", _MOST_INCLUSIONS),
        (b"#if 1\n#ifndef A\n#define A\n", _MOST_INCLUSIONS),
        (b"// once\nint a;\n", _MOST_INCLUSIONS),
        (b"#ifndef A\n#define B\n", _MOST_INCLUSIONS),
        (b"int a;\n#ifndef A\n#define A\n", _MOST_INCLUSIONS),
        (b"a locale\0", 1),
        (
            b'#ifndef I\n# error "Never use <x.h> directly; include <i.h> instead."\n#endif\n\n'
            b"#ifndef X\n#define X\n",
            _FEW_INCLUSIONS,
        ),
        (b'#ifndef I\n# error "Never use <x.h> directly."\n#endif\nint a;\n', _MOST_INCLUSIONS),
    ],
)
def test_a_guard_decides(text: bytes, expected: int) -> None:
    assert _most_inclusions(text) == expected
