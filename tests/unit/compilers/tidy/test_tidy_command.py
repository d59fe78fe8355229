"""What a command line of clang-tidy means, and which ones are refused."""

from __future__ import annotations

import pytest

from hpcc.compilers.families import family_of
from hpcc.compilers.invocation.database import DatabaseEntry, with_entry
from hpcc.compilers.invocation.invocation import Language
from hpcc.compilers.spec.table import Bypass
from hpcc.compilers.tidy.config import names_more
from hpcc.compilers.tidy.family import TIDY
from hpcc.compilers.tidy.invocation import TidyInvocation, read_tidy


def _read(line: str, entry: DatabaseEntry | None = None) -> TidyInvocation | str:
    words = line.encode().split()
    found = read_tidy(words if entry is None else with_entry(words, entry))
    if isinstance(found, Bypass):
        return str(found.reason)
    assert isinstance(found, TidyInvocation)
    return found


def test_only_its_own_names_are_clang_tidy() -> None:
    for name in (b"clang-tidy", b"/usr/bin/clang-tidy-19", b"/x/clang-tidy-19.1"):
        assert family_of(name, ()) is TIDY
    for name in (b"clang-tidy-diff.py", b"run-clang-tidy", b"my-clang-tidy", b"clang"):
        assert family_of(name, ()) is not TIDY


def test_a_command_behind_dashes_is_a_check_of_the_source() -> None:
    found = _read(
        "--extra-arg-before=--driver-mode=g++ --extra-arg=-DB -extra-arg-before -DA a.c -- "
        "/usr/bin/c++ -Iinc -MD -MT t -MF x.d -ox.o -c a.c"
    )
    assert isinstance(found, TidyInvocation)
    assert (found.language, found.source, found.output) == (Language.CXX, b"a.c", b"")
    assert found.include_dirs == (b"inc",)
    assert found.macros == (b"A", b"B")
    assert found.search_arguments == (b"--driver-mode=g++",)
    assert found.depfile is None
    assert found.arguments[-1] == b"a.c"


def test_the_name_of_exported_fixes_is_not_in_the_key() -> None:
    keys = set()
    for words in (
        "--export-fixes=x.yaml a.c --checks -* -- -DX",
        "-export-fixes y a.c --checks -* -- -DX",
    ):
        found = _read(words)
        assert isinstance(found, TidyInvocation)
        keys.add(found.key_arguments)
    assert keys == {(b"\0exports", b"a.c", b"--checks", b"-*", b"--", b"-DX")}
    # A value is never taken for the option.
    found = _read("--checks --export-fixes=x a.c -- -DX")
    assert isinstance(found, TidyInvocation)
    assert found.key_arguments == found.arguments


def test_response_files_of_a_command_must_be_blank() -> None:
    found = _read("a.cc -- c++ @CMakeFiles/x.modmap -c a.cc @y")
    assert isinstance(found, TidyInvocation)
    assert found.blank_files == (b"CMakeFiles/x.modmap", b"y")
    assert b"@y" not in [word for part in found.flags for word in part.raw]
    entry = DatabaseEntry(b"/w", b"/w/build", (b"/usr/bin/g++", b"-c", b"../a.c", b"@m"))
    found = _read("-p build a.c", entry)
    assert isinstance(found, TidyInvocation)
    assert (found.source, found.blank_files) == (b"../a.c", (b"m",))


def test_without_a_mode_the_suffix_chooses_the_language() -> None:
    found = _read("a.c -- c++ -Iinc")
    assert isinstance(found, TidyInvocation)
    assert (found.language, found.search_arguments) == (Language.C, ())


def test_the_compiler_of_an_entry_is_the_driver() -> None:
    entry = DatabaseEntry(b"/w", b"/w/build", (b"/usr/bin/g++", b"-I../i", b"-c", b"../a.c"))
    found = _read("-p build a.c", entry)
    assert isinstance(found, TidyInvocation)
    assert (found.language, found.source, found.directory) == (Language.CXX, b"../a.c", b"/w/build")
    assert found.search_arguments == (b"/usr/bin/g++",)
    assert b"/w/build" in found.arguments


def test_a_compiler_without_a_directory_is_a_driver_of_the_root() -> None:
    found = _read("-p . a.cc", DatabaseEntry(b"/w", b"/w", (b"c++", b"-c", b"a.cc")))
    assert isinstance(found, TidyInvocation)
    assert TIDY.installation_roots(found) == (b"/",)
    wrapped = (b"distcc", b"/usr/bin/ccache", b"c++", b"-c", b"a.cc")
    again = _read("-p . a.cc", DatabaseEntry(b"/w", b"/w", wrapped))
    assert isinstance(again, TidyInvocation)
    assert again.search_arguments == found.search_arguments == (b"c++",)
    assert again.key_arguments != found.key_arguments


