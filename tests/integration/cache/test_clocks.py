"""Texts that mention a clock and do not read it are kept here, and travel to a farm."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pytest

from hpcc.cache.base import files
from hpcc.cache.cache import Cache
from hpcc.cache.inputs import embedded_files
from hpcc.cache.inputs.clocks import CLOCKS
from hpcc.cache.results import pending
from hpcc.compilers.scan.scan import Hazard, Scan, scan_source
from hpcc_testkit.cache.compiles import FakeLauncher, FakeRemote, run_bare

from .conftest import Project

_REDEFINED = ("-Wno-builtin-macro-redefined", '-D__DATE__="redacted"', '-D__TIME__="redacted"')
_MENTIONS: dict[str, tuple[str, tuple[str, ...]]] = {
    "unused": ("#define VERSION __DATE__ __TIME__ __TIMESTAMP__\nint x;\n", ()),
    # mbedTLS, CPython, git, zlib
    "attribute": ("typedef int t __attribute__((mode(TI)));\nt x;\n", ()),
    "pieces": ("#define AT 49\nenum { TIME, DATE_ };\n#define D(t) DATE_##t\nint x = AT;\n", ()),
    "redefined": ("const char *x = __DATE__ __TIME__;\n", _REDEFINED),
    "a-time-in-a-string": ('enum { TIME, };\nconst char x[] = "Thu Oct 19 24:00:04 2006";\n', ()),
}


@pytest.fixture
def remote() -> FakeRemote:
    return FakeRemote()


@pytest.mark.parametrize("compiler", ["gcc", "clang"])
@pytest.mark.parametrize("name", list(_MENTIONS))
def test_a_mention_is_kept_and_travels(
    name: str,
    compiler: str,
    make_cache: Callable[..., Cache],
    project: Project,
    remote: FakeRemote,
) -> None:
    text, flags = _MENTIONS[name]
    project.write("src/version.h", text)
    project.write("src/clock.c", '#include "version.h"\n')
    project.settle()
    argv = (compiler, *flags, "-c", "src/clock.c", "-o", "build/clock.o")
    assert run_bare(argv, cwd=project.directory)[0] == 0
    expected = (project.directory / "build/clock.o").read_bytes()
    for farm, kind in ((None, "hit.local"), (remote, "hit.remote")):
        cache = make_cache(farm)
        before = cache.counters().get(kind, 0)
        launcher = FakeLauncher(handler=cache, cwd=project.directory)
        for _ in range(2):
            assert launcher.compile(*argv).exit_code == 0
            assert (project.directory / "build/clock.o").read_bytes() == expected
        counters = cache.counters()
        assert counters[kind] == before + 1, counters
    assert len(remote.requests) == 1


@pytest.mark.parametrize("clock", ["__DATE__", "__TIME__", "__TIMESTAMP__"])
def test_a_clock_that_becomes_used_stays_here(
    clock: str, make_cache: Callable[..., Cache], project: Project, remote: FakeRemote
) -> None:
    cache = make_cache(remote)
    launcher = FakeLauncher(handler=cache, cwd=project.directory)
    project.write("src/version.h", f"#define VERSION {clock}\n")
    project.write("src/clock.c", '#include "version.h"\nint x;\n')
    project.settle()
    argv = ("gcc", "-c", "src/clock.c", "-o", "build/clock.o")
    assert [launcher.compile(*argv).answer for _ in range(2)] == ["done", "done"]
    project.write("src/clock.c", '#include "version.h"\nconst char *x = VERSION;\n')
    project.settle()
    assert [launcher.compile(*argv).answer for _ in range(2)] == ["run", "run"]
    assert len(remote.requests) == 1
    reason = "timestamp" if clock == "__TIMESTAMP__" else "date-time"
    assert cache.counters()[f"fallback.{reason}"] == 2
    assert cache.counters()[f"uncacheable.{reason}"] == 2


@pytest.mark.parametrize("compiler", ["gcc", "clang"])
def test_a_time_in_an_object_is_a_string_if_the_preprocessor_shows_none_of_its_moment(
    compiler: str,
    make_cache: Callable[..., Cache],
    project: Project,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """A compile of more than a minute meets each second that a string may have."""
    monkeypatch.setattr(pending, "mentions_clock", lambda data, *_: b"24:00:04" in data)
    asked = []

    def look_again(*args: Any, **options: Any) -> tuple[bytes, ...]:
        asked.append(args[4])
        return embedded_files.look_again(*args, **options)

    monkeypatch.setattr(pending, "look_again", look_again)
    cache = make_cache(None)
    launcher = FakeLauncher(handler=cache, cwd=project.directory)
    for name, text in (("with", "24:00:04"), ("without", "24-00-04")):
        project.write(f"src/{name}.c", f'const char x[] = "{text}";\n')
        project.settle()
        argv = (compiler, "-c", f"src/{name}.c", "-o", f"build/{name}.o")
        assert [launcher.compile(*argv).answer for _ in range(2)] == ["run", "done"]
    assert asked == [Hazard.PASTED_CLOCK]


def test_a_clock_that_the_scan_did_not_find_shows_in_the_preprocessors_output(
    make_cache: Callable[..., Cache], project: Project, monkeypatch: pytest.MonkeyPatch
) -> None:
    def scan(*args: Any) -> Scan:
        found = scan_source(*args)
        return replace(found, hazards=found.hazards & ~CLOCKS)

    monkeypatch.setattr(files, "scan_source", scan)
    cache = make_cache(None)
    launcher = FakeLauncher(handler=cache, cwd=project.directory)
    project.write("src/clock.c", "const char *x = __TIME__;\n")
    project.settle()
    argv = ("gcc", "-c", "src/clock.c", "-o", "build/clock.o")
    assert [launcher.compile(*argv).answer for _ in range(2)] == ["run", "run"]
    assert cache.counters()["uncacheable.date-time"] == 2


_PUSH = "attribute push(__attribute__((section(T))), apply_to=variable(is_global))"


@pytest.mark.parametrize("word", ["__TIME__", "JOIN(__TI, ME__)"])
@pytest.mark.parametrize(
    ("pragma", "end"),
    [
        (f"#pragma clang {_PUSH}", "#pragma clang attribute pop"),
        (f'_Pragma("clang {_PUSH}")', "#pragma clang attribute pop"),
        ("# pragma comment(lib, T)", ""),
    ],
    ids=["attribute", "operator", "comment"],
)
def test_a_clock_in_a_pragma_that_only_the_parser_expands_is_not_kept(
    pragma: str, end: str, word: str, make_cache: Callable[..., Cache], project: Project
) -> None:
    lines = ("#define JOIN(a, b) a##b", f"#define T {word}", pragma, "int x = 4;", end)
    project.write("src/clock.c", "\n".join((*lines, "")))
    project.settle()
    cache = make_cache(None)
    launcher = FakeLauncher(handler=cache, cwd=project.directory)
    argv = ("clang", "-c", "src/clock.c", "-o", "build/clock.o")
    for _ in range(2):
        ours = launcher.compile(*argv)
        assert (ours.answer, ours.exit_code) == ("run", 0)
    assert cache.counters()["uncacheable.date-time"] == 2


@pytest.mark.parametrize("compiler", ["gcc", "clang"])
def test_a_clock_in_a_zone_with_other_seconds_is_not_kept(
    compiler: str, make_cache: Callable[..., Cache], project: Project
) -> None:
    """The machine's own zone may be one of `right/`, which count leap seconds."""
    cache = make_cache(None)
    env = {"TZ": "XXX0:00:27"}
    launcher = FakeLauncher(handler=cache, cwd=project.directory, env=env)
    project.write("src/clock.c", "const char *x = __TIME__;\n")
    project.settle()
    argv = (compiler, "-c", "src/clock.c", "-o", "build/clock.o")
    assert [launcher.compile(*argv).answer for _ in range(2)] == ["run", "run"]
    assert cache.counters()["uncacheable.date-time"] == 2
