"""Which command lines may use files without the text of their comments."""

from __future__ import annotations

import pytest

from hpcc.compilers.gnu.invocation import read_invocation
from hpcc.compilers.invocation.comment_flags import comments_are_invisible, lex_mode
from hpcc.compilers.invocation.invocation import Invocation
from hpcc.compilers.scan.comments import LexMode


def _invocation(line: str, program: bytes = b"gcc") -> Invocation:
    parsed = read_invocation(program, tuple(line.encode().split()))
    assert isinstance(parsed, Invocation), parsed
    return parsed


def _allowed(line: str, *, is_clang: bool, major: int = 0) -> bool:
    return comments_are_invisible(
        _invocation(line),
        is_clang=is_clang,
        major=major or (19 if is_clang else 14),
        has_hidden_flags=False,
    )


_ORDINARY = [
    "-c a.c",
    "-O2 -Wall -Wextra -Werror -std=gnu11 -DX=1 -UY -Ia -isystem b -iquote c -c a.c -o b.o",
    "-c a.cc -std=c++20 -fno-exceptions -fPIC -MD -MF a.d -MT x -MP -include c.h",
    "-c a.c -Wp,-MMD,a.d -Wp,-D_FORTIFY_SOURCE=2 -march=native -m64 -fstack-protector-strong -pipe",
    "-c a.c -Wimplicit-fallthrough=3 -Wimplicit-fallthrough -Wcomment -g0 -w -fsanitize=undefined,null",
    "-c a.c -ffile-prefix-map=/a=/b -fvisibility=hidden -fdiagnostics-color=always -pthread",
]


@pytest.mark.parametrize("line", _ORDINARY)
def test_ordinary_flags_do_not_show_comments(line: str) -> None:
    assert _allowed(line, is_clang=False)
    assert _allowed(line, is_clang=True)


_SHOWING = [
    "-C", "-CC", "-S", "-save-temps", "-fverbose-asm", "--coverage", "-fprofile-arcs", "-ftest-coverage",
    "-fprofile-generate", "-fprofile-use", "-fdirectives-only", "-fpreprocessed", "-fanalyzer", "-Wa,-ahl",
    "-flto", "-Wdocumentation", "-Weverything", "-Wno-error=documentation", "-Werror=documentation",
    "-Wimplicit-fallthrough=1", "-Werror=implicit-fallthrough=1", "-Wtrailing-whitespace",
    "-fparse-all-comments", "-traditional-cpp", "-fms-extensions", "-fplugin=x.so", "-specs=x", "-Bx",
    "-Xclang -verify", "-Xpreprocessor -C", "-Wp,-C", "-Wp,-CC", "-Wp,-DA=/*", "-std=gnu23x", "-std=c++17",
    "-finput-charset=latin1", "-gsplit-dwarf", "-gcodeview", "-fstack-usage", "-gembed-source",
    "-fcoverage-mapping", "-trigraphs", "--target=x86_64-pc-windows-msvc", "-funknown", "-x objective-c",
    "-x assembler-with-cpp", "-fno-integrated-as", "-fdebug-macro", "-fmodules", "-fsanitize=fuzzer",
]  # fmt: skip


@pytest.mark.parametrize("flag", _SHOWING)
@pytest.mark.parametrize("is_clang", [False, True])
def test_other_flags_use_the_bytes_of_each_file(flag: str, *, is_clang: bool) -> None:
    parsed = read_invocation(b"gcc", (*flag.encode().split(), b"-c", b"a.c"))
    if isinstance(parsed, Invocation):
        major = 19 if is_clang else 14
        assert lex_mode(parsed, is_clang=is_clang, major=major, has_hidden_flags=False) is None


def test_clang_hashes_files_for_every_debug_format_but_dwarf_4() -> None:
    for debug in ("-g", "-g1", "-gdwarf-5", "-g -gdwarf-5 -gdwarf-4", "-ggdb", "-gmlt", "-gdwarf"):
        assert not _allowed(debug + " -c a.c", is_clang=True), debug
    for debug in ("-g0", "-g -gdwarf-4", "-gdwarf-4 -g", "-gdwarf-4 -g3", "-gdwarf-4"):
        assert _allowed(debug + " -c a.c", is_clang=True), debug
    for debug in ("-g", "-g3", "-ggdb", "-ggdb3", "-gdwarf-5", "-gdwarf-2"):
        assert _allowed(debug + " -c a.c", is_clang=False), debug


