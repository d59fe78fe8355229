from __future__ import annotations

import itertools
import time
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from hpcc.cache.base.clock_text import is_timestamp_of, timestamps_in
from hpcc.cache.host.driver_files import lists_its_files
from hpcc.compilers.clang.config_files import config_names, named_target
from hpcc.compilers.gnu.driver_files import specs_names
from hpcc.compilers.gnu.family import GNU
from hpcc.compilers.scan.assembler import (
    Directives,
    may_open_files,
    read_assembler,
    read_origins,
    read_statements,
)
from hpcc.compilers.scan.scan import Hazard, scan_arguments, scan_source

_OPAQUE = Hazard.OPAQUE_ASSEMBLY


@pytest.mark.parametrize(
    ("text", "names"),
    [
        (b"int asmx; char *s = \"asm('x')\";", ()),
        (b'asm("nop"); __asm__ volatile ("mov %0, %1" : "=r"(a) : "r"(b));', ()),
        (b'int f(void) __asm__("" "__isoc99_scanf");', ()),
        (b'asm(".inc" "bin \\"a\\"");', (b"a",)),
        (b'asm(".\\151ncb\\x69n \\"a\\"\\n.INCLUDE \\"b.s\\"" : : "i"(1));', (b"a", b"b.s")),
        (b'__asm__ goto /**/ (R"x(.incbin "a")x" :::: l);', (b"a",)),
        (b'int a = 1\'000; asm(".incbin \\"a\\""); int b = 0x1\'0f;', (b"a",)),
        (b'const char *s = R"(asm(x))"; asm(".incbin \\"a\\"");', (b"a",)),
        (b'asm(".Lx%=: jmp .Lx%=\\n.ascii \\"%c0\\"" :: "i"(1));', ()),
    ],
)
def test_literal_statements_are_read(text: bytes, names: tuple[bytes, ...]) -> None:
    found = read_statements(text)
    assert not found.is_opaque
    assert found.names == names


@pytest.mark.parametrize(
    "text",
    [
        b"asm(x);",
        b'asm("a" x "b");',
        b'asm((make("x")));',
        b'asm(".inc%c0 \\"a\\"" :: "i"(&bin));',
        b'asm("%c0 \\"a\\"" :: "i"(&x));',
        b'asm(".{att|intel}x");',
        b'asm(".i\\u006ecbin \\"a\\"");',
        b'asm(".incbin %0" :: "i"(1));',
        b'asm(".incbin \\"a\\\\\\"b\\"");',
        b'asm(".macro m x\\n.inc\\\\x \\"a\\"\\n.endm\\nm bin");',
    ],
)
def test_statements_that_cannot_be_read_are_opaque(text: bytes) -> None:
    assert read_statements(text).is_opaque
    assert scan_source(text).hazards & (_OPAQUE | Hazard.ASSEMBLER_FILE)


@pytest.mark.parametrize(
    "text",
    [
        b'.macro m x\n\\x "a"\n.endm\nm incbin',
        b'.macro m x y\n\\x\\y "a"\n.endm\nm .in, cbin',
        b'.macro m x\n.\\x "a"\n.endm',
        b'.irp x, bin\n.inc\\x "a"\n.endr',
        b'.altmacro\n.macro m x\n.inc&x "a"\n.endm',
        b'.altmacro\n.macro m x\n.incbin "x"\n.endm\nm a',
        b'.ALTMACRO\n.macro m x y z\nx&y&z "a"\n.endm\nm ., inc, bin',
        b'.macro m x y z\nnop; /**/ \\x\\y\\z "a"\n.endm\nm ., inc, bin',
        b'.macro m w x y z\nnop \\w\\x\\y\\z "a"\n.endm\nm "; ", ".", "inc", "bin"',
        b'.macro m x y z\nnop \\x\\y\\z "a"\n.endm\nm ";.", "inc", "bin"',
        b'.macro m x y z\na\\x\\y\\z "a"\n.endm\nm ": .", "inc", "bin"',
        b'.macro m x y z\nnop\\x\\y\\z "a"\n.endm\nm "\n", ".inc", "bin"',
        b".incbin NAME",
    ],
)
def test_macros_of_the_assembler_that_may_make_a_directive_are_opaque(text: bytes) -> None:
    assert read_assembler(text).is_opaque