@pytest.mark.parametrize(
    ("line", "reason"),
    [
        ("a.cc b.cc --", "analyser"),
        ("--fix a.cc --", "analyser"),
        ("--load=x.so a.cc --", "analyser"),
        ("--vfsoverlay=x a.cc --", "analyser"),
        ("--quiet=false a.cc --", "analyser"),
        ("-p a -p b a.cc --", "analyser"),
        ("@x --", "analyser"),
        # A response file may stand in place of a value, and of a compiler.
        ("a.cc --checks @x --", "analyser"),
        ("-p @x a.cc --", "analyser"),
        ("-p @x a.cc", "analyser"),
        ("--config-file @x a.cc --", "analyser"),
        ("--export-fixes @x a.cc --", "analyser"),
        ("a.cc -- @x/c++ -c a.cc", "analyser"),
        ("a.cc -- -I @x", "analyser"),
        ("a.cc -- -D --driver-mode=g++ x", "analyser"),
        ("a.cc --extra-arg=@x --", "analyser"),
        ("a.cc -- -c b.cc", "analyser"),
        ("a.cc -- tool -c a.cc", "analyser"),
        ("a.cc --extra-arg=a.cc --", "analyser"),
        ("a.cc -- --driver-mode=cl", "analyser"),
        # What clang-tidy would drop, or take for the source, is the value of another flag here.
        ("a.cc -- -I -MD", "analyser"),
        ("a.cc -- -I a.cc", "analyser"),
        ("a.cc -- -D -ox", "analyser"),
        ("a.cc -- -Wp,-MMD,x", "analyser"),
        ("a.cc -- -fstack-usage", "analyser"),
        ("a.h --", "analyser"),
        ("a.cc -- -fplugin=x", "plugin"),
        ("a.cc -- -E", "preprocess-only"),
        ("a.cc -- -march=native", "native"),
        ("a.cc -- --no-such-flag", "unknown-flag"),
        ("a.cc --checks", "missing-value"),
        ("--export-fixes=- a.cc --", "odd-output"),
        ("--export-fixes=d/ a.cc --", "odd-output"),
        ("--export-fixes=x --export-fixes=y a.cc --", "analyser"),
        ("a.cc", "analyser-database"),
        ("-p build a.cc", "analyser-database"),
    ],
)
def test_other_forms_are_refused(line: str, reason: str) -> None:
    assert _read(line) == reason


@pytest.mark.parametrize(
    "words",
    [
        (b"./c++", b"-c", b"a.cc"),
        (b"bin/c++", b"-c", b"a.cc"),
        (b"/usr/bin/sccache", b"c++", b"-c", b"a.cc"),
        (b"@x/ccache", b"c++", b"a.cc"),
        (b"ccache", b"@x/c++", b"a.cc"),
        (b"ccache", b"-c", b"a.cc"),
        (b"ccache", b"g++-4.8", b"-c", b"a.cc"),
        (b"ccache",),
        (b"/usr/bin/c++", b"-c", b"b.cc"),
        (b"/usr/bin/c++", b"-c", b"a.cc", b"b.cc"),
        (b"/usr/bin/c++", b"-c"),
        (),
    ],
)
def test_entries_of_another_form_are_refused(words: tuple[bytes, ...]) -> None:
    assert _read("-p . a.cc", DatabaseEntry(b"/w", b"/w", words)) == "analyser-database"
    assert (
        _read("-p . a.cc", DatabaseEntry(b"/w", b"w", (b"/usr/bin/c++", b"a.cc")))
        == "analyser-database"
    )


@pytest.mark.parametrize(
    ("text", "more"),
    [
        (b"Checks: '-*,clang-analyzer-*,-clang-analyzer-core.NullDereference'\n", False),
        (b"CheckOptions:\n  clang-analyzer-unix.DynamicMemoryModeling:Optimistic: true\n", False),
        (b"HeaderFilterRegex: 'src/\\w+\\.h'\n", False),
        (b"ExtraArgs: [-DX]\n", True),
        (b"RemovedArgs: [-nostdinc]\n", True),
        (b'"Extra\\x41rgs": [-DX]\n', True),
        (b'"Extra\\\nArgs": [-DX]\n', True),
        (b"CheckOptions: {clang-analyzer-ctu-dir: x}\n", True),
        (b"CheckOptions: {clang-analyzer-optin.taint.TaintPropagation:Config: x}\n", True),
        (b"#" * (1 << 20) + b"#", True),
    ],
)
def test_configurations_that_name_more_are_known(text: bytes, more: bool) -> None:
    assert names_more(text) is more