def test_only_proved_compilers_without_hidden_flags_are_on_the_list() -> None:
    for major, is_proved in ((11, False), (12, True), (14, True), (15, False)):
        assert _allowed("-c a.c", is_clang=False, major=major) is is_proved
    for major, is_proved in ((13, False), (14, True), (16, False), (22, True), (23, False)):
        assert _allowed("-c a.c", is_clang=True, major=major) is is_proved
    assert not comments_are_invisible(
        _invocation("-c a.c"), is_clang=True, major=19, has_hidden_flags=True
    )


@pytest.mark.parametrize(
    ("line", "has_line_comments", "has_digit_separators"),
    [
        ("-c a.c", True, False),
        ("-c a.cc", True, True),
        ("-ansi -c a.c", False, False),
        ("-std=c89 -c a.c", False, False),
        ("-std=iso9899:199409 -c a.c", False, False),
        ("-std=c17 -ansi -c a.c", False, False),
        ("-ansi -std=c17 -c a.c", True, False),
        ("--std=gnu90 -c a.c", True, False),
        ("-std=gnu2x -c a.c", True, True),
        ("-std=c++11 -c a.cc", True, False),
        ("-ansi -c a.cc", True, False),
        ("-std=gnu++1y -c a.cc", True, True),
        ("-x c++ -std=c++26 -c a.c", True, True),
    ],
)
def test_the_standard_decides_how_files_are_read(
    line: str, *, has_line_comments: bool, has_digit_separators: bool
) -> None:
    has_raw_strings = (line.endswith(".cc") and "ansi" not in line) or "c++26" in line
    for is_clang, major in ((False, 12), (True, 17)):
        assert lex_mode(
            _invocation(line), is_clang=is_clang, major=major, has_hidden_flags=False
        ) == LexMode(
            has_line_comments=has_line_comments,
            has_digit_separators=has_digit_separators,
            has_raw_strings=has_raw_strings,
            has_doc_comments=False,
            shows_line_comments="gnu90" in line,
            reads_fall_through=False,
            is_clang=is_clang,
            keeps_end=False,
            keeps_lines=False,
        )


@pytest.mark.parametrize(
    ("flags", "expected"),
    [
        ("-O2 -Wall -g -Werror -pedantic", False),
        ("-Wextra", True),
        ("-W", True),
        ("-Werror=extra", True),
        ("-Wimplicit-fallthrough", True),
        ("-Wimplicit-fallthrough=3", True),
        ("-Werror=implicit-fallthrough", True),
        ("-Wextra -Wno-implicit-fallthrough", True),
    ],
)
def test_a_flag_makes_gcc_read_marks_of_cases(flags: str, *, expected: bool) -> None:
    line = _invocation(f"{flags} -c a.c")
    for is_clang, major in ((False, 14), (True, 17)):
        mode = lex_mode(line, is_clang=is_clang, major=major, has_hidden_flags=False)
        if is_clang and "-g" in flags:
            continue  # a hash of each file
        assert mode is not None
        assert mode.reads_fall_through is (expected and not is_clang)


@pytest.mark.parametrize(
    ("line", "keeps_end", "keeps_lines"),
    [
        ("-O2 -c a.c", False, False),
        ("-O2 -g0 -c a.cc", False, False),
        ("-O2 -g -c a.c", False, True),
        ("-O2 -g3 -c a.cc", True, True),
        ("-fsanitize=undefined -c a.c", False, True),
        ("-fsanitize=address -c a.cc", True, True),
    ],
)
def test_debug_information_holds_lines(line: str, *, keeps_end: bool, keeps_lines: bool) -> None:
    mode = lex_mode(_invocation(line), is_clang=False, major=14, has_hidden_flags=False)
    assert mode is not None
    assert (mode.keeps_end, mode.keeps_lines) == (keeps_end, keeps_lines)
