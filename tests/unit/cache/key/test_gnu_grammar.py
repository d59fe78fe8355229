"""Compiler versions, files that flags name, specs files, and the meaning of "native"."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from hpcc.cache.base.files import FileMemo
from hpcc.cache.base.uncacheable import UncacheableError
from hpcc.cache.host.native_flags import NativeFlags
from hpcc.cache.inputs.closure_types import Closure
from hpcc.cache.inputs.flag_inputs import with_names
from hpcc.compilers.gnu.family import GNU
from hpcc.compilers.gnu.flags import GNU_FLAGS
from hpcc.compilers.gnu.invocation import read_invocation
from hpcc.compilers.gnu.specs import is_tame
from hpcc.compilers.invocation.guest import GuestMap, NotPortableError, guest_arguments
from hpcc.compilers.invocation.inputs import files_looked_for
from hpcc.compilers.invocation.invocation import Invocation
from hpcc.compilers.invocation.versions import check_versions
from hpcc.compilers.spec.table import CLANG_MAJORS, GCC_MAJORS, Bypass


def _read(argv: str) -> Invocation:
    found = read_invocation(b"gcc", argv.encode().split())
    assert isinstance(found, Invocation), found
    return found


@pytest.mark.parametrize(
    ("argv", "is_clang", "major", "reason"),
    [
        ("-O2 -g -Wall -Iinc -DA -std=c11 -MD -MF x -fPIC -march=x86-64 -c a.c", False, 99, ""),
        ("-O2 -fno-exceptions -fvisibility=hidden -gdwarf-5 -m64 -c a.c", True, 22, ""),
        ("-fnobody-has-seen-this -c a.c", False, 14, ""),
        ("-fnobody-has-seen-this -c a.c", False, 16, "unproved-compiler"),
        ("-fnobody-has-seen-this -c a.c", True, 23, "unproved-compiler"),
        ("-mnew-thing=x -c a.c", True, 13, "unproved-compiler"),
        ("-gnew -c a.c", False, 11, "unproved-compiler"),
        ("-fprofile-use -c a.c", False, 16, "unproved-compiler"),
        ("-S a.c", True, 23, "unproved-compiler"),
        ("-specs=x -c a.c", True, 19, "flag-of-another-compiler"),
        ("-Xclang -disable-llvm-passes -c a.c", False, 14, "flag-of-another-compiler"),
        ("-frecord-gcc-switches -c a.c", True, 14, "record-switches"),
        ("-g -grecord-gcc-switches -c a.c", True, 19, "record-switches"),
        ("-g -grecord-gcc-switches -c a.c", False, 14, ""),
        ("-frecord-gcc-switches -c a.c", False, 14, ""),
        ("-fmemory-profile-use=x -c a.c", True, 14, "flag-of-another-compiler"),
        ("--warning-suppression-mappings=x -c a.c", True, 19, "flag-of-another-compiler"),
        ("--warning-suppression-mappings=x -c a.c", True, 20, ""),
    ],
)
def test_only_what_is_known_of_a_version_is_cached(
    argv: str, is_clang: bool, major: int, reason: str
) -> None:
    found = check_versions(_read(argv), is_clang=is_clang, major=major)
    assert found == (Bypass(reason) if reason else None)


def test_every_row_says_which_versions_have_it() -> None:
    for row in GNU_FLAGS.rows:
        assert set(row.gcc) <= set(GCC_MAJORS)
        assert set(row.clang) <= set(CLANG_MAJORS)
        assert row.gcc or row.clang, row.spelling
        assert not row.is_stable or (row.gcc, row.clang) == (GCC_MAJORS, CLANG_MAJORS)


@pytest.mark.parametrize(
    ("argv", "is_clang", "expected"),
    [
        ("-c a.c", True, ""),
        ("-fprofile-use -c d/a.c -o o/x.y.o", False, "o/x.y.gcda"),
        ("-fprofile-use -c d/a.c", False, "a.gcda"),
        ("-fprofile-use=p -c a.c -o ../x.o", False, "../x.gcda p/#w#^#x.gcda p/#v#^#x.gcda"),
        ("-fprofile-use=p -c a.c -o /o/x.o", False, "/o/x.gcda p//o/x.gcda"),
        ("-fbranch-probabilities -fprofile-dir=p -c a.c", False, "a.gcda p/#w#a.gcda p/#v#a.gcda"),
        ("-fauto-profile -c a.c", False, "fbdata.afdo"),
        ("-fauto-profile=x -c a.c", False, "x"),
        ("-fprofile-use -c a.c", True, "default.profdata"),
        ("-fprofile-use= -c a.c", True, "default.profdata"),
        ("-fprofile-use=d -c a.c", True, "d d/default.profdata"),
        ("-fprofile-instr-use -c a.c", True, "default.profdata"),
        ("-fprofile-sample-use=d -fprofile-list=l -c a.c", True, "d l"),
        ("-fsanitize-ignorelist=a -fxray-attr-list=b -c a.c", True, "a b"),
    ],
)
def test_files_that_flags_make_a_compile_look_for(argv: str, is_clang: bool, expected: str) -> None:
    found = files_looked_for(_read(argv), is_clang=is_clang, directories=(b"/w", b"/v"))
    assert isinstance(found, tuple)
    assert b" ".join(found).decode() == expected


@pytest.mark.parametrize(
    ("argv", "is_clang", "reason"),
    [
        ("-fprofile-use=- -c a.c", True, "odd-input"),
        ("-fsanitize-ignorelist= -c a.c", True, "odd-input"),
        ("-fprofile-use -fprofile-prefix-path=/w -c a.c", False, "profile"),
    ],
)
def test_files_that_cannot_be_named(argv: str, is_clang: bool, reason: str) -> None:
    found = files_looked_for(_read(argv), is_clang=is_clang, directories=(b"/w",))
    assert found == Bypass(reason)


@pytest.mark.parametrize("flag", ["-fprofile-use", "-fsanitize-ignorelist=x", "-Bx", "-specs=x"])
def test_a_guest_does_not_have_the_files(flag: str) -> None:
    guest = GuestMap(b"/w", b"/w", lambda _path: False)
    with pytest.raises(NotPortableError) as error:
        guest_arguments(_read(f"{flag} -c a.c"), guest)
    assert error.value.reason == "extra-input"


_PIE = b"*self_spec:\n+ %{!r:%{!fpie:%{!fPIE:%{!fpic:%{!fPIC:%{!fno-pic:-fPIE}}}}}}\n"
_NANO = (
    b"%rename link nano_link\n%rename cpp_unique_options nano_cpp_unique_options\n\n"
    b"*cpp_unique_options:\n-isystem =/include/newlib-nano %(nano_cpp_unique_options)\n\n"
    b"*nano_libc:\n-lc_nano\n\n*link:\n%(nano_link) %:replace-outfile(-lc -lc_nano)\n"
)


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        (b"", True),
        (_PIE, True),
        (_NANO, True),
        (b"# a comment\n*cc1_options:\n+ %{!O*:-O2; g:-g3; :-g}\n", True),
        (b"*link:\n%{static:-Bstatic} %:getenv(HOME /x)\n", True),
        (b"%include <x>\n", False),
        (b"*cc1_options:\n+ -O2\n\n%include <x>\n", False),
        (b"*link:\n-x\n\n.c:\ngcc -c %i\n", False),
        (b"*link:\n-x\n\n@c:\nevil\n", False),
        (b"*cc1_options:\n-O2\n", False),
        (b"*cc1_options:\n+ %:getenv(HOME /x)\n", False),
        (b"*cc1_options:\n+ -include x%s\n", False),
        (b"*cc1_options:\n+ -include x\n", False),
        (b"*cc1_options:\n+ -fplugin=x\n", False),
        (b"*cc1_options:\n+ -fplugin=x:\n", False),
        (b"*cc1_options:\n+ %{O2:-fplugin=x}\n", False),
        (b"*cc1_options:\n+ %{O2:-g;:-fprofile-use}\n", False),
        (b"*cc1_options:\n+ -march=native\n", False),
        (b"*cc1_options:\n+ -DNOW=__TIME__\n", False),
        (b"*cc1_options:\n+ -O2 file.c\n", False),
        (b"*asm_final:\n+ -O2\n", False),
        (b"*cc1_options:\n+ \\\n-fplugin=x\n", False),
    ],
)
def test_a_specs_file_that_only_adds_known_flags(text: bytes, expected: bool) -> None:
    assert is_tame(text) is expected


def _native(driver: Path, cpu: str) -> bytes:
    driver.write_text(f'#!/bin/sh\necho \' "/x/cc1" "-quiet" "-march={cpu}"\' >&2\n')
    driver.chmod(0o755)
    found = NativeFlags().resolve(
        _read("-march=native -c a.c"),
        GNU,
        b"one compiler",
        os.fsencode(driver),
        {b"PATH": b"/usr/bin:/bin"},
    )
    assert isinstance(found, bytes)
    return found


def test_native_is_what_the_compiler_makes_of_it(tmp_path: Path) -> None:
    driver = tmp_path / "gcc"
    first = _native(driver, "znver3")
    assert first == _native(driver, "znver3")
    assert first != _native(driver, "znver4")


def test_a_compiler_that_does_not_say_what_native_is(tmp_path: Path) -> None:
    driver = tmp_path / "gcc"
    driver.write_text("#!/bin/sh\nexit 0\n")
    driver.chmod(0o755)
    read = _read("-mcpu=native+crypto -c a.c")
    ask = NativeFlags().resolve
    assert ask(read, GNU, b"another", os.fsencode(driver), {}) == Bypass("native")
    assert ask(_read("-c a.c"), GNU, b"another", os.fsencode(driver), {}) == b""


_AFTER = 1 << 62  # a compile that began long after


def _track(directory: Path, *names: str) -> Closure:
    return with_names(
        Closure((), (), ()),
        [n.encode() for n in names],
        memo=FileMemo(lambda: _AFTER),
        cwd=os.fsencode(directory),
        started_ns=_AFTER,
    )


def test_names_are_tracked_by_content_or_absence(tmp_path: Path) -> None:
    (tmp_path / "there").write_text("x")
    (tmp_path / "directory").mkdir()
    names = ("there", "gone", "directory/", "deep/down/gone", "there/below")
    # Nothing is old enough to be believed by its stat: two changes may share a tick of the clock.
    memo = FileMemo(lambda: 0)
    closure = _track(tmp_path, *names)
    assert [os.path.basename(path) for path, _ in closure.files] == [b"there"]
    assert all(a.holds(memo) for a in closure.absences)
    (tmp_path / "gone").touch()
    assert _broken(closure, memo) == 1
    (tmp_path / "deep").mkdir()
    assert _broken(closure, memo) == 2
    (tmp_path / "directory").rmdir()
    (tmp_path / "directory").touch()
    assert _broken(closure, memo) == 3
    (tmp_path / "there").unlink()
    (tmp_path / "there").mkdir()
    assert _broken(closure, memo) == 4


def _broken(closure: Closure, memo: FileMemo) -> int:
    return sum(not a.holds(memo) for a in closure.absences)


def test_odd_files_are_not_tracked(tmp_path: Path) -> None:
    (tmp_path / "dangling").symlink_to("nowhere")
    os.mkfifo(tmp_path / "pipe")
    for name, reason in (("dangling", "directory-link"), ("pipe", "special-input")):
        with pytest.raises(UncacheableError) as error:
            _track(tmp_path, name)
        assert error.value.reason == reason


def test_a_file_written_during_the_compile_is_not_tracked(tmp_path: Path) -> None:
    (tmp_path / "new").write_text("x")
    with pytest.raises(UncacheableError) as error:
        with_names(
            Closure((), (), ()),
            [b"new"],
            memo=FileMemo(lambda: _AFTER),
            cwd=os.fsencode(tmp_path),
            started_ns=0,
        )
    assert error.value.reason == "modified-during-compile"
