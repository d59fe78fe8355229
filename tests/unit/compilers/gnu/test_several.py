"""Which command lines with several sources are split, and into what."""

from __future__ import annotations

import pytest

from hpcc.compilers.gnu.family import GNU
from hpcc.compilers.gnu.several import read_several
from hpcc.compilers.invocation.several import MAX_SOURCES
from hpcc.compilers.msvc.family import msvc_family


def _words(text: str) -> tuple[bytes, ...]:
    return tuple(text.encode().split())


def test_each_source_keeps_all_flags() -> None:
    line = read_several(_words("-O2 -I inc a.c -c -D X b.c -MD c.c"))
    assert line is not None
    assert line.only({0}) == _words("-O2 -I inc a.c -c -D X -MD")
    assert line.only({1, 2}) == _words("-O2 -I inc -c -D X b.c -MD c.c")
    assert line.only({0, 1, 2}) == line.arguments
    assert GNU.several_sources(line.arguments) == line


def test_a_language_before_all_sources_is_that_of_all() -> None:
    line = read_several(_words("-x c -c a.h b.h"))
    assert line is not None
    assert line.only({1}) == _words("-x c -c b.h")


@pytest.mark.parametrize(
    "text",
    [
        "-c a.c",
        "-c",
        "-c a.c b.c -o x.o",
        "-c a.c b.c -MD -MF x.d",
        "-c a.c b.c -Wp,-MMD,x.d",
        "-c a.c b.c -Xpreprocessor -MD",
        "-c a.c -x c++ b.c",
        "-c a.c b.c -gsplit-dwarf",
        "-c a.c b.c --coverage",
        "-c a.c b.c --no-such-flag",
        "-c a.c b.c -o",
        "-c a.c -",
    ],
)
def test_other_lines_stay_whole(text: str) -> None:
    assert read_several(_words(text)) is None


def test_the_number_of_sources_is_bounded() -> None:
    names = tuple(b"%d.c" % number for number in range(MAX_SOURCES))
    assert read_several((b"-c", *names)) is not None
    assert read_several((b"-c", *names, b"last.c")) is None


def test_lines_of_cl_stay_whole() -> None:
    assert msvc_family(b"/bin/cl").several_sources(_words("/c a.c b.c")) is None
