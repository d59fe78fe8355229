from __future__ import annotations

import pytest

from hpcc.compilers.gnu.family import GNU
from hpcc.compilers.gnu.headers import strip_headers, without_outputs
from hpcc.compilers.gnu.invocation import read_invocation
from hpcc.compilers.invocation.depfile import DepRule, parse_depfile, prerequisites
from hpcc.compilers.invocation.guest import (
    GuestMap,
    NotPortableError,
    client_depfile,
    guest_arguments,
    guest_text,
)
from hpcc.compilers.invocation.invocation import Invocation
from hpcc.compilers.scan.scan import Hazard, scan_source
from hpcc.compilers.spec.drivers import is_cxx_driver
from hpcc.compilers.spec.response import expand_responses, split_response
from hpcc.compilers.spec.table import Bypass
from hpcc.core import CallerError


@pytest.mark.parametrize(
    ("name", "is_cxx"),
    [
        (b"gcc", False),
        (b"/usr/bin/g++-12", True),
        (b"x86_64-linux-gnu-gcc-12.2", False),
        (b"cc", False),
        (b"c++", True),
        (b"x86_64-w64-mingw32-g++-posix", True),
        (b"/usr/bin/i686-w64-mingw32-gcc-14-win32", False),
        (b"clang-14", False),
        (b"clang++", True),
        (b"gcc-ar", None),
        (b"clang-cl", None),
        (b"clang-format", None),
        (b"nvcc", None),
        (b"gfortran", None),
    ],
)
def test_driver_names(name: bytes, is_cxx: bool | None) -> None:
    assert is_cxx_driver(name) is is_cxx


def test_response_files_nest_and_quote() -> None:
    files = {b"a": b"-DX=\"a b\" @b\n'-I d'", b"b": b"-O2 \\@c"}
    expanded = expand_responses([b"-c", b"@a", b"@gone"], files.get)
    assert expanded == (b"-c", b"-DX=a b", b"-O2", b"@c", b"-I d", b"@gone")
    assert split_response(b"a\\ b 'c\\'d' \"\" e") == [b"a b", b"c'd", b"", b"e"]


@pytest.mark.parametrize(
    "content", [b"@a", b"x" * (256 << 10) + b"y", b"a\0b", b"x " * 5000, b"@a @a"]
)
def test_response_files_that_never_end_are_a_bypass(content: bytes) -> None:
    assert expand_responses([b"@a"], lambda _name: content) == Bypass("response-file")


def test_depfiles_of_gcc_and_clang_are_read() -> None:
    data = (
        b"out.o: src/a.c \\\n  /usr/include/stdio.h a\\ b.h c\\#d.h e$$f.h \\\n"
        b" g\\\\h.h c:/x.h\nsrc/a.c:\na\\ b.h:\n"
    )
    rules = parse_depfile(data)
    assert rules[0] == DepRule(
        (b"out.o",),
        (b"src/a.c", b"/usr/include/stdio.h", b"a b.h", b"c#d.h", b"e$f.h", b"g\\\\h.h", b"c:/x.h"),
    )
    assert len(prerequisites(rules)) == 7


@pytest.mark.parametrize("data", [b"no target here\n", b"a: \0", b"x" * (9 << 20)])
def test_odd_depfiles_are_refused(data: bytes) -> None:
    with pytest.raises(CallerError, match="dependency file"):
        parse_depfile(data)


@pytest.mark.parametrize(
    ("text", "hazard"),
    [
        (b'"__DATE__"', Hazard.DATE_OR_TIME),
        (b"__TIME__", Hazard.DATE_OR_TIME),
        (b"__TIMESTAMP__", Hazard.TIMESTAMP),
        (b'asm("\\t.incbin \\"x\\"");', Hazard.ASSEMBLER_FILE),
        (b'.include "x.s"', Hazard.ASSEMBLER_FILE),
        (b"#  embed <x>", Hazard.EMBED),
        (b"%:embed <x>", Hazard.EMBED),
        (b"#if __has_embed(<x>)", Hazard.EMBED),
        (b"#if __has_include(X(1))", Hazard.OPAQUE_QUESTION),
        (b"#define HAS __has_include", Hazard.NONE),
        (b'# pragma GCC dependency "x"', Hazard.FILE_TIME),
        (b"#include X", Hazard.COMPUTED_INCLUDE),
        (b"#include(X)", Hazard.COMPUTED_INCLUDE),
        (b"#include/**/X", Hazard.COMPUTED_INCLUDE),
        (b"/* The\n  #include's protect themselves */", Hazard.NONE),
        (b"#ifdef __has_include\n#endif", Hazard.NONE),
        (b"#if defined(__has_include) && __has_include(<x>)", Hazard.NONE),
        (b"# define __has_include(x) 0", Hazard.NONE),
        (b"int embedded; x.included;", Hazard.NONE),
    ],
)
def test_hazards(text: bytes, hazard: Hazard) -> None:
    assert scan_source(text).hazards == hazard


def test_include_lines_and_questions_are_collected() -> None:
    found = scan_source(
        b'#include "a.h"\n  #  include_next <b.h>\n%:import "c.h"\n// #include <d.h>\n'
        b'#include<e.h>\n#if __has_include ("f.h") || __has_include_next(<g.h>)\n'
    )
    assert found.quoted == (b"a.h", b"c.h")
    assert found.angled == (b"b.h", b"e.h")
    assert found.asked.names == {(True, b"f.h"), (False, b"g.h")}