@pytest.mark.parametrize(
    "text",
    [
        b'.altmacro\n.macro m x\n.long x & 3\n.endm\nm 1\n.ascii "a & b"',
        b'.macro m x\n.long \\x\n.endm\nm 1\n.ascii "error: "\n.ascii "x\\n"',
        b".macro f name\n.globl \\name\n\\name:\n.endm\nf memcpy\n",
    ],
)
def test_macros_of_the_assembler_that_make_no_directive_are_literal(text: bytes) -> None:
    assert read_assembler(text) == Directives()


def test_a_statement_without_a_string_is_opaque() -> None:
    assert read_statements(b"__asm nop").is_opaque
    assert read_statements(b"asm { nop }").is_opaque


def test_directives_of_an_assembler_source_are_read() -> None:
    text = b'.data\n a: .incbin "x", 3, 4\n.macro save r\n push \\r\n.endm\n.Include "y.s"\n'
    assert read_assembler(text) == Directives((b"x", b"y.s"), (b"y.s",))


@pytest.mark.parametrize(
    "text",
    [
        b"#define A asm",
        b"#define A __asm__ volatile\n",
        b"F(asm, x)",
        b"F(__as, m__)",
        b"as##m",
        b"__as ## m__",
        b"a %:%: sm",
        b'asm("x" Y)',
        b'asm VOLATILE ("x")',
        b"asm /* text */ (x)",
        b'asm(".inc" "bin \\"a\\"")',
    ],
)
def test_sources_whose_asm_cannot_be_read_as_it_stands(text: bytes) -> None:
    assert _OPAQUE in scan_source(text).hazards


@pytest.mark.parametrize(
    "text",
    [
        b"#include <asm/types.h>\n#include <asm-generic/x.h>\n",
        b"/* such as, for one, asm names */",
        b"#if defined(asm)\n#endif",
        b"name proto __THROW __asm__ (__ASMNAME (#alias))",
        b'f(void) __asm ("memchr") __attribute_pure__;',
        b'__asm__ __volatile__("cpuid" : "=a"(x) : "0"(y));',
        b"int as, m; masm(x); basm__();",
        b"int f(void) { return (in.i&0x7F)==0 && p->u.i|a[1].i%3 && g().in}",
    ],
)
def test_everyday_headers_are_not_opaque(text: bytes) -> None:
    assert scan_source(text).hazards == Hazard.NONE


@pytest.mark.parametrize(
    "text",
    [
        rb'asm(".i%0");', rb'asm("\n.i%0");', rb'asm("\nfoo.i%0");', rb'asm("\012.i%0");',
        rb'asm("\x0a.i%0");', rb'asm("??/n.i%0");', rb'asm("%0.i%1");', rb'asm("%c0.i%1");',
        rb'asm("}.i%1");', b'asm(R"(\n.i%0)");', rb'asm("\x\().i\y");', rb'asm("\long.i\y");',
        b"int a = in.i&1; // .altmacro\n", b'".i&"',
    ],
)  # fmt: skip
def test_what_may_begin_a_directive_is_found(text: bytes) -> None:
    assert Hazard.ASSEMBLER_FILE in scan_source(text).hazards


def test_the_keyword_in_an_argument_is_opaque() -> None:
    assert _OPAQUE in scan_arguments((b"-DA=__asm__", b"-c")).hazards
    assert scan_arguments((b"-DA=1", b"-Iasm-x", b"-c", b"x.c")).hazards == Hazard.NONE


@pytest.mark.parametrize(
    "text",
    [
        b"P(__DA, TE__)", b"__D##ATE__", b"P(__, P(DATE, __))", b"__TI /**/ ## ME__",
        b"-DA=__DAT", b"P(IM, x)", b"#define X TIMESTAMP\n", b"(AMP)", b"__TIM", b"Q(_DA,x)",
    ],
)  # fmt: skip
def test_pieces_of_a_clock_are_found(text: bytes) -> None:
    assert Hazard.PASTED_CLOCK in scan_source(text).hazards


