"""Which texts may hold a pragma that defines macros."""

from __future__ import annotations

import pytest

from hpcc.compilers.scan.pragmas import define_macros, is_compilers_own, read_pragmas


@pytest.mark.parametrize(
    ("texts", "expected"),
    [
        ((b'#pragma GCC target("avx2")\n',), True),
        ((b'#pragma GCC target "avx2"\n',), True),
        ((b"#pragma GCC optimize 3\n",), True),
        ((b'  %: pragma GCC optimize ("O3")\n',), True),
        ((b'#pragma GCC opt\\\nimize/* a * b */( "O3")\n',), True),
        ((b'# /*\n*/ pragma GCC optimize ("O3")\n',), True),
        ((b"int pragma; /* # */ int target, optimize[3];\n",), False),
        ((b'_Pragma("GCC target(\\"avx2\\")")\n',), True),
        ((b"#define DO(x) _Pragma(#x)\n", b'DO(GCC optimize("O3"))\n'), True),
        ((b"#define DO(x) _Pragma(#x)\n", b"DO(GCC target(LEVEL))\n"), True),
        ((b"#define DO(x) _Pragma(#x)\n", b'DO(GCC optimize // a\n("O3"))\n'), True),
        ((b"#define DO(x) _Pragma(#x)\n", b"// the target\n// of prose /* */\nint x;\n"), False),
        ((b"#define DO(x) _Pragma(#x)\n", b"/* target /* target */ int x; /*\n"), False),
        ((b"#define DO(x) _Pragma(#x)\n", b"/* target /* target */ // a\n /**/ (1)"), True),
        ((b'__attribute__((target("avx2"))) void f(void);\n',), False),
        ((b"#pragma once\n", b'__attribute__((target("avx2"))) void f(void);\n'), False),
        ((b"#pragma once\nint target, optimize;\n",), False),
        ((b'_Pragma("once") int target;\n', b"#pragma GCC diagnostic push\n"), False),
        ((), False),
    ],
)
def test_a_pragma_is_found_in_one_text_or_in_pieces(
    texts: tuple[bytes, ...], expected: bool
) -> None:
    assert define_macros(map(read_pragmas, texts)) is expected


def test_headers_of_intrinsics_leave_no_macro_behind() -> None:
    assert is_compilers_own(b"/usr/lib/gcc/x86_64-linux-gnu/12/include/avx2intrin.h")
    assert not is_compilers_own(b"/usr/include/x.h")
    assert not is_compilers_own(b"/p/lib/gcc/x/12/include/sub/x.h")
