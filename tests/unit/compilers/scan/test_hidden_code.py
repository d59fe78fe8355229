"""No text makes the scan take code for a comment, whatever mode a compiler reads it in."""

from __future__ import annotations

import pytest

from hpcc.compilers.scan.assembler import read_statements
from hpcc.compilers.scan.assembler_names import may_name_for_assembler, strings_may_direct
from hpcc.compilers.scan.includes import scan_definitions
from hpcc.compilers.scan.scan import Hazard, may_be_read_once, scan_source
from hpcc.compilers.scan.text import joined, may_hide_code, without_comments

# Each ends where the simple lexer, and not every compiler, sees the begin of a comment.
HIDING = [
    "#if 0\ndon't /*\n#endif\n",
    '#if 0\nit " says /*\n#endif\n',
    'int a = \'aaaaaaaaa"\' + "/*"[0];\n',
    "int a = f('aaaaaaaaa' + '\"', \"/*\");\n",
    "#include <s/*y.h>\n",
    '#include "s\\"\nchar a[] = "/*";\n',
    "#if __has_include(<s/*y.h>)\n#endif\n",
    'int a = P(R"(")"/*"[0];\n',
    'int a = P(u8R"(")"/*"[0];\n',
    "int a = f(1'0,\"a'b /*\");\n",
    'int a = f(R"x()\\\nx" /* )x");\n',
    'int a = 8 //* it\'s "\n*/ 2; char b[] = "/*";\n',
    "// what??/\n",
]


@pytest.mark.parametrize("begin", HIDING)
def test_code_behind_a_hiding_text_is_found(begin: str) -> None:
    def text(code: str) -> bytes:
        return f'{begin}{code}\n/* */ /* " */\n'.encode()

    assert may_hide_code(joined(text("int b;")))
    assert Hazard.OPAQUE_ASSEMBLY in scan_source(text('asm("." "incbin \\"data\\"");')).hazards
    assert Hazard.PASTED_CLOCK in scan_source(text("X(__TI,ME__)")).hazards
    opaque = text("#define M(x) <x>\n#if __has_include(M(a.h))\n#endif")
    assert Hazard.OPAQUE_QUESTION in scan_source(opaque).hazards
    found = scan_definitions(text("#define N <a.h>"), frozenset({b"N"}))
    assert found.is_opaque or (False, b"a.h") in found.names
    assert may_be_read_once(text("#pragma once"))
    assert may_name_for_assembler(text('int v __attribute__((section("a" B)));'))


def test_slashes_that_are_no_comment_in_c90_hide_nothing() -> None:
    text = b"int a = 8 //**/ X(__TI,ME__)\n;\n"
    assert Hazard.PASTED_CLOCK in scan_source(text).hazards


@pytest.mark.parametrize(
    "text",
    [
        b"int a = 'a'; // don't\n",
        b"int a = '\"'; /* \" */ int b = L'\"'; // it's\n",
        b"int a = '\\''; int b = '\\x22'; int c = 'RIFF'; // \"\n",
        b"int a = 1'000'000; // a million\n",
        b"#error you don't want this\n/* \" */\n",
        b'char a[] = "/*"; char b[] = "\\"//"; /* R"( */\n',
        b'char a[] = PR"x"; char b[] = "R"; // R"(\n',
        b'#include <a/b.h> // <why> it\'s "so"\n#include "a/b.h" /* < */\n',
        b"/* don't */ // \" /*\n",
    ],
)
def test_comments_of_ordinary_code_are_left_out(text: bytes) -> None:
    assert not may_hide_code(text)
    code = without_comments(text)
    assert b"// " not in code
    assert b"/* " not in code


def test_a_raw_string_in_a_pragma_may_be_none() -> None:
    text = b'#pragma foo R"(\n__asm__(".incbin \\"data\\"");\nint v = sizeof(")" "");\n'
    assert read_statements(text).is_opaque
    assert strings_may_direct(text)