@pytest.mark.parametrize(
    "text",
    [
        b"template <class T> T f(T, T*);", b"Defines __TIME*_T_TYPE macros.", b"MSG_DATE TIME64",
        b"xTE__", b"AT&T", b"TYPE", b"_IO_TIME_T", b"__TIME_T",
    ],
)  # fmt: skip
def test_other_words_are_no_pieces(text: bytes) -> None:
    assert scan_source(text).hazards == Hazard.NONE


@given(st.sampled_from([b"__DATE__", b"__TIME__", b"__TIMESTAMP__"]), st.data())
def test_any_clock_in_up_to_three_pieces_is_found(name: bytes, data: st.DataObject) -> None:
    cuts = data.draw(st.sets(st.integers(1, len(name) - 1), min_size=1, max_size=2))
    edges = [0, *sorted(cuts), len(name)]
    pieces = [name[a:b] for a, b in itertools.pairwise(edges)]
    assert any(Hazard.PASTED_CLOCK in scan_source(b"f(%s)" % p).hazards for p in pieces)


_PARTS = [
    b"asm",
    b"(",
    b'"',
    b"\\",
    b".inc",
    b"bin",
    b"%0",
    b"{",
    b'R"(',
    b')"',
    b"##",
    b"\n",
    b" ",
]


@given(st.lists(st.sampled_from(_PARTS), max_size=30).map(b"".join))
def test_any_text_is_read_without_an_error(text: bytes) -> None:
    scan_source(text)
    read_statements(text)
    read_assembler(text)


@given(st.lists(st.integers(1, 8), max_size=6), st.sampled_from([b".incbin", b".include"]))
def test_a_directive_cut_into_strings_is_read_whole(cuts: list[int], word: bytes) -> None:
    text = word + b' \\"f\\"'
    pieces, start = [], 0
    for cut in cuts:
        end = start + cut
        while text[end - 1 : end] == b"\\":
            end += 1
        pieces.append(text[start:end])
        start = end
    source = b"asm(" + b" ".join(b'"%s"' % p for p in (*pieces, text[start:])) + b");"
    assert read_statements(source).names == (b"f",)
    assert scan_source(source).hazards & (_OPAQUE | Hazard.ASSEMBLER_FILE)


def test_embedded_files_are_named() -> None:
    found = scan_source(b'#embed "a"\n# /**/ embed <b> limit(3)\n#if __has_embed("c" limit(1))\n')
    assert found.embeds == ((True, b"a"), (False, b"b"), (True, b"c"))
    assert found.hazards == Hazard.EMBED
    assert scan_source(b"#if __has_embed(X)").hazards == Hazard.OPAQUE_EMBED
    assert Hazard.COMPUTED_INCLUDE in scan_source(b"#embed X").hazards


def test_a_timestamp_is_known_by_its_form() -> None:
    stamp = time.asctime(time.gmtime(1e9)).encode()
    assert timestamps_in(b'"' + stamp + b'"') == {stamp}
    assert not timestamps_in(b"Sun Sep 9 2001 01:46:40")
    assert is_timestamp_of(stamp, 10**18)
    assert is_timestamp_of(stamp, 10**18 + 14 * 3600 * 10**9)  # another time zone
    assert not is_timestamp_of(stamp, 10**18 + 8 * 86_400 * 10**9)
    assert not is_timestamp_of(b"Thu Feb 30 24:00:04 2006", 10**18)


_ABOUT = b"Reading specs\nTarget: x86_64-linux-gnu\ngcc version 12.4.0\n"
_DIRS = (
    b"install: /usr/lib/gcc/x86_64-linux-gnu/12/\n"
    b"programs: =/usr/lib/gcc/x86_64-linux-gnu/12/:/usr/lib/gcc/x86_64-linux-gnu/:/usr/bin/\n"
    b"libraries: =/usr/lib/gcc/x86_64-linux-gnu/12/:/t/x86_64-linux-gnu/lib/:/lib/:/usr/lib/\n"
)