@pytest.mark.parametrize(
    ("text", "hazard"),
    [
        (b"__DA\\\nTE__", Hazard.DATE_OR_TIME),
        (b"__TIME\\ \r\nSTAMP__", Hazard.TIMESTAMP),
        (b"__TI?" + b"?/\nME__", Hazard.DATE_OR_TIME | Hazard.PASTED_CLOCK),
        (b'.INCBIN "x"', Hazard.ASSEMBLER_FILE),
        (b'asm(".In\\\ncLude \\"x\\"")', Hazard.ASSEMBLER_FILE),
        (b"#if __has_include\\\n(X(1))", Hazard.OPAQUE_QUESTION),
        (b"#if __has_include/* y */(X(1))", Hazard.OPAQUE_QUESTION),
        (b"#if __has_include/*" + b"y" * 500 + b"*/(X(1))", Hazard.OPAQUE_QUESTION),
        (b"#ifdef __has_include // (X)\n", Hazard.NONE),
    ],
)
def test_no_spelling_hides_a_hazard(text: bytes, hazard: Hazard) -> None:
    assert scan_source(text).hazards == hazard


def test_a_question_over_two_lines_is_read() -> None:
    found = scan_source(b'#if __has_\\\ninclude /* a */ \\\n( "f.h")\n')
    assert found.asked.names == {(True, b"f.h")}


def test_header_lines_are_taken_out_of_stderr() -> None:
    text = (
        b". /usr/include/stdio.h\n.. a b.h\na.c:1:2: warning: x\n  1 | ...\n"
        b"Mehrfacher Schutz w\xc3\xa4re gut:\n/usr/include/stdio.h\na b.h\nas: note\n"
    )
    found = strip_headers(text)
    assert found.names == (b"/usr/include/stdio.h", b"a b.h")
    assert found.stderr == b"a.c:1:2: warning: x\n  1 | ...\nas: note\n"
    assert not found.has_pch
    assert strip_headers(b"! a.h.gch\n").has_pch


def _read(*argv: str) -> Invocation:
    found = read_invocation(b"gcc", [a.encode() for a in argv])
    assert isinstance(found, Invocation)
    return found


def test_arguments_for_the_second_run_keep_only_what_decides_the_files() -> None:
    found = _read("-c", "-MMD", "-MF", "x", "-MTq", "-Ii", "-DA", "-o", "a.o", "a.c")
    assert without_outputs(found) == (b"-Ii", b"-DA", b"a.c")
    assert without_outputs(_read("-Wp,-MMD,x", "-c", "a.c")) == (b"a.c",)


_MAP = GuestMap(b"/home/u/p", b"/home/u/p/b", lambda path: path.startswith(b"/usr/"))


def test_guest_arguments_are_rooted_at_src() -> None:
    found = _read(
        "-I/home/u/p/inc",
        "-I",
        "../x",
        "-isystem/usr/include/q",
        "-include",
        "/home/u/p/c.h",
        "-ffile-prefix-map=/home/u/p=.",
        "-DP=/home/u/p",
        "-Wp,-MD,/home/u/p/b/d",
        "-c",
        "../a.c",
        "-o/home/u/p/b/a.o",
    )
    command = GNU.guest_command(found, _MAP, (12,), lambda _flags: True)
    assert command.injected == command.arguments[-2:]
    assert command.arguments == (
        b"-I/src/inc",
        b"-I",
        b"../x",
        b"-isystem/usr/include/q",
        b"-include",
        b"/src/c.h",
        b"-ffile-prefix-map=/src=.",
        b"-DP=/home/u/p",
        b"-Wp,-MD,/src/b/d",
        b"-c",
        b"../a.c",
        b"-o/src/b/a.o",
        b"-ffile-prefix-map=/src=.",
        b"-Werror=date-time",
    )


@pytest.mark.parametrize(
    ("argv", "reason"),
    [
        (("-c", "../../a.c"), "outside-root"),
        (("-c", "/home/u/px/a.c"), "outside-root"),
        (("-c", "a.c", "-isysroot", "/home/u/p"), "sysroot"),
        (("-c", "a.c", "-mtune=native"), "native"),
    ],
)
def test_what_a_guest_cannot_have_is_refused(argv: tuple[str, ...], reason: str) -> None:
    with pytest.raises(NotPortableError) as caught:
        guest_arguments(_read(*argv), _MAP)
    assert caught.value.reason == reason


def test_a_search_directory_that_a_guest_does_not_have_is_left_out() -> None:
    argv = ("-I/opt/x", "-isystem", "../../y", "-idirafter", "/home/u/px", "-I/usr/z", "-c", "a.c")
    assert guest_arguments(_read(*argv), _MAP) == (b"-I/usr/z", b"-c", b"a.c")


def test_a_guests_depfile_becomes_the_clients() -> None:
    data = b"/src/a.o: /src/a.c /usr/include/only-in-image.h b.h\n/usr/include/only-in-image.h:\nb.h:\n"
    text = client_depfile(
        data,
        _MAP.text,
        exists=lambda name: b"image" not in name,
        keeps=lambda name: not name.startswith(b"/usr"),
    )
    assert text == b"/home/u/p/a.o: /home/u/p/a.c b.h\nb.h:\n"
    same = b"a.o: a.c \\\n  b.h\n"
    assert client_depfile(same, _MAP.text, exists=lambda _n: True, keeps=lambda _n: False) == same
    assert guest_text(b"/src/a.c:1: x '/src/b'", b"/r") == b"/r/a.c:1: x '/r/b'"
    assert guest_text(b"/usr/src/a.c", b"/r") == b"/usr/src/a.c"
