"""Texts that mention a clock and do not read it are kept here, and travel to a farm."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from hpcc.cache.cache import Cache
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
