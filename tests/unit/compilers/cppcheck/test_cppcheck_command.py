"""What a command line of cppcheck means, which ones are refused, and who answers as cppcheck."""

from __future__ import annotations

import pytest

from hpcc.compilers.cppcheck.family import CPPCHECK
from hpcc.compilers.cppcheck.invocation import CppcheckInvocation, read_cppcheck
from hpcc.compilers.families import family_of, family_that_answers, tool_that_answers
from hpcc.compilers.invocation.invocation import Language, Product
from hpcc.compilers.spec.table import Bypass

ANSWER = b"""looking for '/usr/lib/cppcheck/cppcheck.cfg'
looking for library 'std.cfg'
looking for library '/usr/bin/std.cfg'
looking for library '/usr/bin/cfg/std.cfg'
looking for library '/usr/lib/cppcheck/cfg/std.cfg'
<results version="2">
    <cppcheck version="2.17.1"/>
"""


def _read(line: str) -> CppcheckInvocation | str:
    found = read_cppcheck(line.encode().split())
    return str(found.reason) if isinstance(found, Bypass) else found


def test_only_its_own_names_are_cppcheck() -> None:
    for name in (b"cppcheck", b"/usr/bin/cppcheck", b"/x/cppcheck-2.17"):
        assert family_of(name, ()) is CPPCHECK
    for name in (b"cppcheck-htmlreport", b"my-cppcheck", b"cppcheck.py", b"cpp"):
        assert family_of(name, ()) is not CPPCHECK


def test_an_answer_shows_version_and_places() -> None:
    assert tool_that_answers(ANSWER) == (CPPCHECK, 217)
    places = (b"/usr/bin", b"/usr/bin/cfg", b"/usr/lib/cppcheck/cfg")
    assert CPPCHECK.config_directories(ANSWER) == places
    # It found a file earlier, and did not show the last place.
    assert tool_that_answers(ANSWER.replace(b"/usr/lib/cppcheck/cfg/std.cfg", b"")) is None
    assert tool_that_answers(ANSWER.replace(b"2.17.1", b"x")) is None
    assert family_that_answers(ANSWER) is None  # no driver is cppcheck
    found = _read("a.cc")
    assert isinstance(found, CppcheckInvocation)
    assert CPPCHECK.check_versions(found, 217) is None
    for version in (216, 218, 19):
        assert CPPCHECK.check_versions(found, version) is not None


def test_a_command_names_what_it_reads() -> None:
    found = _read(
        "--enable=style -DX -D Y=1 -UZ -Iinc -I ../more --library=own,/abs/l --library=gnu "
        "--suppressions-list=s.txt --suppress-xml=s.xml --include=f.h --platform=unix64 ./src/a.c"
    )
    assert isinstance(found, CppcheckInvocation)
    assert (found.source, found.language) == (b"./src/a.c", Language.C)
    assert (found.product, found.output, found.depfile) == (Product.MESSAGES, b"", None)
    assert found.arguments[0] == b"--enable=style"
    unlisted = CPPCHECK.unlisted(found, (b"/bin", b"/lib/cfg"))
    assert unlisted is not None
    assert unlisted.directories == (b"inc", b"../more")
    assert unlisted.forced == (b"f.h",)
    assert unlisted.forbidden == (
        b"/files.txt", b"/bin/cppcheck.cfg", b"/lib/cfg/cppcheck.cfg", b"/cppcheck.cfg", b"/lib/cppcheck.cfg",
    )  # fmt: skip
    libraries = {
        b"std.cfg",
        b"/bin/std.cfg",
        b"/lib/cfg/std.cfg",
        b"own",
        b"own.cfg",
        b"/bin/own.cfg",
    }
    libraries |= {b"/abs/l", b"/abs/l.cfg", b"/lib/cfg/gnu.cfg", b"s.txt", b"s.xml"}
    assert libraries <= set(unlisted.data)
    assert not any(name.startswith((b"/bin/abs", b"/bin/l")) for name in unlisted.data)


@pytest.mark.parametrize(
    "line",
    [
        "", "a.cc b.cc", "src", "a.h", "src/../a.cc", "src//a.cc", 'a"b.cc', "-", "--version", "-h a.cc",
        "--dump a.cc", "--cppcheck-build-dir=b a.cc", "--output-file=o a.cc", "--plist-output=. a.cc",
        "--checkers-report=r a.cc", "--addon=misra a.cc", "--clang a.cc", "--clang=clang a.cc",
        "--project=p.json", "--file-list=l", "--file-filter=* a.cc", "--includes-file=i a.cc",
        "--config-excludes-file=c a.cc", "--rule-file=r a.cc", "--rule=x a.cc", "-j2 a.cc", "-j 2 a.cc",
        "-ia a.cc", "-i a a.cc", "-rp a.cc", "--relative-paths=. a.cc", "--showtime=summary a.cc",
        "--checks-max-time=1 a.cc", "--template-max-time=1 a.cc", "--typedef-max-time=1 a.cc",
        "--performance-valueflow-max-time=1 a.cc", "--report-progress a.cc", "-E a.cc", "--debug a.cc",
        "--exception-handling a.cc", "--platform=arm32 a.cc", "--platform=unix32-unsigned a.cc",
        "--library= a.cc", "--library=gnu, a.cc", "--enable a.cc", "--unknown=1 a.cc", "-Ia\\b a.cc",
        "-DT=__TIME__ a.cc", "-DH(x)=__has_include(x) a.cc", "-DP(a,b)=a##b a.cc", "--xml=1 a.cc",
        "-DA=__TI a.cc", "-D B=TIME__ a.cc", "-DA=1;B=DA a.cc", "-DA=__has_ a.cc",
    ],
)  # fmt: skip
def test_other_forms_are_refused(line: str) -> None:
    assert _read(line) == "analyser"


@pytest.mark.parametrize(
    ("library", "more"),
    [
        ("", False),
        ('<define name="T(a)" value="void __ ## a ( )"/><x name="__TI"/>', False),
        ('<define name="A" value="__TIME__"/>', True),
        ("<define name='A' value='> &quot; __TI'/>", True),
        ('<define name="A ME__" value=""/>', True),
        ('<define name="A" value="_has_include"/>', True),
        ('<define name="' + "x" * 2000 + '" value=""/>', True),
        ("<define " * 5000, True),
    ],
)  # fmt: skip
def test_a_library_may_define_no_piece_of_a_clock_or_question(library: str, more: bool) -> None:
    assert CPPCHECK.config_names_more(library.encode()) is more


def test_a_missing_value_is_refused() -> None:
    for line in ("a.cc -I", "-D -q a.cc"):
        assert _read(line) == "missing-value"
