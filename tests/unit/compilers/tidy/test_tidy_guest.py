"""The command of a run of clang-tidy in a guest: the same meaning, with the guest's names."""

from __future__ import annotations

import json

import pytest

from hpcc.compilers.invocation.database import DatabaseEntry, with_entry
from hpcc.compilers.invocation.guest import GuestMap, NotPortableError
from hpcc.compilers.invocation.invocation import Invocation
from hpcc.compilers.tidy.family import TIDY
from hpcc.compilers.tidy.guest import TidyAnalyser

ROOT = b"/home/me/p"
BUILD = ROOT + b"/build"
GUEST = GuestMap(ROOT, BUILD, lambda path: path.startswith(b"/usr/"), ROOT, b"/src" + ROOT)
MAP = "-fmacro-prefix-map=/src/home/me/p=/home/me/p"


def _read(*words: str, entry: tuple[str, ...] = ()) -> Invocation:
    arguments = tuple(word.encode() for word in words)
    if entry:
        command = tuple(word.encode() for word in entry)
        arguments = with_entry(arguments, DatabaseEntry(ROOT, BUILD, command))
    found = TIDY.read(b"clang-tidy", arguments)
    assert isinstance(found, Invocation), found
    return found


def _argv(found: Invocation) -> list[str]:
    return [word.decode() for word in TidyAnalyser().guest_command(found, GUEST).arguments]


def test_a_command_of_cmake() -> None:
    own = ("--extra-arg-before=--driver-mode=g++", "--quiet", "--extra-arg=-I/home/me/p/x")
    flags = ("-I/home/me/p/inc", "-isystem", "/usr/include/z", "-I", "../y", "-o", "x.o", "-c")
    source = "/home/me/p/a.cc"
    assert _argv(_read(*own, source, "--", "/usr/bin/c++", *flags, source)) == [
        "--quiet", "/src/home/me/p/a.cc", "--extra-arg-before=--driver-mode=g++",
        "--extra-arg=-I/src/home/me/p/x", "--", MAP,
        "-I/src/home/me/p/inc", "-isystem", "/usr/include/z", "-I", "../y",
    ]  # fmt: skip


def test_an_entry_of_a_database() -> None:
    entry = ("ccache", "/usr/bin/c++", "-I../inc", "-o", "a.o", "-c", "/home/me/p/a.cc")
    found = _read("-p", "build", "--checks=", "a.cc", entry=entry)
    assert _argv(found) == ["--p=build", "--checks=", "a.cc"]
    ((path, text),) = TidyAnalyser().made_files(found, GUEST).items()
    assert path == BUILD + b"/compile_commands.json"
    assert json.loads(text) == [
        {
            "directory": "/src/home/me/p/build",
            "arguments": ["/usr/bin/c++", MAP, "-I../inc", "/src/home/me/p/a.cc"],
            "file": "/src/home/me/p/a.cc",
        }
    ]
    assert TidyAnalyser().working_directory(found) == ROOT


@pytest.mark.parametrize(
    "words",
    [
        ("--header-filter=src/.*", "a.cc", "--"),
        ("--line-filter=[]", "a.cc", "--"),
        ("--system-headers", "a.cc", "--"),
        ("--config={HeaderFilterRegex: 'src/'}", "a.cc", "--"),
        ("a.cc", "--", "-fmacro-prefix-map=/a=/b"),
        ("a.cc", "--", "-Wmissing-include-dirs"),
        ("a.cc", "--", "--sysroot=/opt/x"),
        ("/home/you/a.cc", "--"),
    ],
)
def test_what_stays(words: tuple[str, ...]) -> None:
    with pytest.raises(NotPortableError):
        _argv(_read(*words))