@pytest.mark.parametrize(
    "text",
    [b'#embed "a"', b"#embed X", b"%:embed <a>", b'# /**/ embed "a"', b'#em\\\nbed "a"',
     b'#if __has_embed("a")', b"#define H __has_embed\n#if H(<a>)"],
)  # fmt: skip
def test_a_text_that_embeds_is_refused_of_every_gcc(text: bytes) -> None:
    """GCC 15 has `#embed` and was not asked what it lists."""
    found = scan_source(text + b"\n").hazards & (Hazard.EMBED | Hazard.OPAQUE_EMBED)
    assert found
    for major in range(12, 18):
        assert not found & GNU.resolvable(major)


def test_specs_are_looked_for_where_gcc_looks() -> None:
    assert specs_names(_ABOUT, _DIRS, b"/p:q/") == (
        b"/usr/lib/gcc/x86_64-linux-gnu/12/specs",
        b"/usr/lib/gcc/x86_64-linux-gnu/specs",
        b"/t/x86_64-linux-gnu/lib/specs",
        b"/p/x86_64-linux-gnu/12/specs",
        b"/p/specs",
        b"q/x86_64-linux-gnu/12/specs",
        b"q/specs",
    )
    assert specs_names(b"", _DIRS, b"") == ()


def test_configurations_are_named_after_target_and_mode() -> None:
    beside = {b"/b/../etc/clang.cfg", b"/b/../lib/clang-runtimes/multilib.yaml"}
    assert set(config_names((b"/b",), b"t")) == beside | {
        b"/b/clang.cfg", b"/b/clang++.cfg", b"/b/t.cfg", b"/b/t-clang.cfg", b"/b/t-clang++.cfg",
        b"/b/clang-cl.cfg", b"/b/t-clang-cl.cfg", b"/b/../lib/clang-runtimes/t/multilib.yaml",
    }  # fmt: skip
    # As Clang 22 asks the kernel for them.
    for name, shorter in (
        (b"macosx14.0", (b"macosx14", b"macosx")),
        (b"macos14.0", (b"macosx14", b"macosx")),
        (b"ios17.0-simulator", (b"ios17-simulator", b"ios-simulator")),
        (b"darwin23.6.0", (b"darwin23", b"darwin")),
    ):
        found = set(config_names((b"/b",), b"x86_64-apple-" + name))
        for known in (name, *shorter):
            assert {b"/b/x86_64-apple-%s%s.cfg" % (known, end) for end in (b"", b"-clang")} <= found
    assert named_target(b"/x/a-b-clang++-19") == b"a-b"
    assert named_target(b"/x/clang") is None


def test_an_assembler_that_lists_nothing_is_found_out(tmp_path: Path) -> None:
    script = tmp_path / "as"
    for body, expected in (
        ('exec /usr/bin/as "$@"', True),
        ('exec /usr/bin/as -o "$4" "$5"', False),
        ('echo "x: $5" >"$2"', False),
        ("exit 1", False),
    ):
        script.write_text(f"#!/bin/sh\n{body}\n")
        script.chmod(0o755)
        assert lists_its_files(bytes(script), {b"PATH": b"/usr/bin:/bin"}) is expected


@pytest.mark.parametrize(
    "text",
    [
        b'.incbin "a"', b'.INCLUDE "a"', b'. include "a"', b'#define D incbin\n.D "a"',
        b'#define D include\n.D "a"', b'.inc\\\nbin "a"', b'#define C(a, b) .a##b\nC(in, cbin)',
        b".macro m a\n\\a\n.endm", b".irp x, y\n.endr", b".altmacro\n", b"/* a */ incbin",
        b"don't /*\n.incbin \"a\"\n/* */",
    ],
)  # fmt: skip
def test_text_of_which_a_directive_could_be_made_may_open_files(text: bytes) -> None:
    assert may_open_files(text)


@pytest.mark.parametrize(
    "text",
    [b'\t.file "a.c"\n\tret\n', b"#include <a.h>\n# include <b.h>\n", b"/* include */ nop\n"],
)
def test_other_text_opens_no_file(text: bytes) -> None:
    assert not may_open_files(text)


def test_the_names_of_file_directives_are_found() -> None:
    text = b'.file "a.c"\n.FILE\t"d/b.c"\n.file 1 "c.c"\n.files "d.c"\n.file "e\\"f"\n'
    assert read_origins(text) == {b"a.c", b"d/b.c"}
